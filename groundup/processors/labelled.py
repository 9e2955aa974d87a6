"""A processor of inputs together with what is predicted from them: what a classifier or a
regression travels with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from groundup.contracts.classifier_models import ChoosesHead
from groundup.contracts.processors import (
    InputProcessor,
    LabelProcessor,
    Processor,
    ProcessorConfig,
    Targets,
    TextProcessor,
)
from groundup.core import registry
from groundup.core.errors import DataError, RecipeError
from groundup.core.values import Batch, CutInputs, Example
from groundup.media.table_values import as_category
from groundup.processors.class_targets import MultiLabel, SingleLabel
from groundup.processors.saved_files import read_json, saved_settings, write_json
from groundup.processors.targets import targets_from_json
from groundup.processors.text.add_special_tokens import (
    frame_pairs,
    frame_texts,
    pad_rows,
    split_pair,
)

__all__ = ["Labelled", "LabelledConfig", "check_pairs", "require_head", "with_targets"]


class Labelled(LabelProcessor):
    """What turns inputs into tensors, and targets too.

    Args:
        inputs: The processor of the inputs: an ``InputProcessor``, or a tokenizer.
        targets: What is predicted.
        max_length: Texts are cut to this many tokens.
        pairs: An input is two texts.
        head: What the model is to give where that is not labels of a text: ``tokens``, outputs for
            each; ``none``, the states.
        notes: What there is to say of the data that both were fitted to.
    """

    def __init__(
        self,
        inputs: TextProcessor | InputProcessor,
        targets: Targets,
        max_length: int,
        *,
        pairs: bool = False,
        head: str | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.inputs = inputs
        self.targets = targets
        self.max_length = max_length
        self.pairs = pairs
        self.head = head
        self.notes = tuple(notes)
        self.cut = CutInputs() if isinstance(inputs, TextProcessor) else inputs.cut

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input; 0 where it varies. Tokens have the shape (0,)."""
        return (0,) if isinstance(self.inputs, TextProcessor) else tuple(self.inputs.input_shape)

    @property
    def category_sizes(self) -> tuple[int, ...]:
        """How many values each categorical column has, the unknown one included."""
        return () if isinstance(self.inputs, TextProcessor) else self.inputs.category_sizes

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return tensors by the names that models read them by, one row an input.

        Texts give ``tokens`` (N, T) int64 and ``lengths`` (N,). An encoder's tokenizer puts its
        first and last token around each, within ``max_length``, and pads with its own token; others
        pad with the end token. Pairs give ``token_types`` (N, T) too, where the tokenizer tells the
        two texts apart; see ``processors.framing``.
        """
        if not isinstance(self.inputs, TextProcessor):
            return self.inputs.encode_inputs(inputs)
        if self.pairs or any(isinstance(each, tuple) for each in inputs):
            pairs = [split_pair(each) for each in inputs]
            rows = frame_pairs(pairs, self.inputs, self.max_length, self.cut)
        else:
            rows = frame_texts(list(map(str, inputs)), self.inputs, self.max_length, self.cut)
        return pad_rows(rows, self.inputs)

    def as_list(self, inputs: Any) -> tuple[list[Any], bool]:
        """Return inputs as a list, and whether they were several; a tuple of two texts is one
        pair."""
        if isinstance(inputs, list) or (isinstance(inputs, tuple) and not self.pairs):
            return list(inputs), True
        return [inputs], False

    def save(self, folder: Path) -> None:
        """Write processor.json, and the inputs' processor below ``inputs/``."""
        (folder / "inputs").mkdir(parents=True, exist_ok=True)
        self.inputs.save(folder / "inputs")
        saved: dict[str, Any] = {
            "name": "labelled",
            "max_length": self.max_length,
            "targets": self.targets.to_json(),
        }
        # Left out where they say nothing, as in runs of before there were pairs.
        if self.pairs:
            saved["pairs"] = True
        if self.head:
            saved["head"] = self.head
        if self.notes:
            saved["notes"] = self.notes
        write_json(folder / "processor.json", saved)


