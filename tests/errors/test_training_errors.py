"""What goes wrong while training is said, stops the run where it must, and loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from groundup import api
from groundup.cli import main
from groundup.core import registry
from groundup.core.errors import (
    CheckpointError,
    DataError,
    GroundupError,
    Interrupted,
    MissingExtraError,
    RecipeError,
    RunError,
    TrainingError,
)
from groundup.core.storage import Storage
from groundup.recipe.recipe import dump_recipe, load_recipe
from groundup.runs.checkpoint import CheckpointFolder
from groundup.tasks.language_modeling import LanguageModeling
from groundup.training import build
from groundup.training.trainer import Trainer


def poison(trainer: Trainer) -> None:
    """Make the loss not a number without touching the weights: from now on outputs are multiplied
    by infinity."""
    trainer.model.register_forward_hook(lambda module, inputs, output: output * float("inf"))


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def rows_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_before_the_update(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    trainer = api.trainer(recipe, runs=tmp_path)
    steps = trainer.steps()
    for _ in range(3):
        next(steps)
    trainer.save()
    poison(trainer)
    before, moments = (
        weights_of(trainer),
        {k: v.clone() for k, v in trainer.optimizer.state_dict().items()},
    )
    expected = (
        r"small step 3: loss inf and gradient norm (nan|inf) are not both finite \(learning rate"
        r" 0.0\d+, samples up to "
        r"16\); the weights were not updated, and the checkpoint of step 3 is intact\. Lower"
        r" optim\.lr, lengthen"
        r" optim\.warmup_steps, or set machine\.non_finite: skip\.$"
    )
    with pytest.raises(TrainingError, match=expected):
        next(steps)
    assert same(before, weights_of(trainer))
    assert same(moments, trainer.optimizer.state_dict())
    trainer.close()


def test_a_gradient_that_is_no_number_stops_too(recipe: dict[str, Any], tmp_path: Path) -> None:
    trainer = api.trainer(recipe, runs=tmp_path)
    trainer.trained[0][1].register_hook(lambda gradient: gradient * float("nan"))
    before = weights_of(trainer)
    with pytest.raises(
        TrainingError,
        match=r"gradient norm nan are not both finite .* the weights were not updated\. ",
    ):
        next(trainer.steps())
    assert same(before, weights_of(trainer))
    trainer.close()


@pytest.mark.slow
def test_skipping_leaves_the_weights_and_is_logged(recipe: dict[str, Any], tmp_path: Path) -> None:
    trainer = api.trainer(
        recipe,
        {"machine.non_finite": "skip", "logging.every": 100, "training.steps": 4},
        runs=tmp_path,
    )
    bad = iter((False, True, False, False))
    trainer.model.register_forward_hook(
        lambda module, inputs, output: (
            output * float("inf") if module.training and next(bad) else output
        )
    )
    seen = []
    update = trainer._update

    def watched(sums: Any) -> Any:
        before = weights_of(trainer)
        report = update(sums)
        seen.append((report.skipped, same(before, weights_of(trainer))))
        return report

    trainer._update = watched  # type: ignore[method-assign]
    trainer.fit()
    trainer.close()
    assert seen == [(False, False), (True, True), (False, False), (False, False)]
    assert [row["step"] for row in rows_of(trainer.run.folder, "train")] == [2, 4]
    assert all(value.isfinite().all() for value in weights_of(trainer).values())


@pytest.mark.parametrize("micro_batch_size", [3, 8])
def test_micro_batches_must_divide_the_batch(
    recipe: dict[str, Any], tmp_path: Path, micro_batch_size: int
) -> None:
    expected = (
        rf"^recipe: machine\.micro_batch_size {micro_batch_size} does not divide training\.batch_size 4\."
        r" Choose a divisor\.$"
    )
    for precision in ("fp32", "auto"):
        changes = {
            "machine.micro_batch_size": micro_batch_size,
            "machine.precision": precision,
            "name": precision,
        }
        with pytest.raises(RecipeError, match=expected):
            api.trainer(recipe, changes, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_device_that_is_not_here(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    changes = {"machine.device": "cuda"}
    with pytest.raises(
        RecipeError, match=r"'cuda' is not available here; allowed: cpu\. Use device: auto"
    ):
        api.trainer(recipe, changes, runs=tmp_path)


def test_a_folder_that_is_in_the_way(recipe: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "thesis.txt").write_text("do not lose", encoding="utf-8")
    with pytest.raises(RunError, match=r"small: is not a run \(it has no recipe.yaml\)"):
        api.train(recipe, runs=tmp_path)
    assert [path.name for path in (tmp_path / "small").iterdir()] == ["thesis.txt"]


def test_a_loss_that_is_no_sum_cannot_be_accumulated(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    class Contrastive(LanguageModeling):
        registered_name: ClassVar[str] = "contrastive"

        @property
        def loss_is_sum(self) -> bool:
            return False

    run = api.start(load_recipe(recipe, {"machine.micro_batch_size": 2}), tmp_path)
    run.recipe = run.recipe.model_copy(update={"task": Contrastive()})
    with pytest.raises(
        TrainingError, match="of task 'contrastive' with this model is no sum over examples"
    ):
        build.build_trainer(api.build.freeze(run))
    whole = api.start(load_recipe(recipe, {"name": "whole"}), tmp_path)
    whole.recipe = whole.recipe.model_copy(update={"task": Contrastive()})
    trainer = build.build_trainer(api.build.freeze(whole))
    assert trainer.accumulate == 1
    trainer.close()


# --------------------------------------------------------------------------------- the command line
EXIT_CODES = {
    RecipeError("recipe.x", "bad"): 2,
    DataError("data.jsonl line 7", "bad"): 3,
    RunError("runs/x", "bad"): 4,
    CheckpointError("runs/x", "bad"): 5,
    TrainingError("runs/x", "bad"): 6,
    MissingExtraError("pyarrow", "data"): 7,
    Interrupted("runs/x", "bad"): 130,
}


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["groundup", *arguments])
    with pytest.raises(SystemExit) as left:
        main.main()
    return int(left.value.code or 0)


@pytest.mark.parametrize("error", EXIT_CODES, ids=lambda error: type(error).__name__)
def test_every_kind_of_error_has_its_exit_code_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: GroundupError
) -> None:
    def fail(folder: Path, overrides: dict[str, Any]) -> None:
        raise error

    monkeypatch.setattr(api, "resume", fail)
    assert run_main(monkeypatch, "train", "--resume", "runs/x") == EXIT_CODES[error]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip() == str(error)


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["groundup", "--debug", "train", "no.yaml"])
    with pytest.raises(
        RecipeError,
        match=r"no.yaml: no such recipe; recipes there: none\. Give the path of a YAML file\.",
    ):
        main.main()


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "resume", lambda folder, overrides: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["groundup", "train", "--resume", "runs/x"])
    with pytest.raises(ZeroDivisionError):
        main.main()


@pytest.mark.parametrize(
    "arguments", [["train"], ["train", "a.yaml", "--resume", "runs/x"], ["train", "optim.lr=1"]]
)
def test_train_needs_recipes_or_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run_main(monkeypatch, *arguments) == 2
    assert (
        "groundup train: needs recipes, or --resume with a run folder." in capsys.readouterr().err
    )


# ------------------------------------------------------------------------------------------- Ctrl-C
def start_long_run(recipe: dict[str, Any], folder: Path) -> subprocess.Popen[str]:
    changes = {
        "training.steps": 1500,
        "checkpoints.every": 100000,
        "evaluation.every": 100000,
        "logging.every": 1,
    }
    (folder / "long.yaml").write_text(dump_recipe(load_recipe(recipe, changes)), encoding="utf-8")
    command = [sys.executable, "-m", "groundup", "train", "long.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(Path(api.__file__).parent.parent)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=folder, env=environment, **pipes)
    metrics = folder / "runs" / "small" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.is_file() and len(metrics.read_text(encoding="utf-8").splitlines()) >= 5:
            return process
        time.sleep(0.02)
    process.kill()
    raise AssertionError(process.communicate())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_saves_and_says_how_to_go_on(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    process = start_long_run(recipe, tmp_path)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    called = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert f"runs/small: stopped by {called} after step " in err
    assert "of 1500; everything is saved. Go on with: groundup train --resume runs/small." in err
    assert "Traceback" not in err
    monkeypatch.chdir(tmp_path)
    saved = CheckpointFolder(Path("runs/small/checkpoints"), Storage()).newest_intact()
    assert saved is not None
    assert saved < 1500
    recipe_file = tmp_path / "runs" / "small" / "recipe.yaml"
    recipe_file.write_text(
        recipe_file.read_text("utf-8").replace("steps: 1500", f"steps: {saved + 3}"), "utf-8"
    )
    assert cli_exit(monkeypatch, "train", "--resume", "runs/small") == 0
    assert f"resumed from the checkpoint of step {saved}" in json.dumps(
        rows_of(Path("runs/small"), "event")
    )
    assert CheckpointFolder(Path("runs/small/checkpoints"), Storage()).newest_intact() == saved + 3


def cli_exit(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    return run_main(monkeypatch, *arguments)


@pytest.mark.slow
def test_a_stop_in_the_last_step_is_no_stop(recipe: dict[str, Any], tmp_path: Path) -> None:
    trainer = api.trainer(recipe, runs=tmp_path)
    update = trainer._update

    def last_update(sums: Any) -> Any:
        if trainer.step == trainer.total_steps - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(sums)

    trainer._update = last_update  # type: ignore[method-assign]
    trainer.fit()
    trainer.close()
    assert trainer.run.finished


def test_names_of_tasks_are_still_those_of_the_registry() -> None:
    assert "contrastive" not in registry.names("task")
