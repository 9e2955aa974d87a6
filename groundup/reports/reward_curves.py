"""What the curves of a run say that learns from rewards: its losses compare with nothing, because
its own weights make the examples."""

from __future__ import annotations

from markupsafe import Markup

from groundup.metrics.directions import best_of
from groundup.reports.advice import name_length, suggest_rate
from groundup.reports.curves import Curves
from groundup.reports.diagnosis import Diagnosis
from groundup.reports.formatting import label, number
from groundup.reports.line_charts import Series, draw_line_chart, smooth
from groundup.reports.run_reader import RunRecord

__all__ = ["MADE_BY_WEIGHTS", "draw_reward_charts", "find_own_examples", "find_rewards"]

MADE_BY_WEIGHTS = "examples made by the weights"
"""What a data card says of a source whose examples the model makes that learns from them."""

# Of the groups that were asked for: with more, most answers teach nothing.
_SILENT = 0.8
# Rewards of steps that differ by less than this share of all that was learned.
_SETTLED = 0.1
# Shares of training steps at its end, over which noisy values are averaged.
_END = 0.25

_LINES = {
    "answer_tokens": ("Length of answers", "tokens"),
    "entropy": ("Entropy of answers", "nats a token, estimated by what was drawn"),
    "no_signal": ("Groups without a signal", "share of the groups of answers"),
    "kl": ("Divergence from the start", "nats a token"),
    "clipped_high": ("Ratios clipped from above", "share of the tokens"),
    "clipped_low": ("Ratios clipped from below", "share of the tokens"),
}


def find_own_examples(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """What became of the metric that checkpoints are chosen by, where the weights make the
    examples: their loss changes with who makes them, so that no rule on losses holds."""
    if not record.data_card.get(MADE_BY_WEIGHTS) or curves.not_finite:
        return None
    words = "The weights make the examples, so losses of different steps do not compare."
    name = str(record.section("checkpoints").get("best_metric", "loss"))
    points = record.points("evaluate", name)
    if name == "loss" or not points:
        return Diagnosis("fine", words, "")
    first, last = points[0][1], points[-1][1]
    best = best_of(name, [value for _, value in points])
    if best is None:
        return Diagnosis("fine", words, "")
    step = next(step for step, value in points if value == best)
    words += (
        f" On held-out examples {label(name)} went from {number(first)} to {number(last)} (best:"
        f" {number(best)} at step {number(step)})."
    )
    # The first one is of a model that has hardly begun: no better than that is nothing.
    if len(points) > 2 and best == first:
        advice = f"{suggest_rate(record, lower=True)}, or more {name_length(record)}"
        return Diagnosis("no better than a baseline", f"{words} It did not improve.", advice)
    return Diagnosis("fine", words, "")


def find_rewards(record: RunRecord, curves: Curves) -> Diagnosis | None:
    """Held-out rewards, where there are any, before and after; and what kept them from rising."""
    trained = record.points("train", "reward")
    points = record.points("evaluate", "reward")
    if not trained or not points or curves.not_finite:
        return None
    step, best = max(points, key=lambda point: point[1])
    begin = _mean(trained[: max(1, round(len(trained) * _END))])
    last = trained[-max(1, round(len(trained) * _END)) :]
    end = _mean(last)
    words = (
        f"The reward in training went from {number(begin)} to {number(end)}; on held-out prompts it"
        f" is {number(points[-1][1])} (highest: {number(best)} at step {number(step)})."
    )
    # What was drawn is noisy from step to step, and learning changes what comes next.
    silent = record.points("train", "no_signal")
    share = _mean(silent[-max(1, round(len(silent) * _END)) :]) if silent else 0.0
    if share > _SILENT:
        words += f" Of the last groups {share:.0%} had equal rewards, and taught nothing."
        # All answers to all prompts get nearly the same, and more than before: it is learned.
        spread = max(value for _, value in last) - min(value for _, value in last)
        if spread < _SETTLED * (end - begin) and points[-1][1] == best:
            words += " Nearly every answer gets the same by now: fewer steps would have done."
            return Diagnosis("fine", words, "")
        advice = (
            "prompts that are neither always right nor always wrong, a reward with more steps,"
            " task.draws: 3, or a larger task.group_size"
        )
        return Diagnosis("no signal", words, advice)
    # By what was drawn in training: a validation's likeliest answers change in leaps.
    if end <= begin:
        advice = "another optim.lr, more steps, a larger task.group_size, or easier prompts"
        return Diagnosis("no better than a baseline", words + " It did not rise.", advice)
    return Diagnosis("fine", words, "")


def _mean(points: list[tuple[float, float]]) -> float:
    return sum(value for _, value in points) / len(points)


def draw_reward_charts(record: RunRecord) -> list[Markup]:
    """Return charts of rewards and answers; none for a run without rewards."""
    trained = record.points("train", "reward")
    if not trained:
        return []
    held_out = record.points("evaluate", "reward")
    lines = [
        Series("training, drawn answers", smooth(trained), "line-0"),
        Series("held-out, likeliest answer", held_out, "line-1", dots=True),
    ]
    charts = [draw_line_chart("Reward", lines, unit="mean of an answer")]
    for name, (title, unit) in _LINES.items():
        points = record.points("train", name)
        if points:
            charts.append(draw_line_chart(title, [Series(title, smooth(points))], unit=unit))
    return charts
