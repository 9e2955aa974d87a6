"""Merging adapters of one base into one that adds what each of them adds, times a weight.

The base is not needed: the matrices of a layer are put next to each other.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.core.errors import CheckpointError, RunError
from groundup.core.storage import Storage
from groundup.recipe.adapter import Adapter
from groundup.weights.peft_config import PeftConfig, read_peft_config
from groundup.weights.peft_layout import CONFIG, find_adapter, read_files, sort_tensors
from groundup.weights.peft_parts import check_matrices, join_ranks
from groundup.weights.write_peft import name_tensors, peft_values, write_files

__all__ = ["merge_adapters"]

OTHER_BASE = "Merge adapters of one base only"
LEAVE_OUT = "Leave this adapter out: only changes of low rank can be added up"

log = logging.getLogger("groundup")


def merge_adapters(
    adapters: Sequence[str | Path], weights: Sequence[float], out: str | Path
) -> Path:
    """Write a LoRA adapter that adds the weighted sum of what several add to their base, and return
    its folder, in PEFT's layout.

    Exact, whatever their ranks: those of a layer add up. What all of them train whole has to be the
    same in each, and is taken over.

    Args:
        adapters: Folders in PEFT's layout, or runs that trained an adapter.
        weights: One for each; may be negative.
        out: The new folder.

    Raises:
        RunError: If the weights cannot be, or ``out`` exists.
        CheckpointError: If an adapter cannot be read, or is one that cannot be merged with the
            others.

    Source:
        The same as ``add_weighted_adapter`` of the library PEFT, ``combination_type="cat"``.
    """
    _check_weights(adapters, weights)
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        problem = "exists; nothing there was touched"
        raise RunError(str(target), problem, "Choose another --out")
    sources = [_read(Path(each), by) for each, by in zip(adapters, weights, strict=True)]
    for one, other in combinations(sources, 2):
        _check_same_base(one, other)
        _check_same_whole(one, other)
        _check_same_tying(one, other)
    _say_unknown_bases(sources)
    tensors, ranks = _join_layers([each for each in sources if each.weight])
    for each in sources:
        tensors |= each.whole
    storage, folder = Storage(), target.with_name(f".{target.name}.{os.getpid()}")
    try:
        folder.mkdir(parents=True)
        write_files(folder, storage, _values(sources, ranks), tensors, _metadata(sources))
        storage.rename(folder, target)
    finally:
        storage.remove(folder)
    for each in sources:
        log.info("%s", each.in_words())
    shown = sorted(set(ranks.values()))
    spread = f"rank {shown[0]}" if len(shown) == 1 else f"ranks {shown[0]} to {shown[-1]}"
    log.info("%s: %d adapters merged, %s, %d layers", target, len(sources), spread, len(ranks))
    return target


@dataclass(frozen=True)
class _Source:
    """One of the adapters: its folder, its weight, and what the files say and hold.

    ``layers`` has the matrices of each module, ``whole`` the other tensors by PEFT's names.
    """

    where: str
    weight: float
    values: dict[str, Any]
    config: PeftConfig
    layers: dict[str, dict[str, Tensor]]
    whole: dict[str, Tensor]
    metadata: dict[str, str]

    @property
    def base(self) -> tuple[Path, str] | None:
        """The name of its base, and the revision; None: not known."""
        name = self.values.get("base_model_name_or_path")
        # A folder may be named in several ways; a name of the hub stays what it is.
        return (Path(name).resolve(), self.values.get("revision") or "main") if name else None

    def in_words(self) -> str:
        """Return what it adds."""
        ranks = sorted({len(part["lora_A"]) for part in self.layers.values()})
        words = f"rank {', '.join(map(str, ranks))}, alpha {self.config.settings.alpha:g}"
        words = f"{self.where}: weight {self.weight:g}, {words}, {len(self.layers)} layers"
        return words if self.weight else f"{words}; left out"


def _check_weights(adapters: Sequence[str | Path], weights: Sequence[float]) -> None:
    count = len(adapters)
    remedy = f"Give one for each adapter, such as --weights {','.join(['0.5'] * max(count, 1))}"
    if not count or len(weights) != count:
        problem = f"{len(weights)} weights for {count} adapters"
        raise RunError("--weights", problem, remedy)
    unfit = next((weight for weight in weights if not math.isfinite(weight)), None)
    if unfit is not None:
        raise RunError("--weights", f"{unfit} is no weight; allowed: any finite number", remedy)
    if not any(weights):
        raise RunError("--weights", "all are 0, which leaves the base as it is", remedy)


def _read(folder: Path, weight: float) -> _Source:
    """Return what a folder holds, once it is known to be something that can be added up."""
    folder = find_adapter(folder)
    where = str(folder)
    values, stored, metadata = read_files(folder)
    config = read_peft_config(folder / CONFIG, values)
    if config.settings.name == "dora":
        raise CheckpointError(where, "is DoRA, which also scales the base's rows", LEAVE_OUT)
    if config.start:
        problem = f"began with {config.start}, which took a part off the base"
        remedy = "Save it in PEFT as plain LoRA (save_pretrained with"
        remedy += " path_initial_model_for_weight_conversion), and merge that"
        raise CheckpointError(where, problem, remedy)
    parts, _, _ = sort_tensors(stored)
    layers = {module: part for module, part in parts.items() if "rows" not in part}
    for module, part in layers.items():
        if "bias" in part:
            raise CheckpointError(where, f"has lora_bias for {module}", LEAVE_OUT)
        matrices = {key: value for key, value in part.items() if key != "embedding"}
        check_matrices(where, module, matrices, "lora")
    if not layers:
        raise CheckpointError(where, "adapts no layer, which LoRA is about", "Use another adapter")
    whole = {key: value for key, value in stored.items() if ".lora_" not in key}
    return _Source(where, weight, values, config, layers, whole, metadata)


# ----------------------------------------------------------------------------- what has to be alike
def _check_same_base(one: _Source, other: _Source) -> None:
    """Raise an error if two adapters are known to be of different bases."""
    sums = [each.metadata.get("base_sha256") for each in (one, other)]
    if None not in sums and sums[0] != sums[1]:
        problem = f"is for other weights (SHA-256 {str(sums[1])[:12]}...) than {one.where}"
        raise CheckpointError(other.where, f"{problem} ({str(sums[0])[:12]}...)", OTHER_BASE)
    names = [each.values.get("base_model_name_or_path") for each in (one, other)]
    if None in sums and one.base != other.base and one.base and other.base:
        revisions = [each.base[1] for each in (one, other) if each.base]
        shown = [f"{name} ({by})" for name, by in zip(names, revisions, strict=True)]
        problem = f"base_model_name_or_path is {shown[1]}, but that of {one.where} is {shown[0]}"
        remedy = f"{OTHER_BASE}. If the two are the same weights, write one name in both files"
        raise CheckpointError(f"{other.where}/{CONFIG}", problem, remedy)
    tasks = [each.values.get("task_type") for each in (one, other)]
    if all(tasks) and tasks[0] != tasks[1]:
        problem = f"task_type is {tasks[1]}, but that of {one.where} is {tasks[0]}"
        raise CheckpointError(f"{other.where}/{CONFIG}", problem, OTHER_BASE)


def _say_unknown_bases(sources: Sequence[_Source]) -> None:
    if all("base_sha256" in each.metadata for each in sources) or len(sources) == 1:
        return
    for each in sources:
        if each.base is None:
            message = "%s does not name its base, which is taken for that of the others"
            log.warning(message, each.where)


def _check_same_whole(one: _Source, other: _Source) -> None:
    """Raise an error if two adapters hold whole tensors that differ."""
    if one.config.tokens != other.config.tokens:
        problem = f"trainable_token_indices are others than those of {one.where}"
        raise CheckpointError(f"{other.where}/{CONFIG}", problem, LEAVE_OUT)
    for key in sorted({*one.whole, *other.whole}):
        here, there = one.whole.get(key), other.whole.get(key)
        if here is not None and there is not None:
            if here.shape == there.shape and torch.equal(here, there):
                continue
            found = f"has other numbers for {key} than {one.where}"
        elif key.endswith(".base_layer.weight"):
            continue  # the base's own, next to an adapter that the other does not have
        else:
            found = f"and {one.where} differ: only one of them has {key}"
        raise CheckpointError(other.where, f"{found} ({_kind(key)})", LEAVE_OUT)


def _kind(key: str) -> str:
    """Return the setting by which a tensor came to be in an adapter."""
    if ".token_adapter." in key:
        return "trainable_token_indices"
    return "bias" if key.endswith(".bias") else "modules_to_save"


def _check_same_tying(one: _Source, other: _Source) -> None:
    """Raise an error if one adapter changes the output layer with the embedding, and the other one
    of these alone."""
    if one.config.tied == other.config.tied:
        return
    free = other if one.config.tied else one
    apart = [name for name, part in free.layers.items() if "embedding" in part or name == "lm_head"]
    if apart:
        problem = f"changes {apart[0]} alone; another changes it with ensure_weight_tying"
        raise CheckpointError(free.where, problem, LEAVE_OUT)


# --------------------------------------------------------------------------------- what is written
def _join_layers(sources: Sequence[_Source]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Return the merged matrices by PEFT's names, and each module's rank, by which its alpha is
    divided: the weights are in B."""
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for module in dict.fromkeys(name for each in sources for name in each.layers):
        adding = [each for each in sources if module in each.layers]
        a_parts: list[Tensor] = []
        b_parts: list[Tensor] = []
        for each in adding:
            a, b = (each.layers[module][key].to(torch.float32) for key in ("lora_A", "lora_B"))
            if a_parts and (a.shape[1], len(b)) != (a_parts[0].shape[1], len(b_parts[0])):
                problem = f"adapts {module} from {a.shape[1]} numbers to {len(b)}, but"
                problem += f" {adding[0].where} from {a_parts[0].shape[1]} to {len(b_parts[0])}"
                raise CheckpointError(each.where, problem, OTHER_BASE)
            a_parts.append(a)
            b_parts.append(b * (each.weight * each.config.scale(module, len(a))))
        a, b = join_ranks(a_parts, b_parts)
        ranks[module] = len(a)
        embedding = "embedding" in adding[0].layers[module]
        tensors |= name_tensors(module, {"lora_A": a, "lora_B": b}, embedding=embedding)
    return tensors, ranks


