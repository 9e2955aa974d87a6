"""A one-stage detector without anchor boxes: a trunk, a feature pyramid, and at each of its places
what is there and how far its edges are.

Shape legend: B pictures, C channels, H rows, W columns, A places of all maps, K classes, R bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from groundup.contracts.classifier_models import MapSize
from groundup.contracts.detection import DenseDetections
from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import Processor
from groundup.core.errors import RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.sizes_from_data import require_image_shape
from groundup.models.trunk import (
    complete_for_pictures,
    freeze_trunk_norms,
    frozen_norms_setting,
    trunk_flops,
    trunk_settings,
)
from groundup.nn.convolution import Convolution
from groundup.nn.norm import keep_frozen_statistics

__all__ = ["Detector", "DetectorConfig"]

# Probability of every class at every place at the start, when hardly any place shows a thing.
_PRIOR = 0.01
_GROUPS = 8
_Stride = Annotated[int, Field(ge=1)]


@model("detector")
class DetectorConfig(ModelConfig):
    """A classifier's layers as the trunk, a pyramid of its maps, and a head for classes and one for
    boxes, which all maps share."""

    backbone: dict[str, Any] = setting(
        {"name": "resnet"},
        "The trunk: the section of a model of pictures, such as {name: convnext, patch: 4}",
    )
    frozen_norms: bool = frozen_norms_setting()
    strides: tuple[_Stride, ...] = setting(
        (8, 16, 32),
        "Pixels between neighbouring places of each map of the pyramid, each twice the one before;"
        " the first finds things of about its size or larger",
        min_length=1,
    )
    width: int = setting(64, "Channels of the pyramid and the heads", ge=8, multiple_of=8)
    neck: Literal["fpn", "pan"] = setting(
        "pan",
        "fpn: coarse maps are added to finer ones; pan: and then the finer ones to the coarser",
    )
    head_layers: int = setting(2, "3x3 convolutions of each head before its output", ge=0)
    bins: int = setting(
        8,
        "Bins of the distribution of a distance, the farthest being bins - 1 strides; 1: the"
        " distance itself is predicted",
        ge=1,
    )
    norm: Literal["batch", "group"] = setting(
        "batch",
        "Of the pyramid and the heads; group ties no examples together, as small micro-batches need"
        " it, and is slower",
    )
    input_shape: tuple[int, int, int] | None = setting(
        None, "Channels, height, width; null: as the data has"
    )
    outputs: int = setting(0, "Classes; 0: as many as the data has", ge=0)

    @model_validator(mode="after")
    def _parts_fit(self) -> DetectorConfig:
        if any(2 * a != b for a, b in zip(self.strides, self.strides[1:], strict=False)):
            raise ValueError(
                f"strides are {list(self.strides)}, but each is twice the one before. Write, for"
                " example, [8, 16, 32]"
            )
        self.trunk()
        return self

    def trunk(self) -> Any:
        """Return the settings of the trunk, for pictures of the detector's shape."""
        return trunk_settings(self.backbone, self.input_shape, "detector")

    @property
    def loss_is_sum(self) -> bool:
        """Batch norm ties the examples of a micro-batch together, unless it is frozen."""
        return self.norm == "group" and (self.frozen_norms or bool(self.trunk().loss_is_sum))

    def complete_from(self, processor: Processor) -> DetectorConfig:
        """Return the config with the data's shape and classes.

        Raises:
            RecipeError: If the processor makes no pictures, or of a size that the coarsest map does
                not divide.
        """
        fitted = complete_for_pictures(self, "detector", processor)
        fitted.check_sizes()
        return fitted

    def check_sizes(self) -> None:
        """Check that every map covers the pictures exactly.

        Raises:
            RecipeError: If not.
        """
        assert self.input_shape is not None
        sizes = self.trunk().map_sizes()
        coarsest = max(self.strides[-1], sizes[-1].stride)
        for side in self.input_shape[1:]:
            if side % coarsest:
                raise RecipeError(
                    "recipe.model.strides",
                    f"pictures of {self.input_shape[1]} x {self.input_shape[2]} pixels are no"
                    f" whole number of {coarsest}, the coarsest map's",
                    f"Set processor.size to a multiple of {coarsest}, or use fewer strides",
                )
        finest = sizes[0].stride
        if self.strides[0] < finest and len(sizes) > 1:
            raise RecipeError(
                "recipe.model.strides",
                f"begin with {self.strides[0]}, but the finest map of the trunk has {finest}",
                f"Begin with {finest}, or give the trunk a stem that keeps more",
            )

    def read_levels(self) -> list[int]:
        """Return which of the trunk's maps the pyramid is made of: those of its strides, or the
        only one."""
        sizes = self.trunk().map_sizes()
        known = [place for place, size in enumerate(sizes) if size.stride in self.strides]
        return known or [len(sizes) - 1]

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one picture, forward and backward: 6 a weight and place."""
        assert self.input_shape is not None
        _, height, width = self.input_shape
        trunk = self.trunk()
        sizes = trunk.map_sizes()
        places = {stride: height * width // stride**2 for stride in self.strides}
        read = [sizes[place] for place in self.read_levels()]
        products = sum(size.width * self.width * height * width // size.stride**2 for size in read)
        # A 3x3 convolution at one place.
        square = 9 * self.width**2
        for number, stride in enumerate(self.strides):
            # Smoothing, both heads, and what each map beyond the first has of the way back.
            layers = 1 + 2 * self.head_layers
            if number and self.neck == "pan":
                layers += 2
            # A map that the trunk lacks.
            if stride > read[-1].stride:
                layers += 1
            outputs = self.outputs + 4 * self.bins
            products += places[stride] * (layers * square + outputs * self.width)
        own: float = 6.0 * products
        return own + trunk_flops(trunk, context)

    def build(self) -> Detector:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If the pictures' shape is still unknown.
        """
        require_image_shape(self.input_shape, self.outputs)
        self.check_sizes()
        return Detector(self)


