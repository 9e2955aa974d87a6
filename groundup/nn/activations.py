"""Non-linearities by name, and the initialisation that keeps the size of activations through layers
of them."""

from __future__ import annotations

from typing import Literal

from torch import nn

__all__ = ["Nonlinearity", "initialise_linear", "nonlinearity"]

Nonlinearity = Literal["relu", "gelu", "silu", "tanh", "sigmoid"]
_CLASSES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def nonlinearity(name: Nonlinearity) -> nn.Module:
    """Return the layer of a name."""
    return _CLASSES[name]()


def initialise_linear(layer: nn.Module, name: Nonlinearity) -> None:
    """Draw the weights of a layer that is followed by a non-linearity; biases are 0.

    He's normal distribution for ReLU and those like it, Glorot's uniform one for tanh, sigmoid, and
    outputs.

    Source:
        He et al., 2015 (arXiv:1502.01852), section 2.2; Glorot and Bengio, 2010, equation 16.
    """
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
    # GELU and SiLU are close to ReLU: half of what goes in is lost.
    if name in ("relu", "gelu", "silu"):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    else:
        nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
