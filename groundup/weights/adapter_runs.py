"""Runs that train adapters: the base, which stays as it is, checkpoints, which hold the adapter
alone, and both put together."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groundup.contracts.models import ModelConfig
from groundup.core.errors import CheckpointError, RecipeError
from groundup.core.seeding import reseed
from groundup.nn.lora.adapters import adapted, attach, dequantise_layers, detach, merge
from groundup.nn.lowbit.nf4 import quantised_shapes
from groundup.nn.part_names import HEADS, TASK_WEIGHTS
from groundup.recipe.sections import Adapter
from groundup.runs.run import Run
from groundup.weights.initial_weights import InitialWeights, choose_initial_weights
from groundup.weights.read_peft import AdapterTensors, read_adapter_folder
from groundup.weights.restore import FrozenWeightsRef

__all__ = ["attach_adapter", "base_reference", "use_adapter"]

log = logging.getLogger("groundup")


def base_reference(run: Run, initial: InitialWeights | None = None) -> dict[str, Any]:
    """Return what a run starts from, as its checkpoints name it: folder or name, step, SHA-256 of
    the weights.

    The weights are those before any quantisation; ``quantised`` says how it was done, where it was.
    """
    reference = (initial or choose_initial_weights(run)).reference()
    # The same weights in few bits are another base: an adapter next to one does not fit the other.
    if run.recipe.adapter is not None and run.recipe.adapter.quantised:
        reference["quantised"] = run.recipe.adapter.quantised
    return reference


def attach_adapter(model: nn.Module, run: Run, initial: InitialWeights) -> FrozenWeightsRef:
    """Put the recipe's adapters next to the layers of a model that has the base's weights, and
    freeze those.

    What a task adds to the model, and a new head, are trained as a whole.

    Raises:
        RecipeError: If the targets, the ranks or the folder to go on from do not fit.
        CheckpointError: If that folder cannot be read.
    """
    recipe = run.recipe
    settings = run.recipe.adapter
    if settings is None:
        return FrozenWeightsRef()
    # A new head is random numbers, most of which a low-rank change would leave as they are.
    trained = (TASK_WEIGHTS, *HEADS) if initial.new_head else (TASK_WEIGHTS,)
    # Taken before there are adapters, whose tensors are trained and saved, and so not the base's.
    names = frozenset(name for name in model.state_dict() if not name.startswith(trained))
    # A purpose of its own: the matrices A do not depend on what the base drew.
    reseed(recipe.seed, "adapter")
    attach(model, settings, spared=lambda name: f"{name}.".startswith(trained))
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    reference = base_reference(run, initial)
    if settings.path is not None:
        _continue_from(model, recipe.model, settings, names, reference["sha256"])
    return FrozenWeightsRef(names, reference)


def _continue_from(
    model: nn.Module, config: ModelConfig, settings: Adapter, base: frozenset[str], sha256: str
) -> None:
    """Fill a model's adapters with those of the folder that the recipe names."""
    plain = {name: value for name, value in model.state_dict().items() if name in base}
    # Quantised layers are not in state_dict, but an adapter for them is read by their shapes.
    plain |= {
        f"{name}.weight": torch.empty(shape, device="meta")
        for name, shape in quantised_shapes(model).items()
    }
    found = read_adapter_folder(Path(str(settings.path)), config, plain, settings)
    found.check_base(sha256)
    _warn_of_other_precision(found, settings.quantised)
    differing: dict[str, tuple[str, str]] = {"name": (settings.name, found.settings.name)}
    # Layer by layer: a recipe and a file may name the same targets in different ways.
    own = {name: module.lora_A.shape[0] for name, module in adapted(model).items()}
    for name in sorted({*own, *found.ranks}):
        if own.get(name) != found.ranks.get(name):
            here = f"{name}: {own.get(name)}"
            there = f"{name}: {found.ranks.get(name)}"
            differing["targets"] = (here, there)
    for key, (here, there) in differing.items():
        if here != there:
            problem = f"gives {here}, but the adapter in {settings.path} has {there}"
            remedy = "Write what that adapter has, or remove path"
            raise RecipeError(f"recipe.adapter.{key}", problem, remedy)
    _copy_adapter(model, found)


def _warn_of_other_precision(found: AdapterTensors, here: str) -> None:
    if found.quantised != here:
        log.warning(
            "%s was trained next to a base in %s; next to one in %s it works a little less well",
            found.where,
            found.quantised or "fp32",
            here or "fp32",
        )


def _copy_adapter(model: nn.Module, found: AdapterTensors) -> None:
    own = model.state_dict()
    extra = sorted(set(found.tensors) - set(own))
    if extra:
        remedy = "Open the run that it was trained in"
        problem = f"holds {extra[0]}, which this model has no place for"
        raise CheckpointError(found.where, problem, remedy)
    with torch.no_grad():
        for name, value in found.tensors.items():
            own[name].copy_(value)


def use_adapter(model: nn.Module, config: ModelConfig, folder: Path | None, sha256: str) -> None:
    """Let a model predict with the adapter in a folder, in place of one that it has; None takes
    that away.

    Args:
        model: A model with the base's weights, changed in place. Quantised layers become plain
            ones, and an adapter that was trained next to them part of these.
        config: Its settings.
        folder: In PEFT's layout, or a run's that has such a folder ``adapter``.
        sha256: Of the base's weights.

    Raises:
        CheckpointError: If the folder cannot be read, or its adapter is for another model.
    """
    dequantise_layers(model)
    detach(model)
    if folder is None:
        return
    found = read_adapter_folder(folder, config, model.state_dict())
    found.check_base(sha256)
    if found.beside:
        problem = f"brings {found.beside[0]} of its own, for what its run was trained to predict"
        raise CheckpointError(found.where, problem, "Open that run instead")
    _warn_of_other_precision(found, "")
    training = model.training
    like = next(model.parameters())
    attach(model, found.settings)
    model.to(like.device, like.dtype).train(training)
    _copy_adapter(model, found)
    # Merged, because predicting then costs no more than without an adapter.
    merge(model)
