"""Weights next to which there is an adapter, while they are divided between processes."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["is_divided"]


def is_divided(weight: Tensor | None) -> bool:
    """Return whether a weight is a process's part of one that others have parts of (a DTensor).

    Such a part is asked for by who divides and gathers weights, as it is: no adapter changes it.
    """
    return weight is not None and type(weight) not in (Tensor, nn.Parameter)
