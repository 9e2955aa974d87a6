"""What models ask of the data: its tokens, the shape of its images, or what its sequences are made
of."""

from __future__ import annotations

from typing import NamedTuple

from groundup.contracts.processors import LabelProcessor, Processor, TextProcessor
from groundup.contracts.two_tokenizers import HasTwoTokenizers
from groundup.core.errors import RecipeError

__all__ = [
    "Elements",
    "elements_of",
    "fit_two_vocabularies",
    "fit_vocabulary",
    "image_shape",
    "require_image_shape",
    "require_vocabulary",
    "settle_size",
]


class Elements(NamedTuple):
    """What sequences are made of: tokens of a vocabulary, or frames of ``frame_width`` numbers. The
    other one is 0."""

    vocabulary_size: int
    frame_width: int


def settle_size(setting: str, given: int, found: int) -> int:
    """Return a size that the data decides.

    Args:
        setting: The key in the recipe's model section.
        given: What the recipe says, 0 for nothing.
        found: What the data has.

    Raises:
        RecipeError: If they differ.
    """
    # A recipe may say what it expects; it is then an error if the data has changed.
    if given not in (0, found):
        raise RecipeError(
            f"recipe.model.{setting}", f"is {given}, but the data has {found}", "Use 0"
        )
    return found


def image_shape(
    model: str, processor: Processor, given: tuple[int, int, int] | None
) -> tuple[tuple[int, int, int], LabelProcessor]:
    """Return (channels, height, width) of the data's images, and the processor as one with labels.

    Raises:
        RecipeError: If the processor makes no images, or others than the recipe says.
    """
    if not isinstance(processor, LabelProcessor) or len(processor.input_shape) != 3:
        raise RecipeError(
            "recipe.processor", f"makes no images, which model {model} reads", "Choose image"
        )
    channels, height, width = processor.input_shape
    found = (channels, height, width)
    if given not in (None, found):
        raise RecipeError(
            "recipe.model.input_shape",
            f"is {list(given or ())}, but the data has {list(found)}",
            "Use null, or pad the images to that size",
        )
    return found, processor


def elements_of(
    model: str, processor: Processor, given: Elements
) -> tuple[Elements, LabelProcessor]:
    """Return what the data's sequences are made of, and the processor as one with labels.

    Raises:
        RecipeError: If the processor makes no sequences, or others than the recipe says.
    """
    if not isinstance(processor, LabelProcessor) or (
        not processor.vocabulary_size and len(processor.input_shape) != 2
    ):
        raise RecipeError(
            "recipe.processor",
            f"makes neither tokens nor frames, which model {model} reads",
            "Choose a text processor such as bytes, or model mlp or cnn",
        )
    # Tokens first: a processor with a vocabulary makes nothing else.
    if processor.vocabulary_size:
        settle_size("frame_width", given.frame_width, 0)
        if processor.vocabulary_size > given.vocabulary_size > 0:
            raise RecipeError(
                "recipe.model.vocabulary_size",
                f"is {given.vocabulary_size}, but the data has {processor.vocabulary_size}",
                "Use 0",
            )
        return Elements(given.vocabulary_size or processor.vocabulary_size, 0), processor
    settle_size("vocabulary_size", given.vocabulary_size, 0)
    return (
        Elements(0, settle_size("frame_width", given.frame_width, processor.input_shape[1])),
        processor,
    )


def fit_vocabulary(model: str, processor: Processor, given: int) -> int:
    """Return how many tokens a language model has: as many as the recipe says, or with 0 as the
    tokenizer has.

    Raises:
        RecipeError: If the processor has more tokens than the model, or is no tokenizer.
    """
    if isinstance(processor, HasTwoTokenizers):
        raise RecipeError(
            "recipe.processor",
            f"has a tokenizer for inputs and another for outputs, but model {model} has one"
            " vocabulary",
            "Use one tokenizer, such as processor: bpe, or model: encoder_decoder",
        )
    if not isinstance(processor, TextProcessor):
        raise RecipeError(
            "recipe.processor",
            f"makes no tokens, which model {model} reads",
            "Choose a text processor",
        )
    tokens = processor.vocabulary_size
    # Fewer are fine: weights of a larger vocabulary are often used so.
    if given and tokens > given:
        raise RecipeError(
            "recipe.model.vocabulary_size",
            f"the tokenizer has {tokens} tokens, but the model {given}",
            f"Use vocabulary_size {tokens} or more, or a smaller tokenizer",
        )
    return given or tokens


def fit_two_vocabularies(
    processor: Processor, given: tuple[int, int], *, copies: bool
) -> tuple[int, int]:
    """Return how many tokens the inputs of an encoder-decoder have, 0 where they share the outputs'
    vocabulary, and how many the outputs.

    Args:
        processor: One tokenizer, or two.
        given: What the recipe says of both; 0: as the processor has.
        copies: Whether tokens of the input may be copied.

    Raises:
        RecipeError: If there is no room for a tokenizer's tokens, there is one tokenizer for two
            vocabularies, or tokens would be copied from one vocabulary to another.
    """
    where = "recipe.model.source_vocabulary_size"
    if not isinstance(processor, HasTwoTokenizers):
        if given[0]:
            problem = f"is {given[0]}, but the processor has one tokenizer"
            raise RecipeError(where, problem, "Set processor: two_tokenizers, or remove it")
        return 0, fit_vocabulary("encoder_decoder", processor, given[1])
    if copies:
        raise RecipeError(
            "recipe.model.copying",
            "needs one vocabulary, but inputs and outputs have a tokenizer each",
            "Set copying: false, or one tokenizer such as processor: bpe",
        )
    tokens = processor.source.vocabulary_size
    if 0 < given[0] < tokens:
        raise RecipeError(
            where,
            f"the inputs' tokenizer has {tokens} tokens, but the model {given[0]}",
            f"Use source_vocabulary_size {tokens} or more, or a smaller tokenizer",
        )
    target = fit_vocabulary("encoder_decoder", processor.target, given[1])
    return given[0] or tokens, target


def require_image_shape(shape: tuple[int, int, int] | None, outputs: int) -> None:
    """Check that the shape of a classifier's images and the number of its outputs are known.

    Raises:
        RecipeError: If not.
    """
    if shape is None or not outputs:
        raise RecipeError(
            "recipe.model",
            "input_shape is null, but no data has filled it in",
            "Give it and outputs",
        )


def require_vocabulary(size: int) -> None:
    """Check that it is known how many tokens a model has.

    Raises:
        RecipeError: If not.
    """
    if not size:
        raise RecipeError(
            "recipe.model.vocabulary_size",
            "is 0, but no tokenizer has filled it in",
            "Give the number",
        )
