"""Verdicts on how a run moved: rates that are too high or too low, divergence, recovery, noise.

All shares were settled on curves of known cause; see scripts/verdict_curves.py. Those of a loss are
of the loss of guessing.
"""

from __future__ import annotations

from statistics import median

from groundup.reports.advice import (
    is_held_back,
    name_length,
    rate_is_high,
    rate_is_low,
    suggest_rate,
)
from groundup.reports.curves import Curves, Point, compare
from groundup.reports.diagnosis import Diagnosis, Verdict
from groundup.reports.formatting import is_number, number
from groundup.reports.run_reader import RunRecord

__all__ = [
    "find_blown_up_start",
    "find_divergence",
    "find_few_examples",
    "find_high_rate",
    "find_low_rate",
    "find_recovery",
    "find_restless_weights",
]

# the way back to guessing, of what had been learned
_WAY_BACK = 0.5
_NEAR = 0.75
# a loss that no untrained model has
_BLOWN_UP = 2.5
# the training loss of a run that never learns, above guessing
_ABOVE = 0.1
# noise of validations where the rate is far beyond the usual, and where it is not
_RESTLESS = 0.015
_VERY_RESTLESS = 0.1
# what twice the steps would bring where the rate is far below the usual
_SLOW = 0.015
# a rise of the validation loss that was made good, and how much of it
_EXCURSION = 0.15
_PASSED = 0.08
_MADE_GOOD = 0.65
# next to the noise that is left, where the rate came down since, and where it did not
_CALM = 4
_CALMER = 9
# of the examples that are held out
_USUAL_FRACTION = 0.2
# standard error of the validation loss
_UNSURE = 0.2


