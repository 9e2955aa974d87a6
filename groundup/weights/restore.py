"""A checkpoint's weights, put back into a model: by name, and with the base's where it holds an
adapter alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.core.errors import CheckpointError
from groundup.runs.checkpoint import Checkpoint

__all__ = ["FrozenWeightsRef", "check_names", "check_same_base", "load_weights", "misfit"]


@dataclass(frozen=True)
class FrozenWeightsRef:
    """The tensors of the base that a run with an adapter neither trains nor saves, and where they
    are to be found.

    Without an adapter there are none, and nothing here changes anything.

    Attributes:
        names: Their names.
        reference: The base run's folder, or the name of the pretrained weights; the step; the
            SHA-256 of its weights; how they were quantized, if they were.
    """

    names: frozenset[str] = frozenset()
    reference: dict[str, Any] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint says of the base."""
        return {"base": self.reference} if self.reference else {}

    def leave_out(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the other tensors."""
        return {name: value for name, value in tensors.items() if name not in self.names}

    def complete(self, checkpoint: Checkpoint, model: nn.Module, where: str) -> Checkpoint:
        """Return a checkpoint with the base's tensors in it again, as the model has them.

        Raises:
            CheckpointError: If the checkpoint is of an adapter for another base.
        """
        if not self.reference:
            return checkpoint
        check_same_base(checkpoint.state, self.reference, where)
        own = model.state_dict()
        # The model has read its base already, and the adapter was made for exactly these numbers.
        base = {name: value.detach() for name, value in own.items() if name in self.names}
        return dataclasses.replace(checkpoint, model={**base, **checkpoint.model})


def check_same_base(state: Mapping[str, Any], reference: Mapping[str, Any], where: str) -> None:
    """Make sure that a checkpoint is of an adapter for the base that there is.

    Args:
        state: The checkpoint's.
        reference: Of the base, and how it is quantized now.
        where: The checkpoint, for the error.

    Raises:
        CheckpointError: If it is for other weights, or they were quantized otherwise.
    """
    there = state.get("base", {})
    if there.get("sha256") != reference["sha256"]:
        was = str(there.get("sha256"))[:12]
        now = str(reference["sha256"])[:12]
        problem = (
            f"is an adapter for other weights than {reference['run']} holds at step"
            f" {reference['step']}"
        )
        raise CheckpointError(
            where,
            f"{problem} (SHA-256 {was}... then, {now}... now)",
            "Restore that run as it was, or train the adapter again under another name",
        )
    # A base that was not quantized has no such entry; a recipe calls that fp32.
    then, here = (each.get("quantised") or "fp32" for each in (there, reference))
    if then != here:
        raise CheckpointError(
            where,
            f"was trained next to a base in {then}, but the run's recipe.yaml says {here}",
            "Restore adapter.base in it",
        )


def check_names(config: ModelConfig, weights: Mapping[str, Tensor], where: str) -> None:
    """Make sure that a checkpoint which training goes on from names tensors as they are named now.

    Raises:
        CheckpointError: If it does not: what the optimizer keeps is in another order.
    """
    renamed = config.renamed_tensors(weights)
    if renamed:
        before, today = next(iter(renamed.items()))
        raise CheckpointError(
            where,
            f"was made when tensor {today} was called {before}: training cannot go on from it, but"
            " it predicts",
            "Start a new run from it: init: {run: ...}",
        )


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Copy weights by name, every one of them.

    Raises:
        CheckpointError: If a name or a shape does not fit; the message names the first.
    """
    own = model.state_dict()
    # The model's names first: what it lacks is named before what it cannot use.
    for name in [*own, *weights]:
        if name not in weights:
            raise misfit(where, f"lacks tensor {name}")
        if name not in own:
            raise misfit(where, f"has an unknown tensor {name}")
        if own[name].shape != weights[name].shape:
            there = list(weights[name].shape)
            here = list(own[name].shape)
            raise misfit(where, f"tensor {name} has shape {there}; the model needs {here}")
    # Checked above, because torch's own error lists every name that differs, often hundreds.
    model.load_state_dict(dict(weights))


def misfit(where: str, problem: str) -> CheckpointError:
    """Return the error about weights that are not a model's."""
    return CheckpointError(
        where, problem, "Use the model section that these weights were trained with"
    )
