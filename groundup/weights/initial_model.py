"""The model that a run starts from, and a trained one; and the data as the starting weights
complete it."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from groundup.contracts.data import DataSource
from groundup.contracts.models import context_length_of
from groundup.contracts.processors import Processor
from groundup.contracts.tasks import Start
from groundup.core.errors import CheckpointError
from groundup.core.seeding import reseed
from groundup.core.values import Split
from groundup.machine import devices
from groundup.recipe.recipe import Recipe
from groundup.recipe.sections import Machine
from groundup.runs.processor import add_files, cache_folder
from groundup.runs.run import Run
from groundup.weights.adapter_runs import attach_adapter
from groundup.weights.initial_weights import (
    InitialWeights,
    RandomWeights,
    choose_initial_weights,
    weights_of,
)
from groundup.weights.restore import load_weights

__all__ = ["build_initial_model", "build_trained_model", "complete_source"]


def build_initial_model(
    run: Run, processor: Processor, *, to_train: bool = True
) -> tuple[nn.Module, InitialWeights]:
    """Return the model with the weights that a run starts from, before any adapter; and those.

    Args:
        run: The run.
        processor: Its processor.
        to_train: What the weights are is written to the run's log when it begins; and they are not
            read where a checkpoint of the run's own takes their place: their folder may be gone.
    """
    recipe = run.recipe
    initial = choose_initial_weights(run, processor)
    begins = to_train and run.checkpoints.newest_intact() is None
    # With an adapter the base is needed all the same: its checkpoints hold the adapter alone.
    if to_train and not begins and recipe.adapter is None:
        initial = RandomWeights(run)
    # Right before the model is built: whatever drew numbers until now, a seed gives one model.
    reseed(recipe.seed, "initialise")
    model = initial.build()
    if begins:
        initial.load(model, lambda message: run.event(0, f"{run.folder}: {message}"))
    else:  # said once, when the run began
        initial.load(model)
    recipe.task.check_model(model, processor)
    # After the weights are in: no other task's weights have what this one adds, and ``load`` lets
    # nothing be missing.
    recipe.task.add_parameters(model, processor)
    return model, initial


def build_trained_model(run: Run, step: int, processor: Processor) -> nn.Module:
    """Return the model of a checkpoint to predict with, in float32.

    An adapter comes merged into the weights of its base; next to one that is quantized it stays as
    it was trained.

    Raises:
        CheckpointError: If it is damaged, or an adapter for another base.
    """
    recipe = run.recipe
    if run.is_pretrained:
        model, initial = build_initial_model(run, processor, to_train=False)
        if initial.new_head:
            raise CheckpointError(
                run.label,
                f"has no weights for {', '.join(initial.new_head)}, so it predicts nothing",
                "Train it first, or use another model",
            )
        return model
    where = str(run.checkpoints.path(step))
    # Merged, and rounded again, it would be another model than the one that was trained.
    if recipe.adapter is not None and recipe.adapter.quantized:
        model, initial = build_initial_model(run, processor)
        base = attach_adapter(model, run, initial)
        checkpoint = run.checkpoints.load(step, with_optimizer=False)
        weights = base.complete(checkpoint, model, where).model
    else:
        model = recipe.model.build()
        # Here before the weights: this run's own checkpoint has what its task added.
        recipe.task.add_parameters(model, processor)
        weights = weights_of(run, step)
    load_weights(model, weights, where)
    return model


def complete_source(
    run: Run,
    processor: Any,
    device: torch.device,
    machine: Machine | None = None,
    splits: tuple[Split, ...] = (),
) -> DataSource:
    """Return the run's data, completed by its task with what the weights that the run starts from
    say of it.

    Args:
        run: The run.
        processor: Its processor.
        device: Where these weights are asked.
        machine: With what precision; by default as the run computes.
        splits: The parts of the data to complete; by default all.
    """
    recipe = run.recipe
    if machine is not None:
        recipe = recipe.model_copy(update={"machine": machine})
    source = recipe.data

    # As functions, because most tasks ask for neither: then no model is built and no file hashed.
    def initial_model() -> nn.Module:
        model, initial = build_initial_model(run, processor, to_train=False)
        # Next to layers that change nothing it computes as it is going to be trained, to the bit.
        attach_adapter(model, run, initial, untrained=True)
        return model.to(device, devices.weight_dtype(recipe.machine)).eval()

    start = Start(
        model=initial_model,
        key=lambda: _fingerprint(run, recipe),
        processor=processor,
        sequence_length=context_length_of(recipe.model),
        cache=cache_folder(),
        splits=splits or source.splits(),
    )
    with devices.autocast(recipe.machine):
        return recipe.task.precompute(source, start)


def _fingerprint(run: Run, recipe: Recipe) -> str:
    """Return what changes whenever the starting weights, the model, its precision or the processor
    do."""
    model = recipe.model
    parts = (
        choose_initial_weights(run).fingerprint,
        model.registered_name,
        model.model_dump_json(),
        recipe.machine.precision,
        "" if recipe.adapter is None else recipe.adapter.quantized,
    )
    # A separator that is in no part: otherwise two different recipes could make one text.
    digest = hashlib.sha256("\0".join(parts).encode())
    add_files(digest, run.folder / "processor")
    return digest.hexdigest()
