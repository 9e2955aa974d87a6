"""R-Drop: two passes of a batch, in each of which dropout leaves out other activations, are to
predict the same.

Legend: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from groundup.contracts.tasks import Objective
from groundup.core.values import Batch, Loss, Term
from groundup.nn.logits import widen

__all__ = ["PredictsByLogits", "r_drop_objective", "symmetric_divergence"]


class PredictsByLogits(Protocol):
    """A task whose model returns logits for ``prediction_inputs``."""

    def prediction_inputs(self, batch: Batch) -> dict[str, Any]:
        """Return what the model reads."""

    def prediction_loss(self, logits: Tensor, batch: Batch) -> Loss:
        """Return the loss of logits (B, T, V)."""

    def predicted(self, batch: Batch) -> Tensor:
        """Return (B, T) which logits are trained."""


def r_drop_objective(task: PredictsByLogits, model: nn.Module, weight: float) -> Objective:
    """Return the objective of a run: the mean loss of two passes, and ``weight`` times how far
    they are from each other.

    The second pass is asked for here; in validation, where nothing is dropped, there is none.

    Source:
        Liang et al., R-Drop, 2021 (arXiv:2106.14448), equations 1 to 3. Departs from it: the two
        losses are averaged, not added, so that ``weight`` means the same whatever the learning
        rate; it is twice the paper's alpha.
    """

    def objective(outputs: Tensor, batch: Batch) -> Loss:
        if not model.training:
            return task.prediction_loss(outputs, batch)
        again: Tensor = model(**task.prediction_inputs(batch))
        first = task.prediction_loss(outputs, batch)
        second = task.prediction_loss(again, batch)
        terms = {
            name: dataclasses.replace(term, total=(term.total + second.terms[name].total) / 2)
            for name, term in first.terms.items()
        }
        metrics = {
            name: (value + second.metrics[name]) / 2 for name, value in first.metrics.items()
        }
        trained = task.predicted(batch)
        apart = symmetric_divergence(outputs[trained], again[trained])
        count = next(iter(terms.values())).count
        terms["consistency"] = Term(apart, count, weight)
        return Loss(terms, metrics)

    return objective


def symmetric_divergence(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean of both Kullback-Leibler divergences of rows of logits (M, V), summed over
    the rows, in nats."""
    p, q = (widen(logits).log_softmax(-1) for logits in (one, other))
    # KL(p || q) + KL(q || p) in one sum. A token that can have no share in either adds nothing.
    terms = torch.where((p == q), 0.0, (p.exp() - q.exp()) * (p - q))
    return terms.sum() / 2
