"""Pictures as codes of a codebook.

Shape legend: B pictures, C channels, H and W pixels, R rows and S columns of codes.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

__all__ = ["PictureCodes"]


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
