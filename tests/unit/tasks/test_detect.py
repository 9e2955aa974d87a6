"""The task that finds things: what it predicts, measures and shows, and eight pictures learned by
heart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import tiny_run
from typer.testing import CliRunner

import groundup
from groundup import api
from groundup.core.values import Evaluation
from groundup.inference.predictor import Predictor
from groundup.media.png import encode_png

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Eight pictures, overfitted."""
    folder = tmp_path_factory.mktemp("detect")
    recipe: dict[str, Any] = tiny_run("detector", folder, {"width": 24})
    recipe["data"] |= {"pictures": 8, "held_out": 4, "digits": [2, 4], "digit_size": [10, 14]}
    recipe["task"] |= {"measured": 4, "threshold": 0.3}
    recipe["training"] = {"batch_size": 8, "steps": 250}
    recipe["optim"] = {"lr": 5e-3, "warmup_steps": 10}
    recipe["machine"] |= {"micro_batch_size": 8}
    # Digits that are held out may be of a class that eight pictures lack.
    recipe["data"]["seed"] = 3
    return groundup.load(api.train(recipe, runs=folder / "runs").folder)


@pytest.fixture(scope="module")
def evaluated(trained: Predictor) -> Evaluation:
    return trained.evaluate()


def test_eight_pictures_are_learned_by_heart(evaluated: Evaluation) -> None:
    assert evaluated.metrics["training_map"] >= 0.9
    verdict = next(table for table in evaluated.tables if table.title == "Learned by heart")
    assert "fit each other" in str(verdict.rows[0][1])


def test_tables_and_figures_say_what_is_wrong(evaluated: Evaluation) -> None:
    titles = [table.title for table in evaluated.tables]
    assert titles[0] == "Classes"
    assert "Next to trivial answers" in titles
    kinds = {figure.kind: figure for figure in evaluated.figures}
    assert set(kinds) == {"lines", "matrix", "pictures"}
    size = len(kinds["matrix"].content["labels"])
    assert np.array(kinds["matrix"].content["counts"]).shape == (size, size)
    for item in kinds["pictures"].content["items"]:
        assert item["picture"].startswith("data:image/png;base64,")
    assert {"mean_box_map", "nearest_picture_map"} <= set(evaluated.metrics)


def test_predictions_are_boxes_in_the_picture(trained: Predictor, tmp_path: Path) -> None:
    example = trained.run.recipe.data.examples("train", tmp_path)[0]
    found = trained([example.inputs])[0]
    assert {each["label"] for each in found} == set(example.target.labels)
    wanted = sorted(map(tuple, np.round(example.target.corners).tolist()))
    placed = sorted(tuple(each["box"]) for each in found)
    np.testing.assert_allclose(placed, wanted, atol=2.0)
    assert trained([example.inputs], threshold=0.999)[0] == []


def test_predict_draws_and_prints(trained: Predictor, tmp_path: Path) -> None:
    from groundup.cli.main import app

    example = trained.run.recipe.data.examples("train", tmp_path)[0]
    path = tmp_path / "scene.png"
    path.write_bytes(encode_png(example.inputs))
    drawn = tmp_path / "drawn.png"
    arguments = ["predict", str(trained.run.folder), str(path), "--out", str(drawn)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout.splitlines()[0])
    assert {"label", "score", "box"} == set(printed[0])
    assert drawn.read_bytes().startswith(b"\x89PNG")
    rows = tmp_path / "found.jsonl"
    done = CliRunner().invoke(app, [*arguments[:-1], str(rows)])
    assert done.exit_code == 0, done.output
    row = json.loads(rows.read_text(encoding="utf-8"))
    assert row["things"] == len(row["prediction"]) == len(printed)