class Detector(nn.Module):
    """The model of a ``DetectorConfig``; ``embed`` and ``blocks`` are the trunk's.

    Source:
        Places without anchor boxes and distances to the edges: Tian et al., FCOS, 2019
        (arXiv:1904.01355), section 3; distributions of distances: Li et al., 2020
        (arXiv:2006.04388), section 3.2; pyramid: Lin et al., 2017 (arXiv:1612.03144), section 3;
        path back to the coarse maps: Liu et al., PANet, 2018 (arXiv:1803.01534), section 3.1;
        heads apart for classes and boxes, convolutions shared by the maps and norms not: Lyu et
        al., RTMDet, 2022 (arXiv:2212.07784), section 3.2; first biases: Lin et al., 2017
        (arXiv:1708.02002), section 3.3. One map of a vision transformer as a pyramid: Li et al.,
        ViTDet, 2022 (arXiv:2203.16527), section 3.
        Departs from them: no centerness, which the assignment of ``tasks/detect`` makes needless.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        trunk = config.trunk()
        # Its head and last norm are left behind.
        classifier = trunk.build()
        self.embed = classifier.embed
        self.blocks = classifier.blocks
        # Not asked of the settings again in every step: reading a section takes its time.
        self._read_maps = trunk.read_maps
        self.neck = _Neck(config, trunk.map_sizes())
        self.head = _Head(config)
        if config.frozen_norms:
            freeze_trunk_norms(self)
        # oneDNN's convolutions are quicker where the channels of a place are next to each other.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(self, mode: bool = True) -> Detector:
        """Set the mode; batch norms that are frozen keep their statistics."""
        super().train(mode)
        keep_frozen_statistics(self)
        return self

    def forward(self, inputs: Tensor) -> DenseDetections:
        """Return what is at each place, of inputs (B, channels, H, W)."""
        # The trunk's own layers are this model's: see ``FeatureMaps``.
        maps = self.neck(self._read_maps(self, inputs))
        logits, distances = self.head(maps)
        points, strides = _places(self.config.strides, [found.shape[2:] for found in maps], inputs)
        return DenseDetections(logits, distances, points, strides)


def _places(
    strides: Sequence[int], sizes: Sequence[Sequence[int]], like: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (A, 2) the middles of all places, in pixels, and (A,) their strides."""
    # In float32 whatever the precision of the maps: bf16 knows no half pixel beyond 128.
    points = []
    widths = []
    for stride, (height, width) in zip(strides, sizes, strict=True):
        down = (torch.arange(height, device=like.device, dtype=torch.float32) + 0.5) * stride
        across = (torch.arange(width, device=like.device, dtype=torch.float32) + 0.5) * stride
        grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), -1)
        points.append(grid.reshape(-1, 2))
        widths.append(torch.full((height * width,), float(stride), device=like.device))
    return torch.cat(points), torch.cat(widths)


def _norm(config: DetectorConfig) -> nn.Module:
    if config.norm == "batch":
        return nn.BatchNorm2d(config.width)
    return nn.GroupNorm(_GROUPS, config.width)


class _Mixed(nn.Sequential):
    """A 3x3 convolution with its norm and ReLU; a stride of 2 halves the map."""

    def __init__(self, config: DetectorConfig, stride: int = 1) -> None:
        convolution = Convolution(config.width, config.width, 3, stride)
        super().__init__(convolution, _norm(config), nn.ReLU(inplace=True))


