"""How near an answer is to one of those that people gave: exactly, and by the words that both have.

Source: Rajpurkar et al., 2016, SQuAD (arXiv:1606.05250), section 6.1, with the authors' way of
    writing answers alike.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

__all__ = ["answer_scores", "normalised_answer"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised_answer(text: str) -> str:
    """Return an answer in small letters, without punctuation, English articles, and more than one
    blank in a row."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def answer_scores(answer: str, right: Sequence[str]) -> tuple[float, float]:
    """Return whether an answer is one of the right ones, and the best F1 of its words; no right
    ones: none is right."""
    own = normalised_answer(answer)
    # As the authors' script: of a question without an answer, the empty answer alone is right.
    others = [normalised_answer(each) for each in right] or [""]
    return float(own in others), max(_f1(own.split(), other.split()) for other in others)


def _f1(own: list[str], other: list[str]) -> float:
    if not own or not other:  # an answer of articles and punctuation alone
        return float(own == other)
    # As bags of words: a word that is said twice counts twice, and order does not matter.
    common = (Counter(own) & Counter(other)).total()
    return 2 * common / (len(own) + len(other))
