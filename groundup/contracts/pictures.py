"""Pictures as tensors that other programs can make, and as codes of a codebook.

Shape legend: B pictures, C channels, H and W pixels, R rows and S columns of codes.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

__all__ = ["DescribesPictures", "PictureCodes"]


@runtime_checkable
class PictureCodes(Protocol):
    """A model that brings a picture to a grid of codes, and codes back to a picture."""

    @property
    def codebook_size(self) -> int:
        """How many codes there are, K: a code is 0 .. K - 1."""

    @property
    def grid(self) -> tuple[int, int]:
        """(R, S), how many codes a picture has."""

    def codes(self, inputs: Tensor) -> Tensor:
        """Return int64 (B, R, S) of pictures (B, C, H, W) as the model reads them."""

    def from_codes(self, codes: Tensor) -> Tensor:
        """Return (B, C, H, W), as the model reads pictures, of codes (B, R, S).

        Raises:
            DataError: If a code is not in the codebook.
        """


@runtime_checkable
class DescribesPictures(Protocol):
    """A processor of pictures that another program can do without, by a few numbers."""

    def describe(self) -> dict[str, Any]:
        """Return how pictures become tensors, as values of JSON:

        - ``shape``: channels, height, width of the tensor; ``channels``: ``RGB`` or ``grey``;
        - ``size``: height and width that pictures are resized to, or must have; ``resize``:
          ``stretch``, ``pad`` (as large as fits, in the middle of black), ``crop`` (the middle of
          what covers it; ``resize_shorter`` says how large), or null: pictures have that size;
          ``resample``: ``linear`` or ``cubic``, over the area that a new pixel covers;
        - ``white``: the number of white pixels; ``mean`` and ``std`` of each channel, in these
          numbers: the tensor is (pixel - mean) / std;
        - ``pad_to``: height and width to pad the tensor to with zeros on all sides, or null.
        """
