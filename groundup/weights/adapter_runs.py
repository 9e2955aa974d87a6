"""Runs that train adapters: the frozen base, checkpoints, which hold the adapter alone, and both
put together."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.core.contracts.models import ModelConfig
from groundup.core.errors import CheckpointError, RecipeError
from groundup.core.seeding import reseed
from groundup.nn.lora.adapters import (
    LOW_RANK,
    adapted,
    attach,
    dequantise_layers,
    detach,
    merge,
    merged_tensors,
)
from groundup.nn.lowbit.nf4 import quantised_shapes
from groundup.nn.part_names import HEADS, TASK_WEIGHTS
from groundup.runs.checkpoint import Checkpoint
from groundup.runs.run import Run
from groundup.weights.load import pretrained_weights, weights_sha256
from groundup.weights.peft_folder import AdapterTensors, read_adapter_folder
from groundup.weights.quantised_base import weights_as_quantised

__all__ = [
    "Frozen",
    "adapt",
    "base_reference",
    "starting_run",
    "use_adapter",
    "weights_of",
]

log = logging.getLogger("groundup")


@dataclass(frozen=True)
class Frozen:
    """The tensors of the base that a run with an adapter neither trains nor saves, and where they
    are to be found.

    Without an adapter there are none, and nothing here changes anything.

    Attributes:
        names: Their names.
        reference: The base run's folder, or the name of the pretrained weights; the step; the
            SHA-256 of its weights; how they were quantised, if they were.
        teacher: The same of the run that it learns from, if any.
    """

    names: frozenset[str] = frozenset()
    reference: dict[str, Any] = field(default_factory=dict)
    teacher: dict[str, Any] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint says of the base, and of the teacher."""
        known = {"base": self.reference, "teacher": self.teacher}
        return {key: value for key, value in known.items() if value}

    def left_out(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the other tensors."""
        return {name: value for name, value in tensors.items() if name not in self.names}

    def completed(self, checkpoint: Checkpoint, model: nn.Module, where: str) -> Checkpoint:
        """Return a checkpoint with the base's tensors in it again, as the model has them.

        Raises:
            CheckpointError: If the checkpoint is of an adapter for another base, or had another
                teacher.
        """
        there = checkpoint.state.get("teacher", {}).get("sha256")
        if self.teacher and there != self.teacher["sha256"]:
            problem = (
                f"learned from other weights than {self.teacher['run']} holds at step"
                f" {self.teacher['step']}"
            )
            raise CheckpointError(
                where, problem, "Restore that run as it was, or train this one under another name"
            )
        if not self.reference:
            return checkpoint
        _check_same_base(checkpoint, self.reference, where)
        own = {
            name: value.detach() for name, value in model.state_dict().items() if name in self.names
        }
        return dataclasses.replace(checkpoint, model={**own, **checkpoint.model})


def _check_same_base(checkpoint: Checkpoint, reference: Mapping[str, Any], where: str) -> None:
    there = checkpoint.state.get("base", {})
    if there.get("sha256") != reference["sha256"]:
        was, now = str(there.get("sha256"))[:12], str(reference["sha256"])[:12]
        problem = (
            f"is an adapter for other weights than {reference['run']} holds at step"
            f" {reference['step']}"
        )
        remedy = "Restore that run as it was, or train the adapter again under another name"
        raise CheckpointError(where, f"{problem} (SHA-256 {was}... then, {now}... now)", remedy)
    then, here = (each.get("quantised") or "fp32" for each in (there, reference))
    if then != here:
        problem = f"was trained beside a base in {then}, and the run's recipe.yaml says {here}"
        raise CheckpointError(where, problem, "Restore adapter.base in it")


def starting_run(run: Run) -> tuple[Run, int]:
    """Return the run that another one's ``init`` section names, and the step of the checkpoint."""
    assert run.recipe.init.run is not None
    start = Run.open(Path(run.recipe.init.run))
    return start, start.pick(run.recipe.init.checkpoint)


def base_reference(run: Run) -> dict[str, Any]:
    """Return what a run starts from, as its checkpoints name it: folder or name, step, SHA-256 of
    the weights.

    The weights are those before any quantisation; ``quantised`` says how it was done, where it was.
    """
    kept = run.recipe.adapter.quantised if run.recipe.adapter is not None else ""
    more = {"quantised": kept} if kept else {}
    if run.recipe.init.pretrained is not None:
        recorded = run.read_json("environment.json") or {}
        return {
            "run": run.recipe.init.pretrained,
            "step": 0,
            "sha256": recorded.get("base_weights_sha256"),
            **more,
        }
    start, step = starting_run(run)
    return {"run": str(start.folder), "step": step, "sha256": weights_sha256(start, step), **more}


def weights_of(run: Run, step: int) -> dict[str, Tensor]:
    """Return all weights of a run's checkpoint; an adapter comes merged into the weights of its
    base.

    If it was trained beside a quantised base, these are what the few bits stand for, and the sum is
    in float32: the same model as was trained.

    Raises:
        CheckpointError: If it is damaged, or an adapter for another base.
    """
    checkpoint = run.checkpoints.load(step, with_optimizer=False)
    if run.recipe.adapter is None:
        return checkpoint.model
    _check_same_base(checkpoint, base_reference(run), str(run.checkpoints.path(step)))
    below = (
        pretrained_weights(run)
        if run.recipe.init.pretrained is not None
        else weights_of(*starting_run(run))
    )
    below = {name: value for name, value in below.items() if not name.startswith(TASK_WEIGHTS)}
    if any(
        name.startswith(HEADS) and name.rpartition(".")[2] not in LOW_RANK
        for name in checkpoint.model
    ):
        below = {name: value for name, value in below.items() if not name.startswith(HEADS)}
    if run.recipe.adapter.quantised:
        below = weights_as_quantised(below, run.recipe.model, run.recipe.adapter)
    return merged_tensors({**below, **checkpoint.model}, run.recipe.adapter)


def adapt(model: nn.Module, run: Run, *, new_head: bool) -> Frozen:
    """Put the recipe's adapters beside the layers of a model that has the base's weights, and
    freeze those.

    What a task adds to the model, and a new head, are trained as a whole.

    Raises:
        RecipeError: If the targets, the ranks or the folder to go on from do not fit.
        CheckpointError: If that folder cannot be read.
    """
    recipe = run.recipe
    if recipe.adapter is None:
        return Frozen()
    trained = (TASK_WEIGHTS, *HEADS) if new_head else (TASK_WEIGHTS,)
    names = frozenset(name for name in model.state_dict() if not name.startswith(trained))
    reseed(recipe.seed, "adapter")
    attach(model, recipe.adapter, spared=lambda name: f"{name}.".startswith(trained))
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    reference = base_reference(run)
    if recipe.adapter.path is not None:
        _go_on_from(model, run, names, reference["sha256"])
    return Frozen(names, reference)


def _go_on_from(model: nn.Module, run: Run, frozen: frozenset[str], sha256: str) -> None:
    settings = run.recipe.adapter
    assert settings is not None
    assert settings.path is not None
    plain = {name: value for name, value in model.state_dict().items() if name in frozen}
    plain |= {
        f"{name}.weight": torch.empty(shape, device="meta")
        for name, shape in quantised_shapes(model).items()
    }
    found = read_adapter_folder(Path(settings.path), run.recipe.model, plain, settings)
    found.check_base(sha256)
    _note(found, settings.quantised)
    kinds: dict[str, tuple[str, str]] = {"name": (settings.name, found.settings.name)}
    own = {name: module.lora_A.shape[0] for name, module in adapted(model).items()}
    for name in sorted({*own, *found.ranks}):
        if own.get(name) != found.ranks.get(name):
            kinds["targets"] = (f"{name}: {own.get(name)}", f"{name}: {found.ranks.get(name)}")
    for key, (here, there) in kinds.items():
        if here != there:
            problem = f"gives {here}, and the adapter in {settings.path} has {there}"
            raise RecipeError(
                f"recipe.adapter.{key}", problem, "Write what that adapter has, or remove path"
            )
    _load(model, found)


def _note(found: AdapterTensors, here: str) -> None:
    if found.quantised != here:
        then, now = found.quantised or "fp32", here or "fp32"
        log.warning(
            "%s was trained beside a base in %s; beside one in %s it works a little less well",
            found.where,
            then,
            now,
        )


def _load(model: nn.Module, found: AdapterTensors) -> None:
    own = model.state_dict()
    extra = sorted(set(found.tensors) - set(own))
    if extra:
        remedy = "Open the run that it was trained in"
        raise CheckpointError(
            found.where, f"holds {extra[0]}, which this model has no place for", remedy
        )
    with torch.no_grad():
        for name, value in found.tensors.items():
            own[name].copy_(value)


def use_adapter(model: nn.Module, config: ModelConfig, folder: Path | None, sha256: str) -> None:
    """Let a model predict with the adapter in a folder, in place of one that it has; None takes
    that away.

    Args:
        model: A model with the base's weights, changed in place. Quantised layers become plain
            ones, and an adapter that was trained beside them part of these.
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
    _note(found, "")
    training, like = model.training, next(model.parameters())
    attach(model, found.settings)
    model.to(like.device, like.dtype).train(training)
    _load(model, found)
    merge(model)
