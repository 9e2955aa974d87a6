"""Pictures and captions looked for among others: by sight, and by the words they share.

Legend: N pictures, M captions, C channels, H rows, W columns, D numbers of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from groundup.core import seeding
from groundup.core.values import Example

__all__ = ["Look", "choose_captions", "distances", "share_found", "shared_words", "small"]

_SIDE = 16  # pixels to which pictures are reduced to compare them by sight


@dataclass(frozen=True)
class Look:
    """What is evaluated: N examples, their M captions, and which of these is whose."""

    examples: list[Example]
    captions: list[str]
    wanted: list[int]


def choose_captions(examples: Sequence[Example], count: int, seed: int) -> Look:
    """Return a keyed sample of the examples, each with a caption of its own."""
    order = torch.randperm(len(examples), generator=seeding.generator(seed, "candidates")).tolist()
    # Two examples of one caption could not be told apart by it.
    chosen: dict[str, Example] = {}
    for number in order:
        chosen.setdefault(str(examples[number].target), examples[number])
        if len(chosen) == count:
            break
    captions = list(chosen)
    return Look(list(chosen.values()), captions, list(range(len(captions))))


def small(pictures: Tensor) -> Tensor:
    """Return (N, D) few numbers of each picture (N, C, H, W)."""
    # Small, so that an outline a few pixels aside counts for less than another colour.
    found = F.interpolate(pictures, (_SIDE, _SIDE), mode="bilinear", antialias=True)
    return found.flatten(1).double()


def distances(pictures: Tensor, others: Tensor) -> NDArray[np.float64]:
    """Return the squared distance of each picture from each other, both made small."""
    found: NDArray[np.float64] = torch.cdist(small(pictures), small(others)).square().numpy()
    return found


def share_found(scores: NDArray[np.float64], wanted: Sequence[int]) -> float:
    """Return the share of rows whose wanted column has the highest score; of several highest ones
    each counts in part."""
    # A model that says the same of all captions finds none, and not always the first.
    best = scores == scores.max(1, keepdims=True)
    rows = np.arange(len(scores))
    return float((best[rows, list(wanted)] / best.sum(1)).mean())


def shared_words(one: str, other: str) -> float:
    """Return the share of words that two captions have in common, of those of either."""
    # As a person would count: a comma or a capital makes no other word.
    words, others = (set(each.lower().replace(",", " ").split()) for each in (one, other))
    return len(words & others) / max(len(words | others), 1)
