"""The teacher that a run's recipe names, once it is known to predict what the run does and to read
its inputs in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from groundup.contracts.data import DataSource
from groundup.contracts.models import context_length_of
from groundup.contracts.processors import Processor
from groundup.contracts.tasks import Distils, Task
from groundup.core.errors import RecipeError
from groundup.core.values import Batch, TokenSequence
from groundup.runs.processor import cache_folder, load_processor
from groundup.runs.run import Run
from groundup.training.distillation import Teacher
from groundup.weights.initial_weights import weights_of
from groundup.weights.load import weights_sha256

__all__ = ["load_teacher"]

_COMPARED = 8  # examples that a teacher must read as the run does


def load_teacher(
    run: Run, processor: Processor, source: DataSource, device: torch.device, dtype: torch.dtype
) -> Teacher:
    """Return the teacher that a run's recipe names.

    Args:
        run: Its recipe has a section ``distill``.
        processor: The run's.
        source: The run's data; where the run has a processor of its own, some examples of it must
            be read by both in the same way.
        device: Where to compute.
        dtype: Of the teacher's weights.

    Raises:
        RecipeError: If the teacher predicts something else, or reads its inputs in another way.
    """
    recipe = run.recipe
    settings = run.recipe.distill
    assert settings is not None
    teacher = Run.open(Path(settings.teacher))
    # What needs no weights comes first: a large teacher takes long to read.
    _check_predictions(recipe.task, recipe.model, teacher)
    own_processor = recipe.init.run is not None or recipe.init.pretrained is not None
    # Without weights to start from, the run has the teacher's processor itself.
    examples = source.examples("train", cache_folder()) if own_processor else ()
    other = load_processor(teacher.folder / "processor")
    _check_processors(recipe.task, processor, other, list(islice(examples, _COMPARED)))
    step = teacher.pick(settings.checkpoint)
    model = teacher.recipe.model.build()
    model.load_state_dict(weights_of(teacher, step), strict=True)
    model = model.to(device, dtype).eval().requires_grad_(False)
    sha256 = weights_sha256(teacher, step)
    return Teacher(model, settings, {"run": str(teacher.folder), "step": step, "sha256": sha256})


def _check_predictions(task: Task, config: Any, teacher: Run) -> None:
    own, other = (_distilled_by(each) for each in (task, teacher.recipe.task))
    if not own:
        raise RecipeError(
            "recipe.distill",
            f"task {task.registered_name} cannot learn from a teacher",
            "Remove it, or choose a task of next tokens or of one label, such as classify",
        )
    if own != other:
        name = teacher.recipe.task.registered_name
        raise RecipeError(
            "recipe.distill.teacher",
            f"was trained on task {name}, but this run predicts {own}",
            "Choose a teacher that does",
        )
    length = context_length_of(config)
    reads = context_length_of(teacher.recipe.model)
    # 0 is a model that reads no sequences, which no context is too long for.
    if 0 < reads < length:
        raise RecipeError(
            "recipe.distill.teacher",
            f"reads {reads} tokens, but this model {length}",
            f"Set model.context_length to at most {reads}",
        )


def _distilled_by(task: Task) -> str:
    """Return what a task can learn from a teacher, in words, or an empty text."""
    return task.distils if isinstance(task, Distils) else ""


def _check_processors(
    task: Task, own: Processor, other: Processor, examples: Sequence[Any]
) -> None:
    """Raise an error if a teacher's processor makes other numbers than the run's."""

    def differ(what: str) -> RecipeError:
        remedy = "Leave the section processor out: it is then the teacher's"
        return RecipeError("recipe.distill.teacher", f"{what} than this run's processor", remedy)

    if own.vocabulary_size != other.vocabulary_size:
        raise differ(f"has {other.vocabulary_size} tokens, other")
    if own.labels != other.labels:
        raise differ(f"knows other classes ({', '.join(other.labels)})")
    for example in examples:
        # Vocabularies of one size may still number their tokens differently.
        if not _is_same(task.encode([example], own), task.encode([example], other)):
            raise differ(f"reads {example.name} as other numbers")


def _is_same(one: list[TokenSequence] | Batch, other: list[TokenSequence] | Batch) -> bool:
    if isinstance(one, dict):
        assert isinstance(other, dict)
        return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert isinstance(other, list)
    return all(a.tokens.tolist() == b.tokens.tolist() for a, b in zip(one, other, strict=True))
