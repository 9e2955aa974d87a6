"""Weights of several tasks' losses that are learned while the model is.

They are modules, so that what they learn is trained, saved and resumed with the model.
Legend: B rows, K tasks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from groundup.contracts.models import blocks_of
from groundup.nn.part_names import TASK_WEIGHTS

__all__ = [
    "GradNormWeights",
    "Outputs",
    "TaskWeights",
    "UncertaintyWeights",
    "last_shared",
    "task_weights_of",
    "trunk",
]


class TaskWeights(nn.Module, ABC):
    """Learned weights of K tasks' losses: ``weighted(totals, counts, shared)`` in training."""

    @abstractmethod
    def forward(
        self, totals: Sequence[Tensor], counts: Sequence[float], shared: Sequence[nn.Parameter]
    ) -> list[Tensor]:
        """Return each task's weighted loss, summed over its examples.

        Args:
            totals: K sums of losses.
            counts: Of how many examples each.
            shared: The trained parameters of the last block that the tasks share.
        """

    @abstractmethod
    def values(self) -> list[float]:
        """Return what each task's mean loss is multiplied with now."""


class Outputs(NamedTuple):
    """What a model of several tasks predicts, and what weighs their losses.

    Attributes:
        by_task: (B, outputs of the task); of language modelling the logits (M, V) of the tokens
            that are predicted.
        weights: In training, the weights that are learned.
        shared: Trained parameters of the last block that the tasks share, for these weights.
    """

    by_task: dict[str, Tensor]
    weights: TaskWeights | None
    shared: list[nn.Parameter]


def task_weights_of(model: nn.Module) -> TaskWeights | None:
    """Return the learned weights that ``Multitask.add_parameters`` added to a model, if any."""
    found = dict(model.named_children()).get("task_weights")
    return found if isinstance(found, TaskWeights) else None


class UncertaintyWeights(TaskWeights):
    """Weighs each task by how noisy the model finds it: with f exp(-s), where s is a learned log
    variance, 0 at first.

    Args:
        factors: f of each task: 1 where the loss is a cross-entropy, 1/2 where it is a squared
            error.

    Source:
        Kendall, Gal and Cipolla, 2018 (arXiv:1705.07115), equations 7 and 10: the sum over tasks of
        f exp(-s) L + s/2.
    """

    def __init__(self, factors: Sequence[float]) -> None:
        super().__init__()
        self.factors = tuple(factors)
        # The logarithm, so that no step can make a variance negative.
        self.log_variance = nn.Parameter(torch.zeros(len(self.factors)))

    def forward(
        self, totals: Sequence[Tensor], counts: Sequence[float], shared: Sequence[nn.Parameter]
    ) -> list[Tensor]:
        """Return f exp(-s) L + s/2 of each task, summed over its examples; arguments as of
        ``TaskWeights``."""
        return [
            factor * torch.exp(-s) * total + 0.5 * s * count
            for factor, s, total, count in zip(
                self.factors, self.log_variance, totals, counts, strict=True
            )
        ]

    def values(self) -> list[float]:
        """Return what each task's mean loss is multiplied with now."""
        return [
            f * math.exp(-s) for f, s in zip(self.factors, self.log_variance.tolist(), strict=True)
        ]


class GradNormWeights(TaskWeights):
    """Weighs the tasks so that those that learn slowly pull harder at the layers they share.

    A task's pull is the norm of its weighted loss's gradient in the last shared block. It is led to
    the mean pull times r ** alpha, where r is the share of its first loss that is left, over the
    tasks' mean of that.

    Args:
        tasks: How many.
        alpha: How strongly to favour slow tasks; 0 makes all pulls equal.
        lr: Rate of the weights' own gradient descent.

    Source:
        Chen et al., 2018 (arXiv:1711.02257), section 3.1 and algorithm 1.
        Departs from it: the weights' objective is divided by the mean pull, so that ``lr`` means
        the same whatever the losses' scale; its gradient descent is plain; and a weight stays at
        0.001 or more before they are scaled.
    """

    weight: Tensor
    first_loss: Tensor

    def __init__(self, tasks: int, alpha: float, lr: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.lr = lr
        self.register_buffer("weight", torch.ones(tasks))
        self.register_buffer("first_loss", torch.zeros(tasks))

    def forward(
        self, totals: Sequence[Tensor], counts: Sequence[float], shared: Sequence[nn.Parameter]
    ) -> list[Tensor]:
        """Return each task's sum of losses times its weight; then, in training, move the weights
        for the next step.

        Arguments as of ``TaskWeights``. Weights of tasks with a count of 0 stay.
        """
        # The weights are numbers here: the model's gradient must not reach them.
        weighted = [
            weight * total for weight, total in zip(self.weight.tolist(), totals, strict=True)
        ]
        present = [k for k, count in enumerate(counts) if count]
        # A task that is absent from a batch has no gradient to compare, and keeps its weight.
        if self.training and torch.is_grad_enabled() and shared and len(present) > 1:
            means = [totals[k] / counts[k] for k in present]
            norms = torch.stack([_gradient_norm(mean, shared) for mean in means])
            self.move(present, torch.stack(means).detach(), norms)
        return weighted

    @torch.no_grad()
    def move(self, present: Sequence[int], losses: Tensor, norms: Tensor) -> None:
        """Take one step of the weights of some tasks; none where a number is not finite.

        Args:
            present: Which tasks.
            losses: Their mean losses, not weighted.
            norms: The norms of those losses' gradients.
        """
        if not bool(torch.isfinite(losses).all() and torch.isfinite(norms).all()):
            return
        index = torch.tensor(list(present), device=self.weight.device)
        losses = losses.to(self.weight)
        norms = norms.to(self.weight)
        # The first loss that is seen counts as the start; a buffer, so that a resumed run remembers
        # it.
        first = torch.where(self.first_loss[index] == 0, losses, self.first_loss[index])
        self.first_loss[index] = first
        before = self.weight[index]
        left = losses / first.clamp(min=1e-12)
        mean = (before * norms).mean().clamp(min=1e-12)
        goals = mean * (left / left.mean().clamp(min=1e-12)) ** self.alpha
        # The objective is the sum of |w norm - goal|, whose slope in w is the norm with a sign.
        step = self.lr * norms / mean * torch.sign(before * norms - goals)
        moved = (before - step).clamp(min=1e-3)
        # Scaled back to the same sum, or all weights could shrink together, as a learning rate.
        self.weight[index] = moved * (before.sum() / moved.sum())

    def values(self) -> list[float]:
        """Return what each task's mean loss is multiplied with now; together they are the number of
        tasks."""
        return [float(weight) for weight in self.weight.tolist()]


def last_shared(model: nn.Module) -> list[nn.Parameter]:
    """Return the trained parameters of the last block before the heads; none where there is no
    block."""
    blocks = blocks_of(model)
    if not blocks:
        return []
    return [p for p in blocks[-1].parameters() if p.requires_grad]


def trunk(model: nn.Module) -> list[nn.Parameter]:
    """Return every trained parameter that the tasks share: all but the head's and the task weights'
    own."""
    named = model.named_parameters()
    return [
        p for name, p in named if p.requires_grad and not name.startswith(("head.", TASK_WEIGHTS))
    ]


def _gradient_norm(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    # The graph is kept: the step itself still has to go through it.
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return nn.utils.get_total_norm([g for g in gradients if g is not None])
