"""A convolutional autoencoder of pictures whose middle is a grid of codes.

Shape legend: B pictures, C channels, H and W pixels, R rows and S columns of codes, D numbers of a
    code.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import Processor
from groundup.core.errors import RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.sizes_from_data import image_shape
from groundup.nn.fsq import FiniteScalarQuantizer

__all__ = ["FSQAutoencoder", "FSQAutoencoderConfig"]

_Count = Annotated[int, Field(ge=1)]
_KERNEL = 3


@model("fsq_autoencoder")
class FSQAutoencoderConfig(ModelConfig):
    """Stages of residual blocks that make a picture smaller, codes by finite scalar quantisation,
    and the same stages the other way round."""

    levels: tuple[Annotated[int, Field(ge=2)], ...] = setting(
        (8, 6, 5),
        "How many values each number of a code takes; multiplied, how many codes there are",
        min_length=1,
    )
    patch: int = setting(
        4, "Height and width of the squares of pixels that the first layer reads as one place", ge=1
    )
    widths: tuple[_Count, ...] = setting(
        (64, 128),
        "Channels of each stage; each stage but the first halves height and width",
        min_length=1,
    )
    layers: int = setting(1, "Residual blocks of each stage, in encoder and in decoder", ge=1)
    groups: int = setting(8, "Groups of channels that are normalised together", ge=1)
    input_shape: tuple[int, int, int] | None = setting(
        None, "Channels, height, width; null: as the data has"
    )

    @model_validator(mode="after")
    def _groups_divide_widths(self) -> FSQAutoencoderConfig:
        for width in self.widths:
            if width % self.groups:
                raise ValueError(
                    f"widths has {width}, which is not a multiple of groups {self.groups}. Use"
                    " such a multiple"
                )
        return self

    def complete_from(self, processor: Processor) -> FSQAutoencoderConfig:
        """Return the config with the data's shape.

        Raises:
            RecipeError: If the processor makes no pictures, others than the recipe says, or some
                that the stages do not divide.
        """
        found, _ = image_shape("fsq_autoencoder", processor, self.input_shape)
        fitted = self.model_copy(update={"input_shape": found})
        # Now, and not when the model is built: with what to change.
        fitted.places()
        return fitted

    def places(self) -> list[tuple[int, int]]:
        """Return the rows and columns of each stage; the last has a code in each place.

        Raises:
            RecipeError: If a stage would cut pixels off.
        """
        assert self.input_shape is not None
        _, height, width = self.input_shape
        factor = self.patch * 2 ** (len(self.widths) - 1)
        if height % factor or width % factor:
            raise RecipeError(
                "recipe.model.patch",
                f"is {self.patch}, and {len(self.widths)} stages make {factor} pixels one place,"
                f" which divides not both sides of {height} x {width} pixels",
                "Use fewer stages or a smaller patch, or set processor.size",
            )
        return [
            (height // self.patch // 2**stage, width // self.patch // 2**stage)
            for stage in range(len(self.widths))
        ]

    def build(self) -> FSQAutoencoder:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If the pictures' shape is still unknown.
        """
        if self.input_shape is None:
            problem = "is null, but no data has filled it in"
            raise RecipeError("recipe.model.input_shape", problem, "Give it")
        self.places()
        return FSQAutoencoder(self)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one picture, forward and backward: 6 a weight and place."""
        assert self.input_shape is not None
        window = _KERNEL**2
        counts = [rows * columns for rows, columns in self.places()]
        pixels = self.input_shape[0] * self.patch**2
        # Of encoder and decoder alike, but for the decoder's first convolution, which has windows.
        products = 2.0 * window * pixels * self.widths[0] * counts[0]
        products += (1 + window) * len(self.levels) * self.widths[-1] * counts[-1]
        for width, count in zip(self.widths, counts, strict=True):
            # Two convolutions a block, in encoder and decoder.
            products += 2 * self.layers * 2 * window * width**2 * count
        for (before, after), (larger, smaller) in zip(
            pairwise(self.widths), pairwise(counts), strict=True
        ):
            # Going down is counted at its output, going up as well.
            products += window * before * after * (larger + smaller)
        return 6.0 * products


class FSQAutoencoder(nn.Module):
    """The model of an ``FSQAutoencoderConfig``.

    Source:
        An encoder, a grid of codes and a decoder: van den Oord et al., 2017 (arXiv:1711.00937);
        the codes: Mentzer et al., 2023 (arXiv:2309.15505); residual blocks with group norm: Wu and
        He, 2018 (arXiv:1803.08494), in the order of He et al., 2016 (arXiv:1603.05027).
        Departs from them: the first layer reads squares of pixels, and the last one writes them
        (Shi et al., 2016, arXiv:1609.05158): convolutions over all pixels take most of the time
        elsewhere.
    """

    def __init__(self, config: FSQAutoencoderConfig) -> None:
        super().__init__()
        assert config.input_shape is not None
        self.patch = config.patch
        self.grid = config.places()[-1]
        pixels = config.input_shape[0] * config.patch**2
        widths = config.widths
        numbers = len(config.levels)
        layers: list[nn.Module] = [_convolution(pixels, widths[0])]
        for stage, width in enumerate(widths):
            if stage:
                layers.append(_convolution(widths[stage - 1], width, 2))
            layers += [_Block(width, config.groups) for _ in range(config.layers)]
        layers += [*_ending(widths[-1], config.groups), nn.Conv2d(widths[-1], numbers, 1)]
        self.encoder = nn.Sequential(*layers)
        self.quantizer = FiniteScalarQuantizer(config.levels)
        layers = [_convolution(numbers, widths[-1])]
        for stage in range(len(widths) - 1, -1, -1):
            layers += [_Block(widths[stage], config.groups) for _ in range(config.layers)]
            if stage:
                # Nearest, then a convolution: a transposed one draws chequers.
                larger = nn.Upsample(scale_factor=2)
                layers += [larger, _convolution(widths[stage], widths[stage - 1])]
        layers += [*_ending(widths[0], config.groups), _convolution(widths[0], pixels)]
        self.decoder = nn.Sequential(*layers)
        # oneDNN's convolutions are quicker where the channels of a place are next to each other.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def codebook_size(self) -> int:
        """How many codes there are."""
        return self.quantizer.codebook_size

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what is left of pictures (B, C, H, W) when they have been codes: the same
        shape."""
        return self._decode(self.quantizer(self._encode(inputs)))

    def codes(self, inputs: Tensor) -> Tensor:
        """Return int64 (B, R, S) the codes of pictures (B, C, H, W)."""
        return self.quantizer.codes(self._encode(inputs.to(self._dtype)))

    def from_codes(self, codes: Tensor) -> Tensor:
        """Return (B, C, H, W) of codes (B, R, S).

        Raises:
            DataError: If one is not in the codebook.
        """
        numbers = self.quantizer.from_codes(codes)
        return self._decode(numbers.to(self._dtype))

    @property
    def _dtype(self) -> torch.dtype:
        """That of the weights: pictures and codes that are given from outside are float32."""
        return next(self.parameters()).dtype

    def _encode(self, inputs: Tensor) -> Tensor:
        places = F.pixel_unshuffle(inputs, self.patch)
        return self.encoder(places.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]

    def _decode(self, numbers: Tensor) -> Tensor:
        return F.pixel_shuffle(self.decoder(numbers), self.patch)


class _Block(nn.Module):
    """Two convolutions, each behind a norm, added to their input."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        last = _convolution(width, width)
        # Every block begins small next to what it is added to, and still has a gradient.
        with torch.no_grad():
            last.weight.mul_(0.1)
        first = [*_ending(width, groups), _convolution(width, width)]
        self.layers = nn.Sequential(*first, *_ending(width, groups), last)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, width, H, W) of the same."""
        return maps + self.layers(maps)  # type: ignore[no-any-return]


def _ending(width: int, groups: int) -> list[nn.Module]:
    return [nn.GroupNorm(groups, width), nn.SiLU()]


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, _KERNEL, stride, _KERNEL // 2)
