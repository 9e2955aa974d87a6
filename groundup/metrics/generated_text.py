"""How near generated texts come to their references: BLEU, chrF, ROUGE, exact match, F1 of words.

BLEU and chrF are sacrebleu's, 0 to 100; all others are 0 to 1.
Legend: N examples, K statistics of an example, R resamples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import MissingExtraError
from groundup.metrics.answers import answer_scores
from groundup.metrics.bootstrap import bootstrap_weights
from groundup.metrics.rouge import ROUGE, rouge_scores

__all__ = [
    "BLEU_TOKENIZERS",
    "METRICS",
    "BleuTokenizer",
    "TextMetric",
    "TextScore",
    "doubt_bleu",
    "example_scores",
    "quick_scores",
    "require_metrics",
    "score_texts",
]

Floats = NDArray[np.float64]
TextMetric = Literal["bleu", "chrf", "rouge_1", "rouge_2", "rouge_l", "exact_match", "f1"]
# Those of sacrebleu that load nothing over the network and need no further library.
BleuTokenizer = Literal["13a", "zh", "intl", "char", "none"]
METRICS: tuple[TextMetric, ...] = get_args(TextMetric)
BLEU_TOKENIZERS: tuple[BleuTokenizer, ...] = get_args(BleuTokenizer)
_OF_SACREBLEU = ("bleu", "chrf")
_WITHOUT_BLANKS = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_MUCH = 0.3  # of the letters, the rest of which may be names


@dataclass(frozen=True)
class TextScore:
    """A measure over all examples.

    Attributes:
        value: The measure.
        low: Where its 95% interval begins: the 2.5th percentile of the measure over resamples of
            the examples.
        high: Where it ends.
        signature: How it was computed, as sacrebleu writes it.
    """

    value: float
    low: float
    high: float
    signature: str


class _Statistics(NamedTuple):
    """What a measure is made of: (N, K) of each example, and the measure of their sum (K,)."""

    rows: Floats
    score: Callable[[Floats], float]
    signature: str


def require_metrics(names: Sequence[str]) -> None:
    """Raise an error where a library is missing that one of the measures needs.

    Raises:
        MissingExtraError: Naming it.
    """
    if not set(_OF_SACREBLEU).isdisjoint(names):
        _sacrebleu()


def doubt_bleu(
    names: Sequence[str], references: Sequence[str], bleu_tokenizer: BleuTokenizer
) -> str:
    """Return what is wrong with a tokenizer that finds words between blanks for references in
    Chinese or Japanese; empty where nothing is."""
    if "bleu" not in names or bleu_tokenizer in ("zh", "char"):
        return ""
    letters = [letter for text in references for letter in text if letter.isalpha()]
    share = sum(bool(_WITHOUT_BLANKS.match(each)) for each in letters) / max(len(letters), 1)
    if share < _MUCH:
        return ""
    return (
        f"bleu: {share:.0%} of the references' letters are Chinese or Japanese, without blanks"
        f" between words, so that {bleu_tokenizer} takes sentences for words; set"
        " task.bleu_tokenizer: zh, or char"
    )


def score_texts(
    names: Sequence[str],
    outputs: Sequence[str],
    references: Sequence[str],
    *,
    bleu_tokenizer: str = "13a",
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, TextScore]:
    """Return each measure with its interval, by its name.

    Args:
        names: Of ``METRICS``.
        outputs: What was generated.
        references: What was to be generated, as many.
        bleu_tokenizer: How sacrebleu cuts texts into words for BLEU: one of ``BLEU_TOKENIZERS``.
        resamples: For the interval; 0: none, both its ends are the value.
        seed: Of the resamples, which are the same for all measures and all systems.

    Raises:
        MissingExtraError: If sacrebleu is needed and not installed.

    Source:
        Papineni et al., 2002 (BLEU); Popović, 2015 (chrF); Post, 2018, "A call for clarity in
        reporting BLEU scores" (signatures); Koehn, 2004, "Statistical significance tests for
        machine translation evaluation" (resampling of sentences).
    """
    found = {}
    for name in names:
        statistics = _statistics_of(name, outputs, references, bleu_tokenizer)
        value = _total(statistics)
        low = high = value
        # Sums of statistics are resampled: BLEU of a corpus is no mean of its sentences' BLEU.
        if resamples and len(outputs):
            values = [
                statistics.score(row)
                for weights in bootstrap_weights(len(outputs), seed, resamples)
                for row in weights @ statistics.rows
            ]
            low, high = map(float, np.percentile(values, (2.5, 97.5)))
        found[name] = TextScore(value, low, high, statistics.signature)
    return found


def quick_scores(
    names: Sequence[str],
    outputs: Sequence[str],
    references: Sequence[str],
    *,
    bleu_tokenizer: str = "13a",
) -> dict[str, float]:
    """Return each measure without an interval; see ``score_texts``."""
    return {
        name: _total(_statistics_of(name, outputs, references, bleu_tokenizer)) for name in names
    }


def example_scores(
    name: str, outputs: Sequence[str], references: Sequence[str], *, bleu_tokenizer: str = "13a"
) -> list[float]:
    """Return a measure of each example by itself, to rank them by; BLEU is that of sentences, of
    n-grams no longer than they are.

    Raises:
        MissingExtraError: If sacrebleu is needed and not installed.
    """
    pairs = zip(outputs, references, strict=True)
    if name not in _OF_SACREBLEU:
        rows = _statistics_of(name, outputs, references, bleu_tokenizer).rows
        return [float(value) for value in rows[:, 0]]
    metric = _sacrebleu().CHRF()
    # Without effective order, all sentences of less than four words would have a BLEU of 0.
    if name == "bleu":
        metric = _sacrebleu().BLEU(tokenize=bleu_tokenizer, effective_order=True)
    return [float(metric.sentence_score(given, [true]).score) for given, true in pairs]


def _total(statistics: _Statistics) -> float:
    return statistics.score(statistics.rows.sum(0)) if len(statistics.rows) else 0.0


def _statistics_of(
    name: str, outputs: Sequence[str], references: Sequence[str], bleu_tokenizer: str
) -> _Statistics:
    if not outputs:
        return _mean_of([], name)
    if name in _OF_SACREBLEU:
        return _by_sacrebleu(name, outputs, references, bleu_tokenizer)
    if name in ROUGE:
        words = "words in lower case, each Chinese or Japanese character|not stemmed"
        how = f"{name}|f1|{words}|mean|rouge-score:{version('rouge-score')}"
        return _mean_of(rouge_scores(name, outputs, references), how)
    pairs = zip(outputs, references, strict=True)
    scores = [answer_scores(given, [true]) for given, true in pairs]
    place = {"exact_match": 0, "f1": 1}[name]
    how = f"{name}|as SQuAD: lower case, no punctuation, no English articles|mean"
    return _mean_of([score[place] for score in scores], how)


def _mean_of(scores: Sequence[float], how: str) -> _Statistics:
    rows = np.column_stack((np.asarray(scores, np.float64), np.ones(len(scores))))
    return _Statistics(rows, lambda sums: float(sums[0] / sums[1]), how)


def _by_sacrebleu(
    name: str, outputs: Sequence[str], references: Sequence[str], bleu_tokenizer: str
) -> _Statistics:
    # `force` only silences a warning about texts that look tokenized.
    metric = _sacrebleu().CHRF()
    if name == "bleu":
        metric = _sacrebleu().BLEU(tokenize=bleu_tokenizer, force=True)
    # Not public, but what sacrebleu's own significance tests are made of: its public bootstrap
    # gives no interval in numbers, draws by an environment variable, and adds up in plain Python.
    counts = metric._extract_corpus_statistics(list(outputs), [list(references)])

    def score(sums: Floats) -> float:
        return float(metric._compute_score_from_stats(sums.astype(int).tolist()).score)

    return _Statistics(np.asarray(counts, np.float64), score, f"{name}|{metric.get_signature()}")


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError:
        raise MissingExtraError("sacrebleu", "translation") from None
    return metrics
