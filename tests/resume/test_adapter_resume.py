"""A run that trains an adapter goes on, after a stop, as if it had never stopped, bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from resuming import stopped_and_resumed

import groundup

SLOW = pytest.mark.slow
OPTIMS = [
    pytest.param({"name": "adamw"}, id="adamw"),
    pytest.param({"name": "muon", "average": "ema"}, id="muon", marks=SLOW),
    pytest.param({"name": "sgd", "momentum": 0.9}, id="sgd", marks=SLOW),
]


@pytest.mark.slow
@pytest.mark.parametrize("optim", OPTIMS)
@pytest.mark.parametrize("name", ["lora", pytest.param("dora", marks=SLOW)])
def test_stopped_and_resumed(
    recipe: dict[str, Any], tmp_path: Path, name: str, optim: dict[str, Any]
) -> None:
    groundup.train(recipe, runs=tmp_path)
    kept = {key: value for key, value in recipe.items() if key not in ("model", "processor")}
    adapter = {"name": name, "rank": 3, "dropout": 0.2, "lora_plus_ratio": 4.0}
    tuned = {**kept, "name": "tuned", "init": {"run": str(tmp_path / "small")}, "adapter": adapter}
    tuned |= {"optim": {"lr": 1e-2, **optim}, "training": {"batch_size": 4, "steps": 9}}
    tuned |= {"machine": {**recipe["machine"], "micro_batch_size": 2}}
    one = stopped_and_resumed(tuned, tmp_path, (3, 7, 9))
    assert all(key.rpartition(".")[2] in ("lora_A", "lora_B", "magnitude") for key in one.model)
