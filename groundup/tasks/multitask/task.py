"""Several tasks at once: one trunk, a head for each task, and examples of which any may lack any
target.

Source: Caruana, 1997, "Multitask learning"; weights of the tasks: see ``loss_weighting``.
Legend: B examples of a batch, K tasks.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import field_serializer, field_validator, model_validator
from torch import Tensor, nn

from groundup.contracts.tasks import EvaluationContext, Objective, Task
from groundup.core import registry
from groundup.core.errors import RecipeError, did_you_mean
from groundup.core.settings import setting
from groundup.core.values import Batch, Evaluation, Example, Loss, Table, Term
from groundup.generation.scoring import device_of
from groundup.processors.labelled import Labelled
from groundup.processors.targets import MultiTaskTargets, target_of
from groundup.tasks.language_modeling import LanguageModeling
from groundup.tasks.multitask.gradient_conflict import compare_gradients
from groundup.tasks.multitask.loss_weighting import (
    GradNormWeights,
    Outputs,
    UncertaintyWeights,
    last_shared,
    task_weights_of,
)
from groundup.tasks.multitask.next_tokens import (
    check_token_model,
    count_next_tokens,
    evaluate_next_tokens,
    next_token_logits,
    next_token_loss,
)
from groundup.tasks.multitask.parts import (
    COUNT,
    NoInputs,
    batch_of,
    context_of,
    examples_of,
    head_of,
    name_in_errors,
    note_missing,
    processor_of,
    sums_of,
    tabulate_parts,
    targets_of,
    total_of,
    with_target,
)
from groundup.tasks.multitask.sections import build_task, dump_task

__all__ = ["Multitask"]


@registry.task("multitask")
class Multitask(Task):
    """Minimise the weighted sum of several tasks' mean losses.

    An example's target is a mapping from the tasks' names to their targets. One that is missing,
    None or NaN is masked: each task's mean is over the examples of a whole step that have its
    target. The model's one output layer, as wide as all tasks' outputs together, is a linear head
    for each task, side by side, on the same features.

    ``language_modeling`` may be one of the tasks where the inputs are texts: it needs no target,
    and a model that predicts tokens as well.
    """

    unit: ClassVar[str] = "examples"
    tasks: dict[str, Any] = setting(
        ..., "The tasks by name, each with a task's settings", min_length=1
    )
    weighting: Literal["fixed", "uncertainty", "gradnorm"] = setting(
        "fixed",
        "Weights of the tasks' losses: given, learned as variances, or led by the norms of their"
        " gradients",
    )
    weights: dict[str, float] = setting(
        {},
        "What each task's mean loss is multiplied with; 1 where not given",
        applies_when={"weighting": ("fixed",)},
    )
    gradnorm_alpha: float = setting(
        1.5,
        "How much harder slow tasks pull; 0: all alike",
        ge=0,
        applies_when={"weighting": ("gradnorm",)},
    )
    gradnorm_lr: float = setting(
        0.025,
        "Learning rate of the tasks' weights",
        gt=0,
        applies_when={"weighting": ("gradnorm",)},
    )

    # ------------------------------------------------------------------------------------- settings
    @field_validator("tasks", mode="before")
    @classmethod
    def _build_tasks(cls, sections: Any) -> Any:
        if not isinstance(sections, dict):
            return sections
        return {
            name: section if isinstance(section, Task) else build_task(name, section, cls)
            for name, section in sections.items()
        }

    @field_serializer("tasks")
    def _dump_tasks(self, tasks: dict[str, Task]) -> dict[str, Any]:
        return {name: dump_task(part) for name, part in tasks.items()}

    @model_validator(mode="after")
    def _weights_fit(self) -> Multitask:
        for name, weight in self.weights.items():
            if name not in self.tasks:
                hint = did_you_mean(name, self.tasks)
                raise ValueError(
                    f"weights names {name!r}, which is no task; {hint}tasks:"
                    f" {', '.join(self.tasks)}. Correct it"
                )
            if weight <= 0:
                raise ValueError(
                    f"weights gives task {name!r} {weight}; allowed: more than 0. Remove the task"
                    " instead"
                )
        return self

    @model_validator(mode="after")
    def _something_is_predicted(self) -> Multitask:
        if not self._labelled:
            raise ValueError(
                "tasks holds language_modeling alone. Add another task, or use task"
                " language_modeling"
            )
        return self

    @property
    def _labelled(self) -> dict[str, Task]:
        """The tasks that have targets and a head: all but language modelling."""
        return {
            name: part
            for name, part in self.tasks.items()
            if not isinstance(part, LanguageModeling)
        }

    @property
    def loss_is_sum(self) -> bool:
        """GradNorm weighs by the gradient of a whole batch."""
        return self.weighting != "gradnorm" and all(
            part.loss_is_sum for part in self.tasks.values()
        )

    @property
    def batch_spec(self) -> dict[str, str]:
        """What is read: each task's tensors as ``task/name``, and which examples have them."""
        found = {"inputs": "float32 (B, ...)"}
        for name, part in self._labelled.items():
            own = {**part.batch_spec, "present": "bool (B,)"}
            found |= {f"{name}/{key}": kind for key, kind in own.items() if key != "inputs"}
        return found

    # ----------------------------------------------------------------------------------------- data
    def fit_processor(self, processor: Any, examples: Callable[[], Iterator[Example]]) -> Labelled:
        """Return the processor with every task's targets, as each fits them to the examples that
        have one.

        Raises:
            DataError: If a task has no targets to learn from.
        """
        inputs = processor.reader
        # A base run of several tasks brings the targets of each.
        before = {} if processor.targets is None else processor.targets.parts
        targets = {}
        longest = 0
        for name, part in self._labelled.items():
            known = inputs
            if name in before:
                known = Labelled(inputs, before[name], processor.max_length)
            own = functools.partial(with_target, name, examples)
            with name_in_errors(name):
                fitted = part.fit_processor(known, own)
            targets[name] = fitted.targets
            longest = max(longest, fitted.max_length)
        several = MultiTaskTargets(targets)
        notes = (*processor.notes, *several.notes, *note_missing(targets, examples()))
        return Labelled(inputs, several, longest, notes=notes)

    def encode(self, examples: Sequence[Example], processor: Labelled) -> Batch:
        """Return all examples' inputs, and each task's targets with zeros where an example has
        none.

        Raises:
            DataError: If an input has another shape, or a target means nothing to its task.
        """
        batch = processor.encode_inputs([example.inputs for example in examples])
        for name, part in self._labelled.items():
            targets = processor_of(processor, name).targets
            lacking = [targets.lacks(target_of(each.target, name)) for each in examples]
            present = ~torch.tensor(lacking, dtype=torch.bool)
            # Inputs are the same for all tasks and encoded once, above.
            blind = Labelled(NoInputs(), targets, 0)
            with name_in_errors(name):
                own = part.encode(list(examples_of(name, examples, targets)), blind)
            assert isinstance(own, dict)  # a labelled task gives tensors, not token sequences
            for key, values in own.items():
                rows = values.new_zeros(len(examples), *values.shape[1:])
                rows[present] = values
                batch[f"{name}/{key}"] = rows
            batch[f"{name}/present"] = present
        return batch

    # ----------------------------------------------------------------------------------------- loss
    def check_model(self, model: nn.Module, processor: Labelled) -> None:
        """Check that the model has what the tasks share.

        Raises:
            RecipeError: If GradNorm finds no layer that the tasks share, or nothing predicts tokens
                that should.
        """
        # Asked before training, because the model is only asked for tokens in the loss.
        for name in self.tasks.keys() - self._labelled.keys():  # language modelling
            check_token_model(model, processor.inputs, f"recipe.task.tasks.{name}")
        if self.weighting == "gradnorm" and not last_shared(model):
            raise RecipeError(
                "recipe.task.weighting",
                "is gradnorm, which compares gradients in the last block before the heads, but the"
                " model has none",
                "Use a model with hidden layers, or fixed weights",
            )

    def add_parameters(self, model: nn.Module, processor: Labelled) -> None:
        """Add the learned weights of the tasks to a model, as ``task_weights``."""
        if self.weighting == "uncertainty":
            parts = targets_of(processor).parts
            numbers = {name for name, part in parts.items() if part.kind == "numbers"}
            # A squared error is -log p of a Gaussian times 2 variances, a cross-entropy is -log p.
            factors = [0.5 if name in numbers else 1.0 for name in self.tasks]
            model.add_module("task_weights", UncertaintyWeights(factors))
        elif self.weighting == "gradnorm":
            weights = GradNormWeights(len(self.tasks), self.gradnorm_alpha, self.gradnorm_lr)
            model.add_module("task_weights", weights)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return what the model reads: all but the tasks' own tensors."""
        return {name: values for name, values in batch.items() if "/" not in name}

    def build_objective(self, model: nn.Module, processor: Labelled) -> Objective:
        """Return the loss by a model's outputs (B, O) of all tasks, side by side."""
        return lambda outputs, batch: self.loss(
            self.split_outputs(outputs, batch, model, processor), batch
        )

    def split_outputs(
        self, together: Tensor, batch: Batch, model: nn.Module, processor: Labelled
    ) -> Outputs:
        """Return a model's outputs (B, O) by task, and in training the weights of their losses.

        For language modelling the model reads the texts once more.
        """
        # One matrix product for all heads, cut into columns: quicker than a layer for each task.
        columns = targets_of(processor).columns
        outputs = {name: together[:, columns(name)] for name in self._labelled}
        for name in self.tasks.keys() - self._labelled.keys():
            outputs[name] = next_token_logits(model, batch)
        weights = task_weights_of(model) if model.training else None
        return Outputs(outputs, weights, last_shared(model) if weights is not None else [])

    def counts(self, batch: Batch) -> dict[str, float]:
        """Return how many examples have each task's target, or what the task itself counts: tokens,
        or weights."""
        found = {}
        for name, part in self.tasks.items():
            if name not in self._labelled:
                found[name] = count_next_tokens(batch)
                continue
            own = part.counts(batch_of(name, batch)) or {"": float(batch[f"{name}/present"].sum())}
            found[name] = next(iter(own.values()))
        return found

    def loss(self, outputs: Outputs, batch: Batch) -> Loss:
        """Return a term for each task, over the examples that have its target, and the tasks' own
        sums to watch."""
        watched: dict[str, Tensor] = {}
        counts = self.counts(batch)
        totals = []
        for name in self.tasks:
            own = self._own_loss(name, outputs.by_task[name], batch)
            totals.append(total_of(own, counts[name]))
            # Summed as they are, so that the task's own metrics do not depend on any weighting.
            for key, term in own.terms.items():
                watched[f"{name}/{key}"] = term.total.detach()
                watched[f"{name}/{key}{COUNT}"] = torch.as_tensor(term.count)
            watched |= {f"{name}/{key}": value for key, value in own.metrics.items()}
        # In training alone: validation losses must compare from one step to the next.
        if outputs.weights is not None:
            totals = outputs.weights(totals, list(counts.values()), outputs.shared)
        terms = {
            name: Term(total, torch.tensor(counts[name]), self.weights.get(name, 1.0))
            for name, total in zip(self.tasks, totals, strict=True)
        }
        return Loss(terms, watched)

    def _own_loss(self, name: str, outputs: Tensor, batch: Batch) -> Loss:
        if name not in self._labelled:
            return next_token_loss(outputs, batch)
        part: Task = self.tasks[name]
        return part.loss(outputs[batch[f"{name}/present"]], batch_of(name, batch))

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return each task's metrics as ``task/metric``, and the loss: their mean losses times the
        fixed weights.

        A loss that is weighed by learned weights would not compare from one evaluation to the next.
        """
        found = {"loss": 0.0}
        for name, part in self.tasks.items():
            total, count = sums[name]
            if not count:
                continue
            found["loss"] += self.weights.get(name, 1.0) * total / count
            own = part.summarise(sums_of(name, sums))
            found |= {f"{name}/{key}": value for key, value in own.items()}
        return found

    # ----------------------------------------------------------------------------------- prediction
    def predict(self, model: nn.Module, inputs: Any, processor: Labelled, **options: Any) -> Any:
        """Return every task's prediction by name, for an input or each of a list."""
        several = isinstance(inputs, list | tuple)
        given = list(inputs) if several else [inputs]
        rows: list[dict[str, Any]] = [{} for _ in given]
        for name, part in self._labelled.items():
            own = processor_of(processor, name)
            found = part.predict(head_of(model, processor, name), given, own, **options)
            for row, each in zip(rows, found, strict=True):
                row[name] = each
        return rows if several else rows[0]

    def tabulate(
        self, model: nn.Module, inputs: Sequence[Any], processor: Labelled, **options: Any
    ) -> list[dict[str, Any]]:
        """Return what each task does, its name before its columns'."""
        return tabulate_parts(self._labelled, model, inputs, processor, options)

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Evaluate each task as it does by itself, on the held-out examples that have its target.

        Adds how the tasks' gradients agree, and the weights that were learned.
        """
        metrics: dict[str, float] = {}
        tables: list[Table] = []
        for name, part in self.tasks.items():
            context.progress(f"evaluating task {name}")
            found = self._evaluate_task(name, part, context)
            metrics |= {f"{name}/{key}": value for key, value in found.metrics.items()}
            tables += [dataclasses.replace(t, title=f"{name}: {t.title}") for t in found.tables]
        learned = task_weights_of(context.model)
        if learned is not None:
            rows: Any = list(zip(self.tasks, learned.values(), strict=True))
            title = f"Weights of the tasks ({self.weighting})"
            tables.append(Table(title, ("task", "weight"), rows))
        if len(self.tasks) > 1:
            context.progress("comparing the tasks' gradients")
            losses = functools.partial(self._mean_losses, context)
            examples = list(context.examples("validation"))
            tables += compare_gradients(context.model, losses, list(self.tasks), examples)
        return Evaluation(metrics, tables)

    def _evaluate_task(self, name: str, part: Task, context: EvaluationContext) -> Evaluation:
        if name not in self._labelled:
            reads = context.processor
            texts = list(context.examples(context.held_out))
            return Evaluation(
                evaluate_next_tokens(context.model, texts, reads.encode_inputs, reads.inputs)
            )
        own = context_of(context, name)
        if next(iter(own.examples(context.held_out)), None) is None:
            return Evaluation({"held_out_examples": 0.0})
        return part.evaluate(own)

    def _mean_losses(
        self, context: EvaluationContext, examples: Sequence[Example]
    ) -> list[Tensor | None]:
        """Return each task's mean loss, or None where none of the examples has its target."""
        model = context.model
        encoded = self.encode(examples, context.processor)
        batch = {key: value.to(device_of(model)) for key, value in encoded.items()}
        together = model(**self.inputs(batch))
        outputs = self.split_outputs(together, batch, model, context.processor).by_task
        return [
            total_of(self._own_loss(name, outputs[name], batch), count) / count if count else None
            for name, count in self.counts(batch).items()
        ]
