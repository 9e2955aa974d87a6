"""Targets of which each example has its own number, such as the boxes in a picture.

A batch holds the values of all its examples one after the other, and where those of each begin. In
``Task.batch_spec`` the first length of such a tensor is called ``ragged``, and its offsets follow::

    {"boxes": "float32 (ragged, 4)", "boxes_offsets": "int64 (B + 1)"}

Example b has the rows ``boxes[boxes_offsets[b] : boxes_offsets[b + 1]]``, perhaps none.
No padding is learned from by mistake, and no longest example sets the size of all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from groundup.core.values import Batch

__all__ = ["offsets_of", "pack_ragged", "ragged_rows", "take_rows"]


def offsets_of(name: str) -> str:
    """Return the name of the tensor that says where each example's rows of ``name`` begin."""
    return f"{name}_offsets"


def pack_ragged(name: str, rows: Sequence[Tensor]) -> Batch:
    """Return the two tensors of ragged values.

    Args:
        name: What the values are called in the batch.
        rows: Of each example (n, ...), where n may be 0 and differs between examples.
    """
    # A 0 in front, so that the first and the last example are no special cases.
    counts = torch.tensor([0, *(len(own) for own in rows)])
    return {name: torch.cat(list(rows)), offsets_of(name): counts.cumsum(0)}


def ragged_rows(batch: Batch, name: str) -> list[Tensor]:
    """Return the values of each example, (n, ...) views; the inverse of ``pack_ragged``."""
    return list(torch.split(batch[name], batch[offsets_of(name)].diff().tolist()))


def take_rows(batch: Batch, index: Tensor) -> Batch:
    """Return the examples with these numbers, (N,) int64, of every tensor, ragged ones included."""
    taken: Batch = {}
    for name, values in batch.items():
        if offsets_of(name) in batch:
            # Not by way of ``ragged_rows``, which cuts all examples apart to take a few.
            offsets = batch[offsets_of(name)]
            begins = offsets[index].tolist()
            ends = offsets[index + 1].tolist()
            rows = [values[begin:end] for begin, end in zip(begins, ends, strict=True)]
            taken |= pack_ragged(name, rows)
        elif name not in taken:  # the offsets came with their values
            taken[name] = values.index_select(0, index)
    return taken
