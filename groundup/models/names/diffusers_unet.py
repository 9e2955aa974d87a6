"""The names of diffusers' ``UNet2DModel``, and its settings, for a U-Net of groundup's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["UNetNames", "to_diffusers"]

_RESIDUAL = {
    "before": "norm1",
    "first": "conv1",
    "told": "time_emb_proj",
    "norm": "norm2",
    "second": "conv2",
    "shortcut": "conv_shortcut",
}
_ATTENTION = {
    "norm": "group_norm",
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "output": "to_out.0",
}


@dataclass(frozen=True)
class UNetNames:
    """What of a U-Net its tensors do not tell.

    Attributes:
        widths: Channels at each size.
        attends: Whether each size has attention.
        layers: Residual layers at each size on the way down.
        features: Numbers that a time is told by.
        config: What diffusers calls by the same words.
    """

    widths: tuple[int, ...]
    attends: tuple[bool, ...]
    layers: int
    features: int
    config: dict[str, Any]


def to_diffusers(
    shape: UNetNames, weights: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the contents of config.json and the tensors of a ``UNet2DModel`` that computes the
    same at spans of 0.

    The features of a span of 0 are constants, cosines of 1 and sines of 0: what they add goes into
    the bias of the first layer.
    """
    # Said of each size, though all of diffusers' own defaults are others.
    kinds = ["AttnDownBlock2D" if attends else "DownBlock2D" for attends in shape.attends]
    config = {
        "_class_name": "UNet2DModel",
        "block_out_channels": list(shape.widths),
        "layers_per_block": shape.layers,
        "down_block_types": kinds,
        "up_block_types": [kind.replace("Down", "Up") for kind in reversed(kinds)],
        "resnet_time_scale_shift": "scale_shift",
        "time_embedding_type": "positional",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "norm_eps": 1e-5,
        "act_fn": "silu",
        **shape.config,
    }
    first = weights["embed.conditions.time.weight"]
    features = shape.features
    ones = first[:, features : features + features // 2].sum(1)
    found = {
        "time_embedding.linear_1.weight": first[:, :features].contiguous(),
        "time_embedding.linear_1.bias": weights["embed.conditions.time.bias"] + ones,
    }
    for own, name in _names(shape, weights):
        found[name] = weights[own].contiguous()
    return config, found


def _names(shape: UNetNames, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Yield each tensor's name here and there, but for the first layer of the time."""
    parts = {
        "embed.conditions.out.": "time_embedding.linear_2.",
        "embed.conditions.classes.": "class_embedding.",
        "embed.maps.": "conv_in.",
        "head.0.": "conv_norm_out.",
        "head.1.": "conv_out.",
    }
    # Here all blocks are in one list, there in three.
    sizes = len(shape.widths)
    for number in range(2 * sizes + 1):
        block = f"down_blocks.{number}"
        if number == sizes:
            block = "mid_block"
        elif number > sizes:
            block = f"up_blocks.{number - sizes - 1}"
        # More names than there are tensors: the middle has two layers, the way up one more.
        for layer in range(shape.layers + 2):
            for own, name in _RESIDUAL.items():
                parts[f"blocks.{number}.layers.{layer}.{own}."] = f"{block}.resnets.{layer}.{name}."
            for own, name in _ATTENTION.items():
                inner = f"{block}.attentions.{layer}.{name}."
                parts[f"blocks.{number}.attention.{layer}.{own}."] = inner
        parts[f"blocks.{number}.halve."] = f"{block}.downsamplers.0.conv."
        parts[f"blocks.{number}.enlarge."] = f"{block}.upsamplers.0.conv."
    for own in weights:
        if own.startswith("embed.conditions.time."):
            continue
        # A tensor that has no name there is an error, not left out.
        part, _, kind = own.rpartition(".")
        yield own, f"{parts[f'{part}.']}{kind}"
