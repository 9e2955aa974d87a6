"""Linear layers whose frozen weight is kept in 4 or 8 bits, and turned back into floats only where
it is multiplied.

Shape legend: I inputs of the layer, O its outputs, N blocks of 64 weights, M blocks of 256 of
    those.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from groundup.nn.autograd import apply

__all__ = [
    "NF4",
    "QuantizedLinear",
    "QuantizedWeight",
    "add_bias",
    "dequantize",
    "quantize",
    "quantized_shapes",
]

Kind = Literal["int8", "nf4"]

# The 16 values of NF4: quantiles of the normal distribution, scaled to [-1, 1], with 0 among them.
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
# Weights that share a constant, and constants that share a scale and an offset.
_BLOCK = 64
_OUTER = 256
# Blocks quantized at a time, so that what is held between is small.
_CHUNK = 1 << 15
# A block of zeros is divided by it.
_TINY = 1e-38


def quantize(weight: Tensor, kind: Kind, *, double: bool = False) -> tuple[Tensor, ...]:
    """Return a weight in fewer bits.

    ``int8`` keeps each row as integers from -127 to 127 and one float32 scale, the row's largest
    absolute value / 127. ``nf4`` keeps blocks of 64 weights as numbers of the nearest of the 16
    values in ``NF4`` and one float32 constant, the block's largest absolute value; two weights
    share a byte, the first in its upper half. The last block is filled up with zeros. With
    ``double`` the constants themselves are kept in 8 bits, in blocks of 256 from the smallest to
    the largest in 255 equal steps: 4.13 bits a weight instead of 4.5.

    Args:
        weight: (O, I), finite.
        kind: How to keep it.
        double: Of ``nf4``: quantize the constants too.

    Returns:
        What ``dequantize`` takes. For int8: (O, I) int8, scales (O,). For nf4: (N, 32) uint8;
        (256,) int64, the two float32 that each byte means side by side; then constants (N,) or,
        doubly quantized, their codes (M, 256) uint8, scales (M, 1) and offsets (M, 1).

    Source:
        Dettmers et al., QLoRA, 2023 (arXiv:2305.14314), section 3 and appendix E for the values.
        Departs from it in the second quantization, which there is to 8-bit floats around the mean
        of all constants.
    """
    weight = weight.detach().float()
    if kind == "int8":
        scales = weight.abs().amax(1) / 127
        return (weight / scales.clamp(min=_TINY)[:, None]).round_().to(torch.int8), scales
    flat = weight.reshape(-1)
    blocks = F.pad(flat, (0, -len(flat) % _BLOCK)).view(-1, _BLOCK)
    values = torch.tensor(NF4, device=weight.device)
    parts = [_nearest(part, values) for part in torch.split(blocks, _CHUNK)]
    codes = torch.cat([part for part, _ in parts])
    constants = torch.cat([each for _, each in parts])
    # Two float32 as one integer: one look-up for each byte instead of two and a shift.
    table = torch.cartesian_prod(values, values).view(torch.int64).view(-1)
    if double:
        return codes, table, *_in_bytes(constants)
    return codes, table, constants


def _nearest(blocks: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the codes (N, 32) and constants (N,) of blocks (N, 64)."""
    constants = blocks.abs().amax(1)
    # The nearest value is found by the midpoints between neighbours.
    bounds = (values[1:] + values[:-1]) / 2
    scaled = blocks * (1 / constants.clamp(min=_TINY))[:, None]
    codes = torch.bucketize(scaled, bounds, out_int32=True).to(torch.uint8)
    # Two codes of 4 bits in a byte.
    return codes[:, ::2] << 4 | codes[:, 1::2], constants


