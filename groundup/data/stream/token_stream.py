"""From examples to micro-batches: tokenized shards, rows planned per epoch, delivered in the order
of the run."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.contracts.data import Augment, DataContext
from groundup.core import seeding
from groundup.core.error_location import name_of, origin_of
from groundup.core.errors import DataError
from groundup.core.values import IGNORED, Batch, TokenSequence
from groundup.data.stream.packing import Packing, Plan, pieces_per_row, plan_rows
from groundup.data.stream.permutation import permute
from groundup.data.stream.sample_stream import Layout, MicroBatches, SampleStream
from groundup.data.stream.shard_writer import prepare_shards
from groundup.data.stream.shards import FORMAT, Shards

__all__ = ["open_token_stream", "stream_of_shards", "tokens_folder"]

_log = logging.getLogger("groundup")


@dataclass
class _Epochs:
    """The plan of each epoch and where its samples begin. All of it follows from the lengths and
    the seed.

    Where cuts move between epochs, so does the number of rows; then epoch e begins after the rows
    of epochs 0 .. e - 1, which are planned to be counted. Otherwise every epoch has as many rows as
    the first.
    """

    lengths: NDArray[np.int64]
    layout: Layout
    packing: Packing
    masked: bool
    starts: list[int] = field(default_factory=lambda: [0])  # the first sample of epochs 0, 1, ...
    plans: dict[int, Plan] = field(default_factory=dict)  # the two used last
    varies: bool = False  # whether the number of rows differs between epochs

    def plan(self, epoch: int, name: Callable[[int], str] = str) -> Plan:
        """Return the plan of an epoch."""
        if epoch not in self.plans:
            layout = self.layout
            key = seeding.key(layout.seed, "plan", epoch)
            plan = plan_rows(
                self.lengths,
                layout.sequence_length,
                key,
                self.packing,
                layout.split,
                masked=self.masked,
                name=name,
            )
            # two, because a batch may hold the last rows of one epoch and the first of the next
            while len(self.plans) > 1:
                self.plans.pop(next(iter(self.plans)))
            self.plans[epoch] = plan
        return self.plans[epoch]

    def locate(self, sample: int) -> tuple[int, int]:
        """Return the epoch that a sample belongs to and its number within that epoch."""
        if len(self.starts) == 1:
            first = self.plan(0)
            self.starts.append(first.rows)
            self.varies = first.varies
        # validation is one pass: its rows have no epochs
        if self.layout.split != "train":
            return 0, sample
        if not self.varies:
            return divmod(sample, self.starts[1])
        while self.starts[-1] <= sample:
            self.starts.append(self.starts[-1] + self.plan(len(self.starts) - 1).rows)
        epoch = bisect.bisect_right(self.starts, sample) - 1
        return epoch, sample - self.starts[epoch]

    def pieces(self, first: int, count: int) -> list[tuple[Plan, range]]:
        """Return, for each of ``count`` samples from ``first`` on, its plan and the pieces that
        make its row.

        There are none beyond the end of a validation split.
        """
        found: list[tuple[Plan, range]] = []
        located = [self.locate(sample) for sample in range(first, first + count)]
        for epoch, group in itertools.groupby(located, key=lambda place: place[0]):
            plan = self.plan(epoch)
            rows = np.array([index for _, index in group])
            if self.layout.split == "train":
                rows = permute(rows, plan.rows, seeding.key(self.layout.seed, "rows", epoch))
            # beyond the last row both edges are the same, and the row is empty
            edges = plan.row_starts[np.minimum(np.stack((rows, rows + 1)), plan.rows)]
            found += [(plan, range(begin, end)) for begin, end in edges.T.tolist()]
        return found


class _MicroBatches(MicroBatches):
    """Micro-batch ``number`` of one rank, computed from the number alone; used in this process or
    in a worker."""

    def __init__(
        self,
        shards: Shards,
        epochs: _Epochs,
        layout: Layout,
        max_pieces: int,
        augment: Augment | None,
    ) -> None:
        self.shards = shards
        self.epochs = epochs
        self.layout = layout
        self.augment = augment
        # of one size in every batch, for compiled models; each row may end with a piece of padding
        self.boundaries = layout.micro_batch_size * (max_pieces + 1) + 1

    def __getitem__(self, number: int) -> Batch:
        rows = self.layout.micro_batch_size
        width = self.layout.sequence_length
        tokens = np.full((rows, width), self.layout.end_id, dtype=np.int64)
        targets = np.full((rows, width), IGNORED, dtype=np.int64)
        # counted again in each piece: packing must change speed, not what is learned
        positions = np.empty((rows, width), dtype=np.int64)
        boundaries = np.full(self.boundaries, rows * width, dtype=np.int32)
        count = 0
        for row, (plan, pieces) in enumerate(
            self.epochs.pieces(self.layout.first_sample(number), rows)
        ):
            filled = 0
            for length in self._fill_row(plan, pieces, tokens[row], targets[row]):
                boundaries[count] = row * width + filled
                positions[row, filled : filled + length] = np.arange(length)
                filled += length
                count += 1
        batch = {
            "tokens": torch.from_numpy(tokens),
            "targets": torch.from_numpy(targets),
            "positions": torch.from_numpy(positions),
            "boundaries": torch.from_numpy(boundaries),
        }
        if self.augment is None:
            return batch
        samples = self.layout.first_sample(number) + np.arange(rows)
        return self.augment(batch, samples, lambda which=0: batch)

    def samples_per_epoch(self, sample: int) -> int:
        """Return the rows in one pass over the data: of the epoch that a sample is in, where epochs
        differ."""
        epoch = 0
        if self.layout.split == "train":
            epoch, _ = self.epochs.locate(sample)
        return self.epochs.plan(epoch).rows

    def counts(self) -> dict[str, int]:
        """Return the documents, the tokens of them that are used, and those of the longest."""
        lengths = self.epochs.lengths
        longest = int(lengths.max(initial=0))
        return {"documents": len(lengths), "tokens": int(lengths.sum()), "longest": longest}

    def _fill_row(
        self, plan: Plan, pieces: range, tokens: NDArray[np.int64], targets: NDArray[np.int64]
    ) -> list[int]:
        """Write one row and return the lengths of its pieces, the padding as the last one."""
        lengths: list[int] = []
        filled = 0
        for piece in pieces:
            document = int(plan.document[piece])
            start = int(plan.start[piece])
            length = int(plan.length[piece])
            unscored = int(plan.first_scored[piece])
            # one token more than is fed: the last prediction needs it
            sequence, trained = self.shards.read(document, start, start + length + 1)
            tokens[filled : filled + length] = sequence[:-1]
            scored = sequence[1 + unscored :]
            if trained is not None:
                scored = np.where(trained[1 + unscored :], scored, np.int64(IGNORED))
            targets[filled + unscored : filled + length] = scored
            filled += length
            lengths.append(length)
        if filled < len(tokens):  # padding is a piece of its own, which no text attends to
            lengths.append(len(tokens) - filled)
        return lengths


def open_token_stream(
    examples: Callable[[], Iterable[Any]], source_key: str, context: DataContext, packing: Packing
) -> SampleStream:
    """Open a split as packed micro-batches, tokenizing it first if its tokens are not in the cache.

    With B = ``context.micro_batch_size``, T = ``context.sequence_length`` and N = B x (most pieces
    a row + 1) + 1, a batch holds ``tokens``, ``targets``, ``positions`` int64 (B, T) and
    ``boundaries`` int32 (N,). Training never ends, every epoch in another order; validation comes
    in the order of the plan, ends, and fills its last batch with empty rows.

    Args:
        examples: Gives the raw examples of the split, the same ones in the same order at each call.
        source_key: Changes whenever ``examples`` would give others.
        context: What the task and the trainer ask for.
        packing: How documents become rows.

    Raises:
        DataError: If there are no examples, nothing to train on, or an example that is too long.
        RecipeError: If the batch size is not a multiple of micro-batch x ranks.
    """
    shards = prepare_shards(tokens_folder(source_key, context), examples, context.encode)
    return stream_of_shards(shards, examples, context, packing)


def stream_of_shards(
    shards: Shards,
    examples: Callable[[], Iterable[Any]],
    context: DataContext,
    packing: Packing,
) -> SampleStream:
    """Return tokens that are there as packed micro-batches; see ``open_token_stream``."""
    layout = Layout.of(context)
    name = partial(_name_example, examples)
    lengths, dropped, truncated = _usable_lengths(shards, context, packing, name)
    epochs = _Epochs(lengths, layout, packing, shards.masked)
    plan = epochs.plan(0, name)
    dropped += plan.dropped
    truncated += plan.truncated
    if not shards.trained_tokens or not plan.rows:
        raise DataError(
            f"data ({context.split})",
            f"there is nothing to train on: {len(shards)} examples with {shards.tokens} tokens,"
            f" {shards.trained_tokens} of them trained on, {dropped} examples dropped as too long"
            + (f", the first of them {name(0)}" if dropped == len(shards) > 0 else ""),
            "Check the task, the template and too_long",
        )
    if dropped or truncated:
        _log.warning(
            "%s: of %d examples %d were dropped and %d truncated, being longer than the context"
            " of %d",
            context.split,
            len(shards),
            dropped,
            truncated,
            context.sequence_length,
        )
    pieces = pieces_per_row(context.sequence_length, packing)
    batches = _MicroBatches(shards, epochs, layout, pieces, context.augment)
    return SampleStream(batches, layout, context.workers)


def tokens_folder(source_key: str, context: DataContext) -> Path:
    """Return where the tokens of a split are kept."""
    # All that the tokens depend on, and nothing else: runs with other models share them.
    identity = json.dumps([FORMAT, source_key, context.encode_key, context.split])
    return context.cache / "tokens" / hashlib.sha256(identity.encode()).hexdigest()[:20]


def _usable_lengths(
    shards: Shards, context: DataContext, packing: Packing, name: Callable[[int], str]
) -> tuple[NDArray[np.int64], int, int]:
    """Return (D,) how many tokens of each document are used, and how many documents are too long:
    left out, and cut.

    Raises:
        DataError: If a document has nothing to train on, and that is an error.
    """
    lengths = shards.lengths
    # where nothing at all is trained on, the caller has an error that fits better
    if shards.untrained and shards.trained_tokens:
        if packing.on_fully_masked == "error":
            more = ""
            if len(shards.untrained) > 1:
                more = f" ({len(shards.untrained) - 1} more examples likewise)"
            raise DataError(
                name(shards.untrained[0]),
                f"none of its {lengths[shards.untrained[0]]} tokens is trained on{more}",
                "Fix or remove the example, or leave such ones out:"
                " data.packing.on_fully_masked=drop",
            )
        lengths[shards.untrained] = 0
        _log.warning(
            "%s: %d of %d examples have nothing to train on: left out",
            context.split,
            len(shards.untrained),
            len(shards),
        )
    if packing.too_long != "truncate" or not shards.masked:
        return lengths, 0, 0
    # one more than fits, because a row feeds all tokens but its last
    long = np.flatnonzero(lengths > context.sequence_length + 1)
    for document in long:
        tokens, trained = shards.read(int(document), 0, int(lengths[document]))
        known = trained.astype(np.bool_) if trained is not None else None
        whole = TokenSequence(tokens, known).end_of_whole_answers(context.sequence_length + 1)
        lengths[document] = whole
    left_out = int((lengths[long] == 0).sum())
    return lengths, left_out, len(long) - left_out


def _name_example(examples: Callable[[], Iterable[Any]], number: int) -> str:
    """Return what to call example ``number``: where it was read, or its name, or just its
    number."""
    example = next(itertools.islice(examples(), number, None), None)
    if known := origin_of(example) or name_of(example):
        return f"{known} (example {number})"
    return f"example {number}"
