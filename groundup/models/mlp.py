"""Multi-layer perceptron: dense layers with a non-linearity between them, over inputs of any one shape.

Shape legend: B rows, I inputs, O outputs.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from groundup.core.errors import RecipeError
from groundup.core.interfaces import LabelProcessor, ModelConfig, Processor
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.nn.activations import Nonlinearity, initialise_linear, nonlinearity

__all__ = ["MLPClassifier", "MLPConfig"]


@model("mlp")
class MLPConfig(ModelConfig):
    """Dense layers of the given widths. The inputs' and outputs' sizes come from the data."""

    hidden: tuple[int, ...] = setting((128,), "Widths of the hidden layers; an empty list gives a linear model")
    activation: Nonlinearity = setting("relu", "Between the layers")
    norm: Literal["none", "batch", "layer"] = setting("none", "Normalisation before each activation")
    dropout: float = setting(0.0, "Share of each hidden layer's outputs dropped in training", ge=0, lt=1)
    inputs: int = setting(0, "Numbers in one input; 0: as the data has", ge=0)
    outputs: int = setting(0, "Outputs; 0: as many as the data has classes", ge=0)

    @property
    def additive(self) -> bool:
        """Batch norm ties the examples of a micro-batch together."""
        return self.norm != "batch"

    def fit_to(self, processor: Processor) -> MLPConfig:
        """Return the config with the data's sizes where they were 0.

        Raises:
            RecipeError: If the processor makes no inputs of one shape, or the sizes differ.
        """
        if not isinstance(processor, LabelProcessor):
            raise RecipeError("recipe.processor", "makes no inputs of one shape, which model mlp reads", "Choose image")
        found = {"inputs": math.prod(processor.input_shape), "outputs": len(processor.labels)}
        for name, size in found.items():
            if getattr(self, name) not in (0, size):
                raise RecipeError(f"recipe.model.{name}", f"is {getattr(self, name)}, and the data has {size}", "Use 0")
        return self.model_copy(update=found)

    def build(self) -> MLPClassifier:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If a size is still unknown.
        """
        if not self.inputs or not self.outputs:
            raise RecipeError("recipe.model", "inputs or outputs is 0, and no data has filled it in", "Give both")
        return MLPClassifier(self)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one input, forward and backward: 6 a weight."""
        return 6.0 * sum(a * b for a, b in pairwise((self.inputs, *self.hidden, self.outputs)))


class MLPClassifier(nn.Module):
    """The model of an ``MLPConfig``.

    Source:
        Rumelhart, Hinton and Williams, 1986, "Learning representations by back-propagating errors"; initialisation:
        He et al., 2015 (arXiv:1502.01852) for ReLU and its relatives, Glorot and Bengio, 2010, for sigmoid and tanh.
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        widths = (config.inputs, *config.hidden)
        for inputs, outputs in pairwise(widths):
            layers.append(nn.Linear(inputs, outputs))
            if config.norm != "none":
                layers.append(nn.BatchNorm1d(outputs) if config.norm == "batch" else nn.LayerNorm(outputs))
            layers += [nonlinearity(config.activation), nn.Dropout(config.dropout)]
        layers.append(nn.Linear(widths[-1], config.outputs))
        self.layers = nn.Sequential(*layers)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                initialise_linear(layer, config.activation if layer is not self.layers[-1] else "sigmoid")

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, O) from inputs (B, ...) that hold I numbers a row."""
        return self.layers(inputs)  # type: ignore[no-any-return]
