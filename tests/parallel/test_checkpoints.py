"""A checkpoint does not depend on the layout of the processes that wrote it, or open it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from launched import command
from resuming import assert_equal
from tiny_runs import tiny_run

from groundup import api
from groundup.core.storage import Storage
from groundup.runs.checkpoint import CheckpointFolder

pytestmark = pytest.mark.slow
LAYOUTS = ("replicate", "shard", "tensor", "pipeline", "context")
# Opens a checkpoint under one layout after another, and writes it again under each: what the first
# one read one process had written, what each other one read the layout before it.
REWRITING = """
import json, os, shutil, sys
from pathlib import Path

from groundup.core.storage import Storage
from groundup.parallel.world import join
from groundup.recipe.recipe import load_recipe
from groundup.runs.checkpoint import CheckpointFolder
from groundup.runs.checkpoint_writer import CheckpointWriter
from groundup.runs.run import Run
from groundup.training import build

before = Path(sys.argv[1])
world = join(120, "cpu")
for name in sys.argv[2:]:
    folder = before.parent / name
    changes = {f"parallel.{name}": 2}
    recipe = load_recipe(before / "recipe.yaml", changes, complete=True)
    world.arrange(recipe.parallel)
    storage = Storage(writes=world.is_first)
    trainer = build.build_trainer(Run(before, recipe, storage), world)
    assert trainer.resume()
    world.first(lambda: shutil.copytree(before, folder, ignore=lambda *_: ["checkpoints"]), "a copy")
    writer = CheckpointWriter(CheckpointFolder(folder / "checkpoints", storage), world)
    checkpoint = trainer.state_dict(shared_out=True)
    tensors = {**checkpoint.model, **checkpoint.optimizer}
    own = sum(each.nbytes for each in tensors.values() if not each.is_meta)
    # In one write: two processes say something at the same time.
    os.write(1, (json.dumps({"layout": name, "bytes": own}) + os.linesep).encode())
    writer.save(checkpoint, keep=1)
    trainer.close()
    before = folder
"""


def test_each_layout_opens_what_another_wrote(tmp_path: Path) -> None:
    recipe: dict[str, Any] = tiny_run("gpt", tmp_path, {"layers": 2}) | {"name": "alone"}
    recipe |= {"training": {"batch_size": 16, "steps": 3}}
    # The average is a second set of weights, next to the moments.
    recipe["optim"] = {"lr": 3e-3, "schedule": "constant", "average": "ema"}
    recipe["machine"] = recipe["machine"] | {"micro_batch_size": 4}
    alone = api.train(recipe, runs=tmp_path / "runs")
    expected = alone.checkpoints.load(3)
    script = tmp_path / "rewriting.py"
    script.write_text(REWRITING, encoding="utf-8")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [command(1)[0], *torchrun, str(script), str(alone.folder), *LAYOUTS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    # No process has more than about its share of the whole tensors; a stage has what it has.
    whole = sum(each.nbytes for each in (expected.model | expected.optimizer).values())
    shares = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(shares) == 2 * len(LAYOUTS)
    assert all(0.3 < each["bytes"] / whole < 0.7 for each in shares), (shares, whole)
    for name in LAYOUTS:
        folder = CheckpointFolder(tmp_path / "runs" / name / "checkpoints", Storage())
        assert folder.damage(3) == ""
        assert len(list(folder.path(3).glob("model-*-of-00002.safetensors"))) == 2
        assert_equal(folder.load(3), expected)
    # As one process, which predicts the same with it.
    tokens = torch.arange(8)[None]
    predictors = [api.load(tmp_path / "runs" / name) for name in ("alone", LAYOUTS[-1])]
    one, other = (each.model(tokens) for each in predictors)
    assert torch.equal(one, other)
