"""What a run would be, without training it: its data, its steps, and what they take."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from groundup.contracts.models import context_length_of
from groundup.contracts.processors import Processor
from groundup.machine import devices
from groundup.machine.meta_device import without_content
from groundup.nn.lora.adapters import attach
from groundup.nn.part_names import HEADS, TASK_WEIGHTS
from groundup.parallel.world import ALONE
from groundup.recipe.recipe import Recipe
from groundup.runs.checkpoint_writer import CheckpointWriter
from groundup.runs.processor import cache_folder
from groundup.runs.run import Run, count_steps
from groundup.training.build import freeze
from groundup.training.components import Components, open_stream
from groundup.training.fit_processor import keep_processor
from groundup.training.layer_freezing import freeze_all_but
from groundup.training.muon import Muon
from groundup.training.optimizers import build_optimizers
from groundup.training.plan_checks import check_plan, refuse_contradictions
from groundup.weights.restore import FrozenWeightsRef

__all__ = ["describe_run"]

_MB = 2**20
# Bytes of a weight that an adapter's base keeps, as the linear layers of its blocks have it.
_BYTES = {"fp32": 4.0, "int8": 1.0, "nf4": 4.5 / 8}


def describe_run(recipe: Recipe) -> dict[str, Any]:
    """Return the sizes and the work of a recipe's run, as plain values. The run's folder is not
    made; what the data becomes is kept in the cache, where training finds it.

    Raises:
        GroundupError: Where training would, too: before its first step.
    """
    refuse_contradictions(recipe)
    facts: dict[str, Any] = {"name": recipe.name, "task": recipe.task.registered_name}
    teacher = None if recipe.distill is None else recipe.distill.teacher
    for base in filter(None, (recipe.init.run, teacher)):
        if not (Path(base) / "processor").is_dir():
            note = f"starts from {base}, which is not trained yet: its sizes are not known"
            return {**facts, "notes": [note], "machine": devices.describe_machine()}
    processor, folder = keep_processor(recipe)
    with TemporaryDirectory() as root:
        run = Run.create(recipe.model_copy(update={"tune": None}), Path(root))
        shutil.copytree(folder, run.folder / "processor")
        run = freeze(run)
        model = _build_empty(run.recipe, processor)
        context = context_length_of(run.recipe.model)
        facts["context_length"] = context
        facts["data"] = _count_data(run, model, processor)
    batch = run.recipe.training.batch_size
    per_epoch = facts["data"]["train"]["samples"]
    steps = count_steps(run.recipe.training, per_epoch)
    of_token = run.recipe.model.flops_per_token(context)
    flops = (context or 1) * of_token
    return {
        **facts,
        "steps": steps,
        "epochs": round(steps * batch / per_epoch, 3),
        **_measure_memory(run.recipe, model),
        "gflops_per_token": of_token / 1e9,
        "gflops_per_sample": flops / 1e9,
        "gflops": flops * batch * steps / 1e9,
        "notes": check_plan(recipe, per_epoch, steps, facts["data"]["train"].get("longest")),
        "machine": devices.describe_machine(),
    }


def _build_empty(recipe: Recipe, processor: Processor) -> nn.Module:
    """Return the model without its weights, as much of it frozen as the recipe says."""
    with without_content():
        model = recipe.model.build()
        recipe.task.add_parameters(model, processor)
        if recipe.adapter is not None:
            spared = (TASK_WEIGHTS, *HEADS)
            own = {name for name in model.state_dict() if not name.startswith(TASK_WEIGHTS)}
            settings = recipe.adapter.model_copy(update={"base": "fp32"})
            attach(model, settings, spared=lambda name: f"{name}.".startswith(spared))
            for name, parameter in model.named_parameters():
                if name in own:
                    parameter.requires_grad_(False)
    if recipe.init.train_layers is not None:
        freeze_all_but(model, recipe.init.train_layers)
    return model


def _count_data(run: Run, model: nn.Module, processor: Processor) -> dict[str, Any]:
    recipe = run.recipe
    saver = CheckpointWriter(run.checkpoints, ALONE)
    base = FrozenWeightsRef()
    parts = Components(model, recipe.task, processor, recipe.data, base, ALONE, saver)
    counts: dict[str, Any] = {}
    for split in recipe.data.splits():
        with contextlib.closing(open_stream(run, parts, split)) as stream:
            counts[split] = {"samples": stream.samples_per_epoch, **stream.counts()}
    # What is left out is said in training, too, when its data card is made.
    card = recipe.data.card(cache_folder())
    told = ("left_out", "unused_columns")
    return {**counts, **{name: card[name] for name in told if card.get(name)}}


def _measure_memory(recipe: Recipe, model: nn.Module) -> dict[str, Any]:
    """Return the parameters, and the memory that they take in training; what a forward pass keeps
    comes on top."""
    every = list(model.named_parameters())
    trained = [(name, parameter) for name, parameter in every if parameter.requires_grad]
    optimizer = build_optimizers(recipe.optim, trained, recipe.adapter)
    states = 0
    for part in optimizer.parts:
        copies = 2
        if isinstance(part, Muon):
            copies = 1
        elif isinstance(part, torch.optim.SGD):
            copies = int(recipe.optim.momentum > 0)
        states += copies * sum(p.numel() for group in part.param_groups for p in group["params"])
    size = 8 if recipe.machine.precision == "fp64" else 4
    count = sum(parameter.numel() for _, parameter in every)
    learned = sum(parameter.numel() for _, parameter in trained)
    weights = size * count
    if recipe.adapter is not None and recipe.adapter.quantized:
        kept = _BYTES[recipe.adapter.base]
        few = sum(p.numel() for n, p in every if n.startswith("blocks.") and not p.requires_grad)
        weights -= round((size - kept) * few)
    memory = {"weights": weights, "gradients": size * learned, "optimizer": size * states}
    if recipe.optim.average != "none":
        memory["average"] = size * learned
    return {
        "parameters": count,
        "trained_parameters": learned,
        "memory_mb": {name: round(value / _MB, 3) for name, value in memory.items()},
    }
