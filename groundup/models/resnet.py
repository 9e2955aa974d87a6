"""Residual networks for images: ResNet-18 to ResNet-50 and deeper.

Shape legend: B images, C channels, H rows, W columns, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from groundup.contracts.classifier_models import MapSize
from groundup.contracts.models import ModelConfig, blocks_of
from groundup.contracts.processors import Processor
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.sizes_from_data import image_shape, require_image_shape, settle_size
from groundup.nn.activations import initialise_linear
from groundup.nn.convolution import Convolution
from groundup.nn.norm import keep_frozen_statistics

__all__ = ["ResNet", "ResNetConfig"]

# How many times its inner channels a bottleneck gives out.
_WIDENING = 4


class _Convolution(NamedTuple):
    """The sizes of one convolution; the stride of 2 halves the image, rounded up."""

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1


@model("resnet")
class ResNetConfig(ModelConfig):
    """A stem, stages of residual blocks, each stage half as large and twice as wide, and a linear
    output."""

    layers: tuple[Annotated[int, Field(ge=1)], ...] = setting(
        (2, 2, 2, 2), "Blocks of each stage", min_length=1
    )
    bottleneck: bool = setting(
        False, "Blocks of 1x1, 3x3 and 1x1 convolutions, as from ResNet-50 on, instead of two 3x3"
    )
    width: int = setting(
        64, "Channels of the stem and inside the first stage; doubled with every stage", ge=1
    )
    stem: Literal["imagenet", "deep", "small"] = setting(
        "imagenet",
        "imagenet: 7x7 convolution and pooling, a quarter of the size; deep: three of 3x3 in place"
        " of it; small: one of 3x3, for 28 x 28 pixels or so",
    )
    stem_pool: bool = setting(
        False,
        "Max-pooling after the small stem, to half of the size",
        applies_when={"stem": ("small",)},
    )
    shortcut: Literal["strided", "pooled"] = setting(
        "strided",
        "How a shortcut halves the map: strided leaves three of four places out; pooled takes their"
        " mean first, and every stage begins with a projection",
    )
    zero_init: bool = setting(
        False, "Let every block start as the identity: its last batch norm scales by 0"
    )
    input_shape: tuple[int, int, int] | None = setting(
        None, "Channels, height, width; null: as the data has"
    )
    outputs: int = setting(0, "Outputs; 0: as many as the data has classes or targets", ge=0)

    @property
    def loss_is_sum(self) -> bool:
        """Batch norm ties the examples of a micro-batch together."""
        return False

    def complete_from(self, processor: Processor) -> ResNetConfig:
        """Return the config with the data's shape and classes.

        Raises:
            RecipeError: If the processor makes no images, or others than the recipe says.
        """
        shape, processor = image_shape("resnet", processor, self.input_shape)
        outputs = settle_size("outputs", self.outputs, processor.outputs)
        return self.model_copy(update={"input_shape": shape, "outputs": outputs})

    def stem_convolutions(self) -> list[_Convolution]:
        """Return the sizes of the convolutions before the blocks."""
        assert self.input_shape is not None
        channels = self.input_shape[0]
        if self.stem == "imagenet":
            return [_Convolution(channels, self.width, 7, 2)]
        if self.stem == "small":
            return [_Convolution(channels, self.width, 3)]
        half = max(1, self.width // 2)
        first = _Convolution(channels, half, 3, 2)
        return [first, _Convolution(half, half, 3), _Convolution(half, self.width, 3)]

    def block_convolutions(self) -> Iterator[list[_Convolution]]:
        """Yield the sizes of the convolutions of each block."""
        inputs = self.width
        for stage, blocks in enumerate(self.layers):
            inner = self.width * 2**stage
            for block in range(blocks):
                # Every stage but the first begins at half the size.
                stride = 2 if stage and not block else 1
                if self.bottleneck:
                    outputs = inner * _WIDENING
                    first = _Convolution(inputs, inner, 1)
                    last = _Convolution(inner, outputs, 1)
                    yield [first, _Convolution(inner, inner, 3, stride), last]
                else:
                    outputs = inner
                    yield [_Convolution(inputs, inner, 3, stride), _Convolution(inner, inner, 3)]
                inputs = outputs

    def block_shortcuts(self) -> Iterator[list[_Convolution]]:
        """Yield the projection of the input of each block, if it has any."""
        begins = {0, *(last + 1 for last in self._last_blocks())}
        for number, convolutions in enumerate(self.block_convolutions()):
            always = self.shortcut == "pooled" and number in begins
            yield _shortcut(convolutions, always=always)

    @property
    def last_width(self) -> int:
        """Channels that the output layer reads."""
        return list(self.block_convolutions())[-1][-1].outputs

    def build(self) -> ResNet:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If the images' shape is still unknown.
        """
        require_image_shape(self.input_shape, self.outputs)
        return ResNet(self)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one image, forward and backward: 6 a weight and place."""
        assert self.input_shape is not None
        sides = self.input_shape[1:]
        weights = 0
        for convolution in self.stem_convolutions():
            sides, products = _products(convolution, sides)
            weights += products
        if self.pools:
            sides, _ = _products(_Convolution(0, 0, 3, 2), sides)
        blocks = zip(self.block_convolutions(), self.block_shortcuts(), strict=True)
        for convolutions, shortcut in blocks:
            for convolution in convolutions:
                sides, products = _products(convolution, sides)
                weights += products
            # The shortcut's window has one place, whatever its stride: counted at its output.
            weights += sum(_products(each._replace(stride=1), sides)[1] for each in shortcut)
        return 6.0 * (weights + self.last_width * self.outputs)

    @property
    def pools(self) -> bool:
        """Whether the stem ends in max-pooling."""
        return self.stem != "small" or self.stem_pool

    def map_sizes(self) -> tuple[MapSize, ...]:
        """Return the maps that the stages end in."""
        stride = (1 if self.stem == "small" else 2) * (2 if self.pools else 1)
        blocks = list(self.block_convolutions())
        return tuple(
            MapSize(stride * 2**stage, blocks[last][-1].outputs)
            for stage, last in enumerate(self._last_blocks())
        )

    def _last_blocks(self) -> list[int]:
        """Return the number of the block that each stage ends in."""
        return [total - 1 for total in accumulate(self.layers)]

    def read_maps(self, model: nn.Module, inputs: Tensor) -> list[Tensor]:
        """Return what the stages end in, the finest first."""
        ends = self._last_blocks()
        x = model.embed(inputs.contiguous(memory_format=torch.channels_last))  # type: ignore[operator]
        found = []
        for number, block in enumerate(blocks_of(model)):
            x = block(x)
            if number in ends:
                found.append(x)
        return found

    @classmethod
    def sizes(cls) -> Mapping[str, ResNetConfig]:
        """Return the named sizes, for images of 224 x 224 pixels and the 1,000 classes of
        ImageNet.

        Source:
            He et al., table 1.
        """
        shape: dict[str, Any] = {"input_shape": (3, 224, 224), "outputs": 1000}
        return {
            "resnet-18": cls(layers=(2, 2, 2, 2), **shape),
            "resnet-34": cls(layers=(3, 4, 6, 3), **shape),
            "resnet-50": cls(layers=(3, 4, 6, 3), bottleneck=True, **shape),
        }


class ResNet(nn.Module):
    """The model of a ``ResNetConfig``. ``embed`` is the stem, ``blocks`` the residual blocks of all
    stages.

    Source:
        He et al., 2015 (arXiv:1512.03385), sections 3 and 4.1; initialisation: He et al., 2015
        (arXiv:1502.01852);
        ``zero_init``: Goyal et al., 2017 (arXiv:1706.02677), section 5.1; the small stem: as
            section 4.2 has for CIFAR; the deep stem and pooled shortcuts: He et al., 2018
            (arXiv:1812.01187), section 4.2, ResNet-C and ResNet-D.
        Departs from it: the 3x3 convolution of a bottleneck is the strided one, as in most
            implementations.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.embed = nn.Sequential()
        for convolution in config.stem_convolutions():
            self.embed.extend([*_with_norm(convolution), nn.ReLU()])
        if config.pools:
            self.embed.append(nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.ModuleList(
            _Block(convolutions, shortcut, pooled=config.shortcut == "pooled")
            for convolutions, shortcut in zip(
                config.block_convolutions(), config.block_shortcuts(), strict=True
            )
        )
        self.head = nn.Linear(config.last_width, config.outputs)
        for layer in self.modules():
            # By what goes out, as the authors have it: backward signals keep their size.
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        # Goyal et al., 2017: a deep network begins as a shallow one.
        if config.zero_init:
            for block in self.blocks:
                nn.init.zeros_(block.layers[-1].weight)  # type: ignore[index, union-attr]
        initialise_linear(self.head, "sigmoid")
        # oneDNN's convolutions are quicker where the channels of a place are next to each other.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(self, mode: bool = True) -> ResNet:
        """Set the mode. Batch norms that are frozen keep their statistics, as layers that are not
        trained should."""
        super().train(mode)
        keep_frozen_statistics(self)
        return self

    def features(self, inputs: Tensor) -> Tensor:
        """Return what the output layer reads, (B, C), from inputs (B, channels, H, W)."""
        x = self.embed(inputs.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        # Over all places: images of any size give as many features.
        return x.mean((2, 3))  # type: ignore[no-any-return]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, O) from inputs (B, channels, H, W)."""
        return self.head(self.features(inputs))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Convolutions, each with batch norm, added to their input; where the sizes differ, to a
    projection of it."""

    def __init__(
        self, convolutions: list[_Convolution], shortcut: list[_Convolution], *, pooled: bool
    ) -> None:
        super().__init__()
        layers = _with_norm(convolutions[0])
        for convolution in convolutions[1:]:
            layers += [nn.ReLU(), *_with_norm(convolution)]
        self.layers = nn.Sequential(*layers)
        self.shortcut = nn.Sequential()
        for convolution in shortcut:
            if pooled and convolution.stride == 2:
                self.shortcut.append(nn.AvgPool2d(2, ceil_mode=True))
                convolution = convolution._replace(stride=1)
            self.shortcut.extend(_with_norm(convolution))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C out, H out, W out) from x (B, C, H, W)."""
        return F.relu(self.layers(x) + self.shortcut(x))


def _shortcut(convolutions: list[_Convolution], *, always: bool) -> list[_Convolution]:
    """Return the projection that a block's input needs, if any or ``always``."""
    inputs = convolutions[0].inputs
    outputs = convolutions[-1].outputs
    stride = max(convolution.stride for convolution in convolutions)
    if inputs == outputs and stride == 1 and not always:
        return []
    return [_Convolution(inputs, outputs, 1, stride)]


def _with_norm(sizes: _Convolution) -> list[nn.Module]:
    return [Convolution(*sizes), nn.BatchNorm2d(sizes.outputs)]


def _products(sizes: _Convolution, sides: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Return the height and width after a convolution, and how many products of a weight and a
    number it takes."""
    height, width = (-(-side // sizes.stride) for side in sides)
    return (height, width), sizes.inputs * sizes.outputs * sizes.kernel**2 * height * width
