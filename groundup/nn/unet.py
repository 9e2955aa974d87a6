"""The layers of a U-Net that makes pictures.

Shape legend: B pictures, C channels, H rows, W columns, E width of the conditions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

from groundup.nn.picture_conditions import NEAR_ZERO, TextKeys, Told, attend

__all__ = ["Down", "MapAttention", "Middle", "NormAct", "Residual", "UNetLevel", "UNetShape", "Up"]

_EPS = 1e-5


@dataclass(frozen=True)
class UNetShape:
    """What all layers of a U-Net have in common.

    Attributes:
        conditions_width: E.
        head_width: Channels of an attention head.
        groups: Of every norm.
        dropout: Inside residual layers.
        text_width: Channels of the states of a text that attention reads too; 0: there is none.
    """

    conditions_width: int
    head_width: int
    groups: int
    dropout: float
    text_width: int = 0


@dataclass(frozen=True)
class UNetLevel:
    """What is done at one size of the maps, on the way down, in the middle or on the way up.

    Attributes:
        inputs: Channels that each residual layer reads.
        outputs: Channels that each gives.
        attends: Whether there is attention after each; in the middle after all but the last.
        scale: 2: half the size afterwards; -2: twice the size; 1: the same.
        side: Places of the maps before that, height times width.
    """

    inputs: tuple[int, ...]
    outputs: int
    attends: bool
    scale: int
    side: int


def _round(x: Tensor) -> Tensor:
    """Return what a convolution is going to read, in the precision it reads it in: what follows a
    norm then moves half the bytes."""
    if x.is_cpu and torch.is_autocast_enabled("cpu"):
        return x.to(torch.get_autocast_dtype("cpu"))
    return x


def _for_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Return what a norm reads, in the precision of its weights."""
    x = x.to(norm.weight.dtype)
    # PyTorch's forward derivative of this norm takes no other layout of the memory.
    if unpack_dual(x).tangent is None:  # type: ignore[no-untyped-call]
        return x
    return x.contiguous()


class NormAct(nn.GroupNorm):
    """Group norm and SiLU, in the precision of the weights: in bf16 PyTorch's norm takes three
    times as long on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, C, H, W) of the same shape."""
        return F.silu(_round(super().forward(_for_norm(input, self))))


class Residual(nn.Module):
    """Two convolutions, scaled and shifted in between by the conditions, added to their input."""

    def __init__(self, shape: UNetShape, inputs: int, outputs: int) -> None:
        super().__init__()
        self.before = NormAct(shape.groups, inputs, _EPS)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.told = nn.Linear(shape.conditions_width, 2 * outputs)
        self.norm = nn.GroupNorm(shape.groups, outputs, _EPS)
        self.dropout = nn.Dropout(shape.dropout)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        # Where widths differ, what is added to has to be brought to the new one.
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1)
        nn.init.normal_(self.second.weight, std=NEAR_ZERO)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Return (B, C out, H, W) from x (B, C, H, W) and the conditions (B, E)."""
        # One scale and shift for each channel, the same at all places of a picture.
        scale, shift = self.told(told)[:, :, None, None].chunk(2, 1)
        y = self.norm(_for_norm(self.first(self.before(x)), self.norm))
        y = _round(torch.addcmul(shift.to(y.dtype), y, 1 + scale.to(y.dtype)))
        return self.shortcut(x) + self.second(self.dropout(F.silu(y)))  # type: ignore[no-any-return]


class MapAttention(nn.Module):
    """Every place of a map reads all others, and the text if any; added to its input."""

    def __init__(self, shape: UNetShape, width: int) -> None:
        super().__init__()
        self.heads = width // shape.head_width
        self.norm = nn.GroupNorm(shape.groups, width, _EPS)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        nn.init.normal_(self.output.weight, std=NEAR_ZERO)
        nn.init.zeros_(self.output.bias)
        self.text: TextKeys | None = None
        if shape.text_width:
            self.text = TextKeys(shape.text_width, width)

    def forward(self, x: Tensor, told: Told) -> Tensor:
        """Return (B, C, H, W) from x (B, C, H, W)."""
        # Next to each other are the channels of a place, so nothing is copied here.
        rows = self.norm(_for_norm(x, self.norm)).permute(0, 2, 3, 1).flatten(1, 2)
        places = (self.query(rows), self.key(rows), self.value(rows))
        out = attend(places, self.text, told, self.heads)
        return x + self.output(out).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class Down(nn.Module):
    """Residual layers at one size, and a convolution to half of it."""

    def __init__(self, shape: UNetShape, level: UNetLevel) -> None:
        super().__init__()
        self.layers, self.attention = _layers(shape, level, len(level.inputs))
        # A convolution instead of pooling: it chooses what is kept.
        self.halve: nn.Conv2d | None = None
        if level.scale == 2:
            self.halve = nn.Conv2d(level.outputs, level.outputs, 3, 2, 1)

    def forward(self, x: Tensor, told: Told, kept: list[Tensor]) -> Tensor:
        """Return (B, C, H / 2, W / 2), and keep what the way up reads."""
        for number, layer in enumerate(self.layers):
            x = layer(x, told.vector)
            if self.attention:
                x = self.attention[number](x, told)
            kept.append(x)
        if self.halve is not None:
            x = self.halve(x)
            kept.append(x)
        return x


class Middle(nn.Module):
    """Residual layers with attention between them, at the smallest size."""

    def __init__(self, shape: UNetShape, level: UNetLevel) -> None:
        super().__init__()
        self.layers, self.attention = _layers(shape, level, len(level.inputs) - 1)

    def forward(self, x: Tensor, told: Told, kept: list[Tensor]) -> Tensor:
        """Return (B, C, H, W)."""
        x = self.layers[0](x, told.vector)
        for attention, layer in zip(self.attention, self.layers[1:], strict=True):
            x = layer(attention(x, told), told.vector)
        return x


class Up(nn.Module):
    """Residual layers that also read what was kept at their size, and a convolution at twice it."""

    def __init__(self, shape: UNetShape, level: UNetLevel) -> None:
        super().__init__()
        self.layers, self.attention = _layers(shape, level, len(level.inputs))
        # Not a transposed convolution, which leaves a chequered pattern in pictures.
        self.enlarge: nn.Conv2d | None = None
        if level.scale == -2:
            self.enlarge = nn.Conv2d(level.outputs, level.outputs, 3, padding=1)

    def forward(self, x: Tensor, told: Told, kept: list[Tensor]) -> Tensor:
        """Return (B, C, 2 H, 2 W)."""
        for number, layer in enumerate(self.layers):
            x = layer(torch.cat([x, kept.pop().to(x.dtype)], 1), told.vector)
            if self.attention:
                x = self.attention[number](x, told)
        if self.enlarge is None:
            return x
        return self.enlarge(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


def _layers(
    shape: UNetShape, level: UNetLevel, attentions: int
) -> tuple[nn.ModuleList, nn.ModuleList]:
    layers = nn.ModuleList(Residual(shape, each, level.outputs) for each in level.inputs)
    if not level.attends:
        return layers, nn.ModuleList()
    return layers, nn.ModuleList(MapAttention(shape, level.outputs) for _ in range(attentions))
