"""Several tasks at once: one trunk, a head for each task, and examples of which any may lack any
target.

Source: Caruana, 1997, "Multitask learning"; weights of the tasks: see ``nn.task_weighting``.
Legend: B examples of a batch, K tasks.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from pydantic import field_serializer, field_validator, model_validator
from torch import Tensor, nn

from groundup.core import registry
from groundup.core.contracts.processors import InputProcessor
from groundup.core.contracts.tasks import EvaluationContext, Objective, Task
from groundup.core.errors import DataError, RecipeError, did_you_mean
from groundup.core.settings import setting, validate
from groundup.core.values import Batch, Evaluation, Example, Loss, Split, Table, Term
from groundup.metrics.gradient_agreement import gradient_agreement
from groundup.processors.labelled import Labelled
from groundup.processors.targets import MultiTaskTargets, is_missing, target_of
from groundup.recipe.recipe import without_effect
from groundup.tasks.multitask.gradient_conflict import agreement_tables
from groundup.tasks.multitask.loss_weighting import (
    GradNormWeights,
    TaskWeights,
    UncertaintyWeights,
    last_shared,
    task_weights_of,
    trunk,
)
from groundup.tasks.multitask.next_tokens import (
    check_token_model,
    count_next_tokens,
    evaluate_next_tokens,
    next_token_logits,
    next_token_loss,
)

__all__ = ["Multitask", "Outputs"]

_COMPARED_BATCHES, _COMPARED_BATCH = 16, 64
_COUNT = " count"  # the end of the name under which a term's count is summed


@registry.task("multitask")
class Multitask(Task):
    """Minimise the weighted sum of several tasks' mean losses.

    An example's target is a mapping from the tasks' names to their targets. One that is missing,
    None or NaN is masked: each task's mean is over the examples of a whole step that have its
        target. The model's one output layer, as wide as
    all tasks' outputs together, is a linear head for each task, side by side, on the same features.

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
    def _built(cls, sections: Any) -> Any:
        if not isinstance(sections, dict):
            return sections
        return {
            name: section if isinstance(section, Task) else _task(name, section)
            for name, section in sections.items()
        }

    @field_serializer("tasks")
    def _plain(self, tasks: dict[str, Task]) -> dict[str, Any]:
        return {
            name: {
                "name": type(part).registered_name,
                **part.model_dump(mode="json", exclude=without_effect(part)),
            }
            for name, part in tasks.items()
        }

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
        return {name: part for name, part in self.tasks.items() if not _writes(part)}

    @property
    def loss_is_sum(self) -> bool:
        """GradNorm weighs by the gradient of a whole batch."""
        return self.weighting != "gradnorm" and all(
            part.loss_is_sum for part in self.tasks.values()
        )

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read: each task's own tensors as ``task/name``, and which
        examples have them."""
        found = {"inputs": "float32 (B, ...)"}
        for name, part in self._labelled.items():
            own = {key: kind for key, kind in part.batch_spec.items() if key != "inputs"}
            found |= {f"{name}/{key}": kind for key, kind in own.items()} | {
                f"{name}/present": "bool (B,)"
            }
        return found

    # ----------------------------------------------------------------------------------------- data
    def fit_processor(self, processor: Any, examples: Callable[[], Iterator[Example]]) -> Labelled:
        """Return the processor with every task's targets, as each fits them to the examples that
        have one.

        Raises:
            DataError: If a task has no targets to learn from.
        """
        inputs = processor.reader

        def fitted(name: str, part: Task) -> Labelled:
            # A base run of several tasks brings the targets of each.
            before = processor.targets.parts if processor.targets is not None else {}
            known = (
                Labelled(inputs, before[name], processor.max_length) if name in before else inputs
            )
            with _about(name):
                return cast(Labelled, part.fit_processor(known, lambda: _having(name, examples())))

        found = {name: fitted(name, part) for name, part in self._labelled.items()}
        longest = max(each.max_length for each in found.values())
        return Labelled(
            inputs, MultiTaskTargets({name: each.targets for name, each in found.items()}), longest
        )

    def encode(self, examples: Sequence[Example], processor: Labelled) -> Batch:
        """Return all examples' inputs, and each task's targets with zeros where an example has
        none.

        Raises:
            DataError: If an input has another shape, or a target means nothing to its task.
        """
        batch = processor.encode_inputs([example.inputs for example in examples])
        for name, part in self._labelled.items():
            present = torch.tensor(
                [not is_missing(target_of(e.target, name)) for e in examples], dtype=torch.bool
            )
            blind = Labelled(_NoInputs(), _part(processor, name).targets, 0)
            with _about(name):
                own = part.encode(list(_having(name, examples)), blind)
            for key, values in cast(Batch, own).items():
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
        for name in self.tasks.keys() - self._labelled.keys():  # language modelling
            check_token_model(model, processor.inputs, f"recipe.task.tasks.{name}")
        if self.weighting == "gradnorm" and not last_shared(model):
            problem = (
                "is gradnorm, which compares gradients in the last block before the heads, but the"
                " model has none"
            )
            remedy = "Use a model with hidden layers, or fixed weights"
            raise RecipeError("recipe.task.weighting", problem, remedy)

    def add_parameters(self, model: nn.Module, processor: Labelled) -> None:
        """Add the learned weights of the tasks to a model, as ``task_weights``."""
        if self.weighting == "uncertainty":
            parts = _targets(processor).parts
            numbers = {name for name, part in parts.items() if part.kind == "numbers"}
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
        outputs = {name: together[:, _columns(processor, name)] for name in self._labelled}
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
            own = part.counts(_own_batch(name, batch))
            found[name] = (
                float(batch[f"{name}/present"].sum()) if own is None else next(iter(own.values()))
            )
        return found

    def loss(self, outputs: Outputs, batch: Batch) -> Loss:
        """Return a term for each task, over the examples that have its target, and the tasks' own
        sums to watch."""
        watched: dict[str, Tensor] = {}
        counts, totals = self.counts(batch), []
        for name in self.tasks:
            own = self._own_loss(name, outputs.by_task[name], batch)
            totals.append(_total(own, counts[name]))
            for key, term in own.terms.items():
                watched |= {
                    f"{name}/{key}": term.total.detach(),
                    f"{name}/{key}{_COUNT}": torch.as_tensor(term.count),
                }
            watched |= {f"{name}/{key}": value for key, value in own.metrics.items()}
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
        return part.loss(outputs[batch[f"{name}/present"]], _own_batch(name, batch))

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
            own = {
                key.removeprefix(f"{name}/"): value
                for key, value in sums.items()
                if key.startswith(f"{name}/")
            }
            plain = {key: value for key, value in own.items() if not key.endswith(_COUNT)}
            plain |= {
                key: (plain[key][0], own[key + _COUNT][0]) for key in plain if key + _COUNT in own
            }
            found |= {f"{name}/{key}": value for key, value in part.summarise(plain).items()}
        return found

    # ----------------------------------------------------------------------------------- prediction
    def predict(self, model: nn.Module, inputs: Any, processor: Labelled, **options: Any) -> Any:
        """Return every task's prediction by name for an input, or for each of a list; options go to
        all tasks."""
        several = isinstance(inputs, list | tuple)
        rows = list(inputs) if several else [inputs]
        found = {
            name: part.predict(
                _head(model, processor, name), rows, _part(processor, name), **options
            )
            for name, part in self._labelled.items()
        }
        answers = [
            dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)
        ]
        return answers if several else answers[0]

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Judge each task as it judges itself, on the held-out examples that have its target.

        Adds how the tasks' gradients agree, and the weights that were learned.
        """
        metrics: dict[str, float] = {}
        tables: list[Table] = []
        for name, part in self.tasks.items():
            context.progress(f"judging task {name}")
            if name not in self._labelled:
                reads, texts = context.processor, list(context.examples(context.held_out))
                found = Evaluation(
                    evaluate_next_tokens(context.model, texts, reads.encode_inputs, reads.inputs)
                )
            elif next(iter(_of_task(context, name).examples(context.held_out)), None) is None:
                found = Evaluation({"held_out_examples": 0.0})
            else:
                found = part.evaluate(_of_task(context, name))
            metrics |= {f"{name}/{key}": value for key, value in found.metrics.items()}
            tables += [
                dataclasses.replace(table, title=f"{name}: {table.title}") for table in found.tables
            ]
        learned = task_weights_of(context.model)
        if learned is not None:
            rows: Any = list(zip(self.tasks, learned.values(), strict=True))
            tables.append(
                Table(f"Weights of the tasks ({self.weighting})", ("task", "weight"), rows)
            )
        if len(self.tasks) > 1:
            context.progress("comparing the tasks' gradients")
            tables += self._agreement(context)
        return Evaluation(metrics, tables)

    def _agreement(self, context: EvaluationContext) -> list[Table]:
        examples = list(islice(context.examples("validation"), _COMPARED_BATCHES * _COMPARED_BATCH))
        parts = [
            examples[at : at + _COMPARED_BATCH] for at in range(0, len(examples), _COMPARED_BATCH)
        ]
        found = gradient_agreement(
            (self._gradients(context, part) for part in parts), len(self.tasks)
        )
        over = f"over {len(parts)} batches of {_COMPARED_BATCH} held-out examples"
        return agreement_tables(list(self.tasks), found, over)

    def _gradients(
        self, context: EvaluationContext, examples: Sequence[Example]
    ) -> list[Tensor | None]:
        """Return the gradient of each task's mean loss in the shared layers, (P,), or None where
        none has a target."""
        model, shared = context.model, trunk(context.model)
        device = next(model.parameters()).device
        batch = {
            key: value.to(device) for key, value in self.encode(examples, context.processor).items()
        }
        training = model.training
        model.eval()
        found: list[Tensor | None] = []
        with (
            torch.enable_grad(),
            torch.backends.cudnn.flags(enabled=False),
        ):  # its RNNs have no gradient in evaluation
            together = model(**self.inputs(batch))
            outputs = self.split_outputs(together, batch, model, context.processor).by_task
            for name, count in self.counts(batch).items():
                if not count:
                    found.append(None)
                    continue
                mean = _total(self._own_loss(name, outputs[name], batch), count) / count
                parts = torch.autograd.grad(
                    mean, shared, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                found.append(torch.cat([part.flatten() for part in parts]))
        model.train(training)
        return found


class Outputs(NamedTuple):
    """What a model of several tasks predicts, and what weighs their losses.

    Attributes:
        by_task: (B, outputs of the task); of language modelling the logits (M, V) of the tokens
            that are predicted.
        weights: In training, the weights that are learned.
        shared: Trained parameters of the last block that the tasks share, for these weights.
    """

    by_task: dict[str, Tensor]
    weights: TaskWeights | None
    shared: list[nn.Parameter]


class _NoInputs(InputProcessor):
    """Stands for a processor of inputs where only targets are encoded."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return ()

    def save(self, folder: Path) -> None:
        """Write nothing: it is never part of a run."""

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        return {}


class _Head(nn.Module):
    """A model of several tasks as one of them sees it: (B, outputs of the task)."""

    def __init__(self, model: nn.Module, columns: slice) -> None:
        super().__init__()
        self.model = model
        self.columns = columns
        self.train(model.training)

    def forward(self, **inputs: Tensor) -> Tensor:
        outputs: Tensor = self.model(**inputs)
        return outputs[:, self.columns]


def _head(model: nn.Module, processor: Labelled, name: str) -> _Head:
    return _Head(model, _columns(processor, name))


def _targets(processor: Labelled) -> MultiTaskTargets:
    if not isinstance(processor.targets, MultiTaskTargets):
        raise TypeError("multitask needs the processor that its fit_processor returned")
    return processor.targets


def _columns(processor: Labelled, name: str) -> slice:
    return _targets(processor).columns(name)


def _task(name: str, section: Any) -> Task:
    """Return the task that a recipe describes.

    Raises:
        RecipeError: If it is none, or none that can share a model with others.
    """
    where = f"recipe.task.tasks.{name}"
    if not re.fullmatch(r"[\w\-]+", name):
        raise RecipeError(where, "is no name; allowed: letters, digits, _ and -", "Rename it")
    section = {"name": section} if isinstance(section, str) else section
    if not isinstance(section, dict) or "name" not in section:
        raise RecipeError(
            f"{where}.name", "is required and missing", "Name a task, such as classify"
        )
    kind = str(section["name"])
    made: Task = validate(
        registry.lookup("task", kind, f"{where}.name"),
        {k: v for k, v in section.items() if k != "name"},
        where,
    )
    if not _writes(made) and (made.unit != "examples" or isinstance(made, Multitask)):
        problem = f"is {kind}, which does not predict from the features of an example"
        raise RecipeError(f"{where}.name", problem, "Choose a task such as classify")
    if made.augments:
        problem = "augments its examples, which has no effect within multitask"
        raise RecipeError(where, problem, "Turn its augmentation off")
    return made


def _writes(task: Task) -> bool:
    return type(task).registered_name == "language_modeling"


def _having(name: str, examples: Iterable[Example]) -> Iterator[Example]:
    """Yield the examples that have a task's target, with that one alone."""
    for example in examples:
        target = target_of(example.target, name)
        if not is_missing(target):
            yield dataclasses.replace(example, target=target)


def _own_batch(name: str, batch: Batch) -> Batch:
    """Return a task's tensors by its own names for them, the rows without its target left out."""
    own = {
        key.removeprefix(f"{name}/"): value
        for key, value in batch.items()
        if key.startswith(f"{name}/")
    }
    present = own.pop("present")
    return {key: value[present] for key, value in own.items()}


def _part(processor: Labelled, name: str) -> Labelled:
    return Labelled(processor.inputs, _targets(processor).parts[name], processor.max_length)


def _of_task(context: EvaluationContext, name: str) -> EvaluationContext:
    """Return what one task is judged with."""
    base = None
    if context.base is not None:
        model, processor = context.base
        if isinstance(processor.targets, MultiTaskTargets) and name in processor.targets.parts:
            base = (_head(model, processor, name), _part(processor, name))

    def of(examples: Callable[[Split], Iterable[Any]] | None) -> Any:
        return None if examples is None else lambda split: _having(name, examples(split))

    model, processor, old = (
        _head(context.model, context.processor, name),
        _part(context.processor, name),
        context.base_examples,
    )
    given = {"examples": of(context.examples), "base_examples": of(old if base else None)}
    return dataclasses.replace(context, model=model, processor=processor, base=base, **given)


def _total(own: Loss, count: float) -> Tensor:
    """Return a task's whole loss as a sum over ``count``, what its first term counts, whatever the
    others count."""
    parts = [
        term.weight * term.total * (count / (float(term.count) or 1.0))
        for term in own.terms.values()
    ]
    return torch.stack(parts).sum()


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Say which task an error of its data is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"task {name}: {error.where}", error.problem, error.remedy) from None
