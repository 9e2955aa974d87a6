"""Cross-entropy of a linear output layer of which each process has some of the rows: the logits are
never gathered, of each token two numbers are exchanged forward, and its state's gradient backward.

Shape legend: M tokens, C width, N this process's rows of the vocabulary.

Source:
    Shoeybi et al., Megatron-LM, 2019 (arXiv:1909.08053), section 3, on the output layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from groundup.core.values import IGNORED
from groundup.nn.autograd import apply
from groundup.nn.logits import cap_logits, chunks, wide_dtype, widen
from groundup.parallel.parts import Part
from groundup.parallel.vocabulary import Softmax

__all__ = ["divided_cross_entropy_sum", "divided_log_probs"]


def divided_cross_entropy_sum(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None, part: Part
) -> Tensor:
    """Return the sum of the cross-entropies in nats, as ``linear_cross_entropy_sum`` does.

    Args:
        hidden: (M, C), the same on all processes.
        weight: (N, C).
        targets: (M,) int64; -100 is ignored.
        softcap: Logits are bent to stay between minus and plus this.
        part: Of the vocabulary.
    """
    entered = part.peers.copy_in(hidden)
    needed = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    return apply(_Sum, entered, weight, targets, softcap, part, needed)


def divided_log_probs(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None, part: Part
) -> Tensor:
    """Return log p of each target in nats, (M,), as ``linear_log_probs`` does: with a gradient for
    each, for which the logits are computed again."""
    entered = part.peers.copy_in(hidden)
    return apply(_LogProbs, entered, weight, targets, softcap, part)


class _Sum(torch.autograd.Function):
    """Gradients are computed with the logits, a chunk of tokens at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        softcap: float | None,
        part: Part,
        needed: bool,
    ) -> Tensor:
        total = hidden.new_zeros((), dtype=wide_dtype(hidden))
        grad_hidden = torch.empty_like(hidden) if needed else None
        grad_weight = torch.zeros_like(weight, dtype=total.dtype) if needed else None
        # All processes exchange a chunk at a time, so chunks are those of the largest part.
        for rows in chunks(len(hidden), max(part.lengths), weight):
            target = targets[rows]
            trained = target != IGNORED
            softmax, bend = _softmax(hidden[rows], weight, target.clamp(min=0), softcap, part)
            total -= (softmax.log_probs * trained).sum()
            if grad_hidden is None or grad_weight is None:
                continue
            slopes = softmax.slopes().mul_(-trained[:, None].to(total.dtype))
            grad_weight += _back(slopes, bend, hidden[rows], weight, grad_hidden[rows])
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        of_weight = (grad_weight * grads[0]).to(ctx.dtype) if ctx.needs_input_grad[1] else None
        return (grad_hidden * grads[0]).to(grad_hidden.dtype), of_weight, None, None, None, None


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        softcap: float | None,
        part: Part,
    ) -> Tensor:
        found = hidden.new_empty(len(hidden), dtype=wide_dtype(hidden))
        for rows in chunks(len(hidden), max(part.lengths), weight):
            softmax, _ = _softmax(hidden[rows], weight, targets[rows], softcap, part)
            found[rows] = softmax.log_probs
        ctx.save_for_backward(hidden, weight, targets)
        ctx.softcap = softcap
        ctx.part = part
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets = ctx.saved_tensors
        grad = grads[0][:, None]
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=grad.dtype)
        for rows in chunks(len(hidden), max(ctx.part.lengths), weight):
            softmax, bend = _softmax(hidden[rows], weight, targets[rows], ctx.softcap, ctx.part)
            slopes = softmax.slopes().mul_(grad[rows])
            grad_weight += _back(slopes, bend, hidden[rows], weight, grad_hidden[rows])
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None


def _back(
    slopes: Tensor, bend: Tensor | None, hidden: Tensor, weight: Tensor, grad_hidden: Tensor
) -> Tensor:
    """Write a chunk's gradient of the states to ``grad_hidden``, and return that of the weight."""
    slopes = (slopes if bend is None else slopes.mul_(bend)).to(hidden.dtype)
    torch.mm(slopes, weight, out=grad_hidden)
    return slopes.T @ hidden


def _softmax(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None, part: Part
) -> tuple[Softmax, Tensor | None]:
    """Return the softmax of a chunk, and what a cap multiplies its slopes with."""
    logits = cap_logits(widen(hidden @ weight.T), softcap)
    # The cap's own slope, 1 - tanh^2, before the logits are overwritten.
    bend = 1 - (logits / softcap).square_() if softcap else None
    return Softmax(logits, part, targets), bend