def _in_bytes(constants: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return constants (N,) as codes (M, 256), scales (M, 1) and offsets (M, 1)."""
    # Filled up with the last one: zeros would widen the range.
    padding = constants[-1:].expand(-len(constants) % _OUTER)
    outer = torch.cat([constants, padding]).view(-1, _OUTER)
    offsets, highest = outer.aminmax(dim=1, keepdim=True)
    scales = (highest - offsets) / 255
    return ((outer - offsets) / scales.clamp(min=_TINY)).round_().to(torch.uint8), scales, offsets


def dequantize(stored: tuple[Tensor, ...], shape: tuple[int, int]) -> Tensor:
    """Return the weight (O, I), in the dtype of its scales, from what ``quantize`` returned.

    Args:
        stored: The tensors.
        shape: O and I.
    """
    if len(stored) == 2:
        integers, scales = stored
        return integers.to(scales.dtype).mul_(scales[:, None])
    codes, table, constants = stored[:3]
    if len(stored) > 3:
        scales, offsets = stored[3:]
        constants = (constants.to(scales.dtype) * scales + offsets).view(-1)[: len(codes)]
    found = table.index_select(0, codes.view(-1).int()).view(torch.float32).view(-1, _BLOCK)
    weights = found.to(constants.dtype).mul_(constants[:, None]).view(-1)
    # Without the zeros that filled up the last block.
    return weights[: shape[0] * shape[1]].view(shape)


class _Product(torch.autograd.Function):
    """x W^T with a weight that is dequantized once forward and once backward, and not kept between
    the two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: tuple[int, int], *stored: Tensor) -> Tensor:
        ctx.save_for_backward(*stored)
        ctx.shape = shape
        ctx.dtype = x.dtype
        return F.linear(x, dequantize(stored, shape).to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight = dequantize(ctx.saved_tensors, ctx.shape).to(gradient.dtype)
        return (gradient @ weight).to(ctx.dtype), None, *[None] * len(ctx.saved_tensors)


class QuantizedWeight(nn.Module):
    """A weight in 4 or 8 bits. It is never trained, and no part of ``state_dict``: it is made again
    from the base's.

    Args:
        weight: (O, I), finite.
        kind: ``int8`` or ``nf4``.
        double: Of ``nf4``: quantize its constants too.

    Source:
        Dettmers et al., QLoRA, 2023 (arXiv:2305.14314), equations 5 and 6.
    """

    def __init__(self, weight: Tensor, kind: Kind, *, double: bool = False) -> None:
        super().__init__()
        self.shape = (weight.shape[0], weight.shape[1])
        self._names = []
        for number, tensor in enumerate(quantize(weight, kind, double=double)):
            self._names.append(f"stored_{number}")
            self.register_buffer(self._names[-1], tensor, persistent=False)

    @property
    def stored(self) -> tuple[Tensor, ...]:
        """What ``quantize`` returned."""
        return tuple(self.get_buffer(name) for name in self._names)

    @property
    def bytes(self) -> int:
        """The memory it takes."""
        return sum(tensor.nbytes for tensor in self.stored)

    def dequantized(self) -> Tensor:
        """Return the weight as floats, (O, I): a new tensor each time."""
        return dequantize(self.stored, self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T, (..., O) from x (..., I)."""
        return apply(_Product, x, self.shape, *self.stored)


class QuantizedLinear(nn.Module):
    """A linear layer whose weight is kept in 4 or 8 bits; its bias stays as it is.

    Args:
        stored: The weight.
        bias: (O,), or None.
    """

    bias: nn.Parameter | None

    def __init__(self, stored: QuantizedWeight, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.out_features, self.in_features = stored.shape
        self.stored = stored
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Tensor:
        """The weight as floats, (O, I): a new tensor each time."""
        return self.stored.dequantized()

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., O) from x (..., I)."""
        return add_bias(self.stored(x), self.bias)


def add_bias(x: Tensor, bias: Tensor | None) -> Tensor:
    """Return x plus a bias in its dtype, if there is one."""
    if bias is None:
        return x
    return x + bias.to(x.dtype)


def quantized_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return O and I of each layer of a model whose weight is quantized, by the layer's name."""
    return {
        name.rpartition(".")[0]: module.shape
        for name, module in model.named_modules()
        if isinstance(module, QuantizedWeight)
    }
