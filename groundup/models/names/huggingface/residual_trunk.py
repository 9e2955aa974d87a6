"""The trunks of Hugging Face's detectors, by the names of its ResNet and of the library timm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from groundup.core.errors import CheckpointError
from groundup.models.names.table import Row, fill_in, refuse_other_values

__all__ = ["norm_rows", "timm_rows", "trunk_rows", "trunk_to_groundup", "trunk_to_huggingface"]

_WIDENING = 4
_STATISTICS = ("weight", "bias", "running_mean", "running_var")
# Blocks of each stage of timm's names, and whether they are bottlenecks.
_TIMM: dict[str, tuple[tuple[int, ...], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}
# Of transformers, for what backbone_config leaves out.
_DEFAULTS: dict[str, Any] = {
    "embedding_size": 64,
    "hidden_sizes": [256, 512, 1024, 2048],
    "depths": [3, 4, 6, 3],
    "layer_type": "bottleneck",
    "hidden_act": "relu",
    "num_channels": 3,
}


def norm_rows(stored: str, own: str) -> Iterator[Row]:
    """Yield the tensors of a batch norm, all but the count of its batches."""
    for kind in _STATISTICS:
        yield Row(f"{stored}.{kind}", (f"{own}.{kind}",))


def _convolution(stored: tuple[str, str], own: str, number: int) -> Iterator[Row]:
    """Yield a convolution and its norm: the file's names of both, and groundup's of the layers
    ``number`` and the next one."""
    yield Row(f"{stored[0]}.weight", (f"{own}.{number}.weight",))
    yield from norm_rows(stored[1], f"{own}.{number + 1}")


def _blocks(layers: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield the stage of each block, its number there and its number in all."""
    number = 0
    for stage, count in enumerate(layers):
        for place in range(count):
            yield stage, place, number
            number += 1


def trunk_rows(prefix: str, trunk: Mapping[str, Any]) -> list[Row]:
    """Return the tensors of a trunk as transformers names them.

    Args:
        prefix: Of the file's names.
        trunk: The settings of ``resnet``.
    """
    deep = trunk["stem"] == "deep"
    stem = f"{prefix}embedder.embedder"
    rows: list[Row] = []
    for place in range(3 if deep else 1):
        each = f"{stem}.{place}" if deep else stem
        rows += _convolution((f"{each}.convolution", f"{each}.normalization"), "embed", 3 * place)
    for stage, place, number in _blocks(trunk["layers"]):
        block = f"{prefix}encoder.stages.{stage}.layers.{place}"
        for layer in range(3 if trunk["bottleneck"] else 2):
            each = f"{block}.layer.{layer}"
            names = (f"{each}.convolution", f"{each}.normalization")
            rows += _convolution(names, f"blocks.{number}.layers", 3 * layer)
        if place:
            continue
        # Where average pooling halves the map it comes first, in the file's numbers and ours.
        pooled = trunk.get("shortcut") == "pooled" and stage > 0
        each = f"{block}.shortcut.1" if pooled else f"{block}.shortcut"
        names = (f"{each}.convolution", f"{each}.normalization")
        rows += _convolution(names, f"blocks.{number}.shortcut", 1 if pooled else 0)
    return rows


def timm_rows(prefix: str, trunk: Mapping[str, Any]) -> list[Row]:
    """Return the tensors of a trunk as timm names them."""
    rows = list(_convolution((f"{prefix}conv1", f"{prefix}bn1"), "embed", 0))
    for stage, place, number in _blocks(trunk["layers"]):
        block = f"{prefix}layer{stage + 1}.{place}"
        for layer in range(3 if trunk["bottleneck"] else 2):
            names = (f"{block}.conv{layer + 1}", f"{block}.bn{layer + 1}")
            rows += _convolution(names, f"blocks.{number}.layers", 3 * layer)
        if place == 0:
            names = (f"{block}.downsample.0", f"{block}.downsample.1")
            rows += _convolution(names, f"blocks.{number}.shortcut", 0)
    return rows


def trunk_to_groundup(config: Mapping[str, Any], kind: str) -> tuple[dict[str, Any], int]:
    """Return the section ``backbone`` that config.json means, and how many channels pictures have.

    Args:
        config: Of the detector.
        kind: The ``model_type`` of trunks that are built for it.

    Raises:
        CheckpointError: If the trunk is none that is built here.
    """
    given = dict(config.get("backbone_config") or {})
    family = given.get("model_type")
    if family is None and kind == "resnet":
        # Old files: the name alone.
        family = "timm_backbone"
        given = {"backbone": config.get("backbone") or "resnet50"}
    where = "config.json"
    if family == "timm_backbone" and kind == "resnet":
        name = str(given.get("backbone"))
        if name not in _TIMM:
            problem = f"backbone is {name}; supported: {', '.join(_TIMM)}"
            raise CheckpointError(where, problem, "Use another model")
        refuse_other_values(given, {"output_stride": 32})
        layers, bottleneck = _TIMM[name]
        section = {"name": "resnet", "layers": list(layers), "bottleneck": bottleneck}
        return section, int(config.get("num_channels") or 3)
    if family != kind:
        problem = f"backbone_config.model_type is {family}; supported: {kind}"
        raise CheckpointError(where, problem, "Use another model")
    full = fill_in(_DEFAULTS, given)
    refuse_other_values(
        full, {"downsample_in_first_stage": False, "downsample_in_bottleneck": False}
    )
    bottleneck = full["layer_type"] == "bottleneck"
    width = full["embedding_size"]
    # Stages of other widths would need settings that resnet does not have.
    factor = _WIDENING if bottleneck else 1
    wanted = [width * factor * 2**stage for stage in range(len(full["depths"]))]
    if list(full["hidden_sizes"]) != wanted or full["hidden_act"] != "relu":
        problem = (
            f"backbone_config has hidden_sizes {list(full['hidden_sizes'])} and hidden_act"
            f" {full['hidden_act']}; supported: {wanted} after embedding_size {width}, and relu"
        )
        raise CheckpointError(where, problem, "Use another model")
    section = {
        "name": "resnet",
        "layers": list(full["depths"]),
        "bottleneck": bottleneck,
        "width": width,
    }
    return section, full["num_channels"]


def trunk_to_huggingface(
    trunk: Mapping[str, Any], name: str, channels: int, maps: int
) -> dict[str, Any]:
    """Return ``backbone_config`` of config.json, whatever kind of ResNet.

    Args:
        trunk: The settings of the trunk.
        name: Of its model.
        channels: Of the pictures.
        maps: How many of its maps are read, the last ones.

    Raises:
        CheckpointError: If transformers' detectors have no such trunk.
    """
    stems = ("imagenet", "deep")
    if name != "resnet" or trunk["stem"] not in stems:
        problem = f"has a trunk {name}"
        if name == "resnet":
            problem += f" with stem {trunk['stem']}"
        raise CheckpointError(
            "model",
            f"{problem}; Hugging Face's detectors have resnet with stem {' or '.join(stems)}",
            "Keep it in the project's own layout",
        )
    factor = _WIDENING if trunk["bottleneck"] else 1
    stages = len(trunk["layers"])
    read = list(range(stages - maps + 1, stages + 1))
    sizes = [trunk["width"] * factor * 2**stage for stage in range(len(trunk["layers"]))]
    return {
        "num_channels": channels,
        "embedding_size": trunk["width"],
        "hidden_sizes": sizes,
        "depths": list(trunk["layers"]),
        "layer_type": "bottleneck" if trunk["bottleneck"] else "basic",
        "hidden_act": "relu",
        "out_features": [f"stage{number}" for number in read],
        "out_indices": read,
    }
