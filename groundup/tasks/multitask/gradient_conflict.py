"""How the gradients of tasks that share a model agree, measured and as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from groundup.core.values import Example, Table
from groundup.metrics.gradient_agreement import gradient_agreement
from groundup.tasks.multitask.loss_weighting import trunk

__all__ = ["compare_gradients"]

_BATCHES = 16
_BATCH = 64
MeanLosses = Callable[[Sequence[Example]], list[Tensor | None]]


def compare_gradients(
    model: nn.Module, mean_losses: MeanLosses, names: Sequence[str], examples: Sequence[Example]
) -> list[Table]:
    """Return two tables, tasks by tasks: the mean cosine of their gradients, and how often it is
    negative.

    Args:
        model: In evaluation mode while it is asked.
        mean_losses: Gives the mean loss of each task on some examples, None where none of them has
            its target.
        names: The tasks.
        examples: The first 1,024 are used.
    """
    used = examples[: _BATCHES * _BATCH]
    parts = [used[at : at + _BATCH] for at in range(0, len(used), _BATCH)]
    training = model.training
    model.eval()
    # cuDNN has no gradient of RNNs in evaluation mode; PyTorch's own kernels have.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        found = gradient_agreement(
            (_gradients(mean_losses(part), trunk(model)) for part in parts), len(names)
        )
    model.train(training)
    over = f"over {len(parts)} batches of {_BATCH} held-out examples"
    cosine = [
        (name, *map(_round, row), _round(norm))
        for name, row, norm in zip(names, found.cosine, found.norm, strict=True)
    ]
    conflict = [(name, *map(_round, row)) for name, row in zip(names, found.conflict, strict=True)]
    return [
        Table(
            "How the tasks' gradients agree: mean cosine",
            ("task", *names, "gradient norm"),
            list(cosine),
            f"Of the unweighted losses in all shared layers, {over}. 1: the same direction; 0:"
            " unrelated.",
        ),
        Table(
            "How often the tasks' gradients conflict: share of batches",
            ("task", *names),
            list(conflict),
            f"The cosine is negative: a step for one task alone makes the other worse; {over}.",
        ),
    ]


def _gradients(
    losses: Sequence[Tensor | None], shared: Sequence[nn.Parameter]
) -> list[Tensor | None]:
    """Return the gradient of each loss in the shared layers, (P,)."""
    found: list[Tensor | None] = []
    for loss in losses:
        if loss is None:
            found.append(None)
            continue
        parts = torch.autograd.grad(
            loss, shared, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        found.append(torch.cat([part.flatten() for part in parts]))
    return found


def _round(value: float) -> float | None:
    return None if value != value else round(float(value), 4)  # NaN: no batch had both
