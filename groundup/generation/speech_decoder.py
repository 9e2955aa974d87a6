"""A transformer of sounds that writes quickly on a CPU: it listens as the model does, and each
token is a step of ``TwoStackDecoder``.

Shape legend: B sounds, L frames, F numbers of a frame, R rows that are written, T tokens, S
    positions of the encoder, N heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from groundup.generation.two_stack_decoder import TwoStackDecoder
from groundup.nn.kv_cache import KeyValueCache

__all__ = ["SpeechDecoder"]


class SpeechDecoder(nn.Module):
    """A ``SpeechTransformer`` that decodes quickly.

    Args:
        model: The model, whose weights it shares.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.steps = TwoStackDecoder(model)
        self.config = model.config
        self.eval()

    @property
    def model(self) -> Any:
        """The model."""
        return self.steps.model

    @property
    def start_id(self) -> int:
        """The token before every text."""
        return self.steps.start_id

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The tokens between the start token and every transcript."""
        found: tuple[int, ...] = self.model.prompt_ids
        return found

    @property
    def suppressed(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens that are never written, and those that no transcript begins with."""
        found: tuple[tuple[int, ...], tuple[int, ...]] = self.model.suppressed
        return found

    @property
    def no_speech_id(self) -> int | None:
        """The token whose probability at the first place is that nothing is said."""
        found: int | None = self.model.no_speech_id
        return found

    def new_cache(self, batch: int, length: int) -> KeyValueCache:
        """Return an empty cache for ``batch`` rows of at most ``length`` tokens."""
        return self.steps.new_cache(batch, length)

    def encode(self, cache: KeyValueCache, **inputs: Tensor) -> None:
        """Read sounds, or take over what was read of them, as the model does."""
        self.steps.encode(cache, **inputs)

    def in_window(self, frames: Tensor, lengths: Tensor | None) -> Tensor:
        """Return all that is read of sounds (B, L, F) of ``lengths`` (B,) frames."""
        found: Tensor = self.model.in_window(frames, lengths)
        return found

    def attention_to_sound(self, tokens: Tensor, encoded: Mapping[str, Tensor]) -> Tensor:
        """Return (B, N, T, S) how much tokens (B, T) attend to each position of sounds."""
        found: Tensor = self.model.attention_to_sound(tokens, encoded)
        return found

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        *,
        cache: KeyValueCache,
        last_only: bool = False,
    ) -> Tensor:
        """Return logits (R, T or 1, V) as the model does."""
        logits: Tensor = self.steps(tokens, positions, cache=cache, last_only=last_only)
        return logits
