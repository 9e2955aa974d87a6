"""What every data source keeps, tried on a recipe that uses it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.api import RecipeLike
from groundup.contracts.data import DataContext, DataSource, Refillable, Stream
from groundup.contracts.models import context_length_of
from groundup.contracts.processors import TextProcessor
from groundup.contracts.ragged import offsets_of, ragged_rows
from groundup.core.values import Batch, Split
from groundup.testing.failure import require, require_close
from groundup.testing.tasks import open_trainer
from groundup.training.components import experience_of, refill
from groundup.training.trainer import Trainer

__all__ = ["check_data"]

_STEPS = 3
Open = Callable[[DataContext], Stream]


def check_data(recipe: RecipeLike, overrides: Mapping[str, Any] | None = None) -> None:
    """Check that the data source of a recipe keeps what training, resuming and evaluating rely on.

    Each call of ``examples`` gives the same; no example is in two splits; batches are a function of
    the seed and their number alone, however they are cut into micro-batches and shared among
    processes; a stream goes on from where it was saved; training does not end, and validation does.

    Args:
        recipe: A recipe's file or its sections. Nothing is written to its runs.
        overrides: Changes of it, such as ``{"data.path": "small.txt"}``.

    Raises:
        ContractError: With the contract, what was found, and what to do.
        GroundupError: If the recipe itself cannot be run.
    """
    with (
        open_trainer(recipe, overrides) as trainer,
        tempfile.TemporaryDirectory() as folder,
    ):
        source = trainer.parts.source
        cache = Path(folder)
        _check_examples(source, cache)
        open_stream = partial(_open, trainer)
        for split in ("train", "validation"):
            context = _context_of(trainer, split, cache)
            _check_repeats(open_stream, context)
            _check_resume(open_stream, context)
        training = _context_of(trainer, "train", cache)
        _check_shares(open_stream, training)
        _check_ends(open_stream, training, _context_of(trainer, "validation", cache))


class _Refilled(Stream):
    """A stream whose rows weights make, asked for them as in training: by the same weights in all
    steps."""

    def __init__(self, trainer: Trainer, stream: Stream, context: DataContext) -> None:
        self._trainer = trainer
        self._stream = stream
        self._batches = context.batch_size // (context.micro_batch_size * context.world)
        self._held_out = context.split != "train"
        self._taken = 0

    def __next__(self) -> Batch:
        step, within = divmod(self._taken, self._batches)
        if not (within or (self._held_out and self._taken)):
            refill(self._stream, self._trainer.model, step, self._trainer.recipe.machine)
        self._taken += 1
        return next(self._stream)

    @property
    def samples_per_epoch(self) -> int:
        return self._stream.samples_per_epoch

    def state_dict(self) -> dict[str, Any]:
        state = {"stream": self._stream.state_dict(), "taken": self._taken}
        return {**state, "experience": experience_of(self._stream)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._taken = state["taken"]
        self._stream.load_state_dict(state["stream"])
        if isinstance(self._stream, Refillable):
            self._stream.load_buffer(state["experience"])

    def close(self) -> None:
        self._stream.close()


def _open(trainer: Trainer, context: DataContext) -> Stream:
    stream = trainer.parts.source.open(context)
    return _Refilled(trainer, stream, context) if isinstance(stream, Refillable) else stream


def _context_of(trainer: Trainer, split: Split, cache: Path) -> DataContext:
    task = trainer.task
    processor = trainer.parts.processor
    size = trainer.recipe.training.batch_size
    return DataContext(
        split=split,
        encode=lambda examples: task.encode(examples, processor),
        encode_key="check",
        end_id=processor.end_id if isinstance(processor, TextProcessor) else 0,
        sequence_length=context_length_of(trainer.recipe.model),
        batch_size=size,
        micro_batch_size=size,
        seed=trainer.recipe.seed,
        cache=cache,
    )


def _check_examples(source: DataSource, cache: Path) -> None:
    splits = source.splits()
    require(
        {"train", "validation"} <= set(splits),
        "there are a training and a validation split",
        f"splits() gives {', '.join(splits)}",
        "Hold some examples out; see groundup.data.splitting",
    )
    # Examples have no order and some hold arrays, so they are compared as they are written. A name
    # is part of that: two rows that say the same are no leak by themselves.
    seen: dict[str, Split] = {}
    for split in splits:
        found = [repr(example) for example in source.examples(split, cache)]
        again = [repr(example) for example in source.examples(split, cache)]
        require(
            bool(found),
            "every split has examples",
            f"{split} has none",
            "Give the source more data, or leave the split out of splits()",
        )
        require(
            found == again,
            "each call of examples() gives the same examples in the same order",
            f"two calls for {split} differ",
            "Draw from a generator with a seed, sort what a folder lists, and keep no state",
        )
        for example in found:
            require(
                seen.get(example, split) == split,
                "no example is in two splits",
                f"{example[:80]} is in {seen.get(example)} and {split}",
                "Split by a hash of the example's name, as groundup.data.splitting does",
            )
            seen[example] = split


def _take(open_stream: Open, context: DataContext, batches: int) -> list[Batch]:
    with closing(open_stream(context)) as stream:
        return list(islice(stream, batches))


def _require_same(found: list[Batch], wanted: list[Batch], contract: str, remedy: str) -> None:
    require(
        len(found) == len(wanted),
        contract,
        f"{len(found)} batches in place of {len(wanted)}",
        remedy,
    )
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        require(one.keys() == other.keys(), contract, f"batch {number} has other keys", remedy)
        for key, values in one.items():
            what = f"{key!r} of batch {number}"
            require_close(values, other[key], 0.0, contract, what, remedy)


def _check_repeats(open_stream: Open, context: DataContext) -> None:
    _require_same(
        _take(open_stream, context, _STEPS),
        _take(open_stream, context, _STEPS),
        f"the same seed gives the same batches of {context.split}",
        "Let sample n be a function of (seed, n): open_indexed_stream and open_token_stream do it",
    )


def _check_resume(open_stream: Open, context: DataContext) -> None:
    # A state is read after the first batch: one of a stream that has given nothing yet is right
    # even where state_dict counts wrongly.
    with closing(open_stream(context)) as stream:
        next(stream)
        # A copy: a stream may return the dictionary that it goes on counting in.
        state = dict(stream.state_dict())
        wanted = list(islice(stream, 2))
    # A new stream, as after a restart: workers of the old one may have prepared batches ahead.
    with closing(open_stream(context)) as other:
        other.load_state_dict(state)
        _require_same(
            list(islice(other, 2)),
            wanted,
            f"a stream of {context.split} goes on from where it was saved",
            "Count in state_dict what was delivered, not what was prepared",
        )


def _samples(stream: Stream, batches: int) -> list[Any]:
    """Return the rows of the model's first input, as plain values."""
    found: list[Any] = []
    for batch in islice(stream, batches):
        # tokens of rows or whatever comes first: boundaries of packed rows are numbers of a batch
        key = next(key for key in ("tokens", "inputs", *batch) if key in batch)
        if offsets_of(key) in batch:
            found += [row.tolist() for row in ragged_rows(batch, key)]
        else:
            found += batch[key].tolist()
    return found


