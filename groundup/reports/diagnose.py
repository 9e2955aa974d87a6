"""What the curves of a run say, in words: a rate that is too high or too low, divergence,
underfitting, overfitting and other verdicts, with the numbers they are read from and what to
change."""

from __future__ import annotations

from pathlib import Path

from groundup.reports.curves import Curves, compare, name_accuracies, read_curves
from groundup.reports.diagnosis import Diagnosis, Rule
from groundup.reports.fit_verdicts import (
    find_beaten_by_a_baseline,
    find_explosion,
    find_gap,
    find_high_plateau,
    find_nothing_learned,
    find_rising_validation,
    find_short_training,
    find_unbelievable_scores,
)
from groundup.reports.formatting import number
from groundup.reports.rate_verdicts import (
    find_blown_up_start,
    find_divergence,
    find_few_examples,
    find_high_rate,
    find_low_rate,
    find_recovery,
    find_restless_weights,
)
from groundup.reports.reward_curves import find_own_examples, find_rewards
from groundup.reports.run_reader import RunRecord, read_run

__all__ = ["diagnose", "verdict_of"]

# The first that fits is the verdict, so causes come before what follows from them: a run that
# diverged also has a validation loss that rises, and one that never learned anything is not
# overfitting.
_RULES: tuple[Rule, ...] = (
    # how the weights moved
    find_rewards,
    find_own_examples,
    find_divergence,
    find_low_rate,
    find_high_rate,
    # what there was to learn
    find_nothing_learned,
    # how they moved, of runs that learned something
    find_blown_up_start,
    find_recovery,
    find_unbelievable_scores,
    find_restless_weights,
    # training losses next to validations
    find_explosion,
    find_rising_validation,
    find_gap,
    find_few_examples,
    # where the curves end
    find_short_training,
    find_high_plateau,
    # what was written, where nothing is the matter with the curves
    find_beaten_by_a_baseline,
)


def verdict_of(folder: Path) -> str:
    """Return a run's diagnosis in a line; empty for one that has logged nothing yet."""
    found = diagnose(read_run(folder))
    return "" if found is None else found.line


def diagnose(record: RunRecord) -> Diagnosis | None:
    """Read the curves of a run and, where it was evaluated, its accuracies.

    Returns:
        None for a run that has logged nothing yet.
    """
    curves = read_curves(record)
    if curves is None:
        return None
    if not curves.validation:
        words = (
            f"The training loss is {number(curves.training[-1][1])} at step"
            f" {number(curves.training[-1][0])}; nothing was validated."
        )
        return Diagnosis("not validated", words, "a smaller evaluation.every")
    found = next((found for rule in _RULES if (found := rule(record, curves))), None)
    return found or Diagnosis("fine", _sum_up(record, curves), "")


def _sum_up(record: RunRecord, curves: Curves) -> str:
    training = curves.training
    words = f"The training loss is {number(training[-1][1])}"
    if len(training) > 1:
        begin = curves.smoothed[0][1]
        words = f"The training loss went from {number(begin)} to {number(curves.end)}"
    first = curves.validation[0][1]
    step, best = curves.best
    if len(curves.validation) == 1:
        words += f"; the only validation loss is {number(best)}, at step {number(step)}."
    else:
        words += (
            f", the validation loss from {number(first)} to {number(curves.last)} (lowest:"
            f" {number(best)} at step {number(step)})."
        )
    return words + compare(curves) + name_accuracies(record)
