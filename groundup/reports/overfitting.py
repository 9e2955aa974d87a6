"""Under- or overfitting in words, with the numbers it is read from and what to try next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from groundup.reports.formatting import is_number, number
from groundup.reports.line_charts import smooth
from groundup.reports.run_reader import RunRecord

__all__ = ["Diagnosis", "diagnose"]

Point = tuple[float, float]
Verdict = Literal["underfitting", "overfitting", "unstable", "fine"]
# of validation loss, relative
_RISE = 0.03
# of any loss, in its own unit: near zero a relative rise is noise
_LEAST_RISE = 0.005
# of training loss over the last fifth, relative
_FALL = 0.05
# of accuracy on training examples over that on held-out ones
_GAP = 0.05
# accuracy on training examples
_LOW = 0.9
# accuracy on training examples from which nothing is left to learn from them
_MASTERED = 0.995
# steps
_LEAST_LOGGED = 10
# What holds a model back, by section and name.
_RESTRAINTS = (("model", "dropout"), ("optim", "weight_decay"), ("task", "label_smoothing"))


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
    """Read the curves of a run and, where it was evaluated, its accuracies.

    - unstable: the smoothed training loss ends more than a fifth above its lowest.
    - overfitting: the last two or three validation losses are more than 3% above the best while
      the training loss went on falling; or training examples are right at least 5 points more
      often than held-out ones, and more often than their 95% interval allows.
    - underfitting: training and validation loss were both still falling, the training loss by more
      than 5% over the last fifth of the run; or fewer than 90% of the training examples are right,
      and about as many held-out ones.

    Returns:
        None for a run that was not validated yet, or with fewer than ten logged steps.
    """
    validation = record.points("evaluate", "loss")
    logged = record.points("train", "loss")
    if not validation or len(logged) < _LEAST_LOGGED:
        return None
    training = smooth(logged, max(5, len(logged) // 10))
    # The order matters: a run that diverged also has a validation loss that rises.
    for find in (
        _find_instability,
        _find_rising_validation,
        _find_gap,
        _find_falling_losses,
        _find_low_accuracy,
    ):
        found = find(record, training, validation)
        if found is not None:
            return found
    step, best = min(validation, key=lambda point: point[1])
    words = (
        f"The training loss went from {number(training[0][1])} to {number(training[-1][1])}, the"
        f" validation loss from {number(validation[0][1])} to {number(validation[-1][1])} (lowest:"
        f" {number(best)} at step {number(step)})."
    )
    return Diagnosis("fine", words + _name_accuracies(record), "")


# ----------------------------------------------------------------------------------------- verdicts
def _find_instability(
    record: RunRecord, training: list[Point], validation: list[Point]
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


def _find_rising_validation(
    record: RunRecord, training: list[Point], validation: list[Point]
) -> Diagnosis | None:
    place = min(range(len(validation)), key=lambda i: validation[i][1])
    step, best = validation[place]
    after = validation[place + 1 :][-3:]
    if len(after) < 2:
        return None
    last = sum(loss for _, loss in after) / len(after)
    then = _at(training, step)
    end = training[-1][1]
    if last - best <= max(_RISE * abs(best), _LEAST_RISE) or end >= then:
        return None
    words = (
        f"The validation loss has been rising since step {number(step)}, from {number(best)} to"
        f" {number(last)}, while the training loss fell from {number(then)} to"
        f" {number(end)}.{_name_accuracies(record)}"
    )
    return Diagnosis("overfitting", words, _advise_against_overfitting(record))


def _find_gap(
    record: RunRecord, training: list[Point], validation: list[Point]
) -> Diagnosis | None:
    found = _accuracies_of(record)
    high = record.metrics.get("accuracy_high_95")
    if found is None or not is_number(high):
        return None
    # of few held-out examples a large gap may be chance
    if found.training - found.held_out < _GAP or found.training <= high:
        return None
    best = min(validation, key=lambda point: point[1])[0]
    words = (
        f"{_name_accuracies(record).strip()} The validation loss was lowest at step {number(best)}."
    )
    return Diagnosis("overfitting", words, _advise_against_overfitting(record))


def _find_falling_losses(
    record: RunRecord, training: list[Point], validation: list[Point]
) -> Diagnosis | None:
    begin = training[0][0]
    before = _at(training, begin + 0.8 * (training[-1][0] - begin))
    end = training[-1][1]
    lowest_last = validation[-1][1] <= min(loss for _, loss in validation)
    falling = before - end > max(_FALL * abs(before), _LEAST_RISE)
    found = _accuracies_of(record)
    mastered = found is not None and found.training >= _MASTERED
    if not (falling and lowest_last) or mastered:
        return None
    words = (
        f"The training loss was still falling, from {number(before)} to {number(end)} over the last"
        f" fifth of the steps, and the last validation loss, {number(validation[-1][1])}, is the"
        f" lowest.{_name_accuracies(record)}"
    )
    lengths = [
        f"training.{name}"
        for name in ("epochs", "steps", "samples")
        if _is_on(record, "training", name)
    ]
    more = next(iter(lengths), "training")
    advice = f"more {more}, a higher optim.lr, or a larger {_name_width(record)}"
    return Diagnosis("underfitting", words, advice)


def _find_low_accuracy(
    record: RunRecord, training: list[Point], validation: list[Point]
) -> Diagnosis | None:
    found = _accuracies_of(record)
    if found is None or found.training >= _LOW or found.training - found.held_out >= _GAP:
        return None
    words = f"The training loss no longer falls, and yet few are right.{_name_accuracies(record)}"
    less = " or ".join(
        f"{section}.{name}" for section, name in _RESTRAINTS if _is_on(record, section, name)
    )
    advice = f"a larger {_name_width(record)}"
    if less:
        advice += f", less {less}"
    return Diagnosis(
        "underfitting", words, f"{advice}, or inputs that tell the classes apart better"
    )


# -------------------------------------------------------------------------------------------- words
@dataclass(frozen=True)
class _Accuracies:
    training: float
    held_out: float


def _accuracies_of(record: RunRecord) -> _Accuracies | None:
    """Return the accuracies that an evaluation found, where it found both."""
    training = record.metrics.get("training_accuracy")
    held_out = record.metrics.get("accuracy")
    if not (is_number(training) and is_number(held_out)):
        return None
    return _Accuracies(training, held_out)


def _name_accuracies(record: RunRecord) -> str:
    found = _accuracies_of(record)
    if found is None:
        return ""
    return (
        f" Of training examples {100 * found.training:.1f}% are right, of held-out ones"
        f" {100 * found.held_out:.1f}%."
    )


def _at(points: list[Point], step: float) -> float:
    """Return the value of the point nearest to a step."""
    return min(points, key=lambda point: abs(point[0] - step))[1]


def _is_on(record: RunRecord, section: str, name: str) -> bool:
    return record.section(section).get(name) not in (None, 0, 0.0, "none")


def _advise_against_overfitting(record: RunRecord) -> str:
    known = (*_RESTRAINTS[:2], ("task", "augmentation"), *_RESTRAINTS[2:])
    advice = []
    for section, name in known:
        # a setting that the recipe's model or task does not have is no advice
        if name in record.section(section):
            amount = "more" if _is_on(record, section, name) else "some"
            advice.append(f"{amount} {section}.{name}")
    advice += [f"a smaller {_name_width(record)}", "fewer steps", "or, best, more training data"]
    return ", ".join(advice)


def _name_width(record: RunRecord) -> str:
    """Return the setting that makes the recipe's model larger."""
    model = record.section("model")
    for name in ("hidden", "channels", "width", "layers"):
        if model.get(name):
            return f"model.{name}"
    return "model"
