"""Weights in 4 bits to predict with: an eighth of fp32's bytes are read for every token, and some
for scales.

Shape legend: I inputs of the layer, O its outputs, G groups of inputs.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GROUP", "Int4Operator", "Int4Weight", "fits_int4", "quantize_int4"]

Int4Operator = Literal["int4pack", "dequantize"]
# Inputs that share a scale and a middle: PyTorch's operator takes 32, 64, 128 or 256.
GROUP = 32
# Outputs that PyTorch's operator takes a multiple of.
_OUTPUTS = 16
# Outputs that its layout of bytes takes together, at most.
_TOGETHER = 64
# A group of equal weights is divided by it.
_TINY = 1e-38


def fits_int4(weight: Tensor) -> bool:
    """Return whether a weight (O, I) can be kept in 4 bits: I in whole groups, O in sixteens."""
    outputs, inputs = weight.shape
    return inputs % GROUP == 0 and outputs % _OUTPUTS == 0


def quantize_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a weight as integers from 0 to 15, and a scale and a middle for each group.

    A weight is nearly ``(integer - 8) * scale + middle``. The scale is the group's range / 15, the
    middle what the integer 8 stands for when 0 is the group's minimum. Both are rounded to
    bfloat16 first, and the integers are the nearest to that.

    Args:
        weight: (O, I), finite; I is a multiple of ``GROUP``.

    Returns:
        (O, I) int32, and (G, O, 2) bfloat16: scale and middle.
    """
    groups = weight.detach().float().view(len(weight), -1, GROUP)
    lowest, highest = groups.aminmax(dim=-1)
    scales = ((highest - lowest) / 15).bfloat16()
    middles = (lowest + 8 * scales.float()).bfloat16()
    steps = (groups - middles[..., None].float()) / scales[..., None].float().clamp(min=_TINY)
    integers = (steps.round_() + 8).clamp_(0, 15).to(torch.int32).view(weight.shape)
    return integers, torch.stack((scales, middles), -1).transpose(0, 1).contiguous()


class Int4Weight(nn.Module):
    """A weight (O, I) in 4 bits and, for every 32 inputs, a scale and a middle in bfloat16: 5 bits
    a weight. It can only be predicted with.

    It multiplies in one of two ways. ``int4pack`` is PyTorch's product of bfloat16 activations with
    4-bit weights: sums are in float32, activations and sums are rounded to bfloat16. ``dequantize``
    turns the weight into floats each time: slower, and available everywhere.

    Args:
        packed: (O, I / 2) uint8, two integers in a byte: as the operator has them.
        scales: (G, O, 2), of ``quantize_int4``.
        operator: How it multiplies.
    """

    packed: Tensor
    scales: Tensor

    def __init__(self, packed: Tensor, scales: Tensor, operator: Int4Operator) -> None:
        super().__init__()
        self.operator: Int4Operator = operator
        self._keep(packed, scales)

    def _keep(self, packed: Tensor, scales: Tensor) -> None:
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("scales", scales, persistent=False)

    @classmethod
    def quantized(cls, weight: Tensor, operator: Int4Operator) -> Int4Weight:
        """Return a weight (O, I), which ``fits_int4``, in 4 bits."""
        integers, scales = quantize_int4(weight)
        if operator == "int4pack":
            # Its order of bytes is another on every kind of processor. The 1 has no effect on CPUs.
            packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(integers, 1)
        else:
            packed = (integers[:, ::2] | integers[:, 1::2] << 4).to(torch.uint8)
        return cls(packed, scales, operator)

    @classmethod
    def joined(cls, weights: list[Int4Weight]) -> Int4Weight | None:
        """Return one weight with the rows of several, which from now on share its memory; None
        where the bytes of several do not follow each other."""
        rows = [len(weight.packed) for weight in weights]
        first = weights[0]
        if first.operator == "int4pack" and any(each % _TOGETHER for each in rows):
            return None
        packed = torch.cat([weight.packed for weight in weights])
        scales = torch.cat([weight.scales for weight in weights], 1)
        parts = zip(torch.split(packed, rows), torch.split(scales, rows, 1), strict=True)
        for weight, (own_packed, own_scales) in zip(weights, parts, strict=True):
            weight._keep(own_packed, own_scales)
        return cls(packed, scales, first.operator)

    def dequantized(self) -> Tensor:
        """Return the weight as float32, (O, I): a new tensor each time."""
        rows = len(self.packed)
        scales, middles = self.scales.float().transpose(0, 1)[..., None].unbind(2)
        groups = self._integers().view(rows, -1, GROUP)
        return torch.addcmul(middles, groups, scales).reshape(rows, -1)

    def _integers(self) -> Tensor:
        """Return the integers - 8 as float32, (O, I)."""
        if self.operator == "dequantize":
            pairs = torch.stack((self.packed & 15, self.packed >> 4), -1)
            return pairs.view(len(pairs), -1).float() - 8
        # Only the operator knows its order: it reads them out with scales of 1 and middles of 0.
        ones = torch.zeros_like(self.scales, memory_format=torch.contiguous_format)
        ones[..., 0] = 1
        every_input = torch.eye(2 * self.packed.shape[1], dtype=torch.bfloat16)
        return _multiply(every_input, self.packed, ones).t().float()

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T, (..., O) from x (..., I)."""
        if self.operator == "dequantize":
            return F.linear(x, self.dequantized().to(x.dtype))
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        # A part of a joined weight has its scales between those of others.
        sums = _multiply(rows, self.packed, self.scales.contiguous())
        return sums.to(x.dtype).view(*x.shape[:-1], -1)


def _multiply(rows: Tensor, packed: Tensor, scales: Tensor) -> Tensor:
    product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, packed, GROUP, scales)
    return product
