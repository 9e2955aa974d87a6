"""Layers with 8-bit weights to predict with: a quarter of the memory, and of the bytes that are
read for every token. Those of 4 bits are put in here, too.

Shape legend: I inputs of the layer, O its outputs, V vocabulary, C width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.lora.linear import AdaptedLinear
from groundup.nn.lowbit.int4 import Int4Operator, Int4Weight, fits_int4
from groundup.nn.lowbit.nf4 import QuantizedLinear, add_bias, dequantize, quantize

__all__ = [
    "Int8Embedding",
    "Int8Weight",
    "Operator",
    "PackedLinear",
    "join_rows",
    "quantize_layers",
    "quickest_int4_operator",
    "quickest_operator",
]

Operator = Literal["int8pack", "dequantize"]
Make = Callable[[Tensor], nn.Module]
Name = TypeVar("Name", Operator, Int4Operator)
# Rows up to which reading 8-bit weights is quicker than turning them into floats first.
_FEW = 16


class Int8Weight(nn.Module):
    """A weight (O, I) as integers from -127 to 127 and one float32 scale for each row. It can only
    be predicted with.

    It multiplies in one of two ways. ``int8pack`` is PyTorch's product of bfloat16 activations with
    8-bit weights: sums are in float32, and the activations and the sums are rounded to bfloat16,
    the weights and scales are not. ``dequantize`` turns the weight into floats each time: slower,
    and available everywhere. More rows than a few take this way in any case.

    Args:
        weight: (O, I), finite.
        operator: How it multiplies.
    """

    integers: Tensor
    scales: Tensor
    ones: Tensor

    def __init__(self, weight: Tensor, operator: Operator) -> None:
        super().__init__()
        self.operator: Operator = operator
        self._keep(*quantize(weight, "int8"))

    def _keep(self, integers: Tensor, scales: Tensor) -> None:
        self.register_buffer("integers", integers, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.register_buffer(
            "ones", torch.ones_like(scales, dtype=torch.bfloat16), persistent=False
        )

    @classmethod
    def joined(cls, weights: list[Int8Weight]) -> Int8Weight:
        """Return one weight with the rows of several, which from now on share its memory."""
        first = weights[0]
        made = cls(first.scales.new_zeros(0, first.integers.shape[1]), first.operator)
        made._keep(torch.cat([w.integers for w in weights]), torch.cat([w.scales for w in weights]))
        rows = [len(w.scales) for w in weights]
        integers = torch.split(made.integers, rows)
        scales = torch.split(made.scales, rows)
        # Each takes its part of the whole in place of its own: the memory stays what it was.
        for weight, own_integers, own_scales in zip(weights, integers, scales, strict=True):
            weight._keep(own_integers, own_scales)
        return made

    def rows(self, numbers: Tensor) -> Tensor:
        """Return some rows as floats, (..., I) for numbers (...)."""
        return self.integers[numbers] * self.scales[numbers, None]

    def dequantized(self) -> Tensor:
        """Return the weight as floats, (O, I): a new tensor each time."""
        rows, columns = self.integers.shape
        return dequantize((self.integers, self.scales), (rows, columns))

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T, (..., O) from x (..., I)."""
        if self.operator == "dequantize" or x.numel() > _FEW * x.shape[-1]:
            return F.linear(x, self.dequantized().to(x.dtype))
        # With scales of 1: PyTorch's operator would round the real ones to bfloat16.
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        sums = torch._weight_int8pack_mm(rows, self.integers, self.ones)
        return (sums * self.scales).view(*x.shape[:-1], -1)


def join_rows(weights: list[Any]) -> Int8Weight | Int4Weight | None:
    """Return one weight with the rows of several, which from now on share its memory; None where
    they cannot: some of 8 and some of 4 bits, or of another order of bytes."""
    kinds = {type(weight) for weight in weights}
    if kinds == {Int8Weight}:
        return Int8Weight.joined(weights)
    return Int4Weight.joined(weights) if kinds == {Int4Weight} else None


class PackedLinear(nn.Module):
    """A linear layer over a weight in 8 or 4 bits."""

    def __init__(self, stored: Int8Weight | Int4Weight, bias: Tensor | None) -> None:
        super().__init__()
        self.stored = stored
        self.bias = bias

    @property
    def weight(self) -> Tensor:
        """The weight as floats, (O, I): a new tensor each time."""
        return self.stored.dequantized()

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., O) from x (..., I)."""
        return add_bias(self.stored(x), self.bias)


class Int8Embedding(nn.Module):
    """An embedding over an ``Int8Weight``, of which only the rows that are looked up become
    floats."""

    def __init__(self, stored: Int8Weight) -> None:
        super().__init__()
        self.stored = stored

    @property
    def weight(self) -> Tensor:
        """The embedding as floats, (V, C): a new tensor each time."""
        return self.stored.dequantized()

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (..., C) from tokens (...)."""
        return self.stored.rows(tokens)


