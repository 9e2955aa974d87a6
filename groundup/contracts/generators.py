"""What a model that makes pictures out of noise must offer.

Shape legend: B pictures, C channels, H rows, W columns, S positions of a text, D its width.

The time of a picture on its way goes from 0, where it is all noise, to 1, where it is done. What is
asked for is a class by its number, a text by the states of an encoder, or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from groundup.contracts.processors import LabelProcessor
from groundup.core.values import Batch

__all__ = ["PictureGenerator", "ReadsCaptions", "WritesDiffusers"]


@runtime_checkable
class PictureGenerator(Protocol):
    """A model that says what a picture will be, from what it is on its way.

    It is called as ``model(inputs, times, spans=..., classes=..., text=..., text_lengths=...)``
    and returns (B, C, H, W):

    - ``inputs`` (B, C, H, W): pictures on their way, (1 - time) of noise and time of the picture;
    - ``times`` (B,): how far each is;
    - ``spans`` (B,): how far the step goes that starts there; None: no way at all, which asks for
      the direction at that place. With a span the outputs are where the straight line goes on to
      that has the mean direction of the way;
    - ``classes`` (B,): what is asked for; ``class_count`` where nothing is;
    - ``text`` (B, S), tokens of what is asked for, or (B, S, D) their states in an encoder, and
      ``text_lengths`` (B,): how many of them are no padding; 0 where nothing is asked for.
    """

    @property
    def class_count(self) -> int:
        """How many classes can be asked for; 0: none, and ``classes`` is not given."""

    @property
    def reads_text(self) -> bool:
        """Whether a text is asked for, and ``text`` given."""

    def __call__(
        self,
        inputs: Tensor,
        times: Tensor,
        spans: Tensor | None = None,
        classes: Tensor | None = None,
        text: Tensor | None = None,
        text_lengths: Tensor | None = None,
    ) -> Tensor: ...


@runtime_checkable
class ReadsCaptions(Protocol):
    """A processor of pictures that also reads the texts that they are asked for by.

    Attributes:
        captions: What reads the texts: as tokens, or as frames.
    """

    captions: LabelProcessor

    def encode_captions(self, texts: Sequence[str]) -> Batch:
        """Return ``text``, tokens, and ``text_lengths`` as ``PictureGenerator`` has them, and
        ``text_states`` where an encoder's states are to be told instead of the tokens. An empty
        text asks for nothing."""


@runtime_checkable
class WritesDiffusers(Protocol):
    """Settings of such a model that has a place in diffusers' layout."""

    def to_diffusers(
        self, weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the contents of config.json and the tensors by that library's names.

        Raises:
            CheckpointError: If a part of it has no place there.
        """
