"""What a detector gets wrong: how often, and pictures of its surest mistakes.

Legend: K true boxes and N found ones of a picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.core.values import Example, Figure, Table
from groundup.media.picture_drawing import draw_boxes
from groundup.media.png import data_uri
from groundup.metrics.detection import FoundBoxes, TrueBoxes
from groundup.nn.box_overlap import overlap
from groundup.processors.boxes import BoxesProcessor, place_in_inputs

__all__ = ["Mistakes", "count_mistakes", "draw_mistakes"]

_RIGHT = 0.5
# Overlaps with a thing from which on a box is about it, though it is not at its place.
_NEAR = 0.1
_DRAWN = 24
_SIDE = 160  # pixels that a picture is shown with, at least
_TRUE = "#1a7f37"
_FOUND = "#cf222e"

_KINDS = {
    "class": "of another class",
    "place": "misplaced: overlap of 0.1 to 0.5 with a thing of the class",
    "twice": "a thing found before",
    "nothing": "where nothing is",
    "missed": "not found",
}


class _Mistake(NamedTuple):
    """A found box that is wrong."""

    picture: int
    found: int
    kind: str
    other: int  # the number of the true box it is about, or -1
    score: float


@dataclass(frozen=True)
class Mistakes:
    """What is wrong with what was found.

    Attributes:
        wrong: Boxes that were found and are wrong, the surest first.
        counts: How many there are of each kind, things not found included.
        right: How many are right.
    """

    wrong: list[_Mistake]
    counts: Counter[str]
    right: int

    def table(self) -> Table:
        """Return how many there are of each kind."""
        rows: list[tuple[str | float | int | None, ...]] = [("right", self.right)]
        rows += [(words, self.counts[kind]) for kind, words in _KINDS.items()]
        return Table("What is found, and what is wrong with it", ("boxes", "number"), rows)


def count_mistakes(true: Sequence[TrueBoxes], found: Sequence[FoundBoxes]) -> Mistakes:
    """Match what was found with what is there, the surest box first, and tell apart what is wrong.

    Args:
        true: Of each picture.
        found: What a user is shown of each, the most probable first.

    Source:
        The kinds: Bolya et al., TIDE, 2020 (arXiv:2008.08115), section 2.2, without "both".
    """
    wrong: list[_Mistake] = []
    counts: Counter[str] = Counter()
    right = 0
    for number, (there, here) in enumerate(zip(true, found, strict=True)):
        real = np.flatnonzero(~there.crowd)
        overlaps = _overlaps(here.corners, there.corners)
        taken: set[int] = set()
        for index, score in enumerate(here.scores.tolist()):
            kind, other = _judge(overlaps[index], int(here.labels[index]), there, taken)
            if kind == "right":
                taken.add(other)
                right += 1
            elif kind != "crowd":
                wrong.append(_Mistake(number, index, kind, other, score))
                counts[kind] += 1
        counts["missed"] += len(real) - len(taken)
    # Stable, so that equal ones stay in the order of the pictures.
    wrong.sort(key=lambda mistake: -mistake.score)
    return Mistakes(wrong, counts, right)


def _overlaps(found: NDArray[Any], true: NDArray[Any]) -> NDArray[np.float64]:
    one = torch.from_numpy(np.asarray(found, np.float64)).view(-1, 4)
    other = torch.from_numpy(np.asarray(true, np.float64)).view(-1, 4)
    values: NDArray[np.float64] = overlap(one[:, None], other[None]).numpy()
    return values


def _judge(
    overlaps: NDArray[np.float64], label: int, there: TrueBoxes, taken: set[int]
) -> tuple[str, int]:
    """Return what a found box is, and the true box that it is about, -1 for none."""
    # The nearest thing first: a box is about the one that it covers most.
    order = np.argsort(-overlaps, kind="stable").tolist()
    real = [k for k in order if not there.crowd[k]]
    same = [k for k in real if there.labels[k] == label]
    free = [k for k in same if k not in taken and overlaps[k] >= _RIGHT]
    if free:
        return "right", free[0]
    # Nobody counted what is in a crowd.
    if any(overlaps[k] > 0 for k in order if there.crowd[k]):
        return "crowd", -1
    if same and overlaps[same[0]] >= _RIGHT:
        return "twice", same[0]
    if real and overlaps[real[0]] >= _RIGHT:
        return "class", real[0]
    if same and overlaps[same[0]] >= _NEAR:
        return "place", same[0]
    return "nothing", -1


def draw_mistakes(
    mistakes: Mistakes,
    examples: Sequence[Example],
    true: Sequence[TrueBoxes],
    found: Sequence[FoundBoxes],
    processor: BoxesProcessor,
) -> Figure:
    """Return the pictures of the mistakes that the model was surest of: what is there in green,
    what was wrongly found in red."""
    items = []
    for mistake in mistakes.wrong[:_DRAWN]:
        there = true[mistake.picture]
        here = found[mistake.picture]
        example = examples[mistake.picture]
        words = "nothing"
        if mistake.other >= 0:
            words = processor.labels[int(there.labels[mistake.other])]
        if mistake.kind in ("place", "twice"):
            words = f"{words}, {'elsewhere' if mistake.kind == 'place' else 'found before'}"
        label = processor.labels[int(here.labels[mistake.found])]
        corners = np.concatenate(
            (np.asarray(there.corners).reshape(-1, 4), here.corners[mistake.found][None])
        )
        colours = [_TRUE] * len(there.corners) + [_FOUND]
        texts = [processor.labels[number] for number in there.labels.tolist()] + [label]
        items.append(
            {
                "name": example.origin or example.name,
                "true": words,
                "predicted": label,
                "probability": round(mistake.score, 4),
                "picture": data_uri(_picture(example, corners, texts, colours, processor)),
            }
        )
    note = "Boxes that were found and are wrong, in red; what is there, in green."
    return Figure("pictures", "Most confidently wrong", {"items": items}, note)


def _picture(
    example: Example,
    corners: NDArray[Any],
    texts: Sequence[str],
    colours: Sequence[str],
    processor: BoxesProcessor,
) -> NDArray[np.uint8]:
    """Return an example as the model reads it, with boxes."""
    batch = processor.encode_inputs([example.inputs])
    pixels = processor.inputs.to_pixels(batch["inputs"])[0, :3].clamp(0, 1)
    if len(pixels) == 2:  # grey with its opacity
        pixels = pixels[:1]
    shown = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    if shown.shape[2] == 1:
        shown = shown[..., 0]
    placed = place_in_inputs(torch.from_numpy(corners.astype(np.float32)), batch["frame"][0])
    factor = max(1.0, round(_SIDE / min(shown.shape[:2])))
    return draw_boxes(np.ascontiguousarray(shown), placed.tolist(), texts, colours, factor)
