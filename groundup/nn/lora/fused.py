"""A frozen linear layer and its adapter as one operation, which keeps next to nothing for the
backward pass.

Shape legend: N tokens, I inputs of the layer, O its outputs, R the adapter's rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from groundup.nn.autograd import apply
from groundup.nn.lowbit.nf4 import dequantize

__all__ = ["Change", "changed_row_norms", "low_rank_linear"]

# A gain above it can be divided out of the output again without loss.
_DIVISIBLE = 1e-4


@dataclass(frozen=True)
class Change:
    """What an adapter does to a linear layer, apart from its matrices.

    Attributes:
        scale: What B A is multiplied with.
        dropout: Share of the inputs of A that is dropped now.
        quantized: O and I of a weight that is given in few bits; None: it is given as it is.
    """

    scale: float
    dropout: float = 0.0
    quantized: tuple[int, int] | None = None


def low_rank_linear(
    x: Tensor,
    up: Tensor | None,
    weight: tuple[Tensor, ...],
    bias: Tensor | None,
    adapter: tuple[Tensor, Tensor, Tensor | None],
    change: Change,
) -> Tensor:
    """Return ``gain * (x W^T + scale * dropout(x) A^T B^T) + bias`` with W and bias frozen, (...,
    O).

    Kept are x, which the layer before mostly keeps anyway, and (N, R). A quantized weight becomes
    floats once forward and once backward. Of dropout one byte for each input is kept. The gain of
    DoRA, ``magnitude / |W + scale * B A|`` with no gradient through the norm, needs the sum over
    tokens of the gradient times the output without the gain: it is found from the output itself,
    divided by the gain, so that no other tensor is kept where there is no bias.

    Args:
        x: (..., I).
        up: (..., I), or None; if given, silu(x) * up takes the place of x. That product is made
            twice and not kept.
        weight: W (O, I) alone, or what ``quantize`` made of it.
        bias: (O,), or None.
        adapter: A (R, I), B (O, R) and the magnitude (O,) of DoRA, or None for LoRA.
        change: The rest.

    Source:
        Hu et al., LoRA, 2021 (arXiv:2106.09685), section 4.1; Dettmers et al., QLoRA, 2023
        (arXiv:2305.14314), section
        3: dequantized again in the backward pass; Liu et al., DoRA, 2024 (arXiv:2402.09353),
            section 4.3.
    """
    return apply(_LowRank, x, up, bias, *adapter, change, *weight)


def changed_row_norms(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return the Euclidean lengths of the rows of ``W + scale * B A``, (O,)."""
    lengths: Tensor = torch.linalg.vector_norm(torch.addmm(weight, b, a, alpha=scale), dim=1)
    return lengths


class _LowRank(torch.autograd.Function):
    """One product follows the other in place; nothing of the size of the output is kept but, for
    DoRA, the output."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        up: Tensor | None,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        magnitude: Tensor | None,
        change: Change,
        *kept: Tensor,
    ) -> Tensor:
        weight = _weight(kept, change, x)
        inputs = _gate(x, up)
        dropped = inputs
        mask = None
        if change.dropout:
            # The same numbers as F.dropout draws.
            dropped, mask = torch.native_dropout(inputs, change.dropout, True)
        low = dropped.flatten(0, -2) @ a.T
        # DoRA's gain is applied before the bias is added.
        out: Tensor = F.linear(inputs.flatten(0, -2), weight, bias if magnitude is None else None)
        out.addmm_(low, b.T, alpha=change.scale)
        # No view: what follows may change it in place.
        out = torch.ops.aten._unsafe_view(out, (*x.shape[:-1], -1))
        ctx.save_for_backward(x, up, a, b, magnitude, low, mask, *kept)
        ctx.change = change
        if magnitude is None:
            return out
        ctx.lengths = changed_row_norms(weight, a, b, change.scale)
        return _apply_gain(ctx, out, magnitude, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, up, a, b, magnitude, low, mask, *kept = ctx.saved_tensors
        change: Change = ctx.change
        weight = _weight(tuple(kept), change, x)
        grad = grad.flatten(0, -2)
        grad_magnitude = None
        if magnitude is not None:
            product = _recall_product(ctx)
            if product is None:
                product = F.linear(_gate(x, up).flatten(0, -2), weight)
                product.addmm_(low, b.T, alpha=change.scale)
                ctx.divisor = ctx.lengths
            grad_magnitude = (grad * product).sum(0).div_(ctx.divisor)
            # Memory at its peak decides how long a text fits: what is used up goes at once.
            del product
            grad = grad * (magnitude / ctx.lengths)
        # The thin products first: the large ones may then be added in place.
        grad_low = (grad @ b).mul_(change.scale)
        grad_b = (grad.T @ low).mul_(change.scale)
        grad_x = grad_up = None
        if any(ctx.needs_input_grad[:2]):
            grad_x = (grad @ weight).view_as(x)
            if mask is None:
                grad_x.flatten(0, -2).addmm_(grad_low, a)
            else:
                grad_x += _drop((grad_low @ a).view_as(x), mask, change.dropout)
        del weight, grad
        inputs = x
        if up is not None:
            inputs = F.silu(x)
            if grad_x is not None:
                grad_up = grad_x * inputs
                grad_x = torch.ops.aten.silu_backward(grad_x.mul_(up), x)
            inputs = inputs.mul_(up)
        if mask is not None:
            inputs = _drop(inputs, mask, change.dropout)
        # Of the inputs as the adapter saw them: dropped.
        grad_a = grad_low.T @ inputs.flatten(0, -2)
        return grad_x, grad_up, None, grad_a, grad_b, grad_magnitude, None, *[None] * len(kept)


def _weight(kept: tuple[Tensor, ...], change: Change, like: Tensor) -> Tensor:
    """Return W (O, I) as floats."""
    if change.quantized is None:
        return kept[0]
    return dequantize(kept, change.quantized).to(like.dtype)


def _gate(x: Tensor, up: Tensor | None) -> Tensor:
    """Return what the layer reads: x, or silu(x) * up, made again each time."""
    if up is None:
        return x
    return F.silu(x).mul_(up)


def _drop(x: Tensor, mask: Tensor, share: float) -> Tensor:
    return (x * mask).mul_(1 / (1 - share))


def _apply_gain(ctx: Any, out: Tensor, magnitude: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply out (..., O) by DoRA's gain in place, and remember it, or what it was before where a
    gain is tiny."""
    gain = magnitude / ctx.lengths
    if float(gain.abs().min()) > _DIVISIBLE:
        out = out.mul_(gain)
        ctx.divisor = magnitude.detach()
        kept = out
    else:
        kept = out
        ctx.divisor = ctx.lengths
        out = out * gain
    # What follows may change the output in place: its version tells whether it did.
    ctx.product = kept.detach()
    ctx.version = kept._version
    if bias is None:
        return out
    return out + bias


def _recall_product(ctx: Any) -> Tensor | None:
    """Return what ``_apply_gain`` remembered, (N, O), and forget it; None where it was changed, or
    forgotten before."""
    product: Tensor | None = ctx.product
    ctx.product = None
    if product is None or product._version != ctx.version:
        return None
    return product.flatten(0, -2)
