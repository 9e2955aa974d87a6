"""RT-DETR: queries that begin at the most promising places of several feature maps.

Shape legend: B pictures, H rows, W columns, S places of all maps, C width, Q queries, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import model_validator
from torch import Tensor, nn

from groundup.contracts.detection import SetDetections
from groundup.contracts.models import FromHuggingFace
from groundup.contracts.processors import Processor
from groundup.core.errors import RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.names.huggingface import rt_detr
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
from groundup.nn.box_head import LayersMLP, begin_rare, from_centres, inverse_sigmoid
from groundup.nn.deformable_attention import DeformableBlock, MapPlaces
from groundup.nn.hybrid_encoder import HybridEncoder, convolution_with_norm
from groundup.nn.norm import keep_frozen_statistics
from groundup.nn.placed_attention import PlacedShape
from groundup.nn.query_selection import QuerySelection
from groundup.nn.set_detector_flops import box_head_products, decoder_flops, hybrid_products
from groundup.nn.transformer import check_heads

__all__ = ["RTDETR", "RTDETRConfig"]

# Standard deviation of the weights that first move a box; not 0, so that what is below them learns
# from the first step on.
_STEP = 1e-3


@model("rt_detr")
class RTDETRConfig(FromHuggingFace):
    """A trunk, an encoder that mixes its last maps, and a decoder of queries that begin where the
    maps look most like something.

    The defaults suit pictures of 128 pixels or so; ``size`` names the paper's.
    """

    huggingface_model_types: ClassVar[tuple[str, ...]] = ("rt_detr",)
    pretrained_processor: ClassVar[str] = "image"
    free_settings: ClassVar[tuple[str, ...]] = (
        "dropout",
        "input_shape",
        "outputs",
        "queries",
        "frozen_norms",
    )

    backbone: dict[str, Any] = setting(
        {
            "name": "resnet",
            "layers": [1, 1, 1, 1],
            "width": 16,
            "stem": "deep",
            "shortcut": "pooled",
        },
        "The trunk, whose last maps are read: the section of a model of pictures, such as"
        " {name: convnext, patch: 4}",
    )
    frozen_norms: bool = frozen_norms_setting()
    maps: int = setting(3, "Maps of the trunk that are read, the coarsest ones", ge=1)
    encoder_width: int = setting(
        96, "Channels of the encoder; a multiple of 4", ge=4, multiple_of=4
    )
    encoder_heads: int = setting(4, "Attention heads of the encoder", ge=1)
    encoder_layers: int = setting(1, "Blocks of the encoder, over the coarsest map", ge=0)
    encoder_mlp_width: int = setting(192, "Inner width of the encoder's MLPs", ge=1)
    expansion: float = setting(
        0.5, "Channels where maps are mixed, as a share of encoder_width", gt=0
    )
    width: int = setting(96, "Channels of the decoder", ge=4)
    heads: int = setting(4, "Attention heads of the decoder", ge=1)
    decoder_layers: int = setting(3, "Blocks of the decoder", ge=1)
    mlp_width: int = setting(192, "Inner width of the decoder's MLPs", ge=1)
    points: int = setting(4, "Points of each map and head that a query reads", ge=1)
    queries: int = setting(30, "The most things that are found in a picture", ge=1)
    dropout: float = setting(
        0.0, "Share of what attention and MLPs give that is dropped in training", ge=0, lt=1
    )
    input_shape: tuple[int, int, int] | None = setting(
        None, "Channels, height, width; null: as the data has"
    )
    outputs: int = setting(0, "Classes; 0: as many as the data has", ge=0)

    @model_validator(mode="after")
    def _parts_fit(self) -> RTDETRConfig:
        check_heads(self.width, self.heads)
        check_heads(self.encoder_width, self.encoder_heads)
        self.trunk()
        return self

    def trunk(self) -> Any:
        """Return the settings of the trunk, for pictures of this shape.

        Raises:
            RecipeError: If they are not of a model with feature maps, or one of them is wrong.
        """
        return trunk_settings(self.backbone, self.input_shape, "rt_detr")

    @property
    def loss_is_sum(self) -> bool:
        """The encoder's batch norms tie the examples of a micro-batch together."""
        return False

    def complete_from(self, processor: Processor) -> RTDETRConfig:
        """Return the config with the data's shape and classes.

        Raises:
            RecipeError: If the processor makes no pictures, or of a size that the maps do not
                divide, or with fewer places than there are queries.
        """
        fitted = complete_for_pictures(self, "rt_detr", processor)
        fitted.check_sizes()
        return fitted

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one picture, forward and backward; the few points that queries read
        of the maps are not products."""
        assert self.input_shape is not None
        _, height, width = self.input_shape
        trunk = self.trunk()
        sizes = trunk.map_sizes()[-self.maps :]
        places = [height * width // size.stride**2 for size in sizes]
        inside, wide, queries = self.encoder_width, self.width, self.queries
        shape = PlacedShape(inside, self.encoder_heads, self.encoder_mlp_width)
        inner = int(inside * self.expansion)
        products = hybrid_products(shape, self.encoder_layers, inner, places)
        for size, count in zip(sizes, places, strict=True):
            # Into the encoder and out of it, and what it is there and where.
            each = size.width * inside + inside * wide + wide**2 + self.outputs * wide
            products += count * (each + box_head_products(wide))
        # Of each query its box, the box's position, and its classes.
        each = box_head_products(wide) + self.outputs * wide + 2 * wide**2
        products += self.decoder_layers * queries * each
        # Boxes are given to the positions without a gradient.
        positions = 4.0 * 4 * 2 * wide * self.decoder_layers * queries
        # Where to look, how much of it, and the output; values of all places.
        points = self.heads * self.maps * self.points
        read = queries * (3 * points * wide + wide**2) + sum(places) * wide**2
        block = PlacedShape(wide, self.heads, self.mlp_width)
        decoded = decoder_flops(block, self.decoder_layers, queries, read)
        return trunk_flops(trunk, context) + 6.0 * products + positions + decoded

    def check_sizes(self) -> None:
        """Check that the maps fit together and have a place for each query.

        Raises:
            RecipeError: If not.
        """
        assert self.input_shape is not None
        sizes = self.trunk().map_sizes()
        if len(sizes) < self.maps:
            raise RecipeError(
                "recipe.model.maps",
                f"is {self.maps}, but the trunk has {len(sizes)}",
                "Lower it, or give the trunk more stages",
            )
        height, width = self.input_shape[1:]
        coarsest = sizes[-1].stride
        if height % coarsest or width % coarsest:
            raise RecipeError(
                "recipe.processor.size",
                f"pictures of {height} x {width} pixels are no whole number of {coarsest}, the"
                " coarsest map's",
                f"Set processor.size to a multiple of {coarsest}",
            )
        places = sum(
            (height // size.stride) * (width // size.stride) for size in sizes[-self.maps :]
        )
        if places < self.queries:
            raise RecipeError(
                "recipe.model.queries",
                f"is {self.queries}, but the maps have {places} places",
                f"Use {places} or fewer, or larger pictures",
            )

    def build(self) -> RTDETR:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If the pictures' shape is still unknown, or the maps do not fit together.
        """
        require_image_shape(self.input_shape, self.outputs)
        self.check_sizes()
        return RTDETR(self)

    def to_huggingface(
        self, weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config.json's contents and the tensors as ``RTDetrForObjectDetection`` names them.

        Raises:
            CheckpointError: If a part has no place there.
        """
        values = rt_detr.config_to_huggingface(self.model_dump(), self.trunk())
        return values, rt_detr.to_huggingface(weights, self)

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the contents of config.json mean.

        Raises:
            CheckpointError: If it is of another family, or has a part that is not built here.
        """
        return rt_detr.config_to_groundup(config)

    @classmethod
    def settings_begun_again(
        cls, settings: Mapping[str, Any], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the settings that a run from pretrained weights does not take from them: its data
        decides them."""
        return {"outputs": 0, "input_shape": None}

    def unknown_keys(self, config: Mapping[str, Any]) -> list[str]:
        """Return the keys of config.json that nothing here reads."""
        return unknown_keys(config, rt_detr.KEYS)

    def note_on_pretrained(self, config: Mapping[str, Any]) -> str:
        """Return what becomes of the vectors of classes that training with noisy boxes reads."""
        return rt_detr.note(config)

    def output_tensors(self) -> tuple[str, ...]:
        """Return how the names of tensors begin that have a row for each class."""
        return rt_detr.OUTPUTS

    @classmethod
    def processor_from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the recipe's section ``processor`` that the contents of preprocessor_config.json
        stand for.

        Raises:
            CheckpointError: If pictures are prepared in another way than is built here.
        """
        return rt_detr.processor_to_groundup(config)

    def processor_to_huggingface(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the contents of preprocessor_config.json for ``RTDetrImageProcessor``."""
        return as_class(values, "RTDetrImageProcessor")

    def weights_from_huggingface(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this model's tensors from Hugging Face's; each is used once and none is left over
        but the vectors of noisy boxes.

        The output layers are left out where the file's have another shape, for other classes.

        Raises:
            CheckpointError: If one is missing, has no place, or has another shape.
        """
        with torch.device("meta"):
            own = self.build().state_dict()
        return rt_detr.to_groundup(tensors, self, own)

    @classmethod
    def sizes(cls) -> Mapping[str, RTDETRConfig]:
        """Return the named sizes, for the 80 categories of COCO.

        Source:
            Zhao et al., table 2; the smaller one is the authors', of 2024.
        """
        shape: dict[str, Any] = {
            "encoder_width": 256,
            "encoder_heads": 8,
            "encoder_mlp_width": 1024,
            "width": 256,
            "heads": 8,
            "mlp_width": 1024,
            "queries": 300,
            "input_shape": (3, 640, 640),
            "outputs": 80,
        }
        trunk: dict[str, Any] = {"name": "resnet", "stem": "deep", "shortcut": "pooled"}
        small = {**trunk, "layers": [2, 2, 2, 2]}
        middle = {**trunk, "layers": [3, 4, 6, 3], "bottleneck": True}
        return {
            "rt-detr-r18": cls(backbone=small, expansion=0.5, decoder_layers=3, **shape),
            "rt-detr-r50": cls(backbone=middle, expansion=1.0, decoder_layers=6, **shape),
        }


class RTDETR(nn.Module):
    """The model of an ``RTDETRConfig``; ``embed`` and ``blocks`` are the trunk's.

    Source:
        Zhao et al., 2023 (arXiv:2304.08069); first boxes and their refinement: Zhu et al., 2020
        (arXiv:2010.04159), appendix A.4.
        Departs from them: no queries are made from the true boxes with noise in training (Zhang et
        al., DINO, 2022, arXiv:2203.03605, section 3.3).
    """

    def __init__(self, config: RTDETRConfig) -> None:
        super().__init__()
        self.config = config
        trunk = config.trunk()
        classifier = trunk.build()
        self.embed = classifier.embed
        self.blocks = classifier.blocks
        # Not asked of the settings again in every step: reading a section takes its time.
        self._read_maps = trunk.read_maps
        sizes = trunk.map_sizes()[-config.maps :]
        inside = config.encoder_width
        self.project = nn.ModuleList(convolution_with_norm(size.width, inside) for size in sizes)
        shape = PlacedShape(
            inside, config.encoder_heads, config.encoder_mlp_width, config.dropout, "gelu"
        )
        inner = int(inside * config.expansion)
        self.encoder = HybridEncoder(shape, config.encoder_layers, config.maps, inner)
        self.inward = nn.ModuleList(convolution_with_norm(inside, config.width) for _ in sizes)
        self.select = QuerySelection(config.width, config.queries)
        self.head_score = nn.Linear(config.width, config.outputs)
        self.position = LayersMLP(4, 2 * config.width, config.width)
        decoded = PlacedShape(config.width, config.heads, config.mlp_width, config.dropout)
        self.decoder = nn.ModuleList(
            DeformableBlock(decoded, config.maps, config.points)
            for _ in range(config.decoder_layers)
        )
        width = config.width
        self.head_box = nn.ModuleList(LayersMLP(width, width, width, 4) for _ in self.decoder)
        self.head = nn.ModuleList(nn.Linear(width, config.outputs) for _ in self.decoder)
        begin_rare(self.head_score)
        for layer in self.head:
            begin_rare(layer)  # type: ignore[arg-type]
        for boxes in self.head_box:
            # Boxes begin very nearly as those that were chosen.
            last = list(boxes.modules())[-1]
            assert isinstance(last, nn.Linear)
            nn.init.normal_(last.weight, std=_STEP)
            nn.init.zeros_(last.bias)
        if config.frozen_norms:
            freeze_trunk_norms(self)
        # oneDNN's convolutions are quicker where the channels of a place are next to each other.
        for part in (self.embed, self.blocks, self.project, self.encoder, self.inward):
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(self, mode: bool = True) -> RTDETR:
        """Set the mode; batch norms that are frozen keep their statistics."""
        super().train(mode)
        keep_frozen_statistics(self)
        return self

    def forward(self, inputs: Tensor) -> SetDetections:
        """Return what each query finds, of inputs (B, channels, H, W)."""
        read = self._read_maps(self, inputs)[-self.config.maps :]
        projected = [layer(x) for layer, x in zip(self.project, read, strict=True)]
        maps = [layer(x) for layer, x in zip(self.inward, self.encoder(projected), strict=True)]
        sizes = [(x.shape[2], x.shape[3]) for x in maps]
        places = MapPlaces(torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1), sizes)
        x, logits, shares = self.select(places, self.head_score)
        found = [(logits, shares)]
        boxes = shares.detach()
        for block, box, head in zip(self.decoder, self.head_box, self.head, strict=True):
            x = block(x, self.position(boxes.to(x.dtype)), boxes, places)
            moved = (box(x).float() + inverse_sigmoid(boxes)).sigmoid()
            found.append((head(x), moved))
            # Each block learns its own step: the boxes before it are given.
            boxes = moved.detach()
        # In shares of pictures that nothing pads.
        height, width = inputs.shape[2:]
        picture = boxes.new_tensor([width, height]).expand(len(inputs), 2)
        layers = [
            SetDetections(logits, from_centres(shares, picture[:, None]), sizes=picture)
            for logits, shares in found
        ]
        last = layers[-1]
        return SetDetections(last.logits, last.boxes, tuple(layers[:-1]), sizes=picture)
