"""Tables of tensor names, read in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from groundup.core.errors import CheckpointError

__all__ = [
    "Row",
    "check_architecture",
    "fill_in",
    "from_ours",
    "list_some",
    "refuse_other_values",
    "to_ours",
]


@dataclass(frozen=True)
class Row:
    """One tensor of a file and the one or several of groundup's that it holds, one below the other.

    ``{}`` in the names is the number of a layer. ``transposed`` says that the file's is (in,
    out), not (out, in); ``leading`` how many dimensions of size 1 the file's has before groundup's.
    """

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False
    leading: int = 0


def check_architecture(config: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Make sure that config.json is of a model as it is built here.

    Raises:
        CheckpointError: If it names another class, as of a classifier where a language model is
            built.
    """
    for name in config.get("architectures") or ():
        if name not in known:
            problem = (
                f"architecture {name}; supported for model_type {config.get('model_type')}:"
                f" {', '.join(known)}"
            )
            raise CheckpointError("config.json", problem, "Use a model of that kind")


def refuse_other_values(config: Mapping[str, Any], built: Mapping[str, Any]) -> None:
    """Make sure that parts of config.json which change what a model computes are as built here.

    Raises:
        CheckpointError: If one has another value than ``built`` says; what is absent or null fits.
    """
    for key, value in built.items():
        if config.get(key) not in (None, value):
            problem = f"{key} is {config[key]}; supported: {value}"
            raise CheckpointError("config.json", problem, "Use another model")


def fill_in(defaults: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of config.json with transformers' defaults for what is absent or null."""
    return {**defaults, **{key: value for key, value in config.items() if value is not None}}


def to_ours(
    rows: Sequence[Row],
    theirs: Mapping[str, Tensor],
    layers: int,
    own: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return groundup's tensors from a file's, each used once.

    Args:
        rows: The table.
        theirs: All the file's tensors.
        layers: How many layers there are.
        own: Tensors of all names and shapes of the model, on any device; None passes over what is
            absent, so that whoever loads the result must check it.

    Raises:
        CheckpointError: If a tensor of the file has no row, or with ``own`` one is missing or of
            another shape.
    """
    # Before any tensor is read, where theirs are read only when asked for.
    if own is not None:
        _check(theirs, from_ours(rows, own, layers))
    ours: dict[str, Tensor] = {}
    used: set[str] = set()
    for row in _numbered(rows, layers):
        if row.theirs not in theirs:
            continue
        used.add(row.theirs)
        tensor = _transpose(theirs[row.theirs], row)
        tensor = tensor.reshape(tensor.shape[row.leading :])
        if own is None:
            parts = tensor.chunk(len(row.ours))
        else:
            # Queries may be more than keys and values: each is as long as the model's own.
            parts = torch.split(tensor, [len(own[name]) for name in row.ours])
        for name, part in zip(row.ours, parts, strict=True):
            # A copy: a view would keep the whole file's tensor in memory.
            ours[name] = part.contiguous().clone()
    _all_used(theirs, used)
    return ours


def _check(theirs: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    remedy = "Check that config.json belongs to these weights"
    _all_used(theirs, set(expected))
    for name, tensor in expected.items():
        if name not in theirs:
            problem = f"tensor {name} {list(tensor.shape)} is missing"
            missing = len(set(expected) - set(theirs)) - 1
            if missing:
                problem += f" and {missing} more"
            raise CheckpointError("weights", problem, remedy)
        if theirs[name].shape != tensor.shape:
            problem = (
                f"tensor {name} has shape {list(theirs[name].shape)}; config.json says"
                f" {list(tensor.shape)}"
            )
            raise CheckpointError("weights", problem, remedy)


def from_ours(rows: Sequence[Row], ours: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's, the inverse of ``to_ours``.

    Raises:
        CheckpointError: If a tensor of groundup's has no row.
    """
    theirs: dict[str, Tensor] = {}
    used: set[str] = set()
    for row in _numbered(rows, layers):
        # A row of a part that this model does not have.
        if not set(row.ours) <= set(ours):
            continue
        used.update(row.ours)
        # Queries, keys and values below each other, where the file has one matrix.
        tensor = torch.cat([ours[name] for name in row.ours])
        tensor = tensor.reshape((1,) * row.leading + tensor.shape)
        theirs[row.theirs] = _transpose(tensor, row).contiguous()
    _all_used(ours, used)
    return theirs


def _transpose(tensor: Tensor, row: Row) -> Tensor:
    if row.transposed:
        return tensor.T
    return tensor


def _numbered(rows: Sequence[Row], layers: int) -> Iterator[Row]:
    for row in rows:
        # A name without a number is there once.
        times = layers if "{}" in row.theirs else 1
        for layer in range(times):
            ours = tuple(name.format(layer) for name in row.ours)
            yield replace(row, theirs=row.theirs.format(layer), ours=ours)


def _all_used(tensors: Mapping[str, Tensor], used: set[str]) -> None:
    left = sorted(set(tensors) - used)
    if left:
        remedy = "Check that the model is of the family it says"
        raise CheckpointError("weights", f"no place for {list_some(left)}", remedy)


def list_some(names: Sequence[str]) -> str:
    """Return the first three names, and how many more there are."""
    found = ", ".join(names[:3])
    if len(names) > 3:
        found += f" and {len(names) - 3} more"
    return found
