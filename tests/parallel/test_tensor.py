"""Runs whose matrices are divided between processes: the losses, norms and weights of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from launched import launch, rows, write_recipe
from tiny_runs import tiny_run

from groundup import api

pytestmark = pytest.mark.slow
# Odd widths too: a vocabulary of 259, 23 inner numbers, three queries for one key.
MODELS: dict[str, dict[str, Any]] = {
    "gpt": {"heads": 4, "kv_heads": 2, "qk_norm": True, "bias": "qkv", "mlp_width": 23},
    "gemma3": {"kv_heads": 2, "logit_cap": 8.0},
    "bert": {},
    "encoder_decoder": {"positions": "relative"},
    "vit": {},
    "cnn": {"batch_norm": False},
    "mlp": {"hidden": [25, 11]},
    "sequence_recommender": {"positions": "distance"},
    "transformer_classifier": {},
}


def _recipes(folder: Path, suffix: str, **parallel: int) -> list[Path]:
    written = []
    for name, changes in MODELS.items():
        recipe = tiny_run(name, folder, changes)
        # Accumulated over four micro-batches, ragged ones where rows are texts.
        recipe["machine"] = recipe["machine"] | {"micro_batch_size": 4}
        recipe |= {"name": f"{name}-{suffix}", "logging": {"every": 1}, "parallel": parallel}
        written.append(write_recipe(folder, recipe))
    return written


def test_the_losses_are_those_of_one_process(tmp_path: Path) -> None:
    """Dropout, clipping and accumulation included."""
    api.train_all(_recipes(tmp_path, "alone"), runs=tmp_path / "runs")
    done = launch(tmp_path, 2, *_recipes(tmp_path, "divided", tensor=2))
    assert done.returncode == 0, done.stderr
    for name in MODELS:
        alone, divided = (tmp_path / "runs" / f"{name}-{each}" for each in ("alone", "divided"))
        for one, two in zip(rows(alone, "train"), rows(divided, "train"), strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5), (name, one["step"])
            assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4), name
        for one, two in zip(rows(alone, "evaluate"), rows(divided, "evaluate"), strict=True):
            assert two.keys() == one.keys()
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5), name
