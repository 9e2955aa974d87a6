"""Reading an adapter in the layout of the library PEFT."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from groundup.contracts.models import ModelConfig
from groundup.core.errors import CheckpointError
from groundup.nn.lora.adapters import fits
from groundup.recipe.adapter import Adapter
from groundup.weights.peft_config import read_peft_config
from groundup.weights.peft_layout import (
    CONFIG,
    EMBEDDING,
    HEAD,
    PeftTensor,
    find_adapter,
    joined_ranks,
    peft_tensors,
    read_files,
    shared_output,
    sort_tensors,
)
from groundup.weights.peft_parts import (
    OTHER_MODEL,
    add_start,
    check_floats,
    check_part,
    split_by_layer,
)

__all__ = ["AdapterTensors", "read_adapter_folder"]


@dataclass(frozen=True)
class AdapterTensors:
    """What a folder holds.

    Attributes:
        where: The folder.
        settings: What the adapter was made with; each target by its name, with its rank.
        tensors: By groundup's names: of adapters, and those that take the place of the base's.
        whole: The names of the latter.
        stated_ranks: The rank that the file says of each target: half of what is in the tensors
            where the adapter's start is read with it.
        own_head: Whether the output layer is not the embedding any more, as it is in the base.
        base_sha256: Of the base's weights, where it is known.
        quantized: How the base was quantized when the adapter was trained, where it is known; empty
            if it was not.
    """

    where: str
    settings: Adapter
    tensors: dict[str, Tensor]
    whole: tuple[str, ...]
    stated_ranks: dict[str, int]
    own_head: bool
    base_sha256: str | None
    quantized: str = ""

    @property
    def ranks(self) -> dict[str, int]:
        """The rank of each adapted layer."""
        assert isinstance(self.settings.targets, dict)
        return self.settings.targets

    def check_base(self, sha256: str) -> None:
        """Raise an error if the adapter is known to be for other weights than those with this
        SHA-256."""
        if self.base_sha256 not in (None, sha256):
            raise CheckpointError(
                self.where,
                f"is an adapter for other weights (SHA-256 {str(self.base_sha256)[:12]}..., not"
                f" {sha256[:12]}...)",
                "Use it with the run that it was trained from",
            )


def read_adapter_folder(
    folder: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    settings: Adapter | None = None,
) -> AdapterTensors:
    """Return the adapter in a folder, its B scaled so that with ``settings`` (its own if None) it
    computes the same.

    What PEFT takes off the base when it loads an adapter that began with PiSSA or OLoRA is read as
    a part of the adapter, whose rank is then twice as high.

    Args:
        folder: In PEFT's layout, or a run's that has such a folder ``adapter``.
        config: The model's settings.
        weights: The model's weights by groundup's names. Without content (on the device ``meta``)
            the names, shapes and settings of the result are right, and its numbers are not.
        settings: Whose ``alpha`` and ``rank_stabilized`` will multiply what is returned.

    Raises:
        CheckpointError: If a file is missing or damaged, is no LoRA or DoRA adapter, or is for
            another model; or a key or a tensor is not known here.
    """
    return _Reader(find_adapter(folder), config, weights, settings).read()


class _Reader:
    """Reads one folder; arguments as above."""

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        weights: Mapping[str, Tensor],
        settings: Adapter | None,
    ) -> None:
        self.folder = folder
        values, stored, self.metadata = read_files(folder)
        self.config = read_peft_config(folder / CONFIG, values)
        self.weights = dict(weights)
        self.begun_from = settings
        self.stacked = joined_ranks(folder, self.metadata)
        found, self.task = peft_tensors(config, weights)
        self.places = {place.module: place for place in found}
        self.parts, self.saved, self.bases = sort_tensors(stored)
        self.tensors: dict[str, Tensor] = {}
        self.whole: dict[str, Tensor] = {}
        self.ranks: dict[str, int] = {}
        self.stated: dict[str, int] = {}
        self.tokens: tuple[int, ...] = ()
        self.own_head = self._separate_head(config)

    def read(self) -> AdapterTensors:
        """Return what the folder holds."""
        # The base's own tensors and whole ones first: adapters are next to these.
        for name, value in self.bases.items():
            self._compare_base(name, value)
        for name, value in self.saved.items():
            self._replace(name, value)
        for module, part in self.parts.items():
            place = self._place_of(module)
            if "rows" in part:
                self._take_rows(place, part["rows"])
            elif "magnitude" in part and "embedding" in part:
                self._fold_dora(place, part)
            else:
                self._take_low_rank(place, part)
        if not self.ranks:
            raise CheckpointError(
                str(self.folder), "adapts no layer, which LoRA is about", "Use another adapter"
            )
        biases = {name for name in self.whole if name.endswith(".bias")}
        adapted = {f"{name}.bias" for name in self.ranks}
        bias = "none"
        if biases:
            bias = "lora_only" if biases <= adapted else "all"
        settings = self.config.settings.model_copy(
            update={
                "targets": self.ranks,
                "modules_to_save": tuple(
                    sorted({n.rpartition(".")[0] for n in self.whole if n not in biases})
                ),
                "bias": bias,
                "trainable_token_indices": self.tokens,
            }
        )
        return AdapterTensors(
            str(self.folder),
            settings,
            self.tensors | self.whole,
            tuple(self.whole),
            self.stated,
            self.own_head,
            self.metadata.get("base_sha256"),
            self.metadata.get("base_quantised", ""),
        )

    def _wrong(self, problem: str, remedy: str = "Restore it") -> CheckpointError:
        return CheckpointError(str(self.folder), problem, remedy)

    def _place_of(self, module: str) -> PeftTensor:
        if module in self.places:
            return self.places[module]
        # Layers by their pattern: hundreds of names would fill the screen and say no more.
        known = ", ".join(
            sorted(
                {
                    re.sub(r"\.\d+\.", ".*.", place.module)
                    for place in self.places.values()
                    if self.weights[place.own[0]].ndim == 2
                }
            )
        )
        raise self._wrong(f"adapts {module}, but this model has only {known}", OTHER_MODEL)

    # ---------------------------------------------------------------------------- the output layer
    def _separate_head(self, config: ModelConfig) -> bool:
        """Return whether the adapter makes the output layer another one than the embedding, which
        it is in the base; then it has a place of its own."""
        shared = shared_output(config, self.weights, self.task)
        if shared is None:
            return False
        output = shared.module
        embedding = next(
            name for name, each in self.places.items() if each.own == (shared.embedding,)
        )
        # PEFT may write one of the two alone, or both.
        changed = {name for name in (output, embedding) if self._changes(name)}
        # Trained rows are shared with an output layer that is the embedding.
        rows = self.config.tied or "rows" in self.parts.get(embedding, {})
        if (changed == {embedding} and rows) or not changed:
            return False
        if changed == {embedding, output} and self._changes_alike(embedding, output):
            self.parts.pop(output, None)
            self.saved.pop(f"{output}.weight", None)
            self.bases.pop(f"{output}.weight", None)
            return False
        if shared.embedding != EMBEDDING or "tied_embeddings" not in type(config).model_fields:
            raise self._wrong(
                "changes the output layer and the embedding apart, and in this model they are one",
                "Use an adapter with ensure_weight_tying, or of other layers",
            )
        untied = config.model_copy(update={"tied_embeddings": False})
        self.weights[HEAD] = self.weights[EMBEDDING]
        self.places = {each.module: each for each in peft_tensors(untied, self.weights)[0]}
        return True

    def _changes(self, module: str) -> bool:
        return module in self.parts or f"{module}.weight" in self.saved

    def _changes_alike(self, embedding: str, output: str) -> bool:
        tensors = (self.saved.get(f"{name}.weight") for name in (output, embedding))
        parts = (self.parts.get(name, {}) for name in (output, embedding))
        one, other = [
            {**part, **({} if tensor is None else {"weight": tensor})}
            for part, tensor in zip(parts, tensors, strict=True)
        ]
        return all(
            key in one and one[key].shape == value.shape and torch.equal(one[key], value)
            for key, value in other.items()
            if key != "embedding"
        )

    # -------------------------------------------------------------------------------- whole tensors
    def _split(self, name: str, value: Tensor) -> dict[str, Tensor]:
        """Return a whole tensor in groundup's parts, in float32, once it is known to fit."""
        place = self.places.get(name.removesuffix(".weight"))
        if place is None:
            raise self._wrong(f"holds {name}, which this model has no place for", OTHER_MODEL)
        check_floats(str(self.folder), name, {"weights": value})
        value = value.T if place.transposed else value
        shapes = [self.weights[own].shape for own in place.own]
        rows = [shape[0] for shape in shapes]
        if value.shape != (sum(rows), *shapes[0][1:]):
            problem = (
                f"has {name} {list(value.shape)}; this model's is {[sum(rows), *shapes[0][1:]]}"
            )
            remedy = OTHER_MODEL
            if set(place.own) & {EMBEDDING, HEAD} and value.shape[1:] == shapes[0][1:]:
                remedy = f"It has other tokens: set model.vocabulary_size: {len(value)}"
            raise self._wrong(problem, remedy)
        parts = torch.split(value.to(torch.float32), rows)
        return {own: part.contiguous() for own, part in zip(place.own, parts, strict=True)}

    def _replace(self, name: str, value: Tensor) -> None:
        """Take a tensor that takes the place of one of the base's."""
        found = self._split(name, value)
        self.weights |= found
        self.whole |= found

    def _compare_base(self, name: str, value: Tensor) -> None:
        """Look at a tensor that PEFT wrote next to an adapter: it should be the base's."""
        for own, part in self._split(name, value).items():
            if self.weights[own].is_meta:
                continue
            here = self.weights[own].to(torch.float32)
            # It may have been in half precision there.
            if torch.allclose(part, here, rtol=2**-7, atol=2**-7 * float(here.abs().max())):
                continue
            layer = own.rpartition(".")[0]
            named = self.begun_from is None or any(
                fits(layer, pattern) for pattern in self.begun_from.modules_to_save
            )
            if not named:
                raise self._wrong(
                    f"holds other numbers for {name} than the base: that was changed too",
                    f"To take them, set adapter.modules_to_save: [{layer}]",
                )
            self.weights[own] = self.whole[own] = part

    # ------------------------------------------------------------------------------------- adapters
    def _take_rows(self, place: PeftTensor, rows: Tensor) -> None:
        """Take the rows of trained tokens."""
        names = [name for name in self.config.tokens if f".{place.module}".endswith(f".{name}")]
        tokens = self.config.tokens.get("", ()) or self.config.tokens.get("".join(names[:1]), ())
        table = self.weights[place.own[0]]
        if rows.shape != (len(tokens), table.shape[1]) or max(tokens, default=0) >= len(table):
            raise self._wrong(
                f"has rows {list(rows.shape)} for {len(tokens)} tokens of {place.module}"
                f" {list(table.shape)}",
                OTHER_MODEL,
            )
        check_floats(str(self.folder), place.module, {"rows": rows})
        if place.own == (EMBEDDING,):
            self.tokens = tokens
            self.tensors[f"{place.layers[0]}.rows"] = rows
            return
        # Only the embedding's rows can be trained apart: of another table all of it is.
        name = place.own[0]
        whole = table.to(torch.float32).index_copy(
            0, torch.tensor(tokens, device=table.device), rows.to(table.device, torch.float32)
        )
        self.whole[name] = self.weights[name] = whole

    def _fold_dora(self, place: PeftTensor, part: Mapping[str, Tensor]) -> None:
        """Take an embedding with DoRA, whose columns have lengths there, as a whole matrix."""
        a, b = part["lora_A"].to(torch.float32), part["lora_B"].to(torch.float32)
        name = place.own[0]
        changed = self.weights[name].to(torch.float32)
        if not changed.is_meta:
            changed = changed + self.config.scale(place.module, len(a)) * (b @ a)
            lengths = torch.linalg.vector_norm(changed, dim=0)
            changed = changed * (part["magnitude"].flatten() / lengths)
        self.whole[name] = changed

    def _take_low_rank(self, place: PeftTensor, part: dict[str, Tensor]) -> None:
        """Take the matrices of one module."""
        bias = part.pop("bias", None)
        part.pop("embedding", None)
        kind = self.config.settings.name
        check_part(str(self.folder), place, part, self.weights, kind)
        rank = len(part["lora_A"])
        if rank != (stated := self.config.rank(place.module)):
            raise CheckpointError(
                str(self.folder),
                f"{place.module} has rank {rank}, but {stated} by adapter_config.json",
                "Give the adapter_config.json that was written with them",
            )
        scale = self.config.scale(place.module, rank)
        if bias is not None:
            self._fold_bias(place, bias * scale)
        stacked = self.stacked.get(place.module)
        if self.config.start:
            own = [self.weights[name] for name in place.own]
            part = add_start(self.config.start, own, part, scale)
        rows = [len(self.weights[name]) for name in place.own]
        pieces = split_by_layer(str(self.folder), place, part, rows, stacked)
        for name, piece in pieces.items():
            self.ranks[name] = own_rank = len(piece["lora_A"])
            # What was begun with is a part of the adapter here, so its rank is twice the file's.
            self.stated[name] = rank if self.config.start else own_rank
            # The alpha of the recipe multiplies what is returned, so B makes up for the file's.
            ratio = scale / (self.begun_from or self.config.settings).scale(own_rank)
            if not math.isclose(ratio, 1.0, rel_tol=1e-12):
                piece["lora_B"] = piece["lora_B"] * ratio
            self.tensors |= {f"{name}.{key}": value for key, value in piece.items()}

    def _fold_bias(self, place: PeftTensor, bias: Tensor) -> None:
        """Add the bias of a matrix B to that of its layer."""
        names = [f"{name}.bias" for name in place.layers]
        missing = [name for name in names if name not in self.weights]
        if missing:
            raise self._wrong(
                f"has lora_bias for {place.module}, which has no bias in this model",
                "Use an adapter without lora_bias, or merge it in PEFT first",
            )
        rows = [len(self.weights[name]) for name in names]
        for name, part in zip(names, torch.split(bias, rows), strict=True):
            before = self.weights[name]
            self.weights[name] = self.whole[name] = (
                before if before.is_meta else before.to(torch.float32) + part.to(before.device)
            )
