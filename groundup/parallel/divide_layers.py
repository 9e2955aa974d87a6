"""Which models can be cut into stages, and how a run's is."""

from __future__ import annotations

from torch import nn

from groundup.contracts.tasks import MeasuresOutputs, Task
from groundup.core.errors import RecipeError
from groundup.parallel.layout import Layout
from groundup.parallel.pipeline import Pipeline
from groundup.parallel.pipeline_neighbours import DIRECTIONS, PipelineNeighbours
from groundup.parallel.staged_tensors import StagedTensors
from groundup.parallel.stages import (
    cut_model,
    divide_blocks,
    front_of,
    leave_to_others,
    shared_parts,
)
from groundup.parallel.world import World
from groundup.recipe.recipe import Recipe

__all__ = [
    "check_stages",
    "count_for_stages",
    "divide_layers",
    "note_on_waiting",
    "size_for_stages",
]

_WHERE = "recipe.parallel.pipeline"
_REMEDY = "Remove it, or share the batch with replicate"
# Families in which each block reads what the block before it gives, and what the model's inputs
# say, and nothing else.
_CHAINS = ("bert", "cnn", "gemma3", "gpt", "mlp", "phi3", "vit")
# Those whose blocks are of two stacks: the second reads what the first gives in every block, and
# so stays together.
_TWO_STACKS = ("encoder_decoder",)
# Tasks that call the model several times for a batch only to pad less: once does as well.
_CALLED_ONCE = ("text_to_text",)
# Micro-batches that are made for each stage where their size is left open.
_PER_STAGE = 4


def check_stages(recipe: Recipe, layout: Layout) -> None:
    """Make sure that the steps of a recipe can be computed in stages.

    Raises:
        RecipeError: If the model, the task or another setting does not allow it.
    """
    size = layout.pipeline
    model = recipe.model.registered_name
    task = recipe.task
    # A user's own model is one if its parts say so.
    own = not type(recipe.model).__module__.startswith("groundup.")
    if not own and model not in (*_CHAINS, *_TWO_STACKS):
        allowed = ", ".join(sorted((*_CHAINS, *_TWO_STACKS)))
        problem = f"model {model!r} cannot be cut into stages; allowed: {allowed}, and your own"
        raise RecipeError(_WHERE, f"is {size}, but {problem}", _REMEDY)
    called_once = task.registered_name in _CALLED_ONCE
    if type(task).forward is not Task.forward and not called_once:
        problem = "asks the model in a way of its own, which stages do not answer"
        raise RecipeError(
            _WHERE, f"is {size}, but task {task.registered_name!r} {problem}", _REMEDY
        )
    composed = type(task).build_objective is not Task.build_objective
    if composed and not (called_once and not task.model_dump().get("r_drop")):
        problem = "has a loss that reads more of the model than its outputs"
        raise RecipeError(
            _WHERE, f"is {size}, but task {task.registered_name!r} {problem}", _REMEDY
        )
    if not (task.loss_is_sum and recipe.model.loss_is_sum):
        problem = f"task {task.registered_name!r} with this model is no sum over examples"
        raise RecipeError(
            _WHERE,
            f"is {size}, but the loss of {problem}, so that micro-batches would change it",
            "Remove it, or take a model without batch norm",
        )
    number = count_for_stages(recipe, layout)
    if recipe.parallel.interleave > 1 and number % size:
        raise RecipeError(
            "recipe.parallel.interleave",
            f"needs a multiple of pipeline: {size} micro-batches, but a step has {number}",
            "Change machine.micro_batch_size, or remove it",
        )
    for key, problem, remedy in _refused(recipe, layout):
        raise RecipeError(key, f"{problem}, but with pipeline: {size} no process has one", remedy)


