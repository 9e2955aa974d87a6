"""U-Net that makes pictures: what a noisy picture will be, at the time it is at.

Shape legend: B pictures, C channels, H rows, W columns, E width of the conditions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import Processor
from groundup.core.errors import CheckpointError, RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.names.diffusers_unet import UNetNames, to_diffusers
from groundup.models.sizes_from_data import image_shape, settle_size
from groundup.models.text_encoder import TextEncoder, complete_text, tell, text_flops
from groundup.nn.picture_conditions import NEAR_ZERO, PictureConditions
from groundup.nn.unet import Down, Middle, NormAct, UNetLevel, UNetShape, Up

__all__ = ["UNet", "UNetConfig"]


@model("unet")
class UNetConfig(ModelConfig):
    """Residual blocks of convolutions at falling and rising sizes, with attention on small maps.

    The pictures' shape and the number of classes come from the data. The defaults suit pictures of
    28 x 28 pixels or a few more; for larger ones give more ``widths``, or a ``patch``.
    """

    decided_by_data: ClassVar[tuple[str, ...]] = ("input_shape", "classes")

    widths: tuple[Annotated[int, Field(ge=1)], ...] = setting(
        (64, 128), "Channels at each size, from the largest maps on", min_length=1
    )
    layers: int = setting(
        1, "Residual layers at each size on the way down; one more on the way up", ge=1
    )
    patch: int = setting(
        1, "Squares of so many pixels are put into the channels: smaller maps, less work", ge=1
    )
    attention_side: int = setting(
        8, "Maps with at most so many rows have attention, and those in the middle", ge=0
    )
    head_width: int = setting(32, "Channels of an attention head", ge=1)
    groups: int = setting(8, "Groups of the norms; divides every width", ge=1)
    dropout: float = setting(
        0.0, "Share of activations dropped inside residual layers in training", ge=0, lt=1
    )
    input_shape: tuple[int, int, int] | None = setting(
        None, "Channels, height, width; null: as the data has"
    )
    classes: int = setting(0, "Classes that can be asked for; 0: as the data has", ge=0)
    text: dict[str, Any] | None = setting(
        None,
        "The encoder of captions: the section of a model of texts, such as {name: bert, layers: 2,"
        " width: 128, heads: 4}; null: a transformer_classifier, where the data has captions",
    )

    def complete_from(self, processor: Processor) -> UNetConfig:
        """Return the config with the data's shape, classes and captions.

        Raises:
            RecipeError: If the processor makes no images, they cannot be halved often enough, or
                the encoder of captions is none.
        """
        shape, processor = image_shape("unet", processor, self.input_shape)
        classes = settle_size("classes", self.classes, len(processor.labels))
        text = complete_text(self.text, processor, "unet")
        sizes = {"input_shape": shape, "classes": classes, "text": text}
        fitted = self.model_copy(update=sizes)
        fitted.check()
        return fitted

    def check(self) -> None:
        """Check that the sizes fit each other.

        Raises:
            RecipeError: If the shape is unknown, or some size does not divide another.
        """
        if self.input_shape is None:
            problem = "input_shape is null, but no data has filled it in"
            raise RecipeError("recipe.model", problem, "Give it")
        _, height, width = self.input_shape
        # A side that cannot be halved would come back one pixel larger on the way up.
        step = self.patch * 2 ** (len(self.widths) - 1)
        if height % step or width % step:
            halves = len(self.widths) - 1
            raise RecipeError(
                "recipe.model.widths",
                f"has {len(self.widths)} sizes and patch {self.patch}, so that pictures are halved"
                f" {halves} times, but {height} x {width} pixels are no multiple of {step}",
                f"Give fewer widths, or pad the pictures: processor.pad_to"
                f" [{-(-height // step) * step}, {-(-width // step) * step}]",
            )
        # Found now: PyTorch's norm says so in the middle of the first step, and in other words.
        for channels in self.widths:
            for name in ("groups", "head_width"):
                divisor = int(dict(self)[name])
                attends = name == "groups" or self._attends(channels)
                if attends and channels % divisor:
                    raise RecipeError(
                        f"recipe.model.{name}",
                        f"is {divisor}, which does not divide the width {channels}",
                        f"Use a divisor of {math.gcd(*self.widths)}, or other widths",
                    )

    def _attends(self, channels: int) -> bool:
        return any(level.attends and level.outputs == channels for level in self.levels())

    def maps(self) -> tuple[int, int, int]:
        """Return the channels, rows and columns that the first convolution reads."""
        assert self.input_shape is not None
        channels, height, width = self.input_shape
        return channels * self.patch**2, height // self.patch, width // self.patch

    @property
    def conditions_width(self) -> int:
        """E: four times the first width, as diffusers has it."""
        return 4 * self.widths[0]

    def levels(self) -> Iterator[UNetLevel]:
        """Yield what is done, in order: down, in the middle, up."""
        _, height, width = self.maps()
        # What is kept on the way down, and read again on the way up, the last first.
        kept = [self.widths[0]]
        before = self.widths[0]
        last = len(self.widths) - 1
        for number, channels in enumerate(self.widths):
            side = (height >> number) * (width >> number)
            attends = height >> number <= self.attention_side
            inputs = (before, *(channels,) * (self.layers - 1))
            halves = number < last
            yield UNetLevel(inputs, channels, attends, 2 if halves else 1, side)
            kept += [channels] * (self.layers + halves)
            before = channels
        # The middle, where every place is reached: two layers with attention between them.
        side = (height >> last) * (width >> last)
        yield UNetLevel((before, before), before, True, 1, side)
        for number in range(last, -1, -1):
            channels = self.widths[number]
            side = (height >> number) * (width >> number)
            attends = height >> number <= self.attention_side
            # Each layer reads one of the maps that were kept at its size, the last one first.
            read = []
            for _ in range(self.layers + 1):
                read.append(before + kept.pop())
                before = channels
            yield UNetLevel(tuple(read), channels, attends, -2 if number else 1, side)

    def build(self) -> UNet:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If the pictures' shape is still unknown, or the sizes do not fit.
        """
        self.check()
        return UNet(self)

    def to_diffusers(
        self, weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return diffusers' settings and tensors.

        Raises:
            CheckpointError: If captions are read or squares of pixels put into channels, which it
                cannot.
        """
        if self.text is not None:
            problem = "reads captions, which UNet2DModel cannot"
            raise CheckpointError("model.text", problem, "Export it to onnx")
        if self.patch > 1:
            problem = f"patch is {self.patch}, for which UNet2DModel has no setting"
            raise CheckpointError("model.patch", problem, "Train with patch 1, or export to onnx")
        assert self.input_shape is not None
        channels, height, width = self.input_shape
        config: dict[str, Any] = {
            "sample_size": [height, width],
            "in_channels": channels,
            "out_channels": channels,
            "attention_head_dim": self.head_width,
            "norm_num_groups": self.groups,
            "dropout": self.dropout,
        }
        if self.classes:
            config["num_class_embeds"] = self.classes + 1
        down = list(self.levels())[: len(self.widths)]
        attends = tuple(level.attends for level in down)
        shape = UNetNames(self.widths, attends, self.layers, self.widths[0], config)
        return to_diffusers(shape, weights)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one picture, forward and backward: 6 a weight and place."""
        # Of each convolution a product a weight and place; norms and activations are next to
        # nothing.
        channels, height, width = self.maps()
        products = 2 * 9 * channels * self.widths[0] * height * width
        features, wide = self.widths[0], self.conditions_width
        products += wide * (2 * features + wide)
        for level in self.levels():
            out = level.outputs
            for number, inputs in enumerate(level.inputs):
                products += 9 * out * (inputs + out) * level.side + 2 * out * wide
                products += inputs * out * level.side * (inputs != out)
                if level.attends and not (_is_middle(level, self) and number):
                    products += 4 * out**2 * level.side + 2 * out * level.side**2
            if level.scale == 2:
                products += 9 * out**2 * level.side // 4
            elif level.scale == -2:
                products += 9 * out**2 * level.side * 4
        return 6.0 * products + text_flops(self.text)


def _is_middle(level: UNetLevel, config: UNetConfig) -> bool:
    """Whether a level is that between the ways down and up: the last map's width in and out."""
    width = config.widths[-1]
    return level.inputs == (width, width) and level.scale == 1 and level.attends


class UNet(nn.Module):
    """The model of a ``UNetConfig``.

    Source:
        Ho et al., 2020 (arXiv:2006.11239), appendix B; scale and shift by the conditions inside
        each residual layer: Dhariwal and Nichol, 2021 (arXiv:2105.05233), section 3; pixels put
        into channels: Shi et al., 2016 (arXiv:1609.05158), section 3. Departs from them: what
        starts at 0 there starts next to 0 here.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.class_count = config.classes
        self.reads_text = config.text is not None
        channels, _, _ = config.maps()
        width = config.widths[0]
        wide = config.conditions_width
        self.embed = nn.ModuleDict(
            {
                "conditions": PictureConditions(width, wide, config.classes),
                "maps": nn.Conv2d(channels, width, 3, padding=1),
            }
        )
        text_width = 0
        if config.text is not None:
            encoder = TextEncoder(config.text, wide)
            self.embed["text"] = encoder
            text_width = encoder.state_width
        shape = UNetShape(wide, config.head_width, config.groups, config.dropout, text_width)
        levels = list(config.levels())
        middle = len(config.widths)
        # In one list and in the order of their use, as freezing of the first ones needs it.
        self.blocks = nn.ModuleList()
        for number, level in enumerate(levels):
            kind = (Down, Middle, Up)[(number >= middle) + (number > middle)]
            self.blocks.append(kind(shape, level))
        self.head = nn.Sequential(
            NormAct(config.groups, width), nn.Conv2d(width, channels, 3, padding=1)
        )
        # The first guess is the middle grey for every picture, whatever the noise.
        nn.init.normal_(self.head[1].weight, std=NEAR_ZERO)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[1].bias)  # type: ignore[arg-type]
        # oneDNN's convolutions are quicker where the channels of a place are next to each other.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        inputs: Tensor,
        times: Tensor,
        spans: Tensor | None = None,
        classes: Tensor | None = None,
        text: Tensor | None = None,
        text_lengths: Tensor | None = None,
    ) -> Tensor:
        """Return (B, C, H, W); see ``PictureGenerator``."""
        told = tell(self.embed, (times, spans, classes), text, text_lengths)
        maps = F.pixel_unshuffle(inputs, self.config.patch)
        x = self.embed["maps"](maps.contiguous(memory_format=torch.channels_last))
        # What the way up reads again, as a stack: each block takes from it or adds to it.
        kept = [x]
        for block in self.blocks:
            x = block(x, told, kept)
        return F.pixel_shuffle(self.head(x).to(inputs.dtype), self.config.patch)
