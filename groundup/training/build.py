"""From the sections of a recipe to live parts, and to a trainer of them.

Plugins are reached through the registry.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from groundup.contracts.models import PredictsOutputs, context_length_of
from groundup.machine import devices
from groundup.reports.live_progress import ProgressDisplay
from groundup.reports.tensorboard import EventWriter
from groundup.runs.run import Run
from groundup.training.components import Components
from groundup.training.fit_processor import make_processor
from groundup.training.layer_freezing import freeze_all_but
from groundup.training.load_teacher import load_teacher
from groundup.training.throughput import Observer
from groundup.training.trainer import Trainer
from groundup.weights.adapter_runs import attach_adapter, settle_adapter
from groundup.weights.initial_model import build_initial_model, complete_source
from groundup.weights.new_tokens import make_room_for_tokens
from groundup.weights.quantized_base import announce

__all__ = ["assemble", "build_trainer", "freeze"]


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
    if starts_from_weights:
        model = make_room_for_tokens(run, model, processor)
    model = model.complete_from(processor)
    context = context_length_of(model) or 1
    samples = recipe.training.samples or (recipe.training.steps or 0) * recipe.training.batch_size
    # Of rows that are as long as their texts, nobody knows yet how long that is.
    sample_flops = 0.0 if model.rows_vary else context * model.flops_per_token(context)
    machine = devices.resolve(recipe.machine, recipe.training.batch_size, sample_flops, samples)
    # Written before anything is trained: a resume on another machine computes as this one did.
    settled = recipe.model_copy(update={"model": model, "machine": machine})
    settled = settle_adapter(run, settled)
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
    quantized = recipe.adapter is not None and recipe.adapter.quantized
    # Once, when the run begins: a resume would say and record the same again.
    if quantized and run.checkpoints.newest_intact() is None:
        announce(run, model)
    if recipe.init.train_layers is not None:
        freeze_all_but(model, recipe.init.train_layers)
    dtype = devices.weight_dtype(recipe.machine)
    model = model.to(device, dtype)
    teacher = None
    if recipe.distill is not None:
        teacher = load_teacher(run, processor, source, device, dtype)
    return Components(model, recipe.task, processor, source, base, teacher)


def build_trainer(run: Run) -> Trainer:
    """Return what trains a run whose recipe is settled, shown on the terminal and written to
    TensorBoard's files."""
    parts = assemble(run, devices.prepare(run.recipe.machine))
    trainer = Trainer(run, parts)
    trainer.observe = partial(_observe, trainer)
    return trainer


@contextlib.contextmanager
def _observe(trainer: Trainer) -> Iterator[Observer]:
    recipe = trainer.recipe
    with (
        EventWriter(trainer.run.folder / "tensorboard", trainer.step) as events,
        ProgressDisplay(trainer.total_steps, recipe.name, recipe.task.unit) as display,
    ):
        yield _Observers(events, display)


class _Observers:
    """TensorBoard's files and the terminal."""

    def __init__(self, events: EventWriter, display: ProgressDisplay) -> None:
        self._events = events
        self._display = display

    @property
    def due(self) -> bool:
        return self._display.due

    def update(self, values: dict[str, Any]) -> None:
        self._display.update(values)

    def show(self, row: dict[str, Any]) -> None:
        self._events.write(row)
        self._display.show(row)
