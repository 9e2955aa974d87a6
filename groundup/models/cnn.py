"""A plain convolutional network: convolutions with pooling between them, then dense layers.

Shape legend: B images, C channels, H rows, W columns, O outputs.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import Processor
from groundup.core.errors import RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.sizes_from_data import image_shape, require_image_shape
from groundup.nn.activations import Nonlinearity, initialise_linear, nonlinearity

__all__ = ["CNN", "CNNConfig"]


@model("cnn")
class CNNConfig(ModelConfig):
    """Blocks of convolution, activation and pooling, then dense layers. The inputs' shape comes
    from the data."""

    channels: tuple[int, ...] = setting(
        (32, 64), "Channels of the convolutions, one after the other"
    )
    kernel: int = setting(3, "Height and width of the convolutions' windows, an odd number", ge=1)
    padding: bool = setting(False, "Pad the convolutions' inputs so that images keep their size")
    pool: int = setting(2, "Height and width of max-pooling after each convolution; 1: none", ge=1)
    hidden: tuple[int, ...] = setting((512,), "Widths of the dense layers before the output")
    activation: Nonlinearity = setting("relu", "After each convolution and dense layer")
    batch_norm: bool = setting(False, "Normalise over the batch after each convolution")
    dropout: float = setting(
        0.0, "Share of the dense layers' outputs dropped in training", ge=0, lt=1
    )
    input_shape: tuple[int, int, int] | None = setting(
        None, "Channels, height, width; null: as the data has"
    )
    outputs: int = setting(0, "Outputs; 0: as many as the data has classes", ge=0)

    @property
    def loss_is_sum(self) -> bool:
        """Batch norm ties the examples of a micro-batch together."""
        return not self.batch_norm

    def complete_from(self, processor: Processor) -> CNNConfig:
        """Return the config with the data's shape and classes.

        Raises:
            RecipeError: If the processor makes no images, others than the recipe says, or too
                small for the layers.
        """
        shape, labelled = image_shape("cnn", processor, self.input_shape)
        found = self.model_copy(
            update={"input_shape": shape, "outputs": self.outputs or labelled.outputs}
        )
        # Raises an error where images are too small.
        found.feature_maps()
        return found

    def feature_maps(self) -> list[tuple[int, int, int]]:
        """Return (channels, height, width) of the input and after each block.

        Raises:
            RecipeError: If nothing is left of an image after a block.
        """
        assert self.input_shape is not None
        maps = [self.input_shape]
        for number, channels in enumerate(self.channels, 1):
            height, width = ((size - self.lost) // self.pool for size in maps[-1][1:])
            # Found before the model is built, with what to change.
            if height < 1 or width < 1:
                raise RecipeError(
                    "recipe.model.channels",
                    f"nothing is left of {self.input_shape[1]} x {self.input_shape[2]} pixels after"
                    f" block {number}",
                    "Use fewer blocks, padding: true, or pad the images",
                )
            maps.append((channels, height, width))
        return maps

    @property
    def lost(self) -> int:
        """Rows, and columns, that a convolution takes from the edges of its inputs."""
        return 0 if self.padding else self.kernel - 1

    def build(self) -> CNN:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If the inputs' shape is still unknown.
        """
        require_image_shape(self.input_shape, self.outputs)
        return CNN(self)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one image, forward and backward: 6 a weight and place."""
        maps = self.feature_maps()
        products = 0
        for (inputs, height, width), (outputs, *_) in pairwise(maps):
            places = (height - self.lost) * (width - self.lost)
            products += places * inputs * outputs * self.kernel**2
        widths = (math.prod(maps[-1]), *self.hidden, self.outputs)
        return 6.0 * (products + sum(a * b for a, b in pairwise(widths)))


class CNN(nn.Module):
    """The model of a ``CNNConfig``.

    Source:
        LeCun et al., 1998, "Gradient-based learning applied to document recognition"; with ReLU and
        max-pooling as in Krizhevsky et al., 2012, "ImageNet classification with deep convolutional
        neural networks".
    """

    def __init__(self, config: CNNConfig) -> None:
        super().__init__()
        maps = config.feature_maps()
        self.blocks = nn.ModuleList()
        for (inputs, *_), (outputs, *_) in pairwise(maps):
            layers: list[nn.Module] = [
                nn.Conv2d(inputs, outputs, config.kernel, padding="same" if config.padding else 0)
            ]
            if config.batch_norm:
                layers.append(nn.BatchNorm2d(outputs))
            ends = [nonlinearity(config.activation)]
            if config.pool > 1:
                ends.append(nn.MaxPool2d(config.pool))
            if config.activation == "relu":
                # The largest of what is at least 0 is the same, of fewer numbers.
                ends.reverse()
            self.blocks.append(nn.Sequential(*layers, *ends))
        widths = (math.prod(maps[-1]), *config.hidden)
        for before, after in pairwise(widths):
            layers = [nn.Linear(before, after), nonlinearity(config.activation)]
            if config.dropout:
                layers.append(nn.Dropout(config.dropout))
            self.blocks.append(nn.Sequential(*layers))
        self.head = nn.Linear(widths[-1], config.outputs)
        for block in self.blocks:
            # Its own non-linearity decides how wide a layer's weights are drawn.
            initialise_linear(block[0], config.activation)  # type: ignore[index]
        initialise_linear(self.head, "sigmoid")
        self.convolutions = len(config.channels)
        # oneDNN's convolutions are quicker where the channels of a place are next to each other.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, inputs: Tensor) -> Tensor:
        """Return what the output layer reads, (B, last width), from inputs (B, C, H, W)."""
        x = inputs.contiguous(memory_format=torch.channels_last)
        for number, block in enumerate(self.blocks):
            # Dense layers read the last map as one row of numbers.
            if number == self.convolutions:
                x = x.flatten(1)
            x = block(x)
        return x.flatten(1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, O) from inputs (B, C, H, W)."""
        return self.head(self.features(inputs))  # type: ignore[no-any-return]
