"""MinHash signatures of many documents at once: of two documents, the share of equal numbers
estimates the Jaccard index of their 5-word runs.

Source: Broder, "On the resemblance and containment of documents", 1997; Lee et al., "Deduplicating
    training data makes language models better", 2021, arXiv 2107.06499, appendix A (5-grams).

Legend: D documents, P = ``PERMUTATIONS``, W words of all documents, R runs of all documents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

__all__ = ["PERMUTATIONS", "band_hashes", "choose_bands", "run_hashes", "signatures_of", "words_of"]

# The standard error of an estimated Jaccard index is at most 0.5 / sqrt(n), 0.06 with 64.
PERMUTATIONS = 64
# words, as Lee et al. (2021) take them
_RUN = 5
# Runs that are permuted at once: 64 KiB, which stays in the nearest cache over all permutations.
_RUNS_AT_ONCE = 16_384
# A missed pair may leak into validation, a false candidate costs one comparison: weigh misses.
_FALSE_POSITIVE_WEIGHT = 0.02
_FALSE_NEGATIVE_WEIGHT = 0.98
# Scripts written without spaces: each ideograph or kana is a word of its own.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|[^\W\u3040-\u30ff\u3400-\u9fff]+"
)
# What the pattern above finds in ASCII, for ``bytes.split``, which is several times as quick.
_ASCII_WORDS = bytes(
    code if code < 128 and (chr(code).isalnum() or code == ord("_")) else ord(" ")
    for code in range(256)
)


def words_of(text: str) -> list[str]:
    """Return the words in lower case, without punctuation; each ideograph is a word."""
    return _WORD.findall(text.lower())


def run_hashes(words: list[str], length: int) -> NDArray[np.uint64]:
    """Return (max(1, words - length + 1),) a hash of every run of ``length`` words, equal on every
    machine."""
    # crc32 and not hash(), which differs from process to process
    hashes = np.fromiter(map(crc32, map(str.encode, words)), np.uint64, len(words))
    # a text shorter than a run is one run, so that short duplicates are found too
    return _hash_runs(hashes, min(length, len(words)) or 1)


def signatures_of(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Return (D, P) the signatures of texts.

    They are those of ``datasketch.MinHash(64, seed=1)`` of its version 2, fed with the low 32 bits
    of ``run_hashes(words_of(text), 5)``.
    """
    words: list[int] = []
    counts: list[int] = []
    for text in texts:
        before = len(words)
        words.extend(_word_hashes(text))
        counts.append(len(words) - before)
    hashes = np.array(words, np.uint64)
    lengths = np.array(counts, np.int64)
    signatures = np.empty((len(texts), PERMUTATIONS), np.uint32)
    # Of all documents in one array every run is hashed at once; those over the end of a document
    # are left out. Documents shorter than a run have runs of their own length: few lengths.
    for length in range(_RUN + 1):
        chosen = np.minimum(lengths, _RUN) == length
        if chosen.any():
            own = hashes[np.repeat(chosen, lengths)]
            signatures[chosen] = _signatures_of_runs(own, lengths[chosen], max(1, length))
    return signatures


def _word_hashes(text: str) -> map[int]:
    lower = text.lower()
    if lower.isascii():
        return map(crc32, lower.encode().translate(_ASCII_WORDS).split())
    return map(crc32, map(str.encode, _WORD.findall(lower)))


def _signatures_of_runs(
    hashes: NDArray[np.uint64], lengths: NDArray[np.int64], run: int
) -> NDArray[np.uint32]:
    """Return (D, P) the signatures of documents of ``lengths`` words, ``run`` words at least, or of
    none."""
    if not len(hashes):  # a document without words is one run of nothing
        return np.repeat(
            _permute_and_reduce(np.zeros(1, np.uint32), np.zeros(1, np.int64)), len(lengths), 0
        )
    ends = np.cumsum(lengths)
    runs = _hash_runs(hashes, run)
    inside = np.ones(len(hashes), np.bool_)
    for before in range(1, run):  # the last words of each document begin no run
        inside[ends - before] = False
    counts = lengths - run + 1
    own = runs[inside[: len(runs)]].astype(np.uint32)
    return _permute_and_reduce(own, np.cumsum(counts) - counts)


