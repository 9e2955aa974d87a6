"""The Python API: the same verbs as functions."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import groundup
from groundup import api
from groundup.core.errors import CheckpointError, RecipeError, RunError
from groundup.core.storage import Storage
from groundup.recipe.recipe import load_recipe


def test_the_package_offers_the_verbs() -> None:
    for name in groundup.__all__:
        assert getattr(groundup, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = groundup.nothing  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_run_from_training_to_prediction(recipe: dict[str, Any], tmp_path: Path) -> None:
    run = groundup.train(recipe, runs=tmp_path)
    files = {path.name for path in run.folder.iterdir()}
    expected = {
        "recipe.yaml",
        "environment.json",
        "metrics.jsonl",
        "report.html",
        "data_card.json",
        "processor",
    }
    assert expected | {"checkpoints", "tensorboard"} <= files
    text = groundup.predict(run.folder, "The ", max_new_tokens=5, temperature=0.0)
    assert isinstance(text, str)
    predictor = groundup.load(run.folder, "last")
    assert predictor.step == 6
    several = predictor(["The ", "A "], max_new_tokens=5, temperature=0.0)
    assert several[0] == groundup.load(run.folder, "6")("The ", max_new_tokens=5, temperature=0.0)
    assert len(several) == 2
    assert "".join(predictor.stream("The ", max_new_tokens=5, temperature=0.0)) == several[0]


@pytest.mark.slow
def test_a_full_disk_after_training_loses_nothing(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes = Storage.write_bytes

    def full(self: Storage, path: Path, content: bytes) -> None:
        if path.parent.name == "model" and path.name == ".model.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_bytes(self, path, content)

    monkeypatch.setattr(Storage, "write_bytes", full)
    with pytest.raises(
        CheckpointError, match="No space left on device; the run's checkpoints are untouched"
    ):
        groundup.train(recipe, runs=tmp_path)
    monkeypatch.undo()
    again = groundup.train(recipe, runs=tmp_path)
    assert again.finished
    trained = again.checkpoints.load(6).model
    written = load_file(again.folder / "model" / "model.safetensors")
    assert sum(t.numel() for t in written.values()) == sum(t.numel() for t in trained.values())
    assert (again.folder / "report.html").is_file()


@pytest.mark.slow
def test_steps_of_ones_own(recipe: dict[str, Any], tmp_path: Path) -> None:
    trainer = groundup.trainer(recipe, {"optim.lr": 0.01}, runs=tmp_path)
    reports = list(trainer.steps())
    assert [report.step for report in reports] == list(range(6))
    assert reports[-1].samples_seen == 24
    assert set(trainer.evaluate(1)) == {"loss", "perplexity", "bits_per_byte", "baseline_loss"}
    trainer.save()
    trainer.close()
    assert groundup.trainer(recipe, {"optim.lr": 0.01}, runs=tmp_path).step == 6


@pytest.mark.slow
def test_recipes_in_order_may_build_on_each_other(recipe: dict[str, Any], tmp_path: Path) -> None:
    second = {
        key: recipe[key]
        for key in (
            "task",
            "data",
            "optim",
            "training",
            "logging",
            "evaluation",
            "checkpoints",
            "machine",
        )
    }
    second |= {"name": "second", "init": {"run": str(tmp_path / "small"), "train_layers": 1}}
    with pytest.raises(RecipeError, match="is not a run"):
        load_recipe(second)
    assert [planned.name for planned in api.plan([recipe, second], runs=tmp_path)] == [
        "small",
        "second",
    ]
    assert not (tmp_path / "small").exists()
    first, tuned = groundup.train_all([recipe, second], runs=tmp_path)
    assert tuned.recipe.model == first.recipe.model
    before, after = first.checkpoints.load(6).model, tuned.checkpoints.load(6).model
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert not any(name.startswith(("embed", "blocks.0.")) for name in changed)


@pytest.mark.slow
def test_evaluating_writes_and_re_uses(recipe: dict[str, Any], tmp_path: Path) -> None:
    run = groundup.train(recipe, runs=tmp_path)
    said: list[str] = []
    summary = groundup.evaluate(run.folder, limit=2, progress=said.append)
    assert summary["next"] == f"groundup predict {run.folder} 'Once'"
    stored = json.loads((run.folder / "evaluation.json").read_text(encoding="utf-8"))
    assert stored["metrics"]["bits_per_byte"] > 0
    assert summary["runs"][0]["evaluation"]["metrics"] == stored["metrics"]
    assert (run.folder / "summary.json").is_file()
    said.clear()
    groundup.evaluate([run.folder], limit=2, progress=said.append)
    assert said == [f"{run.folder}: evaluated already at step {stored['step']}; re-used"]
    said.clear()
    groundup.evaluate([run.folder], limit=2, again=True, progress=said.append)
    assert "re-used" not in "".join(said)


def test_describing_needs_no_disk(recipe: dict[str, Any], tmp_path: Path) -> None:
    facts = api.describe(load_recipe(recipe))
    assert (facts["name"], facts["task"], facts["context_length"]) == (
        "small",
        "language_modeling",
        32,
    )
    assert facts["gflops_per_token"] > 0
    assert facts["machine"]["torch"]


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run \(it has no recipe.yaml\); runs there: none"):
        groundup.resume(tmp_path / "none")
    with pytest.raises(RunError, match="is not a run"):
        groundup.load(tmp_path / "none")


@pytest.mark.slow
def test_a_checkpoint_that_is_not_there(recipe: dict[str, Any], tmp_path: Path) -> None:
    run = groundup.train(recipe, runs=tmp_path)
    with pytest.raises(RunError, match=r"has no checkpoint of step 7; there are .*6\. Choose one"):
        groundup.load(run.folder, "7")


@pytest.mark.slow
def test_a_base_that_was_trained_again_is_noticed(recipe: dict[str, Any], tmp_path: Path) -> None:
    base = groundup.train(recipe, runs=tmp_path)
    second = {**recipe, "name": "second", "init": {"run": str(base.folder)}}
    tuned = groundup.train(second, runs=tmp_path)
    facts = json.loads((tuned.folder / "environment.json").read_text(encoding="utf-8"))
    tuned.write_json("environment.json", {**facts, "base_weights_sha256": "of another run"})
    with pytest.raises(RunError, match=r"was fine-tuned from other weights than .*small holds now"):
        groundup.train(second, runs=tmp_path)


def test_looking_at_data(recipe: dict[str, Any]) -> None:
    assert len(groundup.api.inspect_data(recipe, examples=1)) > 0
