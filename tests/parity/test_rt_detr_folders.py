"""RT-DETR's folders of Hugging Face: the same outputs, and there and back the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from later import Library
from safetensors.torch import load_file

from groundup.core.errors import CheckpointError, RecipeError
from groundup.core.settings import validate
from groundup.formats.huggingface_folder import find_pretrained, read_config
from groundup.models.rt_detr import RTDETRConfig
from groundup.nn.box_head import to_centres
from groundup.weights.load import read_pretrained

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("transformers")]

transformers: Any = Library("transformers")

TRUNK = {"embedding_size": 4, "depths": [1, 2, 1, 1], "out_indices": [2, 3, 4]}
SHAPE: dict[str, Any] = {
    "d_model": 16,
    "encoder_hidden_dim": 16,
    "decoder_in_channels": [16] * 3,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 20,
    "decoder_n_points": 3,
    "num_queries": 6,
    "num_labels": 3,
}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "basic": (
        {"layer_type": "basic", "hidden_sizes": [4, 8, 16, 32]},
        {"encoder_in_channels": [8, 16, 32]},
    ),
    "bottleneck": (
        {"layer_type": "bottleneck", "hidden_sizes": [16, 32, 64, 128]},
        {
            "encoder_in_channels": [32, 64, 128],
            "encoder_hidden_dim": 24,
            "decoder_in_channels": [24] * 3,
            "hidden_expansion": 0.5,
            "freeze_backbone_batch_norms": False,
            "num_denoising": 0,
        },
    ),
}


def write_rt_detr(folder: Path, case: str) -> Any:
    """Write a random RT-DETR with ``save_pretrained``, statistics of norms random too."""
    torch.manual_seed(1)
    trunk, changed = CASES[case]
    config = transformers.RTDetrConfig(
        backbone_config=transformers.RTDetrResNetConfig(**TRUNK, **trunk), **{**SHAPE, **changed}
    )
    module = transformers.RTDetrForObjectDetection(config).eval()
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif name.endswith("norm.weight") or name.endswith(".1.weight"):
                value.uniform_(0.7, 1.3)
            elif value.is_floating_point():
                value.add_(torch.randn_like(value) * 0.1)
            else:
                value.fill_(7)
    module.save_pretrained(folder)
    return module


def opened(folder: Path) -> RTDETRConfig:
    section = RTDETRConfig.from_huggingface(read_config(folder))
    return validate(RTDETRConfig, section, "recipe.model")


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_the_same_outputs_and_there_and_back_the_same_bits(case: str, tmp_path: Path) -> None:
    module = write_rt_detr(tmp_path / "theirs", case)
    config = opened(tmp_path / "theirs")
    weights = read_pretrained(find_pretrained(str(tmp_path / "theirs")), config)
    model = config.build().eval()
    model.load_state_dict(weights, strict=True)
    pictures = torch.randn(3, 3, 64, 96)
    expected = module(pictures)
    found = model(pictures)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    shares = to_centres(found.boxes, found.sizes[:, None])
    torch.testing.assert_close(shares, expected.pred_boxes, rtol=1e-4, atol=1e-4)
    assert expected.logits.std() > 0.05
    assert shares.std() > 0.05
    chosen = found.earlier[0]
    torch.testing.assert_close(chosen.logits, expected.enc_topk_logits, rtol=1e-4, atol=1e-4)
    first = to_centres(chosen.boxes, found.sizes[:, None])
    torch.testing.assert_close(first, expected.enc_topk_bboxes, rtol=1e-4, atol=1e-4)
    values, tensors = config.to_huggingface(weights)
    stored = load_file(tmp_path / "theirs" / "model.safetensors")
    left_out = {"model.denoising_class_embed.weight"} if case == "basic" else set()
    assert stored.keys() - tensors.keys() == left_out
    assert tensors.keys() <= stored.keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in tensors.items())
    assert bool(config.note_on_pretrained(read_config(tmp_path / "theirs"))) == bool(left_out)
    again = validate(RTDETRConfig, RTDETRConfig.from_huggingface(values), "recipe.model")
    assert again == config
    own = transformers.RTDetrForObjectDetection(
        transformers.RTDetrConfig(**{k: v for k, v in values.items() if k != "architectures"})
    ).eval()
    own.load_state_dict(
        {
            name: value
            for name, value in module.state_dict().items()
            if "denoising_class_embed" not in name
        },
        strict=True,
    )
    torch.testing.assert_close(own(pictures).logits, expected.logits)


def test_other_classes_have_new_output_layers(tmp_path: Path) -> None:
    write_rt_detr(tmp_path, "basic")
    section = RTDETRConfig.from_huggingface(read_config(tmp_path)) | {"outputs": 7}
    config = validate(RTDETRConfig, section, "recipe.model")
    found = read_pretrained(find_pretrained(str(tmp_path)), config)
    missing = config.build().state_dict().keys() - found.keys()
    assert missing == {
        f"{name}.{kind}"
        for name in ("head.0", "head.1", "head_score")
        for kind in ("weight", "bias")
    }
    assert all(name.startswith(config.output_tensors()) for name in missing)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"with_box_refine": False}, "with_box_refine is False; supported: True"),
        ({"normalize_before": True}, "normalize_before is True; supported: False"),
        ({"activation_function": "gelu"}, "supported: silu"),
        ({"encode_proj_layers": [1, 2]}, "encode_proj_layers is [1, 2]; supported: [2]"),
        ({"num_feature_levels": 4}, "supported: [1, 2, 3, 4]"),
        ({"architectures": ["RTDetrModel"]}, "supported: rt_detr, RTDetrForObjectDetection"),
        ({"backbone_config": {"model_type": "resnet"}}, "supported: rt_detr_resnet"),
    ],
)
def test_what_is_not_built(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_rt_detr(tmp_path, "basic")
    values = json.loads((tmp_path / "config.json").read_text()) | changed
    with pytest.raises(CheckpointError) as caught:
        RTDETRConfig.from_huggingface(values)
    assert message in str(caught.value)


def test_pictures_that_the_maps_do_not_fit(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"outputs": 2, "input_shape": [3, 64, 48]}
    for changed, message in (
        ({}, "pictures of 64 x 48 pixels are no whole number of 32"),
        ({"input_shape": [3, 32, 32]}, "queries: is 30, but the maps have 21 places"),
        ({"maps": 5}, "maps: is 5, but the trunk has 4"),
    ):
        config = validate(RTDETRConfig, settings | changed, "recipe.model")
        with pytest.raises(RecipeError) as caught:
            config.build()
        assert message in str(caught.value)


def test_a_trunk_that_has_no_place_there() -> None:
    trunk = {"name": "resnet", "layers": [1, 1, 1, 1], "width": 8}
    settings = {"outputs": 2, "input_shape": [3, 64, 64], "backbone": trunk}
    config = validate(RTDETRConfig, settings, "recipe.model")
    with pytest.raises(CheckpointError, match="a trunk with stem deep and shortcut pooled"):
        config.to_huggingface({})


def test_pictures_are_prepared_as_the_file_says() -> None:
    section = RTDETRConfig.processor_from_huggingface(
        {
            "image_processor_type": "RTDetrImageProcessor",
            "do_normalize": False,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "size": {"height": 640, "width": 640},
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
            "resample": 2,
        }
    )
    assert section["size"] == [640, 640]
    assert section["mean"] == [0.0] * 3
    assert section["std"] == pytest.approx([1.0] * 3)
