"""What the curves of a run are, in a few numbers: where losses begin and end, how they move, and
what guessing would cost on the same examples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from groundup.reports.formatting import is_number, number
from groundup.reports.line_charts import smooth
from groundup.reports.run_reader import RunRecord

__all__ = [
    "Accuracies",
    "Curves",
    "Point",
    "accuracies_of",
    "compare",
    "name_accuracies",
    "read_curves",
]

Point = tuple[float, float]
# fewer validations say less of a trend than the training losses do
_LEAST_VALIDATIONS = 5
# held-out examples of which each is 4 points of accuracy
_FEW_EXAMPLES = 25
# of held-out examples, more than the commonest class has: something is learned
_MORE_RIGHT = 0.15
# logged losses of which each is the mean of a batch: a single one says little
_LEAST_SMOOTHED = 10


@dataclass(frozen=True)
class Curves:
    """The losses of a run, and what they are measured by.

    Attributes:
        training: (step, loss), as logged.
        smoothed: The same as running means.
        validation: (step, loss) of each validation.
        guessing: What a prediction without the inputs costs on the validation split, or None where
            that is unknown: the training split's shares of the classes, or its mean.
        standard_error: That of the last validation loss, for the examples are a sample; 0 where
            unknown.
        examples: How many examples a validation is of; None where unknown.
        right: How much more of the held-out examples were right than the commonest class is, at
            best; None where that is unknown.
        not_finite: Whether a loss was no number.
    """

    training: list[Point]
    smoothed: list[Point]
    validation: list[Point]
    guessing: float | None
    standard_error: float
    examples: float | None
    right: float | None
    not_finite: bool

    @property
    def scale(self) -> float:
        """What a difference of losses is measured by: the loss of guessing, or the first one."""
        first = self.validation[0][1] if self.validation else self.training[0][1]
        return max(abs(self.guessing or max(first, self.smoothed[0][1])), 1e-12)

    @property
    def has_few_examples(self) -> bool:
        """Whether a single held-out example is 4 points of accuracy or more."""
        return self.examples is not None and self.examples <= _FEW_EXAMPLES

    @property
    def best(self) -> Point:
        """The step and the value of the lowest validation loss."""
        return min(self.validation, key=lambda point: point[1])

    @property
    def last(self) -> float:
        """The last validation loss."""
        return self.validation[-1][1]

    @property
    def settled(self) -> float:
        """The mean of the last three validation losses: a single one may be chance."""
        return _mean([loss for _, loss in self.validation[-3:]])

    @property
    def end(self) -> float:
        """The mean of the last fifth of the training losses, three at least."""
        own = [loss for _, loss in self.training]
        return _mean(own[-max(3, len(own) // 5) :])

    @property
    def noise(self) -> float:
        """How far a validation is from the middle of its neighbours, on average over the last two
        thirds of the run."""
        return self.noise_after(1 / 3)

    def noise_after(self, share: float) -> float:
        """Return how far a validation is from the middle of its neighbours, on average after a
        share of the run: about a standard deviation, for a trend is no noise. 0 of fewer than
        three such."""
        late = [loss for _, loss in self.validation][int(share * len(self.validation)) :]
        triples = list(zip(late, late[1:], late[2:], strict=False))
        if len(triples) < 3:
            return 0.0
        return _mean([abs(middle - (one + other) / 2) for one, middle, other in triples])

    @property
    def shares_rising(self) -> float:
        """The share of validations that are worse than the one before."""
        own = [loss for _, loss in self.validation]
        pairs = list(pairwise(own))
        return sum(after > before for before, after in pairs) / max(1, len(pairs))

    @property
    def gain(self) -> float:
        """How much lower a run of twice the steps would end, were each doubling of the steps to
        bring the share of the one before that the last doubling brought.

        Measured by validations, or where these are few by the training loss.
        """
        points = self.validation if len(self.validation) >= _LEAST_VALIDATIONS else self.smoothed
        last = points[-1][0]
        quarter = _middle(points, 0.25 * last)
        half = _middle(points, 0.5 * last)
        end = _middle(points, last)
        fell = half - end
        if fell <= 0:
            return 0.0
        before = quarter - half
        # After a slow start, such as a warm-up, the last doubling may have brought the most.
        share = min(1.0, fell / before) if before > 0 else 1.0
        return min(fell * share, max(end, 0.0))

    def training_at(self, step: float) -> float:
        """Return the smoothed training loss nearest to a step."""
        return min(self.smoothed, key=lambda point: abs(point[0] - step))[1]

    def is_learned(self, margin: float = 0.03) -> bool:
        """Whether a validation was better than guessing: its loss by a margin and by more than
        chance, or its accuracy."""
        if self.guessing is None:
            return True
        if self.right is not None and self.right > _MORE_RIGHT:
            return True
        least = max(margin * self.guessing, 0.5 * self.standard_error)
        return self.best[1] < self.guessing - least


def read_curves(record: RunRecord) -> Curves | None:
    """Return the curves of a run, or None where nothing was logged yet."""
    # Next to the losses of training: those that are weighted or smoothed as these are.
    training = record.points("train", "loss")
    validation = record.points("evaluate", "loss")
    if not training and not validation:
        return None
    smoothed = training
    if len(training) >= _LEAST_SMOOTHED:
        smoothed = smooth(training, max(5, len(training) // 10))
    losses = [row.get("loss") for kind in ("train", "evaluate") for row in record.rows(kind)]
    return Curves(
        training or validation,
        smoothed or validation,
        validation,
        _loss_of_guessing(record),
        record.last("evaluate", "loss_standard_error") or 0.0,
        record.last("evaluate", "examples"),
        _right_beyond_guessing(record),
        any(isinstance(loss, float) and not math.isfinite(loss) for loss in losses),
    )


def _loss_of_guessing(record: RunRecord) -> float | None:
    """Return what was measured on the validation split; of older runs what the task says."""
    if found := record.points("evaluate", "baseline_loss"):
        plain = record.points("evaluate", "plain_loss")
        # Of a smoothed or weighted loss guessing costs something else; about as much more.
        extra = record.points("evaluate", "loss")[-1][1] - plain[-1][1] if plain else 0.0
        return found[-1][1] + max(extra, 0.0)
    # Byte frequencies alone, which the evaluation of a language model measures.
    alone = record.metrics.get("baseline_unigram_bits_per_byte")
    for row in record.evaluate[-1:]:
        if is_number(alone) and is_number(row.get("bits_per_byte")) and row["bits_per_byte"]:
            return float(row["loss"]) * alone / float(row["bits_per_byte"])
    task = record.section("task")
    outputs: Any = record.section("model").get("outputs")
    name = str(task.get("name"))
    if name == "classify" and task.get("labels") != "multi_label":
        return math.log(outputs) if is_number(outputs) and outputs > 1 else None
    # Targets have mean 0 and variance 1.
    if name in ("regression", "regress") and task.get("objective", "mse") == "mse":
        return 1.0
    return None


def _right_beyond_guessing(record: RunRecord) -> float | None:
    guessing = record.last("evaluate", "baseline_accuracy")
    found = [share for _, share in record.points("evaluate", "accuracy")]
    if guessing is None or not found:
        return None
    return max(found) - guessing


def _middle(points: list[Point], step: float) -> float:
    """Return the median of the three losses nearest to a step."""
    return median(loss for _, loss in sorted(points, key=lambda each: abs(each[0] - step))[:3])


def _mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))


# -------------------------------------------------------------------------------------------- words
def compare(curves: Curves) -> str:
    """Say how the best validation compares with a prediction that knows no inputs."""
    if curves.guessing is None:
        return ""
    share = 1 - curves.best[1] / curves.guessing
    how = f"{100 * share:.0f}% below" if share >= 0.005 else "not below"
    return (
        f" The lowest validation loss, {number(curves.best[1])}, is {how} that of guessing from the"
        f" training split, {number(curves.guessing)}."
    )


@dataclass(frozen=True)
class Accuracies:
    """The shares of training and of held-out examples that a checkpoint gets right."""

    training: float
    held_out: float


def accuracies_of(record: RunRecord) -> Accuracies | None:
    """Return the accuracies that an evaluation found, where it found both."""
    training = record.metrics.get("training_accuracy")
    held_out = record.metrics.get("accuracy")
    if not (is_number(training) and is_number(held_out)):
        return None
    return Accuracies(training, held_out)


def name_accuracies(record: RunRecord) -> str:
    """Return a sentence with the accuracies that an evaluation found, or an empty text."""
    found = accuracies_of(record)
    if found is None:
        return ""
    # of one checkpoint, which need not be the one that the curves end with
    step = record.evaluation.get("step")
    of = f" by the checkpoint of step {number(step)}" if is_number(step) else ""
    return (
        f" Of training examples {100 * found.training:.1f}% are right{of}, of held-out ones"
        f" {100 * found.held_out:.1f}%."
    )
