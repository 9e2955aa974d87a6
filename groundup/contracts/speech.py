"""What turns sounds into text must offer: processors of speech, and models that emit a symbol a
frame.

Shape legend: B sounds, T frames, F features, O frames after subsampling, V vocabulary, S samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contracts.processors import TextProcessor
from groundup.core.values import Batch, CutInputs

__all__ = ["EmitsFrames", "FitsTranscripts", "ListensOnce", "ReadsSpeech", "WritesItsWindow"]


@runtime_checkable
class EmitsFrames(Protocol):
    """A model that gives, for every few frames of a sound, the logits of a token or of the blank.

    Its forward takes ``inputs`` (B, T, F) and ``lengths`` (B,), and returns (B, O, V + 1).

    Source:
        Graves et al., 2006, "Connectionist temporal classification", section 3.
    """

    @property
    def blank_id(self) -> int:
        """The symbol that stands for no token: V, the last one."""

    @property
    def reach(self) -> int:
        """How many frames one frame of the output stands for."""

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return how many frames of the output (B,) belong to sounds of ``lengths`` frames."""


@runtime_checkable
class FitsTranscripts(Protocol):
    """A task that knows which transcripts a model cannot write for their sounds."""

    def beyond_frames(self, model: nn.Module, batch: Batch) -> list[int]:
        """Return the rows of a batch whose transcripts need more frames than their sounds give."""


@runtime_checkable
class ListensOnce(Protocol):
    """An encoder-decoder of sounds that tells more about them than a text: whether something is
    said, and where. What its ``encode`` kept of sounds in one cache, another takes over."""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The tokens after ``start_id`` that every transcript begins with, such as the language of
        what is said: they are given, not learned."""

    @property
    def suppressed(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens that are never written, and those that no transcript begins with."""

    @property
    def no_speech_id(self) -> int | None:
        """The token whose probability after the start token is that nothing is said, if there is
        one."""

    def in_window(self, frames: Tensor, lengths: Tensor | None) -> Tensor:
        """Return all that is read of sounds (B, T, F) of ``lengths`` (B,) frames: each with the
        silence after it."""

    def attention_to_sound(self, tokens: Tensor, encoded: Mapping[str, Tensor]) -> Tensor:
        """Return (B, N, T, S) how much tokens (B, T) attend to each two frames of the sounds in
        ``encoded``, which is a cache's, by N heads that follow the sound."""


@runtime_checkable
class WritesItsWindow(Protocol):
    """Settings of a model of which ``to_huggingface`` leaves out what its window does not reach."""

    def kept_by_huggingface(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights that are written."""


@runtime_checkable
class ReadsSpeech(Protocol):
    """A processor that makes frames of sounds, and tokens of their transcripts."""

    @property
    def cut(self) -> CutInputs | None:
        """What was counted of the sounds encoded so far; None where nothing is."""

    @property
    def tokenizer(self) -> TextProcessor:
        """What reads transcripts."""

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""

    @property
    def sample_rate(self) -> int:
        """Samples a second that every sound is brought to."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(0, F): the number of frames varies."""

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return ``inputs`` (B, T, F) float32 and ``lengths`` (B,) of sounds."""

    def encode_samples(self, sounds: Sequence[NDArray[Any]]) -> Batch:
        """Return what ``encode_inputs`` does, of samples (S,) each at ``sample_rate``."""

    def read_samples(self, source: Any, name: str = "") -> NDArray[np.float32]:
        """Return the samples (S,) of a path, bytes or (samples, rate), at ``sample_rate``."""

    def encode_transcripts(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the tokens of each transcript; what no training transcript holds is counted."""

    def frames_of_samples(self, samples: NDArray[Any], rate: int) -> NDArray[np.float32]:
        """Return the frames (T, F) of samples (S,)."""
