"""Reading an adapter in the layout of the library PEFT."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from groundup.contracts.models import ModelConfig
from groundup.core.errors import CheckpointError
from groundup.recipe.sections import Adapter
from groundup.weights.peft_layout import (
    CONFIG,
    PREFIX,
    WEIGHTS,
    PeftModule,
    peft_modules,
)

__all__ = ["AdapterTensors", "read_adapter_folder"]

# A magnitude is a parameter of its own, without .weight, unlike the two matrices.
_KEY = re.compile(r"(.+)\.lora_(A|B|magnitude_vector)(?:\.weight)?$")


@dataclass(frozen=True)
class AdapterTensors:
    """What a folder holds.

    Attributes:
        where: The folder.
        settings: What the adapter was made with; each target by its name, with its rank.
        tensors: By groundup's names.
        beside: The names of tensors that are no part of an adapter, such as a new head's.
        base_sha256: Of the base's weights, where it is known.
        quantised: How the base was quantised when the adapter was trained, where it is known; empty
            if it was not.
    """

    where: str
    settings: Adapter
    tensors: dict[str, Tensor]
    beside: tuple[str, ...]
    base_sha256: str | None
    quantised: str = ""

    @property
    def ranks(self) -> dict[str, int]:
        """The rank of each adapted layer."""
        assert isinstance(self.settings.targets, dict)
        return self.settings.targets

    def check_base(self, sha256: str) -> None:
        """Raise an error if the adapter is known to be for other weights than those with this
        SHA-256."""
        if self.base_sha256 not in (None, sha256):
            problem = (
                f"is an adapter for other weights (SHA-256 {str(self.base_sha256)[:12]}..., not"
                f" {sha256[:12]}...)"
            )
            raise CheckpointError(
                self.where, problem, "Use it with the run that it was trained from"
            )


def read_adapter_folder(
    folder: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    settings: Adapter | None = None,
) -> AdapterTensors:
    """Return the adapter in a folder, its B scaled so that with ``settings`` (its own if None) it
    computes the same.

    Args:
        folder: In PEFT's layout, or a run's that has such a folder ``adapter``.
        config: The model's settings.
        weights: The model's weights by groundup's names; only their names and shapes are read.
        settings: Whose ``alpha`` and ``rank_stabilized`` will multiply what is returned.

    Raises:
        CheckpointError: If a file is missing or damaged, is no LoRA or DoRA adapter, or is for
            another model.
    """
    if not (folder / CONFIG).is_file() and (folder / "adapter" / CONFIG).is_file():
        folder = folder / "adapter"
    values, stored, metadata = _read_files(folder)
    stacked = _check_values(folder, values, metadata)
    parts: dict[str, dict[str, Tensor]] = {}
    beside: dict[str, Tensor] = {}
    for key, value in stored.items():
        found = _KEY.match(key.removeprefix(PREFIX))
        if found is None:
            beside[key.removeprefix(PREFIX)] = value
        else:
            parts.setdefault(found[1], {})[
                {"magnitude_vector": "magnitude"}.get(found[2], f"lora_{found[2]}")
            ] = value
    places = {place.name: place for place in peft_modules(config, weights)[0]}
    stable = bool(values.get("use_rslora"))
    kind: Literal["lora", "dora"] = "dora" if values.get("use_dora") else "lora"
    own = Adapter(name=kind, alpha=float(values["lora_alpha"]), rank_stabilized=stable)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for module, part in parts.items():
        place = _check_module(folder, module, part, places, weights, own.name)
        alpha = _find_by_pattern(values.get("alpha_pattern") or {}, module, own.alpha)
        scale = own.model_copy(update={"alpha": alpha}).scale(part["lora_A"].shape[0])
        for name, piece in _split_by_layer(
            folder, place, part, weights, stacked.get(module)
        ).items():
            ranks[name] = rank = piece["lora_A"].shape[0]
            # The alpha of the recipe multiplies what is returned, so B makes up for the file's.
            ratio = scale / (settings or own).scale(rank)
            if not math.isclose(ratio, 1.0, rel_tol=1e-12):
                piece["lora_B"] = piece["lora_B"] * ratio
            tensors |= {f"{name}.{key}": value for key, value in piece.items()}
    described = own.model_copy(update={"targets": ranks})
    base = metadata.get("base_sha256")
    kept = metadata.get("base_quantised", "")
    return AdapterTensors(str(folder), described, tensors | beside, tuple(beside), base, kept)


def _read_files(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str]]:
    where = str(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            problem = f"holds no adapter (it has no {name})"
            raise CheckpointError(
                where, problem, "Give a folder in PEFT's layout, such as runs/NAME/adapter"
            )
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"{CONFIG} holds no keys and values")
        kind = values.get("peft_type")
        bias = values.get("bias", "none")
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    # RecursionError, because a damaged JSON file may be nested without end.
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            where, f"cannot be read: {type(error).__name__}: {error}", "Restore it"
        ) from None
    if kind != "LORA" or bias != "none" or not tensors:
        found = f"peft_type {kind}, bias {bias}, {len(tensors)} tensors"
        raise CheckpointError(
            where, f"holds {found}; supported: LORA, none, one or more", "Use another adapter"
        )
    return values, tensors, metadata


def _check_values(
    folder: Path, values: Mapping[str, Any], metadata: Mapping[str, str]
) -> dict[str, list[int]]:
    """Return how adapters of several layers were joined, once all that is read of the config is of
    the right kind.

    Raises:
        CheckpointError: Naming the key, what is there and what is allowed.
    """

    def wrong(key: str, found: Any, allowed: str) -> CheckpointError:
        problem = f"{key} is {json.dumps(found, default=str)[:60]}; allowed: {allowed}"
        return CheckpointError(str(folder / CONFIG), problem, "Restore the file")

    for key, (fits, allowed) in _ALLOWED.items():
        if key in ("r", "lora_alpha") and key not in values:
            raise CheckpointError(
                str(folder / CONFIG), f"has no {key}; allowed: {allowed}", "Restore the file"
            )
        if key in values and not fits(values[key]):
            raise wrong(key, values[key], allowed)
    # These are regular expressions of whoever wrote the file, and are searched with below.
    for pattern, value in (values.get("alpha_pattern") or {}).items():
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError):
            raise wrong("alpha_pattern", pattern, "regular expressions of modules' names") from None
        if not _is_positive(value):
            raise wrong(f"alpha_pattern {pattern}", value, _ALLOWED["lora_alpha"][1])
    try:
        stacked = json.loads(metadata.get("stacked", "{}"))
        joined = all(
            isinstance(part, int) and part >= 0 for parts in stacked.values() for part in parts
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        joined = False
    if not joined:
        problem = (
            f"stacked in its header is {str(metadata.get('stacked'))[:60]}; allowed: ranks by"
            " module"
        )
        raise CheckpointError(str(folder / WEIGHTS), problem, "Restore the file")
    return dict(stacked)


def _is_positive(value: Any) -> bool:
    # In Python true is a number, and would be an alpha of 1.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < 1e6  # NaN and infinity are neither


def _is_names(value: Any) -> bool:
    several = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return value is None or isinstance(value, str) or several


def _is_mapping(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _is_flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and _is_positive(value)


_ALLOWED: dict[
    str, tuple[Callable[[Any], bool], str]
] = {  # keys of adapter_config.json, whether a value will do
    "r": (_is_rank, "a whole number above 0"),
    "lora_alpha": (_is_positive, "a number above 0"),
    **dict.fromkeys(("use_rslora", "use_dora", "fan_in_fan_out"), (_is_flag, "true or false")),
    **dict.fromkeys(("rank_pattern", "alpha_pattern"), (_is_mapping, "numbers by modules' names")),
    **dict.fromkeys(("target_modules", "modules_to_save", "layers_pattern"), (_is_names, "names")),
}


def _check_module(
    folder: Path,
    module: str,
    part: Mapping[str, Tensor],
    places: Mapping[str, PeftModule],
    weights: Mapping[str, Tensor],
    name: str,
) -> PeftModule:
    """Return where a module's layers are here, once its adapter is known to fit."""
    wanted = {"lora_A", "lora_B"}
    if name == "dora":
        wanted.add("magnitude")
    if set(part) != wanted:
        missing = sorted(wanted - set(part))
        odd = sorted(set(part) - wanted)
        problem = f"lacks {', '.join(missing)} of {module}"
        if not missing:
            problem = f"has an unknown {odd[0]} of {module}"
        raise CheckpointError(str(folder), problem, "Restore it")
    bent = next(
        (key for key, value in part.items() if value.ndim != (1 if key == "magnitude" else 2)), None
    )
    if bent is not None or len(part["lora_A"]) != part["lora_B"].shape[1]:
        shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in sorted(part.items()))
        problem = f"has {shapes} of {module}; allowed: A (rank, inputs), B (outputs, rank)"
        raise CheckpointError(str(folder), problem, "Restore it")
    unfit = next((key for key, value in part.items() if not value.is_floating_point()), None)
    if unfit is not None:
        raise CheckpointError(
            str(folder), f"has {unfit} of {module} as {part[unfit].dtype}, no float", "Restore it"
        )
    if module not in places:
        # Layers by their pattern: hundreds of names would fill the screen and say no more.
        known = ", ".join(sorted({re.sub(r"\.\d+\.", ".*.", known) for known in places}))
        problem = f"adapts {module}, but this model has only {known}"
        raise CheckpointError(str(folder), problem, "Use the model that it was trained for")
    sizes = [weights[f"{name}.weight"].shape for name in places[module].own]
    # Layers that are one module there read the same input, so the first speaks for all.
    inputs = sizes[0][1]
    outputs = sum(size[0] for size in sizes)
    there = (part["lora_A"].shape[1], part["lora_B"].shape[0])
    if "magnitude" in part and len(part["magnitude"]) != there[1]:
        problem = (
            f"has {len(part['magnitude'])} lengths for {module}; allowed: {there[1]}, one an output"
        )
        raise CheckpointError(str(folder), problem, "Restore it")
    if there != (inputs, outputs):
        problem = (
            f"adapts {module} from {there[0]} numbers to {there[1]}; this model's is from {inputs}"
            f" to {outputs}"
        )
        raise CheckpointError(str(folder), problem, "Use the model that it was trained for")
    return places[module]


