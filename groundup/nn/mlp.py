"""The position-wise part of a transformer block, gated or plain."""

from __future__ import annotations

import math
from typing import Literal, Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "MLP",
    "Activation",
    "AnyActivation",
    "GatedProduct",
    "default_width",
    "round_up",
]

Activation = Literal["swiglu", "gelu", "gelu_tanh"]
AnyActivation = Literal["swiglu", "geglu_tanh", "gelu", "gelu_tanh", "relu", "silu"]


def default_width(width: int, activation: AnyActivation) -> int:
    """Return the usual inner width: 4 x width; for swiglu, which has a third matrix, 8/3 x width
    rounded up to a multiple of 64."""
    if activation != "swiglu":
        return 4 * width
    # As many weights as two matrices of 4 x width have; multiples of 64 suit the kernels.
    return round_up(math.ceil(8 * width / 3), 64)


def round_up(number: int, multiple: int) -> int:
    """Return the least multiple that is not below a number."""
    return -(-number // multiple) * multiple


@runtime_checkable
class GatedProduct(Protocol):
    """A layer that computes ``layer(silu(gate) * up)`` at once, as one with an adapter does to save
    memory."""

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        """Return it."""


class MLP(nn.Module):
    """``down(act(gate(x)) * up(x))``, SiLU for swiglu and GELU for geglu_tanh, otherwise
    ``down(act(up(x)))``.

    Args:
        width: C.
        hidden: The inner width.
        activation: ``..._tanh`` is the approximation of GELU that GPT-2 uses.

    Source:
        Shazeer, GLU Variants Improve Transformer, 2020 (arXiv:2002.05202), equation 6; GELU:
        Hendrycks and Gimpel, 2016 (arXiv:1606.08415).
    """

    def __init__(self, width: int, hidden: int, activation: AnyActivation, bias: bool) -> None:
        super().__init__()
        self.gate: nn.Linear | None = None
        if activation in ("swiglu", "geglu_tanh"):
            self.gate = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)
        self.activation = activation
        self.approximate = "tanh" if activation.endswith("_tanh") else "none"

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., C) from x (..., C)."""
        if self.gate is None:
            return self.down(self._activate(self.up(x)))  # type: ignore[no-any-return]
        gate = self.gate(x)
        if self.activation != "swiglu":
            return self.down(self._activate(gate) * self.up(x))  # type: ignore[no-any-return]
        if isinstance(self.down, GatedProduct):
            return self.down.gated(gate, self.up(x))
        return self.down(F.silu(gate) * self.up(x))  # type: ignore[no-any-return]

    def _activate(self, x: Tensor) -> Tensor:
        if self.activation == "relu":
            return F.relu(x)
        if self.activation == "silu":
            return F.silu(x)
        return F.gelu(x, approximate=self.approximate)
