"""Layers of which each process has a part. They take the place of PyTorch's own, under the same
names, and need to be told nothing but a tensor, as these.

Shape legend: I inputs of a layer, O outputs, V rows of an embedding, C width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.parallel.parts import Part, divide, note_part
from groundup.parallel.peers import Peers
from groundup.parallel.vocabulary import look_up, mark

__all__ = [
    "DividedDropout",
    "DividedInputs",
    "DividedLayerNorm",
    "DividedOutputs",
    "DividedVocabulary",
    "NormOfHeads",
    "SharedInput",
]


class SharedInput:
    """The one input of several layers of divided outputs, such as queries, keys and values.

    What they say of it backward is added up over the processes once, not once for each layer.

    Args:
        peers: The processes.
        readers: How many layers read it.
    """

    def __init__(self, peers: Peers, readers: int) -> None:
        self._peers = peers
        self._readers = readers
        self._given: Tensor | None = None
        self._entered: Tensor | None = None
        self._left = 0

    def enter(self, x: Tensor) -> Tensor:
        """Return the input for one of the layers."""
        if self._readers == 1:
            return self._peers.copy_in(x)
        if self._given is not x or self._entered is None:
            self._given = x
            self._entered = self._peers.copy_in(x)
            self._left = self._readers
        self._left -= 1
        entered = self._entered
        # Nothing is kept beyond the last: it may be most of what a step holds in memory.
        if not self._left:
            self._given = None
            self._entered = None
        return entered


class DividedOutputs(nn.Module):
    """A linear layer or convolution with this process's part of the outputs (Megatron's column
    parallel layer).

    Args:
        layer: The whole one, of which nothing is used but the part.
        part: Along the outputs.
        shared: Its input.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, layer: nn.Linear | nn.Conv2d, part: Part, shared: SharedInput) -> None:
        super().__init__()
        self._shared = shared
        # Not one of the modules: its tensors are this layer's own.
        self._settings = _settings(layer)
        _take_over(self, layer)
        divide(self, "weight", part)
        if layer.bias is not None:
            divide(self, "bias", part)

    def forward(self, x: Tensor) -> Tensor:
        """Return this process's outputs of whole inputs."""
        return _apply(self._shared.enter(x), self.weight, self.bias, self._settings)


class DividedInputs(nn.Module):
    """A linear layer or convolution with this process's part of the inputs (Megatron's row parallel
    layer). The bias is whole.

    Args:
        layer: The whole one.
        part: Along the inputs.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, layer: nn.Linear | nn.Conv2d, part: Part) -> None:
        super().__init__()
        self._peers = part.peers
        self._settings = _settings(layer)
        _take_over(self, layer)
        divide(self, "weight", part)

    def forward(self, x: Tensor) -> Tensor:
        """Return the whole outputs of this process's part of the inputs."""
        out = self._peers.add_up(_apply(x, self.weight, None, self._settings))
        if self.bias is None:
            return out
        # Once, not once for each process.
        bias = self.bias.to(out.dtype)
        return out + (bias if self._settings is None else bias[:, None, None])


class DividedLayerNorm(nn.Module):
    """A layer norm over numbers of which each process has a part.

    Args:
        norm: The whole one.
        part: Of its numbers.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, norm: nn.LayerNorm, part: Part) -> None:
        super().__init__()
        self._part = part
        self._eps = norm.eps
        _take_over(self, norm)
        for name in ("weight", "bias"):
            if self._parameters[name] is not None:
                divide(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., this process's part) from x of that shape."""
        peers = self._part.peers
        mean = peers.add_up_parts(x.sum(-1, keepdim=True)) / self._part.whole
        centred = x - mean
        squares = peers.add_up_parts(centred.square().sum(-1, keepdim=True))
        normed = centred * (squares / self._part.whole + self._eps).rsqrt()
        if self.weight is not None:
            normed = normed * self.weight
        return normed if self.bias is None else normed + self.bias


class NormOfHeads(nn.Module):
    """A norm over each head, of which this process has some: the weight is whole, and what its
    heads say of it is added to what those of the other processes say.

    Args:
        norm: The norm.
        peers: The processes.
    """

    weight: nn.Parameter

    def __init__(self, norm: nn.Module, peers: Peers) -> None:
        super().__init__()
        self._peers = peers
        # In a list, so that it is not one of the modules, and its weight has one name.
        self._norms = [norm]
        self.register_parameter("weight", norm.get_parameter("weight"))

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., D) from x (..., D)."""
        weight = self._peers.copy_in(self.weight)
        (norm,) = self._norms
        out: Tensor = torch.func.functional_call(norm, {"weight": weight}, (x,))
        return out


class DividedDropout(nn.Module):
    """Dropout of this process's part: the numbers that are dropped are those that one process would
    drop.

    Args:
        share: What is dropped.
        part: Along the channels.
    """

    def __init__(self, share: float, part: Part) -> None:
        super().__init__()
        self._share = share
        self._part = part

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., this process's part) from x of that shape."""
        if not self.training or not self._share:
            return x
        # All draw for the whole, from the same state: whoever draws for a part would draw others.
        ones = x.new_ones((*x.shape[:-1], self._part.whole))
        kept = F.dropout(ones, self._share, training=True)
        return x * kept.narrow(-1, self._part.first, self._part.length)


class DividedVocabulary(nn.Module):
    """An embedding or output layer of whose rows this process has a part. ``weight`` is that part,
    and what reads it (``parallel.vocabulary``) knows it for one.

    Args:
        layer: The whole one, without a bias.
        part: Of the rows.
    """

    def __init__(self, layer: nn.Embedding | nn.Linear, part: Part) -> None:
        super().__init__()
        self._part = part
        self._padding = layer.padding_idx if isinstance(layer, nn.Embedding) else None
        own = part.take(layer.weight.detach()).clone()
        # Past ``weight`` below, which is no parameter to ``register_parameter``.
        self._parameters["weight"] = nn.Parameter(own, layer.weight.requires_grad)
        note_part(self, "weight", part)

    @property
    def weight(self) -> Tensor:
        """(this process's rows, C)."""
        parameter = self._parameters["weight"]
        assert parameter is not None
        # Each time: where parameters are divided once more, they are other tensors in a step.
        mark(parameter, self._part)
        return parameter

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (..., C) from tokens (...)."""
        return look_up(self.weight, tokens, self._padding)


def _take_over(module: nn.Module, layer: nn.Module) -> None:
    """Give a module the weight and the bias of a layer whose place it takes."""
    for name in ("weight", "bias"):
        module.register_parameter(name, layer._parameters[name])


def _settings(layer: nn.Linear | nn.Conv2d) -> dict[str, Any] | None:
    """Return what a convolution is called with; None for a linear layer."""
    if isinstance(layer, nn.Linear):
        return None
    return {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}


def _apply(
    x: Tensor, weight: Tensor, bias: Tensor | None, settings: dict[str, Any] | None
) -> Tensor:
    if settings is None:
        return F.linear(x, weight, bias)
    return F.conv2d(x, weight, bias, **settings)
