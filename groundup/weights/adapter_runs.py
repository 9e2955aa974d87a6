"""Runs that train adapters: the base, which stays as it is, checkpoints, which hold the adapter
alone, and both put together."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig, PredictsOutputs
from groundup.contracts.shared_weights import SharesEmbedding, SharesTensors
from groundup.core.errors import CheckpointError, RecipeError
from groundup.core.seeding import reseed
from groundup.machine.meta_device import without_content
from groundup.nn.lora.adapters import (
    LOW_RANK,
    adaptable,
    adapted,
    attach,
    dequantize_layers,
    detach,
    fits,
    merge,
    ranks_of,
)
from groundup.nn.lowbit.nf4 import quantized_shapes
from groundup.nn.part_names import BLOCK, HEADS, TASK_WEIGHTS
from groundup.recipe.adapter import Adapter
from groundup.recipe.recipe import Recipe
from groundup.runs.run import Run
from groundup.weights.initial_weights import InitialWeights, choose_initial_weights
from groundup.weights.read_peft import AdapterTensors, read_adapter_folder
from groundup.weights.restore import FrozenWeightsRef

__all__ = ["attach_adapter", "base_reference", "settle_adapter", "use_adapter"]

log = logging.getLogger("groundup")


def base_reference(run: Run, initial: InitialWeights | None = None) -> dict[str, Any]:
    """Return what a run starts from, as its checkpoints name it: folder or name, step, SHA-256 of
    the weights.

    The weights are those before any quantization; ``quantized`` says how it was done, where it was.
    """
    reference = (initial or choose_initial_weights(run)).reference()
    # The same weights in few bits are another base: an adapter next to one does not fit the other.
    if run.recipe.adapter is not None and run.recipe.adapter.quantized:
        reference["quantised"] = run.recipe.adapter.quantized
    return reference


def settle_adapter(run: Run, recipe: Recipe) -> Recipe:
    """Return a recipe whose adapter section says all that the adapter says which it goes on from.

    Raises:
        RecipeError: If it says something else than that.
        CheckpointError: If the folder cannot be read.
    """
    asked = recipe.adapter
    # Of a run that has trained its adapter, what it began with may be gone.
    if asked is None or asked.path is None or run.checkpoints.steps():
        return recipe
    with without_content():
        model = recipe.model.build()
    found = read_adapter_folder(Path(asked.path), recipe.model, model.state_dict(), asked)
    _check_same_settings(asked, found, model)
    told = found.settings.model_copy(
        update={"modules_to_save": (*found.settings.modules_to_save, *asked.modules_to_save)}
    )
    own = {name: dict(asked)[name] for name in asked.model_fields_set - set(_TOLD)}
    settled = told.model_copy(update={**own, "rank": Adapter().rank})
    run.event(0, f"{run.folder}: goes on from {_in_words(found)}")
    update: dict[str, Any] = {"adapter": settled}
    if found.own_head:
        message = "its output layer is not the embedding any more: model.tied_embeddings is false"
        run.event(0, f"{run.folder}: {message}")
        update["model"] = recipe.model.model_copy(update={"tied_embeddings": False})
    return recipe.model_copy(update=update)


_TOLD = (  # what a folder tells
    "name",
    "rank",
    "alpha",
    "rank_stabilized",
    "targets",
    "modules_to_save",
    "bias",
    "trainable_token_indices",
)


def _check_same_settings(asked: Adapter, found: AdapterTensors, model: nn.Module) -> None:
    """Raise an error where a recipe says other settings than the adapter that it goes on from."""
    told = dict(found.settings)
    differing: dict[str, tuple[Any, Any]] = {}
    for key in asked.model_fields_set & set(_TOLD) - {"rank", "targets", "modules_to_save"}:
        if dict(asked)[key] != told[key]:
            differing[key] = (dict(asked)[key], told[key])
    saved = found.settings.modules_to_save
    if "modules_to_save" in asked.model_fields_set:
        missing = [n for n in saved if not any(fits(n, each) for each in asked.modules_to_save)]
        if missing:
            differing["modules_to_save"] = (list(asked.modules_to_save), missing)
    # Layer by layer: a recipe and a file may name the same targets in different ways.
    targets_said = "targets" in asked.model_fields_set and asked.targets is not None
    rank_said = "rank" in asked.model_fields_set or isinstance(asked.targets, dict)
    own: dict[str, int] = dict.fromkeys(found.ranks, asked.rank)
    if targets_said:
        own = ranks_of(adaptable(model), asked)
    for name in sorted({*own, *found.ranks}):
        there = (found.stated_ranks.get(name), found.ranks.get(name))
        same = own.get(name) in there if rank_said else (name in own) == (name in found.ranks)
        if not same:
            key = "targets" if targets_said else "rank"
            differing[key] = (f"{name}: {own.get(name)}", f"{name}: {there[0]}")
    for key, (here, there) in differing.items():
        problem = f"gives {here}, but the adapter in {found.where} has {there}"
        remedy = f"Remove {key}: what that adapter has is taken then; or remove path"
        raise RecipeError(f"recipe.adapter.{key}", problem, remedy)


def _in_words(found: AdapterTensors) -> str:
    """Return what an adapter is."""
    settings = found.settings
    ranks = sorted(set(found.stated_ranks.values()))
    words = f"{found.where}: {settings.name}, rank {', '.join(map(str, ranks))}, alpha"
    words += f" {settings.alpha:g}, {len(found.ranks)} layers"
    if found.ranks != found.stated_ranks:
        words += ", of twice the rank here with what it took off its base when it began"
    if settings.modules_to_save:
        words += f"; whole: {', '.join(settings.modules_to_save)}"
    if settings.bias != "none":
        words += f"; biases: {settings.bias}"
    if settings.trainable_token_indices:
        words += f"; rows of {len(settings.trainable_token_indices)} tokens"
    return words


def attach_adapter(
    model: nn.Module, run: Run, initial: InitialWeights, *, untrained: bool = False
) -> FrozenWeightsRef:
    """Put the recipe's adapters next to the layers of a model that has the base's weights, and
    freeze those.

    What a task adds to the model, a new head and what the recipe says are trained as a whole. With
    ``untrained`` they change nothing, whatever folder the recipe goes on from.

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
    _refuse_shared(model, settings)
    whole = _trained_whole(model, settings)
    # Taken before there are adapters, whose tensors are trained and saved, and so not the base's.
    names = frozenset(name for name in model.state_dict() if not name.startswith(trained))
    # A purpose of its own: the matrices A do not depend on what the base drew.
    reseed(recipe.seed, "adapter")
    named = {pattern for pattern, _ in settings.patterns()}

    def spared(name: str) -> bool:
        # What is trained whole needs no change of low rank, unless it is asked for by its name.
        return f"{name}.".startswith(trained) or (f"{name}.weight" in whole and name not in named)

    attach(model, settings, spared)
    if settings.bias == "lora_only":
        whole |= {f"{name}.bias" for name in adapted(model)} & names
    names -= whole
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    if run.checkpoints.newest_intact() is None:
        _say_what_has_none(run, model)
    reference = base_reference(run, initial)
    # A run's own checkpoints hold what it has made of the adapter that it began with.
    if settings.path is not None and not untrained and not run.checkpoints.steps():
        base = {name: value for name, value in model.state_dict().items() if name in names | whole}
        _continue_from(model, recipe.model, settings, base, reference["sha256"])
    return FrozenWeightsRef(names, reference)


