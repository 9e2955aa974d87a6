"""Tables and sequences: models beat a baseline that is fitted in the same test on the same real
data."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import groundup
from groundup.data.sources.arrays import Arrays

pytestmark = pytest.mark.slow
datasets = pytest.importorskip("sklearn.datasets")

TRAINING: dict[str, Any] = {
    "optim": {"lr": 3e-3, "weight_decay": 0.1, "warmup_steps": 20, "schedule": "cosine"},
    "evaluation": {"every": 1000},
    "checkpoints": {"every": 1000},
    "machine": {"precision": "fp32", "compile": False},
}


def table(bunch: Any, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(str(name).replace(" ", "_") for name in bunch.feature_names), "answer"])
        writer.writerows(
            [*row, target]
            for row, target in zip(bunch.data.tolist(), bunch.target.tolist(), strict=True)
        )


def sides(source: Any) -> list[tuple[list[list[float]], list[float]]]:
    found = []
    for split in ("train", "validation"):
        examples = list(source.examples(split, Path()))
        rows = [[float(value) for value in dict(e.inputs).values()] for e in examples]
        found.append((rows, [float(e.target) for e in examples]))
    return found


def trained(recipe: dict[str, Any], tmp_path: Path) -> tuple[Any, dict[str, float]]:
    run = groundup.train(recipe, runs=tmp_path)
    return run.recipe.data, groundup.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]


def test_a_table_of_tumours_is_classified_better_than_by_naive_bayes(tmp_path: Path) -> None:
    from sklearn.naive_bayes import GaussianNB

    table(datasets.load_breast_cancer(), tmp_path / "tumours.csv")
    recipe = {
        **{
            "name": "tumours",
            "model": {"name": "mlp", "hidden": [64], "dropout": 0.2},
            "task": "classify",
        },
        **{
            "data": {"name": "table", "path": str(tmp_path / "tumours.csv"), "target": "answer"},
            "processor": "table",
        },
        **{"training": {"batch_size": 32, "epochs": 30}, **TRAINING},
    }
    recipe["data"]["fraction"] = 0.3
    source, found = trained(recipe, tmp_path)
    train, held_out = sides(source)
    assert found["accuracy"] > GaussianNB().fit(*train).score(*held_out)


def test_diabetes_is_predicted_better_than_by_a_tree(tmp_path: Path) -> None:
    from sklearn.tree import DecisionTreeRegressor

    table(datasets.load_diabetes(), tmp_path / "diabetes.csv")
    recipe = {
        **{
            "name": "diabetes",
            "model": {"name": "mlp", "hidden": [32], "dropout": 0.2},
            "task": "regression",
        },
        **{"data": {"name": "table", "path": str(tmp_path / "diabetes.csv"), "target": "answer"}},
        **{"processor": "table", "training": {"batch_size": 32, "epochs": 40}, **TRAINING},
    }
    recipe["data"]["fraction"] = 0.3
    source, found = trained(recipe, tmp_path)
    train, held_out = sides(source)
    tree = DecisionTreeRegressor(max_depth=3, random_state=0).fit(*train)
    expected = float(np.sqrt(np.mean((tree.predict(held_out[0]) - np.array(held_out[1])) ** 2)))
    assert found["rmse"] < expected


def test_a_gru_reads_digits_row_by_row_better_than_their_mean_and_spread(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    examples = Arrays().examples("train", tmp_path)
    frames, labels = np.stack([e.inputs for e in examples]), np.array([e.target for e in examples])
    path = tmp_path / "rows.npz"
    np.savez(path, X=frames.reshape(-1, 8), lengths=np.full(len(frames), 8), y=labels)
    recipe = {
        **{
            "name": "rows",
            "model": {"name": "rnn", "cell": "gru", "width": 48},
            "task": "classify",
        },
        **{
            "data": {"name": "sequences", "path": str(path), "fraction": 0.3},
            "processor": "frames",
        },
        **{"training": {"batch_size": 32, "epochs": 12}, **TRAINING},
    }
    source, found = trained(recipe, tmp_path)
    train, held_out = (list(source.examples(split, tmp_path)) for split in ("train", "validation"))
    summaries = [
        np.stack([[*e.inputs.mean(0), *e.inputs.std(0)] for e in side])
        for side in (train, held_out)
    ]
    baseline = LogisticRegression(max_iter=2000).fit(summaries[0], [e.target for e in train])
    assert found["accuracy"] > baseline.score(summaries[1], [e.target for e in held_out])
