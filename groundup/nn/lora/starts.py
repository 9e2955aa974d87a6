"""What adapters take off their base when they begin: a part of its weight, as two thin matrices.

The library PEFT does that again whenever it loads such an adapter.

Shape legend: I inputs of the layer, O its outputs, R the adapter's rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["STARTS"]


def _pissa_start(weight: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """Return A and B that PiSSA begins with: the largest singular values.

    Source:
        Meng et al., PiSSA, 2024 (arXiv:2404.02948), as the library PEFT computes it.
    """
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    roots = (values[:rank] / scale).sqrt()
    return roots[:, None] * right[:rank], left[:, :rank] * roots


def _olora_start(weight: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """Return A and B that OLoRA begins with: of a QR decomposition.

    Source:
        Büyükakyüz, OLoRA, 2024 (arXiv:2406.01775), as the library PEFT computes it.
    """
    q, r = torch.linalg.qr(weight)
    return r[:rank], q[:, :rank]


STARTS = {"pissa": _pissa_start, "olora": _olora_start}
"""By name: returns A (R, I) and B (O, R) from a weight (O, I), R and what their product is
multiplied with."""