def _split_by_layer(
    folder: Path,
    place: PeftModule,
    part: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    ranks: list[int] | None,
) -> dict[str, dict[str, Tensor]]:
    """Return the adapter of each of groundup's layers: one that was joined here is taken apart,
    another's A is shared by all."""
    rows = [weights[f"{name}.weight"].shape[0] for name in place.own]
    a_parts: Sequence[Tensor] = [part["lora_A"]] * len(rows)
    b_parts: list[Tensor] = list(torch.split(part["lora_B"], rows))
    if ranks is not None and (len(ranks) != len(rows) or sum(ranks) != len(part["lora_A"])):
        problem = (
            f"stacked in its header gives {place.name} the ranks {ranks}; it has"
            f" {len(part['lora_A'])} in all"
        )
        raise CheckpointError(str(folder / WEIGHTS), problem, "Restore the file")
    # Joined by write_peft, the parts of B are blocks along a diagonal: the rest of each is zeros.
    if ranks is not None:
        a_parts = torch.split(part["lora_A"], ranks)
        b_parts = [torch.split(b, ranks, dim=1)[number] for number, b in enumerate(b_parts)]
    lengths: Sequence[Tensor] = ()
    if "magnitude" in part:
        lengths = torch.split(part["magnitude"], rows)
    pieces: dict[str, dict[str, Tensor]] = {}
    for number, (name, a) in enumerate(zip(place.own, a_parts, strict=True)):
        # Rank 0 is how a joined module says that one of its layers has no adapter.
        if a.shape[0]:
            pieces[name] = {"lora_A": a, "lora_B": b_parts[number]}
            if lengths:
                pieces[name]["magnitude"] = lengths[number]
    return pieces


def _find_by_pattern(patterns: Mapping[str, Any], name: str, otherwise: float) -> float:
    """Return the value of the first pattern that PEFT would find for a module."""
    return next(
        (float(v) for k, v in patterns.items() if re.match(rf"(.*\.)?({k})$", name)), otherwise
    )
