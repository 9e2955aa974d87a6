"""Regression: the loss, targets that come back in the data's own units, and tables from recipe to
prediction."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import groundup
from groundup.core.values import Example
from groundup.models.mlp import MLPConfig
from groundup.processors.labelled import Labelled
from groundup.processors.table import TableConfig, TableProcessor
from groundup.processors.targets import RegressionTargets
from groundup.tasks.regression import Regression, _rmse
from groundup.testing.flops import FlopTotal

pytestmark = pytest.mark.xdist_group("sklearn")  # imported by one worker


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def fit(rows: list[dict[str, Any]]) -> TableProcessor:
    return TableConfig().fit(lambda: (Example(str(n), row) for n, row in enumerate(rows)))


def diabetes(path: Path) -> tuple[str, Any]:
    """Write the 442 real patients that scikit-learn carries."""
    found = pytest.importorskip("sklearn.datasets").load_diabetes(scaled=False)
    names = [*found.feature_names, "progression"]
    rows = np.column_stack([found.data, found.target]).tolist()
    return write(path, [dict(zip(names, row, strict=True)) for row in rows]), found


# ---------------------------------------------------------------------------------------- the model
def test_categories_are_embedded_and_unknown_ones_add_nothing_at_first() -> None:
    rows = [{"a": f"v{n % 40}", "b": "xy"[n % 2]} for n in range(400)]
    processor = Labelled(fit(rows), RegressionTargets([0.0], [1.0]), 0)
    assert processor.input_shape == (0,)
    config = MLPConfig(hidden=()).complete_from(processor)
    assert config.category_sizes == (41, 3)
    assert config.category_widths == (16, 2)
    model = config.build()
    unknown = model(**processor.encode_inputs([{"a": "?", "b": ""}]))
    assert unknown.item() == 0.0
    assert len(set(model(**processor.encode_inputs(rows[:2])).flatten().tolist())) == 2


def test_models_read_categories() -> None:
    config = MLPConfig(hidden=(8,), inputs=3, outputs=2, category_sizes=(5, 40), category_width=6)
    torch.manual_seed(0)
    model = config.build()
    inputs, categories = (
        torch.randn(40, 3),
        torch.stack([torch.arange(40) % 5, torch.arange(40)], 1),
    )
    with FlopTotal() as counter:
        before = model(inputs, categories)
    assert config.flops_per_token(1) == pytest.approx(3 * counter.flops / 40)
    before.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    changed = categories.clone()
    changed[7, 1] = 8
    after = model(inputs, changed)
    assert (after != before).any(1).nonzero().flatten().tolist() == [7]


# ----------------------------------------------------------------------------------------- the task
@pytest.mark.parametrize("objective", ["mse", "mae", "huber"])
def test_the_loss_is_torchs_and_a_sum(objective: Any) -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(9, 2) * 3, torch.randn(9, 2)
    settings: dict[str, Any] = {"delta": 0.7} if objective == "huber" else {}
    task = Regression(objective=objective, **settings)
    plain = {
        "mse": torch.nn.MSELoss(),
        "mae": torch.nn.L1Loss(),
        "huber": torch.nn.HuberLoss(delta=0.7),
    }[objective]

    def term(part: slice) -> Any:
        batch = {"targets": targets[part], "scale": torch.full((9, 2), 10.0)[part]}
        return task.loss(outputs[part], batch)

    whole = term(slice(None))
    torch.testing.assert_close(
        whole.terms["target"].total / whole.terms["target"].count, plain(outputs, targets)
    )
    halves = [term(slice(0, 4)).terms["target"], term(slice(4, 9)).terms["target"]]
    torch.testing.assert_close(halves[0].total + halves[1].total, whole.terms["target"].total)
    sums = {"target": (9.0, 9.0), **{name: (float(v), 1.0) for name, v in whole.metrics.items()}}
    assert task.summarise(sums)["mae"] == pytest.approx(
        10 * float((outputs - targets).abs().mean())
    )


def test_targets_are_scaled_and_come_back() -> None:
    examples = [Example(str(n), {"x": n}, {"a": str(n), "b": -2.0 * n}) for n in range(10)]
    task = Regression()
    processor: Any = task.fit_processor(
        TableConfig().fit(lambda: iter(examples)), lambda: iter(examples)
    )
    batch = task.encode(examples, processor)
    assert processor.labels == ("a", "b")
    torch.testing.assert_close(batch["targets"].mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(batch["targets"].std(0, unbiased=False), torch.ones(2))
    assert set(task.inputs(batch)) == {"inputs"}
    back = processor.targets.decode(batch["targets"])
    torch.testing.assert_close(back[:, 1], -2.0 * torch.arange(10).double(), rtol=1e-6, atol=1e-5)
    model = MLPConfig().complete_from(processor).build()
    assert set(task.predict(model, {"x": 3}, processor)) == {"a", "b"}
    assert task.predict(model, [], processor) == []


def recipe_for(path: str, target: Any, **changes: Any) -> dict[str, Any]:
    return {
        **{
            "name": "tiny",
            "model": {"name": "mlp", "hidden": [16]},
            "task": "regression",
            "processor": "table",
        },
        **{"data": {"name": "table", "path": path, "target": target, "fraction": 0.2}},
        **{"optim": {"lr": 1e-2}, "training": {"batch_size": 32, "steps": 60}},
        **{
            "evaluation": {"every": 30},
            "checkpoints": {"every": 30},
            "machine": {"precision": "fp32", "compile": False, "threads": 1},
        },
        **changes,
    }


@pytest.mark.slow
def test_a_regression_from_recipe_to_prediction(tmp_path: Path) -> None:
    path, found = diabetes(tmp_path / "diabetes.csv")
    run = groundup.train(recipe_for(path, "progression"), runs=tmp_path)
    evaluation = groundup.evaluate(run.folder)["runs"][0]["evaluation"]
    metrics = evaluation["metrics"]
    assert (
        metrics["rmse_low_95"]
        < metrics["rmse"]
        < metrics["rmse_high_95"]
        < metrics["baseline_rmse"]
    )
    assert 50 < metrics["rmse"] < 65  # the noise of this data is about 54
    assert len(evaluation["tables"][0]["rows"]) == 10
    assert " row " in evaluation["tables"][1]["rows"][0][0]
    rows = [dict(zip(found.feature_names, row, strict=True)) for row in found.data[:3].tolist()]
    answers = groundup.predict(run.folder, rows)
    assert all(25 < answer < 350 for answer in answers)
    assert groundup.predict(run.folder, json.dumps(rows[0])) == pytest.approx(answers[0], rel=1e-5)
    assert "progression" in (run.folder / "data_card.json").read_text()


@pytest.mark.slow
def test_several_targets_and_a_linear_model(tmp_path: Path) -> None:
    path, _ = diabetes(tmp_path / "diabetes.csv")
    changes: dict[str, Any] = {
        "model": {"name": "mlp", "hidden": []},
        "task": {"name": "regression", "objective": "huber"},
    }
    changes["optim"] = {"lr": 0.05, "weight_decay": 0.0}
    run = groundup.train(recipe_for(path, ["progression", "bmi"], **changes), runs=tmp_path)
    metrics = groundup.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]
    assert metrics["progression_rmse"] < metrics["progression_baseline_rmse"]
    assert metrics["bmi_r2"] > 0


@pytest.mark.slow
def test_a_table_can_be_classified(tmp_path: Path) -> None:
    found = pytest.importorskip("sklearn.datasets").load_iris()
    words = found.target_names[found.target].tolist()
    rows = [
        {**dict(zip("abcd", row, strict=True)), "kind": w}
        for row, w in zip(found.data.tolist(), words, strict=True)
    ]
    run = groundup.train(
        recipe_for(write(tmp_path / "iris.csv", rows), "kind", task="classify"), runs=tmp_path
    )
    assert groundup.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]["accuracy"] > 0.85
    assert groundup.predict(run.folder, {"a": 5.1, "b": 3.5, "c": 1.4, "d": 0.2}) == "setosa"


@pytest.mark.slow
def test_training_does_not_depend_on_the_micro_batch(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.csv", [{"n": n, "user": f"u{n % 9}", "y": n / 4} for n in range(200)]
    )
    weights = []
    for name, micro_batch_size in (("one", 32), ("two", 8)):
        recipe = recipe_for(path, "y") | {"name": name, "training": {"batch_size": 32, "steps": 10}}
        recipe["machine"] = {
            **recipe["machine"],
            "precision": "fp64",
            "micro_batch_size": micro_batch_size,
        }
        trainer = groundup.trainer(recipe, runs=tmp_path)
        list(trainer.steps())
        weights.append([p.detach().clone() for p in trainer.model.parameters()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    ["progression", pytest.param(["progression", "bmi"], marks=pytest.mark.slow)],
    ids=["one", "several"],
)
def test_old_data_and_new_are_compared_after_fine_tuning(tmp_path: Path, target: Any) -> None:
    _, found = diabetes(tmp_path / "all.csv")
    names = [*found.feature_names, "progression"]
    rows = np.column_stack([found.data, found.target])
    older = rows[:, 0] > 50
    recipes = []
    for name, kept, changes in (
        ("old", older, {}),
        ("new", ~older, {"init": {"run": str(tmp_path / "old")}}),
    ):
        path = write(
            tmp_path / f"{name}.csv",
            [dict(zip(names, row, strict=True)) for row in rows[kept].tolist()],
        )
        recipes.append(recipe_for(path, target, **{"name": name, **changes}))
    runs = [groundup.train(recipes[0], runs=tmp_path)]
    recipes[1] = {
        key: value for key, value in recipes[1].items() if key not in ("model", "processor")
    }
    runs.append(groundup.train(recipes[1], {"training.steps": 20}, runs=tmp_path))
    base, tuned = (groundup.evaluate(run.folder)["runs"][0]["evaluation"] for run in runs)
    assert "Before and after" not in {table["title"] for table in base["tables"]}
    (table,) = [table for table in tuned["tables"] if table["title"] == "Before and after"]
    old, new = table["rows"]
    assert [old[0], old[2]] == ["old", base["metrics"]["held_out_examples"]]
    assert [new[0], new[2]] == ["new", tuned["metrics"]["held_out_examples"]]
    if target == "progression":
        assert old[1] == "RMSE"
        assert old[3] == pytest.approx(base["metrics"]["rmse"], rel=1e-3)
        assert new[4] == pytest.approx(tuned["metrics"]["rmse"], rel=1e-3)
        assert f"On old data the RMSE went from {old[3]:.4g} to {old[4]:.4g}" in table["note"]
    else:
        assert old[1] == "mean over the targets of RMSE in standard deviations"
        assert 0.1 < old[3] < 1.5
        assert 0.1 < new[4] < 1.5
    assert new[5] == pytest.approx(new[4] - new[3], abs=0.02)


def test_a_model_of_several_numbers_is_judged_on_those_that_there_are() -> None:
    class Known(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return torch.stack((inputs[:, 0], 10 * inputs[:, 0]), 1)

    rows = [{"x": float(n)} for n in range(4)]
    inputs = fit(rows)
    scaled = inputs.encode_inputs(rows)["inputs"][:, 0].tolist()
    processor = Labelled(inputs, RegressionTargets([0.0, 0.0], [1.0, 1.0], ("a", "b")), 0)
    only_b = [
        Example(str(n), row, {"b": 10 * x + 2})
        for n, (row, x) in enumerate(zip(rows, scaled, strict=True))
    ]
    assert _rmse(Known(), processor, only_b) == pytest.approx(2.0, rel=1e-5)
    unnamed = [Example(e.name, e.inputs, [x, 10 * x]) for e, x in zip(only_b, scaled, strict=True)]
    assert _rmse(Known(), processor, unnamed) == pytest.approx(0.0, abs=1e-5)
    swapped = [
        Example(e.name, e.inputs, {"b": 10 * x, "a": x})
        for e, x in zip(only_b, scaled, strict=True)
    ]
    assert _rmse(Known(), processor, swapped) == pytest.approx(0.0, abs=1e-5)