def _check_shares(open_stream: Open, context: DataContext) -> None:
    """Compare one process with whole batches to two processes with micro-batches of one sample."""
    contract = "samples do not depend on micro-batches and processes"
    remedy = "Take them in the order of DataContext, as the streams of groundup.data.stream do"
    # This is what lets a run go on with other micro-batches or another number of processes, as when
    # a machine has less memory than the one before.
    size = context.batch_size
    with closing(open_stream(context)) as stream:
        wanted = _samples(stream, 1)
    for world in (1, 2):
        if size % world:
            continue
        shares = []
        for rank in range(world):
            part = replace(context, micro_batch_size=1, rank=rank, world=world)
            with closing(open_stream(part)) as stream:
                shares.append(_samples(stream, size // world))
        # Micro-batch k of rank r holds sample k * world + r, so the ranks' rows alternate.
        found = [row for rows in zip(*shares, strict=True) for row in rows]
        # Rows of texts are padded to the longest of their micro-batch.
        same = all(_same_row(one, other) for one, other in zip(found, wanted, strict=True))
        what = f"micro-batches of one, shared by {world}," if world > 1 else "micro-batches of one"
        require(same, contract, f"{what} hold other samples", remedy)


def _same_row(one: Any, other: Any) -> bool:
    if not isinstance(one, list) or not isinstance(other, list):
        return bool(one == other)
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def _check_ends(open_stream: Open, training: DataContext, held_out: DataContext) -> None:
    with closing(open_stream(training)) as stream:
        # One batch more than an epoch: a stream that ends with it would stop a run of many epochs.
        epoch = stream.samples_per_epoch
        steps = epoch // training.batch_size + 1
        require(
            len(list(islice(stream, steps))) == steps,
            "a training stream never ends",
            f"it ended within {steps} batches, an epoch and one more",
            "Begin the next epoch, in another order",
        )
    with closing(open_stream(held_out)) as stream:
        # Held-out data are measured whole: a stream that never ends would make evaluation endless.
        most = stream.samples_per_epoch // held_out.batch_size + 2
        require(
            len(list(islice(stream, most))) < most,
            "a validation stream ends after one pass",
            f"it gave {most} batches of {held_out.batch_size}",
            "Raise StopIteration after the last one",
        )
