"""
name: three_layers
uses: [three_layers.py]
model: {name: three_layers, widths: [32, 16]}
task: classify
processor: image
data: arrays
training: {batch_size: 32, steps: 20}
"""

import math
from itertools import pairwise

from torch import nn

from groundup.contracts.models import ModelConfig
from groundup.core.registry import model
from groundup.core.settings import setting


@model("three_layers")
class ThreeLayersConfig(ModelConfig):
    """Three dense layers."""

    widths: tuple[int, int] = setting((64, 32), "Widths of the hidden layers")
    inputs: int = setting(0, "Numbers in one input; 0: as the data has", ge=0)
    outputs: int = setting(0, "Classes; 0: as the data has", ge=0)

    def complete_from(self, processor):
        return self.model_copy(
            update={"inputs": math.prod(processor.input_shape), "outputs": processor.outputs}
        )

    def build(self):
        first, second = self.widths
        return nn_of(self.inputs, first, second, self.outputs)


def nn_of(*widths):
    layers = [nn.Flatten()]
    for one, other in pairwise(widths):
        layers += [nn.Linear(one, other), nn.ReLU()]
    return Stack(layers[:-1])


class Stack(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs):
        return self.layers(inputs)
