"""What a text can be answered with without any model: itself, one of its sentences, or what a
similar training text was answered with.

Legend: N texts, M training texts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

from groundup.metrics.rouge import rouge_tokens

__all__ = ["BASELINES", "TextBaseline", "baseline_outputs", "nearest_texts", "sentences_of"]

TextBaseline = Literal["copy", "nearest", "lead", "longest"]
BASELINES: tuple[TextBaseline, ...] = get_args(TextBaseline)
# A Latin full stop ends a sentence before a blank; those of Chinese and Japanese do anywhere. An
# empty line ends one without a stop, such as a title.
_SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)]*\s+|(?<=[。！？])|\n\s*\n")


def baseline_outputs(
    name: str, sources: Sequence[str], train_sources: Sequence[str], train_targets: Sequence[str]
) -> list[str]:
    """Return what a baseline gives for each source.

    Args:
        name: ``copy``: the source itself; ``nearest``: the target of the training source that is
            most like it; ``lead``: its first sentence; ``longest``: its longest.
        sources: (N,) what is to be answered.
        train_sources: (M,) the sources of the training split.
        train_targets: (M,) their targets.
    """
    if name == "copy":
        return list(sources)
    if name == "nearest":
        return [train_targets[place] for place in nearest_texts(sources, train_sources)]
    # A source without words has no sentence; it is what it is.
    found = [sentences_of(source) or [source] for source in sources]
    if name == "lead":
        return [sentences[0] for sentences in found]
    return [max(sentences, key=len) for sentences in found]


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a text, each on one line; an abbreviation's full stop ends one
    too."""
    pieces = (" ".join(piece.split()) for piece in _SENTENCE.split(text))
    return [piece for piece in pieces if piece]


def nearest_texts(texts: Sequence[str], among: Sequence[str]) -> list[int]:
    """Return of each text the place of the most similar other one: the cosine of TF-IDF over words
    and pairs of words, where a Chinese or Japanese character is a word.

    Of equally similar ones the first is taken; where nothing is in common, the first of all.
    """
    numbers: dict[str, int] = {}
    found: list[
        tuple[int, int, int]
    ] = []  # of a feature in a text: its number, the text, how often
    for place, text in enumerate(among):
        for feature, count in _features(text).items():
            found.append((numbers.setdefault(feature, len(numbers)), place, count))
    # By feature, so that a text is compared with those alone that have something in common with it.
    table = np.array(found, np.int64).reshape(-1, 3)
    which, places, counts = table[np.argsort(table[:, 0], kind="stable")].T
    texts_with = np.bincount(which, minlength=len(numbers))
    # Smoothed as scikit-learn does it: a word of all texts still counts a little.
    rarity = np.log((1 + len(among)) / (1 + texts_with)) + 1
    weights = (1 + np.log(counts)) * rarity[which]
    lengths = np.sqrt(np.bincount(places, weights**2, len(among)))
    weights /= lengths[places]
    ends = texts_with.cumsum()
    nearest = []
    for text in texts:
        scores = np.zeros(len(among))
        for feature, count in _features(text).items():
            if (number := numbers.get(feature)) is not None:
                own = slice(ends[number] - texts_with[number], ends[number])
                scores[places[own]] += (1 + math.log(count)) * rarity[number] * weights[own]
        nearest.append(int(scores.argmax()))
    return nearest


def _features(text: str) -> Counter[str]:
    words = rouge_tokens(text)
    return Counter([*words, *map(" ".join, pairwise(words))])
