"""Writing an adapter in the layout of the library PEFT.

The adapters of several layers that are one module there are written as one: the matrices A on top
of each other, the matrices B in blocks along a diagonal, which computes the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from groundup.contracts.models import ModelConfig
from groundup.core.storage import Storage
from groundup.nn.lora.adapters import LOW_RANK, adapted_names, row_norms
from groundup.nn.part_names import TASK_WEIGHTS
from groundup.recipe.sections import Adapter
from groundup.weights.peft_layout import (
    CONFIG,
    PREFIX,
    WEIGHTS,
    PeftModule,
    peft_modules,
)

__all__ = ["write_adapter_folder"]

_SUFFIXES = {
    "lora_A": ".lora_A.weight",
    "lora_B": ".lora_B.weight",
    "magnitude": ".lora_magnitude_vector",
}


def write_adapter_folder(
    folder: Path,
    storage: Storage,
    config: ModelConfig,
    settings: Adapter,
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    base: Mapping[str, Any],
) -> None:
    """Write an adapter as PEFT does.

    Args:
        folder: Made if it is not there.
        storage: The file system.
        config: The model's settings.
        settings: The adapter's.
        own: The adapter's tensors and those of a new head, by groundup's names.
        weights: All weights of the model, the adapter merged.
        base: ``path`` of the base in Hugging Face's layout, ``sha256`` of its weights;
            ``quantised``, if it was.
    """
    places, task = peft_modules(config, weights)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    stacked: dict[str, list[int]] = {}
    names = set(adapted_names(own))
    used = [place for place in places if names & set(place.own)]
    for place in used:
        # A layer without an adapter takes part with rank 0: its rows of B are empty.
        each = [len(own.get(f"{name}.lora_A", ())) for name in place.own]
        joined, alphas[place.name] = _join_layers(place, each, settings, own, weights)
        ranks[place.name] = sum(each)
        tensors |= {
            f"{PREFIX}{place.name}{_SUFFIXES[key]}": value.contiguous()
            for key, value in joined.items()
        }
        if len(each) > 1:
            stacked[place.name] = each
    # A new head was trained as a whole, and the base has none: it travels with the adapter.
    beside = [
        name
        for name in own
        if name.rpartition(".")[2] not in LOW_RANK and not name.startswith(TASK_WEIGHTS)
    ]
    tensors |= {f"{PREFIX}{name}": own[name] for name in beside}
    # PEFT has one rank and exceptions from it; which one is the rule does not matter.
    rank = next(iter(ranks.values()))
    values = {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base["path"],
        "bias": "none",
        "r": rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.rank_stabilized,
        "use_dora": settings.name == "dora",
        "fan_in_fan_out": all(place.transposed for place in used),
        "target_modules": list(ranks),
        "rank_pattern": {name: r for name, r in ranks.items() if r != rank},
        "alpha_pattern": {name: alpha for name, alpha in alphas.items() if alpha != settings.alpha},
        "modules_to_save": sorted({name.partition(".")[0] for name in beside}) or None,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    # In the header of the tensors: the config keeps to the keys that PEFT has.
    metadata = {"format": "pt", "base_sha256": str(base["sha256"]), "stacked": json.dumps(stacked)}
    if base.get("quantised"):
        metadata["base_quantised"] = str(base["quantised"])
    folder.mkdir(exist_ok=True)
    # Tensors last: a folder without them is refused as no adapter.
    storage.write_text(folder / CONFIG, json.dumps(values, indent=1) + "\n")
    storage.write_bytes(folder / WEIGHTS, save(tensors, metadata=metadata))


def _join_layers(
    place: PeftModule,
    ranks: list[int],
    settings: Adapter,
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], float]:
    """Return the adapter of one module, and its alpha."""
    present = [(name, rank) for name, rank in zip(place.own, ranks, strict=True) if rank]
    if len(place.own) == 1:
        (name, _) = present[0]
        alpha = settings.alpha
        return {key: own[f"{name}.{key}"] for key in LOW_RANK if f"{name}.{key}" in own}, alpha
    # PEFT divides alpha by the rank of the whole, which has grown: alpha grows with it, so that the
    # first layer keeps its scale, and the B of the others makes up for theirs.
    growth = sum(ranks) / present[0][1]
    if settings.rank_stabilized:
        growth = math.sqrt(growth)
    alpha = settings.alpha * growth
    scale = settings.scale(present[0][1])
    blocks = []
    for name, rank in zip(place.own, ranks, strict=True):
        block = torch.zeros(weights[f"{name}.weight"].shape[0], 0)
        if rank:
            block = own[f"{name}.lora_B"] * (settings.scale(rank) / scale)
        blocks.append(block)
    joined = {
        "lora_A": torch.cat([own[f"{name}.lora_A"] for name, _ in present]),
        "lora_B": _block_diagonal(blocks),
    }
    if settings.name == "dora":
        lengths = [
            own.get(f"{name}.magnitude", row_norms(weights[f"{name}.weight"])) for name in place.own
        ]
        joined["magnitude"] = torch.cat(lengths)
    return joined, alpha


def _block_diagonal(blocks: list[Tensor]) -> Tensor:
    joined: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return joined
