"""Cross-entropy of a linear output layer, without ever holding all logits.

Shape legend: M tokens, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.core.values import IGNORED
from groundup.machine.lazy_compiler import spare_the_compiler

__all__ = [
    "linear_cross_entropy",
    "linear_cross_entropy_sum",
    "linear_log_probs",
    "softcapped",
    "widen",
]

_CHUNK_BYTES = 32 * 2**20  # of float32 logits held at a time
_MULTIPLE = 256  # tokens


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
        softcap: Logits are bent to stay between minus and plus this, as ``softcapped`` does it;
            None: they are not.

    Source:
        Wijmans et al., Cut Your Losses in Large-Vocabulary Language Models, 2024
        (arXiv:2411.09009), the idea of never holding the logits; the chunks with gradients in the
        forward pass are those of Hsu et al., Liger Kernel, 2024 (arXiv:2410.10989), section 3.
    """
    hidden, weight = _cast(hidden), _cast(weight)
    hidden, targets = _only_trained(hidden, targets)
    if hidden.shape[0] * weight.shape[0] * 4 <= _CHUNK_BYTES:
        logits = softcapped(widen(F.linear(hidden, weight)), softcap)
        return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    needed = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    trained = needed and weight.requires_grad
    return cast(Tensor, _chunked(hidden, weight, targets, needed, trained, softcap or 0.0)[0])


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None = None
) -> Tensor:
    """Return the cross-entropy of each token in nats, (M,), 0 where the target is -100. For
    evaluation: no gradient."""
    with torch.no_grad():
        hidden, weight = _cast(hidden), _cast(weight)
        losses = hidden.new_zeros(
            len(hidden), dtype=torch.float64 if hidden.dtype == torch.float64 else torch.float32
        )
        for part in torch.split((targets != IGNORED).nonzero()[:, 0], _chunk_size(weight)):
            logits = softcapped(widen(F.linear(hidden.index_select(0, part), weight)), softcap)
            losses[part] = F.cross_entropy(logits, targets[part], reduction="none")
        return losses


def softcapped(logits: Tensor, cap: float | None) -> Tensor:
    """Return ``cap * tanh(logits / cap)``, or the logits as they are.

    Source:
        Gemma Team, Gemma 2, 2024 (arXiv:2408.00118), section 2.
    """
    return logits if cap is None else cap * torch.tanh(logits / cap)


def linear_log_probs(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None = None
) -> Tensor:
    """Return log p of each target in nats, (M,), with a gradient for each, and never all logits at
    once.

    Losses that compare sequences know the gradient of a token only after all of them. Where the
    weight is frozen, as beside an adapter, d log p / d hidden is kept from the forward pass; else
    logits are computed again, backward.

    Args:
        hidden: (M, C).
        weight: (V, C).
        targets: (M,) int64, all of them tokens.
        softcap: Logits are bent to stay between minus and plus this, as ``softcapped`` does it;
            None: they are not.
    """
    hidden, weight = _cast(hidden), _cast(weight)
    needed = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    keeps = needed and not weight.requires_grad
    return cast(Tensor, _LogProbs.apply(hidden, weight, targets, keeps, softcap))  # type: ignore[no-untyped-call]


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
        found = hidden.new_empty(
            len(hidden), dtype=torch.promote_types(hidden.dtype, torch.float32)
        )
        slopes = torch.empty_like(hidden) if keeps_slopes else None
        for rows in _chunks(len(hidden), weight):
            logits, index = (
                softcapped(widen(hidden[rows] @ weight.T), softcap),
                targets[rows, None],
            )
            norm = logits.logsumexp(1, keepdim=True)
            found[rows] = (logits.gather(1, index) - norm)[:, 0]
            if slopes is not None:
                slopes[rows] = _slopes(logits, norm, index, softcap).to(hidden.dtype) @ weight
        ctx.save_for_backward(*((hidden, weight, targets) if slopes is None else (slopes,)))
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0][:, None]
        if len(ctx.saved_tensors) == 1:
            return (
                (ctx.saved_tensors[0] * grad).to(ctx.saved_tensors[0].dtype),
                None,
                None,
                None,
                None,
            )
        hidden, weight, targets = ctx.saved_tensors
        grad_hidden, grad_weight = (
            torch.empty_like(hidden),
            torch.zeros_like(weight, dtype=grad.dtype),
        )
        for rows in _chunks(len(hidden), weight):
            logits = softcapped(widen(hidden[rows] @ weight.T), ctx.softcap)
            slopes = _slopes(
                logits, logits.logsumexp(1, keepdim=True), targets[rows, None], ctx.softcap
            )
            slopes = slopes.mul_(grad[rows]).to(hidden.dtype)
            torch.mm(slopes, weight, out=grad_hidden[rows])
            grad_weight += slopes.T @ hidden[rows]
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None


