"""RMSNorm with its own backward pass on a CPU, where torch 2.13 builds it from a dozen elementwise
operations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from groundup.nn.autograd import apply

__all__ = [
    "FrozenNorm",
    "RMSNorm",
    "ShiftedRMSNorm",
    "freeze_norms",
    "keep_frozen_statistics",
]

# A weight above it can be divided out of the output again without loss.
_DIVISIBLE = 1e-4


class RMSNorm(nn.RMSNorm):
    """``x / rms(x) * weight`` over the last dimension, half the time of torch's eager one on a CPU.

    Elsewhere, compiled, and where no gradient is wanted it is torch's.

    Source:
        Zhang and Sennrich, 2019 (arXiv:1910.07467), equation 4.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., C) from x (..., C)."""
        if self.eps is None:
            return super().forward(x)
        return _rms_norm(x, self.weight, self.eps)


class ShiftedRMSNorm(nn.Module):
    """``x / rms(x) * (1 + weight)``: weights around 0 instead of 1, as Gemma stores them.

    Source:
        Gemma Team, Gemma, 2024 (arXiv:2403.08295), section 2, and the weights that came with it.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., C) from x (..., C)."""
        return _rms_norm(x, 1.0 + self.weight, self.eps)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    # Compiled, torch fuses its own; on a GPU it has a kernel.
    eager = x.device.type == "cpu" and x.dtype == weight.dtype and not torch.compiler.is_compiling()
    if not eager or not torch.is_grad_enabled():
        return F.rms_norm(x, (weight.shape[0],), weight, eps)
    return apply(_RMSNorm, x, weight, eps)


class _RMSNorm(torch.autograd.Function):
    """Keeps x / rms(x) for the backward pass; of a frozen weight the output, which the next layer
    keeps anyway."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        mean_square: Tensor = (
            torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        )
        scale = mean_square.add_(eps).rsqrt_()
        ctx.from_output = (
            not ctx.needs_input_grad[1] and float(weight.detach().abs().min()) > _DIVISIBLE
        )
        if ctx.from_output:
            out = (x * scale).mul_(weight)
            ctx.save_for_backward(out, scale, weight)
            return out
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        kept, scale, weight = ctx.saved_tensors
        # d rms / d x is along x itself: that part of the gradient is taken away.
        if ctx.from_output:
            along = torch.linalg.vecdot(grad, kept)[..., None].mul_(-1 / kept.shape[-1])
            return (grad * weight).addcmul_(kept / weight, along).mul_(scale), None, None
        product = grad * kept
        along = (product @ weight)[..., None].mul_(-1 / kept.shape[-1])
        grad_x = (grad * weight).addcmul_(kept, along).mul_(scale)
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = product.flatten(0, -2).sum(0)
        return grad_x, grad_weight, None


class FrozenNorm(nn.Module):
    """A batch norm of which nothing is trained and whose statistics stay: weights that came with
    others' statistics go on with these.

    All of it are buffers, so that nothing that makes parameters trainable reaches it.

    Args:
        norm: What it begins as.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, norm.state_dict()[name])

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) from x (B, C, H, W)."""
        own = dict(self.named_buffers())
        return F.batch_norm(
            x, own["running_mean"], own["running_var"], own["weight"], own["bias"], eps=self.eps
        )


def freeze_norms(model: nn.Module) -> None:
    """Put a ``FrozenNorm`` in the place of every batch norm inside a model."""
    for part in list(model.modules()):
        for name, layer in list(part.named_children()):
            if isinstance(layer, nn.BatchNorm2d):
                part.add_module(name, FrozenNorm(layer))


def keep_frozen_statistics(model: nn.Module) -> None:
    """Let batch norms that are not trained keep their statistics, in training too.

    Frozen weights with statistics of other data would be another model.
    """
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d) and not layer.weight.requires_grad:
            layer.eval()
