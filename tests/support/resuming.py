"""Whether a run that is stopped goes on as if it had never stopped, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import groundup
from groundup.runs.checkpoint import Checkpoint

__all__ = ["assert_equal", "stopped_and_resumed"]


def assert_equal(one: Checkpoint, other: Checkpoint) -> None:
    """Hold weights, optimizer and everything else that the rest of a run depends on to the last
    bit."""
    pairs = (
        (one.model, other.model),
        (one.optimizer, other.optimizer),
        (one.experience, other.experience),
    )
    for mine, theirs in pairs:
        assert mine.keys() == theirs.keys()
        assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    states = [
        {key: value for key, value in each.state.items() if key != "elapsed_s"}
        for each in (one, other)
    ]
    assert states[0] == states[1]


def stopped_and_resumed(recipe: dict[str, Any], runs: Path, stops: tuple[int, ...]) -> Checkpoint:
    """Train once in one go, and once in a new trainer after each stop; return where the run ends.

    Args:
        recipe: The run.
        runs: Where both runs go.
        stops: The steps after which it is saved and closed; the last of them is its end.
    """
    whole = groundup.trainer(recipe, runs=runs / "whole")
    expected, found = list(whole.steps()), []
    for stop in stops:
        torch.manual_seed(12345)  # nothing may come from what this process drew before
        trainer = groundup.trainer(recipe, runs=runs / "parts")
        for report in trainer.steps():
            found.append(report)
            if report.step + 1 == stop:
                break
        trainer.save()
        trainer.close()
    whole.close()
    assert found == expected
    end = whole.state_dict()
    assert_equal(end, trainer.state_dict())
    return end