def _permute_and_reduce(runs: NDArray[np.uint32], starts: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return (D, P) the least value of each permutation, over the runs from each start to the
    next."""
    # the finishing steps of MurmurHash3, as datasketch takes them
    mixed = runs ^ (runs >> np.uint32(16))
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    found = np.full((PERMUTATIONS, len(starts)), 0xFFFFFFFF, np.uint32)
    factors, summands = _permutations()
    for begin in range(0, len(mixed), _RUNS_AT_ONCE):
        part = mixed[begin : begin + _RUNS_AT_ONCE]
        # the documents that have runs in this part: the first may have begun before it
        first = int(np.searchsorted(starts, begin, side="right")) - 1
        last = int(np.searchsorted(starts, begin + len(part)))
        places = np.maximum(starts[first:last] - begin, 0)
        for number in range(PERMUTATIONS):
            least = np.minimum.reduceat(part * factors[number] + summands[number], places)
            np.minimum(found[number, first:last], least, out=found[number, first:last])
    return np.ascontiguousarray(found.T)


@cache
def _permutations() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return (P,) odd factors and (P,) summands: ``x -> factor * x + summand`` modulo 2^32."""
    # the old generator, whose numbers NumPy promises never to change
    generator = np.random.RandomState(1)
    half = generator.randint(0, 1 << 31, PERMUTATIONS, dtype=np.uint32)
    summands = generator.randint(0, 1 << 32, PERMUTATIONS, dtype=np.uint32)
    return half * np.uint32(2) + np.uint32(1), summands


def _hash_runs(hashes: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """Return (max(1, W - length + 1),) a hash of every run of ``length`` words, by their hashes."""
    runs = np.zeros(max(1, len(hashes) - length + 1), np.uint64)
    for place in range(min(length, len(hashes))):
        runs = runs * np.uint64(0x9E3779B97F4A7C15) + hashes[place : place + len(runs)]
    # the finishing steps of splitmix64: without them, low bits depend on the words' low bits alone
    runs ^= runs >> np.uint64(29)
    runs *= np.uint64(0xBF58476D1CE4E5B9)
    return runs ^ (runs >> np.uint64(32))


# -------------------------------------------------------------------------------------------- bands
@cache
def choose_bands(threshold: float) -> tuple[int, int]:
    """Return how many bands a signature is cut into, and of how many numbers: documents that agree
    in a band are candidates.

    Args:
        threshold: The Jaccard index from which two documents are near-duplicates, 0 to 1.

    Source:
        Leskovec, Rajaraman, Ullman, "Mining of massive datasets", section 3.4: with b bands of r
        numbers, documents of index s are candidates with probability 1 - (1 - s^r)^b. The integrals
        of both errors are weighed, as ``datasketch.MinHashLSH`` does.
    """
    # the integrands are polynomials of a degree up to P, for which this many points are exact
    nodes, weights = np.polynomial.legendre.leggauss(PERMUTATIONS // 2 + 1)
    below = threshold * (nodes + 1) / 2
    above = threshold + (1 - threshold) * (nodes + 1) / 2
    least = float("inf")
    best = (1, 1)
    for bands in range(1, PERMUTATIONS + 1):
        for rows in range(1, PERMUTATIONS // bands + 1):
            false_positive = weights @ (1 - (1 - below**rows) ** bands) * threshold / 2
            false_negative = weights @ ((1 - above**rows) ** bands) * (1 - threshold) / 2
            error = _FALSE_POSITIVE_WEIGHT * float(false_positive)
            error += _FALSE_NEGATIVE_WEIGHT * float(false_negative)
            if error < least:
                least = error
                best = (bands, rows)
    return best


def band_hashes(signatures: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Return (D,) a hash of each row of (D, r) numbers: rows that differ have different ones, but
    for one pair in 2^64."""
    found = np.zeros(len(signatures), np.uint64)
    for column in signatures.T:
        found ^= column
        found *= np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(32)
        found *= np.uint64(0xBF58476D1CE4E5B9)
        found ^= found >> np.uint64(29)
    return found
