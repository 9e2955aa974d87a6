"""Tables of tensor names, read in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.core.errors import CheckpointError

__all__ = ["Row", "from_ours", "to_ours"]


@dataclass(frozen=True)
class Row:
    """One tensor of theirs and the one or several of ours that it holds, one below the other.

    ``{}`` in the names stands for the number of a layer. ``transposed`` says that theirs is (in, out), not (out, in).
    """

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False


def to_ours(rows: Sequence[Row], theirs: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return our tensors from theirs.

    Rows whose tensor is absent are passed over, as whoever loads the result must check that nothing is missing.

    Raises:
        CheckpointError: If a tensor of theirs has no row.
    """
    ours: dict[str, Tensor] = {}
    used: set[str] = set()
    for row in _numbered(rows, layers):
        if row.theirs not in theirs:
            continue
        used.add(row.theirs)
        tensor = theirs[row.theirs].T if row.transposed else theirs[row.theirs]
        parts = tensor.chunk(len(row.ours))
        ours.update((name, part.contiguous().clone()) for name, part in zip(row.ours, parts, strict=True))
    _all_used(theirs, used)
    return ours


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
        theirs[row.theirs] = (tensor.T if row.transposed else tensor).contiguous()
    _all_used(ours, used)
    return theirs


def _numbered(rows: Sequence[Row], layers: int) -> Iterator[Row]:
    for row in rows:
        for layer in range(layers) if "{}" in row.theirs else [0]:
            yield Row(row.theirs.format(layer), tuple(name.format(layer) for name in row.ours), row.transposed)


def _all_used(tensors: Mapping[str, Tensor], used: set[str]) -> None:
    left = sorted(set(tensors) - used)
    if left:
        names = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        raise CheckpointError("weights", f"no place for {names}", "Check that the model is of the family it says")