def _trained_whole(model: nn.Module, settings: Adapter) -> set[str]:
    """Return the names of the tensors that a recipe trains whole next to the adapter.

    Raises:
        RecipeError: If it names a part that there is not.
    """
    # Quantized layers hold no floats to train, and have no tensor here.
    tensors = [name for name, _ in model.named_parameters()]
    found: set[str] = set()
    for pattern in settings.modules_to_save:
        names = {name for name in tensors if _is_within(name, pattern)}
        if not names:
            parts = sorted({name.partition(".")[0] for name in tensors})
            problem = f"no part with weights in floats is called {pattern!r}; there are"
            problem += f" {', '.join(parts)}, and what is within them"
            if pattern == "head" and "embed.weight" in tensors:
                problem += "; the output layer is embed, the embedding"
            raise RecipeError("recipe.adapter.modules_to_save", problem, "Name some of these")
        found |= names
    if settings.bias == "all":
        found |= {name for name in tensors if name.endswith(".bias")}
    if settings.bias != "none" and not any(name.endswith(".bias") for name in tensors):
        problem = f"is {settings.bias}, but the model has no bias"
        raise RecipeError("recipe.adapter.bias", problem, "Remove it")
    return found


def _is_within(name: str, pattern: str) -> bool:
    """Return whether a tensor is part of a module that a pattern names."""
    parts = name.split(".")
    return any(fits(".".join(parts[:end]), pattern) for end in range(1, len(parts)))


