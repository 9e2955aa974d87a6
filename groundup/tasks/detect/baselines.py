"""Answers that no detector is needed for, to be compared with one.

Shape legend: N pictures, P pixels of a small picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.core import seeding
from groundup.core.values import Example
from groundup.metrics.detection import FoundBoxes
from groundup.processors.boxes import BoxesProcessor, place_in_inputs

__all__ = ["trivial_answers"]

# Training pictures that are looked at: to decode all of a large set would take longer than to
# evaluate.
_MOST = 1000
_AT_ONCE = 128
_SIDE = 16  # pixels that pictures are compared by
_Small = tuple[Tensor, Tensor]


def trivial_answers(
    trained: Sequence[Example],
    examples: Sequence[Example],
    processor: BoxesProcessor,
    seed: int,
) -> dict[str, tuple[str, list[FoundBoxes]]]:
    """Return by name what an answer is, and what it finds in each example.

    ``mean_box``: one box in each picture, with the mean place and size and of the commonest class
    of training; ``nearest_picture``: the boxes of the training picture whose pixels are nearest.
    """
    order = torch.randperm(len(trained), generator=seeding.generator(seed, "trivial answers"))
    known = [trained[number] for number in order[:_MOST].tolist()]
    # In pixels of the inputs, where pictures of all sizes are alike.
    own_pixels, own_frames = _look_at(known, processor)
    pixels, frames = _look_at(examples, processor)
    commonest, middle = _mean_box(known, own_frames, processor)
    number = processor.labels.index(commonest)
    mean = [_back(middle[None], [number], frame) for frame in frames]
    # A few pixels of each: a thousand pictures are compared in a moment.
    nearest = torch.cdist(pixels, own_pixels).argmin(1).tolist()
    copied = []
    for frame, other in zip(frames, nearest, strict=True):
        target = known[other].target
        # A region of many things is no answer.
        real = np.flatnonzero(~target.crowd)
        corners = torch.from_numpy(target.corners[real]).view(-1, 4)
        numbers = [processor.labels.index(_as_known(target.labels[k], processor)) for k in real]
        copied.append(_back(place_in_inputs(corners, own_frames[other]), numbers, frame))
    return {
        "mean_box": (f"the mean box, as {commonest}", mean),
        "nearest_picture": ("boxes of the most similar training picture", copied),
    }


def _look_at(examples: Sequence[Example], processor: BoxesProcessor) -> _Small:
    """Return small pictures (N, P) and their frames (N, 4)."""
    parts = []
    frames = []
    for start in range(0, len(examples), _AT_ONCE):
        chosen = [example.inputs for example in examples[start : start + _AT_ONCE]]
        batch = processor.encode_inputs(chosen)
        parts.append(F.adaptive_avg_pool2d(batch["inputs"], _SIDE).flatten(1))
        frames.append(batch["frame"])
    return torch.cat(parts), torch.cat(frames)


def _mean_box(
    known: Sequence[Example], frames: Tensor, processor: BoxesProcessor
) -> tuple[str, Tensor]:
    """Return the commonest class, and the mean (4,) of its boxes in pixels of the inputs."""
    counts: Counter[str] = Counter()
    places: dict[str, list[Tensor]] = {}
    for example, frame in zip(known, frames, strict=True):
        target = example.target
        corners = place_in_inputs(torch.from_numpy(target.corners).view(-1, 4), frame)
        for label, crowd, box in zip(target.labels, target.crowd, corners, strict=True):
            if not crowd:
                name = _as_known(label, processor)
                counts[name] += 1
                places.setdefault(name, []).append(box)
    if not counts:  # a sample of a large set without any box
        return processor.labels[0], torch.zeros(4)
    # The mean of its own boxes: other classes may be of other sizes.
    commonest = counts.most_common(1)[0][0]
    return commonest, torch.stack(places[commonest]).mean(0)


def _as_known(label: str, processor: BoxesProcessor) -> str:
    """Return a label as the processor spells it."""
    return label if label in processor.labels else processor.labels[0]


def _back(boxes: Tensor, labels: Sequence[int], frame: Tensor) -> FoundBoxes:
    """Return boxes of the inputs as found in the stored picture, all of them sure."""
    corners = (boxes - frame[2:].repeat(2)) / frame[:2].repeat(2)
    return FoundBoxes(corners.numpy(), np.ones(len(boxes)), np.asarray(labels, np.int64))
