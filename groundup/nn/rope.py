"""Rotary position embedding.

Shape legend: B rows, T positions, H heads, D head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rotary_angles", "rotate"]


def rotary_angles(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines by which ``rotate`` turns each pair of channels.

    Args:
        positions: (..., T) integers.
        head_dim: D, even.
        theta: The longest wavelength is ``2 pi theta`` positions.

    Returns:
        Two float32 tensors (..., T, 1, D): the cosines twice, and the sines, negative in the first half. They are
        computed afresh in float32 so that no cast of the model blurs them.

    Source:
        Su et al., RoFormer, 2021 (arXiv:2104.09864), equation 15.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim
    angles = positions[..., None, None].float() * (1.0 / theta**exponents)
    cosines, sines = angles.cos(), angles.sin()
    return torch.cat((cosines, cosines), -1), torch.cat((-sines, sines), -1)


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn channel i of x (B, T, H, D) together with channel i + D/2, in x's dtype or float32 if that is finer.

    Departs from the paper: pairs (i, i + D/2) as Llama's published weights have it, not (2i, 2i + 1).
    """
    wide = x.to(torch.promote_types(x.dtype, cosines.dtype))  # one cast: mixed dtypes are slow in every product
    return (wide * cosines + wide.roll(x.shape[-1] // 2, -1) * sines).to(x.dtype)
