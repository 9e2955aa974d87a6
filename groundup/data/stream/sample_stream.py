"""Micro-batches in the order of the run, each computed from its number alone, here or in
workers."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from groundup.contracts.data import DataContext, Stream
from groundup.core.errors import CheckpointError, GroundupError, RecipeError, TrainingError
from groundup.core.values import Batch, Split

__all__ = ["Layout", "MicroBatches", "SampleStream"]

_WATCH_S = 0.5
_AHEAD = 2  # micro-batches that are read before they are needed


class Layout(NamedTuple):
    """How samples are shared out; see ``DataContext``."""

    split: Split
    end_id: int
    sequence_length: int
    micro_batch_size: int
    seed: int
    rank: int
    world: int

    @classmethod
    def of(cls, context: DataContext) -> Layout:
        """Return the layout that a context asks for.

        Raises:
            RecipeError: If the batch size is not a multiple of micro-batch x ranks.
        """
        if context.batch_size % (context.micro_batch_size * context.world):
            raise RecipeError(
                "batch size",
                f"{context.batch_size} is not a multiple of micro-batch"
                f" {context.micro_batch_size} x ranks {context.world}",
                "Change one of them",
            )
        return cls(
            context.split,
            context.end_id,
            context.sequence_length,
            context.micro_batch_size,
            context.seed,
            context.rank,
            context.world,
        )

    def first_sample(self, number: int) -> int:
        """Return the first sample of this rank's micro-batch ``number``, counted from the start of
        the run.

        A step is a whole number of micro-batches of every rank, so the formula of ``DataContext``
        needs no step.
        """
        return (number * self.world + self.rank) * self.micro_batch_size


class MicroBatches(Dataset[Batch], ABC):
    """Micro-batch ``number`` of one rank, computed from the number alone; used in this process or
    in a worker.

    Attributes:
        reads_files: Whether making one takes the time of reading files, so that the next are made
            while the model computes.
    """

    reads_files: bool = False

    @abstractmethod
    def __getitem__(self, number: int) -> Batch: ...

    @abstractmethod
    def samples_per_epoch(self, sample: int) -> int:
        """Return how many samples the epoch has in which sample number ``sample`` of the run
        is."""

    def counts(self) -> dict[str, int]:
        """Return what ``Stream.counts`` does."""
        return {}


@dataclass(frozen=True)
class _Numbers:
    """The numbers of the micro-batches to come."""

    start: int
    stop: int | None

    def __iter__(self) -> Iterator[int]:
        if self.stop is None:
            return itertools.count(self.start)
        return iter(range(self.start, self.stop))


class SampleStream(Stream):
    """Micro-batches without end in training, once through in validation. The state is how many
    samples came."""

    def __init__(self, batches: MicroBatches, layout: Layout, workers: int) -> None:
        self.batches = batches
        self._layout = layout
        self._workers = workers
        self._samples = 0  # delivered by all ranks together
        self._iterator: Iterator[Batch | _Failure] | None = None
        self._share = (
            layout.micro_batch_size * layout.world
        )  # samples that all ranks deliver at a time

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = self._start_iterator()
        # counted once delivered: what workers have prefetched is made again after a resume
        batch = self._take_next(self._iterator)
        self._samples += self._share
        return batch

    def _take_next(self, iterator: Iterator[Batch | _Failure]) -> Batch:
        """Return the next batch; what went wrong with it in a worker is raised here as it was
        there.

        Raises:
            TrainingError: If a worker's process was killed.
        """
        try:
            batch = next(iterator)
        except RuntimeError as error:
            # the loader has no error of its own for this: only the words tell
            if "DataLoader worker" not in str(error):
                raise
            raise TrainingError(
                "data workers",
                "a worker's process was killed, perhaps because memory ran out",
                "Lower machine.workers, and start the same command again: the run goes on from its"
                " last checkpoint",
            ) from None
        if isinstance(batch, _Failure):
            self.close()
            raise batch.error
        return batch

    def _start_iterator(self) -> Iterator[Batch | _Failure]:
        stop = None
        if self._layout.split != "train":  # the last batch may be partly empty: rounded up
            stop = -(-self.samples_per_epoch // self._share)
        numbers = _Numbers(self._samples // self._share, stop)
        if not self._workers:  # a loader would only add its own time
            if self.batches.reads_files and stop is None:
                return _read_ahead(self.batches, numbers)
            return map(self.batches.__getitem__, numbers)
        # whole micro-batches by number: the loader neither shuffles nor collates
        loader: DataLoader[Batch | _Failure] = DataLoader(
            _Reporting(self.batches),
            batch_size=None,
            sampler=numbers,
            num_workers=self._workers,
            worker_init_fn=_start_worker,
            # the loader draws a seed; not from the generator of the run
            generator=torch.Generator(),
        )
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # else each fork prints a warning
        return iter(loader)

    @property
    def samples_per_epoch(self) -> int:
        """Samples in one pass over the data: of the epoch that the cursor is in, where epochs
        differ."""
        return self.batches.samples_per_epoch(self._samples)

    def counts(self) -> dict[str, int]:
        """Return what else can be counted in one pass."""
        return self.batches.counts()

    def state_dict(self) -> dict[str, int]:
        """Return ``{"samples": n}``: how many samples all ranks together have delivered."""
        return {"samples": self._samples}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after ``state["samples"]`` samples.

        Raises:
            CheckpointError: If that is within a micro-batch of this layout.
        """
        # samples, not batches: so a run may go on with another micro-batch or number of ranks
        if state["samples"] % self._share:
            raise CheckpointError(
                "data cursor",
                f"{state['samples']} samples are no multiple of micro-batch x ranks ="
                f" {self._share}",
                "Resume from the end of a step, or with the micro-batch of before",
            )
        self.close()
        self._samples = state["samples"]

    def close(self) -> None:
        """Stop the workers; the next batch would start them again."""
        iterator, self._iterator = self._iterator, None
        if isinstance(iterator, Generator):
            iterator.close()


