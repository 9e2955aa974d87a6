"""DETR's folders of Hugging Face: the same outputs, and there and back the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from later import Library
from safetensors.torch import load_file

from groundup.core.errors import CheckpointError
from groundup.core.settings import validate
from groundup.formats.huggingface_folder import find_pretrained, read_config
from groundup.models.detr import DETRConfig
from groundup.nn.box_head import to_centres
from groundup.weights.load import read_pretrained

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("transformers")]

transformers: Any = Library("transformers")

TRUNK = {"embedding_size": 4, "out_features": ["stage2"], "depths": [1, 2]}
SHAPE: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "num_queries": 6,
    "num_labels": 3,
}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "basic": ({"layer_type": "basic", "hidden_sizes": [4, 8]}, {}),
    "bottleneck": (
        {"layer_type": "bottleneck", "hidden_sizes": [16, 32], "num_channels": 1},
        {"num_channels": 1, "encoder_layers": 0},
    ),
    "auxiliary": ({"layer_type": "basic", "hidden_sizes": [4, 8]}, {"auxiliary_loss": True}),
}


def write_detr(folder: Path, case: str) -> Any:
    """Write a random DETR with ``save_pretrained``, statistics of norms random too."""
    torch.manual_seed(1)
    trunk, changed = CASES[case]
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        backbone_config=transformers.ResNetConfig(**TRUNK, **trunk),
        **{**SHAPE, **changed},
    )
    module = transformers.DetrForObjectDetection(config).eval()
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            else:
                value.add_(torch.randn_like(value) * 0.1)
    module.save_pretrained(folder)
    return module


@pytest.mark.parametrize("padded", ["", "below", "around"])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_the_same_outputs_and_there_and_back_the_same_bits(
    case: str, padded: str, tmp_path: Path
) -> None:
    module = write_detr(tmp_path / "theirs", case)
    section = DETRConfig.from_huggingface(read_config(tmp_path / "theirs"))
    config = validate(DETRConfig, section, "recipe.model")
    weights = read_pretrained(find_pretrained(str(tmp_path / "theirs")), config)
    model = config.build().eval()
    model.load_state_dict(weights, strict=True)
    channels = section["input_shape"][0]
    pictures = torch.randn(3, channels, 41, 56)
    mask = torch.ones(3, 41, 56, dtype=torch.bool)
    if padded:
        for picture, (height, width) in enumerate([(41, 30), (33, 56), (20, 24)]):
            # As that library pads pictures of several sizes, or as letterboxes are.
            top, left = ((41 - height) // 2, (56 - width) // 2) if padded == "around" else (0, 0)
            mask[picture] = False
            mask[picture, top : top + height, left : left + width] = True
    expected = module(pictures, pixel_mask=mask.long())
    found = model(pictures, mask) if padded else model(pictures)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    boxes = found.boxes - found.corners.repeat(1, 2)[:, None]
    shares = to_centres(boxes, found.sizes[:, None])
    torch.testing.assert_close(shares, expected.pred_boxes, rtol=1e-4, atol=1e-4)
    assert expected.logits.std() > 0.05
    assert found.nothing
    assert len(found.earlier) == 2
    if padded:
        assert found.sizes.tolist() == [[30.0, 41.0], [56.0, 33.0], [24.0, 20.0]]
    values, tensors = config.to_huggingface(weights)
    stored = load_file(tmp_path / "theirs" / "model.safetensors")
    assert tensors.keys() == stored.keys()
    assert all(torch.equal(tensors[name], stored[name]) for name in stored)
    again = validate(DETRConfig, DETRConfig.from_huggingface(values), "recipe.model")
    assert again == config
    again_there = transformers.DetrForObjectDetection(
        transformers.DetrConfig(**{k: v for k, v in values.items() if k != "architectures"})
    ).eval()
    assert set(again_there.state_dict()) == set(module.state_dict())


def test_the_names_of_timm(tmp_path: Path) -> None:
    """Old files name the tensors of the trunk as timm does; every one has a place."""
    config = validate(
        DETRConfig,
        DETRConfig.from_huggingface(
            {
                "model_type": "detr",
                "architectures": ["DetrForObjectDetection"],
                "backbone": "resnet18",
                "use_timm_backbone": True,
                **{key: SHAPE[key] for key in SHAPE if key != "num_labels"},
                "id2label": {"0": "N/A", "1": "hat"},
            }
        ),
        "recipe.model",
    )
    assert config.outputs == 2
    own = config.build().state_dict()
    _, tensors = config.to_huggingface(own)
    prefix = "model.backbone.conv_encoder.model."
    renamed = {}
    for name, tensor in tensors.items():
        for one, other in (
            ("embedder.embedder.convolution", "conv1"),
            ("embedder.embedder.normalization", "bn1"),
            (".shortcut.convolution", ".downsample.0"),
            (".shortcut.normalization", ".downsample.1"),
            (".layer.0.convolution", ".conv1"),
            (".layer.0.normalization", ".bn1"),
            (".layer.1.convolution", ".conv2"),
            (".layer.1.normalization", ".bn2"),
            *((f"encoder.stages.{n}.layers", f"layer{n + 1}") for n in range(4)),
        ):
            if name.startswith(prefix):
                name = name.replace(one, other)
        renamed[name] = tensor
    assert f"{prefix}layer4.1.conv2.weight" in renamed
    found = config.weights_from_huggingface(renamed)
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)


def test_other_classes_have_a_new_output_layer(tmp_path: Path) -> None:
    write_detr(tmp_path, "basic")
    section = DETRConfig.from_huggingface(read_config(tmp_path)) | {"outputs": 7}
    config = validate(DETRConfig, section, "recipe.model")
    found = read_pretrained(find_pretrained(str(tmp_path)), config)
    own = config.build().state_dict()
    assert own.keys() - found.keys() == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dilation": True}, "dilation is True; supported: False"),
        ({"position_embedding_type": "learned"}, "supported: sine"),
        ({"decoder_ffn_dim": 8}, "decoder_ffn_dim is 8; supported: 24"),
        ({"architectures": ["DetrForSegmentation"]}, "supported: detr, DetrForObjectDetection"),
        ({"backbone_config": {"model_type": "swin"}}, "model_type is swin; supported: resnet"),
        (
            {"backbone_config": {"model_type": "resnet", "hidden_sizes": [5, 8], "depths": [1, 1]}},
            "hidden_sizes [5, 8] and hidden_act relu; supported: [256, 512]",
        ),
        (
            {"backbone_config": {"model_type": "timm_backbone", "backbone": "mobilenet"}},
            "backbone is mobilenet; supported: resnet18, resnet34",
        ),
    ],
)
def test_what_is_not_built(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_detr(tmp_path, "basic")
    values = json.loads((tmp_path / "config.json").read_text()) | changed
    with pytest.raises(CheckpointError) as caught:
        DETRConfig.from_huggingface(values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"head": "sigmoid"}, "DETR has no head sigmoid at Hugging Face"),
        (
            {"backbone": {"name": "vit", "patch": 4}, "head": "softmax"},
            "has a trunk vit; Hugging Face's detectors have resnet",
        ),
        (
            {"backbone": {"name": "resnet", "stem": "small"}, "head": "softmax"},
            "a trunk resnet with stem small",
        ),
    ],
)
def test_what_has_no_place_there(changed: dict[str, Any], message: str) -> None:
    config = validate(
        DETRConfig, {"input_shape": [3, 32, 32], "outputs": 2, **changed}, "recipe.model"
    )
    with pytest.raises(CheckpointError) as caught:
        config.to_huggingface({})
    assert message in str(caught.value)
