"""A tokenizer for the texts that are read, and another for those that are written: for languages
that have no letters in common, and for files of a tokenizer each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import model_validator

from groundup.contracts.processors import Processor, ProcessorConfig, TextProcessor
from groundup.core import registry
from groundup.core.errors import DataError
from groundup.core.registry import processor
from groundup.core.settings import setting
from groundup.core.values import CutInputs, Example
from groundup.processors.saved_files import read_json, write_json
from groundup.processors.tokenizer_section import read_tokenizer_section

__all__ = ["TwoTokenizers", "TwoTokenizersConfig"]

_SIDES = ("source", "target")


@processor("two_tokenizers")
class TwoTokenizersConfig(ProcessorConfig):
    """A tokenizer of the inputs and another of the outputs, each learned from the training texts of
    its side, or read from a file."""

    reads = "examples"

    source: dict[str, Any] = setting(
        {"name": "bpe"},
        "The processor of the inputs, as a section processor has it: bpe, characters, bytes,"
        " tokenizer_json",
    )
    target: dict[str, Any] = setting(
        {"name": "bpe"}, "The processor of the outputs, as a section processor has it"
    )

    @model_validator(mode="after")
    def _sections_are_of_tokenizers(self) -> TwoTokenizersConfig:
        # Now, and not when all texts have been read.
        self.tokenizers()
        return self

    def tokenizers(self) -> tuple[ProcessorConfig, ProcessorConfig]:
        """Return the settings of both.

        Raises:
            RecipeError: If one is no tokenizer, or one of its settings is wrong.
        """
        return (
            read_tokenizer_section(self.source, "recipe.processor.source"),
            read_tokenizer_section(self.target, "recipe.processor.target"),
        )

    def fit(self, texts: Callable[[], Iterator[Any]]) -> TwoTokenizers:
        """Return both, each learned from its side of the training pairs.

        Raises:
            DataError: If the data are no pairs of texts.
        """
        # Read once: a tokenizer asks for its texts twice, and files are read for each time.
        pairs = [_pair_of(example) for example in texts()]
        source, target = self.tokenizers()
        return TwoTokenizers(
            _fit_side(source, [one for one, _ in pairs]),
            _fit_side(target, [other for _, other in pairs]),
        )

    @classmethod
    def load(cls, folder: Path) -> TwoTokenizers:
        """Return the processor that was saved to ``folder``.

        Raises:
            DataError: If a file of one of them is missing or damaged.
        """
        return TwoTokenizers(*(_load_side(folder / side) for side in _SIDES))


class TwoTokenizers(Processor):
    """Both tokenizers. What was counted of cut texts is one list for both.

    Args:
        source: What reads the inputs.
        target: What reads the outputs in training, and writes them in predicting.
    """

    def __init__(self, source: TextProcessor, target: TextProcessor) -> None:
        self.source = source
        self.target = target
        # Whoever reports what was cut asks the processor alone.
        self.cut = CutInputs()
        for each in (source, target):
            each.__dict__["cut"] = self.cut

    @property
    def vocabulary_size(self) -> int:
        """How many tokens outputs are written with."""
        return self.target.vocabulary_size

    def save(self, folder: Path) -> None:
        """Write processor.json, and the tokenizers' files below ``source/`` and ``target/``."""
        for side, each in zip(_SIDES, (self.source, self.target), strict=True):
            (folder / side).mkdir(parents=True, exist_ok=True)
            each.save(folder / side)
        write_json(folder / "processor.json", {"name": "two_tokenizers"})


def _pair_of(example: Any) -> tuple[str, str]:
    if isinstance(example, Example) and example.predicts_text and isinstance(example.inputs, str):
        return example.inputs, str(example.target)
    raise DataError(
        "recipe.processor",
        f"two_tokenizers learns from pairs of texts, but the data gives {type(example).__name__}"
        " objects that are none",
        "Use data: parallel_text, or one tokenizer such as processor: bpe",
    )


def _fit_side(config: ProcessorConfig, texts: list[str]) -> TextProcessor:
    found = config.fit(lambda: iter(texts))
    assert isinstance(found, TextProcessor), "what reads texts is a TextProcessor"
    return found


def _load_side(folder: Path) -> TextProcessor:
    path = folder / "processor.json"
    name = str(read_json(path).get("name"))
    found = registry.lookup("processor", name, f"{path}: name").load(folder)
    if not isinstance(found, TextProcessor):
        raise DataError(
            str(path), f"is of {name}, which is no tokenizer", "Restore the run's folder"
        )
    return found