def _refuse_shared(model: nn.Module, settings: Adapter) -> None:
    """Raise an error if a table that another layer computes with is to get an adapter: that layer
    would not follow. Trained as a whole, it is the same tensor in both."""
    if not isinstance(model, SharesTensors):
        return
    asked = [pattern for pattern, _ in settings.patterns()]
    for name in sorted(set(model.tied.values())):
        layer = name.rpartition(".")[0]
        named = any(fits(layer, each, exactly=True) for each in asked)
        if named or settings.trainable_token_indices:
            problem = f"changes {layer}, which is also the output layer of this architecture"
            remedy = f"Leave it out, or train it whole: adapter.modules_to_save: [{layer}]"
            raise RecipeError("recipe.adapter", problem, remedy)


def _say_what_has_none(run: Run, model: nn.Module) -> None:
    """Say in the run's log which weights of blocks have no adapter because they are in no linear
    layer, such as experts that are stacked."""
    sizes: dict[str, int] = {}
    whole = 0
    for name, parameter in model.named_parameters():
        if BLOCK.match(name) and name.rpartition(".")[2] not in LOW_RANK:
            whole += parameter.numel()
            if parameter.ndim > 2:
                kind = BLOCK.sub("", name, count=1)
                sizes[kind] = sizes.get(kind, 0) + parameter.numel()
    if sizes:
        share = sum(sizes.values()) / whole
        layers = len(adapted(model))
        run.event(
            0,
            f"{run.folder}: {layers} linear layers have an adapter; {', '.join(sizes)} of the"
            f" blocks, {share:.0%} of their weights, are no linear layers and stay as they are",
        )


def _continue_from(
    model: nn.Module,
    config: ModelConfig,
    settings: Adapter,
    base: dict[str, Tensor],
    sha256: str,
) -> None:
    """Fill a model's adapters, and what is trained whole, with those of the folder that the recipe
    names."""
    # Quantized layers are not in state_dict, but an adapter for them is read by their shapes.
    shapes = {
        f"{name}.weight": torch.empty(shape, device="meta")
        for name, shape in quantized_shapes(model).items()
    }
    found = read_adapter_folder(Path(str(settings.path)), config, base | shapes, settings)
    found.check_base(sha256)
    if found.stated_ranks != found.ranks and shapes:
        problem = f"is {settings.base}, but the adapter in {settings.path} took a part off its base"
        remedy = "Set adapter.base: fp32"
        raise RecipeError("recipe.adapter.base", f"{problem} in floats when it began", remedy)
    _warn_of_other_precision(found, settings.quantized)
    _copy_adapter(model, found)


def _warn_of_other_precision(found: AdapterTensors, here: str) -> None:
    if found.quantized != here:
        log.warning(
            "%s was trained next to a base in %s; next to one in %s it works a little less well",
            found.where,
            found.quantized or "fp32",
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


def use_adapter(
    model: nn.Module,
    config: ModelConfig,
    folder: Path | None,
    sha256: str,
    replaced: dict[str, Tensor],
) -> None:
    """Let a model predict with the adapter in a folder, in place of one that it has; None takes
    that away.

    Args:
        model: A model with the base's weights, changed in place. Quantized layers become plain
            ones, and an adapter that was trained next to them part of these.
        config: Its settings.
        folder: In PEFT's layout, or a run's that has such a folder ``adapter``.
        sha256: Of the base's weights.
        replaced: Tensors of the base in whose place the adapter before has put its own; changed in
            place, to those of this one.

    Raises:
        CheckpointError: If the folder cannot be read, or its adapter is for another model.
    """
    dequantize_layers(model)
    detach(model)
    _put_back(model, replaced)
    if folder is None:
        return
    found = read_adapter_folder(folder, config, model.state_dict())
    found.check_base(sha256)
    head = next((name for name in found.whole if name.startswith(HEADS)), None)
    if head is not None and isinstance(config, PredictsOutputs):
        problem = f"brings {head} of its own, for what its run was trained to predict"
        raise CheckpointError(found.where, problem, "Open that run instead")
    _warn_of_other_precision(found, "")
    training = model.training
    like = next(model.parameters())
    if found.own_head and isinstance(model, SharesEmbedding):
        model.separate_head()
    own = model.state_dict()
    replaced |= {name: own[name].clone() for name in found.whole}
    attach(model, found.settings)
    model.to(like.device, like.dtype).train(training)
    _copy_adapter(model, found)
    # Merged, because predicting then costs no more than without an adapter.
    merge(model)


@torch.no_grad()
def _put_back(model: nn.Module, replaced: dict[str, Tensor]) -> None:
    own = model.state_dict()
    for name, value in replaced.items():
        own[name].copy_(value)
    replaced.clear()
    if isinstance(model, SharesEmbedding):
        model.share_head()
