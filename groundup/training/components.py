"""The live parts of a run, and its batches."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

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
from groundup.core.values import Batch, Split
from groundup.recipe.sections import Machine
from groundup.runs.processor import add_files, cache_folder
from groundup.runs.run import Run
from groundup.training.distillation import Teacher
from groundup.weights.restore import FrozenWeightsRef

__all__ = ["Components", "first_batches", "move_batch", "open_stream", "refill"]


@dataclass(frozen=True)
class Components:
    """The live parts of a run.

    Attributes:
        model: On the run's device.
        source: The data, completed by the task.
        base: What a run with an adapter neither trains nor saves.
        teacher: The model that this one learns from, if any.
    """

    model: nn.Module
    task: Task
    processor: Processor
    source: DataSource
    base: FrozenWeightsRef
    teacher: Teacher | None = None


def open_stream(run: Run, parts: Components, split: Split) -> Stream:
    """Return the micro-batches of a split as the run's recipe orders them."""
    recipe = run.recipe
    task = parts.task
    processor = parts.processor
    # Prepared shards are shared by runs: what encodes them must be in their name.
    digest = hashlib.sha256(task.model_dump_json().encode() + task.registered_name.encode())
    add_files(digest, run.folder / "processor")

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
        encode=lambda examples: encode_located(lambda some: task.encode(some, processor), examples),
        encode_key=digest.hexdigest()[:16],
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
    return parts.source.open(context)


@torch.no_grad()
def refill(stream: Stream, model: nn.Module, step: int) -> None:
    """Let a stream whose examples are made by the current weights make those of a step."""
    if isinstance(stream, Refillable):
        # What is dropped in training would be missing from the examples, too.
        model.eval()
        stream.refill(model, step)
        model.train()


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
    device = next(parts.model.parameters()).device
    micro_batch_size = run.recipe.machine.settled_micro_batch_size
    with contextlib.closing(open_stream(run, parts, "train")) as stream:
        number = min(math.ceil(stream.samples_per_epoch / micro_batch_size), 200)
        if samples is not None:
            batch_size = run.recipe.training.batch_size
            steps = math.ceil(min(stream.samples_per_epoch, samples) / batch_size)
            number = steps * batch_size // micro_batch_size
        for batch in islice(stream, number):
            yield move_batch(batch, run.recipe.machine, device)