def find_divergence(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """Both losses had come down, and end half of the way back to guessing or above; or a loss is no
    number."""
    step, lowest = min(curves.smoothed, key=lambda point: point[1])
    end = curves.end
    rose = _is_lost(lowest, end, curves.scale)
    rose = rose and _is_lost(curves.best[1], curves.settled, curves.scale)
    # A rate that was too high from the first step on never came below guessing.
    if not curves.not_finite and not (rose and curves.is_learned()):
        return None
    words = (
        f"The training loss rose again, from {number(lowest)} at step {number(step)} to"
        f" {number(end)} at the end."
    )
    if curves.not_finite:
        words = "A loss was no finite number any more."
    advice = f"{suggest_rate(record, lower=True)}, a longer optim.warmup_steps"
    if record.section("optim").get("clip_norm") is None:
        advice += ", or optim.clip_norm: 1.0"
    # Lost, but not blown up, at a rate that was as high when the loss was lowest: it always was.
    always = rate_is_high(record) and _rate_at(record, step) > 0.5 and end < 1.5 * curves.scale
    verdict: Verdict = "rate too high" if always and not curves.not_finite else "diverged"
    return Diagnosis(verdict, f"{words}{compare(curves)}", advice)


def _rate_at(record: RunRecord, step: float) -> float:
    """Return the learning rate at a step, as a share of the highest of the run; 1 where none was
    logged."""
    rates = record.points("train", "learning_rate")
    if not rates:
        return 1.0
    nearest = min(rates, key=lambda point: abs(point[0] - step))
    return nearest[1] / max(max(rate for _, rate in rates), 1e-12)


def _is_lost(lowest: float, end: float, scale: float) -> bool:
    """Whether a loss rose by a tenth of guessing at least, and half of the way back to it or to
    near it."""
    return end > max(lowest + 0.1 * scale, lowest + _WAY_BACK * (scale - lowest), _NEAR * scale)


def find_high_rate(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """Nothing was learned, and losses were far above guessing, or are above it to the end, not
    coming down."""
    guessing = curves.guessing
    if guessing is None:
        return _find_high_rate_without_guessing(record, curves)
    if curves.is_learned() or rate_is_low(record):
        return None
    is_high = rate_is_high(record)
    highest = max(loss for _, loss in curves.smoothed)
    # Validations are far above guessing, too, where examples were learned by heart.
    if curves.end > 0.9 * guessing:
        highest = max(highest, *(loss for _, loss in curves.validation))
    # A model that begins with large outputs also begins above guessing, but comes down steadily.
    restless = curves.shares_rising >= 0.25
    # the middle of many: means of small batches have outliers
    later = median([loss for _, loss in curves.training[len(curves.training) // 2 :]])
    hovers = later > (1.0 + _ABOVE) * guessing and restless
    blew_up = highest > _BLOWN_UP * guessing and restless and is_high
    # units that are dead after the first steps predict one thing for all inputs
    is_dead = is_high and curves.end > 0.97 * guessing
    if not (blew_up or hovers or is_dead):
        return None
    words = (
        f"The losses were as high as {number(highest)}, and the training loss ends at"
        f" {number(curves.end)}: the steps are so large that nothing is learned.{compare(curves)}"
    )
    return Diagnosis(
        "rate too high",
        words,
        f"{suggest_rate(record, lower=True)}, or a longer optim.warmup_steps",
    )


def _find_high_rate_without_guessing(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """The rate is far beyond what is usual, and the training loss has not fallen since the first
    tenth of the run."""
    own = [loss for _, loss in curves.smoothed]
    tenth = max(1, len(own) // 10)
    early = min(own[: 2 * tenth])
    if not rate_is_high(record) or len(own) < 2 * tenth + 2 or curves.end < 0.98 * early:
        return None
    words = (
        f"The training loss has not fallen since the first steps: it was {number(early)} then, and"
        f" ends at {number(curves.end)}, at a rate far beyond the usual."
    )
    return Diagnosis("rate too high", words, suggest_rate(record, lower=True))


def find_blown_up_start(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """The rate is far above the usual, and the first steps took the loss far above guessing."""
    early = curves.smoothed[: max(1, len(curves.smoothed) // 10)]
    step, highest = max(early, key=lambda point: point[1])
    if not rate_is_high(record) or highest < _BLOWN_UP * curves.scale:
        return None
    words = (
        f"The first steps took the training loss to {number(highest)} at step {number(step)}, from"
        f" which it came down to {number(curves.end)}.{compare(curves)}"
    )
    advice = f"{suggest_rate(record, lower=True)}, or a longer optim.warmup_steps"
    return Diagnosis("rate too high", words, advice)


def find_restless_weights(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """Something was learned, but validations jump by more than their examples explain: each is of
    the same examples, so it is the weights that jump. At a rate far above the usual a small jump is
    enough, or a loss that is left near guessing."""
    noise = curves.noise / curves.scale
    if rate_is_high(record):
        restless = noise > _RESTLESS and curves.noise > 0.5 * curves.standard_error
        restless = restless or curves.settled > _NEAR * curves.scale
    else:
        known = curves.standard_error > 0
        restless = known and noise > _VERY_RESTLESS and curves.noise > 2 * curves.standard_error
    if not restless or is_held_back(record):
        return None
    words = (
        f"From one validation to the next the loss jumps by {number(curves.noise)}, around"
        f" {number(curves.settled)}: the steps are too large to settle.{compare(curves)}"
    )
    advice = f"{suggest_rate(record, lower=True)}, or a longer optim.warmup_steps"
    return Diagnosis("rate too high", words, advice)


def find_low_rate(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """The rate is far below the usual, and the validation loss falls to the end."""
    falls = curves.shares_rising < 0.3 and curves.gain > _SLOW * curves.scale
    moved = curves.validation[0][1] - curves.last
    creeps = curves.shares_rising < 0.1 and 0 < moved < 0.12 * curves.validation[0][1]
    if not rate_is_low(record) or not (falls or creeps):
        return None
    words = (
        f"The validation loss falls at every look, but slowly: from"
        f" {number(curves.validation[0][1])} to {number(curves.last)}.{compare(curves)}"
    )
    advice = f"{suggest_rate(record, lower=False)}, then more {name_length(record)}"
    return Diagnosis("rate too low", words, advice)


def find_recovery(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """Training and validation loss rose far, and came back."""
    peak = _excursion(curves.validation, curves.settled)
    # Less of it where dropout or a rate that is still high keep the training loss up.
    trained = _excursion(curves.smoothed, curves.end, 0.5)
    if peak is None or trained is None:
        return None
    before, high, after = trained
    # A rate that stays as it was leaves the losses as shaky as they were: then nothing has passed.
    came_down = _rate_at(record, curves.training[-1][0]) < 0.5
    least = max(_EXCURSION * curves.scale, _CALMER * curves.noise_after(2 / 3))
    if came_down:
        least = max(_PASSED * curves.scale, _CALM * curves.noise_after(2 / 3))
    if peak[1] - peak[0] < least or high - before < 0.05 * curves.scale:
        return None
    # what was not learned before cannot be lost and come back
    if peak[0] > 0.5 * curves.scale or curves.settled > _NEAR * curves.scale:
        return None
    words = (
        f"The training loss rose on the way, from {number(before)} to {number(high)}, and came back"
        f" to {number(after)}; the validation loss from {number(peak[0])} to {number(peak[1])}, and"
        f" back to {number(peak[2])}.{compare(curves)}"
    )
    return Diagnosis(
        "recovered", words, f"{suggest_rate(record, lower=True)}, or a longer optim.warmup_steps"
    )


def _excursion(
    points: list[Point], end: float, made_good: float = _MADE_GOOD
) -> tuple[float, float, float] | None:
    """Return (lowest before, peak, end) of the largest rise, where a share of it was made good."""
    lowest = points[0][1]
    low, high = lowest, lowest
    for _, loss in points:
        if loss - lowest > high - low:
            low, high = lowest, loss
        lowest = min(lowest, loss)
    if high <= low or high - end < made_good * (high - low):
        return None
    return low, high, end


def find_few_examples(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """Held-out examples are so few that the validation loss is known to a fifth of guessing only;
    where that is unknown: validations differ from their neighbours by much of what is left."""
    # strong dropout shakes losses, too, and is the cause
    if is_held_back(record):
        return None
    error = curves.standard_error
    if error > 0:
        if error < _UNSURE * curves.scale and not curves.has_few_examples:
            return None
        of = f" of {number(curves.examples)} examples" if curves.examples is not None else ""
        words = (
            f"The validation loss{of}, {number(curves.last)}, has a standard error of"
            f" {number(error)}: which step is the best is partly chance.{compare(curves)}"
        )
    else:
        if len(curves.validation) < 6 or not 0.25 < curves.shares_rising < 0.75:
            return None
        if curves.noise < max(0.05 * curves.settled, 0.015 * curves.scale):
            return None
        words = (
            f"Validations differ from their neighbours by {number(curves.noise)} on average, at a"
            f" loss of {number(curves.settled)}: which step is the best is partly"
            f" chance.{compare(curves)}"
        )
    advice = "more held-out examples with data.fraction"
    fraction = record.section("data").get("fraction")
    if is_number(fraction) and fraction < _USUAL_FRACTION / 2:
        advice += f", such as {_USUAL_FRACTION:g} instead of {fraction:g}"
    if record.section("evaluation").get("batches") is not None:
        advice = f"evaluation.batches: null, {advice}"
    return Diagnosis("noisy validation", words, f"{advice}, or {suggest_rate(record, lower=True)}")