def _refused(recipe: Recipe, layout: Layout) -> list[tuple[str, str, str]]:
    """Return what of a recipe needs a whole model: its key, what it does, and what to do."""
    task = recipe.task
    found = []
    if recipe.samples.every is not None:
        what = "writes with the whole model"
        found.append(("recipe.samples.every", what, "Remove it; predict from a checkpoint instead"))
    if isinstance(task, MeasuresOutputs) and task.measured:
        what = "is the number of examples that the whole model predicts"
        found.append(("recipe.task.measured", what, "Set measured: 0; evaluate the run afterwards"))
    # A teacher is asked where the last stage is, after it; but not by inputs that are padded once.
    if recipe.distill is not None and task.registered_name in _CALLED_ONCE:
        found.append(("recipe.distill", "compares whole models", "Remove it"))
    later = {"unfreeze_every": recipe.init.unfreeze_every, "train_layers": recipe.init.train_layers}
    for key, value in later.items():
        if value is not None:
            what = "counts the blocks of the whole model"
            found.append((f"recipe.init.{key}", what, "Remove it"))
    if recipe.optim.layer_decay != 1:
        what = "counts the blocks of the whole model"
        found.append(("recipe.optim.layer_decay", what, "Remove it"))
    if layout.shard > 1:
        what = "divides the parameters of the whole model"
        found.append(("recipe.parallel.shard", what, "Remove one of shard and pipeline"))
    return found


def divide_layers(model: nn.Module, world: World, recipe: Recipe) -> Pipeline:
    """Keep this process's stages of a model, and return what runs them.

    Args:
        model: The whole one. What other stages have of it is freed; its tensors keep their names.
        world: The processes, arranged as the recipe says.
        recipe: One that ``check_stages`` has passed.

    Raises:
        RecipeError: If the model has no blocks, or too few.
    """
    layout = world.layout
    blocks = model._modules.get("blocks")
    if not isinstance(blocks, nn.ModuleList):
        problem = f"{type(model).__name__} does not list its layers as 'blocks'"
        raise RecipeError(_WHERE, f"is {layout.pipeline}, but {problem}", _REMEDY)
    two_stacks = recipe.model.registered_name in _TWO_STACKS
    divisible = len(blocks)
    if two_stacks:
        divisible = int(recipe.model.model_dump()["layers"])
    place = layout.places["pipeline"]
    chunks = recipe.parallel.interleave
    stages = divide_blocks(len(blocks), layout.pipeline * chunks, divisible)
    shared = frozenset(front_of(model)) if two_stacks else shared_parts(model)
    numbers = [chunk * layout.pipeline + place for chunk in range(chunks)]
    own = cut_model(model, stages, numbers, shared)
    leave_to_others(model, own, shared)
    several = [
        parameter
        for name, parameter in model.named_parameters()
        if name.split(".")[0] in shared and parameter.requires_grad
    ]
    (ranks,) = (each for each in layout.ranks_along("pipeline") if layout.rank in each)
    groups = {name: world.group(name, "pipeline") for name in DIRECTIONS[: 2 * min(chunks, 2)]}
    neighbours = PipelineNeighbours(ranks, place, groups, world.naming)
    world.stages = StagedTensors(model, several, neighbours, ranks, world.gather)
    task = recipe.task
    inputs = task.inputs if task.registered_name in _CALLED_ONCE else None
    return Pipeline(own, neighbours, several, recipe.machine, inputs)


def size_for_stages(samples: int, stages: int) -> int:
    """Return the largest micro-batch of which a process's samples make four or more for each stage,
    or 1.

    With four, processes wait for less than a fifth of a step.
    """
    sizes = range(samples, 0, -1)
    fits = (n for n in sizes if samples % n == 0 and samples // n >= _PER_STAGE * stages)
    return next(fits, 1)


def count_for_stages(recipe: Recipe, layout: Layout) -> int:
    """Return how many micro-batches of a step go through the stages of a process."""
    share = recipe.training.batch_size // layout.data_size
    return share // recipe.machine.settled_micro_batch_size


def note_on_waiting(recipe: Recipe, layout: Layout) -> str:
    """Return what is to be said of processes that wait for others at the ends of a step; empty
    where it is little."""
    number = count_for_stages(recipe, layout)
    if layout.pipeline == 1 or number >= layout.pipeline:
        return ""
    # Of a step's time: a process waits for as many passes as there are other stages.
    waiting = (layout.pipeline - 1) / (number + layout.pipeline - 1)
    return (
        f"a step has {number} micro-batches for {layout.pipeline} processes in a row: each waits"
        f" {waiting:.0%} of the time. A smaller machine.micro_batch_size makes more of them"
    )
