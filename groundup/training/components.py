"""The live parts of a run, and its batches."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contracts.data import (
    DataContext,
    DataSource,
    DrawsViews,
    Partners,
    Refillable,
    Stream,
)
from groundup.contracts.models import context_length_of
from groundup.contracts.processors import Processor, TextProcessor
from groundup.contracts.tasks import Task
from groundup.core.error_location import encode_located
from groundup.core.errors import DataError, RunError
from groundup.core.values import Batch, Split
from groundup.machine import devices
from groundup.recipe.sections import Machine
from groundup.runs.checkpoint import Checkpoint
from groundup.runs.processor import add_files, cache_folder
from groundup.runs.run import Run
from groundup.training.distillation import Teacher
from groundup.weights.restore import FrozenWeightsRef

__all__ = [
    "Components",
    "Gradients",
    "Processes",
    "Saver",
    "encode_with",
    "experience_of",
    "first_batches",
    "held_out_samples",
    "move_batch",
    "open_stream",
    "refill",
    "restore_stream",
    "take_batch",
]


class Gradients(Protocol):
    """Adds up what the micro-batches of a step, on all processes, say of the weights."""

    def collect(self) -> None:
        """Take note of a micro-batch that was back-propagated."""

    def add_up(self) -> None:
        """Replace every gradient by the sum over the whole step."""

    def norm(self) -> float:
        """Return the norm of all gradients of the model, once they are added up."""


class Processes(Protocol):
    """The processes that train a run together, as the loop sees them; one of them, mostly.

    All call the same methods in the same order. Errors name whoever does not answer.
    """

    size: int
    place: str
    """What this process is doing, for errors."""

    @property
    def data_rank(self) -> int:
        """Which part of every batch this process computes; others may compute it with it."""

    @property
    def data_size(self) -> int:
        """Into how many parts a batch is divided."""

    @property
    def joins_micro_batches(self) -> bool:
        """Whether the micro-batches of a step come as one batch."""

    def join_micro_batches(self, stream: Stream, number: int) -> Stream:
        """Return a stream of so many micro-batches a step as the steps take them."""

    @property
    def shares_layers(self) -> bool:
        """Whether processes with other samples need each other to compute a layer."""

    def gather(self, value: Any, what: str) -> list[Any]:
        """Return what each process gives, in their order: whatever JSON can say."""

    def gather_parts(self, value: Any, what: str) -> list[Any]:
        """Return what is said of each part of a batch, once, whoever computes it together."""

    def first(self, action: Callable[[], Any], what: str) -> Any:
        """Let the first process do something, and wait for it; the others get None."""

    def refuse_differences(self, name: str, value: str) -> None:
        """Make sure that all processes have the same of something."""

    def whole(
        self, tensors: Mapping[str, Tensor], *, shared_out: bool = False
    ) -> dict[str, Tensor]:
        """Return the model's whole tensors by name from what each process has of them, to all, or
        each to the one that writes it."""

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return of whole tensors by name what this process has."""

    def fit(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what this process has of a model's tensors, as ``load_state_dict`` takes it."""

    def trained(self, model: nn.Module) -> list[tuple[str, nn.Parameter]]:
        """Return what this process has of the parameters that are trained, by name."""

    def whole_model(self, model: nn.Module) -> AbstractContextManager[nn.Module]:
        """Return the context of a model with all of its parameters, to predict with."""

    def gradients(
        self, parameters: Sequence[nn.Parameter], *, exact: bool, micro_batches: int
    ) -> Gradients:
        """Return what adds up the gradients of these, with ``exact`` in the samples' order."""


class Saver(Protocol):
    """Writes the checkpoints of a run. All processes call the same methods in the same order, but
    for ``check`` and ``close``."""

    def save(
        self, checkpoint: Checkpoint, keep: int, best: int | None = None, *, wait: bool = True
    ) -> None:
        """Write a checkpoint, and wait until that is done, or let training go on."""

    def check(self) -> None:
        """Raise what went wrong with a checkpoint that was written meanwhile."""

    def newest_intact(self) -> int | None:
        """Return the step of the newest checkpoint that verifies, once what was left is removed."""

    def close(self) -> None:
        """Let what is being written come to its end."""


@dataclass(frozen=True)
class Components:
    """The live parts of a run.

    Attributes:
        model: On the run's device.
        source: The data, completed by the task.
        base: What a run with an adapter neither trains nor saves.
        world: The processes that train it.
        saver: Writes its checkpoints.
        teacher: The model that this one learns from, if any.
        share: Returns what this process computes of an objective; the whole of it, mostly.
    """

    model: nn.Module
    task: Task
    processor: Processor
    source: DataSource
    base: FrozenWeightsRef
    world: Processes
    saver: Saver
    teacher: Teacher | None = None
    share: Callable[[Any], Any] = lambda objective: objective

    def take_own(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return of a checkpoint, which holds whole tensors, what this process has of them."""
        model, moments = map(self.world.own, (checkpoint.model, checkpoint.optimizer))
        return replace(checkpoint, model=model, optimizer=moments)


def held_out_samples(run: Run, batches: int | None) -> int | None:
    """Return how many samples a validation on so many micro-batches reads, on any number of
    processes; None: all."""
    if batches is None:
        return None
    recipe = run.recipe
    asked = (run.read_json("requested.json") or {}).get("machine", {})
    # Where it was left open, one process takes the whole batch at once, and several a part each.
    if asked.get("micro_batch_size") == "auto":
        return batches * recipe.training.batch_size
    return batches * recipe.machine.settled_micro_batch_size


def encode_with(
    task: Task, processor: Processor, folder: Path
) -> tuple[Callable[[Sequence[Any]], Any], str]:
    """Return what encodes examples, and a key that changes with what it gives.

    Args:
        task: The run's.
        processor: The run's.
        folder: Where the processor is saved.
    """
    # Prepared shards are shared by runs: what encodes them must be in their name.
    digest = hashlib.sha256(task.model_dump_json().encode() + task.registered_name.encode())
    add_files(digest, folder)

    def encode(examples: Sequence[Any]) -> Any:
        return encode_located(lambda some: task.encode(some, processor), examples)

    return encode, digest.hexdigest()[:16]


def open_stream(run: Run, parts: Components, split: Split, *, alone: bool = False) -> Stream:
    """Return the micro-batches of a split as the run's recipe orders them: those of this process,
    or with ``alone`` those of all."""
    recipe = run.recipe
    task = parts.task
    processor = parts.processor
    encode, encode_key = encode_with(task, processor, run.folder / "processor")

    def augment(batch: Batch, samples: NDArray[np.int64], partners: Partners) -> Batch:
        # A fixed seed for held-out examples, so that runs with other seeds are validated on the
        # same.
        return task.augment(
            batch, samples, partners, processor, recipe.seed if split == "train" else -1
        )

    views = None
    if split == "train" and isinstance(task, DrawsViews):
        views = task.views(recipe.seed)
    changed = task.augments and (split == "train" or task.augments_held_out)

    context = DataContext(
        split=split,
        encode=encode,
        encode_key=encode_key,
        end_id=processor.end_id if isinstance(processor, TextProcessor) else 0,
        sequence_length=context_length_of(recipe.model),
        batch_size=recipe.training.batch_size,
        micro_batch_size=recipe.machine.settled_micro_batch_size,
        seed=recipe.seed,
        cache=cache_folder(),
        workers=recipe.machine.workers if split == "train" else 0,
        augment=augment if changed else None,
        views=views,
    )
    if not alone:
        context = replace(context, rank=parts.world.data_rank, world=parts.world.data_size)
    stream = parts.source.open(context)
    if alone or split != "train":
        return stream
    number = context.batch_size // (context.world * context.micro_batch_size)
    return parts.world.join_micro_batches(stream, number)


@torch.no_grad()
def refill(
    stream: Stream, model: nn.Module, step: int, machine: Machine, world: Processes | None = None
) -> None:
    """Let a stream whose examples are made by the current weights make those of a step."""
    if isinstance(stream, Refillable):
        training = model.training
        # What is dropped in training would be missing from the examples, too.
        model.eval()
        whole = contextlib.nullcontext(model) if world is None else world.whole_model(model)
        with devices.eager(machine), devices.autocast(machine), whole as asked:
            stream.refill(asked, step)
        model.train(training)


def experience_of(stream: Stream) -> dict[str, Tensor]:
    """Return what a checkpoint holds of a stream besides its state."""
    if not isinstance(stream, Refillable):
        return {}
    return {name: each.detach().cpu().contiguous() for name, each in stream.buffer().items()}


def restore_stream(run: Run, stream: Stream, checkpoint: Checkpoint) -> None:
    """Let a stream go on from where a checkpoint was saved.

    Raises:
        RunError: If the data is not what the checkpoint was trained on.
    """
    stream.load_state_dict(checkpoint.state["stream"])
    if isinstance(stream, Refillable):
        stream.load_buffer(checkpoint.experience)
    elif checkpoint.experience:
        problem = "its checkpoint holds examples that weights made, but the data makes none now"
        remedy = "Restore the data and the task, or start a new run with init.run"
        raise RunError(str(run.folder), problem, remedy)
    there = checkpoint.state["samples_per_epoch"]
    here = stream.samples_per_epoch
    if there != here:
        problem = f"the data has changed: an epoch had {there} samples, but has {here} now"
        remedy = "Restore the data, or start a new run with init.run"
        raise RunError(str(run.folder), problem, remedy)


def take_batch(stream: Stream) -> Batch:
    """Return the next micro-batch of a training stream, which has no end.

    Raises:
        DataError: If it has one.
    """
    try:
        return next(stream)
    except StopIteration:
        # It would end the loop as if all steps were done, on this process alone.
        came = stream.state_dict().get("samples", "some")
        raise DataError(
            "training data",
            f"ended after {came} samples, but has to begin again for as long as a run takes",
            "Let the stream of the data begin its next pass",
        ) from None


def move_batch(batch: Batch, machine: Machine, device: torch.device) -> Batch:
    """Return a batch on a device, its numbers in float64 where the weights are."""
    # Tasks make float32, which weights in float64 cannot be multiplied with.
    if machine.precision == "fp64":
        batch = {k: x.double() if x.is_floating_point() else x for k, x in batch.items()}
    if device.type == "cpu":
        return batch
    # Not waited for: the copy overlaps with the step before, where the memory is pinned.
    return {key: value.to(device, non_blocking=True) for key, value in batch.items()}


def first_batches(run: Run, parts: Components, samples: int | None = None) -> Iterator[Batch]:
    """Yield the run's first training micro-batches, on its device: an epoch, at most 200.

    Args:
        run: Whose.
        parts: What it is made of.
        samples: Yield those of the first whole steps that have so many, or an epoch: the same
            samples, whatever the size of the micro-batches.
    """
    device = torch.device(run.recipe.machine.device)
    micro_batch_size = run.recipe.machine.settled_micro_batch_size
    # On each process the same ones: what they are looked at for is to be the same everywhere.
    with contextlib.closing(open_stream(run, parts, "train", alone=True)) as stream:
        number = min(math.ceil(stream.samples_per_epoch / micro_batch_size), 200)
        if samples is not None:
            batch_size = run.recipe.training.batch_size
            steps = math.ceil(min(stream.samples_per_epoch, samples) / batch_size)
            number = steps * batch_size // micro_batch_size
        per_step = run.recipe.training.batch_size // micro_batch_size
        for place in range(number):
            if place % per_step == 0:
                step = place // per_step
                refill(stream, parts.model, step, run.recipe.machine, parts.world)
            yield move_batch(next(stream), run.recipe.machine, device)
