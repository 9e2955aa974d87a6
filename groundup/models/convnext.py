"""ConvNeXt: a convolutional network built like a vision transformer, without batch norm.

Shape legend: B images, C channels, H rows, W columns, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from groundup.contracts.classifier_models import MapSize
from groundup.contracts.models import ModelConfig, blocks_of
from groundup.contracts.processors import Processor
from groundup.core.errors import RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.sizes_from_data import image_shape, require_image_shape, settle_size

__all__ = ["ConvNeXt", "ConvNeXtConfig"]

_Count = Annotated[int, Field(ge=1)]
_EPS = 1e-6
_KERNEL = 7
# Inner channels of a block over its width.
_WIDENING = 4


@model("convnext")
class ConvNeXtConfig(ModelConfig):
    """Patches, stages of blocks, each stage half as large as the one before, and a linear
    output."""

    layers: tuple[_Count, ...] = setting((3, 3, 9, 3), "Blocks of each stage", min_length=1)
    widths: tuple[_Count, ...] = setting(
        (96, 192, 384, 768), "Channels of each stage", min_length=1
    )
    patch: int = setting(
        4, "Height and width of the stem's patches, in pixels; 2 for 28 x 28 pixels or so", ge=1
    )
    layer_scale: float = setting(
        1e-6, "What each channel of a block's output is scaled by at the start", gt=0
    )
    stochastic_depth: float = setting(
        0.0,
        "Share of examples for which the last block is left out in training; earlier blocks in"
        " proportion",
        ge=0,
        lt=1,
    )
    input_shape: tuple[int, int, int] | None = setting(
        None, "Channels, height, width; null: as the data has"
    )
    outputs: int = setting(0, "Outputs; 0: as many as the data has classes or targets", ge=0)

    @model_validator(mode="after")
    def _one_width_a_stage(self) -> ConvNeXtConfig:
        if len(self.layers) != len(self.widths):
            raise ValueError(
                f"layers has {len(self.layers)} stages and widths {len(self.widths)}. Give both as"
                " many numbers"
            )
        return self

    def complete_from(self, processor: Processor) -> ConvNeXtConfig:
        """Return the config with the data's shape and classes.

        Raises:
            RecipeError: If the processor makes no images, or they are too small for the stages.
        """
        shape, processor = image_shape("convnext", processor, self.input_shape)
        outputs = settle_size("outputs", self.outputs, processor.outputs)
        fitted = self.model_copy(update={"input_shape": shape, "outputs": outputs})
        fitted.places()
        return fitted

    def places(self) -> list[int]:
        """Return how many places, rows times columns, each stage has.

        Raises:
            RecipeError: If nothing is left of an image in some stage.
        """
        assert self.input_shape is not None
        found = []
        for stage in range(len(self.layers)):
            height, width = (side // self.patch // 2**stage for side in self.input_shape[1:])
            if not height * width:
                raise RecipeError(
                    "recipe.model.layers",
                    f"nothing is left of {self.input_shape[1]} x {self.input_shape[2]} pixels in"
                    f" stage {stage + 1}",
                    "Use a smaller patch, or fewer stages",
                )
            found.append(height * width)
        return found

    def build(self) -> ConvNeXt:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If the images' shape is still unknown.
        """
        require_image_shape(self.input_shape, self.outputs)
        return ConvNeXt(self)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one image, forward and backward: 6 a weight and place."""
        assert self.input_shape is not None
        places = self.places()
        widths = self.widths
        products = self.input_shape[0] * self.patch**2 * widths[0] * places[0]
        products += widths[-1] * self.outputs
        # What halves the size between two stages has windows of 2 x 2.
        for (before, after), place in zip(pairwise(widths), places[1:], strict=True):
            products += 4 * before * after * place
        for blocks, width, place in zip(self.layers, widths, places, strict=True):
            products += blocks * place * width * (_KERNEL**2 + 2 * _WIDENING * width)
        return 6.0 * products

    def map_sizes(self) -> tuple[MapSize, ...]:
        """Return the maps that the stages end in."""
        return tuple(
            MapSize(self.patch * 2**stage, width) for stage, width in enumerate(self.widths)
        )

    def read_maps(self, model: nn.Module, inputs: Tensor) -> list[Tensor]:
        """Return what the stages end in, the finest first, without a norm."""
        ends = [total - 1 for total in accumulate(self.layers)]
        x = model.embed(inputs.contiguous(memory_format=torch.channels_last))  # type: ignore[operator]
        found = []
        for number, block in enumerate(blocks_of(model)):
            x = block(x)
            if number in ends:
                found.append(x)
        return found

    @classmethod
    def sizes(cls) -> Mapping[str, ConvNeXtConfig]:
        """Return the named sizes, for images of 224 x 224 pixels and the 1,000 classes of
        ImageNet.

        Source:
            Liu et al., section 3.1.
        """
        shape: dict[str, Any] = {"input_shape": (3, 224, 224), "outputs": 1000}
        return {"convnext-tiny": cls(stochastic_depth=0.1, **shape)}


class ConvNeXt(nn.Module):
    """The model of a ``ConvNeXtConfig``. ``embed`` is the stem; what halves the size belongs to a
    stage's first block.

    Source:
        Liu et al., 2022 (arXiv:2201.03545), section 2 and appendix A; stochastic depth: Huang et
        al., 2016 (arXiv:1603.09382), section 3; layer scale: Touvron et al., 2021
        (arXiv:2103.17239), section 2.
    """

    def __init__(self, config: ConvNeXtConfig) -> None:
        super().__init__()
        assert config.input_shape is not None
        widths = config.widths
        patch = config.patch
        self.embed = nn.Sequential(
            nn.Conv2d(config.input_shape[0], widths[0], patch, patch), _ChannelNorm(widths[0])
        )
        self.blocks = nn.ModuleList()
        last = max(sum(config.layers) - 1, 1)
        for stage, (blocks, width) in enumerate(zip(config.layers, widths, strict=True)):
            for number in range(blocks):
                # What halves the size belongs to the first block of a stage.
                inputs = widths[stage - 1] if stage and not number else None
                # Later blocks are left out more often (Huang et al., 2016, section 3).
                dropped = config.stochastic_depth * len(self.blocks) / last
                self.blocks.append(_Block(width, inputs, dropped, config.layer_scale))
        self.norm = nn.LayerNorm(widths[-1], _EPS)
        self.head = nn.Linear(widths[-1], config.outputs)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                # As the authors' code has it.
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        # oneDNN's convolutions are quicker where the channels of a place are next to each other.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, inputs: Tensor) -> Tensor:
        """Return what the output layer reads, (B, C), from inputs (B, channels, H, W)."""
        x = self.embed(inputs.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        return self.norm(x.mean((2, 3)))  # type: ignore[no-any-return]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, O) from inputs (B, channels, H, W)."""
        return self.head(self.features(inputs))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """A 7x7 convolution of each channel, then an MLP at each place, scaled and added to the input.

    Args:
        width: C.
        inputs: Channels that come in from the stage before, at twice the size; None within a stage.
        dropped: The share of examples that skip the block in training; what is left is scaled up.
        layer_scale: What each channel is scaled by at the start.
    """

    def __init__(self, width: int, inputs: int | None, dropped: float, layer_scale: float) -> None:
        super().__init__()
        self.halve: nn.Sequential | None = None
        if inputs is not None:
            self.halve = nn.Sequential(_ChannelNorm(inputs), nn.Conv2d(inputs, width, 2, 2))
        self.mix = nn.Conv2d(width, width, _KERNEL, padding=_KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width, _EPS)
        self.up = nn.Linear(width, _WIDENING * width)
        self.down = nn.Linear(_WIDENING * width, width)
        self.scale = nn.Parameter(torch.full((width,), layer_scale))
        self.dropped = dropped

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) from x (B, C, H, W), or from x of the stage before."""
        if self.halve is not None:
            x = self.halve(x)
        # Channels last, so that norm and linear layers need no copies.
        change = self.norm(self.mix(x).permute(0, 2, 3, 1))
        change = (self.scale * self.down(F.gelu(self.up(change)))).permute(0, 3, 1, 2)
        if self.dropped and self.training:
            # One draw an example: the block is left out whole.
            change = change * F.dropout(change.new_ones(len(x), 1, 1, 1), self.dropped)
        return x + change  # type: ignore[no-any-return]


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of x (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) from x (B, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
