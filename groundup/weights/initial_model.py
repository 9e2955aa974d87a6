"""The model that a run starts from: random weights, another run's or pretrained ones; and a trained
one."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from groundup.core.contracts.data import DataSource
from groundup.core.contracts.models import FromHuggingFace, context_length_of
from groundup.core.contracts.processors import Processor
from groundup.core.errors import CheckpointError
from groundup.core.seeding import reseed
from groundup.core.values import Split, Start
from groundup.machine import devices
from groundup.nn.part_names import HEADS, TASK_WEIGHTS
from groundup.recipe.recipe import Recipe
from groundup.recipe.sections import Machine
from groundup.runs.processor import add_files, cache_folder, load_processor
from groundup.runs.run import Run
from groundup.weights.adapter_runs import adapt, starting_run, weights_of
from groundup.weights.load import pretrained_config, pretrained_labels, pretrained_weights
from groundup.weights.quantised_base import pretrained_model, quantise_layers

__all__ = ["load_weights", "placed", "prepared_source", "starting_model", "trained_model"]


def starting_model(run: Run, processor: Processor) -> tuple[nn.Module, bool]:
    """Return the model with the weights that a run starts from, before any adapter, and whether a
    head is new.

    Pretrained ones are not read where a checkpoint of the run's own takes their place: their folder
    may be gone.
    """
    recipe = run.recipe
    begins = run.checkpoints.newest_intact() is None
    needed = recipe.init.pretrained is not None and (begins or recipe.adapter is not None)
    if needed and begins:
        run.event(0, f"{run.folder}: starts from the pretrained weights {recipe.init.pretrained}")
    return _built(run, processor, pretrained=needed, begins=begins)


def _built(
    run: Run, processor: Processor, *, pretrained: bool, begins: bool
) -> tuple[nn.Module, bool]:
    recipe = run.recipe
    config, quantised = (
        recipe.model,
        recipe.adapter is not None and recipe.adapter.quantised != "",
    )
    in_parts = (
        pretrained and "outputs" not in type(config).model_fields
    )  # without classes, no head is ever new
    if pretrained and begins and (note := _note(run)):
        run.event(0, f"{run.folder}: {note}")
    weights = pretrained_weights(run) if pretrained and not in_parts else {}
    model = pretrained_model(run) if in_parts else None
    reseed(recipe.seed, "initialise")
    model = config.build() if model is None else model
    new_head = False
    if recipe.init.run is not None:
        base, step = starting_run(run)
        own = {
            name: value
            for name, value in weights_of(base, step).items()
            if not name.startswith(TASK_WEIGHTS)
        }
        new_head = _new_head(base, processor)
        load_weights(model, own, str(base.folder), new_head=new_head)
    if weights:
        new_head = _load_pretrained(
            model, weights, run, other=_other_labels(run, processor), say=begins
        )
    if recipe.adapter is not None and quantised and not in_parts:
        quantise_layers(model, recipe.adapter, str(recipe.init.pretrained or recipe.init.run))
    recipe.task.check_model(model, processor)
    recipe.task.add_parameters(model, processor)
    return model, new_head


def trained_model(run: Run, step: int, processor: Processor) -> nn.Module:
    """Return the model of a checkpoint to predict with, in float32.

    An adapter comes merged into the weights of its base; beside one that is quantised it stays as
    it was trained.

    Raises:
        CheckpointError: If it is damaged, or an adapter for another base.
    """
    recipe, where = run.recipe, str(run.checkpoints.path(step))
    if recipe.adapter is not None and recipe.adapter.quantised:
        model, new_head = starting_model(run, processor)
        frozen = adapt(model, run, new_head=new_head)
        weights = frozen.completed(
            run.checkpoints.load(step, with_optimizer=False), model, where
        ).model
    else:
        model = recipe.model.build()
        recipe.task.add_parameters(model, processor)
        weights = weights_of(run, step)
    load_weights(model, weights, where)
    return model


def prepared_source(
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
    recipe = run.recipe if machine is None else run.recipe.model_copy(update={"machine": machine})
    source = recipe.data

    def start() -> nn.Module:
        model, _ = _built(
            run, processor, pretrained=recipe.init.pretrained is not None, begins=False
        )
        return placed(model, recipe, device).eval()

    def key() -> str:
        return _key(run, recipe)

    length = context_length_of(recipe.model)
    with devices.autocast(recipe.machine):
        base = Start(start, key, processor, length, cache_folder(), splits or source.splits())
        return recipe.task.precompute(source, base)


def _key(run: Run, recipe: Recipe) -> str:
    """Return what changes whenever the starting weights, the model, its precision or the processor
    do."""
    sha256 = (run.read_json("environment.json") or {}).get(
        "base_weights_sha256"
    ) or f"seed {recipe.seed}"
    model, precision = recipe.model, recipe.machine.precision
    kept = recipe.adapter.quantised if recipe.adapter is not None else ""
    known = f"{sha256}\0{model.registered_name}\0{model.model_dump_json()}\0{precision}\0{kept}"
    digest = hashlib.sha256(known.encode())
    add_files(digest, run.folder / "processor")
    return digest.hexdigest()


def placed(model: nn.Module, recipe: Recipe, device: torch.device) -> nn.Module:
    """Return the model on a device, in the precision of the recipe's weights."""
    dtype = torch.float64 if recipe.machine.precision == "fp64" else torch.float32
    if dtype == torch.float64:  # inputs are float32, whatever the weights are
        model.register_forward_pre_hook(_widened, with_kwargs=True)
    return model.to(device, dtype)


