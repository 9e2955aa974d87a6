"""Distillation: a run learns from what another run's model predicts, besides the data.

The teacher is no part of the model that is trained: checkpoints name it by its SHA-256 and do not
hold it. It computes in training only, in evaluation mode and without gradients; a run that is
evaluated or predicts needs no teacher.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.contracts.data import DataSource
from groundup.core.contracts.models import context_length_of
from groundup.core.contracts.processors import Processor
from groundup.core.contracts.tasks import Distils, Task
from groundup.core.errors import CheckpointError, RecipeError
from groundup.core.values import Batch, Loss, Term, TokenSequence
from groundup.recipe.sections import Distill
from groundup.runs.processor import cache_folder, load_processor
from groundup.runs.run import Run
from groundup.weights.initial_weights import weights_of
from groundup.weights.load import weights_sha256

__all__ = ["DistillationObjective", "Teacher", "TeacherOutputs", "divergence", "load_teacher"]

_COMPARED = 8  # examples that a teacher must read as the run does


class TeacherOutputs(NamedTuple):
    """A model's logits, and its teacher's for the same inputs."""

    student: Tensor
    teacher: Tensor


@dataclass(frozen=True)
class Teacher:
    """Another run's model, which predicts next to the one that is trained.

    Attributes:
        model: In evaluation mode, without gradients.
        settings: The recipe's section.
        reference: The run's folder, the step and the SHA-256 of its weights, as checkpoints name
            it.
    """

    model: nn.Module
    settings: Distill
    reference: dict[str, Any]

    def check_same(self, state: Mapping[str, Any], where: str) -> None:
        """Make sure that a checkpoint was trained with this teacher.

        Raises:
            CheckpointError: If it had another one.
        """
        if state.get("teacher", {}).get("sha256") != self.reference["sha256"]:
            run, step = self.reference["run"], self.reference["step"]
            problem = f"learned from other weights than {run} holds at step {step}"
            remedy = "Restore that run as it was, or train this one under another name"
            raise CheckpointError(where, problem, remedy)


def divergence(student: Tensor, teacher: Tensor, settings: Distill) -> Tensor:
    """Return the summed Kullback-Leibler divergence of rows of logits (M, V) in nats, times the
    temperature squared.

    ``forward`` is KL(teacher || student), which makes the student give a share to everything that
    the teacher deems likely; ``reverse`` is KL(student || teacher), by which it may leave some of
    that out.

    Source:
        Hinton, Vinyals and Dean, 2015 (arXiv:1503.02531), section 2. Reverse: Gu et al., MiniLLM,
        2023 (arXiv:2306.08543), section 2.1. Departs from the latter: on the data's texts, not on
        texts the student writes.
    """
    wide = torch.promote_types(student.dtype, torch.float32)
    own, others = (F.log_softmax(x.to(wide) / settings.temperature, -1) for x in (student, teacher))
    first, second = (others, own) if settings.divergence == "forward" else (own, others)
    # 0 log 0 is 0 where a token has no share at all
    terms = torch.where(first == -torch.inf, 0.0, first.exp() * (first - second))
    return terms.sum() * settings.temperature**2


class DistillationObjective:
    """The task's loss times 1 - weight, and how far the predictions are from the teacher's times
    weight.

    Args:
        task: Of the run.
        teacher: Its model is asked about every training batch.
    """

    def __init__(self, task: Task, teacher: Teacher) -> None:
        self.name = f"task {task.registered_name}"
        self._counts = task.counts
        assert isinstance(task, Distils)  # as load_teacher has checked
        self._task = task
        self._teacher = teacher
        self._settings = teacher.settings

    def forward(self, model: nn.Module, batch: Batch) -> TeacherOutputs:
        """Run both models on the same inputs."""
        inputs = self._task.prediction_inputs(batch)
        student = model(**inputs)
        with torch.no_grad():
            return TeacherOutputs(student, self._teacher.model(**inputs))

    def __call__(self, outputs: TeacherOutputs, batch: Batch) -> Loss:
        """Return the terms of the task and the teacher's.

        Raises:
            RecipeError: If the two models have different outputs.
        """
        student, teacher = outputs
        if student.shape != teacher.shape:
            problem = f"predicts {teacher.shape[-1]} outputs, but this model {student.shape[-1]}"
            remedy = "Choose a teacher with the same outputs"
            raise RecipeError("recipe.distill.teacher", problem, remedy)
        own = self._task.prediction_loss(student, batch)
        share = self._settings.weight
        terms = {
            name: dataclasses.replace(term, weight=term.weight * (1 - share))
            for name, term in own.terms.items()
        }
        trained = self._task.predicted(batch)
        apart = divergence(student[trained], teacher[trained], self._settings)
        terms["teacher"] = Term(apart, trained.sum(), share)
        return Loss(terms, own.metrics)

    def counts(self, batch: Batch) -> dict[str, float] | None:
        """Return what the task's terms count, and the predictions that the teacher is asked
        about."""
        own = self._counts(batch)
        return None if own is None else {**own, "teacher": float(self._task.predicted(batch).sum())}


# ------------------------------------------------------------------------------------ the teacher
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
    recipe, settings = run.recipe, run.recipe.distill
    assert settings is not None
    teacher = Run.open(Path(settings.teacher))
    _check_predictions(recipe.task, recipe.model, teacher)
    own_processor = recipe.init.run is not None or recipe.init.pretrained is not None
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
        problem = f"task {task.registered_name} cannot learn from a teacher"
        remedy = "Remove it, or choose a task of next tokens or of one label, such as classify"
        raise RecipeError("recipe.distill", problem, remedy)
    if own != other:
        name = teacher.recipe.task.registered_name
        problem = f"was trained on task {name}, but this run predicts {own}"
        raise RecipeError("recipe.distill.teacher", problem, "Choose a teacher that does")
    length, reads = context_length_of(config), context_length_of(teacher.recipe.model)
    if 0 < reads < length:
        problem = f"reads {reads} tokens, but this model {length}"
        remedy = f"Set model.context_length to at most {reads}"
        raise RecipeError("recipe.distill.teacher", problem, remedy)


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
        if not _is_same(task.encode([example], own), task.encode([example], other)):
            raise differ(f"reads {example.name} as other numbers")


def _is_same(one: list[TokenSequence] | Batch, other: list[TokenSequence] | Batch) -> bool:
    if isinstance(one, dict):
        assert isinstance(other, dict)
        return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert isinstance(other, list)
    return all(a.tokens.tolist() == b.tokens.tolist() for a, b in zip(one, other, strict=True))
