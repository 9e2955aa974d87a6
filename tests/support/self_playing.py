"""A small run of self-play for tests."""

from __future__ import annotations

from typing import Any

__all__ = ["GAME_SECTIONS", "self_play_run"]

GAME_SECTIONS: dict[str, Any] = {
    "task": {"name": "policy_value", "simulations": 4, "opponents": [8], "match_games": 4},
    "data": {
        "name": "self_play",
        "game": "tic_tac_toe",
        "games": 16,
        "every": 20,
        "openings": 3,
        "held_out": 40,
        "search": {"simulations": 4},
    },
    "processor": "game",
}


def self_play_run(**data: Any) -> dict[str, Any]:
    """Return the recipe of a run of 12 steps that plays a round every fourth step."""
    return {
        "name": "plays",
        "model": {"name": "policy_value", "backbone": {"name": "mlp", "hidden": [16]}},
        **GAME_SECTIONS,
        "data": {**GAME_SECTIONS["data"], "every": 4, **data},
        "optim": {"lr": 3e-3},
        "training": {"batch_size": 16, "steps": 12},
        "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
    }
