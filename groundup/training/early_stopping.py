"""Which validation was the best so far, and whether it is time to stop."""

from __future__ import annotations

import math
from typing import Any

from groundup.core.errors import RecipeError, did_you_mean
from groundup.metrics.directions import lower_is_better
from groundup.recipe.sections import Training

__all__ = ["BestSoFar"]


class BestSoFar:
    """Ranks validations by one metric, and stops a run that no longer improves (early stopping).

    The best is the first validation with the strictly best value; its checkpoint is written at once
    and never deleted while it is the best. Patience counts on its own: a validation that beats the
    last one that counted by more than ``min_improvement`` is what counts from there. Values that
    are not finite never improve anything.

    Args:
        metric: Name of the metric; less is better for losses, errors and perplexities, more for all
            others.
        training: Its ``patience`` and ``min_improvement``.

    Attributes:
        step: The step of the best validation, or None before the first.
        stopped: Why the run is to end before its last step, or the empty string.

    Source:
        Prechelt 1998, "Early stopping - but when?", https://doi.org/10.1007/3-540-49430-8_3 (the
        criterion UP, counted from the best validation instead of the one before).
    """

    def __init__(self, metric: str, training: Training) -> None:
        self.metric = metric
        self._training = training
        self.value: float | None = None
        self.step: int | None = None
        self.stopped = ""
        self._reference: float | None = None
        self._waited = 0

    def check(self, metrics: dict[str, float]) -> float:
        """Return the metric's value.

        Raises:
            RecipeError: If it is not one of the validation's; the message names those there are.
        """
        if self.metric not in metrics:
            hint = did_you_mean(self.metric, metrics)
            raise RecipeError(
                "recipe.checkpoints.best_metric",
                f"{self.metric!r} is no metric of this task's validation; {hint}there are:"
                f" {', '.join(metrics)}",
                "Name one of them",
            )
        return metrics[self.metric]

    def consider(self, step: int, metrics: dict[str, float]) -> None:
        """Take a validation into account."""
        value = self.check(metrics)
        # Strictly better: of equal ones the first is kept, so that a resume finds the same step.
        if self._better(value, self.value, 0.0):
            self.value = value
            self.step = step
        if self._training.patience is None:
            return
        if self._better(value, self._reference, self._training.min_improvement):
            self._reference = value
            self._waited = 0
        else:
            self._waited += 1
        if self._waited >= self._training.patience:
            self.stopped = (
                f"{self.metric} has not improved by more than {self._training.min_improvement:g} in"
                f" {self._waited} validations (best: {self.value} at step {self.step})"
            )

    def _better(self, value: float, than: float | None, margin: float) -> bool:
        # First: if a NaN came to be the best, no comparison would ever be true again.
        if not math.isfinite(value):
            return False
        if than is None:
            return True
        gain = than - value if lower_is_better(self.metric) else value - than
        return gain > margin

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs, as JSON."""
        kept = {"best_value": self.value, "best_step": self.step, "stopped": self.stopped}
        return {**kept, "patience": {"reference": self._reference, "waited": self._waited}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.value = state["best_value"]
        self.step = state["best_step"]
        self.stopped = state["stopped"]
        self._reference = state["patience"]["reference"]
        self._waited = state["patience"]["waited"]
