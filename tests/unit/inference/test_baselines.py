"""What a linear model and boosted trees reach next to a run, on the same examples."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import groundup
from groundup import api
from groundup.core.errors import RecipeError

pytestmark = pytest.mark.slow

_SMALL = {"machine": {"threads": 1, "compile": False, "precision": "fp32"}}


def _table(path: Path) -> str:
    draws = np.random.default_rng(0)
    x = draws.normal(size=(300, 3))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "c", "colour", "y"])
        for n, (a, b, c) in enumerate(x):
            colour = ("red", "blue")[n % 2]
            writer.writerow([a, b, c, colour, 100 + 50 * (a - 2 * b) + 30 * (n % 2)])
    return str(path)


def _evaluated(recipe: dict[str, Any], runs: Path) -> dict[str, Any]:
    run = groundup.train({**_SMALL, **recipe}, runs=runs)
    (found,) = groundup.evaluate(run.folder)["runs"]
    evaluation: dict[str, Any] = found["evaluation"]
    return evaluation


def test_of_a_regression_on_a_table(tmp_path: Path) -> None:
    recipe = {
        "name": "table",
        "model": {"name": "mlp", "hidden": [8]},
        "task": "regression",
        "processor": "table",
        "data": {"name": "table", "path": _table(tmp_path / "rows.csv"), "target": "y"},
        "training": {"batch_size": 32, "steps": 3},
        "evaluation": {"baselines": ["linear", "boosting"]},
    }
    found = _evaluated(recipe, tmp_path)
    metrics = found["metrics"]
    assert metrics["linear_rmse"] < 1  # the target is linear, with no noise
    assert metrics["linear_r2"] > 0.999
    assert metrics["linear_rmse"] < metrics["boosting_rmse"] < metrics["baseline_rmse"]
    table = found["tables"][0]
    assert list(table["columns"]) == ["method", "RMSE", "MAE", "R²"]
    assert [row[0] for row in table["rows"]] == [
        "this run",
        "linear: numbers and categories",
        "boosting: numbers and categories",
        "without looking at inputs",
    ]
    (figure,) = found["figures"]
    assert figure["kind"] == "scatter"
    assert len(figure["content"]["points"]) == metrics["held_out_examples"]
    page = (tmp_path / "table" / "report.html").read_text(encoding="utf-8")
    assert "Predicted and true" in page
    assert "linear: numbers and categories" in page


def test_of_a_classifier_of_texts_that_was_trained_before_they_were_asked_for(
    tmp_path: Path,
) -> None:
    words = {"good": "great fine lovely", "bad": "awful poor sad"}
    rows = [f"{words[label].split()[n % 3]} film {n},{label}" for n in range(60) for label in words]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    recipe = {
        "name": "texts",
        "model": {"name": "bag_of_ngrams"},
        "task": "classify",
        "processor": {"name": "bpe", "vocab_size": 300, "words": True},
        "data": {"name": "labelled_text", "path": str(tmp_path / "rows.csv"), "stratify": True},
        "training": {"batch_size": 8, "steps": 2},
    }
    before = _evaluated(recipe, tmp_path)
    assert "linear_accuracy" not in before["metrics"]
    after = _evaluated({**recipe, "evaluation": {"baselines": ["linear"]}}, tmp_path)
    assert after["metrics"]["linear_accuracy"] == 1.0
    assert after["metrics"]["accuracy"] == before["metrics"]["accuracy"]
    with pytest.raises(RecipeError, match=r"names boosting, and trees do not read texts. Write"):
        _evaluated({**recipe, "evaluation": {"baselines": ["boosting"]}}, tmp_path)


def test_of_digits_as_pixels(tmp_path: Path) -> None:
    recipe = {
        "name": "digits",
        "model": {"name": "mlp", "hidden": [8]},
        "task": "classify",
        "processor": "image",
        "data": {"name": "arrays", "limit": 600},
        "training": {"batch_size": 32, "steps": 2},
        "evaluation": {"baselines": ["linear"]},
    }
    assert _evaluated(recipe, tmp_path)["metrics"]["linear_accuracy"] > 0.85


def test_a_language_model_has_none(tmp_path: Path, recipe: dict[str, Any]) -> None:
    run = api.train({**recipe, "evaluation": {"baselines": ["linear"]}}, runs=tmp_path)
    with pytest.raises(RecipeError, match=r"baselines: has no effect: there are"):
        groundup.evaluate(run.folder)
