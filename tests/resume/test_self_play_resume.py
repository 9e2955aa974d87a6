"""Self-play that is stopped or killed goes on as if it had never stopped, past selves included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from killing import kill_during_save, kill_while_training, train_in_child, weights_sha256
from resuming import stopped_and_resumed
from self_playing import self_play_run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"past_share": 0.5, "past_every": 1, "past_selves": 2, "resign_below": -0.5},
        {
            "search": {"algorithm": "puct", "simulations": 6},
            "fast_share": 0.5,
            "fast_simulations": 3,
        },
    ],
)
def test_a_stop_changes_nothing(tmp_path: Path, settings: dict[str, Any]) -> None:
    end = stopped_and_resumed(self_play_run(**settings), tmp_path, (2, 4, 7, 12))
    assert end.state["stream"]["cursor"]["games"] == 48
    assert any(name.startswith("past/") for name in end.experience) == ("past_share" in settings)


def test_killed_while_it_learns_and_while_it_saves(tmp_path: Path) -> None:
    recipe = self_play_run(past_share=0.5, past_every=2, past_selves=2)
    recipe |= {
        "training": {"batch_size": 16, "steps": 24},
        "logging": {"every": 1},
        "checkpoints": {"every": 3},
    }
    cache = tmp_path / "cache"
    whole = train_in_child(recipe, tmp_path / "whole", cache)
    whole.join(120)
    assert whole.exitcode == 0
    runs = tmp_path / "parts"
    # A round is played every fourth step: the first kill is between two of them.
    kill_while_training(recipe, runs, cache, 10, delay_s=0.005)
    # The third file of a checkpoint, after the optimizer's, is that of the positions.
    kill_during_save(recipe, runs, cache, write=6)
    last = train_in_child(recipe, runs, cache)
    last.join(120)
    assert last.exitcode == 0
    for name in ("model", "optimizer", "experience"):
        one, other = (
            (folder / recipe["name"] / "checkpoints" / "step-00000024" / f"{name}.safetensors")
            for folder in (tmp_path / "whole", runs)
        )
        assert one.read_bytes() == other.read_bytes(), name
    assert weights_sha256(runs / recipe["name"], 24)