def with_targets(
    processor: Any,
    examples: Callable[[], Iterator[Example]],
    fit: Callable[[Iterable[Any]], Targets],
    max_length: int,
    *,
    in_order: bool = False,
    head: str | None = None,
) -> Labelled:
    """Return a processor with the targets of the training split.

    Args:
        processor: What reads the inputs; or a base run's, whose targets are kept if they serve this
            data as well.
        examples: Iterates over the training split.
        fit: Makes targets from those of all examples.
        max_length: Texts are cut to so many tokens.
        in_order: The order of classes means something: a base run's serve only if theirs is the
            same.
        head: As of ``Labelled``.
    """
    # Targets are read one by one; an error is about the one that was read last.
    last: list[Example] = []
    pairs = False

    def read() -> Iterator[Any]:
        nonlocal pairs
        for example in examples():
            last[:] = [example]
            pairs = isinstance(example.inputs, tuple)
            yield example.target
        last.clear()

    try:
        targets = fit(read())
    except DataError as error:
        where = last[0].origin if last else ""
        problem = error.problem
        if last and not as_category(last[0].target):
            every = [as_category(example.target) for example in examples()]
            problem += f", as {every.count(''):,} of {len(every):,} have none"
        raise DataError(where or error.where, problem, error.remedy) from None
    notes = targets.notes
    if not isinstance(processor, Labelled):
        notes = (*processor.notes, *notes)
        return Labelled(processor, targets, max_length, pairs=pairs, head=head, notes=notes)
    # A base's head is kept where it predicts all of this data's classes, or the same numbers.
    before = processor.targets
    if (
        isinstance(before, SingleLabel | MultiLabel)
        and before.kind == targets.kind
        and _contains(before, targets, in_order=in_order)
    ):
        targets = before.counted_as(targets)
    elif before.kind == targets.kind == "numbers" and before.labels == targets.labels:
        targets = before
    return Labelled(processor.inputs, targets, max_length, pairs=pairs, head=head, notes=notes)


def _contains(before: Targets, targets: Targets, *, in_order: bool) -> bool:
    """Return whether all classes of ``targets`` are among those of ``before``, and in the same
    order if that counts."""
    wanted = tuple(map(as_category, targets.labels))
    known = tuple(label for label in map(as_category, before.labels) if label in wanted)
    return known == wanted if in_order else len(known) == len(wanted)


def check_pairs(model: nn.Module, processor: LabelProcessor) -> None:
    """Check that a model tells the two texts of a pair apart, where inputs are pairs.

    Raises:
        RecipeError: If inputs are pairs whose texts are told apart by kinds of tokens, which the
            model does not read.
    """
    if not processor.pairs or processor.tokenizer.between is None:
        return
    _, kind = processor.tokenizer.between
    if kind and "token_types" not in inspect.signature(model.forward).parameters:
        problem = (
            "an encoder's tokenizer marks the tokens of the second text, but this model reads no"
            " such marks"
        )
        raise RecipeError(
            "recipe.model.name", problem, "Use model bert, or processor.encoder: false"
        )


def require_head(model: nn.Module, processor: Labelled) -> None:
    """Check what a model's head gives.

    Raises:
        RecipeError: If it does not give what the processor's ``head`` says.
    """
    # A model of labels names no head.
    given = model.chosen_head if isinstance(model, ChoosesHead) else ""
    if given != processor.head:
        needed = "the states of all tokens"
        if processor.head == "tokens":
            needed = "outputs for every token"
        problem = f"the task needs {needed}, but this model gives {given or 'labels of a text'}"
        raise RecipeError("recipe.model", problem, "Use model bert, and leave out its head")


@registry.processor("labelled")
class LabelledConfig(ProcessorConfig):
    """Not for recipes: tasks with labels make it from the recipe's processor and the training
    labels."""

    def fit(self, texts: Callable[[], Iterator[Any]]) -> Processor:
        """Raise an error: nothing says what reads the inputs."""
        raise RecipeError(
            "recipe.processor.name",
            "labelled is made by tasks",
            "Name what reads the inputs, such as image",
        )

    @classmethod
    def load(cls, folder: Path) -> Labelled:
        """Return the processor that was saved to ``folder``.

        Raises:
            DataError: If processor.json is damaged.
        """
        inner = read_json(folder / "inputs" / "processor.json")
        with saved_settings(folder) as saved:
            reader = registry.lookup("processor", inner["name"]).load(folder / "inputs")
            return Labelled(
                reader,
                targets_from_json(saved["targets"]),
                int(saved["max_length"]),
                pairs=bool(saved.get("pairs")),
                head=saved.get("head"),
                notes=saved.get("notes", ()),
            )
