"""Distillation: a run learns from what another run's model predicts, in addition to the data.

The teacher is no part of the model that is trained: checkpoints name it by its SHA-256 and do not
hold it. It computes in training only, in evaluation mode and without gradients; a run that is
evaluated or predicts needs no teacher.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.contracts.tasks import Distils, Task
from groundup.core.errors import CheckpointError, RecipeError
from groundup.core.values import Batch, Loss, Term
from groundup.recipe.sections import Distill

__all__ = ["DistillationObjective", "Teacher", "TeacherOutputs", "divergence"]


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
            run = self.reference["run"]
            step = self.reference["step"]
            raise CheckpointError(
                where,
                f"learned from other weights than {run} holds at step {step}",
                "Restore that run as it was, or train this one under another name",
            )


def divergence(student: Tensor, teacher: Tensor, settings: Distill) -> Tensor:
    """Return the summed Kullback-Leibler divergence of rows of logits (M, V) in nats, times the
    temperature squared.

    ``forward`` is KL(teacher || student), which makes the student give a share to everything that
    the teacher finds likely; ``reverse`` is KL(student || teacher), by which it may leave some of
    that out.

    Source:
        Hinton, Vinyals and Dean, 2015 (arXiv:1503.02531), section 2. Reverse: Gu et al., MiniLLM,
        2023 (arXiv:2306.08543), section 2.1. Departs from the latter: on the data's texts, not on
        texts the student writes.
    """
    # At least float32: a logarithm in bf16 has no more than three digits.
    wide = torch.promote_types(student.dtype, torch.float32)
    own, others = (F.log_softmax(x.to(wide) / settings.temperature, -1) for x in (student, teacher))
    first, second = (others, own) if settings.divergence == "forward" else (own, others)
    # 0 log 0 is 0 where a token has no share at all
    terms = torch.where(first == -torch.inf, 0.0, first.exp() * (first - second))
    # Gradients shrink with the temperature squared, and would with it weigh less than the data's.
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
            raise RecipeError(
                "recipe.distill.teacher",
                f"predicts {teacher.shape[-1]} outputs, but this model {student.shape[-1]}",
                "Choose a teacher with the same outputs",
            )
        own = self._task.prediction_loss(student, batch)
        share = self._settings.weight
        terms = {
            name: dataclasses.replace(term, weight=term.weight * (1 - share))
            for name, term in own.terms.items()
        }
        # Where the data has nothing to predict, such as padding, the teacher is not followed
        # either.
        trained = self._task.predicted(batch)
        apart = divergence(student[trained], teacher[trained], self._settings)
        terms["teacher"] = Term(apart, trained.sum(), share)
        return Loss(terms, own.metrics)

    def counts(self, batch: Batch) -> dict[str, float] | None:
        """Return what the task's terms count, and the predictions that the teacher is asked
        about."""
        own = self._counts(batch)
        return None if own is None else {**own, "teacher": float(self._task.predicted(batch).sum())}