@torch.no_grad()
def quantize_layers(
    model: nn.Module,
    operator: Operator,
    table: str = "",
    int4: Int4Operator | None = None,
    wide: tuple[str, ...] = (),
) -> dict[type[nn.Module], int]:
    """Replace every linear layer of a model by one with few bits, one after the other.

    Args:
        model: Changed in place. Adapters become part of the weights, and a base in 4 or 8 bits
            floats first.
        operator: How weights of 8 bits multiply.
        table: The name of an embedding to replace too, by one of 8 bits.
        int4: How weights of 4 bits multiply; None for 8 bits everywhere. A weight that does not fit
            groups of 4 bits has 8.
        wide: Names of layers that have 8 bits in any case.

    Returns:
        How many of the layers that are in neither ``table`` nor ``wide`` have which kind of weight.

    Source:
        Dettmers et al., LLM.int8(), 2022 (arXiv:2208.07339), section 2.1: absolute maxima, here of
        each row; departs from it in that activations are not quantized.
    """
    kinds = (nn.Linear, AdaptedLinear, QuantizedLinear)
    names = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    found: dict[type[nn.Module], int] = {Int4Weight: 0, Int8Weight: 0}
    for name in [*names, table] if table else names:
        place, _, last = name.rpartition(".")
        try:
            layer: Any = model.get_submodule(name)
        except AttributeError:
            # The linear layer inside one with an adapter, which was replaced.
            continue
        parent = model.get_submodule(place)
        weight = layer.weight.detach()
        if name == table:
            setattr(parent, last, Int8Embedding(Int8Weight(weight, operator)))
            continue
        stored: Int8Weight | Int4Weight
        if int4 is None or name in wide or not fits_int4(weight):
            stored = Int8Weight(weight, operator)
        else:
            stored = Int4Weight.quantized(weight, int4)
        if name not in wide:
            found[type(stored)] += 1
        setattr(parent, last, PackedLinear(stored, layer.bias))
    return found


def quickest_operator(
    device: torch.device, width: int = 1024, repeats: int = 5
) -> tuple[Operator, dict[Operator, float]]:
    """Return the quickest way to multiply one row with an 8-bit weight here, and the milliseconds
    that each takes.

    PyTorch's own is many times quicker where it is vectorised, and many times slower or missing
    elsewhere.
    """
    own: dict[Operator, Make] = {
        "int8pack": lambda weight: Int8Weight(weight, "int8pack"),
        "dequantize": lambda weight: Int8Weight(weight, "dequantize"),
    }
    return _quickest(own, device, width, repeats)


def quickest_int4_operator(
    device: torch.device, width: int = 1024, repeats: int = 5
) -> tuple[Int4Operator, dict[Int4Operator, float]]:
    """Return the same for a 4-bit weight; ``width`` is a multiple of 32."""
    own: dict[Int4Operator, Make] = {
        "int4pack": lambda weight: Int4Weight.quantized(weight, "int4pack"),
        "dequantize": lambda weight: Int4Weight.quantized(weight, "dequantize"),
    }
    return _quickest(own, device, width, repeats)


def _quickest(
    makes: dict[Name, Make], device: torch.device, width: int, repeats: int
) -> tuple[Name, dict[Name, float]]:
    """Return the quickest of several ways, and the milliseconds of each; the last, which is
    available everywhere, on other devices than CPUs."""
    if device.type != "cpu":
        return list(makes)[-1], {}
    found: dict[Name, float] = {}
    x = torch.ones(1, width)
    for name, make in makes.items():
        try:
            stored = make(torch.ones(width, width))
            found[name] = min(_milliseconds(stored, x) for _ in range(repeats))
        except (RuntimeError, NotImplementedError, AttributeError):
            # Not in this build of PyTorch.
            continue
    return min(found, key=lambda name: found[name]), found


@torch.no_grad()
def _milliseconds(work: Callable[[Tensor], object], x: Tensor) -> float:
    begin = time.perf_counter()
    work(x)
    return 1e3 * (time.perf_counter() - begin)
