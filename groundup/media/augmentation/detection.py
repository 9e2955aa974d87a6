"""Pictures changed at random with the boxes in them: both are moved by the same map.

Shape legend: B samples, K boxes, C channels, H rows, W columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt, model_validator
from torch import Tensor

from groundup.contracts.data import Partners
from groundup.contracts.processors import Pictures
from groundup.core.settings import setting
from groundup.core.values import IGNORED, Batch
from groundup.media.augmentation.draws import Draws
from groundup.media.augmentation.pictures import Warp, erase_rectangles, plan_changes
from groundup.media.augmentation.settings import WARPS, PictureAugment
from groundup.media.augmentation.training_sizes import draw_size, resize_batch
from groundup.media.pixels import resample

__all__ = ["BoxAugment", "augment_detection", "move_boxes"]

# Where four pictures of a mosaic meet, in shares of the width and height from the left and top.
_JOINT = (0.3, 0.7)
# How much they are shrunk.
_SHRUNK = (0.5, 1.0)


class BoxAugment(PictureAugment):
    """How training pictures and the boxes in them are changed at random, differently each time.
    Nothing is changed in validation."""

    mosaic: float = setting(
        0.0,
        "Chance that four pictures, shrunk or cut off, are put together",
        ge=0,
        le=1,
    )
    min_visible: float = setting(
        0.25,
        "Boxes of which less than this share of the area is left in the picture are dropped",
        ge=0,
        le=1,
    )

    sizes: tuple[tuple[PositiveInt, PositiveInt], ...] = setting(
        (),
        "Heights and widths that training pictures are resized to, one drawn for every size_every"
        " samples; none: as the processor makes them",
    )
    size_every: int = setting(
        64, "Samples that have the same size: training.batch_size, or a multiple of it", ge=1
    )

    @model_validator(mode="after")
    def _moves(self) -> BoxAugment:
        if self.size_every != type(self).model_fields["size_every"].default and not self.sizes:
            raise ValueError("size_every has no effect without sizes. Set sizes, or remove it")
        moves = any(name in (*WARPS, "mosaic") for name in self.used)
        if self.min_visible != type(self).model_fields["min_visible"].default and not moves:
            raise ValueError(
                "min_visible has no effect where no picture is moved. Set scale, shift, crop,"
                " rotate_degrees or mosaic, or remove it"
            )
        return self

    @property
    def used(self) -> tuple[str, ...]:
        """The names of the settings that change something."""
        # How much must be left changes nothing by itself, nor how often nothing is drawn.
        return tuple(name for name in super().used if name not in ("min_visible", "size_every"))


class _Boxes(NamedTuple):
    """Boxes (B, K, 4) in the new pictures with their labels and crowds (B, K); which are kept."""

    corners: Tensor
    labels: Tensor
    crowd: Tensor
    kept: Tensor


def augment_detection(
    settings: BoxAugment, batch: Batch, draws: Draws, partners: Partners, processor: Pictures
) -> Batch:
    """Return the micro-batch with every picture changed and its boxes where its pixels are now.

    A turned box is the one around its four turned corners. ``frame`` stays that of the pictures as
    they were: no picture is asked for its stored places after it was turned.

    Args:
        settings: What is done.
        batch: As ``contracts.detection`` has it; it is left as it is.
        draws: The samples' random numbers.
        partners: Gives other training examples, for mosaics.
        processor: What reads the pictures.

    Source:
        Mosaic: Bochkovskiy et al., 2020, "YOLOv4" (arXiv:2004.10934), section 3.4 and figure 3.
        Departs from it: pictures keep their proportions, and each is moved and shrunk in one
        resampling.
    """
    if not settings.used:
        return batch
    inputs, warp = plan_changes(settings, batch["inputs"], draws, processor)
    height, width = inputs.shape[2:]
    whole = np.tile([0.0, 0.0, width, height], (len(inputs), 1))
    # In the places of the tensor, not of the stored picture: that is where the pixels are moved.
    boxes = _move_and_cut(settings, batch, warp, whole)
    if set(settings.used) & set(WARPS):
        moved = resample(inputs, warp.matrices, warp.shifts)
    else:
        moved = inputs
    found: Batch = {}
    if "picture" in batch:
        found["picture"] = _cut(move_boxes(batch["picture"][:, None], warp)[:, 0], whole)
    if settings.mosaic:
        rows = np.flatnonzero(draws("mosaic")[0] < settings.mosaic)
        if len(rows):
            moved, boxes = _put_together(
                settings, (moved, boxes), (batch, inputs, warp), rows, draws, partners, processor
            )
            if found:
                # A mosaic fills the tensor.
                filled = _set_rows(len(moved), rows)[:, None]
                edges = torch.from_numpy(whole).to(found["picture"].dtype)
                found["picture"] = torch.where(filled, edges, found["picture"])
    found |= {"inputs": erase_rectangles(settings, moved, draws)} | _pack(boxes)
    if not settings.sizes:
        return batch | found
    return resize_batch(batch | found, draw_size(settings.sizes, settings.size_every, draws))


def _cut(areas: Tensor, whole: NDArray[np.float64]) -> Tensor:
    """Return areas (B, 4) cut off at the edges of what holds them, (B, 4)."""
    least, most = (
        torch.from_numpy(whole[:, part]).repeat(1, 2) for part in (slice(2), slice(2, 4))
    )
    return torch.minimum(torch.maximum(areas, least.to(areas.dtype)), most.to(areas.dtype))


def _put_together(
    settings: BoxAugment,
    alone: tuple[Tensor, _Boxes],
    own: tuple[Batch, Tensor, Warp],
    rows: NDArray[np.int64],
    draws: Draws,
    partners: Partners,
    processor: Pictures,
) -> tuple[Tensor, _Boxes]:
    """Return pictures and boxes in which some rows are mosaics of four.

    Args:
        settings: What is done.
        alone: The pictures moved by themselves, and their boxes.
        own: The batch, its pictures recoloured, and how they are moved.
        rows: Which samples are mosaics.
        draws: The samples' random numbers.
        partners: Gives other training examples.
        processor: What reads the pictures.
    """
    moved, boxes = alone
    # Rows that are no mosaics stay as they are.
    moved = moved.clone()
    height, width = moved.shape[2:]
    size = np.array([width, height], np.float64)
    low, high = _JOINT
    # Whole pixels, so that each pixel is of one picture.
    joint = np.round((low + (high - low) * draws("mosaic joint", 2).T) * size)
    first = np.floor(4 * draws("mosaic place")[0]).astype(np.int64)
    found = [boxes._replace(kept=boxes.kept & ~_set_rows(len(moved), rows)[:, None])]
    for number in range(4):
        role = Draws(draws.seed, draws.samples, f"mosaic {number} ")
        batch, inputs, warp = own
        if number:
            batch = partners(number - 1)
            inputs, warp = plan_changes(settings, batch["inputs"], role, processor)
        # The sample's own picture may be in any of the four places.
        place = (first + number) % 4
        right = (place % 2).astype(np.float64)
        down = (place // 2).astype(np.float64)
        shrunk = _SHRUNK[0] + (_SHRUNK[1] - _SHRUNK[0]) * role("shrunk")[0]
        before = 1 - np.stack([right, down], 1)
        # A place x of the mosaic is (x - joint) / shrunk in a picture that begins at the joint, and
        # as much before its end in one that ends there; both are counted from the middle.
        shift = (size / 2 - joint) / shrunk[:, None] + before * size - size / 2
        # Put behind the picture's own turns and shifts, so that it is resampled once.
        warp.place(1 / shrunk, shift)
        window = np.concatenate(
            [(1 - before) * joint, np.where(before == 1, joint, size[None])], axis=1
        )
        part = resample(inputs[rows], warp.matrices[rows], warp.shifts[rows])
        inside = _window_mask(window[rows], height, width)
        moved[rows] = torch.where(inside, part, moved[rows])
        cut = _move_and_cut(settings, batch, warp, window)
        found.append(cut._replace(kept=cut.kept & _set_rows(len(moved), rows)[:, None]))
    return moved, _Boxes(*(torch.cat(parts, 1) for parts in zip(*found, strict=True)))


def _set_rows(count: int, rows: NDArray[np.int64]) -> Tensor:
    found = torch.zeros(count, dtype=torch.bool)
    found[torch.from_numpy(rows)] = True
    return found


def _window_mask(window: NDArray[np.float64], height: int, width: int) -> Tensor:
    """Return (B, 1, H, W), True within windows (B, 4) of whole pixels."""
    left, top, right, bottom = torch.from_numpy(window).T[:, :, None]
    x = torch.arange(width)
    y = torch.arange(height)
    across = (x >= left) & (x < right)
    down = (y >= top) & (y < bottom)
    mask: Tensor = (down[:, :, None] & across[:, None])[:, None]
    return mask


def move_boxes(boxes: Tensor, warp: Warp) -> Tensor:
    """Return where boxes (B, K, 4) are in the new pictures, cut off nowhere: around their four
    moved corners."""
    size = torch.tensor([warp.width, warp.height], dtype=torch.float64)
    left, top, right, bottom = boxes.double().unbind(2)
    corners = torch.stack(
        [
            torch.stack([left, right, left, right], 2),
            torch.stack([top, top, bottom, bottom], 2),
        ],
        3,
    )
    # The map leads from the new places to the old ones, as pixels are looked up; boxes go back.
    back = torch.from_numpy(np.linalg.inv(warp.matrices))
    from_middle = corners - size / 2 - torch.from_numpy(warp.shifts)[:, None, None]
    # Written out: a product of matrices may sum in an order that depends on the batch.
    x = (
        back[:, None, None, 0, 0] * from_middle[..., 0]
        + back[:, None, None, 0, 1] * (from_middle[..., 1])
    )
    y = (
        back[:, None, None, 1, 0] * from_middle[..., 0]
        + back[:, None, None, 1, 1] * (from_middle[..., 1])
    )
    x = x + size[0] / 2
    y = y + size[1] / 2
    return torch.stack([x.amin(2), y.amin(2), x.amax(2), y.amax(2)], 2).to(boxes.dtype)


def _move_and_cut(
    settings: BoxAugment, batch: Batch, warp: Warp, window: NDArray[np.float64]
) -> _Boxes:
    """Return the boxes of a batch moved and cut off at windows (B, 4); without those that were
    none, and those of which too little is left."""
    moved = move_boxes(batch["boxes"], warp)
    low = torch.from_numpy(window[:, None, :2]).to(moved.dtype)
    high = torch.from_numpy(window[:, None, 2:]).to(moved.dtype)
    first = torch.minimum(torch.maximum(moved[..., :2], low), high)
    last = torch.minimum(torch.maximum(moved[..., 2:], low), high)
    left = (last - first).prod(2)
    whole = (moved[..., 2:] - moved[..., :2]).prod(2)
    # A line along the edge has no area, whatever share is asked for.
    enough = (left > 0) & (left >= settings.min_visible * whole)
    kept = enough & (batch["labels"] != IGNORED)
    return _Boxes(torch.cat([first, last], 2), batch["labels"], batch["crowd"], kept)


def _pack(boxes: _Boxes) -> Batch:
    """Return the boxes that are kept, each sample's at the begin of its row, padded as before."""
    most = max(1, int(boxes.kept.sum(1).max()))
    order = (~boxes.kept).to(torch.int8).argsort(dim=1, stable=True)[:, :most]
    kept = boxes.kept.gather(1, order)
    corners = boxes.corners.gather(1, order[..., None].expand(-1, -1, 4))
    return {
        "boxes": corners.masked_fill(~kept[..., None], 0.0),
        "labels": boxes.labels.gather(1, order).masked_fill(~kept, IGNORED),
        "crowd": boxes.crowd.gather(1, order) & kept,
    }
