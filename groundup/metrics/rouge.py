"""ROUGE by the ``rouge-score`` package, with a tokenizer that knows words and Chinese characters.

Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries", sections 2 and 3.
    Departs from the package: the words are those of ``rouge_tokens``, not stemmed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["ROUGE", "rouge_l", "rouge_scores", "rouge_tokens"]

ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
"""The names of the measures here, and in the package."""
# Words of these scripts have no blanks between them, and the package knows Latin letters alone.
_CJK = (  # kana and ideographs: each is a token of its own
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")


def rouge_tokens(text: str) -> list[str]:
    """Return the words of a text in lower case; each Chinese or Japanese character is a word."""
    return _TOKEN.findall(text.lower())


def rouge_scores(name: str, answers: Sequence[str], references: Sequence[str]) -> list[float]:
    """Return the F1 of each answer, 0 to 1.

    Args:
        name: ``rouge_1`` or ``rouge_2``: of the words or pairs of words in common; ``rouge_l``: of
            their longest common subsequence.
        answers: What was produced.
        references: What was to be produced, as many.
    """
    from rouge_score.rouge_scorer import RougeScorer  # here, because its import takes a second

    kind = ROUGE[name]
    scorer = RougeScorer([kind], tokenizer=_Tokenizer())
    pairs = zip(answers, references, strict=True)
    return [float(scorer.score(true, given)[kind].fmeasure) for given, true in pairs]


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> float:
    """Return the mean F1 of the longest common subsequence of words, 0 to 1; 0 where there is
    nothing to compare."""
    scores = rouge_scores("rouge_l", answers, references)
    return sum(scores) / len(scores) if scores else 0.0


class _Tokenizer:
    def tokenize(self, text: str) -> list[str]:
        return rouge_tokens(text)
