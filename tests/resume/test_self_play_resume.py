"""Self-play that is stopped goes on as if it had never stopped, past selves included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
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
