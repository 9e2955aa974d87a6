"""Pretrained ViTs in folders that transformers wrote: the same outputs, tensors and pictures, and
new classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from later import Library
from safetensors.torch import load_file

from groundup import api
from groundup.core.errors import CheckpointError, GroundupError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.data.sources.arrays import Arrays
from groundup.formats.huggingface_folder import find_pretrained, read_config
from groundup.models.vit import ViTConfig
from groundup.processors.image import ImageConfig
from groundup.recipe.recipe import load_recipe
from groundup.weights.load import read_pretrained
from groundup.weights.model_folder import write_model_folder

pytestmark = pytest.mark.xdist_group("transformers")  # imported once, by one worker
transformers: Any = Library("transformers")

SHAPE: dict[str, Any] = {
    **{
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 20,
        "num_labels": 10,
    },
    **{"image_size": 8, "patch_size": 4, "num_channels": 1},
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "classifier": ("ForImageClassification", {}),
    "parts": (
        "ForImageClassification",
        {
            **{
                "qkv_bias": False,
                "hidden_act": "gelu_pytorch_tanh",
                "layer_norm_eps": 1e-5,
                "num_channels": 3,
            },
            **{"image_size": [8, 16], "num_labels": 3},
        },
    ),
    "model": ("Model", {}),
}
PREPARED = {
    "size": {"height": 8, "width": 8},
    "image_mean": [0.4],
    "image_std": [0.3],
    "do_resize": True,
}


def write_vit(folder: Path, kind: str = "ForImageClassification", **changed: Any) -> Any:
    """Write a random ViT with ``save_pretrained``, every parameter random, and how its pictures are
    prepared."""
    torch.manual_seed(1)
    module = getattr(transformers, f"ViT{kind}")(
        transformers.ViTConfig(**{**SHAPE, **changed})
    ).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    module.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPARED))
    return module


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_the_same_outputs_and_there_and_back_the_same_bits(case: str, tmp_path: Path) -> None:
    kind, changed = CASES[case]
    module = write_vit(tmp_path / "theirs", kind, **changed)
    settings = ViTConfig.from_huggingface(read_config(tmp_path / "theirs"))
    config = validate(
        ViTConfig, settings if kind != "Model" else {**settings, "outputs": 4}, "recipe.model"
    )
    weights = read_pretrained(find_pretrained(str(tmp_path / "theirs")), config)
    model = config.build().eval()
    model.load_state_dict(weights, strict=kind != "Model")
    pictures = torch.randn(3, *(config.input_shape or ()))
    found, expected = model.features(pictures), module(pictures, output_hidden_states=True)
    state = module.layernorm if kind == "Model" else module.vit.layernorm
    torch.testing.assert_close(found, state(expected.hidden_states[-1])[:, 0], rtol=1e-5, atol=1e-5)
    if kind == "Model":
        assert "head.weight" not in weights
        return
    assert (model(pictures) - expected.logits).norm() <= 1e-5 * expected.logits.norm()
    values, tensors = config.to_huggingface(weights)
    stored = load_file(tmp_path / "theirs" / "model.safetensors")
    assert tensors.keys() == stored.keys()
    assert all(torch.equal(tensors[name], stored[name]) for name in stored)
    assert validate(ViTConfig, ViTConfig.from_huggingface(values), "recipe.model") == config


@pytest.mark.parametrize("resample", [2, 3])
def test_pictures_are_prepared_as_transformers_does(resample: int) -> None:
    """Its pixels are rounded to whole numbers after each resizing step, ours are not: within two of
    255 levels."""
    from PIL import Image
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    theirs = ViTImageProcessorPil(
        size={"height": 24, "width": 20}, resample=resample, image_mean=mean, image_std=std
    )
    section = ViTConfig.processor_from_huggingface(json.loads(theirs.to_json_string()))
    config = validate(ImageConfig, section, "recipe.processor")
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(noise).resize((50, 37), 2))
    processor = config.fit(lambda: iter([Example("one", Image.fromarray(picture), 0)]))
    ours = processor.encode_inputs([Image.fromarray(picture)])["inputs"]
    expected = torch.as_tensor(
        np.asarray(theirs(Image.fromarray(picture), return_tensors="np")["pixel_values"])
    )
    assert (ours - expected).abs().max() <= 2.01 / 255 / min(std)
    assert (ours - expected).abs().mean() <= 0.5 / 255 / min(std)
    same = np.ascontiguousarray(picture[:24, :20])
    plain = torch.as_tensor(
        np.asarray(theirs(Image.fromarray(same), return_tensors="np")["pixel_values"])
    )
    torch.testing.assert_close(
        processor.encode_inputs([Image.fromarray(same)])["inputs"], plain, rtol=0, atol=1e-6
    )


@pytest.fixture
def tuning(tmp_path: Path) -> dict[str, Any]:
    """A recipe that fine-tunes a ViT in ``base`` on scikit-learn's digits."""
    write_vit(tmp_path / "base")
    return {
        **{
            "name": "tuned",
            "init": {"pretrained": str(tmp_path / "base")},
            "task": "classify",
            "data": "arrays",
        },
        **{
            "optim": {"lr": 1e-3},
            "training": {"batch_size": 8, "steps": 2},
            "evaluation": {"batches": 2},
        },
        "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
    }


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [None, pytest.param({"rank": 2}, marks=pytest.mark.slow)])
def test_new_classes_have_a_new_head_and_known_ones_keep_theirs(
    tuning: dict[str, Any], adapter: dict[str, Any] | None, tmp_path: Path
) -> None:
    """The folder's ten classes have other names; ``model/`` of the run has the data's."""
    before = load_file(tmp_path / "base" / "model.safetensors")
    changed = {"adapter": adapter} if adapter else {}
    trainer = api.trainer(tuning | changed, runs=tmp_path / "runs")
    own = trainer.model.state_dict()
    assert torch.equal(own["norm.weight"], before["vit.layernorm.weight"])
    assert torch.equal(own["embed.positions"], before["vit.embeddings.position_embeddings"][0])
    assert not torch.equal(own["head.weight"], before["classifier.weight"])
    next(trainer.steps())
    trainer.save()
    trainer.close()
    trainer = api.trainer(tuning | changed, runs=tmp_path / "runs")
    assert trainer.step == 1
    list(trainer.steps())
    trainer.save()
    trainer.close()
    folder = write_model_folder(trainer.run)
    assert read_config(folder)["id2label"]["7"] == "7"
    kept = load_file(folder / "model.safetensors")
    module = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    pictures = [example.inputs for example in Arrays().examples("validation", tmp_path)][:4]
    inputs = trainer.parts.processor.encode_inputs(pictures)  # type: ignore[attr-defined]
    with torch.no_grad():
        torch.testing.assert_close(
            module(inputs["inputs"]).logits, trainer.model.eval()(**inputs), rtol=1e-4, atol=1e-5
        )
    next_one = tuning | {"name": "next", "init": {"pretrained": str(folder)}}
    trainer = api.trainer(next_one, runs=tmp_path / "runs")
    trainer.close()
    assert torch.equal(trainer.model.state_dict()["head.weight"], kept["classifier.weight"])
    same = trainer.parts.processor.encode_inputs(pictures)["inputs"]  # type: ignore[attr-defined]
    torch.testing.assert_close(same, inputs["inputs"])


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        (
            "config.json",
            {"hidden_act": "relu"},
            "model_type vit, activation relu; supported: vit; gelu, gelu_new, gelu_",
        ),
        (
            "config.json",
            {"patch_size": [4, 2]},
            "patch_size is [4, 2]; supported: patches as high as wide. Use another",
        ),
        (
            "config.json",
            {"architectures": ["ViTForMaskedImageModeling"]},
            "supported for model_type vit: ViTForImage",
        ),
        (
            "preprocessor_config.json",
            {"resample": 1},
            "resample is 1; supported: 2 (bilinear), 3 (bicubic). Name the pr",
        ),
        (
            "preprocessor_config.json",
            {"size": {"shortest_edge": 8}},
            (
                "supported: ViTImageProcessor, height and width, no crop. Name the processor in the"
                " recipe, such as"
            ),
        ),
        (
            "preprocessor_config.json",
            {"image_std": "1"},
            "holds a value of the wrong kind: TypeError",
        ),
        ("preprocessor_config.json", None, "preprocessor_config.json: no such file"),
    ],
)
def test_what_is_not_built(
    tuning: dict[str, Any], file: str, values: dict[str, Any] | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "base" / file
    if values is None:
        path.unlink()
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(GroundupError) as caught:
        load_recipe(tuning)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_pooling_that_has_no_name_there() -> None:
    config = ViTConfig(pooling="mean", input_shape=(1, 8, 8), outputs=2)
    with pytest.raises(
        CheckpointError,
        match=r"ViT has no pooling mean at Hugging Face\. Keep it in the project's own",
    ):
        config.to_huggingface({})


@pytest.mark.slow
@pytest.mark.parametrize("size", [[16, 16], [12, 20]])
def test_other_pictures_than_the_weights_were_trained_on(
    tuning: dict[str, Any], size: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "groundup")
    trainer = api.trainer(tuning | {"processor": {"size": size}}, runs=tmp_path / "runs")
    trainer.close()
    said = (
        f"from 8 x 8 to {size[0]} x {size[1]} pixels: positions are interpolated from 2 x 2 to"
        f" {size[0] // 4} x "
    )
    assert said in caplog.text
    module = transformers.ViTForImageClassification.from_pretrained(tmp_path / "base").eval()
    pictures, model = torch.randn(3, 1, *size), trainer.model.eval()
    with torch.no_grad():
        theirs = module(
            pictures, interpolate_pos_encoding=True, output_hidden_states=True
        ).hidden_states[-1]
        torch.testing.assert_close(
            model.features(pictures), module.vit.layernorm(theirs)[:, 0], rtol=1e-5, atol=1e-5
        )


@pytest.mark.slow
def test_pictures_that_the_weights_cannot_read(tuning: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        GroundupError, match=r"images of 3 channels, but the pretrained weights read 1\. Set proc"
    ):
        api.trainer(
            tuning | {"processor": {"channels": 3, "mean": [0.0] * 3, "std": [1.0] * 3}},
            runs=tmp_path / "runs",
        )
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps(config | {"image_size": [4, 16]}))
    with pytest.raises(
        GroundupError, match=r"model.input_shape: is \[1, 4, 16\], but the data has \[1, 16, 16\]"
    ):
        api.trainer(
            tuning | {"name": "wide", "processor": {"size": [16, 16]}}, runs=tmp_path / "runs"
        )