def _values(sources: Sequence[_Source], ranks: dict[str, int]) -> dict[str, Any]:
    """Return what adapter_config.json says: what is alike in all, and alphas that are the ranks."""
    first = sources[0].values
    alike = ("task_type", "fan_in_fan_out", "modules_to_save", "trainable_token_indices")
    named = next((each.values for each in sources if each.base), first)
    settings = Adapter(
        alpha=next(iter(ranks.values())),
        dropout=sources[0].config.settings.dropout,
        bias=sources[0].config.settings.bias,
    )
    return {
        **{key: first.get(key) for key in alike},
        **{key: named.get(key) for key in ("base_model_name_or_path", "revision")},
        "ensure_weight_tying": any(each.config.tied for each in sources),
        **peft_values(settings, ranks, {module: float(rank) for module, rank in ranks.items()}),
    }


def _metadata(sources: Sequence[_Source]) -> dict[str, str]:
    """Return the header of the tensors: what was merged, and what is known of the base."""
    merged = [{"adapter": each.where, "weight": each.weight} for each in sources]
    found = {"format": "pt", "merged": json.dumps(merged)}
    known = [each.metadata["base_sha256"] for each in sources if "base_sha256" in each.metadata]
    if known:
        found["base_sha256"] = known[0]
    kept = {each.metadata.get("base_quantised", "fp32") for each in sources}
    if len(kept) == 1 and kept != {"fp32"}:
        found["base_quantised"] = kept.pop()
    elif len(kept) > 1:
        log.warning(
            "the adapters were trained next to a base in %s; merged, they work a little less well",
            " and ".join(sorted(kept)),
        )
    return found