def _read_ahead(batches: MicroBatches, numbers: Iterable[int]) -> Iterator[Batch]:
    """Yield micro-batches in order, the next ones being read in a thread meanwhile.

    What is wrong with one is raised when its turn comes, as without reading ahead.
    """
    waiting: deque[Future[Batch]] = deque()
    # One thread: decoding has threads of its own, and what is next comes first.
    with ThreadPoolExecutor(1, "read-ahead") as thread:
        try:
            for number in numbers:
                waiting.append(thread.submit(batches.__getitem__, number))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()


@dataclass(frozen=True)
class _Failure:
    """What a worker hands over instead of a batch; a loader would make another error of it, with a
    traceback."""

    error: Exception


class _Reporting(Dataset[Batch | _Failure]):
    """Micro-batches, or what is wrong with the data they are made of."""

    def __init__(self, batches: MicroBatches) -> None:
        self.batches = batches

    def __getitem__(self, number: int) -> Batch | _Failure:
        try:
            return self.batches[number]
        except (GroundupError, OSError) as error:
            return _Failure(error)


def _start_worker(worker: int) -> None:
    torch.set_num_threads(
        1
    )  # as many workers as there are cores would else get in each other's way
    threading.Thread(target=_end_with_trainer, args=(os.getppid(),), daemon=True).start()


def _end_with_trainer(parent: int) -> None:
    """End this process soon after the one that reads its batches, even where that one was
    killed."""
    # A killed process ends none of its children, and a worker would wait for its queue for ever.
    # Asked twice: of a fork server's children the parent is the server, which lives as long as
    # they do; and a forked worker may hold open the pipe by which an earlier one is told.
    trainer = multiprocessing.parent_process()
    assert trainer is not None
    while trainer.is_alive() and os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(1)
