"""Validation by epochs, the best checkpoint, early stopping, averages of the weights, terms with
their own counts."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import groundup
from groundup.core.values import Batch, Loss, Term
from groundup.parallel.world import ALONE
from groundup.recipe.recipe import load_recipe
from groundup.recipe.sections import Training
from groundup.reports.run_tables import compare_runs, list_runs, make_runs_table
from groundup.training import build
from groundup.training.accumulation import Accumulation
from groundup.training.averaging import Averaging
from groundup.training.early_stopping import BestSoFar


@pytest.fixture
def digits() -> dict[str, Any]:
    """A small classifier of real digits: 1,600 or so in training, 51 steps of 32 in a pass."""
    return {
        **{"name": "digits", "model": {"name": "mlp", "hidden": [16]}, "task": "classify"},
        **{
            "processor": "image",
            "data": "arrays",
            "optim": {"name": "adam", "lr": 3e-3, "weight_decay": 0.0},
        },
        **{
            "training": {"batch_size": 32, "steps": 12},
            "logging": {"every": 4},
            "evaluation": {"every": 3},
            "checkpoints": {"every": 100},
        },
        **{"machine": {"precision": "fp32", "threads": 1, "compile": False, "device": "cpu"}},
    }


def rows_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


# -------------------------------------------------------------------------------------------
# epochs, best and patience
@pytest.mark.slow
def test_an_epoch_is_a_pass_over_the_training_split(digits: dict[str, Any], tmp_path: Path) -> None:
    changes = {
        "training.steps": 110,
        "evaluation.every": "epoch",
        "training.batch_size": 64,
        "checkpoints.every": "epoch",
    }
    run = groundup.train(digits, changes, runs=tmp_path)
    size = run.checkpoints.state(110)["samples_per_epoch"]
    passes = [step for step in range(1, 111) if step * 64 // size > (step - 1) * 64 // size]
    assert len(passes) == 110 * 64 // size
    assert [row["step"] for row in rows_of(run.folder, "evaluate")] == sorted({*passes, 110})


@pytest.mark.slow
def test_the_best_weights_are_kept_whatever_save_and_keep_say(
    digits: dict[str, Any], tmp_path: Path
) -> None:
    changes = {
        "checkpoints.best_metric": "accuracy",
        "evaluation.every": 2,
        "checkpoints.every": 1000,
        "checkpoints.keep": 1,
        "optim.lr": 0.3,
    }
    run = groundup.train(digits, {**changes, "training.steps": 20}, runs=tmp_path)
    judged = {row["step"]: row["accuracy"] for row in rows_of(run.folder, "evaluate")}
    best = max(judged, key=lambda step: (judged[step], -step))
    assert run.pick("best") == best
    assert set(run.checkpoints.steps()) == {best, 20}
    trainer = build.build_trainer(run)
    trainer.load_state_dict(run.checkpoints.load(best))
    assert trainer.evaluate(20)["accuracy"] == judged[best]
    trainer.close()


@pytest.mark.parametrize(
    ("metric", "values", "stops", "best"),
    [
        ("loss", [3.0, 2.0, 2.5, 2.1, 1.0], 4, 2),
        ("accuracy", [0.3, 0.5, 0.5, 0.4], 4, 2),
        ("loss", [3.0, 2.95, 2.91, 1.0], 3, 3),  # better, but never by a tenth
        ("loss", [float("nan"), 2.0, float("nan"), 1.0, 0.5], None, 5),
    ],
)
def test_patience(metric: str, values: list[float], stops: int | None, best: int) -> None:
    judge = BestSoFar(
        metric, Training(steps=9, patience=2, min_improvement=0.1 if metric == "loss" else 0.0)
    )
    stopped = None
    for step, value in enumerate(values, 1):
        judge.consider(step, {metric: value})
        if judge.stopped:
            stopped = step
            break
        again = BestSoFar(metric, Training(steps=9, patience=2))
        again.load_state_dict(json.loads(json.dumps(judge.state_dict())))
        assert again.state_dict() == judge.state_dict()
    assert stopped == stops
    assert judge.step == best


@pytest.mark.slow
def test_a_run_that_stops_early_is_finished(digits: dict[str, Any], tmp_path: Path) -> None:
    changes = {"training.patience": 2, "training.min_improvement": 10.0, "training.steps": 200}
    run = groundup.train(digits, changes, runs=tmp_path)
    assert run.finished
    assert (
        run.checkpoints.newest_intact() == 9
    )  # the first validation counts, two more do not improve by 10
    event, verdict = rows_of(run.folder, "event")
    assert verdict["message"].startswith(str(run.folder))
    assert (
        "stopped after step 9 of 200: loss has not improved by more than 10 in 2 validations"
        in event["message"]
    )
    assert rows_of(run.folder, "train")[-1]["step"] == 9
    assert (run.folder / "model" / "model.safetensors").is_file()
    groundup.train(digits, changes, runs=tmp_path)
    assert "finished already at step 9; re-used" in rows_of(run.folder, "event")[-1]["message"]


def test_rates_are_means_over_the_steps_since_the_last_line(
    digits: dict[str, Any], tmp_path: Path
) -> None:
    run = groundup.train(digits, {"evaluation.every": 100}, runs=tmp_path)
    rows = rows_of(run.folder, "train")
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert [row["examples"] for row in rows] == [128, 256, 384]
    for row in rows:
        assert row["examples_per_s"] == pytest.approx(32 / row["step_s"])
    assert sum(4 * row["step_s"] for row in rows) < rows[-1]["elapsed_s"]


# ----------------------------------------------------------------------------------------- averages
def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def averaged(
    digits: dict[str, Any], **optim: Any
) -> tuple[Averaging, nn.Module, list[dict[str, Tensor]]]:
    recipe = load_recipe({**digits, "optim": {**digits["optim"], **optim}})
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))
    batches = [torch.randn(6, 4) * 3 + 1 for _ in range(4)]
    averaging = Averaging(
        model,
        list(model.named_parameters()),
        recipe,
        10,
        lambda: ({"input": batch} for batch in batches),
    )
    seen = []
    for step in range(10):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model.train()(batches[step % 4])
        averaging.update(step)
        seen.append(weights(model))
    return averaging, model, seen


def test_ema(digits: dict[str, Any]) -> None:
    averaging, model, seen = averaged(digits, average="ema", ema_decay=0.6)
    expected = {name: value.clone() for name, value in seen[0].items()}
    for number, step in enumerate(seen):
        decay = min(0.6, (1 + number) / (10 + number))
        expected = {name: decay * expected[name] + (1 - decay) * step[name] for name in step}
    with averaging.applied():
        found = weights(model)
    for name in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
        torch.testing.assert_close(found[name], expected[name])
    assert found["1.num_batches_tracked"] == seen[-1]["1.num_batches_tracked"]
    assert all(torch.equal(value, seen[-1][name]) for name, value in weights(model).items())


def test_swa_and_the_statistics_of_batch_norm(digits: dict[str, Any]) -> None:
    averaging, model, seen = averaged(digits, average="swa", average_from=0.5)
    assert averaging.count == 5
    mean = {
        name: torch.stack([step[name].double() for step in seen[5:]]).mean(0).float()
        for name in seen[0]
    }
    with averaging.applied():
        found = weights(model)
    for name in ("0.weight", "0.bias", "1.weight"):
        torch.testing.assert_close(found[name], mean[name])
    plain = copy.deepcopy(model)
    plain.load_state_dict(found)
    norm = plain[1]  # type: ignore[index]
    assert int(norm.num_batches_tracked) == 4
    hidden = [plain[0](batch["input"]) for batch in averaging._batches()]  # type: ignore[index]
    torch.testing.assert_close(norm.running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([h.var(0) for h in hidden]).mean(0))
    assert model.training
    assert all(torch.equal(value, seen[-1][name]) for name, value in weights(model).items())


@pytest.mark.slow
def test_what_is_kept_validated_and_predicted_with_is_the_average(
    digits: dict[str, Any], tmp_path: Path
) -> None:
    run = groundup.train(digits, {"optim.average": "ema"}, runs=tmp_path)
    kept = run.checkpoints.load(12)
    assert not torch.equal(kept.model["head.weight"], kept.optimizer["head.weight/raw"])
    assert torch.equal(
        groundup.load(run.folder, "last").model.state_dict()["head.weight"],
        kept.model["head.weight"],
    )
    raw = groundup.train(digits, {"name": "raw"}, runs=tmp_path)
    assert torch.equal(
        raw.checkpoints.load(12).model["head.weight"], kept.optimizer["head.weight/raw"]
    )
    losses = [rows_of(each.folder, "evaluate")[-1]["loss"] for each in (run, raw)]
    assert losses[0] != losses[1]
    trainer = build.build_trainer(run)
    trainer.load_state_dict(kept)
    assert trainer.evaluate()["accuracy"] == pytest.approx(
        rows_of(run.folder, "evaluate")[-1]["accuracy"]
    )
    trainer.close()


# ------------------------------------------------------------------------------------------- counts
class Ragged:
    """An objective of two terms: one counts rows, the other the marks in them, of which there are
    none to many."""

    name = "task ragged"

    def __init__(self, tells: bool = True) -> None:
        self.tells = tells

    def counts(self, batch: Batch) -> dict[str, float] | None:
        return (
            {"rows": float(len(batch["x"])), "marks": float(batch["marks"].sum())}
            if self.tells
            else None
        )

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        rows = Term((outputs**2).sum(), torch.tensor(float(len(outputs))))
        marks = batch["marks"].double()
        return Loss(
            {"rows": rows, "marks": Term((outputs.sin().sum(1) * marks).sum(), marks.sum(), 0.7)}
        )


def gradient(task: Any, micro_batch_size: int) -> tuple[Tensor, dict[str, float]]:
    torch.manual_seed(1)
    model = nn.Linear(3, 2).double()
    whole = {"x": torch.randn(8, 3).double(), "marks": torch.tensor([0, 0, 5, 1, 0, 9, 2, 0])}
    parts: Iterator[Batch] = iter(
        [
            {name: value[i : i + micro_batch_size] for name, value in whole.items()}
            for i in range(0, 8, micro_batch_size)
        ]
    )
    objective = Accumulation(task, lambda: next(parts), 8 // micro_batch_size, ALONE)
    for batch in objective.batches:
        loss = task.loss(model(batch["x"]), batch)
        torch.autograd.backward(objective.of(loss))
        objective.sums.add(loss)
    assert model.weight.grad is not None
    return model.weight.grad / objective.divisor, objective.means()


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_terms_are_means_over_the_whole_step_however_it_is_split(micro_batch_size: int) -> None:
    whole, means = gradient(Ragged(), 8)
    split, split_means = gradient(Ragged(), micro_batch_size)
    torch.testing.assert_close(split, whole, rtol=1e-12, atol=1e-12)
    assert split_means == pytest.approx(means, rel=1e-12)


def test_one_micro_batch_needs_no_counts_and_the_mean_is_right() -> None:
    found, _ = gradient(Ragged(tells=False), 8)
    torch.manual_seed(1)
    model = nn.Linear(3, 2).double()
    x, marks = torch.randn(8, 3).double(), torch.tensor([0, 0, 5, 1, 0, 9, 2, 0])
    outputs = model(x)
    loss = (outputs**2).sum() / 8 + 0.7 * (outputs.sin().sum(1) * marks).sum() / 17
    (expected,) = torch.autograd.grad(loss, model.weight)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_the_test_split_is_judged_once_after_the_last_step(
    digits: dict[str, Any], tmp_path: Path
) -> None:
    run = groundup.train(digits, {"evaluation.test": True, "evaluation.every": 2}, runs=tmp_path)
    (row,) = rows_of(run.folder, "test")
    last = run.pick("last")
    assert row["step"] == last
    judged = groundup.evaluate(run.folder, checkpoint="last")["runs"][0]["evaluation"]["metrics"]
    assert row["accuracy"] == pytest.approx(judged["accuracy"])
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert (
        page.index("best validation loss") < page.index("test loss") < page.index("test accuracy")
    )
    assert f"on the test split, at step {last}" in page
    assert list_runs(tmp_path)[0].test_loss == row["loss"]
    other = groundup.train(digits, {"name": "untested"}, runs=tmp_path)
    assert "test accuracy" not in (other.folder / "report.html").read_text(encoding="utf-8")
    assert compare_runs([run.folder, other.folder]).results["test_accuracy"] == [
        row["accuracy"],
        None,
    ]
    out = io.StringIO()
    Console(file=out, width=160).print(make_runs_table(list_runs(tmp_path)))
    assert out.getvalue().split()[5:9] == ["loss", "validation", "test", "bits/byte"]
