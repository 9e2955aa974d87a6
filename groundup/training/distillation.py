"""Distillation: a run learns from what another run's model predicts, besides the data.

The teacher is no part of the model that is trained: checkpoints name it by its SHA-256 and do not
hold it. It computes in training only, in evaluation mode and without gradients; a run that is
judged or predicts needs no teacher.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.contracts.models import context_length_of
from groundup.core.contracts.tasks import Objective, Task
from groundup.core.errors import CheckpointError, RecipeError
from groundup.core.values import Batch, Loss, Term
from groundup.recipe.sections import Distill
from groundup.runs.run import Run
from groundup.weights.initial_weights import weights_of
from groundup.weights.load import weights_sha256

__all__ = ["Taught", "check_same_teacher", "divergence", "taught"]

_KINDS = {"language_modeling": "next tokens", "chat": "next tokens", "classify": "classes"}


class Taught(NamedTuple):
    """What a model returns in training beside a teacher: its own logits, and the teacher's for the
    same inputs."""

    student: Tensor
    teacher: Tensor


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
    wide = torch.float64 if student.dtype == torch.float64 else torch.float32
    own, others = (F.log_softmax(x.to(wide) / settings.temperature, -1) for x in (student, teacher))
    first, second = (others, own) if settings.divergence == "forward" else (own, others)
    # 0 log 0 is 0 where a token has no share at all
    terms = torch.where(first == -torch.inf, 0.0, first.exp() * (first - second))
    return terms.sum() * settings.temperature**2


class _TaughtTask:
    """A task with a term for how far the student's predictions are from the teacher's. All else is
    the task's own."""

    def __init__(self, task: Task, settings: Distill) -> None:
        self._task, self._settings = task, settings

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_task"], name)

    def loss(self, outputs: Any, batch: Batch) -> Loss:
        """Return the task's loss; in training times 1 - weight, and the divergence from the teacher
        times weight."""
        if not isinstance(outputs, Taught):
            return self._task.loss(outputs, batch)
        student, teacher = outputs
        if student.shape != teacher.shape:
            problem = f"predicts {teacher.shape[-1]} outputs, and this model {student.shape[-1]}"
            raise RecipeError(
                "recipe.distill.teacher", problem, "Choose a teacher with the same outputs"
            )
        if "targets" in batch:
            kept = batch["targets"] >= 0
            student, teacher = student[kept], teacher[kept]
            wide = student if student.dtype == torch.float64 else student.float()
            own = self._task.loss(
                F.cross_entropy(wide, batch["targets"][kept], reduction="sum"), batch
            )
        else:
            own = self._task.loss(student, batch)
        share = self._settings.weight
        terms = {
            name: dataclasses.replace(term, weight=term.weight * (1 - share))
            for name, term in own.terms.items()
        }
        count = torch.tensor(float(len(student)))
        return Loss(
            {**terms, "teacher": Term(divergence(student, teacher, self._settings), count, share)},
            own.metrics,
        )

    def build_objective(self, model: nn.Module, processor: Any) -> Objective:
        """Return ``loss``, which learns from the teacher in training."""
        return self.loss

    def counts(self, batch: Batch) -> dict[str, float] | None:
        """Return what the task's terms count, and the examples that the teacher is asked about."""
        own = self._task.counts(batch)
        return None if own is None else {**own, "teacher": float(len(batch["labels"]))}


def taught(
    model: nn.Module, run: Run, processor: Any, teachers: Any, examples: Sequence[Any]
) -> tuple[Task, Any]:
    """Let the model of a run return ``Taught`` in training, and return the task that learns from
    it.

    Args:
        model: On its device, changed in place.
        run: Its recipe has a section ``distill``.
        processor: The run's.
        teachers: The teacher's.
        examples: Some of the training examples, by which the two are compared.

    Returns:
        The task; and the teacher's folder, step and SHA-256, as checkpoints name it.

    Raises:
        RecipeError: If the teacher predicts something else, or reads its inputs in another way.
    """
    recipe, settings = run.recipe, cast(Distill, run.recipe.distill)
    teacher = Run.open(Path(settings.teacher))
    task = recipe.task
    _check(task, recipe.model, teacher)
    _check_processors(task, processor, teachers, examples)
    step, like = teacher.pick(settings.checkpoint), next(model.parameters())
    other = teacher.recipe.model.build()
    other.load_state_dict(weights_of(teacher, step), strict=True)
    other = other.to(like.device, like.dtype).eval().requires_grad_(False)

    def without_targets(student: nn.Module, args: Any, named: dict[str, Any]) -> Any:
        kept = {name: value for name, value in named.items() if name != "targets"}
        return (args, kept) if student.training else None

    def with_teacher(student: nn.Module, args: Any, named: dict[str, Any], outputs: Tensor) -> Any:
        if not student.training:
            return None
        with torch.no_grad():
            return Taught(outputs, other(*args, **named))

    model.register_forward_pre_hook(without_targets, with_kwargs=True)
    model.register_forward_hook(with_teacher, with_kwargs=True)
    reference = {"run": str(teacher.folder), "step": step, "sha256": weights_sha256(teacher, step)}
    return cast(Task, _TaughtTask(task, settings)), reference


def check_same_teacher(state: Mapping[str, Any], teacher: Mapping[str, Any], where: str) -> None:
    """Make sure that a checkpoint was trained with the teacher that there is.

    Raises:
        CheckpointError: If it had another one.
    """
    if state.get("teacher", {}).get("sha256") != teacher["sha256"]:
        run, step = teacher["run"], teacher["step"]
        problem = f"learned from other weights than {run} holds at step {step}"
        remedy = "Restore that run as it was, or train this one under another name"
        raise CheckpointError(where, problem, remedy)


def _check(task: Task, config: Any, teacher: Run) -> None:
    theirs = teacher.recipe.task
    own, other = (_KINDS.get(each.registered_name) for each in (task, theirs))
    if own is None or getattr(task, "labels", "single") == "multi_label":
        problem = (
            f"task {task.registered_name} cannot learn from a teacher; allowed: {', '.join(_KINDS)}"
            " (of one label)"
        )
        raise RecipeError("recipe.distill", problem, "Remove it")
    if own != other or getattr(theirs, "labels", "single") == "multi_label":
        problem = f"was trained on task {theirs.registered_name}, and this run predicts {own}"
        raise RecipeError("recipe.distill.teacher", problem, "Choose a teacher that does")
    length, reads = (context_length_of(each) for each in (config, teacher.recipe.model))
    if 0 < reads < length:
        problem = f"reads {reads} tokens, and this model {length}"
        raise RecipeError(
            "recipe.distill.teacher", problem, f"Set model.context_length to at most {reads}"
        )


def _check_processors(task: Task, own: Any, teachers: Any, examples: Sequence[Any]) -> None:
    def differ(what: str) -> RecipeError:
        remedy = "Leave the section processor out: it is then the teacher's"
        return RecipeError("recipe.distill.teacher", f"{what} than this run's processor", remedy)

    if own.vocabulary_size != teachers.vocabulary_size:
        raise differ(f"has {teachers.vocabulary_size} tokens, other")
    if own.labels != teachers.labels:
        raise differ(f"knows other classes ({', '.join(map(str, teachers.labels))})")
    for example in examples:
        if not _same(task.encode([example], own), task.encode([example], teachers)):
            raise differ(f"reads {getattr(example, 'name', 'an example')} as other numbers")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    return all(a.tokens.tolist() == b.tokens.tolist() for a, b in zip(one, other, strict=True))
