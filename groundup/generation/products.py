"""The products of a model's layers, as decoders call them one token at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.lowbit.int8 import Int8Embedding, PackedLinear, join_rows

__all__ = ["Product", "join_products", "linear_product", "norm_product", "output_product"]

Product = Callable[[Tensor], Tensor]

# Up to this many rows a weight is better the left factor of a product; of a weight with more than
# a million numbers, up to the second.
_FEW = (8, 32)
_LARGE = 2**20
# A weight of so many numbers is not worth packing.
_SMALL = 2**16


def norm_product(norm: Any) -> Product:
    """Return what a norm computes, without a module's call."""
    weight, shape = norm.weight, norm.normalized_shape
    if isinstance(norm, nn.LayerNorm):
        return lambda x: F.layer_norm(x, shape, weight, norm.bias, norm.eps)
    return lambda x: F.rms_norm(x, shape, weight, norm.eps)


def linear_product(
    weight: Tensor,
    bias: Tensor | None,
    *,
    packed: bool = False,
    layers: Sequence[Tensor] | None = None,
) -> Product:
    """Return the product of rows with a layer's weight.

    Args:
        weight: (outputs, inputs).
        bias: (outputs,).
        packed: Whether a copy of the weight, in the order in which a CPU reads it, may be kept.
        layers: The parameters whose numbers the weight has, where it is none itself: when they
            change, the copy is made again.

    On a CPU a library that multiplies a few rows with a transposed weight rearranges all of the
    weight first, which takes longer than the product. As the left factor it is read as it is:
    measured, 5 rows by 256 x 8,000 take 1.5 ms instead of 3.7, and 16 rows 3.2 instead of 4.7.
    """
    if weight.device.type != "cpu":
        return lambda x: F.linear(x, weight, bias)
    column = None if bias is None else bias.detach()[:, None]
    few = _FEW[weight.numel() > _LARGE]
    if packed and weight.dtype == torch.float32 and (library := _packing()) is not None:
        return _PackedProduct(library, weight, bias, layers or [weight])

    def multiply(x: Tensor) -> Tensor:
        # By the number of rows alone, not by a measurement: the same inputs give the same bits.
        if x.ndim != 2 or not 1 < len(x) <= few:
            return F.linear(x, weight, bias)
        if column is None:
            return (weight @ x.t()).t().contiguous()
        return torch.addmm(column, weight, x.t()).t().contiguous()

    return multiply


class _Packing(NamedTuple):
    """What a library offers: to put a weight in its own order, and to multiply with it."""

    reorder: Callable[..., Tensor]
    multiply: Callable[..., Tensor]


@cache
def _packing() -> _Packing | None:
    # Private to torch: where another version does not have it, weights are read as they are.
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    try:
        operators = torch.ops.mkldnn
        return _Packing(
            operators._reorder_linear_weight.default, operators._linear_pointwise.default
        )
    except AttributeError:
        return None


class _PackedProduct:
    """The product with a weight that oneDNN has put in its own order, once instead of each time.

    Measured: 16 rows by 256 x 8,000 take 0.65 ms instead of 1.2, and one row 0.15 instead of 0.32.
    What there is to gain is less than what the call costs where there are few numbers.
    """

    def __init__(
        self, library: _Packing, weight: Tensor, bias: Tensor | None, layers: Sequence[Tensor]
    ) -> None:
        self._library = library
        self._weight = weight
        self._bias = bias
        self._layers = layers
        self._least_rows = 1 if weight.numel() > _LARGE else 2
        self._packed: Tensor | None = None
        self._version: list[int] = []

    def __call__(self, x: Tensor) -> Tensor:
        weight = self._weight
        if x.ndim != 2 or len(x) < self._least_rows or weight.numel() <= _SMALL:
            return F.linear(x, weight, self._bias)
        # Weights made in inference mode count no changes.
        version = [0 if each.is_inference() else each._version for each in self._layers]
        if self._packed is None or version != self._version:
            self._packed = self._library.reorder(weight.detach(), None)
            self._version = version
        return self._library.multiply(x, self._packed, self._bias, "none", [], "")


def join_products(layers: list[Any], *, packed: bool = False) -> Product:
    """Return one product for layers that read the same: their outputs side by side.

    Their weights are laid side by side in memory; to the model they look as before.

    Args:
        layers: Of one kind, to be one product.
        packed: As ``linear_product`` has it.
    """
    if len(layers) == 1:
        return _alone(layers[0], packed)
    # Layers with adapters, and layers of several kinds, are called one by one.
    kinds = {type(layer) for layer in layers}
    bias = _join_biases(layers)
    if kinds == {PackedLinear}:
        joined = join_rows([layer.stored for layer in layers])
        if joined is not None:
            return PackedLinear(joined, bias).forward
    if kinds == {nn.Linear}:
        weight = torch.cat([layer.weight.detach() for layer in layers])
        rows = [len(layer.weight) for layer in layers]
        # The layers go on with their part of the whole, so that no weight is there twice.
        for layer, part in zip(layers, torch.split(weight, rows), strict=True):
            layer.weight.data = part
        own = [layer.weight for layer in layers]
        return linear_product(weight, bias, packed=packed, layers=own)
    return lambda x: torch.cat([layer(x) for layer in layers], -1)


def _join_biases(layers: list[Any]) -> Tensor | None:
    if all(layer.bias is None for layer in layers):
        return None
    # Whisper's keys have none where its queries and values do.
    parts = [layer.weight[:, 0] * 0 if layer.bias is None else layer.bias for layer in layers]
    return torch.cat([part.detach() for part in parts])


def _alone(layer: Any, packed: bool) -> Product:
    if type(layer) is not nn.Linear:
        own: Product = layer.forward
        return own
    # A module looks its weight up by name at each call.
    return linear_product(layer.weight, layer.bias, packed=packed)


def output_product(model: Any, *, packed: bool = False) -> Product:
    """Return the product of a model's output layer, which may be its embedding."""
    if model.head is not None:
        return _alone(model.head, packed)
    if isinstance(model.embed, Int8Embedding):
        return model.embed.stored.forward
    return linear_product(model.embed.weight, None, packed=packed)
