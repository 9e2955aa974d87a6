"""What a report says and draws of a run that learns from rewards."""

from __future__ import annotations

from typing import Any

import pytest
from verdict_curves import record_of

from groundup.reports.curves import read_curves
from groundup.reports.diagnosis import Diagnosis
from groundup.reports.reward_curves import draw_reward_charts, find_rewards
from groundup.reports.run_reader import RunRecord

STEPS = 40


def rewarded(begin: float, end: float, silent: float, **shown: float) -> RunRecord:
    rise = [begin + (end - begin) * step / (STEPS - 1) for step in range(STEPS)]
    train: dict[str, list[Any]] = {
        "step": list(range(1, STEPS + 1)),
        "loss": [0.0] * STEPS,
        "reward": rise,
        "no_signal": [silent] * STEPS,
    }
    train |= {name: [value] * STEPS for name, value in shown.items()}
    evaluate = {"step": [20, 40], "loss": [-begin, -end], "reward": [begin, end]}
    return record_of(
        {
            "name": "rewarded",
            "recipe": {"training": {"steps": STEPS}},
            "train": train,
            "evaluate": evaluate,
            "warnings": [],
            "metrics": {},
        }
    )


def settled(begin: float, end: float, silent: float) -> RunRecord:
    """A run whose reward has risen to where it stays."""
    record = rewarded(begin, end, silent)
    for row in record.train[STEPS // 2 :]:
        row["reward"] = end
    return record


def found_in(record: RunRecord) -> Diagnosis | None:
    curves = read_curves(record)
    assert curves is not None
    return find_rewards(record, curves)


@pytest.mark.parametrize(
    ("record", "verdict", "said"),
    [
        (rewarded(0.1, 0.7, 0.3), "fine", "it is 0.700 (highest: 0.700 at step 40)"),
        (rewarded(0.5, 0.2, 0.3), "no better than a baseline", "It did not rise."),
        (rewarded(0.0, 0.01, 0.95), "no signal", "Of the last groups 95% had equal rewards"),
        (
            settled(0.2, 1.2, 0.95),
            "fine",
            "95% had equal rewards, and taught nothing. Nearly every",
        ),
    ],
)
def test_what_is_said_of_rewards(record: RunRecord, verdict: str, said: str) -> None:
    found = found_in(record)
    assert found is not None
    assert found.verdict == verdict
    assert said in found.words


def test_curves_of_rewards_lengths_entropy_and_signal() -> None:
    charts = draw_reward_charts(rewarded(0.1, 0.7, 0.3, answer_tokens=9.0, entropy=0.5, kl=0.01))
    titles = ["Reward", "Length of answers", "Entropy of answers", "Groups without a signal"]
    titles.append("Divergence from the start")
    assert len(charts) == len(titles)
    for title, chart in zip(titles, charts, strict=True):
        assert title in chart
    assert "held-out, likeliest answer" in charts[0]
    assert "share of the groups of answers" in charts[3]


def test_a_run_without_rewards_has_no_such_curves() -> None:
    record = rewarded(0.1, 0.7, 0.3)
    for row in (*record.train, *record.evaluate):
        del row["reward"]
    assert draw_reward_charts(record) == []
    assert found_in(record) is None
