"""The one place where a model is divided between processes, and the work of its steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from groundup.parallel.context import TextPartObjective, check_texts, divide_texts
from groundup.parallel.divide_layers import check_stages, divide_layers
from groundup.parallel.holdings import Holdings
from groundup.parallel.layout import Layout
from groundup.parallel.objective import Objective
from groundup.parallel.pipeline import PipelineObjective
from groundup.parallel.sharded_step import ShardedObjective
from groundup.parallel.tensor import check_matrices, divide_matrices
from groundup.parallel.world import World
from groundup.recipe.recipe import Recipe

if TYPE_CHECKING:
    from groundup.parallel.shard import ShardedModel

__all__ = ["Share", "check_layout", "divide_steps", "hold_parts", "lay_out"]

Share = Callable[[Objective], Objective]
"""Returns what a process computes of an objective."""


def divide_steps(model: nn.Module, world: World, recipe: Recipe) -> Share:
    """Prepare a model for processes that compute each sample together, and return what makes
    objectives this one's share of that work.

    All processes call it at the same time, after ``lay_out``.

    Args:
        model: What this process has of it; it is changed.
        world: The processes, arranged as the recipe says.
        recipe: Of the run, settled; ``check_layout`` has passed it.

    Raises:
        RecipeError: Naming the axis along which the steps of this recipe cannot be divided.
    """
    layout = world.layout
    steps: list[Share] = []
    # From the inside out: each stage reads its part of the texts.
    if layout.context > 1:
        texts = divide_texts(model, layout, world.naming, compiled=recipe.machine.compile is True)
        steps.append(partial(TextPartObjective, texts=texts, spec=recipe.task.batch_spec))
    if layout.pipeline > 1:
        pipeline = divide_layers(model, world, recipe)
        steps.append(partial(PipelineObjective, pipeline=pipeline, world=world))

    def share(objective: Objective) -> Objective:
        for step in steps:
            objective = step(objective)
        return objective

    return share


def check_layout(recipe: Recipe, layout: Layout) -> None:
    """Make sure that a recipe's model and the work of its steps can be divided, by names and shapes
    alone.

    Raises:
        RecipeError: Naming the axis that it cannot be divided along.
    """
    if layout.context > 1:
        check_texts(recipe, layout.context)
    if layout.pipeline > 1:
        check_stages(recipe, layout)
    if layout.tensor > 1:
        check_matrices(recipe, layout)


def lay_out(model: nn.Module, layout: Layout) -> nn.Module:
    """Return what this process has of a model.

    All processes call it at the same time, each with the whole model: with the same weights, on its
    device.

    Args:
        model: The whole one; it may be changed.
        layout: Of the run, connected.

    Raises:
        RecipeError: Naming the axis that this model cannot be divided along.
    """
    if layout.tensor > 1:
        model = divide_matrices(model, layout)
    return model


def hold_parts(model: nn.Module, world: World, recipe: Recipe, share: Share) -> Share:
    """Leave of the parameters of a model that is laid out what this process is to hold, and return
    what makes objectives its share of the work then.

    All processes call it at the same time.

    Args:
        model: What this process computes; changed in place.
        world: The processes, arranged as the recipe says; they learn what each has of a tensor.
        recipe: Of the run, settled.
        share: As ``divide_steps`` returned it.

    Raises:
        RecipeError: If the parameters of this recipe cannot be divided.
    """
    if world.layout.shard == 1:
        return share
    # Here: PyTorch's FSDP takes most of a second to import, and most runs do without.
    from groundup.parallel.shard import divide_parameters

    with world.naming("the parameters are divided"):
        sharded = divide_parameters(model, world.layout, recipe)
    world.holdings = Holdings.of(model, world.layout.tensor, sharded)
    return partial(_share_sharded, share, sharded)


def _share_sharded(inner: Share, sharded: ShardedModel, objective: Objective) -> Objective:
    # Outermost: whatever of the model is asked for within finds whole parameters.
    return ShardedObjective(inner(objective), sharded)
