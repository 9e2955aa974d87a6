"""A run whose weights of tasks are learned goes on, after an interruption, exactly as if there had
been none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup import api
from groundup.data.sources.arrays import Arrays
from groundup.recipe.recipe import load_recipe
from groundup.training import build
from groundup.training.trainer import Trainer


def recipe(folder: Path, weighting: str) -> dict[str, Any]:
    examples = Arrays().examples("train", folder)[:200]
    loop = np.array([float(e.target in (0, 6, 8, 9)) for e in examples])
    loop[::3] = np.nan
    np.savez(
        folder / "digits.npz",
        x=np.stack([e.inputs for e in examples]),
        y=[e.target for e in examples],
        loop=loop,
    )
    keys = {"digit": "y", "loop": "loop"}
    return {
        **{
            "name": "several",
            "model": {"name": "mlp", "hidden": [16], "dropout": 0.1},
            "processor": "image",
        },
        **{
            "task": {
                "name": "multitask",
                "tasks": dict.fromkeys(keys, "classify"),
                "weighting": weighting,
            }
        },
        **{"data": {"name": "arrays", "path": str(folder / "digits.npz"), "labels_keys": keys}},
        **{"optim": {"lr": 1e-2}, "training": {"batch_size": 16, "steps": 12}},
        **{"machine": {"precision": "fp32", "compile": False, "threads": 1}},
    }


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["uncertainty", "gradnorm"])
def test_learned_weights_resume_exactly(tmp_path: Path, weighting: str) -> None:
    def trainer(name: str) -> Trainer:
        loaded = load_recipe(recipe(tmp_path, weighting), {"name": name})
        return build.build_trainer(build.freeze(api.start(loaded, tmp_path / "runs")))

    one, other = trainer("one"), trainer("other")
    steps = one.steps()
    for _ in range(5):
        next(steps)
    one.save()
    middle = {
        n: v for n, v in one.run.checkpoints.load(5).model.items() if n.startswith("task_weights.")
    }
    assert middle
    other.load_state_dict(one.run.checkpoints.load(5))
    assert list(steps) == list(other.steps())
    first, second = one.state_dict(), other.state_dict()
    for mine, theirs in ((first.model, second.model), (first.optimizer, second.optimizer)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert any(not torch.equal(first.model[name], value) for name, value in middle.items())
    assert not torch.allclose(
        *next(iter(v for n, v in middle.items() if not n.endswith("first_loss")))
    )
    one.close()
    other.close()
