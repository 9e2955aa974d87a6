"""Vision transformer: an image as a sequence of patches.

Shape legend: B images, H rows, W columns, T patches and the class token, C channels, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from groundup.contracts.classifier_models import MapSize
from groundup.contracts.models import FromHuggingFace, blocks_of
from groundup.contracts.processors import Processor
from groundup.core.errors import RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.names.huggingface import vit
from groundup.models.names.table import unknown_keys
from groundup.models.sizes_from_data import image_shape, require_image_shape, settle_size
from groundup.nn.activations import initialise_linear
from groundup.nn.attention import AttentionContext
from groundup.nn.mlp import default_width
from groundup.nn.transformer import Block, BlockShape, check_heads

__all__ = ["ViT", "ViTConfig"]

# Of fresh positions, class token and output weights.
_STD = 0.02


@model("vit")
class ViTConfig(FromHuggingFace):
    """Patches, transformer blocks that see all of them, and a linear output. The images' shape
    comes from the data.

    The defaults suit images of 28 x 28 pixels or a few more.
    """

    huggingface_model_types: ClassVar[tuple[str, ...]] = ("vit",)
    pretrained_processor: ClassVar[str] = "image"
    free_settings: ClassVar[tuple[str, ...]] = ("dropout", "input_shape", "outputs")

    patch: int = setting(4, "Height and width of a patch, in pixels; divides the image's", ge=1)
    layers: int = setting(6, "Transformer blocks", ge=1)
    width: int = setting(192, "Channels of the residual stream", ge=1)
    heads: int = setting(3, "Attention heads", ge=1)
    mlp_width: int | None = setting(None, "Inner width of the MLP; null: 4 x width", ge=1)
    pooling: Literal["class", "mean"] = setting(
        "class", "What the output reads: the state of a class token, or the mean over the patches"
    )
    activation: Literal["gelu", "gelu_tanh"] = setting(
        "gelu", "Of the MLP; gelu_tanh is an approximation"
    )
    qkv_bias: bool = setting(True, "Whether queries, keys and values have a bias")
    norm_eps: float = setting(1e-6, "Added to the variance in every norm", gt=0)
    dropout: float = setting(
        0.0, "Share of embedding and residual activations dropped in training", ge=0, lt=1
    )
    input_shape: tuple[int, int, int] | None = setting(
        None, "Channels, height, width; null: as the data has"
    )
    outputs: int = setting(0, "Outputs; 0: as many as the data has classes or targets", ge=0)

    @model_validator(mode="after")
    def _shape_is_possible(self) -> ViTConfig:
        check_heads(self.width, self.heads)
        return self

    def complete_from(self, processor: Processor) -> ViTConfig:
        """Return the config with the data's shape and classes.

        Raises:
            RecipeError: If the processor makes no images, or they cannot be cut into such
                patches.
        """
        shape, processor = image_shape("vit", processor, self.input_shape)
        found = {
            "input_shape": shape,
            "outputs": settle_size("outputs", self.outputs, processor.outputs),
        }
        fitted = self.model_copy(update=found)
        fitted.patches()
        return fitted

    def patches(self) -> int:
        """Return how many patches an image has.

        Raises:
            RecipeError: If they do not cover it exactly.
        """
        assert self.input_shape is not None
        _, height, width = self.input_shape
        # Said with a remedy: an edge that is left out would be lost in silence.
        if height % self.patch or width % self.patch:
            raise RecipeError(
                "recipe.model.patch",
                f"is {self.patch}, which divides not both sides of {height} x {width} pixels",
                f"Use a divisor of {math.gcd(height, width)}, or pad the images with"
                " processor.pad_to",
            )
        return (height // self.patch) * (width // self.patch)

    def block(self) -> BlockShape:
        """Return the shape of every block: GPT-2's, but seeing both ways."""
        return BlockShape(
            self.width,
            self.heads,
            self.heads,
            self.width // self.heads,
            self.mlp_width or default_width(self.width, self.activation),
            activation=self.activation,
            norm="layernorm",
            norm_eps=self.norm_eps,
            bias="all",
            dropout=self.dropout,
            causal=False,
        )

    def build(self) -> ViT:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If the images' shape is still unknown.
        """
        require_image_shape(self.input_shape, self.outputs)
        return ViT(self)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one image, forward and backward: 6 a weight and place, and the
        attention.

        Attention has two products a pair of places and channel: queries with keys, weights with
        values.
        """
        assert self.input_shape is not None
        patches = self.patches()
        places = patches + (self.pooling == "class")
        inputs = self.input_shape[0] * self.patch**2
        outer = 6.0 * self.width * (patches * inputs + self.outputs)
        return outer + self.layers * places * self.block().flops_per_token(places)

    def map_sizes(self) -> tuple[MapSize, ...]:
        """Return the one map there is: a place for each patch."""
        return (MapSize(self.patch, self.width),)

    def read_maps(self, model: nn.Module, inputs: Tensor) -> list[Tensor]:
        """Return the last states of the patches as a map, without the last norm."""
        x = F.dropout(model.embed(inputs), self.dropout, model.training)  # type: ignore[operator]
        context = AttentionContext()
        for block in blocks_of(model):
            x = block(x, context)
        if self.pooling == "class":
            x = x[:, 1:]
        height, width = (side // self.patch for side in inputs.shape[2:])
        return [x.transpose(1, 2).reshape(len(x), -1, height, width)]

    def to_huggingface(
        self, weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config.json's contents and the tensors as ``ViTForImageClassification`` names
        them.

        Raises:
            CheckpointError: If the output reads the mean over the patches, which it does not there.
        """
        values = self.model_dump() | {"mlp_width": self.block().mlp_width}
        return vit.config_to_huggingface(values), vit.to_huggingface(weights, values)

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the contents of config.json mean.

        Raises:
            CheckpointError: If it is of another family, or has a part that is not built here.
        """
        return vit.config_to_groundup(config)

    @classmethod
    def settings_begun_again(
        cls, settings: Mapping[str, Any], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the settings that a run from pretrained weights does not take from them: its data
        decides them.

        The images' size is only open where the weights' are as high as wide, as
        ``weights_from_huggingface`` needs them.
        """
        # Positions of a square can be interpolated; of others it is not known how high they are.
        _, height, width = settings["input_shape"]
        return {"outputs": 0} | ({"input_shape": None} if height == width else {})

    def unknown_keys(self, config: Mapping[str, Any]) -> list[str]:
        """Return the keys of config.json that nothing here reads."""
        return unknown_keys(config, vit.KEYS)

    def note_on_pretrained(self, config: Mapping[str, Any]) -> str:
        """Return what becomes of weights of which this is the config.json, in words; empty
        where they stay as they are.

        Raises:
            RecipeError: If their images have another number of channels.
        """
        assert self.input_shape is not None
        channels, *hf = vit.config_to_groundup(config)["input_shape"]
        own_channels, *own = self.input_shape
        # The first layer's weights would not fit.
        if own_channels != channels:
            raise RecipeError(
                "recipe.processor",
                f"makes images of {own_channels} channels, but the pretrained weights read"
                f" {channels}",
                f"Set processor.channels: {channels}",
            )
        if hf == own:
            return ""
        grids = " to ".join(
            f"{height // self.patch} x {width // self.patch}" for height, width in (hf, own)
        )
        sizes = f"{hf[0]} x {hf[1]} to {own[0]} x {own[1]} pixels"
        return f"images change from {sizes}: positions are interpolated from {grids} patches"

    @classmethod
    def processor_from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the recipe's section ``processor`` that the contents of preprocessor_config.json
        stand for.

        Raises:
            CheckpointError: If images are prepared in another way than is built here.
        """
        return vit.processor_to_groundup(config)

    def weights_from_huggingface(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this model's tensors from Hugging Face's; each is used once and none is left over.

        The output layer is left out where the file's has another shape, for other classes, or is
        not there. Where their images, as high as wide, have another size than the model's, their
        positions are interpolated.

        Raises:
            CheckpointError: If one is missing, has no place, or has another shape.
        """
        with torch.device("meta"):
            own = self.build().state_dict()
        _, height, width = self.input_shape or (0, 0, 0)
        return vit.to_groundup(
            tensors, self.layers, own, (height // self.patch, width // self.patch)
        )

    @classmethod
    def sizes(cls) -> Mapping[str, ViTConfig]:
        """Return the named sizes, for images of 224 x 224 pixels and the 1,000 classes of
        ImageNet.

        Source:
            Base: Dosovitskiy et al., table 1. Tiny and small: Touvron et al., DeiT, 2020
                (arXiv:2012.12877), table 1.
        """
        shape: dict[str, Any] = {
            "patch": 16,
            "layers": 12,
            "input_shape": (3, 224, 224),
            "outputs": 1000,
        }
        widths = {"vit-tiny": (192, 3), "vit-small": (384, 6), "vit-base": (768, 12)}
        return {
            name: cls(width=width, heads=heads, **shape) for name, (width, heads) in widths.items()
        }


class ViT(nn.Module):
    """The model of a ``ViTConfig``.

    Source:
        Dosovitskiy et al., 2021 (arXiv:2010.11929), section 3.1; mean pooling: its appendix D.3.
        Initialisation: Glorot's uniform distribution in the blocks, as the authors' code has it.
            Departs from it: the
        class token and the output layer do not start at 0, and there is no dropout inside the MLP.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.embed = _Patches(config)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config.block()) for _ in range(config.layers))
        # Taken out after the draw: the other weights begin with the same numbers either way.
        if not config.qkv_bias:
            for name, layer in self.blocks.named_modules():
                if name.endswith(("attention.query", "attention.key", "attention.value")):
                    layer.register_parameter("bias", None)
        self.norm = nn.LayerNorm(config.width, config.norm_eps)
        self.head = nn.Linear(config.width, config.outputs)
        # Glorot's uniform distribution, as the authors' code has it.
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Linear):
                initialise_linear(layer, "sigmoid")
        nn.init.normal_(self.head.weight, std=_STD)
        nn.init.zeros_(self.head.bias)

    def features(self, inputs: Tensor) -> Tensor:
        """Return what the output layer reads, (B, C), from inputs (B, channels, H, W)."""
        x = self.dropout(self.embed(inputs))
        context = AttentionContext()
        for block in self.blocks:
            x = block(x, context)
        x = self.norm(x)
        if self.embed.token is None:
            return x.mean(1)
        return x[:, 0]  # type: ignore[no-any-return]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, O) from inputs (B, channels, H, W)."""
        return self.head(self.features(inputs))  # type: ignore[no-any-return]


class _Patches(nn.Module):
    """Patches, flattened and projected, after the class token, each with its learned position."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        assert config.input_shape is not None
        inputs = config.input_shape[0] * config.patch**2
        self.project = nn.Conv2d(config.input_shape[0], config.width, config.patch, config.patch)
        nn.init.normal_(self.project.weight, std=1 / math.sqrt(inputs))
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]
        places = config.patches()
        self.register_parameter("token", None)
        if config.pooling == "class":
            places += 1
            self.token = nn.Parameter(torch.empty(config.width).normal_(std=_STD))
        self.positions = nn.Parameter(torch.empty(places, config.width).normal_(std=_STD))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, T, C) from inputs (B, channels, H, W)."""
        # A convolution whose windows do not overlap is one linear layer for all patches.
        x = self.project(inputs).flatten(2).transpose(1, 2)
        if self.token is not None:
            # The same vector before every image; what is read is what it has become.
            x = torch.cat((self.token.expand(len(x), 1, -1), x), 1)
        return x + self.positions
