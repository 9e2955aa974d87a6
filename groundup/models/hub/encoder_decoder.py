"""An encoder-decoder of the library ``transformers`` under groundup's names, with the forward pass
that tasks call.

Shape legend: B inputs, S positions of an input, R rows that are written (B, or a multiple of it),
    T positions, C width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.core.errors import DataError
from groundup.core.values import IGNORED
from groundup.formats.transformers_library import require_transformers
from groundup.models.hub.library_module import LibraryModule
from groundup.models.hub.named_parts import NamedParts
from groundup.models.hub.read_inputs import ReadInputs
from groundup.models.hub.two_stacks import two_stack_parts
from groundup.nn.logits import widen

__all__ = ["HubEncoderDecoder"]

# Tables of positions end there; of some families each stack has its own.
_LONGEST = {
    "source": ("max_encoder_position_embeddings", "max_position_embeddings"),
    "text": ("max_decoder_position_embeddings", "max_position_embeddings"),
}


class HubEncoderDecoder(LibraryModule):
    """The model of a ``HubConfig`` of a family that reads one text and writes another.

    Args:
        config: The settings: ``context_length`` is read.
        tree: The library's module.
        start_id: The token before every output.

    Attributes:
        start_id: The token before every output.
    """

    def __init__(self, config: Any, tree: Any, start_id: int) -> None:
        super().__init__(config, tree)
        self.start_id = start_id
        self._outside = [name for name in self.hf if self.hf[name] in tree._buffers]
        values = tree.config.to_dict()
        self._padding = int(values.get("pad_token_id") or 0)
        self._longest = {
            kind: next((values[key] for key in keys if values.get(key)), None)
            for kind, keys in _LONGEST.items()
        }

    def _find_parts(self, tree: Any) -> NamedParts:
        return two_stack_parts(tree)

    def forward(
        self,
        tokens: Tensor | None = None,
        positions: Tensor | None = None,
        source: Tensor | None = None,
        source_mask: Tensor | None = None,
        text: Tensor | None = None,
        targets: Tensor | None = None,
        cache: ReadInputs | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Predict the next token at every position of a text about an input.

        Args:
            tokens: (R, T) int64, what is written: a start token, and the text. None: ``text``
                moved on by one, with the start token before it.
            positions: (R, T) int64, of tokens after those in the cache; default: what follows.
                Without a cache they are 0 .. T-1.
            source: (B, S) int64, the inputs; None: those that ``encode`` read into the cache.
            source_mask: (B, S) booleans, what of the inputs is no padding, on any side; each has a
                token at least. Default: all.
            text: (R, T) int64, in place of ``tokens``: what is predicted at each position.
            targets: (R, T) int64, the tokens that come next, -100 where nothing is trained.
            cache: What was read and written before; this call adds to it.
            last_only: Return logits of the last position only.

        Returns:
            Without targets the logits (R, T or 1, V). With targets two sums over them: of -log p in
            nats, and of the mean of -log p of all tokens of the vocabulary.

        Raises:
            DataError: If a text is longer than the table of positions.
        """
        self._follow()
        if tokens is None:
            assert text is not None, "there are neither tokens nor a text"
            tokens = F.pad(text[:, :-1], (1, 0), value=self.start_id)
        if source is None:
            assert cache is not None, "there is neither an input nor one that was read"
            written = cache.read(self._write, tokens, positions)
            return written[:, -1:] if last_only else written
        self._check_length("text", tokens)
        source, mask = self._begin_at_left(source, source_mask)
        arguments = self._accepted(use_cache=False)
        logits: Tensor = self.tree(
            input_ids=source, attention_mask=mask.long(), decoder_input_ids=tokens, **arguments
        ).logits
        if targets is not None:
            return _losses(logits, targets)
        return logits[:, -1:] if last_only else logits

    def _follow(self) -> None:
        super()._follow()
        for name in self._outside:
            self.tree._buffers[self.hf[name]] = self.get_buffer(name)

    def _check_length(self, kind: str, tokens: Tensor) -> None:
        longest = self._longest[kind]
        if longest is not None and tokens.shape[1] > longest:
            raise DataError(
                "inputs",
                f"a sequence of {tokens.shape[1]} tokens, but positions end at {longest}",
                f"Cut the texts to {longest} tokens",
            )

    def _begin_at_left(self, source: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return inputs with all padding on the right, and what is none (B, S).

        Some families count the padding before a text as positions of it; and some tell it by its
        token.
        """
        if mask is None:
            mask = torch.ones_like(source, dtype=torch.bool)
        mask = mask.bool()
        order = (~mask).long().argsort(stable=True, dim=1)
        mask = mask.gather(1, order)
        source = source.gather(1, order)[:, : int(mask.sum(1).max())]
        mask = mask[:, : source.shape[1]]
        self._check_length("source", source)
        return source.masked_fill(~mask, self._padding), mask

    # ------------------------------------------------------------------------------------ writing
    def new_cache(self, batch: int, length: int) -> ReadInputs:
        """Return an empty cache for ``batch`` rows of at most ``length`` tokens."""
        keeps = "past_key_values" in self._accepts
        return ReadInputs(batch, next(self.parameters()).device, keeps=keeps)

    def encode(
        self, cache: ReadInputs, *, source: Tensor, source_mask: Tensor | None = None
    ) -> None:
        """Read inputs (B, S), and keep their states in the cache."""
        self._follow()
        source, mask = self._begin_at_left(source, source_mask)
        encoder = self.tree.get_encoder()
        states = encoder(input_ids=source, attention_mask=mask.long()).last_hidden_state
        cache.keep_inputs(states, mask)

    def _write(
        self, tokens: Tensor, states: Tensor, mask: Tensor, past: Any, *, keeps: bool
    ) -> tuple[Tensor, Any]:
        """Return logits (R, T, V) of tokens about inputs that were read, and what the next call is
        given as ``past``."""
        outputs = require_transformers("modeling_outputs").BaseModelOutput
        if keeps and past is None:
            past = self._new_past()
        arguments = self._accepted(past_key_values=past, use_cache=keeps)
        found = self.tree(
            encoder_outputs=outputs(last_hidden_state=states),
            attention_mask=mask.long(),
            decoder_input_ids=tokens,
            **arguments,
        )
        return found.logits, found.get("past_key_values") if keeps else None

    def _new_past(self) -> Any:
        caches = require_transformers("cache_utils")
        # Not by the settings: of these the library takes as many layers as the encoder has.
        return caches.EncoderDecoderCache(caches.DynamicCache(), caches.DynamicCache())


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (2,) the sums of -log p of targets, and of its mean over the vocabulary."""
    kept = targets != IGNORED
    log_probs = widen(logits[kept]).log_softmax(-1)
    total = -log_probs.gather(1, targets[kept][:, None]).sum()
    return torch.stack((total, -log_probs.mean(-1).sum()))
