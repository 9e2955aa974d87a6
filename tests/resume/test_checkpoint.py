"""A checkpoint exists if and only if its manifest verifies, and nothing that was there before is
ever lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import FullDisk
from killing import weights_sha256

from groundup import api
from groundup.core.errors import CheckpointError, RunError
from groundup.core.storage import Storage
from groundup.recipe.recipe import load_recipe
from groundup.runs.checkpoint import Checkpoint, CheckpointFolder
from groundup.training import build
from groundup.training.trainer import Trainer
from groundup.weights import restore


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(
        step,
        {"w": torch.full((3,), float(step))},
        {"w/exp_avg": torch.ones(3)},
        {"finished": False},
    )


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints", Storage())
    folder.save(checkpoint(5), keep=2)
    loaded = folder.load(5)
    assert torch.equal(loaded.model["w"], torch.full((3,), 5.0))
    assert torch.equal(loaded.optimizer["w/exp_avg"], torch.ones(3))
    assert loaded.state == {"step": 5, "finished": False}


def test_only_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints", Storage())
    for step in range(1, 7):
        folder.save(checkpoint(step), keep=2, best=2)
    assert folder.steps() == [2, 5, 6]


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path, room: int) -> None:
    CheckpointFolder(tmp_path, Storage()).save(checkpoint(1), keep=1)
    folder = CheckpointFolder(tmp_path, FullDisk(room))
    with pytest.raises(
        CheckpointError, match="No space left on device; the checkpoint of step 1 is untouched"
    ):
        folder.save(checkpoint(2), keep=1)
    assert folder.steps() == [1]
    assert folder.damage(1) == ""
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize(
    "file", ["model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"]
)
@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
def test_the_one_before_a_damaged_checkpoint_is_used(
    tmp_path: Path, file: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = CheckpointFolder(tmp_path, Storage())
    folder.save(checkpoint(1), keep=2)
    folder.save(checkpoint(2), keep=2)
    path = folder.path(2) / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "delete":
        path.unlink()
    else:
        path.write_bytes(content if harm == "flip" else content[:-1])
    assert folder.newest_intact() == 1
    assert "step-00000002 is damaged" in caplog.text
    assert "the one before it is used" in caplog.text
    with pytest.raises(CheckpointError, match="is damaged"):
        folder.load(2)


@pytest.mark.slow
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    run = api.train(recipe, runs=tmp_path / "a")
    expected = weights_sha256(run.folder, 6)
    (run.checkpoints.path(6) / "model.safetensors").write_bytes(b"torn")
    again = api.resume(run.folder)
    assert weights_sha256(again.folder, 6) == expected
    assert "resumed from the checkpoint of step 4 of 6" in (run.folder / "metrics.jsonl").read_text(
        encoding="utf-8"
    )


@pytest.mark.slow
def test_a_finished_run_is_re_used_and_another_recipe_is_refused(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    run = api.train(recipe, runs=tmp_path)
    before = sorted((path, path.stat().st_mtime_ns) for path in run.checkpoints.folder.rglob("*"))
    api.train(recipe, runs=tmp_path)
    assert "finished already at step 6; re-used" in (run.folder / "metrics.jsonl").read_text(
        encoding="utf-8"
    )
    with pytest.raises(
        RunError, match=r"made with another recipe: optim.lr \(0.003 there, 0.1 now\)"
    ):
        api.train(recipe, {"optim.lr": 0.1}, runs=tmp_path)
    assert (
        sorted((path, path.stat().st_mtime_ns) for path in run.checkpoints.folder.rglob("*"))
        == before
    )


@pytest.mark.slow
def test_a_state_taken_at_any_yield_restores_everything(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    def trainer(name: str) -> Trainer:
        return build.build_trainer(
            build.freeze(api.start(load_recipe(recipe, {"name": name}), tmp_path))
        )

    one, other = trainer("one"), trainer("other")
    steps = one.steps()
    for _ in range(3):
        next(steps)
    one.save()
    other.load_state_dict(one.run.checkpoints.load(3))
    first, second = one.state_dict(), other.state_dict()
    assert first.state == second.state
    for mine, theirs in ((first.model, second.model), (first.optimizer, second.optimizer)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert next(steps) == next(other.steps())


@pytest.mark.slow
def test_a_checkpoint_of_another_model_is_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    run = api.train(recipe, runs=tmp_path)
    model = build.assemble(run, torch.device("cpu")).model
    weights = run.checkpoints.load(6).model
    name = next(iter(weights))
    with pytest.raises(CheckpointError, match="has shape"):
        restore.load_weights(model, {**weights, name: torch.zeros(1)}, "x")
    with pytest.raises(CheckpointError, match=f"x: lacks tensor {name}"):
        restore.load_weights(model, {k: v for k, v in weights.items() if k != name}, "x")
    with pytest.raises(CheckpointError, match="has an unknown tensor extra"):
        restore.load_weights(model, {**weights, "extra": torch.zeros(1)}, "x")


@pytest.mark.slow
def test_changed_data_is_noticed(recipe: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    run = api.train(recipe, {"training.steps": 2}, runs=tmp_path)
    corpus.write_text(
        "".join(corpus.read_text(encoding="utf-8").splitlines(keepends=True)[:20]), encoding="utf-8"
    )
    with pytest.raises(RunError, match="the data has changed: an epoch had"):
        build.build_trainer(run).resume()
