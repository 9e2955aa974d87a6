"""Writing an adapter in the layout of the library PEFT.

The adapters of several layers that are one module there are written as one: the matrices A on top
of each other, the matrices B in blocks along a diagonal, which computes the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.core.storage import Storage
from groundup.machine.meta_device import without_content
from groundup.nn.lora.adapters import LOW_RANK, adapted_names
from groundup.nn.lora.linear import row_norms
from groundup.recipe.adapter import Adapter
from groundup.weights.peft_layout import (
    CONFIG,
    PREFIX,
    WEIGHTS,
    PeftTensor,
    SharedOutput,
    peft_tensors,
    shared_output,
)

__all__ = ["name_tensors", "peft_values", "write_adapter_folder", "write_files"]

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
        own: The adapter's tensors and those that were trained whole, by groundup's names.
        weights: All weights of the model, the adapter merged.
        base: ``path`` of the base in Hugging Face's layout, ``sha256`` of its weights;
            ``quantized``, if it was.
    """
    places, task = peft_tensors(config, weights)
    tables = _embeddings(config)
    # An output layer that is the embedding is changed with it, which PEFT has to be told.
    shared = shared_output(config, weights, task)
    low_rank = _low_rank_tensors(places, settings, own, weights, tables, shared)
    whole = _whole_tensors(places, own, weights, set(low_rank.ranks), shared)
    names = set(adapted_names(own))
    both = shared is not None and (shared.module in whole.modules or bool(tables & names))
    values = {
        "task_type": task,
        "base_model_name_or_path": base["path"],
        "fan_in_fan_out": low_rank.transposed,
        "modules_to_save": sorted(whole.modules) or None,
        "ensure_weight_tying": both,
        "trainable_token_indices": list(settings.trainable_token_indices) if whole.rows else None,
        **peft_values(settings, low_rank.ranks, low_rank.alphas),
    }
    # In the header of the tensors: the config keeps to the keys that PEFT has.
    metadata = {
        "format": "pt",
        "base_sha256": str(base["sha256"]),
        "stacked": json.dumps(low_rank.stacked),
    }
    if base.get("quantised"):
        metadata["base_quantised"] = str(base["quantised"])
    write_files(folder, storage, values, {**low_rank.tensors, **whole.tensors}, metadata)


def write_files(
    folder: Path,
    storage: Storage,
    values: Mapping[str, Any],
    tensors: dict[str, Tensor],
    metadata: dict[str, str],
) -> None:
    """Write adapter_config.json, and tensors by PEFT's names with a header; the folder is made if
    it is not there."""
    folder.mkdir(exist_ok=True)
    # Tensors last: a folder without them is refused as no adapter.
    storage.write_text(folder / CONFIG, json.dumps(values, indent=1) + "\n")
    storage.write_bytes(folder / WEIGHTS, save(tensors, metadata=metadata))


@dataclass(frozen=True)
class _LowRank:
    """Adapters by PEFT's names; ranks and alphas of its modules; how layers were joined there."""

    tensors: dict[str, Tensor]
    ranks: dict[str, int]
    alphas: dict[str, float]
    stacked: dict[str, list[int]]
    transposed: bool


def _low_rank_tensors(
    places: Sequence[PeftTensor],
    settings: Adapter,
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    tables: set[str],
    shared: SharedOutput | None,
) -> _LowRank:
    """Return the adapters; with ``shared`` those of the embedding are the output layer's too."""
    names = set(adapted_names(own))
    used = [place for place in places if names & set(place.layers)]
    found = _LowRank({}, {}, {}, {}, all(place.transposed for place in used))
    for place in used:
        # A layer without an adapter takes part with rank 0: its rows of B are empty.
        each = [len(own.get(f"{name}.lora_A", ())) for name in place.layers]
        joined, found.alphas[place.module] = _join_layers(place, each, settings, own, weights)
        found.ranks[place.module] = sum(each)
        if len(each) > 1:
            found.stacked[place.module] = each
        embedding = set(place.layers) <= tables
        found.tensors.update(name_tensors(place.module, joined, embedding=embedding))
        if embedding and shared is not None:
            found.tensors.update(name_tensors(shared.module, joined))
    return found


