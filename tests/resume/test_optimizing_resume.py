"""A run with averages, patience and a best metric of its own goes on to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from groundup import api
from groundup.recipe.recipe import load_recipe
from groundup.runs.run import Run
from groundup.training import build
from groundup.training.trainer import Trainer


class _StopError(Exception):
    """Ends a run as if it had been killed."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "average", [{"average": "ema", "ema_decay": 0.7}, {"average": "swa", "average_from": 0.4}]
)
@pytest.mark.parametrize("at", [4, 8])
def test_interrupted_equals_uninterrupted(average: dict[str, Any], at: int, tmp_path: Path) -> None:
    recipe = {
        **{
            "model": {"name": "mlp", "hidden": [8], "norm": "batch"},
            "task": "classify",
            "processor": "image",
        },
        **{"data": "arrays", "optim": {"lr": 3e-3, **average}},
        **{"training": {"batch_size": 64, "steps": 14, "patience": 3, "min_improvement": 0.01}},
        **{
            "evaluation": {"every": 4, "batches": 1},
            "checkpoints": {"every": 4, "best_metric": "accuracy", "keep": 9},
        },
        **{"machine": {"precision": "fp32", "threads": 1, "compile": False, "device": "cpu"}},
    }

    def start(name: str) -> Trainer:
        return build.build_trainer(
            build.freeze(api.start(load_recipe({**recipe, "name": name}), tmp_path))
        )

    whole, first = start("whole"), start("parts")
    whole.fit()

    def stop(row: dict[str, Any]) -> None:
        # The checkpoint of a step is written before its rows are watched.
        if row["kind"] == "evaluate" and row["step"] == at:
            raise _StopError

    first.watch = stop
    with pytest.raises(_StopError):
        first.fit()
    second = build.build_trainer(Run.open(first.run.folder))
    assert second.resume()
    assert second.step == at
    second.fit()
    last = [trainer.run.checkpoints.load(trainer.step) for trainer in (whole, second)]
    assert whole.step == second.step
    for part in ("model", "optimizer"):
        mine, theirs = (getattr(checkpoint, part) for checkpoint in last)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    states = [
        {k: v for k, v in checkpoint.state.items() if k != "elapsed_s"} for checkpoint in last
    ]
    assert states[0] == states[1]
    for trainer in (whole, first, second):
        trainer.close()
