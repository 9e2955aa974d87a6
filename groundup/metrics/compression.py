"""Bits per byte of a text under simple models and a file compressor: what a language model has to
beat.

Every figure is bits for the text *and the end of each document*, over the UTF-8 bytes of the text
alone. For these baselines the end of a document is one zero byte, as it is one end token for a
language model.
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ByteNGram",
    "bits_per_byte",
    "fit_ngram",
    "join_documents",
    "ngram_bits_per_byte",
    "perplexity",
    "unigram_bits_per_byte",
    "xz_bits_per_byte",
]

_LONGEST_ORDER = 7  # an n-gram is coded in one 64-bit integer, and one of the lengths above it too


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """Return ``nats / ln 2 / text_bytes``: a total negative log-likelihood as bits for each byte of
    text."""
    return nats / math.log(2) / max(text_bytes, 1)


def perplexity(nats_per_token: float) -> float:
    """Return ``exp(nats_per_token)``, infinity where that overflows."""
    return math.exp(nats_per_token) if nats_per_token < 700 else math.inf


def join_documents(documents: Sequence[str]) -> bytes:
    """Return the documents as UTF-8, each ended by a zero byte."""
    return b"".join(text.encode() + b"\0" for text in documents)


def unigram_bits_per_byte(train: Sequence[str], held_out: Sequence[str]) -> float:
    """Return the bits per byte of coding each byte by its frequency in ``train``, every count
    raised by one."""
    counts = np.bincount(_values(join_documents(train)), minlength=256) + 1
    bits = -np.log2(counts / counts.sum())
    return float(bits[_values(join_documents(held_out))].sum()) / _text_bytes(held_out)


def ngram_bits_per_byte(train: Sequence[str], held_out: Sequence[str], order: int = 5) -> float:
    """Return the bits per byte under a byte n-gram model of ``train``, which does not learn from
    ``held_out``.

    Args:
        train: The documents to count n-grams in.
        held_out: The documents to code.
        order: The bytes of an n-gram, the predicted one included; 1 to 7.
    """
    model = fit_ngram(join_documents(train), order)
    return float(-np.log2(model.probabilities(join_documents(held_out))).sum()) / _text_bytes(
        held_out
    )


def xz_bits_per_byte(held_out: Sequence[str], given: Sequence[str] | None = None) -> float:
    """Return the bits per byte of ``xz -9``.

    Args:
        held_out: The documents to compress.
        given: Documents the compressor has seen: the figure is then how much larger the file
            becomes when ``held_out`` is appended to them.
    """
    text = join_documents(held_out)
    if given is None:
        return 8 * _xz_size(text) / _text_bytes(held_out)
    before = join_documents(given)
    with ThreadPoolExecutor(2) as pool:  # lzma lets other threads run
        with_text, without = pool.map(_xz_size, (before + text, before))
    return 8 * (with_text - without) / _text_bytes(held_out)


@dataclass(frozen=True)
class _Level:
    """Counts of one order. Codes hold the bytes of an n-gram with the last in the lowest 8 bits,
    and are sorted."""

    codes: NDArray[np.uint64]  # (G,) the n-grams
    kept: NDArray[np.float64]  # (G,) their discounted counts
    contexts: NDArray[np.uint64]  # (C,) the n-grams without their last byte
    totals: NDArray[np.float64]  # (C,) the counts of all that follows
    spared: NDArray[np.float64]  # (C,) what discounting took away, as a share of the total


@dataclass(frozen=True)
class ByteNGram:
    """A byte n-gram model; ``levels[0]`` counts single bytes."""

    levels: tuple[_Level, ...]

    def probabilities(self, text: bytes) -> NDArray[np.float64]:
        """Return (len(text),) the probability of each byte given those before it, as if a document
        began with it."""
        order = len(self.levels)
        codes = _grams(text, order)
        # From the uniform distribution up: each order takes what the one below leaves it.
        result = np.full(len(codes), 1 / 256)
        for length, level in enumerate(self.levels, start=1):
            grams = codes & _mask(length)
            kept = _look_up(level.codes, level.kept, grams, 0.0)
            totals = _look_up(level.contexts, level.totals, grams >> np.uint64(8), 1.0)
            spared = _look_up(level.contexts, level.spared, grams >> np.uint64(8), 1.0)
            result = kept / totals + spared * result
        return result


def fit_ngram(text: bytes, order: int = 5) -> ByteNGram:
    """Return an interpolated byte n-gram model with modified Kneser-Ney smoothing.

    The longest n-grams are counted as they occur, shorter ones by how many different bytes stand
    before them. Single bytes are interpolated with the uniform distribution, so that every byte has
    a probability above 0.

    Source:
        Chen, Goodman 1998, "An empirical study of smoothing techniques for language modeling",
        TR-10-98, section 3.
    """
    assert 1 <= order <= _LONGEST_ORDER
    codes, counts = np.unique(_grams(text, order), return_counts=True)
    levels = [_level(codes, counts)]
    # np.unique of the codes cut short counts the different bytes before them, not occurrences:
    # that is Kneser-Ney's idea. "Francisco" is frequent, but only ever after "San".
    for length in range(order - 1, 0, -1):
        codes, counts = np.unique(codes & _mask(length), return_counts=True)
        levels.append(_level(codes, counts))
    return ByteNGram(tuple(reversed(levels)))


def _level(codes: NDArray[np.uint64], counts: NDArray[np.int64]) -> _Level:
    discounts = _discounts(counts)[np.minimum(counts, 3)]
    contexts, first = np.unique(codes >> np.uint64(8), return_index=True)
    totals = np.add.reduceat(counts, first).astype(np.float64)
    return _Level(
        codes, counts - discounts, contexts, totals, np.add.reduceat(discounts, first) / totals
    )


def _discounts(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (4,) what is taken from a count of 0, 1, 2, and 3 or more (equation 26 of the
    source)."""
    seen = [float((counts == n).sum()) for n in (1, 2, 3, 4)]  # n-grams that occur n times
    once, twice, *_ = seen
    share = once / (once + 2 * twice) if once else 0.5
    found = [0.0]
    for n in (1, 2, 3):
        # Short texts lack n-grams that occur just n times; a quarter is about what long ones have.
        ratio = seen[n] / seen[n - 1] if seen[n - 1] else 0.25
        # Never all nor nothing of a count: either would give some byte the probability 0.
        found.append(min(max(n - (n + 1) * share * ratio, 0.05), n - 0.05))
    return np.array(found)


def _grams(text: bytes, order: int) -> NDArray[np.uint64]:
    """Return (len(text),) the n-gram that ends at each byte, as if zero bytes came before."""
    values = _values(b"\0" * (order - 1) + text).astype(np.uint64)
    codes = np.zeros(len(text), dtype=np.uint64)
    for offset in range(order):
        codes = (codes << np.uint64(8)) | values[offset : offset + len(text)]
    return codes


def _mask(length: int) -> np.uint64:
    return np.uint64((1 << (8 * length)) - 1)


def _look_up(
    keys: NDArray[np.uint64], values: NDArray[np.float64], wanted: NDArray[np.uint64], absent: float
) -> NDArray[np.float64]:
    # A key beyond the last is looked up at the last, where it is found to differ.
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], absent)


def _values(text: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(text, dtype=np.uint8)


def _text_bytes(documents: Sequence[str]) -> int:
    return max(sum(len(text.encode()) for text in documents), 1)


def _xz_size(text: bytes) -> int:
    return len(lzma.compress(text, preset=9))