@dataclass(frozen=True)
class _Whole:
    """Tensors by PEFT's names, the modules that they are of, and whether rows are among them."""

    tensors: dict[str, Tensor]
    modules: set[str]
    rows: bool


def _whole_tensors(
    places: Sequence[PeftTensor],
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    adapted: set[str],
    shared: SharedOutput | None,
) -> _Whole:
    """Return what was trained whole, a new head for one, which the base does not have; and rows of
    the embedding. With ``shared`` the output layer is the embedding."""
    whole = [place for place in places if set(place.own) & set(own)]
    tensors: dict[str, Tensor] = {}
    for place in places:
        name = f"{place.layers[0]}.rows"
        # PEFT gives the rows to a tied output layer too, which has to be the embedding then.
        if name in own and "head.weight" in own:
            whole.append(place)
        elif name in own:
            key = f"{PREFIX}{place.module}.token_adapter.trainable_tokens_delta"
            tensors[key] = own[name]
    rows = bool(tensors)
    if shared is not None and any(place.own == (shared.embedding,) for place in whole):
        whole.append(PeftTensor(f"{shared.module}.weight", (shared.embedding,)))
    modules: set[str] = set()
    for place in whole:
        name, _, kind = place.name.rpartition(".")
        if name in adapted:
            name += ".base_layer"
        elif kind == "weight" or f"{name}.weight" in {each.name for each in whole}:
            modules.add(name)
        value = torch.cat([own.get(each, weights[each]) for each in place.own])
        tensors[f"{PREFIX}{name}.{kind}"] = (value.T if place.transposed else value).contiguous()
    return _Whole(tensors, modules, rows)


def peft_values(
    settings: Adapter, ranks: Mapping[str, int], alphas: Mapping[str, float]
) -> dict[str, Any]:
    """Return what adapter_config.json says of settings, and of each module's rank and alpha."""
    # PEFT has one rank and exceptions from it; which one is the rule does not matter.
    rank = next(iter(ranks.values()))
    return {
        "peft_type": "LORA",
        "bias": settings.bias,
        "r": rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.rank_stabilized,
        "use_dora": settings.name == "dora",
        "target_modules": list(ranks),
        "rank_pattern": {name: r for name, r in ranks.items() if r != rank},
        "alpha_pattern": {name: alpha for name, alpha in alphas.items() if alpha != settings.alpha},
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _embeddings(config: ModelConfig) -> set[str]:
    """Return the names of a model's embeddings."""
    with without_content():
        modules = config.build().named_modules()
        return {name for name, module in modules if isinstance(module, nn.Embedding)}


def name_tensors(
    module: str, part: Mapping[str, Tensor], *, embedding: bool = False
) -> dict[str, Tensor]:
    """Return the matrices of a module by PEFT's names."""
    if not embedding:
        return {
            f"{PREFIX}{module}{_SUFFIXES[key]}": value.contiguous().clone()
            for key, value in part.items()
        }
    # There an embedding's matrices are the other way round: A has a column for each token.
    return {
        f"{PREFIX}{module}.lora_embedding_A": part["lora_B"].T.contiguous(),
        f"{PREFIX}{module}.lora_embedding_B": part["lora_A"].T.contiguous(),
    }


def _join_layers(
    place: PeftTensor,
    ranks: list[int],
    settings: Adapter,
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], float]:
    """Return the adapter of one module, and its alpha."""
    present = [(name, rank) for name, rank in zip(place.layers, ranks, strict=True) if rank]
    if len(place.layers) == 1:
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
    for name, rank in zip(place.layers, ranks, strict=True):
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
            own.get(f"{name}.magnitude", row_norms(weights[f"{name}.weight"]))
            for name in place.layers
        ]
        joined["magnitude"] = torch.cat(lengths)
    return joined, alpha


def _block_diagonal(blocks: list[Tensor]) -> Tensor:
    joined: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return joined