class _Neck(nn.Module):
    """The pyramid.

    Maps that the trunk lacks are made of those next to them: coarser ones by convolutions with a
    stride, finer ones, of which only a trunk with one map lacks any, by nearest neighbours.
    """

    def __init__(self, config: DetectorConfig, sizes: Sequence[MapSize]) -> None:
        super().__init__()
        strides = config.strides
        known = config.read_levels()
        self._read = known
        self._first = [sizes[place].stride for place in known]
        self._strides = strides
        self.sideways = nn.ModuleList(
            nn.Sequential(Convolution(sizes[place].width, config.width, 1), _norm(config))
            for place in known
        )
        coarser = [stride for stride in strides if stride > self._first[-1]]
        self.coarser = nn.ModuleList(_Mixed(config, 2) for _ in coarser)
        self.smooth = nn.ModuleList(_Mixed(config) for _ in strides)
        self.down: nn.ModuleList | None = None
        if config.neck == "pan":
            self.down = nn.ModuleList(_Mixed(config, 2) for _ in strides[1:])
            self.merge = nn.ModuleList(_Mixed(config) for _ in strides[1:])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return a map (B, C, H / stride, W / stride) for each stride."""
        own = {
            stride: layer(maps[place])
            for stride, place, layer in zip(self._first, self._read, self.sideways, strict=True)
        }
        # Maps beyond the trunk's coarsest one, each made of the one before.
        last = self._first[-1]
        for layer in self.coarser:
            own[2 * last] = layer(own[last])
            last *= 2
        # From the coarsest to the finest: what a place is part of helps to tell what it is.
        found: list[Tensor] = []
        above: Tensor | None = None
        for stride, layer in zip(reversed(self._strides), reversed(self.smooth), strict=True):
            x = own.get(stride)
            # Nearest neighbours: the 3x3 convolution that follows smooths what they leave.
            if above is not None:
                finer = F.interpolate(above, scale_factor=2.0, mode="nearest")
                x = finer if x is None else x + finer
            elif x is None:
                # Only where every stride is finer than the one map of the trunk.
                factor = float(self._first[0] // stride)
                x = F.interpolate(own[self._first[0]], scale_factor=factor, mode="nearest")
            above = x
            found.insert(0, layer(x))
        # And back: where edges are exactly is known by the finest map.
        if self.down is None:
            return found
        # Each finer map is finished before the next coarser one is made of it.
        for place, (down, merge) in enumerate(zip(self.down, self.merge, strict=True)):
            found[place + 1] = merge(found[place + 1] + down(found[place]))
        return found


class _Head(nn.Module):
    """Classes and distances at each place; the maps share convolutions, and batch norms not."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self._outputs = config.outputs
        self._bins = config.bins
        self.classes = _Tower(config)
        self.edges = _Tower(config)
        self.logits = nn.Conv2d(config.width, config.outputs, 1)
        self.distances = nn.Conv2d(config.width, 4 * config.bins, 1)
        # Small weights: at the start every place says what the biases say.
        for layer in (self.logits, self.distances):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.logits.bias, -math.log((1 - _PRIOR) / _PRIOR))  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return (B, A, K) logits and (B, A, 4, R) of the distances."""
        logits = []
        distances = []
        for level, x in enumerate(maps):
            logits.append(self.logits(self.classes(x, level)).flatten(2))
            distances.append(self.distances(self.edges(x, level)).flatten(2))
        rows = torch.cat(distances, 2).transpose(1, 2)
        edges = rows.reshape(len(rows), -1, 4, self._bins)
        if self._bins == 1:
            # A distance is no logit: positive, and with a gradient wherever it is.
            edges = F.softplus(edges)
        return torch.cat(logits, 2).transpose(1, 2), edges


class _Tower(nn.Module):
    """Convolutions in a row."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        layers = range(config.head_layers)
        self.layers = nn.ModuleList(Convolution(config.width, config.width, 3) for _ in layers)
        # Statistics of a batch differ from map to map; those of a picture are its own anyway.
        apart = len(config.strides) if config.norm == "batch" else 1
        self.norms = nn.ModuleList(
            nn.ModuleList(_norm(config) for _ in range(apart)) for _ in layers
        )

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Return (B, C, H, W) from x (B, C, H, W) of a map."""
        for layer, norms in zip(self.layers, self.norms, strict=True):
            norm = norms[min(level, len(norms) - 1)]  # type: ignore[index, arg-type]
            x = F.relu(norm(layer(x)))
        return x
