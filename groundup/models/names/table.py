"""Tables of tensor names, read in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from groundup.core.errors import CheckpointError

__all__ = ["Row", "check_architecture", "from_ours", "to_ours"]


@dataclass(frozen=True)
class Row:
    """One tensor of theirs and the one or several of ours that it holds, one below the other.

    ``{}`` in the names stands for the number of a layer. ``transposed`` says that theirs is (in,
    out), not (out, in); ``leading`` how many dimensions of size 1 theirs has before ours.
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


def to_ours(
    rows: Sequence[Row],
    theirs: Mapping[str, Tensor],
    layers: int,
    own: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return our tensors from theirs, each used once.

    Args:
        rows: The table.
        theirs: All their tensors.
        layers: How many layers there are.
        own: Tensors of all our names and shapes, on any device; None passes over what is absent, so
            that whoever loads the result must check it.

    Raises:
        CheckpointError: If a tensor of theirs has no row, or with ``own`` one is missing or of
            another shape.
    """
    if own is not None:
        _check(theirs, from_ours(rows, own, layers))
    ours: dict[str, Tensor] = {}
    used: set[str] = set()
    for row in _numbered(rows, layers):
        if row.theirs not in theirs:
            continue
        used.add(row.theirs)
        tensor = theirs[row.theirs].T if row.transposed else theirs[row.theirs]
        tensor = tensor.reshape(tensor.shape[row.leading :])
        sizes = None if own is None else [len(own[name]) for name in row.ours]
        parts = tensor.chunk(len(row.ours)) if sizes is None else torch.split(tensor, sizes)
        ours.update(
            (name, part.contiguous().clone()) for name, part in zip(row.ours, parts, strict=True)
        )
    _all_used(theirs, used)
    return ours


def _check(theirs: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    remedy = "Check that config.json belongs to these weights"
    _all_used(theirs, set(expected))
    for name, tensor in expected.items():
        if name not in theirs:
            missing = len(set(expected) - set(theirs)) - 1
            more = f" and {missing} more" if missing else ""
            raise CheckpointError(
                "weights", f"tensor {name} {list(tensor.shape)} is missing{more}", remedy
            )
        if theirs[name].shape != tensor.shape:
            problem = (
                f"tensor {name} has shape {list(theirs[name].shape)}; config.json says"
                f" {list(tensor.shape)}"
            )
            raise CheckpointError("weights", problem, remedy)


def from_ours(rows: Sequence[Row], ours: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return their tensors from ours, the inverse of ``to_ours``.

    Raises:
        CheckpointError: If a tensor of ours has no row.
    """
    theirs: dict[str, Tensor] = {}
    used: set[str] = set()
    for row in _numbered(rows, layers):
        if not set(row.ours) <= set(ours):
            continue
        used.update(row.ours)
        tensor = torch.cat([ours[name] for name in row.ours])
        tensor = tensor.reshape((1,) * row.leading + tensor.shape)
        theirs[row.theirs] = (tensor.T if row.transposed else tensor).contiguous()
    _all_used(ours, used)
    return theirs


def _numbered(rows: Sequence[Row], layers: int) -> Iterator[Row]:
    for row in rows:
        for layer in range(layers) if "{}" in row.theirs else [0]:
            ours = tuple(name.format(layer) for name in row.ours)
            yield replace(row, theirs=row.theirs.format(layer), ours=ours)


def _all_used(tensors: Mapping[str, Tensor], used: set[str]) -> None:
    left = sorted(set(tensors) - used)
    if left:
        names = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        raise CheckpointError(
            "weights", f"no place for {names}", "Check that the model is of the family it says"
        )
