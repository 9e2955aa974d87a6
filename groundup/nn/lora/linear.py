"""Linear layers with a small trained change of low rank next to them.

Shape legend: I inputs of the layer, O its outputs, R the adapter's rank.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.lora.divided import is_divided
from groundup.nn.lora.fused import Change, changed_row_norms, low_rank_linear
from groundup.nn.lowbit.nf4 import QuantizedLinear, QuantizedWeight, add_bias
from groundup.recipe.adapter import Adapter

__all__ = ["AdaptedLinear", "merge_weight", "plain_linear", "row_norms"]


class AdaptedLinear(nn.Module):
    """A linear layer with weight W whose change is learned as a product of two thin matrices, scale
    * B A.

    LoRA computes ``x W^T + scale * dropout(x) A^T B^T + bias``. A starts random and B at zero, so
    the layer starts as it was. ``scale`` is alpha / R, or alpha / sqrt(R) if rank-stabilised. DoRA
    then gives each output's row of ``V = W + scale * B A`` a length that is learned apart from its
    direction, ``magnitude * V / |V|``; as in section 4.3 of its paper no gradient goes through
    ``|V|``.

    The tensors of the linear layer keep their names, and ``weight`` is the weight as changed: code
    that reads a layer's weight rather than calling it sees the adapter as well (without its
    dropout).

    Next to a layer whose weight is quantized, W is what the few bits mean. Merging turns it into
    float32 and adds the change there: the sum is not quantized again, which would lose much of it.

    Args:
        linear: The layer; its parameters are shared, not copied. Freezing them is up to the caller.
        rank: R, from 1 to the smaller of I and O.
        settings: ``alpha``, ``dropout``, ``rank_stabilized``, and by ``name`` whether it is LoRA or
            DoRA.

    Source:
        Hu et al., LoRA, 2021 (arXiv:2106.09685), section 4.1; A is drawn as the authors' code draws
        it. Kalajdzievski, rsLoRA, 2023 (arXiv:2312.03732), section 3. Liu et al., DoRA, 2024
        (arXiv:2402.09353), equations 5 and 11; the norm is that of each output's row, as in the
        authors' code. Departs from that code in that dropout is applied to what goes into A only,
        not to what goes into W.
    """

    bias: nn.Parameter | None
    magnitude: nn.Parameter | None
    stored: QuantizedWeight | None

    def __init__(self, linear: nn.Linear | QuantizedLinear, rank: int, settings: Adapter) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        weight = linear.weight
        # Both go past ``weight`` below, which is the weight as changed.
        if isinstance(linear, QuantizedLinear):
            self.stored = linear.stored
            self._parameters["weight"] = None
        else:
            self.stored = None
            # A linear layer without quantized weights has a parameter.
            self._parameters["weight"] = cast(nn.Parameter, weight)
        self.register_parameter("bias", linear.bias)
        self.scale = settings.scale(rank)
        self.dropout = settings.dropout
        self.lora_A = nn.Parameter(weight.new_empty(rank, linear.in_features))
        self.lora_B = nn.Parameter(weight.new_zeros(linear.out_features, rank))
        # As torch draws a linear layer, which is how the authors' code draws A.
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.register_parameter("magnitude", None)
        if settings.name == "dora":
            lengths = row_norms(weight).detach()
            self.register_parameter("magnitude", nn.Parameter(lengths))
        self._unmerged: Tensor | None = None

    @property
    def linear_weight(self) -> Tensor:
        """The weight of the linear layer, (O, I): as it was, or with the adapter in it while
        merged."""
        parameter = self._parameters["weight"]
        if parameter is not None:
            return parameter
        assert self.stored is not None
        return self.stored.dequantized()

    @property
    def merged(self) -> bool:
        """Whether the adapter is in the linear layer's weight now."""
        in_floats = self.stored is not None and self._parameters["weight"] is not None
        return in_floats or self._unmerged is not None

    @property
    def weight(self) -> Tensor:
        """The weight as changed by the adapter, (O, I)."""
        if self.merged or is_divided(self._parameters["weight"]):
            return self.linear_weight
        return merge_weight(
            self.linear_weight, self.lora_A, self.lora_B, self.scale, self.magnitude
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., O) from x (..., I)."""
        if self.merged:
            return F.linear(x, self.linear_weight, self.bias)
        # The usual case has an operation of its own, which keeps less for the backward pass.
        if self._frozen(x):
            return self._low_rank(x, None)
        dropped = F.dropout(x, self.dropout, self.training)
        low = F.linear(F.linear(dropped, self.lora_A), self.lora_B) * self.scale
        if self.magnitude is None:
            return self._linear(x, self.bias) + low
        # Lengths in bf16 would be too coarse to divide by.
        with torch.autocast(x.device.type, enabled=False), torch.no_grad():
            lengths = changed_row_norms(self.linear_weight, self.lora_A, self.lora_B, self.scale)
        gain = (self.magnitude / lengths).to(low.dtype)
        return add_bias((self._linear(x, None) + low) * gain, self.bias)

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        """Return (..., O) from silu(gate) * up, each (..., I), without keeping that product for the
        backward pass."""
        # A hook wants to see the layer's input, which ``gated`` never makes.
        hooked = self._forward_hooks or self._forward_pre_hooks
        if hooked or self.merged or not self._frozen(gate):
            out: Tensor = self(F.silu(gate) * up)
            return out
        return self._low_rank(gate, up)

    def _frozen(self, x: Tensor) -> bool:
        """Whether all but the adapter is frozen, in the dtype of x, and trained eagerly."""
        eager = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if not eager or torch.is_autocast_enabled(x.device.type):
            return False
        own = [each for each in (self._parameters["weight"], self.bias) if each is not None]
        frozen = not any(each.requires_grad for each in own)
        return frozen and all(each.dtype == x.dtype for each in (*own, self.lora_A))

    def _low_rank(self, x: Tensor, up: Tensor | None) -> Tensor:
        dropped = self.dropout if self.training else 0.0
        own = self._parameters["weight"]
        if own is not None:
            weight: tuple[Tensor, ...] = (own,)
            change = Change(self.scale, dropped)
        else:
            assert self.stored is not None
            weight = self.stored.stored
            change = Change(self.scale, dropped, self.stored.shape)
        adapter = (self.lora_A, self.lora_B, self.magnitude)
        return low_rank_linear(x, up, weight, self.bias, adapter, change)

    def _linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return what the layer computes without the adapter, with the given bias."""
        if self.stored is None:
            return F.linear(x, self.linear_weight, bias)
        return add_bias(self.stored(x), bias)

    @torch.no_grad()
    def merge(self) -> None:
        """Put the adapter into the weight, so that the layer costs what it did without one. A copy
        of W is kept."""
        if self.merged:
            return
        # Computed before the weight is replaced.
        changed = self.weight
        if self.stored is not None:
            self._parameters["weight"] = nn.Parameter(changed, requires_grad=False)
        else:
            # Kept, because subtracting the change again would not give the same bits. The tensors
            # change places: copies would cost a tenth of writing a group of short answers.
            self._unmerged = self.linear_weight.data
            self.linear_weight.data = changed

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put back the weight as it was, to the last bit."""
        if self.stored is not None:
            self._parameters["weight"] = None
        elif self._unmerged is not None:
            self.linear_weight.data = self._unmerged
            self._unmerged = None

    def restored(self) -> nn.Linear | QuantizedLinear:
        """Return the linear layer as it was without the adapter, sharing the weight."""
        self.unmerge()
        if self.stored is not None:
            return QuantizedLinear(self.stored, self.bias).train(self.training)
        return plain_linear(self.linear_weight, self.bias).train(self.training)


def plain_linear(weight: Tensor, bias: nn.Parameter | None) -> nn.Linear:
    """Return a linear layer with a weight (O, I), shared where it is a parameter."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    if not isinstance(weight, nn.Parameter):
        weight = nn.Parameter(weight, requires_grad=False)
    linear.weight = weight
    linear.register_parameter("bias", bias)
    return linear


def row_norms(weight: Tensor) -> Tensor:
    """Return the Euclidean length of each output's row, (O,)."""
    lengths: Tensor = torch.linalg.vector_norm(weight, dim=1)
    return lengths


def merge_weight(
    weight: Tensor, a: Tensor, b: Tensor, scale: float, magnitude: Tensor | None
) -> Tensor:
    """Return the weight (O, I) that computes what a linear layer and its adapter compute
    together."""
    with torch.autocast(weight.device.type, enabled=False):
        changed = torch.addmm(weight, b, a, alpha=scale)
        if magnitude is None:
            return changed
        # No gradient goes through the norm: section 4.3 of DoRA's paper.
        return changed * (magnitude / row_norms(changed.detach()))[:, None]
