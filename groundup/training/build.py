"""From the sections of a recipe to live parts, and to a trainer of them.

Plugins are reached through the registry.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import torch

from groundup.contracts.models import PredictsOutputs, context_length_of
from groundup.core.errors import RecipeError
from groundup.core.storage import Storage
from groundup.machine import devices
from groundup.parallel.divide_layers import note_on_waiting, size_for_stages
from groundup.parallel.holdings import Holdings
from groundup.parallel.layout import settle
from groundup.parallel.world import ALONE, World
from groundup.parallel.wrap import check_layout, divide_steps, hold_parts, lay_out
from groundup.recipe.recipe import Recipe, dump_recipe
from groundup.recipe.sections import Machine
from groundup.reports.live_progress import ProgressDisplay
from groundup.reports.tensorboard import EventWriter
from groundup.runs.checkpoint_writer import CheckpointWriter
from groundup.runs.run import Run
from groundup.training.accumulation import count_micro_batches
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

__all__ = [
    "assemble",
    "build_trainer",
    "freeze",
    "leaving_nothing",
    "open_run",
    "refuse_differences",
]

T = TypeVar("T")


def open_run(world: World, prepare: Callable[[], Run], folder: Path) -> Run:
    """Return a run that the first process makes or changes, and the others open then.

    Args:
        world: The processes.
        prepare: Returns the run.
        folder: Where it will be.
    """
    run = world.first(prepare, "the run's folder is prepared")
    # Only one process writes; the others go through the same steps.
    return Run.open(folder, Storage(writes=False)) if run is None else run


def refuse_differences(world: World, recipe: Recipe) -> None:
    """Make sure that all processes train the same recipe by the same code; their data is compared
    with the run's.

    Raises:
        TrainingError: Naming a process that has another.
    """
    if world.size == 1:
        return
    package = Path(str(files("groundup")))
    # What runs, not what is installed under which version: a line may have been changed by hand.
    code = hashlib.sha256(torch.__version__.encode())
    for path in sorted(package.rglob("*.py")):
        code.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    world.refuse_differences("the code of groundup", code.hexdigest())
    world.refuse_differences("recipe", hashlib.sha256(dump_recipe(recipe).encode()).hexdigest())


@contextlib.contextmanager
def leaving_nothing(folder: Path, world: World = ALONE) -> Iterator[list[Trainer]]:
    """Remove a run's folder that was made by a start that failed before its first step.

    Args:
        folder: The run's.
        world: The processes that start it, of which the first one made it.

    Yields:
        A list for the trainer, once there is one.
    """
    known = [each for each in (folder, folder.parent) if each.exists()]
    begun: list[Trainer] = []
    try:
        yield begun
    except BaseException:
        made_here = folder not in known and world.is_first
        if made_here and not any(trainer.step for trainer in begun):
            shutil.rmtree(folder, ignore_errors=True)
            if folder.parent not in known:
                with contextlib.suppress(OSError):  # it may hold another run by now
                    folder.parent.rmdir()
        raise


def freeze(run: Run, world: World = ALONE) -> Run:
    """Settle what the recipe left open and write it down.

    That is the vocabulary, device, precision, compilation, threads and micro-batch. A recipe with
    nothing open is returned as it is, so that a resume never measures again.

    Args:
        run: Whose recipe.
        world: The processes that will train it.

    Raises:
        RecipeError: If they cannot share a batch evenly, or the model.
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
    machine, share = _share_batch(run, world)
    machine = devices.resolve(machine, share, sample_flops, samples, world.local_size)
    # Written before anything is trained: a resume on another machine computes as this one did.
    settled = recipe.model_copy(update={"model": model, "machine": machine})
    settled = settle_adapter(run, settled)
    # Before the others are here: whoever fails alone leaves nothing behind.
    check_layout(settled, world.layout)
    if settled != recipe:
        run.write_recipe(settled)
    return Run(run.folder, settled, run.storage)


def _share_batch(run: Run, world: World) -> tuple[Machine, int]:
    """Return the machine's section for so many processes, and how many samples of a batch each of
    them has."""
    recipe = run.recipe
    parts = settle(recipe.parallel, world.size).data_size
    share, left = divmod(recipe.training.batch_size, parts)
    if left:
        raise RecipeError(
            "recipe.training.batch_size",
            f"{recipe.training.batch_size} samples cannot be shared by {parts} processes",
            f"Choose a multiple of {parts}, or start another number of processes",
        )
    machine = recipe.machine
    part = machine.micro_batch_size
    stages = recipe.parallel.pipeline
    if part == "auto" and stages > 1:
        return machine.model_copy(
            update={"micro_batch_size": size_for_stages(share, stages)}
        ), share
    if part == "auto" or share % part == 0:
        return machine, share
    asked = (run.read_json("requested.json") or {}).get("machine", {})
    if asked.get("micro_batch_size", "auto") != "auto":
        raise RecipeError(
            "recipe.machine.micro_batch_size",
            f"{part} does not divide the {share} samples of a batch that each of {parts}"
            " processes has",
            f"Choose a divisor of {share}, or start another number of processes",
        )
    # It was settled for fewer processes than go on with the run.
    return machine.model_copy(update={"micro_batch_size": "auto"}), share


def assemble(run: Run, device: torch.device, world: World = ALONE) -> Components:
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
    wanted = recipe.checkpoints.asynchronous
    # There the copy is in another memory, and the writer takes no time from the computation.
    asynchronous = device.type == "cuda" if wanted == "auto" else wanted
    saver = CheckpointWriter(run.checkpoints, world, asynchronous=asynchronous)
    return Components(model, recipe.task, processor, source, base, world, saver, teacher)


def build_trainer(run: Run, world: World = ALONE) -> Trainer:
    """Return what trains a run whose recipe is settled, shown on the terminal and written to
    TensorBoard's files by the first process.

    All processes call it at the same time, arranged as the recipe says.
    """
    if world.size > 1:
        # Before anything is built and written: another might be at it while this one ends.
        count_micro_batches(run.recipe, world)
    device = devices.prepare(run.recipe.machine)
    # In turn, because the first one leaves files that the others find: a corpus, say. Between the
    # two all are needed at once, to divide the model.
    parts = _in_turn(world, lambda: assemble(run, device, world), "the run is built")
    model = lay_out(parts.model, world.layout)
    world.holdings = Holdings.of(model, world.layout.tensor)
    share = divide_steps(model, world, run.recipe)
    share = hold_parts(model, world, run.recipe, share)
    parts = replace(parts, model=model, share=share)
    if world.is_first and (note := note_on_waiting(run.recipe, world.layout)):
        run.event(0, f"{run.folder}: {note}")
    trainer = _in_turn(world, lambda: Trainer(run, parts), "the data is opened")
    if world.is_first:
        trainer.observe = partial(_observe, trainer)
    return trainer


def _in_turn(world: World, build: Callable[[], T], what: str) -> T:
    # One process alone waits for nobody.
    return build() if world.size == 1 else world.in_turn(build, what)


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
