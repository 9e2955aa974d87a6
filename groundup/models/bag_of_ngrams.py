"""Bag of n-grams: the vectors of a text's tokens and of short runs of them, added up, then a linear
output; or a weight of each for every output, a linear model.

Shape legend: B sequences, T positions, C channels, O outputs.
"""

from __future__ import annotations

import torch
from pydantic import model_validator
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import LabelProcessor, Processor
from groundup.core.errors import RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.sizes_from_data import Elements, elements_of, settle_size
from groundup.nn.activations import initialise_linear
from groundup.nn.ngrams import NGramBag

__all__ = ["BagOfNGrams", "BagOfNGramsConfig", "LinearBagOfNGrams"]


@model("bag_of_ngrams")
class BagOfNGramsConfig(ModelConfig):
    """A vector for each token and n-gram, added up, then a linear output. Of the order it knows
    only the n-grams.

    Learned in seconds, and hard to beat where a few thousand texts are to be told apart by what
    they say. With ``width`` 0 there are no vectors: it is linear in the counts, logistic regression
    with the cross-entropy and a linear SVM with the squared hinge.
    """

    width: int = setting(
        16, "Numbers in a vector; 0: none, but a weight for each output (a linear model)", ge=0
    )
    ngrams: int = setting(2, "The longest n-gram, in tokens; 1: single tokens only", ge=1, le=8)
    buckets: int = setting(
        131072,
        "Vectors for n-grams of two tokens and more, which are hashed to them",
        ge=1,
        applies_when={"ngrams": (2, 3, 4, 5, 6, 7, 8)},
    )
    idf: bool = setting(
        False, "Let tokens and n-grams count the more, the fewer training texts have them"
    )
    sublinear_tf: bool = setting(
        False, "Let a token or n-gram that a text has c times count 1 + log c, not c"
    )
    dropout: float = setting(0.0, "Share of the sum's channels dropped in training", ge=0, lt=1)
    vocabulary_size: int = setting(0, "Tokens in the vocabulary; 0: as the data has", ge=0)
    outputs: int = setting(0, "Outputs; 0: as many as the data has classes or targets", ge=0)

    @model_validator(mode="after")
    def _drops_something(self) -> BagOfNGramsConfig:
        if self.dropout and not self.width:
            raise ValueError(
                "dropout has no effect with width 0: there is no sum of vectors. Remove one of them"
            )
        return self

    def complete_from(self, processor: Processor) -> BagOfNGramsConfig:
        """Return the config with the data's sizes where they were 0.

        Raises:
            RecipeError: If the processor makes no tokens, or the sizes differ.
        """
        if not isinstance(processor, LabelProcessor) or not processor.vocabulary_size:
            raise RecipeError(
                "recipe.processor",
                "makes no tokens, which model bag_of_ngrams reads",
                "Choose a text processor such as bpe",
            )
        elements, _ = elements_of("bag_of_ngrams", processor, Elements(self.vocabulary_size, 0))
        found = {"vocabulary_size": elements.vocabulary_size}
        return self.model_copy(
            update=found | {"outputs": settle_size("outputs", self.outputs, processor.outputs)}
        )

    def build(self) -> BagOfNGrams | LinearBagOfNGrams:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If a size is still unknown.
        """
        if not self.vocabulary_size or not self.outputs:
            raise RecipeError(
                "recipe.model",
                "vocabulary_size or outputs is 0, but no data has filled it in",
                "Give both",
            )
        return BagOfNGrams(self) if self.width else LinearBagOfNGrams(self)

    def bag(self, width: int) -> NGramBag:
        """Return a bag of vectors of ``width`` numbers."""
        size = self.vocabulary_size
        return NGramBag(size, width, self.ngrams, self.buckets, self.idf, self.sublinear_tf)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one token of a sequence of ``context``, forward and backward: the
        output's alone."""
        # Looking vectors up and adding them is no product.
        return 6.0 * self.width * self.outputs / max(context, 1)


class BagOfNGrams(nn.Module):
    """The model of a ``BagOfNGramsConfig``; see ``nn.ngrams`` for its source."""

    def __init__(self, config: BagOfNGramsConfig) -> None:
        super().__init__()
        self.embed = config.bag(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.width, config.outputs)
        # The output is followed by a softmax or nothing.
        initialise_linear(self.head, "sigmoid")

    def features(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return what the output layer reads, (B, C). Arguments as in ``forward``."""
        return self.embed(tokens, lengths)  # type: ignore[no-any-return]

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return (B, O).

        Args:
            tokens: (B, T) int64.
            lengths: (B,) int64, what of each row is no padding, at least 1; default: all.
        """
        return self.head(self.dropout(self.features(tokens, lengths)))  # type: ignore[no-any-return]


class LinearBagOfNGrams(nn.Module):
    """The model of a ``BagOfNGramsConfig`` without vectors: a weight of each token and n-gram for
    every output."""

    def __init__(self, config: BagOfNGramsConfig) -> None:
        super().__init__()
        # Named as heads are: all of it has a place for each class.
        self.head_bag = config.bag(config.outputs)
        self.head_bias = nn.Parameter(torch.zeros(config.outputs))
        # Such a model has no symmetry to break, and a token never seen in training says nothing.
        nn.init.zeros_(self.head_bag.embed.weight)

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return (B, O). Arguments as of ``BagOfNGrams``."""
        return self.head_bag(tokens, lengths) + self.head_bias  # type: ignore[no-any-return]
