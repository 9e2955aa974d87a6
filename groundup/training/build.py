"""From the sections of a recipe to live parts: processor, model, task and data.

Plugins are reached through the registry.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from groundup.core.contracts.data import DataContext, DataSource, Stream
from groundup.core.contracts.models import PredictsOutputs, context_length_of
from groundup.core.contracts.processors import Processor, TextProcessor
from groundup.core.contracts.tasks import Task
from groundup.core.error_location import encode_located
from groundup.core.values import Batch, Split
from groundup.machine import devices
from groundup.recipe.sections import Machine
from groundup.runs.processor import add_files, cache_folder
from groundup.runs.run import Run
from groundup.training.distillation import Teacher, load_teacher
from groundup.training.fit_processor import make_processor
from groundup.training.layer_freezing import freeze_all_but
from groundup.weights.adapter_runs import FrozenWeightsRef, attach_adapter
from groundup.weights.initial_model import build_initial_model, complete_source
from groundup.weights.quantised_base import announce

__all__ = [
    "Components",
    "assemble",
    "first_inputs",
    "freeze",
    "move_batch",
    "open_stream",
]


@dataclass(frozen=True)
class Components:
    """The live parts of a run.

    Attributes:
        base: What a run with an adapter neither trains nor saves.
        teacher: The model that this one learns from, if any.
    """

    model: nn.Module
    task: Task
    processor: Processor
    source: DataSource
    base: FrozenWeightsRef
    teacher: Teacher | None = None


def freeze(run: Run) -> Run:
    """Settle what the recipe left open and write it down.

    That is the vocabulary, device, precision, compilation, threads and micro-batch. A recipe with
    nothing open is returned as it is, so that a resume never measures again.
    """
    recipe = run.recipe
    processor = make_processor(recipe, run.folder / "processor")
    model = recipe.model
    starts_from_weights = recipe.init.run is not None or recipe.init.pretrained is not None
    if starts_from_weights and isinstance(model, PredictsOutputs):
        # This data may have other classes than the base's.
        model = model.model_copy(update={"outputs": 0})
    model = model.complete_from(processor)
    context = context_length_of(model) or 1
    samples = recipe.training.samples or (recipe.training.steps or 0) * recipe.training.batch_size
    sample_flops = context * model.flops_per_token(context)
    machine = devices.resolve(recipe.machine, recipe.training.batch_size, sample_flops, samples)
    settled = recipe.model_copy(update={"model": model, "machine": machine})
    if settled != recipe:
        run.write_recipe(settled)
    return Run(run.folder, settled, run.storage)


def assemble(run: Run, device: torch.device) -> Components:
    """Return the parts of a run, the model with its starting weights: random, or those that
    ``init`` names, adapted."""
    recipe = run.recipe
    processor = make_processor(recipe, run.folder / "processor")
    source = complete_source(run, processor, device)
    model, initial = build_initial_model(run, processor)
    base = attach_adapter(model, run, initial)
    quantised = recipe.adapter is not None and recipe.adapter.quantised
    if quantised and run.checkpoints.newest_intact() is None:
        announce(run, model)
    if recipe.init.train_layers is not None:
        freeze_all_but(model, recipe.init.train_layers)
    dtype = devices.weight_dtype(recipe.machine)
    model = model.to(device, dtype)
    teacher = None
    if recipe.distill is not None:
        teacher = load_teacher(run, processor, source, device, dtype)
    return Components(model, recipe.task, processor, source, base, teacher)


def open_stream(run: Run, parts: Components, split: Split) -> Stream:
    """Return the micro-batches of a split as the run's recipe orders them."""
    recipe, task, processor = run.recipe, parts.task, parts.processor
    digest = hashlib.sha256(task.model_dump_json().encode() + task.registered_name.encode())
    add_files(digest, run.folder / "processor")

    def augment(batch: Batch, samples: NDArray[np.int64], partners: Callable[[], Batch]) -> Batch:
        return task.augment(
            batch, samples, partners, processor, recipe.seed if split == "train" else -1
        )

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
    )
    return parts.source.open(context)


def move_batch(batch: Batch, machine: Machine, device: torch.device) -> Batch:
    """Return a batch on a device, its numbers in float64 where the weights are."""
    if machine.precision == "fp64":
        batch = {k: x.double() if x.is_floating_point() else x for k, x in batch.items()}
    if device.type == "cpu":
        return batch
    return {key: value.to(device, non_blocking=True) for key, value in batch.items()}


def first_inputs(run: Run, parts: Components) -> Iterator[dict[str, Any]]:
    """Yield the model's inputs of the run's first training micro-batches, on its device: an epoch,
    at most 200."""
    device = next(parts.model.parameters()).device
    with contextlib.closing(open_stream(run, parts, "train")) as stream:
        number = math.ceil(stream.samples_per_epoch / run.recipe.machine.settled_micro_batch_size)
        for batch in islice(stream, min(number, 200)):
            yield parts.task.inputs(move_batch(batch, run.recipe.machine, device))
