"""Runs from folders of Hugging Face's detectors, and back to that library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from later import Library
from test_detr_folders import write_detr
from test_rt_detr_folders import write_rt_detr

from groundup import api
from groundup.core.errors import GroundupError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.models.detr import DETRConfig
from groundup.models.rt_detr import RTDETRConfig
from groundup.nn.box_head import to_centres
from groundup.processors.image import ImageConfig
from groundup.recipe.recipe import load_recipe
from groundup.weights.model_folder import write_model_folder

pytestmark = pytest.mark.xdist_group("transformers")

transformers: Any = Library("transformers")

FAMILIES = {
    "Detr": (write_detr, DETRConfig, {"num_channels": 1}),
    "RTDetr": (write_rt_detr, RTDETRConfig, {}),
}


def prepared(family: str, channels: int) -> dict[str, Any]:
    return {
        "image_processor_type": f"{family}ImageProcessor",
        "size": {"height": 64, "width": 64},
        "do_normalize": True,
        "image_mean": [0.4] * channels,
        "image_std": [0.3] * channels,
    }


def recipe_of(base: Path) -> dict[str, Any]:
    return {
        "name": "tuned",
        "init": {"pretrained": str(base)},
        "task": {"name": "detect", "measured": 0},
        "data": {"name": "digit_scenes", "pictures": 16, "held_out": 4, "tested": 0},
        "optim": {"lr": 1e-3},
        "training": {"batch_size": 8, "steps": 2},
        "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
    }


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_fine_tuned_and_opened_again_there(family: str, tmp_path: Path) -> None:
    write, *_ = FAMILIES[family]
    write(tmp_path / "base", "bottleneck" if family == "Detr" else "basic")
    channels = 1 if family == "Detr" else 3
    path = tmp_path / "base" / "preprocessor_config.json"
    path.write_text(json.dumps(prepared(family, channels)))
    trainer = api.trainer(recipe_of(tmp_path / "base"), runs=tmp_path / "runs")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    list(trainer.steps())
    trainer.save()
    trainer.close()
    after = trainer.model.state_dict()
    frozen = [name for name in after if name.startswith("embed") and "running" in name]
    assert frozen
    assert all(torch.equal(after[name], before[name]) for name in frozen)
    assert not torch.equal(after["decoder.0.mlp.up.weight"], before["decoder.0.mlp.up.weight"])
    folder = write_model_folder(trainer.run)
    module = getattr(transformers, f"{family}ForObjectDetection").from_pretrained(folder).eval()
    labels = trainer.parts.processor.labels
    assert module.config.id2label == dict(enumerate(labels))
    examples = trainer.parts.source.examples("validation", tmp_path)
    inputs = trainer.parts.processor.encode_inputs([each.inputs for each in examples])["inputs"]  # type: ignore[attr-defined]
    with torch.no_grad():
        found = trainer.model.eval()(inputs)
        expected = module(inputs)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    shares = to_centres(found.boxes, found.sizes[:, None])
    torch.testing.assert_close(shares, expected.pred_boxes, rtol=1e-4, atol=1e-4)
    written = json.loads((folder / "preprocessor_config.json").read_text())
    assert written["image_processor_type"] == f"{family}ImageProcessor"


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_are_prepared_as_transformers_does(family: str) -> None:
    import importlib

    from PIL import Image

    name = {"Detr": "detr", "RTDetr": "rt_detr"}[family]
    library = importlib.import_module(f"transformers.models.{name}.image_processing_pil_{name}")
    _, config, _ = FAMILIES[family]
    values = prepared(family, 3) | {"size": {"height": 24, "width": 20}}
    section = config.processor_from_huggingface(values)
    picture = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    image = Image.fromarray(picture)
    prepares = validate(ImageConfig, section, "recipe.processor")
    processor = prepares.fit(lambda: iter([Example("one", image, 0)]))
    out = processor.to_huggingface()  # type: ignore[union-attr]
    settings = {"input_shape": [3, 64, 64], "outputs": 1, "queries": 5}
    written = validate(config, settings, "recipe.model").processor_to_huggingface(out or {})
    assert written["image_processor_type"] == f"{family}ImageProcessor"
    own = processor.encode_inputs([image])["inputs"]  # type: ignore[attr-defined]
    for each in (values, written):
        theirs = getattr(library, f"{family}ImageProcessorPil")(**each)
        expected = np.asarray(theirs(image, return_tensors="np")["pixel_values"])
        torch.testing.assert_close(own, torch.as_tensor(expected), rtol=0, atol=1e-5)


def test_a_shortest_edge_is_another_way(tmp_path: Path) -> None:
    write_detr(tmp_path, "basic")
    values = {"image_processor_type": "DetrFeatureExtractor", "size": 800, "max_size": 1333}
    for size in ({"shortest_edge": 800, "longest_edge": 1333}, None):
        changed = (
            {**values, "size": size} if size else {"image_processor_type": "DetrImageProcessor"}
        )
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(changed))
        with pytest.raises(GroundupError) as caught:
            load_recipe(recipe_of(tmp_path))
        assert "supported: DetrImageProcessor, height and width, no crop" in str(caught.value)
        assert "size: [800, 1333], resize: pad, channels: 3, normalise: given" in str(caught.value)
