"""A processor with a tokenizer for the texts that are read, and another for those that are written.

A task of texts asks ``tokenizers_of`` for both, whether there are two or one.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from groundup.contracts.processors import Processor, TextProcessor
from groundup.core.errors import RecipeError

__all__ = ["HasTwoTokenizers", "tokenizers_of"]


@runtime_checkable
class HasTwoTokenizers(Protocol):
    """A processor whose inputs and outputs have a vocabulary each: token 5 of the one is not token
    5 of the other."""

    @property
    def source(self) -> TextProcessor:
        """What reads the inputs."""

    @property
    def target(self) -> TextProcessor:
        """What reads the outputs in training, and writes them in predicting."""


def tokenizers_of(processor: Processor) -> tuple[TextProcessor, TextProcessor]:
    """Return what reads the inputs, and what reads and writes the outputs; often one and the same.

    Raises:
        RecipeError: If there is no tokenizer.
    """
    if isinstance(processor, HasTwoTokenizers):
        return processor.source, processor.target
    if isinstance(processor, TextProcessor):
        return processor, processor
    raise RecipeError(
        "recipe.processor",
        f"{type(processor).__name__} makes no tokens, which texts are read as",
        "Choose a tokenizer, such as bpe, or two_tokenizers",
    )
