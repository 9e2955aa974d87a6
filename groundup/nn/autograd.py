"""Operations that have a backward pass of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["apply"]


def apply(operation: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    """Return the one tensor that an operation makes of its inputs."""
    # PyTorch states no types here.
    made: Tensor = operation.apply(*inputs)  # type: ignore[no-untyped-call]
    return made
