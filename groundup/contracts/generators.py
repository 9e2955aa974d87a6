"""What a model that makes pictures out of noise must offer.

Shape legend: B pictures, C channels, H rows, W columns, S positions of a text, D its width.

The time of a picture on its way goes from 0, where it is all noise, to 1, where it is done. What is
asked for is a class by its number, a text by the states of an encoder, or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

__all__ = ["PictureGenerator", "WritesDiffusers"]


@runtime_checkable
class PictureGenerator(Protocol):
    """A model that says what a picture will be, from what it is on its way.

    It is called as ``model(inputs, times, spans=..., classes=...)`` and returns (B, C, H, W):

    - ``inputs`` (B, C, H, W): pictures on their way, (1 - time) of noise and time of the picture;
    - ``times`` (B,): how far each is;
    - ``spans`` (B,): how far the step goes that starts there; None: no way at all, which asks for
      the direction at that place. With a span the outputs are where the straight line goes on to
      that has the mean direction of the way;
    - ``classes`` (B,): what is asked for; ``class_count`` where nothing is.
    """

    @property
    def class_count(self) -> int:
        """How many classes can be asked for; 0: none, and ``classes`` is not given."""

    def __call__(
        self,
        inputs: Tensor,
        times: Tensor,
        spans: Tensor | None = None,
        classes: Tensor | None = None,
    ) -> Tensor: ...


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
