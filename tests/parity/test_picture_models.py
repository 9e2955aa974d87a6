"""ViT, ResNet and ConvNeXt against transformers' models with the same weights."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from later import Library
from torch import Tensor

from groundup.contracts.models import ModelConfig
from groundup.models.convnext import ConvNeXtConfig
from groundup.models.resnet import ResNetConfig
from groundup.models.vit import ViTConfig

pytestmark = pytest.mark.xdist_group("transformers")  # imported once, by one worker

transformers: Any = Library("transformers")

PICTURES: dict[str, Any] = {"input_shape": (3, 24, 24), "outputs": 5}
RESNET: dict[str, Any] = {"embedding_size": 4, "depths": [2, 1, 2], "num_labels": 5}
CASES: dict[str, tuple[str, dict[str, Any], ModelConfig]] = {
    "vit": (
        "ViT",
        {
            **{
                "hidden_size": 12,
                "num_hidden_layers": 3,
                "num_attention_heads": 3,
                "intermediate_size": 20,
            },
            **{"image_size": 24, "patch_size": 8, "num_labels": 5, "layer_norm_eps": 1e-5},
        },
        ViTConfig(patch=8, layers=3, width=12, heads=3, mlp_width=20, norm_eps=1e-5, **PICTURES),
    ),
    "resnet-basic": (
        "ResNet",
        {**RESNET, "layer_type": "basic", "hidden_sizes": [4, 8, 16]},
        ResNetConfig(layers=(2, 1, 2), width=4, **PICTURES),
    ),
    "resnet-bottleneck": (
        "ResNet",
        {**RESNET, "layer_type": "bottleneck", "hidden_sizes": [16, 32, 64]},
        ResNetConfig(layers=(2, 1, 2), width=4, bottleneck=True, **PICTURES),
    ),
    "convnext": (
        "ConvNext",
        {
            "hidden_sizes": [4, 8],
            "depths": [2, 3],
            "num_stages": 2,
            "patch_size": 4,
            "num_labels": 5,
        },
        ConvNeXtConfig(layers=(2, 3), widths=(4, 8), **PICTURES),
    ),
}
NAMES = (
    (r"^(vit|resnet|convnext)\.(encoder\.)?", ""),
    (r"^classifier\.(1\.)?", "head."),
    (r"^layernorm\.", "norm."),
    # ViT
    (r"^embeddings\.cls_token", "embed.token"),
    (r"^embeddings\.position_embeddings", "embed.positions"),
    (r"^embeddings\.patch_embeddings\.projection", "embed.project"),
    (r"^layers\.", "blocks."),
    (r"attention\.([qkvo])_proj", lambda found: f"attention.{LETTERS[found[1]]}"),
    (r"layernorm_before", "attention_norm"),
    (r"layernorm_after", "mlp_norm"),
    (r"mlp\.fc1", "mlp.up"),
    (r"mlp\.fc2", "mlp.down"),
    # ResNet
    (r"^embedder\.embedder\.", "embed."),
    (r"layer\.(\d)\.convolution", lambda found: f"layers.{3 * int(found[1])}"),
    (r"layer\.(\d)\.normalization", lambda found: f"layers.{3 * int(found[1]) + 1}"),
    (r"convolution", "0"),
    (r"normalization", "1"),
    # ConvNeXt
    (r"^embeddings\.patch_embeddings", "embed.0"),
    (r"^embeddings\.layernorm", "embed.1"),
    (r"downsampling_layer", "layers.0.halve"),
    (r"layer_scale_parameter", "scale"),
    (r"dwconv", "mix"),
    (r"layernorm", "norm"),
    (r"pwconv1", "up"),
    (r"pwconv2", "down"),
)
LETTERS = {"q": "query", "k": "key", "v": "value", "o": "output"}


def renamed(name: str, depths: list[int]) -> str:
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return re.sub(
        r"^stages\.(\d)\.layers\.(\d)",
        lambda found: f"blocks.{sum(depths[: int(found[1])]) + int(found[2])}",
        name,
    )


@pytest.mark.parametrize("case", CASES)
def test_same_weights_same_outputs(case: str) -> None:
    name, options, config = CASES[case]
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{name}ForImageClassification")(
        getattr(transformers, f"{name}Config")(**options)
    )
    state: dict[str, Tensor] = theirs.state_dict()
    for (
        key,
        value,
    ) in state.items():  # running statistics, norms and biases too, so that a mistaken name shows
        if key.endswith("running_var"):
            value.uniform_(0.5, 2.0)
        elif value.is_floating_point():
            value.add_(torch.randn_like(value) * 0.1)
    model = config.build()
    own = model.state_dict()
    found = {renamed(key, options.get("depths", [])): value for key, value in state.items()}
    assert set(found) == set(own)
    model.load_state_dict({key: value.reshape(own[key].shape) for key, value in found.items()})
    pictures = torch.randn(4, 3, 24, 24)
    with torch.no_grad():
        expected = theirs.eval()(pictures).logits
        torch.testing.assert_close(model.eval()(pictures), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.05
