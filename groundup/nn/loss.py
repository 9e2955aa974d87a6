"""Cross-entropy of a linear output layer, without ever holding all logits.

Shape legend: M tokens, C width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.core.values import IGNORED
from groundup.machine.lazy_compiler import spare_the_compiler
from groundup.nn.autograd import apply
from groundup.nn.divided_loss import divided_cross_entropy_sum, divided_log_probs
from groundup.nn.logits import (
    cap_logits,
    cast,
    chunk_bytes,
    chunk_size,
    chunks,
    wide_dtype,
    widen,
)
from groundup.parallel.vocabulary import part_of

__all__ = [
    "linear_cross_entropy",
    "linear_cross_entropy_sum",
    "linear_log_probs",
]

# Tokens. Numbers of trained tokens are rounded up to it, so that few shapes occur.
_MULTIPLE = 256


def linear_cross_entropy_sum(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None = None
) -> Tensor:
    """Return the sum of the cross-entropies in nats, a scalar in float32 (float64 for float64
    inputs).

    Small logits are computed at once. Large ones are computed a chunk of tokens at a time, and
    their gradients with them, so that the memory is that of one chunk and the matrix products are
    no more than the plain computation's. ``torch.nn.functional.linear_cross_entropy`` does the
    same, but not under ``torch.compile`` in one graph, nor before torch 2.13; this operator does
    both. Tokens that are not trained on are left out where they are many.

    Args:
        hidden: (M, C).
        weight: (V, C).
        targets: (M,) int64; -100 is ignored.
        softcap: Logits are bent to stay between minus and plus this, as ``cap_logits`` does it;
            None: they are not.

    Source:
        Wijmans et al., Cut Your Losses in Large-Vocabulary Language Models, 2024
        (arXiv:2411.09009), the idea of never holding the logits; the chunks with gradients in the
        forward pass are those of Hsu et al., Liger Kernel, 2024 (arXiv:2410.10989), section 3.
    """
    part = part_of(weight)
    hidden, targets = _only_trained(cast(hidden), targets)
    weight = cast(weight)
    if part is not None:
        return divided_cross_entropy_sum(hidden, weight, targets, softcap, part)
    # Less than a chunk: there is nothing to save.
    if hidden.shape[0] * weight.shape[0] * 4 <= chunk_bytes(weight):
        logits = cap_logits(widen(F.linear(hidden, weight)), softcap)
        return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    needed = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    trained = needed and weight.requires_grad
    total: Tensor = _chunked(hidden, weight, targets, needed, trained, softcap or 0.0)[0]
    return total


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None = None
) -> Tensor:
    """Return the cross-entropy of each token in nats, (M,), 0 where the target is -100. For
    evaluation: no gradient."""
    divided = part_of(weight)
    with torch.no_grad():
        hidden = cast(hidden)
        weight = cast(weight)
        if divided is not None:
            chosen = targets.clamp(min=0)
            log_probs = divided_log_probs(hidden, weight, chosen, softcap, divided)
            return torch.where(targets != IGNORED, -log_probs, 0.0)
        size = chunk_size(len(weight), weight)
        losses = hidden.new_zeros(len(hidden), dtype=wide_dtype(hidden))
        # Only tokens that are scored are multiplied with the output layer.
        for part in torch.split((targets != IGNORED).nonzero()[:, 0], size):
            logits = cap_logits(widen(F.linear(hidden.index_select(0, part), weight)), softcap)
            losses[part] = F.cross_entropy(logits, targets[part], reduction="none")
        return losses


def linear_log_probs(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None = None
) -> Tensor:
    """Return log p of each target in nats, (M,), with a gradient for each, and never all logits at
    once.

    Losses that compare sequences know the gradient of a token only after all of them. Where the
    weight is frozen, as next to an adapter, d log p / d hidden is kept from the forward pass; else
    logits are computed again, backward.

    Args:
        hidden: (M, C).
        weight: (V, C).
        targets: (M,) int64, all of them tokens.
        softcap: Logits are bent to stay between minus and plus this, as ``cap_logits`` does it;
            None: they are not.
    """
    part = part_of(weight)
    hidden = cast(hidden)
    weight = cast(weight)
    if part is not None:
        return divided_log_probs(hidden, weight, targets, softcap, part)
    needed = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    # Of a frozen weight only d log p / d hidden is wanted: it can be kept in place of the logits.
    keeps = needed and not weight.requires_grad
    return apply(_LogProbs, hidden, weight, targets, keeps, softcap)


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        keeps_slopes: bool,
        softcap: float | None,
    ) -> Tensor:
        ctx.softcap = softcap
        found = hidden.new_empty(len(hidden), dtype=wide_dtype(hidden))
        slopes = torch.empty_like(hidden) if keeps_slopes else None
        for rows in chunks(len(hidden), len(weight), weight):
            logits = cap_logits(widen(hidden[rows] @ weight.T), softcap)
            index = targets[rows, None]
            norm = logits.logsumexp(1, keepdim=True)
            found[rows] = (logits.gather(1, index) - norm)[:, 0]
            if slopes is not None:
                slopes[rows] = _slopes(logits, norm, index, softcap).to(hidden.dtype) @ weight
        if slopes is None:
            ctx.save_for_backward(hidden, weight, targets)
        else:
            ctx.save_for_backward(slopes)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # Of each token's log p by itself: losses of whole answers weigh them differently.
        grad = grads[0][:, None]
        if len(ctx.saved_tensors) == 1:
            (kept,) = ctx.saved_tensors
            return (kept * grad).to(kept.dtype), None, None, None, None
        hidden, weight, targets = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        # Chunks are added up in the gradient's finer dtype: in bf16 late ones would be lost.
        grad_weight = torch.zeros_like(weight, dtype=grad.dtype)
        for rows in chunks(len(hidden), len(weight), weight):
            logits = cap_logits(widen(hidden[rows] @ weight.T), ctx.softcap)
            norm = logits.logsumexp(1, keepdim=True)
            slopes = _slopes(logits, norm, targets[rows, None], ctx.softcap)
            slopes = slopes.mul_(grad[rows]).to(hidden.dtype)
            torch.mm(slopes, weight, out=grad_hidden[rows])
            grad_weight += slopes.T @ hidden[rows]
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None


def _slopes(logits: Tensor, norm: Tensor, index: Tensor, softcap: float | None) -> Tensor:
    """Return d log p / d logits, in place of the logits: 1 at the target, less the probabilities;
    before the cap."""
    # The cap's own slope, 1 - tanh^2, before the logits are overwritten.
    bend = 1 - (logits / softcap).square_() if softcap else None
    slopes = logits.sub_(norm).exp_().neg_().scatter_add_(1, index, torch.ones_like(norm))
    if bend is not None:
        slopes.mul_(bend)
    return slopes


def _only_trained(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Leave out tokens that are not trained on, where they are many; as many stay as make a
    multiple of 256.

    In a chat most tokens are questions. Without the rounding every step would have another shape.
    """
    trained = (targets != IGNORED).nonzero()[:, 0]
    # At least one, so that no shape is empty.
    size = -(-max(1, len(trained)) // _MULTIPLE) * _MULTIPLE
    if size > len(targets) - _MULTIPLE:
        return hidden, targets
    # What fills up is some token, whose target is then ignored.
    chosen = torch.cat((trained, trained.new_zeros(size - len(trained))))
    kept = targets[chosen]
    kept[len(trained) :] = IGNORED
    return hidden.index_select(0, chosen), kept


@torch.library.custom_op("groundup::linear_cross_entropy", mutates_args=())
def _chunked(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    with_grad: bool,
    trained_weight: bool,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the summed loss and its gradients with respect to hidden and weight (empty unless
    asked for).

    A ``softcap`` of 0 leaves the logits as they are.
    """
    total, grad_hidden, grad_weight = _outputs(hidden, weight, with_grad, trained_weight)
    total.zero_()
    grad_weight.zero_()
    for rows in chunks(len(hidden), len(weight), weight):
        part = hidden[rows]
        target = targets[rows]
        trained = target != IGNORED
        # An ignored target points somewhere, and its row is multiplied by 0.
        index = target.clamp(min=0)[:, None]
        logits = part @ weight.T
        slope = None
        if softcap:
            logits = cap_logits(widen(logits), softcap)
            slope = 1 - (logits / softcap).square_() if with_grad else None
        # In one pass over the logits, which on a GPU take more time to read than to multiply.
        log_probs = torch.log_softmax(logits, 1, dtype=total.dtype)
        chosen = log_probs.gather(1, index)
        total -= (chosen[:, 0] * trained).sum()
        if with_grad:
            # Probabilities in place of the logits; less 1 at the target, there from the fine
            # logarithm, for it may be close to 1.
            residue = torch.exp(log_probs, out=logits)
            residue.scatter_(1, index, torch.expm1(chosen).to(residue.dtype))
            if slope is not None:
                residue.mul_(slope)
            residue = residue.to(hidden.dtype)
            torch.mm(residue, weight, out=grad_hidden[rows])
            # What is not trained gets no gradient and gives none: (M, C) is less to go over than
            # (M, V).
            grad_hidden[rows].mul_(trained[:, None])
            if not trained_weight:
                continue
            part = part * trained[:, None]
            # In one dtype the product is added in place; a narrower one must be widened first.
            if grad_weight.dtype == hidden.dtype:
                grad_weight.addmm_(residue.T, part)
            else:
                grad_weight += residue.T @ part
    return total, grad_hidden, grad_weight


@_chunked.register_fake
def _chunked_shapes(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    with_grad: bool,
    trained_weight: bool,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(hidden, weight, with_grad, trained_weight)


def _outputs(
    hidden: Tensor, weight: Tensor, with_grad: bool, trained_weight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return tensors without content for what ``_chunked`` returns."""
    wide = wide_dtype(hidden)
    # Outputs of an operator may not be None: what is not asked for is empty.
    grad_hidden = torch.empty_like(hidden) if with_grad else hidden.new_empty(0)
    grad_weight = weight.new_empty(weight.shape if trained_weight else 0, dtype=wide)
    return hidden.new_empty((), dtype=wide), grad_hidden, grad_weight


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.dtype = inputs[1].dtype
    ctx.trained_weight = inputs[4]
    # The gradients leave the operator as outputs; nobody differentiates these.
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    grad_hidden, grad_weight = ctx.saved_tensors
    of_weight = (grad_weight * grad).to(ctx.dtype) if ctx.trained_weight else None
    return (grad_hidden * grad).to(grad_hidden.dtype), of_weight, None, None, None, None


_chunked.register_autograd(_backward, setup_context=_remember)
spare_the_compiler(_chunked)
