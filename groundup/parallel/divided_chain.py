"""Dividing layers that follow each other, convolutions and dense ones, by pairs: the first of a
pair by its outputs, the second by its inputs."""

from __future__ import annotations

from typing import Any

from torch import nn

from groundup.parallel.divided_layers import (
    DividedDropout,
    DividedInputs,
    DividedLayerNorm,
    DividedOutputs,
    SharedInput,
)
from groundup.parallel.parts import Part, divide, share
from groundup.parallel.peers import Peers

__all__ = ["divide_chain"]


def divide_chain(model: Any, peers: Peers) -> None:
    """Divide ``blocks`` and ``head`` of a model by pairs; an odd one at the end stays whole.

    Args:
        model: Each of its blocks is a sequence that begins with a linear layer or convolution; what
            comes after it works on each channel by itself, or is a norm that is known here.
        peers: The processes.
    """
    blocks = list(model.blocks)
    while blocks:
        first = blocks.pop(0)
        # Fewer outputs than processes, and there is nothing to share.
        lengths = share(len(first[0].weight), peers)
        if not min(lengths):
            continue
        if blocks:
            second = blocks.pop(0)
            second[0] = _divide_pair(first, second[0], lengths, peers)
        else:
            model.head = _divide_pair(first, model.head, lengths, peers)


def _divide_pair(
    first: nn.Sequential, second: Any, lengths: tuple[int, ...], peers: Peers
) -> DividedInputs:
    """Divide a block by its outputs, and return the layer after it divided by its inputs."""
    outputs = Part(0, lengths, peers)
    layer: Any = first[0]
    # Of a picture each channel has become that many numbers, one after the other.
    inputs = second.weight.shape[1] // len(layer.weight)
    first[0] = DividedOutputs(layer, outputs, SharedInput(peers, 1))
    for place, layer in enumerate(first):
        if isinstance(layer, nn.LayerNorm):
            first[place] = DividedLayerNorm(layer, outputs)
        elif isinstance(layer, nn.Dropout):
            first[place] = DividedDropout(layer.p, outputs)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            # Each channel is normalised by itself, whoever has it.
            for name in ("weight", "bias", "running_mean", "running_var"):
                divide(layer, name, outputs)
            layer.num_features = outputs.length
    return DividedInputs(second, Part(1, tuple(length * inputs for length in lengths), peers))
