"""One task's share of what several tasks have in common: examples, batch, processor, model.

Legend: B examples of a batch, O outputs of all tasks.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.contracts.processors import InputProcessor, Targets
from groundup.contracts.tasks import EvaluationContext, Task
from groundup.core.errors import DataError
from groundup.core.values import Batch, Example, Loss, Split
from groundup.media.labels import is_missing
from groundup.processors.labelled import Labelled
from groundup.processors.targets import MultiTaskTargets, target_of

__all__ = [
    "COUNT",
    "Head",
    "NoInputs",
    "batch_of",
    "context_of",
    "examples_of",
    "head_of",
    "name_in_errors",
    "note_missing",
    "processor_of",
    "sums_of",
    "tabulate_parts",
    "targets_of",
    "total_of",
    "with_target",
]

COUNT = " count"  # the end of the name under which a term's count is summed


class NoInputs(InputProcessor):
    """Stands for a processor of inputs where only targets are encoded."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """No shape: it encodes nothing."""
        return ()

    def save(self, folder: Path) -> None:
        """Write nothing: it is never part of a run."""

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return nothing."""
        return {}


class Head(nn.Module):
    """A model of several tasks as one of them sees it: (B, outputs of the task)."""

    def __init__(self, model: nn.Module, columns: slice) -> None:
        super().__init__()
        self.model = model
        self.columns = columns
        # A wrapper is in training mode when it is made, whatever it wraps.
        self.train(model.training)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the task's columns of what the model returns, (B, O)."""
        outputs: Tensor = self.model(**inputs)
        return outputs[:, self.columns]


def head_of(model: nn.Module, processor: Labelled, name: str) -> Head:
    """Return a model of several tasks as one of them sees it."""
    return Head(model, targets_of(processor).columns(name))


def targets_of(processor: Labelled) -> MultiTaskTargets:
    """Return the targets of all tasks."""
    assert isinstance(processor.targets, MultiTaskTargets)  # as fit_processor made them
    return processor.targets


def processor_of(processor: Labelled, name: str) -> Labelled:
    """Return the processor with the targets of one task."""
    return Labelled(processor.inputs, targets_of(processor).parts[name], processor.max_length)


def tabulate_parts(
    tasks: Mapping[str, Task],
    model: nn.Module,
    inputs: Sequence[Any],
    processor: Labelled,
    options: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return what each task tabulates of each input, its name before its columns'."""
    rows: list[dict[str, Any]] = [{} for _ in inputs]
    for name, part in tasks.items():
        head = head_of(model, processor, name)
        found = part.tabulate(head, inputs, processor_of(processor, name), **options)
        for row, own in zip(rows, found, strict=True):
            row |= {f"{name}_{column}": value for column, value in own.items()}
    return rows


def examples_of(
    name: str, examples: Iterable[Example], part: Targets | None = None
) -> Iterator[Example]:
    """Yield the examples that have a task's target, with that one alone."""
    for example in examples:
        target = target_of(example.target, name)
        if not (is_missing(target) if part is None else part.lacks(target)):
            yield dataclasses.replace(example, target=target)


def with_target(name: str, examples: Callable[[], Iterable[Example]]) -> Iterator[Example]:
    """Yield what ``examples_of`` does, of examples that are read again each time."""
    return examples_of(name, examples())


def note_missing(parts: Mapping[str, Targets], examples: Iterable[Example]) -> list[str]:
    """Return a line for each task of which examples have no target: how many, and what stands
    there."""
    found: dict[str, Counter[str]] = {name: Counter() for name in parts}
    total = 0
    for example in examples:
        total += 1
        for name, marks in found.items():
            if parts[name].lacks(own := target_of(example.target, name)):
                marks["nothing" if own is None or own == "" else repr(own)] += 1
    return [
        f"task {name}: {marks.total():,} of {total:,} examples have no target"
        f" ({', '.join(f'{mark} {count:,}' for mark, count in marks.most_common())})"
        for name, marks in found.items()
        if marks
    ]


def batch_of(name: str, batch: Batch) -> Batch:
    """Return a task's tensors by its own names for them, the rows without its target left out."""
    start = f"{name}/"
    own = {key.removeprefix(start): v for key, v in batch.items() if key.startswith(start)}
    # Rows without the target hold zeros, which must not be learned.
    present = own.pop("present")
    return {key: value[present] for key, value in own.items()}


def sums_of(name: str, sums: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Return a task's sums by its own names: totals with counts, as ``summarise`` takes them."""
    start = f"{name}/"
    own = {key.removeprefix(start): value for key, value in sums.items() if key.startswith(start)}
    # Its terms came as two watched sums each; its own watched sums count 1, as always.
    return {
        key: (total, own.get(key + COUNT, (count, 0.0))[0])
        for key, (total, count) in own.items()
        if not key.endswith(COUNT)
    }


def context_of(context: EvaluationContext, name: str) -> EvaluationContext:
    """Return what one task is evaluated with."""

    part = targets_of(context.processor).parts[name]

    def own(examples: Callable[[Split], Iterable[Any]]) -> Callable[[Split], Iterable[Any]]:
        return lambda split: examples_of(name, examples(split), part)

    base = None
    base_examples = None
    if context.base is not None:
        model, processor = context.base
        # The base may have had other tasks, or a single one: then there is nothing to compare.
        if isinstance(processor.targets, MultiTaskTargets) and name in processor.targets.parts:
            base = (head_of(model, processor, name), processor_of(processor, name))
            base_examples = context.base_examples and own(context.base_examples)
    return dataclasses.replace(
        context,
        model=head_of(context.model, context.processor, name),
        processor=processor_of(context.processor, name),
        examples=own(context.examples),
        base=base,
        base_examples=base_examples,
    )


def total_of(own: Loss, count: float) -> Tensor:
    """Return a task's whole loss as a sum over ``count``, what its first term counts, whatever the
    others count."""
    # Each term by its own mean, as the task alone would be trained, then as many times as it
    # counts.
    parts = [
        term.weight * term.total * (count / (float(term.count) or 1.0))
        for term in own.terms.values()
    ]
    return torch.stack(parts).sum()


@contextmanager
def name_in_errors(name: str) -> Iterator[None]:
    """Say which task an error of its data is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"task {name}: {error.where}", error.problem, error.remedy) from None
