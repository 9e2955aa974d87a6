"""Under- or overfitting in words, with the numbers it is read from and what to try next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from groundup.reports.formatting import is_number, number
from groundup.reports.line_charts import smoothed
from groundup.reports.run_reader import RunRecord

__all__ = ["Diagnosis", "diagnose"]

Point = tuple[float, float]
Verdict = Literal["underfitting", "overfitting", "unstable", "fine"]
_RISE, _LEAST_RISE = 0.03, 0.005  # of validation loss: relative, and in its own unit
_FALL = 0.05  # of training loss over the last fifth, relative
_GAP = 0.05  # of accuracy on training examples over that on held-out ones
_LOW = 0.9  # accuracy on training examples
_LEAST_LOGGED = 10  # steps


@dataclass(frozen=True)
class Diagnosis:
    """What the curves of a run say.

    Attributes:
        verdict: overfitting, underfitting, unstable (the training loss rose again) or fine.
        words: Why, in one or two sentences.
        advice: Settings to try, those of the recipe first; empty where nothing is wrong.
    """

    verdict: Verdict
    words: str
    advice: str


def diagnose(record: RunRecord) -> Diagnosis | None:
    """Read the curves of a run and, where it was judged, its accuracies.

    - unstable: the smoothed training loss ends more than a fifth above its lowest.
    - overfitting: the last two or three validation losses lie more than 3% above the best while the
        training loss went
      on falling; or training examples are right at least 5 points more often than held-out ones,
      and more often than their 95% interval allows.
    - underfitting: training and validation loss were both still falling, the training loss by more
        than 5% over the
      last fifth of the run; or fewer than 90% of the training examples are right, and about as many
      held-out ones.

    Returns:
        None for a run that was not validated yet, or with fewer than ten logged steps.
    """
    validation, logged = record.points("evaluate", "loss"), record.points("train", "loss")
    if not validation or len(logged) < _LEAST_LOGGED:
        return None
    training = smoothed(logged, max(5, len(logged) // 10))
    for find in (_unstable, _overfitting, _gap, _still_falling, _low):
        found = find(record.recipe, training, validation, record.metrics)
        if found is not None:
            return found
    step, best = min(validation, key=lambda point: point[1])
    words = (
        f"The training loss went from {number(training[0][1])} to {number(training[-1][1])}, the"
        f" validation loss from {number(validation[0][1])} to {number(validation[-1][1])} (lowest:"
        f" {number(best)} at step {number(step)})."
    )
    return Diagnosis("fine", words + _accuracies(record.metrics), "")


# ----------------------------------------------------------------------------------------- verdicts
def _unstable(
    recipe: Any, training: list[Point], validation: list[Point], metrics: Any
) -> Diagnosis | None:
    step, lowest = min(training, key=lambda point: point[1])
    end = training[-1][1]
    if end <= 1.2 * lowest + 10 * _LEAST_RISE:
        return None
    words = (
        f"The training loss rose again, from {number(lowest)} at step {number(step)} to"
        f" {number(end)} at the end."
    )
    return Diagnosis(
        "unstable", words, "lower optim.lr, a longer optim.warmup_steps, or optim.clip_norm: 1.0"
    )


def _overfitting(
    recipe: Any, training: list[Point], validation: list[Point], metrics: Any
) -> Diagnosis | None:
    place = min(range(len(validation)), key=lambda i: validation[i][1])
    step, best = validation[place]
    after = validation[place + 1 :][-3:]
    if len(after) < 2:
        return None
    last = sum(loss for _, loss in after) / len(after)
    then, end = _at(training, step), training[-1][1]
    if last - best <= max(_RISE * abs(best), _LEAST_RISE) or end >= then:
        return None
    words = (
        f"The validation loss has been rising since step {number(step)}, from {number(best)} to"
        f" {number(last)}, while the training loss fell from {number(then)} to"
        f" {number(end)}.{_accuracies(metrics)}"
    )
    return Diagnosis("overfitting", words, _against_overfitting(recipe))


def _gap(
    recipe: Any, training: list[Point], validation: list[Point], metrics: Any
) -> Diagnosis | None:
    seen, held_out, high = (
        metrics.get(n) for n in ("training_accuracy", "accuracy", "accuracy_high_95")
    )
    if (
        not (is_number(seen) and is_number(held_out) and is_number(high))
        or seen - held_out < _GAP
        or seen <= high
    ):
        return None
    best = min(validation, key=lambda point: point[1])[0]
    words = f"{_accuracies(metrics).strip()} The validation loss was lowest at step {number(best)}."
    return Diagnosis("overfitting", words, _against_overfitting(recipe))


def _still_falling(
    recipe: Any, training: list[Point], validation: list[Point], metrics: Any
) -> Diagnosis | None:
    before, end = (
        _at(training, training[0][0] + 0.8 * (training[-1][0] - training[0][0])),
        training[-1][1],
    )
    lowest_last = validation[-1][1] <= min(loss for _, loss in validation)
    if (
        before - end <= max(_FALL * abs(before), _LEAST_RISE)
        or not lowest_last
        or _mastered(metrics)
    ):
        return None
    words = (
        f"The training loss was still falling, from {number(before)} to {number(end)} over the last"
        f" fifth of the steps, and the last validation loss, {number(validation[-1][1])}, is the"
        f" lowest.{_accuracies(metrics)}"
    )
    more = next(
        (
            f"training.{name}"
            for name in ("epochs", "steps", "samples")
            if _has(recipe, "training", name)
        ),
        "training",
    )
    return Diagnosis("underfitting", words, f"more {more}, a higher optim.lr, or {_larger(recipe)}")


def _low(
    recipe: Any, training: list[Point], validation: list[Point], metrics: Any
) -> Diagnosis | None:
    seen, held_out = (metrics.get(name) for name in ("training_accuracy", "accuracy"))
    if not (is_number(seen) and is_number(held_out)) or seen >= _LOW or seen - held_out >= _GAP:
        return None
    words = f"The training loss no longer falls, and yet few are right.{_accuracies(metrics)}"
    less = [
        name
        for name in _restraints(recipe)
        if name != "optim.weight_decay" or _has(recipe, "optim", "weight_decay")
    ]
    lower = f", less {' or '.join(less)}" if less else ""
    return Diagnosis(
        "underfitting",
        words,
        f"{_larger(recipe)}{lower}, or inputs that tell the classes apart better",
    )


def _mastered(metrics: Any) -> bool:
    """Whether nothing is left to learn from the training examples."""
    seen = metrics.get("training_accuracy")
    return is_number(seen) and seen >= 0.995


# -------------------------------------------------------------------------------------------- words
def _at(points: list[Point], step: float) -> float:
    return min(points, key=lambda point: abs(point[0] - step))[1]


def _accuracies(metrics: Any) -> str:
    seen, held_out = (metrics.get(name) for name in ("training_accuracy", "accuracy"))
    if not (is_number(seen) and is_number(held_out)):
        return ""
    return (
        f" Of training examples {100 * seen:.1f}% are right, of held-out ones"
        f" {100 * held_out:.1f}%."
    )


def _has(recipe: Any, section: str, name: str) -> bool:
    part = recipe.get(section)
    return isinstance(part, dict) and part.get(name) not in (None, 0, 0.0, "none")


def _restraints(recipe: Any) -> list[str]:
    """Return the settings of the recipe that hold a model back and are in use."""
    known = (("model", "dropout"), ("optim", "weight_decay"), ("task", "label_smoothing"))
    return [f"{section}.{name}" for section, name in known if _has(recipe, section, name)]


def _against_overfitting(recipe: Any) -> str:
    known = (
        ("model", "dropout"),
        ("optim", "weight_decay"),
        ("task", "augment"),
        ("task", "label_smoothing"),
    )
    there = [
        f"{'more' if _has(recipe, section, name) else 'some'} {section}.{name}"
        for section, name in known
        if isinstance(recipe.get(section), dict) and name in recipe[section]
    ]
    return ", ".join(
        [*there, f"a smaller {_width(recipe)}", "fewer steps", "or, best, more training data"]
    )


def _larger(recipe: Any) -> str:
    return f"a larger {_width(recipe)}"


def _width(recipe: Any) -> str:
    model = recipe.get("model")
    names = ("hidden", "channels", "width", "layers")
    return next(
        (f"model.{name}" for name in names if isinstance(model, dict) and model.get(name)), "model"
    )