def _widened(
    model: nn.Module, args: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def wide(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(map(wide, args)), {name: wide(value) for name, value in named.items()}


def _note(run: Run) -> str:
    """Return what becomes of the pretrained weights as the model reads them, in words, where a
    model says it."""
    config = run.recipe.model
    return (
        config.note_on_pretrained(pretrained_config(run))
        if isinstance(config, FromHuggingFace)
        else ""
    )


def _new_head(base: Run, processor: Processor) -> bool:
    """Whether other classes, or numbers, are predicted than the base run predicts."""
    own, before = (p.targets for p in (processor, load_processor(base.folder / "processor")))
    return own is not None and (
        before is None or (own.kind, own.labels) != (before.kind, before.labels)
    )


def _other_labels(run: Run, processor: Processor) -> bool:
    """Whether other classes, or numbers, are predicted than the pretrained weights predict."""
    targets = processor.targets
    return (
        targets is not None and targets.kind != "fixed" and targets.labels != pretrained_labels(run)
    )


def _load_pretrained(
    model: nn.Module, weights: dict[str, Tensor], run: Run, *, other: bool, say: bool
) -> bool:
    """Copy pretrained weights, and return whether a head, or a part of one, keeps its random
    numbers.

    That is what the weights lack, and the last layer where ``other`` classes are predicted than
    they were trained for.
    """
    own = model.state_dict()
    fresh = [name for name in own if name.startswith(HEADS) and name not in weights]
    if other:
        fresh = [name for name in own if name in fresh or name.startswith("head.")]
    if fresh and say:
        run.event(0, f"{run.folder}: new head, from random numbers: {', '.join(fresh)}")
    load_weights(
        model, {**weights, **{name: own[name] for name in fresh}}, str(run.recipe.init.pretrained)
    )
    return bool(fresh)


def load_weights(
    model: nn.Module, weights: dict[str, Tensor], where: str, *, new_head: bool = False
) -> None:
    """Copy weights by name, every one of them; with ``new_head`` all but those of modules called
    ``head``.

    Raises:
        CheckpointError: If a name or a shape does not fit; the message names the first.
    """
    own = model.state_dict()
    if new_head:
        weights = {name: value for name, value in weights.items() if not name.startswith(HEADS)}
        weights |= {name: value for name, value in own.items() if name.startswith(HEADS)}
    for name in [*own, *weights]:
        if name not in weights or name not in own:
            side = "lacks" if name not in weights else "has an unknown"
            raise CheckpointError(
                where,
                f"{side} tensor {name}",
                "Use the model section that these weights were trained with",
            )
        if own[name].shape != weights[name].shape:
            raise CheckpointError(
                where,
                f"tensor {name} has shape {list(weights[name].shape)}; the model needs"
                f" {list(own[name].shape)}",
                "Use the model section that these weights were trained with",
            )
    model.load_state_dict(weights)
