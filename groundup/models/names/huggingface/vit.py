"""ViT as Hugging Face names it: config.json, preprocessor_config.json and tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.names.huggingface.picture_settings import picture_settings
from groundup.models.names.table import (
    Row,
    check_architecture,
    fill_in,
    from_own,
    to_own,
)

__all__ = [
    "KEYS",
    "config_to_groundup",
    "config_to_huggingface",
    "processor_to_groundup",
    "to_groundup",
    "to_huggingface",
]

_BLOCK, _OWN = "vit.encoder.layer.{}.", "blocks.{}."
_LAYER = {
    "layernorm_before": "attention_norm",
    "attention.attention.query": "attention.query",
    "attention.attention.key": "attention.key",
    "attention.attention.value": "attention.value",
    "attention.output.dense": "attention.output",
    "layernorm_after": "mlp_norm",
    "intermediate.dense": "mlp.up",
    "output.dense": "mlp.down",
}
_ROWS = (
    Row("vit.embeddings.cls_token", ("embed.token",), leading=2),
    Row("vit.embeddings.position_embeddings", ("embed.positions",), leading=1),
    *(
        Row(f"{hf}.{kind}", (f"{own}.{kind}",))
        for hf, own in (
            ("vit.embeddings.patch_embeddings.projection", "embed.project"),
            *((_BLOCK + hf, _OWN + own) for hf, own in _LAYER.items()),
            ("vit.layernorm", "norm"),
            ("classifier", "head"),
        )
        for kind in ("weight", "bias")
    ),
)
# The names of settings in config.json, and groundup's.
_FIELDS = {
    "num_hidden_layers": "layers",
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp_width",
    "layer_norm_eps": "norm_eps",
    "qkv_bias": "qkv_bias",
}
# Of transformers, for what config.json leaves out.
_DEFAULTS: dict[str, Any] = {
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "qkv_bias": True,
    "hidden_act": "gelu",
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
}
# What is read of config.json, or is of parts that no classifier has.
KEYS = frozenset((*_FIELDS, *_DEFAULTS, "encoder_stride", "pooler_act", "pooler_output_size"))
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_HF_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
_POSITIONS = "vit.embeddings.position_embeddings"
# Classifiers do not read it.
_POOLER = ("vit.pooler.dense.weight", "vit.pooler.dense.bias")


def to_groundup(
    tensors: Mapping[str, Tensor], layers: int, own: Mapping[str, Tensor], grid: tuple[int, int]
) -> dict[str, Tensor]:
    """Return groundup's tensors from the file's, of a classifier or of the model below it, whose
    pooler is left out.

    So is an output layer of another shape than the model's. ``own`` is as ``expected`` of
    ``to_own``; ``grid`` is how many patches the images have from top to bottom and from left to
    right.
    """
    kept = {
        name if name.startswith(("vit.", "classifier.")) else f"vit.{name}": tensor
        for name, tensor in tensors.items()
    }
    kept = {name: tensor for name, tensor in kept.items() if name not in _POOLER}
    output = kept.get("classifier.weight")
    if output is None or output.shape != own["head.weight"].shape:
        kept = {name: tensor for name, tensor in kept.items() if not name.startswith("classifier.")}
        own = {name: tensor for name, tensor in own.items() if not name.startswith("head.")}
    positions = kept.get(_POSITIONS)
    # One more than patches: the class token has a position.
    places = grid[0] * grid[1] + 1
    if positions is not None and positions.ndim == 3 and positions.shape[1] != places:
        kept[_POSITIONS] = _interpolate(positions, grid)
    return to_own(_ROWS, kept, layers, own)


def _interpolate(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return positions (1, 1 + n, C), the class token's first, of a square of patches for a grid of
    another size.

    Source:
        Dosovitskiy et al., 2021 (arXiv:2010.11929), section 3.2; bicubic, the corners of pixels
        apart, as in ``transformers``.
    """
    token = positions[:, :1]
    patches = positions[:, 1:]
    side = math.isqrt(patches.shape[1])
    if side**2 != patches.shape[1]:
        # Of images that are not as high as wide: how high they are is not known here.
        return positions
    square = patches.float().reshape(len(patches), side, side, -1).permute(0, 3, 1, 2)
    found = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return torch.cat((token, found.flatten(2).transpose(1, 2).to(positions.dtype)), 1)


def to_huggingface(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's."""
    return from_own(_ROWS, tensors, config["layers"])


def config_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ViT from the contents of config.json. Its kinds of dropout are not
    taken over.

    Raises:
        CheckpointError: If the model is of another family, or has a part that groundup's lacks.
    """
    full = fill_in(_DEFAULTS, config)
    family = full.get("model_type")
    activation = full["hidden_act"]
    if family != "vit" or activation not in _ACTIVATIONS:
        raise CheckpointError(
            "config.json",
            f"model_type {family}, activation {activation}; supported: vit;"
            f" {', '.join(_ACTIVATIONS)}",
            "Use another model",
        )
    check_architecture(config, ("ViTForImageClassification", "ViTModel"))
    height, width = _pair(full["image_size"])
    patch, across = _pair(full["patch_size"])
    # The model cuts squares only.
    if patch != across:
        raise CheckpointError(
            "config.json",
            f"patch_size is {[patch, across]}; supported: patches as high as wide",
            "Use another model",
        )
    outputs = 0
    if full.get("architectures") != ["ViTModel"]:
        outputs = len(full.get("id2label", ())) or full.get("num_labels", 2)
    return {own: full[hf] for hf, own in _FIELDS.items()} | {
        "patch": patch,
        "pooling": "class",
        "activation": _ACTIVATIONS[activation],
        "input_shape": [full["num_channels"], height, width],
        "outputs": outputs,
    }


def _pair(size: Any) -> tuple[int, int]:
    """Return height and width, of which one number means both."""
    if isinstance(size, int):
        return size, size
    return size[0], size[1]


def config_to_huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of config.json from all settings of ViT, those that follow from
    others filled in.

    Raises:
        CheckpointError: If the model has a part that transformers' lacks.
    """
    if config["pooling"] != "class":
        raise CheckpointError(
            "model",
            f"ViT has no pooling {config['pooling']} at Hugging Face",
            "Keep it in the project's own layout",
        )
    channels, height, width = config["input_shape"]
    values: dict[str, Any] = {hf: config[own] for hf, own in _FIELDS.items()}
    values |= {
        "image_size": height if height == width else [height, width],
        "patch_size": config["patch"],
        "num_channels": channels,
        "num_labels": config["outputs"],
        "hidden_act": _HF_ACTIVATIONS[config["activation"]],
    }
    return {"model_type": "vit", "architectures": ["ViTForImageClassification"], **values}


def processor_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of processor ``image`` from the contents of preprocessor_config.json.

    Raises:
        CheckpointError: If images are prepared in another way.
    """
    return picture_settings(config, "ViT", (224, 224), [0.5] * 3, [0.5] * 3)
