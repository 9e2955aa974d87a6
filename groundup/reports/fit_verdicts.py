"""Verdicts on what was learned: nothing, too much to be believed, by heart, too little, or not yet
all.

All shares were settled on curves of known cause; see scripts/verdict_curves.py. Those of a loss are
of the loss of guessing, where nothing else is said.
"""

from __future__ import annotations

from groundup.media.table_values import TELLS
from groundup.metrics.directions import best_of
from groundup.reports.advice import (
    advise_against_overfitting,
    advise_against_underfitting,
    is_held_back,
    name_length,
    name_width,
    rate_is_low,
    suggest_rate,
)
from groundup.reports.curves import Curves, accuracies_of, compare, name_accuracies
from groundup.reports.diagnosis import Diagnosis
from groundup.reports.formatting import is_number, label, number
from groundup.reports.run_reader import RunRecord

__all__ = [
    "find_beaten_by_a_baseline",
    "find_explosion",
    "find_gap",
    "find_high_plateau",
    "find_nothing_learned",
    "find_rising_validation",
    "find_short_training",
    "find_unbelievable_scores",
]

# a rise of the validation loss, relative to its lowest and to guessing
_RISE = 0.1
_LEAST_RISE = 0.02
# validations above the training loss, of which less than half is left
_GAP = 0.2
# accuracy on training examples over that on held-out ones, and what losses differ by then
_MORE_RIGHT = 0.15
_LEAST_GAP = 0.1
# accuracy on training examples from which nothing is left to learn from them
_MASTERED = 0.995
# a training loss from which nothing is left to learn
_ALL_LEARNED = 0.03
# what twice the steps would bring
_STILL_FALLING = 0.08
# what is left of guessing where a model is held back, and where it is not
_LITTLE_LEFT = 0.1
_MUCH_LEFT = 0.8
# what is left where the answer may be among the inputs, and where a column tells it
_UNBELIEVABLE = 0.01
_TOLD = 0.1
_NEARLY_ALL = 0.95
# in which no model of any rate has learned much
_FEW_STEPS = 100
# what is left after so few
_LEFT_EARLY = 0.3
# in the title of a table of what was written worst
_LISTS_WORST = "outputs with the lowest"
# a training loss over the first one, and a validation loss over guessing, that no model reaches
# which only learns by heart
_EXPLODED = 1.3
_EXPLODED_FAR = 10.0


