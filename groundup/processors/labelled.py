"""A processor of inputs together with what is predicted from them: what a classifier or a regression travels with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundup.core import registry
from groundup.core.errors import DataError, RecipeError
from groundup.core.interfaces import Batch, Processor, ProcessorConfig, Targets, TextProcessor
from groundup.processors.files import read_json, saved_settings, write_json
from groundup.processors.targets import Classes, targets_from_json

__all__ = ["Labelled", "LabelledConfig", "with_targets"]


class Labelled:
    """What turns inputs into tensors, and targets too.

    Args:
        inputs: The processor of the inputs: an ``InputProcessor``, or a tokenizer.
        targets: What is predicted.
        max_length: Texts are cut to so many tokens.
    """

    def __init__(self, inputs: Any, targets: Targets, max_length: int) -> None:
        self.inputs, self.targets, self.max_length = inputs, targets, max_length

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input; 0 where it varies. Tokens have the shape (0,)."""
        return (0,) if isinstance(self.inputs, TextProcessor) else tuple(self.inputs.input_shape)

    @property
    def vocabulary_size(self) -> int:
        """Tokens there are; 0 where inputs are numbers."""
        return self.inputs.vocabulary_size if isinstance(self.inputs, TextProcessor) else 0

    @property
    def category_sizes(self) -> tuple[int, ...]:
        """How many values each categorical column has, the unknown one included."""
        return tuple(getattr(self.inputs, "category_sizes", ()))

    @property
    def outputs(self) -> int:
        """Numbers that a model gives for an input."""
        return self.targets.outputs

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names; none where numbers are predicted."""
        return self.targets.labels

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return tensors by the names that models read them by, one row an input.

        Texts give ``tokens`` (N, T) int64 and ``lengths`` (N,). An encoder's tokenizer puts its first and last token
        around each, within ``max_length``, and pads with its own token; others pad with the end token.
        """
        if not isinstance(self.inputs, TextProcessor):
            encoded: Batch = self.inputs.encode_inputs(inputs)
            return encoded
        frame = getattr(self.inputs, "frame", None)
        before, after = ([], []) if frame is None else ([frame[0]], [frame[1]])
        room = max(0, self.max_length - len(before) - len(after))
        found = [
            np.concatenate((before, tokens[:room], after)).astype(np.int64)
            for tokens in self.inputs.encode_batch([str(text) for text in inputs])
        ]
        padding = getattr(self.inputs, "padding_id", None)
        padding = self.inputs.end_id if padding is None else padding
        rows = np.full((len(found), max([1, *map(len, found)])), padding, dtype=np.int64)
        for row, tokens in zip(rows, found, strict=True):
            row[: len(tokens)] = tokens
        lengths = torch.tensor([max(1, len(tokens)) for tokens in found])
        return {"tokens": torch.from_numpy(rows), "lengths": lengths}

    def save(self, folder: Path) -> None:
        """Write processor.json, and the inputs' processor below ``inputs/``."""
        (folder / "inputs").mkdir(parents=True, exist_ok=True)
        self.inputs.save(folder / "inputs")
        saved = {"name": "labelled", "max_length": self.max_length, "targets": self.targets.to_json()}
        write_json(folder / "processor.json", saved)


def with_targets(
    processor: Any,
    examples: Callable[[], Iterator[Any]],
    fit: Callable[[Iterable[Any]], Targets],
    max_length: int,
    *,
    in_order: bool = False,
) -> Labelled:
    """Return a processor with the targets of the training split.

    Args:
        processor: What reads the inputs; or a base run's, whose targets are kept if they serve this data as well.
        examples: Iterates over the training split.
        fit: Makes targets from those of all examples.
        max_length: Texts are cut to so many tokens.
        in_order: The order of classes means something: a base run's serve only if theirs is the same.
    """
    last: list[Any] = []

    def read() -> Iterator[Any]:
        for example in examples():
            last[:] = [example]
            yield example.target
        last.clear()

    try:
        targets = fit(read())
    except DataError as error:
        origin = getattr(last[0], "origin", "") if last else ""
        raise DataError(origin or error.where, error.problem, error.remedy) from None
    if not isinstance(processor, Labelled):
        return Labelled(processor, targets, max_length)
    before = processor.targets
    if isinstance(before, Classes) and before.kind == targets.kind and _contains(before, targets, in_order=in_order):
        targets = before.counted_as(targets)
    elif before.kind == targets.kind == "numbers" and before.labels == targets.labels:
        targets = before
    return Labelled(processor.inputs, targets, max_length)


def _contains(before: Targets, targets: Targets, *, in_order: bool) -> bool:
    """Return whether all classes of ``targets`` are among those of ``before``, and in the same order if that counts."""
    known = tuple(label for label in before.labels if label in targets.labels)
    return known == targets.labels if in_order else len(known) == len(targets.labels)


@registry.processor("labelled")
class LabelledConfig(ProcessorConfig):
    """Not for recipes: tasks with labels make it from the recipe's processor and the training labels."""

    def fit(self, texts: Callable[[], Iterator[Any]]) -> Processor:
        """Raise an error: nothing says what reads the inputs."""
        raise RecipeError(
            "recipe.processor.name", "labelled is made by tasks", "Name what reads the inputs, such as image"
        )

    @classmethod
    def load(cls, folder: Path) -> Labelled:
        """Return the processor that was saved to ``folder``.

        Raises:
            DataError: If processor.json is damaged.
        """
        inner = read_json(folder / "inputs" / "processor.json")
        with saved_settings(folder) as saved:
            targets, max_length, name = targets_from_json(saved["targets"]), int(saved["max_length"]), inner["name"]
        return Labelled(registry.lookup("processor", name).load(folder / "inputs"), targets, max_length)
