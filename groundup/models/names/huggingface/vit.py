"""ViT as Hugging Face names it: config.json, preprocessor_config.json and tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.names.table import Row, check_architecture, from_ours, to_ours

__all__ = [
    "config_to_groundup",
    "config_to_huggingface",
    "processor_to_groundup",
    "to_groundup",
    "to_huggingface",
]

_BLOCK, _OURS = "vit.encoder.layer.{}.", "blocks.{}."
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
        Row(f"{theirs}.{kind}", (f"{ours}.{kind}",))
        for theirs, ours in (
            ("vit.embeddings.patch_embeddings.projection", "embed.project"),
            *((_BLOCK + theirs, _OURS + ours) for theirs, ours in _LAYER.items()),
            ("vit.layernorm", "norm"),
            ("classifier", "head"),
        )
        for kind in ("weight", "bias")
    ),
)
_FIELDS = {  # config.json: ours
    "num_hidden_layers": "layers",
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp_width",
    "layer_norm_eps": "norm_eps",
    "qkv_bias": "qkv_bias",
}
_DEFAULTS: dict[str, Any] = {  # of transformers, for what config.json leaves out
    **{
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
    **{
        "layer_norm_eps": 1e-12,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "image_size": 224,
        "patch_size": 16,
    },
    "num_channels": 3,
}
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_POSITIONS = "vit.embeddings.position_embeddings"
_POOLER = ("vit.pooler.dense.weight", "vit.pooler.dense.bias")  # which classifiers do not read
_RESAMPLE = {2: "linear", 3: "cubic"}  # Pillow's numbers
_OTHER = (
    "Name the processor in the recipe, such as processor: {name: image, size: [224, 224],"
    " channels: 3}"
)


def to_groundup(
    tensors: Mapping[str, Tensor], layers: int, own: Mapping[str, Tensor], grid: tuple[int, int]
) -> dict[str, Tensor]:
    """Return our tensors from theirs, of a classifier or of the model below it, whose pooler is
    left out.

    So is an output layer of another shape than ours. ``own`` is as in ``to_ours``; ``grid`` is how
    many patches our pictures have from top to bottom and from left to right.
    """
    kept = {
        name if name.startswith(("vit.", "classifier.")) else f"vit.{name}": tensor
        for name, tensor in tensors.items()
    }
    kept = {name: tensor for name, tensor in kept.items() if name not in _POOLER}
    if (
        "classifier.weight" not in kept
        or kept["classifier.weight"].shape != own["head.weight"].shape
    ):
        kept = {name: tensor for name, tensor in kept.items() if not name.startswith("classifier.")}
        own = {name: tensor for name, tensor in own.items() if not name.startswith("head.")}
    positions = kept.get(_POSITIONS)
    if (
        positions is not None
        and positions.ndim == 3
        and positions.shape[1] != grid[0] * grid[1] + 1
    ):
        kept[_POSITIONS] = _interpolated(positions, grid)
    return to_ours(_ROWS, kept, layers, own)


def _interpolated(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return positions (1, 1 + n, C), the class token's first, of a square of patches for a grid of
    another size.

    Source:
        Dosovitskiy et al., 2021 (arXiv:2010.11929), section 3.2; bicubic, the corners of pixels
        apart, as in ``transformers``.
    """
    token, patches = positions[:, :1], positions[:, 1:]
    side = math.isqrt(patches.shape[1])
    if side**2 != patches.shape[1]:
        return (
            positions  # of pictures that are not as high as wide: what they are is not known here
        )
    square = patches.float().reshape(len(patches), side, side, -1).permute(0, 3, 1, 2)
    found = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return torch.cat((token, found.flatten(2).transpose(1, 2).to(positions.dtype)), 1)


def to_huggingface(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return their tensors from ours."""
    return from_ours(_ROWS, tensors, config["layers"])


def config_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of our ViT from the contents of config.json. Its kinds of dropout are not
    taken over.

    Raises:
        CheckpointError: If the model is of another family, or has a part that ours lacks.
    """
    full = _DEFAULTS | {key: value for key, value in config.items() if value is not None}
    family, activation = full.get("model_type"), full["hidden_act"]
    if family != "vit" or activation not in _ACTIVATIONS:
        found = (
            f"model_type {family}, activation {activation}; supported: vit;"
            f" {', '.join(_ACTIVATIONS)}"
        )
        raise CheckpointError("config.json", found, "Use another model")
    check_architecture(config, ("ViTForImageClassification", "ViTModel"))
    height, width = _pair(full["image_size"])
    patch, across = _pair(full["patch_size"])
    if patch != across:
        problem = f"patch_size is {[patch, across]}; supported: patches as high as wide"
        raise CheckpointError("config.json", problem, "Use another model")
    classifies = full.get("architectures") != ["ViTModel"]
    outputs = len(full["id2label"]) if "id2label" in full else full.get("num_labels", 2)
    return {ours: full[theirs] for theirs, ours in _FIELDS.items()} | {
        **{"patch": patch, "pooling": "class", "activation": _ACTIVATIONS[activation]},
        **{
            "input_shape": [full["num_channels"], height, width],
            "outputs": outputs if classifies else 0,
        },
    }


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def config_to_huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of config.json from all settings of our ViT, those that follow from
    others filled in.

    Raises:
        CheckpointError: If the model has a part that theirs lacks.
    """
    if config["pooling"] != "class":
        problem = f"ViT has no pooling {config['pooling']} at Hugging Face"
        raise CheckpointError("model", problem, "Keep it in the project's own layout")
    channels, height, width = config["input_shape"]
    values: dict[str, Any] = {theirs: config[ours] for theirs, ours in _FIELDS.items()}
    values |= {
        "image_size": height if height == width else [height, width],
        "patch_size": config["patch"],
    }
    values |= {"num_channels": channels, "num_labels": config["outputs"]}
    values["hidden_act"] = "gelu" if config["activation"] == "gelu" else "gelu_pytorch_tanh"
    return {"model_type": "vit", "architectures": ["ViTForImageClassification"], **values}


def processor_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of processor ``image`` from the contents of preprocessor_config.json.

    Raises:
        CheckpointError: If pictures are prepared in another way.
    """
    where, kind = (
        "preprocessor_config.json",
        str(config.get("image_processor_type", "ViTImageProcessor")),
    )
    size, resample = config.get("size", {"height": 224, "width": 224}), config.get("resample", 2)
    height, width = (
        (size.get("height"), size.get("width")) if isinstance(size, Mapping) else (size, size)
    )
    resized = config.get("do_resize", True)
    if (
        not kind.startswith("ViT")
        or config.get("do_center_crop")
        or (resized and not (height and width))
    ):
        problem = f"{kind} with size {size}, do_center_crop {config.get('do_center_crop', False)}"
        raise CheckpointError(
            where, f"{problem}; supported: ViTImageProcessor, height and width, no crop", _OTHER
        )
    if resample not in _RESAMPLE:
        problem = f"resample is {resample}; supported: 2 (bilinear), 3 (bicubic)"
        raise CheckpointError(where, problem, _OTHER)
    settings: dict[str, Any] = {"channels": 3}
    if resized:
        settings |= {"size": [height, width], "resample": _RESAMPLE[resample]}
    unit = 255 * config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 255.0
    mean, std = config.get("image_mean") or [0.5] * 3, config.get("image_std") or [0.5] * 3
    if not config.get("do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    shares = {"mean": [value / unit for value in mean], "std": [value / unit for value in std]}
    return settings | {"normalise": "given", **shares, "channels": 1 if len(mean) == 1 else 3}
