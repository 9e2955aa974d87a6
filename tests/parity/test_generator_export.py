"""The network of a generator goes out to ONNX, and pictures can be made with it."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_runs import from_captions_run
from tiny_runs import tiny_run

from groundup import api
from groundup.export.export_run import export_run
from groundup.tasks.generate_images.flow import Asked, SamplerOptions
from groundup.tasks.generate_images.sampling import make_pictures

MAKE = Path(__file__).parents[2] / "examples" / "make_pictures.py"
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("name", "mean_flow"), [("unet", False), ("dit", True)])
def test_onnxruntime_makes_the_same_pictures(
    name: str, mean_flow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    recipe = tiny_run(name, tmp_path)
    recipe["task"]["mean_flow"] = mean_flow
    run = api.train(recipe, {"training.steps": 2}, runs=tmp_path / "runs")
    folder = export_run(run.folder, "onnx", out=tmp_path / "onnx")
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    (found,) = record["comparisons"]
    assert found["relative_difference"] <= 1e-4
    session = runtime.InferenceSession(str(folder / "model.onnx"))
    names = {value.name for value in session.get_inputs()}
    assert names == {"inputs", "times", "classes"} | ({"spans"} if mean_flow else set())
    # As the example makes them, of the same noise.
    served = runpy.run_path(str(MAKE))
    known = session.get_modelmeta().custom_metadata_map
    facts = {key: json.loads(value) for key, value in known.items()}
    noise = torch.randn(1, *facts["inputs"]["shape"], generator=torch.Generator().manual_seed(0))
    made = served["sample"](session, facts, noise.numpy(), number=3, steps=4, guidance=2.0)

    def fixed(*_: object, **__: object) -> torch.Tensor:
        return noise

    monkeypatch.setattr("groundup.tasks.generate_images.sampling.keyed_noise", fixed)
    how = SamplerOptions(4, "euler" if mean_flow else "heun", 2.0, mean_flow)
    asked = Asked({"classes": torch.tensor([3])}, {"classes": torch.tensor([10])})
    model, shape = api.load(run.folder).model, tuple(facts["inputs"]["shape"])
    (wanted,) = make_pictures(model, 1, asked, shape, 1, 0, how)
    np.testing.assert_allclose(made, wanted.numpy(), atol=2e-4)
    out = tmp_path / "three.png"
    arguments = [str(folder / "model.onnx"), facts["classes"][3], str(out)]
    monkeypatch.setattr(sys, "argv", ["make_pictures.py", *arguments])
    runpy.run_path(str(MAKE), run_name="__main__")
    assert out.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("name", "mean_flow", "trained"), [("unet", False, True), ("dit", True, False)]
)
def test_a_generator_by_text_goes_out(
    name: str, mean_flow: bool, trained: bool, tmp_path: Path
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    recipe = from_captions_run(tmp_path, name, mean_flow=mean_flow, guidance=2.0)
    if trained:
        # States of an encoder that is not in the graph are told in place of tokens.
        texts = tiny_run("bert", tmp_path)
        base = api.train(texts, {"training.steps": 1}, runs=tmp_path / "texts").folder
        recipe["processor"] |= {"encoder": str(base), "max_tokens": 12}
        del recipe["processor"]["tokenizer"]
    run = api.train(recipe, {"training.steps": 2}, runs=tmp_path / "runs")
    folder = export_run(run.folder, "onnx", out=tmp_path / "onnx")
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    (found,) = record["comparisons"]
    assert found["relative_difference"] <= 1e-4
    session = runtime.InferenceSession(str(folder / "model.onnx"))
    given = {value.name: value.shape for value in session.get_inputs()}
    assert set(given) == {"inputs", "times", "text", "text_lengths"} | (
        {"spans"} if mean_flow else set()
    )
    # Other numbers of captions and of tokens than it was written with, one of them empty.
    loaded = api.load(run.folder)
    captions = ["a seven, written", "a six", "", "two", "a one"]
    told = loaded.processor.encode_captions(captions)
    told["text"] = told.pop("text_states", told["text"])
    assert (told["text"].ndim == 3) == trained
    assert (folder / "captions" / "processor.json").is_file()
    noise = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    inputs = {"inputs": noise, "times": torch.linspace(0.1, 0.9, 5), **told}
    if mean_flow:
        inputs["spans"] = torch.full((5,), 0.1)
    with torch.no_grad():
        wanted = loaded.model.eval()(**inputs).numpy()
    feed = {key: value.numpy() for key, value in inputs.items() if key in given}
    (made,) = session.run(["outputs"], feed)
    np.testing.assert_allclose(made, wanted, atol=1e-4 * np.abs(wanted).max())


def test_an_autoencoder_goes_out_as_both_its_ways(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    recipe = tiny_run("fsq_autoencoder", tmp_path)
    run = api.train(recipe, {"training.steps": 2}, runs=tmp_path / "runs")
    folder = export_run(run.folder, "onnx", out=tmp_path / "onnx")
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    (found,) = record["comparisons"]
    assert found["relative_difference"] <= 1e-4
    encoder, decoder = (
        runtime.InferenceSession(str(folder / f"{name}.onnx")) for name in ("encoder", "decoder")
    )
    model = api.load(run.folder).model.eval()
    inputs = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        codes = model.codes(inputs)
        drawn = model.from_codes(codes)
    (other,) = encoder.run(None, {"inputs": inputs.numpy()})
    assert (other == codes.numpy()).mean() > 0.99
    (found,) = decoder.run(None, {"codes": codes.numpy()})
    np.testing.assert_allclose(found, drawn, atol=1e-4)
    facts = encoder.get_modelmeta().custom_metadata_map
    assert json.loads(facts["codebook_size"]) == model.codebook_size
