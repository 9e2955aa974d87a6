"""What a model draws of pictures from their codes.

Legend: N pictures, C channels, H and W pixels, R rows and S columns of codes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contracts.pictures import PictureCodes
from groundup.contracts.processors import LabelProcessor, Pictures
from groundup.generation.scoring import device_of, evaluating
from groundup.media.pixels import to_bytes
from groundup.metrics.pictures import psnr, ssim

__all__ = ["Reconstructions", "reconstruct", "scores_of"]

_AT_ONCE = 64


@dataclass(frozen=True)
class Reconstructions:
    """What is left of N pictures when they have been codes.

    Attributes:
        originals: (N, C, H, W) as the processor makes them, 0 to 1.
        drawn: (N, C, H, W) likewise, rounded to 8 bits.
        codes: (N, R, S).
        codebook: How many codes there are.
    """

    originals: Tensor
    drawn: Tensor
    codes: NDArray[np.int64]
    codebook: int

    @property
    def psnr(self) -> Tensor:
        """(N,) of each picture, in dB."""
        return psnr(self.drawn, self.originals)

    @property
    def pixels(self) -> list[NDArray[np.uint8]]:
        """What is drawn, (H, W) or (H, W, 3) each."""
        return list(to_bytes(self.drawn))


def reconstruct(
    model: nn.Module, inputs: Sequence[Any], processor: LabelProcessor
) -> Reconstructions:
    """Return what a model draws of pictures, from their codes alone."""
    assert isinstance(model, PictureCodes)
    reader = processor.reader
    assert isinstance(reader, Pictures)
    device = device_of(model)
    originals, drawn, codes = [], [], []
    with evaluating(model):
        for first in range(0, len(inputs), _AT_ONCE):
            read = processor.encode_inputs(inputs[first : first + _AT_ONCE])["inputs"]
            found = model.codes(read.to(device))
            # From the codes, not through the model's forward: this is what is left of a picture.
            outputs = model.from_codes(found).float().cpu()
            originals.append(reader.to_pixels(read))
            drawn.append((reader.to_pixels(outputs).clamp(0, 1) * 255).round() / 255)
            codes.append(found.cpu())
    return Reconstructions(
        torch.cat(originals), torch.cat(drawn), torch.cat(codes).numpy(), model.codebook_size
    )


def scores_of(found: Reconstructions) -> dict[str, float]:
    """Return means over the pictures: ``psnr`` in dB, ``ssim``; ``codes_used``, the share of the
    codebook that is used at all; ``effective_codes``, how many codes used equally often would be as
    varied: their perplexity."""
    # Over all pictures at once: each by itself uses few codes.
    counts = np.bincount(found.codes.ravel(), minlength=found.codebook)
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return {
        "psnr": float(found.psnr.mean()),
        "ssim": float(ssim(found.drawn, found.originals).mean()),
        "codes_used": float((counts > 0).mean()),
        "effective_codes": math.exp(float(-(shares * np.log(shares)).sum())),
    }