def _chunks(tokens: int, weight: Tensor) -> Iterator[slice]:
    size = _chunk_size(weight)
    return (slice(start, min(start + size, tokens)) for start in range(0, tokens, size))


def _slopes(logits: Tensor, norm: Tensor, index: Tensor, softcap: float | None) -> Tensor:
    """Return d log p / d logits, in place of the logits: 1 at the target, less the probabilities;
    before the cap."""
    bend = None if softcap is None else 1 - (logits / softcap).square_()
    slopes = logits.sub_(norm).exp_().neg_().scatter_add_(1, index, torch.ones_like(norm))
    return slopes if bend is None else slopes.mul_(bend)


def _only_trained(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Leave out tokens that are not trained on, where they are many; as many stay as make a
    multiple of 256.

    In a chat most tokens are questions. Without the rounding every step would have another shape.
    """
    trained = (targets != IGNORED).nonzero()[:, 0]
    size = -(-max(1, len(trained)) // _MULTIPLE) * _MULTIPLE
    if size > len(targets) - _MULTIPLE:
        return hidden, targets
    chosen = torch.cat((trained, trained.new_zeros(size - len(trained))))
    kept = targets[chosen]
    kept[len(trained) :] = IGNORED
    return hidden.index_select(0, chosen), kept


def _cast(x: Tensor) -> Tensor:
    """Apply autocast, which does not reach into operators of our own."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def widen(logits: Tensor) -> Tensor:
    """Return logits in float32, or in float64 where they are: a softmax in bf16 loses digits."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _chunk_size(weight: Tensor) -> int:
    """Return how many tokens' logits fit in a chunk: a power of two, at least 64."""
    return 1 << max(6, (_CHUNK_BYTES // (4 * weight.shape[0])).bit_length() - 1)


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
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    total = hidden.new_zeros((), dtype=wide)
    grad_hidden = torch.empty_like(hidden) if with_grad else hidden.new_empty(0)
    grad_weight = (
        torch.zeros_like(weight, dtype=wide) if trained_weight else weight.new_empty(0, dtype=wide)
    )
    size = _chunk_size(weight)
    for start in range(0, len(hidden), size):
        part, target = hidden[start : start + size], targets[start : start + size]
        trained = target != IGNORED
        index = target.clamp(min=0)[:, None]
        logits = softcapped(widen(part @ weight.T), softcap or None)
        slope = 1 - (logits / softcap).square_() if softcap and with_grad else None
        norm = logits.logsumexp(1, keepdim=True)
        total += ((norm - logits.gather(1, index))[:, 0] * trained).sum()
        if with_grad:
            residue = logits.sub_(norm).exp_().scatter_add_(1, index, -torch.ones_like(norm))
            residue = residue.mul_(trained[:, None])
            residue = (residue if slope is None else residue.mul_(slope)).to(hidden.dtype)
            torch.mm(residue, weight, out=grad_hidden[start : start + size])
            if not trained_weight:
                continue
            if wide == hidden.dtype:
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
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    grad_hidden = torch.empty_like(hidden) if with_grad else hidden.new_empty(0)
    grad_weight = (
        torch.empty_like(weight, dtype=wide) if trained_weight else weight.new_empty(0, dtype=wide)
    )
    return hidden.new_empty((), dtype=wide), grad_hidden, grad_weight


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.dtype, ctx.trained_weight = inputs[1].dtype, inputs[4]
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    grad_hidden, grad_weight = ctx.saved_tensors
    of_weight = (grad_weight * grad).to(ctx.dtype) if ctx.trained_weight else None
    return (grad_hidden * grad).to(grad_hidden.dtype), of_weight, None, None, None, None


_chunked.register_autograd(_backward, setup_context=_remember)
spare_the_compiler(_chunked)
