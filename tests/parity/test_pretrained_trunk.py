"""A folder of a pretrained ViT as the trunk of a detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_pretrained_vit import write_vit
from tiny_runs import tiny_run

from groundup import api
from groundup.core.errors import CheckpointError, RecipeError

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("transformers")]


def detector(folder: Path, **model: Any) -> dict[str, Any]:
    recipe = tiny_run("detector", folder)
    recipe["model"] |= {"strides": [4, 8], "norm": "group"}
    del recipe["model"]["backbone"], recipe["processor"]
    recipe["model"] |= model
    # Pictures of the data's size: the positions are interpolated to it.
    recipe["processor"] = {"size": [32, 32]}
    return recipe | {"init": {"pretrained": str(folder / "vit")}}


def test_a_vit_becomes_the_trunk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    write_vit(tmp_path / "vit", image_size=16)
    trainer = api.trainer(detector(tmp_path), runs=tmp_path / "runs")
    before = load_file(tmp_path / "vit" / "model.safetensors")
    own = trainer.parts.model.state_dict()
    there = before["vit.encoder.layer.1.output.dense.weight"]
    assert torch.equal(own["blocks.1.mlp.down.weight"], there)
    assert own["embed.positions"].shape == (65, 12)
    assert "positions are interpolated from 4 x 4 to 8 x 8 patches" in caplog.text
    assert "(embed, blocks) are filled" in caplog.text
    assert trainer.recipe.model.backbone["name"] == "vit"
    assert trainer.recipe.processor.mean == (0.4,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": {"width": 24}}, r"backbone\.width: is 24, but the weights have 12"),
        ({"backbone": {"name": "resnet"}}, r"backbone\.name: is resnet, but .* are of a vit"),
    ],
)
def test_another_trunk(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    write_vit(tmp_path / "vit", image_size=16)
    with pytest.raises((CheckpointError, RecipeError), match=words):
        api.trainer(detector(tmp_path, **changes), runs=tmp_path / "runs")


def test_a_folder_of_no_trunk(tmp_path: Path) -> None:
    write_vit(tmp_path / "vit", image_size=16)
    config = (tmp_path / "vit" / "config.json").read_text(encoding="utf-8")
    other = config.replace('"model_type": "vit"', '"model_type": "bert"')
    (tmp_path / "vit" / "config.json").write_text(other, encoding="utf-8")
    with pytest.raises((CheckpointError, RecipeError)):
        api.trainer(detector(tmp_path), runs=tmp_path / "runs")
