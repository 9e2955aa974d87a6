"""Transformer on patches that makes pictures: what a noisy picture will be, at the time it is at.

Shape legend: B pictures, C channels, H rows, W columns, T patches, E width of the stream.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import Processor
from groundup.core.errors import RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.sizes_from_data import image_shape, settle_size
from groundup.models.text_encoder import TextEncoder, complete_text, tell, text_flops
from groundup.nn.activations import initialise_linear
from groundup.nn.picture_conditions import (
    NEAR_ZERO,
    PictureConditions,
    TextKeys,
    Told,
    attend,
    time_features,
)
from groundup.nn.transformer import check_heads

__all__ = ["DiT", "DiTConfig"]

_EPS = 1e-6


@model("dit")
class DiTConfig(ModelConfig):
    """Patches, transformer blocks that are scaled, shifted and gated by time and class, and a
    linear output.

    The pictures' shape and the number of classes come from the data. The defaults suit pictures of
    28 x 28 pixels or a few more.
    """

    decided_by_data: ClassVar[tuple[str, ...]] = ("input_shape", "classes")

    patch: int = setting(4, "Height and width of a patch, in pixels; divides the picture's", ge=1)
    layers: int = setting(6, "Transformer blocks", ge=1)
    width: int = setting(192, "Channels of the residual stream, a multiple of 4", ge=4)
    heads: int = setting(3, "Attention heads", ge=1)
    mlp_width: int | None = setting(None, "Inner width of the MLP; null: 4 x width", ge=1)
    dropout: float = setting(
        0.0, "Share of activations dropped inside the MLPs in training", ge=0, lt=1
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

    @model_validator(mode="after")
    def _shape_is_possible(self) -> DiTConfig:
        check_heads(self.width, self.heads)
        if self.width % 4:
            raise ValueError(f"width {self.width} is no multiple of 4. Choose one")
        return self

    def complete_from(self, processor: Processor) -> DiTConfig:
        """Return the config with the data's shape, classes and captions.

        Raises:
            RecipeError: If the processor makes no images, they cannot be cut into such patches, or
                the encoder of captions is none.
        """
        shape, processor = image_shape("dit", processor, self.input_shape)
        classes = settle_size("classes", self.classes, len(processor.labels))
        text = complete_text(self.text, processor, "dit")
        sizes = {"input_shape": shape, "classes": classes, "text": text}
        fitted = self.model_copy(update=sizes)
        fitted.grid()
        return fitted

    def grid(self) -> tuple[int, int]:
        """Return the rows and columns of patches.

        Raises:
            RecipeError: If the shape is unknown, or they do not cover it exactly.
        """
        if self.input_shape is None:
            problem = "input_shape is null, but no data has filled it in"
            raise RecipeError("recipe.model", problem, "Give it")
        _, height, width = self.input_shape
        if height % self.patch or width % self.patch:
            raise RecipeError(
                "recipe.model.patch",
                f"is {self.patch}, which divides not both sides of {height} x {width} pixels",
                f"Use a divisor of {math.gcd(height, width)}, or pad the pictures with"
                " processor.pad_to",
            )
        return height // self.patch, width // self.patch

    @property
    def inner(self) -> int:
        """The inner width of the MLPs."""
        return self.mlp_width or 4 * self.width

    def build(self) -> DiT:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If the pictures' shape is still unknown, or patches do not cover it.
        """
        self.grid()
        return DiT(self)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one picture, forward and backward: 6 a weight and patch, and
        attention."""
        rows, columns = self.grid()
        patches = rows * columns
        assert self.input_shape is not None
        # Projections and the MLP a patch, attention a pair of patches, the conditions once.
        numbers = self.input_shape[0] * self.patch**2
        wide = self.width
        block = patches * (4 * wide**2 + 2 * wide * self.inner) + 2 * wide * patches**2
        told = 6 * wide**2 * self.layers + 2 * wide**2 + wide * (2 * wide + wide)
        whole = 6.0 * (self.layers * block + told + 2 * patches * numbers * wide)
        return whole + text_flops(self.text)


class DiT(nn.Module):
    """The model of a ``DiTConfig``.

    Source:
        Peebles and Xie, 2022 (arXiv:2212.09748), section 3.2, with adaLN-Zero; on patches of
        pixels: Li and He, 2025, "Back to basics: let denoising generative models denoise". Departs
        from them: gates and output start next to 0, not at 0, and there is a dropout setting.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        assert config.input_shape is not None
        self.config = config
        self.class_count = config.classes
        self.reads_text = config.text is not None
        width = config.width
        numbers = config.input_shape[0] * config.patch**2
        # Embeddings, blocks and head in the order of their use, as freezing needs it.
        self.embed = nn.ModuleDict(
            {
                "conditions": PictureConditions(width, width, config.classes),
                "patches": nn.Linear(numbers, width),
            }
        )
        text_width = 0
        if config.text is not None:
            encoder = TextEncoder(config.text, width)
            self.embed["text"] = encoder
            text_width = encoder.state_width
        # Made from the settings, and not saved: they are no weights.
        self.register_buffer("places", _places(*config.grid(), width), persistent=False)
        self.blocks = nn.ModuleList(_Block(config, text_width) for _ in range(config.layers))
        self.head = _Output(width, numbers)
        initialise_linear(self.embed["patches"], "sigmoid")

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
        patch = self.config.patch
        # Of each patch all numbers of a channel together: (B, C p p, rows, columns).
        cut = F.pixel_unshuffle(inputs, patch)
        x = self.embed["patches"](cut.flatten(2).transpose(1, 2)) + self.places
        for block in self.blocks:
            x = block(x, told)
        out = self.head(x, told.vector).transpose(1, 2).unflatten(2, cut.shape[2:])
        return F.pixel_shuffle(out.to(inputs.dtype), patch)


