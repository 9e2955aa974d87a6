"""Examples taken by number: held in memory as stacked tensors, never collated again, or read when
needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.contracts.data import DataContext
from groundup.contracts.ragged import offsets_of, take_rows
from groundup.core import seeding
from groundup.core.errors import DataError
from groundup.core.seeding import scramble
from groundup.core.values import Batch
from groundup.data.stream.row_order import KeyedOrder, LengthOrder, OwnOrder, RowOrder
from groundup.data.stream.sample_stream import Layout, MicroBatches, SampleStream

__all__ = ["open_in_memory_if_small", "open_indexed_stream"]

_FITS = 1 << 30  # bytes of tensors of one split that are kept in memory

_PADDED = (
    "tokens",
    "next_tokens",
    "token_types",
    "inputs",
    "ratings",
)  # (N, T, ...) where there are lengths


# rows, the numbers of their samples, and what they are read for
_Take = Callable[[NDArray[np.int64], NDArray[np.int64], str], Batch]


class _Rows(MicroBatches):
    """Rows of tensors in the order of the run."""

    def __init__(
        self,
        take: _Take,
        order: RowOrder,
        context: DataContext,
    ) -> None:
        self.take = take
        self.order = order
        self.layout = Layout.of(context)
        self.augment = context.augment
        self.reads_files = isinstance(take, _OnDemand)

    def __getitem__(self, number: int) -> Batch:
        first = self.layout.first_sample(number)
        rows = self.order.rows(first, self.layout.micro_batch_size)
        # All ranks get as many batches; of the last held-out ones some get nothing to read.
        if not len(rows):
            return {}
        samples = np.arange(first, first + len(rows))
        batch = self.take(rows, samples, "")
        if self.augment is None:
            return batch

        def take_partners(which: int = 0) -> Batch:
            # keyed by the sample, as all that is drawn: the same whatever the micro-batches are
            name = f"partners {which}" if which else "partners"
            chosen = scramble(samples, seeding.key(self.layout.seed, name))
            rows = (chosen % np.uint64(self.order.size)).astype(np.int64)
            return self.take(rows, samples, f"{name} ")

        return self.augment(batch, samples, take_partners)

    def samples_per_epoch(self, sample: int) -> int:
        return self.order.size


class _InMemory:
    """All examples encoded once."""

    def __init__(self, rows: Batch) -> None:
        self.rows = rows

    def __call__(self, chosen: NDArray[np.int64], samples: NDArray[np.int64], role: str) -> Batch:
        return _trim(take_rows(self.rows, torch.from_numpy(chosen)))


class _OnDemand:
    """Examples read and encoded when their turn comes, for data larger than memory."""

    def __init__(self, examples: Sequence[Any], context: DataContext) -> None:
        self.examples = examples
        self.encode = context.encode
        self.views = context.views

    def __call__(self, chosen: NDArray[np.int64], samples: NDArray[np.int64], role: str) -> Batch:
        read: Sequence[Any] = [self.examples[number] for number in chosen.tolist()]
        if self.views is not None:
            read = self.views(read, samples, role)
        return _trim(self.encode(read))


def open_indexed_stream(
    examples: Sequence[Any],
    context: DataContext,
    *,
    in_memory: bool = True,
    similar_lengths: bool = False,
    lengths: NDArray[np.int64] | None = None,
) -> SampleStream:
    """Open a split of examples that can be taken by number.

    Args:
        examples: The split; with ``in_memory=False`` taking one may read a file.
        context: What to open.
        in_memory: Encode all examples once and keep the tensors, instead of each when its turn
            comes.
        similar_lengths: Make batches of examples of similar lengths, as ``LengthOrder`` does: by
            ``lengths``, or by how much of each ragged tensor is theirs.
        lengths: (N, D) by which they are then made, where these are known beforehand.

    Raises:
        DataError: If there are no examples.
        RecipeError: If the batch size is not a multiple of micro-batch x ranks.
    """
    if not examples:
        raise DataError(
            f"data ({context.split})", "there are no examples", "Check the data section"
        )
    assert in_memory or not similar_lengths or lengths is not None, "lengths are not known"
    take: _Take = _OnDemand(examples, context)
    order: RowOrder = OwnOrder(len(examples))
    if context.split == "train":
        order = KeyedOrder(len(examples), context.seed)
    # What is drawn anew each time cannot be kept.
    if in_memory and context.views is None:
        rows = context.encode(examples)
        take = _InMemory(rows)
        if similar_lengths and lengths is None:
            lengths = _lengths_of(rows, len(examples))
    if similar_lengths and lengths is not None:
        order = LengthOrder(lengths, context.batch_size, context.split, context.seed)
    return SampleStream(_Rows(take, order, context), Layout.of(context), context.workers)


def open_in_memory_if_small(
    examples: Sequence[Any], context: DataContext, in_memory: bool | Literal["auto"]
) -> SampleStream:
    """Open a split of examples, ``auto`` keeping their tensors up to 1 GiB; arguments and errors as
    ``open_indexed_stream``."""
    keep = in_memory
    if keep == "auto":
        # of one picture encoded: files say nothing of how large a resized one is
        one = context.encode(examples[:1])
        keep = len(examples) * sum(values.nbytes for values in one.values()) <= _FITS
    return open_indexed_stream(examples, context, in_memory=keep)


def _lengths_of(rows: Batch, count: int) -> NDArray[np.int64]:
    """Return (N, D) how many tokens each row has, of each of its texts."""
    found = [rows[offsets_of(name)].diff() for name in rows if offsets_of(name) in rows]
    if "lengths" in rows:
        found.append(rows["lengths"])
    # A task that tells no lengths gets its rows in a keyed order all the same.
    return torch.stack(found or [torch.zeros(count, dtype=torch.int64)], 1).numpy()


def _trim(batch: Batch) -> Batch:
    """Cut what is padded beyond the longest row."""
    if "lengths" not in batch:
        return batch
    # All examples are padded to the longest of all, a batch only to its own: recurrent models and
    # attention take time for padding too.
    longest = int(batch["lengths"].max())
    return {
        name: values[:, :longest] if name in _PADDED else values for name, values in batch.items()
    }
