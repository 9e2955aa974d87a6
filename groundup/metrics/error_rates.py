"""How far transcripts are from their references: the share of words, or of characters, that are
wrong, by jiwer.

Legend: N transcripts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import MissingExtraError
from groundup.formats.transformers_library import require_transformers
from groundup.metrics.bootstrap import bootstrap_weights
from groundup.metrics.generated_text import TextScore

__all__ = [
    "ERROR_RATES",
    "NORMALISERS",
    "ErrorRate",
    "Errors",
    "Normaliser",
    "count_errors",
    "error_rates",
    "normalise_text",
    "require_error_rates",
    "score_transcripts",
]

ErrorRate = Literal["wer", "cer"]
ERROR_RATES: tuple[ErrorRate, ...] = get_args(ErrorRate)
Normaliser = Literal["none", "basic", "english"]
NORMALISERS: tuple[Normaliser, ...] = get_args(Normaliser)
_KINDS = ("substitute", "insert", "delete")


class Errors(NamedTuple):
    """What is wrong with N transcripts.

    Attributes:
        counts: (N, 4) substitutions, insertions, deletions, and units of the reference.
        pairs: How often each unit of the references was written as each other one; an empty text
            stands for none, on either side.
    """

    counts: NDArray[np.int64]
    pairs: Counter[tuple[str, str]]


def require_error_rates(names: Sequence[str], normaliser: str) -> None:
    """Raise an error where a library is missing.

    Raises:
        MissingExtraError: Naming it.
    """
    if names:
        _jiwer()
        if normaliser == "english":
            _english()


def normalise_text(text: str, normaliser: str) -> str:
    """Return a text as it is compared.

    Args:
        text: A transcript or a reference.
        normaliser: ``none``: only repeated blanks, and those at the ends, are taken out. ``basic``:
            in lower case, without punctuation and what is in brackets. ``english``: also numbers
            in digits and contractions spelled out, without a table of British spellings, and
            without ellipses.

    Source:
        Radford et al., Whisper, 2022 (arXiv:2212.04356), appendix C: ``basic`` is its normaliser
        for all languages but English.
    """
    if normaliser == "english":
        # Of three points it leaves one, which would count as a word.
        text = _english()(text.replace("...", " "))
    elif normaliser == "basic":
        text = text.lower()
        # Notes of who transcribed, such as [laughs]: nobody said them.
        text = re.sub(r"[<\[][^>\]]*[>\]]", "", text)
        text = re.sub(r"\(([^)]+?)\)", "", text)
        # Marks, symbols and punctuation: a word is what is left between them.
        plain = unicodedata.normalize("NFKC", text)
        text = "".join(" " if unicodedata.category(c)[0] in "MSP" else c for c in plain).lower()
    # Blanks of any width and number are one: jiwer would count the others as characters.
    return " ".join(text.split())


def count_errors(
    name: str, outputs: Sequence[str], references: Sequence[str], normaliser: str = "none"
) -> Errors:
    """Return what is wrong with each transcript: of words with ``wer``, of characters, blanks among
    them, with ``cer``.

    Raises:
        MissingExtraError: If jiwer is not installed.

    Source:
        Levenshtein, 1966, "Binary codes capable of correcting deletions, insertions and reversals":
        the fewest changes; computed by jiwer.
    """
    given = [normalise_text(text, normaliser) for text in outputs]
    true = [normalise_text(text, normaliser) for text in references]
    counts = np.zeros((len(given), 4), np.int64)
    pairs: Counter[tuple[str, str]] = Counter()
    if not given:
        return Errors(counts, pairs)
    # All at once, and counted a transcript at a time below: rates of a corpus are no means of its
    # transcripts' rates, and intervals need to know which transcript each error is of.
    library = _jiwer()
    process = library.process_words if name == "wer" else library.process_characters
    found = process(true, given)
    for row, (own, units, written) in enumerate(
        zip(found.alignments, found.references, found.hypotheses, strict=True)
    ):
        counts[row, 3] = len(units)
        for chunk in own:
            expected = units[chunk.ref_start_idx : chunk.ref_end_idx]
            got = written[chunk.hyp_start_idx : chunk.hyp_end_idx]
            # The units that are right are in the count of the reference's.
            if chunk.type == "equal":
                continue
            counts[row, _KINDS.index(chunk.type)] += max(len(expected), len(got))
            # One side of an insertion or a deletion is empty.
            for place in range(max(len(expected), len(got))):
                pair = (_at(expected, place), _at(got, place))
                pairs[pair] += 1
    return Errors(counts, pairs)


def _at(units: Sequence[str], place: int) -> str:
    return units[place] if place < len(units) else ""


def error_rates(
    names: Sequence[str],
    outputs: Sequence[str],
    references: Sequence[str],
    normaliser: str = "none",
) -> dict[str, float]:
    """Return each rate over all transcripts: errors by units of the references, 0 at best. It may
    be above 1."""
    return {
        name: _rate(count_errors(name, outputs, references, normaliser).counts.sum(0))
        for name in names
    }


def score_transcripts(
    names: Sequence[str],
    outputs: Sequence[str],
    references: Sequence[str],
    *,
    normaliser: str = "none",
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, TextScore]:
    """Return each rate with its 95% interval over resamples of the transcripts, by its name.

    Args:
        names: Of ``ERROR_RATES``.
        outputs: What was written.
        references: What was said, as many.
        normaliser: As of ``normalise_text``, applied to both.
        resamples: For the interval; 0: none, both its ends are the value.
        seed: Of the resamples, the same for both rates and all systems.

    Source:
        Bisani and Ney, 2004, "Bootstrap estimates for confidence intervals in ASR performance
        evaluation": resamples of utterances, not of words.
    """
    scores = {}
    # Errors and units are resampled together: the rate is the quotient of two sums.
    for name in names:
        counts = count_errors(name, outputs, references, normaliser).counts
        value = low = high = _rate(counts.sum(0))
        if resamples and len(counts):
            values = [
                _rate(row)
                for weights in bootstrap_weights(len(counts), seed, resamples)
                for row in weights @ counts
            ]
            low, high = map(float, np.percentile(values, (2.5, 97.5)))
        signature = f"{name}|jiwer:{version('jiwer')}|normaliser:{_named(normaliser)}"
        scores[name] = TextScore(value, low, high, signature)
    return scores


def _rate(sums: NDArray[np.int64]) -> float:
    # Where nothing was said, each word that is written counts as one.
    return float(sums[:3].sum() / max(int(sums[3]), 1))


def _named(normaliser: str) -> str:
    if normaliser == "english":
        return f"whisper english (transformers {version('transformers')}), no table of spellings"
    if normaliser == "basic":
        return "whisper basic"
    return "none"


def _english() -> Callable[[str], str]:
    module = require_transformers("models.whisper.english_normalizer")
    found: Callable[[str], str] = module.EnglishTextNormalizer({})
    return found


def _jiwer() -> Any:
    try:
        import jiwer
    except ImportError:
        raise MissingExtraError("jiwer", "speech") from None
    return jiwer
