"""Multi-layer perceptron: dense layers with a non-linearity between them, over inputs of any one
shape.

Shape legend: B rows, I inputs, M categorical columns, O outputs.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import LabelProcessor, Processor
from groundup.core.errors import RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.sizes_from_data import settle_size
from groundup.nn.activations import Nonlinearity, initialise_linear, nonlinearity

__all__ = ["MLPClassifier", "MLPConfig"]

_EMBEDDING_STD = 0.1


@model("mlp")
class MLPConfig(ModelConfig):
    """Dense layers of the given widths. The inputs' and outputs' sizes come from the data."""

    hidden: tuple[PositiveInt, ...] = setting(
        (128,), "Widths of the hidden layers; an empty list gives a linear model"
    )
    activation: Nonlinearity = setting("relu", "Between the layers")
    norm: Literal["none", "batch", "layer"] = setting(
        "none", "Normalisation before each activation"
    )
    dropout: float = setting(
        0.0, "Share of each hidden layer's outputs dropped in training", ge=0, lt=1
    )
    inputs: int = setting(0, "Numbers in one input; 0: as the data has", ge=0)
    category_sizes: tuple[int, ...] = setting(
        (), "Values of each categorical column; empty: as the data has"
    )
    category_width: int = setting(
        16,
        "Learned numbers of a category; half as many as there are values where those are few",
        ge=1,
    )
    outputs: int = setting(0, "Outputs; 0: as many as the data has classes or targets", ge=0)

    @property
    def loss_is_sum(self) -> bool:
        """Batch norm ties the examples of a micro-batch together."""
        return self.norm != "batch"

    def complete_from(self, processor: Processor) -> MLPConfig:
        """Return the config with the data's sizes where they were 0.

        Raises:
            RecipeError: If the processor makes no inputs of one shape, or the sizes differ from
                those given.
        """
        if not isinstance(processor, LabelProcessor):
            raise RecipeError(
                "recipe.processor",
                "makes no inputs of one shape, which model mlp reads",
                "Choose image",
            )
        if 0 in processor.input_shape and not processor.category_sizes:
            raise RecipeError(
                "recipe.processor",
                "makes inputs of varying length, but model mlp reads inputs of one shape",
                "Choose model rnn or transformer_classifier",
            )
        found = {
            "inputs": settle_size("inputs", self.inputs, math.prod(processor.input_shape)),
            "outputs": settle_size("outputs", self.outputs, processor.outputs),
        }
        sizes = processor.category_sizes
        if self.category_sizes not in ((), sizes):
            raise RecipeError(
                "recipe.model.category_sizes",
                f"is {list(self.category_sizes)}, but the data has {list(sizes)}",
                "Remove it",
            )
        return self.model_copy(update=found | {"category_sizes": sizes})

    @property
    def category_widths(self) -> tuple[int, ...]:
        """Learned numbers of a value of each categorical column."""
        return tuple(min(self.category_width, (size + 1) // 2) for size in self.category_sizes)

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers that go into each layer."""
        return (self.inputs + sum(self.category_widths), *self.hidden)

    def layer_widths(self) -> tuple[int, ...]:
        """Return how many numbers go in, and come out of each hidden layer."""
        return self.widths

    def build(self) -> MLPClassifier:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If a size is still unknown.
        """
        if not self.widths[0] or not self.outputs:
            raise RecipeError(
                "recipe.model", "inputs or outputs is 0, but no data has filled it in", "Give both"
            )
        return MLPClassifier(self)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one input, forward and backward: 6 a weight."""
        return 6.0 * sum(a * b for a, b in pairwise((*self.widths, self.outputs)))


class MLPClassifier(nn.Module):
    """The model of an ``MLPConfig``.

    Source:
        Rumelhart, Hinton and Williams, 1986, "Learning representations by back-propagating errors";
        initialisation: He et al., 2015 (arXiv:1502.01852) for ReLU and its relatives, Glorot and
            Bengio, 2010, for sigmoid and tanh.
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.embed = nn.ModuleList(
            _embedding(size, width)
            for size, width in zip(config.category_sizes, config.category_widths, strict=True)
        )
        self.blocks = nn.ModuleList()
        for inputs, outputs in pairwise(config.widths):
            layers: list[nn.Module] = [nn.Linear(inputs, outputs)]
            # Its own non-linearity decides how wide a layer's weights are drawn.
            initialise_linear(layers[0], config.activation)
            # Before the activation, as the papers of both norms have it.
            if config.norm != "none":
                layers.append(
                    nn.BatchNorm1d(outputs) if config.norm == "batch" else nn.LayerNorm(outputs)
                )
            layers.append(nonlinearity(config.activation))
            if config.dropout:
                layers.append(nn.Dropout(config.dropout))
            self.blocks.append(nn.Sequential(*layers))
        self.head = nn.Linear(config.widths[-1], config.outputs)
        initialise_linear(self.head, "sigmoid")

    def features(self, inputs: Tensor, categories: Tensor | None = None) -> Tensor:
        """Return what the output layer reads, (B, last hidden width). Arguments as in
        ``forward``."""
        # Images too: every pixel is a number of the row.
        x = inputs.flatten(1)
        if categories is not None:
            x = torch.cat(
                (
                    x,
                    *(
                        embed(column)
                        for embed, column in zip(self.embed, categories.T, strict=True)
                    ),
                ),
                1,
            )
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, inputs: Tensor, categories: Tensor | None = None) -> Tensor:
        """Return (B, O).

        Args:
            inputs: (B, ...) that hold I numbers a row.
            categories: (B, M) int64, numbers of the values of M categorical columns; 0 is an
                unknown value.
        """
        return self.head(self.features(inputs, categories))  # type: ignore[no-any-return]


def _embedding(size: int, width: int) -> nn.Embedding:
    """Return vectors for the values of a column, small at first: a rare value says little until it
    is learned.

    That of unknown values starts at 0, so that one never seen in training adds nothing.
    """
    embedding = nn.Embedding(size, width)
    nn.init.normal_(embedding.weight, std=_EMBEDDING_STD)
    nn.init.zeros_(embedding.weight[0])
    return embedding