def _places(rows: int, columns: int, width: int) -> Tensor:
    """Return (T, E), half of it by the row and half by the column of each patch.

    Source:
        Peebles and Xie's positions: Vaswani et al., 2017 (arXiv:1706.03762), section 3.5, of both
        coordinates.
    """
    # Divided, because times are told in thousandths.
    halves = [time_features(torch.arange(n) / 1000.0, width // 2) for n in (rows, columns)]
    down = halves[0][:, None].expand(rows, columns, -1)
    across = halves[1][None].expand(rows, columns, -1)
    return torch.cat([down, across], 2).flatten(0, 1)


def _scaled(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return x (B, T, E) normed, scaled and shifted by the conditions (B, E)."""
    normed = F.layer_norm(x.to(scale.dtype), x.shape[-1:], eps=_EPS)
    return torch.addcmul(shift[:, None], normed, 1 + scale[:, None])


class _Block(nn.Module):
    """Attention, also to the text if any, and an MLP, each scaled and shifted before and gated
    after by the conditions."""

    def __init__(self, config: DiTConfig, text_width: int) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.told = nn.Linear(width, 6 * width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.up = nn.Linear(width, config.inner)
        self.dropout = nn.Dropout(config.dropout)
        self.down = nn.Linear(config.inner, width)
        self.text: TextKeys | None = None
        if text_width:
            self.text = TextKeys(text_width, width)
        for layer in (self.query, self.key, self.value, self.output, self.up, self.down):
            initialise_linear(layer, "sigmoid")
        # Gates next to 0: each block begins as the identity, and deep stacks learn at once.
        nn.init.normal_(self.told.weight, std=NEAR_ZERO)
        nn.init.zeros_(self.told.bias)

    def forward(self, x: Tensor, told: Told) -> Tensor:
        """Return (B, T, E) from x (B, T, E)."""
        # Shift, scale and gate of attention, then of the MLP; in float32 also under autocast.
        parts = self.told(told.vector).to(self.told.weight.dtype).chunk(6, 1)
        x = x + parts[2][:, None] * self._attend(_scaled(x, parts[0], parts[1]), told)
        inner = F.gelu(self.up(_scaled(x, parts[3], parts[4])), approximate="tanh")
        return x + parts[5][:, None] * self.down(self.dropout(inner))  # type: ignore[no-any-return]

    def _attend(self, x: Tensor, told: Told) -> Tensor:
        places = (self.query(x), self.key(x), self.value(x))
        return self.output(attend(places, self.text, told, self.heads))  # type: ignore[no-any-return]


class _Output(nn.Module):
    """Scaled, shifted and brought to the numbers of a patch."""

    def __init__(self, width: int, numbers: int) -> None:
        super().__init__()
        self.told = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, numbers)
        for layer in (self.told, self.project):
            nn.init.normal_(layer.weight, std=NEAR_ZERO)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Return (B, T, C p p) from x (B, T, E) and the conditions (B, E)."""
        shift, scale = self.told(told).to(self.told.weight.dtype).chunk(2, 1)
        return self.project(_scaled(x, shift, scale))  # type: ignore[no-any-return]
