"""Settings next to the size of the data and the length of the run: what will not happen as a recipe
says is said before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from groundup.contracts.models import context_length_of
from groundup.core.errors import RecipeError
from groundup.recipe.recipe import Recipe

__all__ = ["check_layers", "check_plan", "refuse_contradictions"]


def refuse_contradictions(recipe: Recipe) -> None:
    """Refuse settings that mean nothing without another one.

    Raises:
        RecipeError: Naming both.
    """
    samples = recipe.samples
    init = recipe.init
    if samples.prompts and samples.every is None:
        raise RecipeError(
            "recipe.samples.prompts",
            "has no effect without samples.every: nothing would be sampled",
            "Set samples.every, such as 100",
        )
    if samples.every is not None and not samples.prompts:
        raise RecipeError(
            "recipe.samples.every",
            f"is {samples.every}, but there are no samples.prompts: nothing would be sampled",
            "Give samples.prompts, or remove it",
        )
    if init.checkpoint != "last" and init.run is None:
        raise RecipeError(
            "recipe.init.checkpoint", "has no effect without init.run", "Remove it, or set init.run"
        )


def check_plan(
    recipe: Recipe, samples_per_epoch: int, total_steps: int, longest: int | None = None
) -> list[str]:
    """Return what of a recipe will come otherwise than it says, a line each.

    Args:
        recipe: The recipe.
        samples_per_epoch: Samples in one pass over the training split.
        total_steps: Updates in the whole run.
        longest: The tokens of its longest document, where there are documents.
    """
    return [
        *_check_context(recipe, longest),
        *_check_batch(recipe, samples_per_epoch, total_steps),
        *_check_schedule(recipe, total_steps),
        *_check_intervals(recipe, total_steps),
        *_check_patience(recipe, samples_per_epoch, total_steps),
    ]


def check_layers(depth: Callable[[int], int], total_steps: int) -> list[str]:
    """Return what gradual unfreezing does not come to, given how deep it is at a step."""
    reached = depth(total_steps - 1)
    whole = depth(10**12)
    if reached == whole:
        return []
    return [
        f"init.unfreeze_every: the run's {_count(total_steps, 'update')} release {reached} of"
        f" {whole} levels; the others stay frozen to the end"
    ]


def _check_context(recipe: Recipe, longest: int | None) -> Iterator[str]:
    context = context_length_of(recipe.model)
    # Weights that come from elsewhere have a context that nobody chose for this data.
    begun = recipe.init.run is not None or recipe.init.pretrained is not None
    # one more than is fed: the last token is only predicted
    if longest and context and longest - 1 < context and not begun:
        yield (
            f"model.context_length {context:,} is more than the longest document has,"
            f" {_count(longest, 'token')}: what is further apart is never learned"
        )


def _check_batch(recipe: Recipe, per_epoch: int, total_steps: int) -> Iterator[str]:
    training = recipe.training
    batch = training.batch_size
    passes = total_steps * batch / per_epoch
    what = "row" if recipe.data.packs_rows else "example"
    if batch > per_epoch:
        yield (
            f"training.batch_size {batch:,} is more than the training split's"
            f" {_count(per_epoch, what)}: each update takes every one"
            f" {batch / per_epoch:.3g} times, and the run, of"
            f" {_count(total_steps, 'update')}, goes over the data {passes:.3g} times"
        )
    wanted = training.samples or (training.epochs or 0) * per_epoch
    if 0 < wanted < batch <= per_epoch:
        given = f"samples {training.samples}"
        if training.epochs is not None:
            given = f"epochs {training.epochs:g}"
        yield (
            f"training.{given} is less than a batch ({wanted:.3g} {what}s): one update of"
            f" {_count(batch, what)} is done"
        )


def _check_schedule(recipe: Recipe, total_steps: int) -> Iterator[str]:
    optim = recipe.optim
    warmup = optim.warmup_steps
    if warmup >= total_steps:
        reached = optim.lr * total_steps / warmup
        yield (
            f"optim.warmup_steps {warmup:,} is not below the run's"
            f" {_count(total_steps, 'update')}: the learning rate ends at {reached:.3g}"
            + (", below optim.lr" if warmup > total_steps else "")
            + ", and never falls"
        )
        return
    if optim.schedule == "wsd":
        decay = math.ceil(optim.decay_fraction * total_steps)
        if warmup + decay > total_steps:
            yield (
                f"optim.decay_fraction {optim.decay_fraction:g} is {_count(decay, 'update')}, and"
                f" optim.warmup_steps {warmup:,}: more than the run's {total_steps:,}. The decay"
                f" begins after the warm-up and takes {total_steps - warmup:,}"
            )
    if optim.average == "swa":
        averaged = total_steps - math.floor(optim.average_from * total_steps)
        if averaged < 2:
            yield f"optim.average swa is of {_count(averaged, 'update')}: nothing is averaged"


def _check_intervals(recipe: Recipe, total_steps: int) -> Iterator[str]:
    # Of the defaults nobody said anything: a short run has none of them.
    sections = (recipe.logging, recipe.evaluation, recipe.checkpoints, recipe.samples)
    longer = [
        f"{type(section).__name__.lower()}.every {section.every:,}"
        for section in sections
        if "every" in section.model_fields_set
        and isinstance(section.every, int)
        and section.every > total_steps
    ]
    if longer:
        are = "is" if len(longer) == 1 else "are"
        yield (
            f"{', '.join(longer)} {are} more than the run's {_count(total_steps, 'update')}: what"
            " it sets happens once, after the last"
        )


def _check_patience(recipe: Recipe, per_epoch: int, total_steps: int) -> Iterator[str]:
    patience = recipe.training.patience
    if patience is None:
        return
    every = recipe.evaluation.every
    steps = every if isinstance(every, int) else max(1, per_epoch / recipe.training.batch_size)
    validations = math.ceil(total_steps / steps)
    # The first one is what later ones are compared with, and the last comes when all is done.
    if patience + 1 >= validations:
        yield (
            f"training.patience {patience} cannot stop the run early: it has"
            f" {_count(validations, 'validation')}"
        )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
