"""Detectors go out to ONNX, where a stranger's program finds what they find."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import save
from PIL import Image
from test_set_detector_runs import FAMILIES, prepared, recipe_of
from tiny_runs import tiny_run

from groundup import api
from groundup.core.errors import CheckpointError
from groundup.export.export_run import export_run
from groundup.nn.detections import read_detections
from groundup.processors.boxes import mask_of, picture_in_inputs
from groundup.runs.run import Run

SERVE = Path(__file__).parents[2] / "examples" / "serve_detector.py"
pytestmark = pytest.mark.slow


def trained(name: str, folder: Path, **sections: Any) -> Run:
    recipe = tiny_run(name, folder)
    changes = {
        "training": {"batch_size": 16, "steps": 6},
        # Far from where it began, and so surer of some boxes than of others.
        "optim": {"lr": 0.05},
    }
    return api.train({**recipe, **changes, **sections}, runs=folder / "runs")


@pytest.mark.parametrize("name", ["detector", "detr", "rt_detr"])
def test_onnxruntime_finds_what_the_model_finds(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    task = {"name": "detect", "measured": 8, "mask_padding": name == "detr"}
    padded = {"name": "image", "size": [32, 32], "resize": "pad"}
    run = trained(name, tmp_path, processor=padded, task=task)
    folder = export_run(run.folder, "onnx", out=tmp_path / "onnx")
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert [each["other"].split()[-1] for each in record["comparisons"]] == ["(scores)", "(boxes)"]
    assert all(each["relative_difference"] <= 1e-4 for each in record["comparisons"])
    session = runtime.InferenceSession(str(folder / "model.onnx"))
    predictor = api.load(run.folder)
    # A number of pictures that it was not written with.
    inputs = torch.randn(5, *predictor.processor.input_shape)
    told = {"inputs": inputs}
    if name == "detr":
        told["mask"] = torch.ones(5, 32, 32, dtype=torch.bool)
        told["mask"][1, :10] = told["mask"][2, :, 20:] = False
    with torch.no_grad():
        wanted = read_detections(predictor.model.eval()(**told))
    found = session.run(["scores", "boxes"], {key: each.numpy() for key, each in told.items()})
    for one, two in zip(wanted, found, strict=True):
        # Noise has near ties, whose queries come in any order.
        np.testing.assert_allclose(np.sort(two, 1), np.sort(one, 1), atol=1e-3)
    known = session.get_modelmeta().custom_metadata_map
    facts = {key: json.loads(value) for key, value in known.items()}
    assert facts["classes"] == list(predictor.processor.labels)
    assert facts["inputs"]["size"] == [32, 32]
    assert facts["needs_nms"] is (name == "detector")
    # By its file alone: a picture of other proportions, which has to be padded.
    picture = tmp_path / "scene.png"
    rng = np.random.default_rng(0)
    save(picture, rng.integers(0, 255, (24, 48)).repeat(2, 0).repeat(2, 1))
    served = runpy.run_path(str(SERVE))
    tensors, _, _ = served["prepare"](Image.open(picture), facts["inputs"])
    own = predictor.processor.encode_inputs([str(picture)])
    np.testing.assert_allclose(tensors["inputs"], own["inputs"], atol=1e-5)
    np.testing.assert_array_equal(tensors["mask"], mask_of(picture_in_inputs(own), 32, 32))
    least = 0.9 * float(predictor(str(picture), threshold=0.0)[0]["score"])
    path = _with_threshold(folder / "model.onnx", least)
    monkeypatch.setattr(sys, "argv", ["serve_detector.py", str(path), str(picture)])
    runpy.run_path(str(SERVE), run_name="__main__")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    expected = predictor(str(picture), threshold=least)
    assert len(lines) == len(expected) > 0
    for line, each in zip(lines, expected, strict=True):
        assert line[0] == each["label"]
        numbers = [each["score"], *each["box"]]
        np.testing.assert_allclose([float(value) for value in line[1:]], numbers, atol=0.03)


def _with_threshold(path: Path, threshold: float) -> Path:
    """Write the graph again with another threshold: a model of two steps is sure of nothing."""
    import onnx

    from groundup.export.onnx import write_facts

    known = {each.key: json.loads(each.value) for each in onnx.load(str(path)).metadata_props}
    known["task"]["threshold"] = threshold
    copy = path.with_name("lower.onnx")
    copy.write_bytes(path.read_bytes())
    write_facts(copy, known)
    return copy


def test_another_program_that_says_other_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from groundup.export import detections

    run = trained("detector", tmp_path)
    asked = detections.run_session

    def shifted(*arguments: Any) -> list[torch.Tensor]:
        scores, boxes = asked(*arguments)
        return [scores, boxes + 0.5]

    monkeypatch.setattr(detections, "run_session", shifted)
    with pytest.raises(
        CheckpointError, match=r"\(boxes\) differs from the trained model \(boxes\)"
    ):
        export_run(run.folder, "onnx", out=tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.xdist_group("transformers")
def test_a_folder_for_transformers(family: str, tmp_path: Path) -> None:
    write, *_ = FAMILIES[family]
    write(tmp_path / "base", "bottleneck" if family == "Detr" else "basic")
    values = prepared(family, 1 if family == "Detr" else 3)
    (tmp_path / "base" / "preprocessor_config.json").write_text(json.dumps(values))
    run = api.train(recipe_of(tmp_path / "base"), runs=tmp_path / "runs")
    folder = export_run(run.folder, "huggingface", out=tmp_path / "out")
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    compared = [each["other"] for each in record["comparisons"]]
    assert [name.rpartition(" ")[2] for name in compared] == ["(scores)", "(boxes)"] * 2
    assert all(each["relative_difference"] <= 1e-4 for each in record["comparisons"])