# -------------------------------------------------------------------------------- next to guessing
def find_nothing_learned(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """No validation was better than guessing."""
    guessing = curves.guessing
    if guessing is None or curves.is_learned():
        return None
    steps = curves.validation[-1][0]
    near = curves.end >= 0.9 * guessing
    begun = steps < _FEW_STEPS and near
    if (begun and not is_held_back(record)) or curves.gain > _STILL_FALLING * guessing:
        words = f"After {number(steps)} steps nothing is learned yet.{compare(curves)}"
        return Diagnosis("too short", words, f"more {name_length(record)}")
    if is_held_back(record) and near:
        words = "Neither loss comes below guessing, as with a model that can say little."
        words += compare(curves)
        return Diagnosis("underfitting", words, advise_against_underfitting(record))
    advice = (
        "look at the rows with groundup data inspect: whether targets belong to their inputs, and"
        " which columns are read"
    )
    words = f"On held-out examples the model is hardly better than guessing.{compare(curves)}"
    if not near:
        words += (
            f" The training loss fell to {number(curves.end)} meanwhile: examples are learned by"
            " heart, as with targets that do not belong to their inputs, or too few of them."
        )
        advice += f"; {advise_against_overfitting(record, curves)}"
    else:
        advice += f"; {suggest_rate(record, lower=False)}, or a larger {name_width(record, 4)}"
    return Diagnosis("no better than guessing", words, advice)


def find_unbelievable_scores(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """Hardly anything is left of the loss of guessing; or little, and the data card names a column
    that tells the target."""
    guessing = curves.guessing
    if guessing is None:
        return None
    warnings = record.data_card.get("warnings")
    telling = next((each for each in warnings or () if TELLS in each), None)
    accuracy = record.last("evaluate", "accuracy")
    is_table = record.section("data").get("name") == "table"
    # Of a table's columns it is known that none alone tells the class: then it is an easy table.
    if telling is None and is_table and warnings is not None and accuracy is not None:
        return None
    limit = _UNBELIEVABLE if telling is None else _TOLD
    least = _MASTERED if telling is None else _NEARLY_ALL
    if curves.best[1] > limit * guessing or (accuracy is not None and accuracy < least):
        return None
    right = "held-out errors are tiny"
    if accuracy is not None:
        right = f"{100 * accuracy:.1f}% of held-out examples are right"
    words = (
        f"The validation loss is {number(curves.best[1])} where guessing has {number(guessing)},"
        f" and {right}: either this is easy, or the answer is among the inputs, or held-out"
        " examples were trained on."
    )
    advice = "look for the answer in the inputs with groundup data inspect"
    if telling is not None:
        words += f" Of the data: {telling}."
    if is_table:
        advice += ", and leave such columns out with data.ignore"
    if "group_column" in record.section("data"):
        advice += "; keep rows that belong together on one side with data.group_column"
    return Diagnosis("suspiciously good", words, advice)


# ------------------------------------------------------------------------------- fitting the data
def find_rising_validation(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """The last validations are above the best by more than their noise, while the training loss
    fell."""
    step, best = curves.best
    place = [point[0] for point in curves.validation].index(step)
    after = [loss for _, loss in curves.validation[place + 1 :]][-3:]
    if not after:
        return None
    last = sum(after) / len(after)
    least = max(_RISE * abs(best), _LEAST_RISE * curves.scale)
    # The same examples were evaluated before, so which they are matters less to the difference.
    by_chance = curves.standard_error * (1.0 if curves.has_few_examples else 0.25)
    least = max(least, 3 * curves.noise, by_chance)
    if len(after) < 2:  # a single one may be chance
        least = max(least, 0.2 * abs(best))
    then = curves.training_at(step)
    if last - best <= least or curves.smoothed[-1][1] >= then:
        return None
    words = (
        f"The validation loss has been rising since step {number(step)}, from {number(best)} to"
        f" {number(last)}, while the training loss fell from {number(then)} to"
        f" {number(curves.smoothed[-1][1])}.{compare(curves)}{name_accuracies(record)}"
    )
    return Diagnosis("overfitting", words, advise_against_overfitting(record, curves))


def find_explosion(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """The curves part as by overfitting, but the training loss was far above where it began, or the
    validation loss is far beyond guessing: large steps have destroyed what the model knew."""
    step, highest = max(curves.smoothed, key=lambda point: point[1])
    rose = highest > _EXPLODED * curves.smoothed[0][1]
    # Of a loss that is lost in the first steps the rise itself may not have been logged.
    beyond = curves.settled > _EXPLODED_FAR * curves.scale
    if not (rose or beyond):
        return None
    if find_rising_validation(record, curves) is None and find_gap(record, curves) is None:
        return None
    words = (
        f"The training loss was {number(curves.smoothed[0][1])} at first, {number(highest)} at step"
        f" {number(step)} and {number(curves.end)} at the end; the validation loss ends at"
        f" {number(curves.settled)}, from {number(curves.best[1])} at step"
        f" {number(curves.best[0])}.{compare(curves)}"
    )
    advice = f"{suggest_rate(record, lower=True)}, or a longer optim.warmup_steps"
    if record.section("optim").get("clip_norm") is None:
        advice += ", or optim.clip_norm: 1.0"
    return Diagnosis("diverged", words, advice)


def find_gap(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """The training loss is less than half of the validation loss and far below it; or training
    examples are right 15 points more often than held-out ones, and more often than their 95%
    interval allows."""
    gap = curves.settled - curves.end
    # of few held-out examples a large gap may be chance
    apart = curves.end < 0.5 * curves.settled
    apart = apart and gap > max(_GAP * curves.scale, 1.5 * curves.standard_error)
    found = accuracies_of(record)
    high = record.metrics.get("accuracy_high_95")
    if found is not None and is_number(high):
        more_right = found.training - found.held_out >= _MORE_RIGHT
        more_right = more_right and gap > _LEAST_GAP * curves.scale
        apart = (apart or more_right) and found.training > high
    if not apart:
        return None
    words = (
        f"The training loss came down to {number(curves.end)}, the validation loss to"
        f" {number(curves.settled)}: much of what was learned holds for the training examples"
        f" alone.{compare(curves)}{name_accuracies(record)}"
    )
    return Diagnosis("overfitting", words, advise_against_overfitting(record, curves))


def find_short_training(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """The last validation is the lowest, or about as low, and twice the steps would bring much, by
    what the last doubling brought."""
    found = accuracies_of(record)
    mastered = curves.end < _ALL_LEARNED * curves.scale
    mastered = mastered or (found is not None and found.training >= _MASTERED)
    least = max(_STILL_FALLING * curves.scale, 2 * curves.noise)
    begun = curves.guessing is not None and curves.validation[-1][0] < _FEW_STEPS
    begun = begun and curves.settled > _LEFT_EARLY * curves.scale
    if mastered or is_held_back(record) or (curves.gain < least and not begun):
        return None
    if not begun and curves.last > curves.best[1] + curves.noise + 0.002 * curves.scale:
        return None
    words = (
        f"The losses were still falling: the training loss to {number(curves.smoothed[-1][1])}, and"
        f" the last validation loss, {number(curves.last)}, is the"
        f" {'lowest' if len(curves.validation) > 1 else 'only one'}."
        f"{compare(curves)}{name_accuracies(record)}"
    )
    advice = f"more {name_length(record)}, or a higher optim.lr"
    if rate_is_low(record):
        advice = f"{suggest_rate(record, lower=False)}, or more {name_length(record)}"
    return Diagnosis("too short", words, advice)


def find_high_plateau(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """Neither loss falls any more, both are about the same, and much of the loss of guessing is
    left: what a model of two units leaves, or far more than noise in the data usually does."""
    held_back = is_held_back(record)
    left = _share_left(record, curves)
    if left is None or len(curves.validation) < 3:
        return None
    apart = curves.settled - curves.end > (0.25 if held_back else 0.15) * curves.scale
    if left < (_LITTLE_LEFT if held_back else _MUCH_LEFT) or apart:
        return None
    words = (
        f"Neither loss falls much further: training {number(curves.end)}, validation"
        f" {number(curves.settled)}.{compare(curves)}{name_accuracies(record)}"
    )
    return Diagnosis("underfitting", words, advise_against_underfitting(record))


def find_beaten_by_a_baseline(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """An answer without a model, such as the most similar training example's, is as good by the
    first metric of what was written."""
    own = {name: value for name, value in record.metrics.items() if is_number(value)}
    # Of texts that are written each metric has an interval.
    name = next((name for name in own if f"{name}_low_95" in own), "")
    ways = {
        key.removeprefix("baseline_").removesuffix(f"_{name}"): value
        for key, value in own.items()
        if key.startswith("baseline_") and key.endswith(f"_{name}")
    }
    best = best_of(name, ways.values()) if ways else None
    if best is None or best_of(name, (own[name], best)) != best:
        return None
    way = next(way for way, value in ways.items() if value == best)
    words = (
        f"On held-out examples {label(name)} is {number(own[name])}, and without a model"
        f" {number(best)}, by the answer {way!r}.{compare(curves)}"
    )
    advice = f"more {name_length(record)}"
    # Only tasks that write something list it by its score.
    worst = next((each["title"] for each in record.tables if _LISTS_WORST in each["title"]), None)
    if worst is not None:
        advice += f"; read {worst[0].lower()}{worst[1:]} in the report"
    else:
        advice += f", or {suggest_rate(record, lower=False)}"
    return Diagnosis("no better than a baseline", words, advice)


def _share_left(record: RunRecord, curves: Curves) -> float | None:
    """Return what is left of the loss of guessing; where that is unknown, of its errors."""
    if curves.guessing is not None:
        return curves.settled / curves.guessing
    found = accuracies_of(record)
    if found is None:
        return None
    by_guessing = float(record.metrics.get("baseline_accuracy", 0.0))
    return (1 - found.training) / max(1 - by_guessing, 1e-6)
