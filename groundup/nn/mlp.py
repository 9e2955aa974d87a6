"""The position-wise part of a transformer block, gated or plain."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MLP", "Activation"]

Activation = Literal["swiglu", "gelu", "gelu_tanh"]


class MLP(nn.Module):
    """``down(silu(gate(x)) * up(x))`` for swiglu, otherwise ``down(gelu(up(x)))``.

    Args:
        width: C.
        hidden: The inner width.
        activation: ``gelu_tanh`` is the tanh approximation that GPT-2 uses.

    Source:
        Shazeer, GLU Variants Improve Transformer, 2020 (arXiv:2002.05202), equation 6; GELU: Hendrycks and Gimpel,
        2016 (arXiv:1606.08415).
    """

    def __init__(self, width: int, hidden: int, activation: Activation, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=bias) if activation == "swiglu" else None
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)
        self.approximate = "tanh" if activation == "gelu_tanh" else "none"

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., C) from x (..., C)."""
        if self.gate is None:
            return self.down(F.gelu(self.up(x), approximate=self.approximate))  # type: ignore[no-any-return]
        gate, up = self.gate(x), self.up(x)
        gated = getattr(self.down, "gated", None)  # an adapter beside the layer saves memory so
        return self.down(F.silu(gate) * up) if gated is None else gated(gate, up)  # type: ignore[no-any-return]
