"""DETR: a transformer that reads the map of a trunk, and whose queries each find one thing or
nothing.

Shape legend: B pictures, H rows, W columns, h and w those of the map, C width, Q queries, K
    outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from groundup.contracts.detection import SetDetections
from groundup.contracts.models import FromHuggingFace
from groundup.contracts.processors import Processor
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.names.huggingface import detr
from groundup.models.names.huggingface.picture_settings import as_class
from groundup.models.names.table import unknown_keys
from groundup.models.sizes_from_data import require_image_shape
from groundup.models.trunk import (
    complete_for_pictures,
    freeze_trunk_norms,
    frozen_norms_setting,
    trunk_flops,
    trunk_settings,
)
from groundup.nn.box_head import LayersMLP, begin_rare, from_centres
from groundup.nn.norm import keep_frozen_statistics
from groundup.nn.placed_attention import (
    PlacedBlock,
    PlacedShape,
    Places,
    picture_sinusoids,
)
from groundup.nn.set_detector_flops import box_head_products, decoder_flops, encoder_products
from groundup.nn.transformer import check_heads

__all__ = ["DETR", "DETRConfig"]


@model("detr")
class DETRConfig(FromHuggingFace):
    """A trunk, an encoder over the places of its last map, and a decoder of queries.

    The defaults suit pictures of 128 pixels or so; ``size: detr-resnet-50`` is the paper's.
    """

    huggingface_model_types: ClassVar[tuple[str, ...]] = ("detr",)
    pretrained_processor: ClassVar[str] = "image"
    free_settings: ClassVar[tuple[str, ...]] = (
        "dropout",
        "input_shape",
        "outputs",
        "frozen_norms",
        "earlier_losses",
    )

    backbone: dict[str, Any] = setting(
        {"name": "resnet", "layers": [1, 1, 1], "width": 32},
        "The trunk, whose last map is read: the section of a model of pictures, such as"
        " {name: convnext, patch: 4}",
    )
    frozen_norms: bool = frozen_norms_setting()
    width: int = setting(128, "Channels of the transformer; a multiple of 4", ge=4, multiple_of=4)
    heads: int = setting(8, "Attention heads", ge=1)
    encoder_layers: int = setting(2, "Blocks of the encoder", ge=0)
    decoder_layers: int = setting(3, "Blocks of the decoder", ge=1)
    mlp_width: int = setting(512, "Inner width of the MLPs", ge=1)
    queries: int = setting(30, "The most things that are found in a picture", ge=1)
    head: Literal["sigmoid", "softmax"] = setting(
        "sigmoid",
        "sigmoid: each class by itself, learned in fewer steps; softmax: over the classes and"
        " nothing, as in the paper",
    )
    earlier_losses: bool = setting(
        True, "Take the loss of what each block of the decoder says, not of the last alone"
    )
    norm_between: bool = setting(
        False,
        "Normalise what goes from one block of the decoder to the next, as transformers does in"
        " models of auxiliary losses",
    )
    dropout: float = setting(
        0.1, "Share of what attention and MLPs give that is dropped in training", ge=0, lt=1
    )
    input_shape: tuple[int, int, int] | None = setting(
        None, "Channels, height, width; null: as the data has"
    )
    outputs: int = setting(0, "Classes; 0: as many as the data has", ge=0)

    @model_validator(mode="after")
    def _parts_fit(self) -> DETRConfig:
        check_heads(self.width, self.heads)
        self.trunk()
        return self

    def trunk(self) -> Any:
        """Return the settings of the trunk, for pictures of this shape.

        Raises:
            RecipeError: If they are not of a model with feature maps, or one of them is wrong.
        """
        return trunk_settings(self.backbone, self.input_shape, "detr")

    @property
    def loss_is_sum(self) -> bool:
        """Batch norm ties the examples of a micro-batch together, unless it is frozen."""
        return self.frozen_norms or bool(self.trunk().loss_is_sum)

    def complete_from(self, processor: Processor) -> DETRConfig:
        """Return the config with the data's shape and classes.

        Raises:
            RecipeError: If the processor makes no pictures.
        """
        return complete_for_pictures(self, "detr", processor)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one picture, forward and backward."""
        assert self.input_shape is not None
        trunk = self.trunk()
        last = trunk.map_sizes()[-1]
        # Convolutions with a stride round up.
        down, across = (-(-side // last.stride) for side in self.input_shape[1:])
        places = down * across
        width, queries = self.width, self.queries
        products: int = places * last.width * width
        products += self.encoder_layers * encoder_products(self.block(), places)
        answered = self.decoder_layers if self.earlier_losses else 1
        outputs = self.outputs + (self.head == "softmax")
        products += answered * queries * (box_head_products(width) + outputs * width)
        # Queries and outputs, keys and values, and the products of both.
        read = 2 * width**2 * (queries + places) + 2 * width * queries * places
        decoded = decoder_flops(self.block(), self.decoder_layers, queries, read)
        return trunk_flops(trunk, context) + 6.0 * products + decoded

    def block(self) -> PlacedShape:
        """Return the shape of every block."""
        return PlacedShape(self.width, self.heads, self.mlp_width, self.dropout)

    def build(self) -> DETR:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If the pictures' shape is still unknown.
        """
        require_image_shape(self.input_shape, self.outputs)
        return DETR(self)

    def to_huggingface(
        self, weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config.json's contents and the tensors as ``DetrForObjectDetection`` names them.

        Raises:
            CheckpointError: If a part has no place there.
        """
        values = detr.config_to_huggingface(self.model_dump(), self.trunk().model_dump())
        return values, detr.to_huggingface(weights, self)

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the contents of config.json mean.

        Raises:
            CheckpointError: If it is of another family, or has a part that is not built here.
        """
        return detr.config_to_groundup(config)

    @classmethod
    def settings_begun_again(
        cls, settings: Mapping[str, Any], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the settings that a run from pretrained weights does not take from them: its data
        decides them."""
        return {"outputs": 0, "input_shape": None}

    def unknown_keys(self, config: Mapping[str, Any]) -> list[str]:
        """Return the keys of config.json that nothing here reads."""
        return unknown_keys(config, detr.KEYS)

    @classmethod
    def processor_from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the recipe's section ``processor`` that the contents of preprocessor_config.json
        stand for.

        Raises:
            CheckpointError: If pictures are prepared in another way than is built here.
        """
        return detr.processor_to_groundup(config)

    def processor_to_huggingface(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the contents of preprocessor_config.json for ``DetrImageProcessor``."""
        return as_class(values, "DetrImageProcessor")

    def weights_from_huggingface(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this model's tensors from Hugging Face's; each is used once and none is left over.

        The output layer is left out where the file's has another shape, for other classes.

        Raises:
            CheckpointError: If one is missing, has no place, or has another shape.
        """
        with torch.device("meta"):
            own = self.build().state_dict()
        return detr.to_groundup(tensors, self, own)

    @classmethod
    def sizes(cls) -> Mapping[str, DETRConfig]:
        """Return the named sizes, for the 91 numbers of COCO's categories.

        Source:
            Carion et al., section 4.
        """
        shape: dict[str, Any] = {
            "backbone": {"name": "resnet", "layers": [3, 4, 6, 3], "bottleneck": True},
            "width": 256,
            "encoder_layers": 6,
            "decoder_layers": 6,
            "mlp_width": 2048,
            "queries": 100,
            "head": "softmax",
            "input_shape": (3, 800, 1333),
            "outputs": 91,
        }
        return {"detr-resnet-50": cls(**shape)}


class DETR(nn.Module):
    """The model of a ``DETRConfig``; ``embed`` and ``blocks`` are the trunk's.

    Source:
        Carion et al., 2020 (arXiv:2005.12872), section 3.2 and appendix A.4. Classes by themselves:
        Zhu et al., 2020 (arXiv:2010.04159), appendix A.1.
        Departs from them: the trunk's batch norms are trained, unless they are frozen.
    """

    def __init__(self, config: DETRConfig) -> None:
        super().__init__()
        self.config = config
        trunk = config.trunk()
        classifier = trunk.build()
        self.embed = classifier.embed
        self.blocks = classifier.blocks
        # Not asked of the settings again in every step: reading a section takes its time.
        self._read_maps = trunk.read_maps
        self.project = nn.Conv2d(trunk.map_sizes()[-1].width, config.width, 1)
        shape = config.block()
        self.encoder = nn.ModuleList(PlacedBlock(shape) for _ in range(config.encoder_layers))
        self.queries = nn.Parameter(torch.empty(config.queries, config.width).normal_())
        self.decoder = nn.ModuleList(
            PlacedBlock(shape, decodes=True) for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.head_box = LayersMLP(config.width, config.width, config.width, 4)
        nothing = config.head == "softmax"
        self.head = nn.Linear(config.width, config.outputs + nothing)
        # Glorot's uniform distribution for every matrix, as the authors' code has it.
        for part in (self.encoder, self.decoder, self.head_box, self.head):
            for layer in part.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)
        if not nothing:
            begin_rare(self.head)
        if config.frozen_norms:
            freeze_trunk_norms(self)
        # oneDNN's convolutions are quicker where the channels of a place are next to each other.
        self.embed.to(memory_format=torch.channels_last)
        self.blocks.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> DETR:
        """Set the mode; batch norms that are frozen keep their statistics."""
        super().train(mode)
        keep_frozen_statistics(self)
        return self

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> SetDetections:
        """Return what each query finds.

        Args:
            inputs: (B, channels, H, W).
            mask: (B, H, W) booleans, what is of a picture and not of what pads it; None: all.
        """
        # The coarsest map alone: attention compares all its places with each other.
        found = self.project(self._read_maps(self, inputs)[-1])
        attended = None
        if mask is None:
            # Nothing is hidden, and attention is quicker without a mask.
            seen = inputs.new_ones(1, *found.shape[2:], dtype=torch.bool)
            whole = inputs.new_tensor([inputs.shape[3], inputs.shape[2]], dtype=torch.float32)
            frame = _Frame(whole[None], torch.zeros_like(whole)[None])
        else:
            # A place is of the picture where its nearest pixel is.
            seen = F.interpolate(mask[None].float(), size=found.shape[2:])[0].bool()
            # Of a picture between two places nothing would be seen, and no weights sum to 1.
            seen = seen | ~seen.any(2, keepdim=True).any(1, keepdim=True)
            attended = seen.flatten(1)[:, None, None]
            frame = _Frame.of(mask)
        positions = picture_sinusoids(seen, self.config.width).to(found.dtype)
        x = self.dropout(found.flatten(2).transpose(1, 2))
        for block in self.encoder:
            x = block(x, positions, attended)
        states = self._decode(x, positions, attended)
        frame = _Frame(*(values.expand(len(inputs), 2) for values in frame))
        *earlier, last = [self._answer(state, frame) for state in states]
        return replace(last, earlier=tuple(earlier))

    def _decode(self, places: Tensor, positions: Tensor, mask: Tensor | None) -> list[Tensor]:
        """Return the states of the queries (B, Q, C) after the blocks whose loss is taken."""
        picture = Places(places, places + positions, mask)
        # A query is only a place to ask from, until it has looked at the picture.
        x = torch.zeros_like(self.queries).expand(len(places), -1, -1)
        found = []
        for block in self.decoder:
            x = block(x, self.queries, picture=picture)
            if self.config.norm_between:
                x = self.norm(x)
                found.append(x)
            else:
                found.append(self.norm(x))
        if self.config.norm_between:
            # The library normalises the last states once more.
            found[-1] = self.norm(x)
        if not self.config.earlier_losses:
            return found[-1:]
        return found

    def _answer(self, states: Tensor, frame: _Frame) -> SetDetections:
        shares = self.head_box(states).float().sigmoid()
        boxes = from_centres(shares, frame.sizes[:, None], frame.corners[:, None])
        nothing = self.config.head == "softmax"
        return SetDetections(self.head(states), boxes, (), nothing, frame.sizes, frame.corners)


class _Frame(NamedTuple):
    """Where pictures are in the inputs: their width and height, and where they begin, (B, 2) in
    pixels."""

    sizes: Tensor
    corners: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> _Frame:
        """Return it of what is of each picture, (B, H, W)."""
        sides = (mask.any(1).int(), mask.any(2).int())
        # Boxes are shares of a picture, which is never without width.
        sizes = torch.stack([side.sum(-1) for side in sides], -1).float().clamp(min=1.0)
        # The first of the largest: where the picture begins.
        corners = torch.stack([side.argmax(-1) for side in sides], -1).float()
        return cls(sizes, corners)
