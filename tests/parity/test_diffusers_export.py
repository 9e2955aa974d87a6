"""A U-Net in diffusers' layout computes what was trained, and makes the same pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_runs import from_captions_run
from tiny_runs import tiny_run
from torch import Tensor

from groundup import api
from groundup.core.errors import CheckpointError
from groundup.export.export_run import export_run
from groundup.tasks.generate_images.flow import Asked, SamplerOptions
from groundup.tasks.generate_images.sampling import make_pictures

pytestmark = pytest.mark.slow
diffusers = pytest.importorskip("diffusers")


def trained(folder: Path, **model: Any) -> Path:
    recipe = tiny_run("unet", folder, {"widths": [8, 16, 16], "layers": 2, **model})
    return api.train(recipe, {"training.steps": 3}, runs=folder).folder


@pytest.mark.parametrize(
    ("model", "condition"), [({}, "class"), ({"attention_side": 0, "layers": 1}, "none")]
)
def test_it_computes_the_same(model: dict[str, Any], condition: str, tmp_path: Path) -> None:
    recipe = tiny_run("unet", tmp_path, {"widths": [8, 16, 16], "layers": 2, **model})
    recipe["task"]["condition"] = condition
    run = api.train(recipe, {"training.steps": 3}, runs=tmp_path).folder
    folder = export_run(run, "diffusers")
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    (found,) = record["comparisons"]
    assert found["max_difference"] <= 1e-4 * found["scale"]


def test_the_same_seed_makes_the_same_picture(tmp_path: Path) -> None:
    run = trained(tmp_path)
    theirs = diffusers.UNet2DModel.from_pretrained(export_run(run, "diffusers")).eval()

    class Theirs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = theirs

        def forward(self, inputs: Tensor, times: Tensor, classes: Tensor) -> Tensor:
            found: Tensor = self.inner(inputs, 1000 * times, class_labels=classes).sample
            return found

    how = SamplerOptions(5, "heun", 2.0)
    asked = Asked({"classes": torch.tensor([3, 7])}, {"classes": torch.tensor([10, 10])})
    made = [
        make_pictures(model, 2, asked, (1, 8, 8), 2, 1, how)
        for model in (api.load(run).model, Theirs())
    ]
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_what_has_no_place_there(tmp_path: Path) -> None:
    run = trained(tmp_path, patch=2, widths=[8, 16])
    with pytest.raises(CheckpointError, match=r"model\.patch: patch is 2, for which UNet2DModel"):
        export_run(run, "diffusers")
    run = api.train(
        from_captions_run(tmp_path) | {"name": "words"}, {"training.steps": 1}, runs=tmp_path
    ).folder
    with pytest.raises(CheckpointError, match=r"model\.text: reads captions, which UNet2DModel"):
        export_run(run, "diffusers")
    run = api.train(
        tiny_run("dit", tmp_path) | {"name": "dit"}, {"training.steps": 1}, runs=tmp_path
    ).folder
    with pytest.raises(CheckpointError, match="model dit has no layout of diffusers"):
        export_run(run, "diffusers")
