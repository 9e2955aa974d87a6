"""Near-duplicates by MinHash: two documents are near when the Jaccard index of their 5-word runs
reaches a threshold.

Source: Broder, "On the resemblance and containment of documents", 1997; Lee et al., "Deduplicating
    training data makes
language models better", 2021, arXiv 2107.06499, appendix A (5-grams, verified candidates).
Departs from the paper: candidates are verified by their signatures, not by edit distance.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

__all__ = ["NearDuplicates", "run_hashes", "words_of"]

# words, as Lee et al. (2021) take them
_RUN = 5
# The standard error of an estimated Jaccard index is at most 0.5 / sqrt(n), 0.06 with 64.
_PERMUTATIONS = 64
# a matrix of this times the permutations is in memory at once
_HASHES_AT_ONCE = 8192
# A missed pair may leak into validation, a false candidate costs one comparison: weigh misses.
_FALSE_POSITIVE_WEIGHT = 0.02
_FALSE_NEGATIVE_WEIGHT = 0.98
# Scripts written without spaces: each ideograph or kana is a word of its own.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|[^\W\u3040-\u30ff\u3400-\u9fff]+"
)


class NearDuplicates:
    """Finds near-duplicates among the documents it is shown; it keeps signatures, never texts.

    Args:
        threshold: The Jaccard index from which two documents are near-duplicates, 0 to 1.
    """

    def __init__(self, threshold: float) -> None:
        import datasketch  # it imports scipy, which takes a second that few commands need

        self._threshold = threshold
        self._signatures: list[NDArray[np.uint32]] = []
        self._seen: dict[bytes, int] = {}
        self._lsh: Any = datasketch.MinHashLSH(
            threshold, _PERMUTATIONS, weights=(_FALSE_POSITIVE_WEIGHT, _FALSE_NEGATIVE_WEIGHT)
        )
        self._empty: Any = datasketch.MinHash(_PERMUTATIONS, seed=1, hashfunc=int)

    def match(self, text: str, *, remember: bool = True) -> tuple[int, list[int]]:
        """Return this document's index, and the indices of the documents shown before that it is
        near to.

        Args:
            text: The document.
            remember: Keep its signature, so that later documents can be near to it; False: only if
                nothing is near.

        Returns:
            (index, matches): the index is that of the signature, -1 where none was kept. A document
            whose signature is that of an earlier one takes that one's index.
        """
        minhash = self._minhash(text)
        key = minhash.hashvalues.tobytes()
        # Equal texts are met far more often than near ones, and cost no search.
        if key in self._seen:
            return self._seen[key], [self._seen[key]]
        # The index proposes candidates by bands of the signature; whole signatures decide.
        near = [
            i
            for i in sorted(self._lsh.query(minhash))
            if self._agreement(i, minhash.hashvalues) >= self._threshold
        ]
        if near and not remember:
            return -1, near
        index = len(self._signatures)
        self._signatures.append(minhash.hashvalues)
        self._seen[key] = index
        self._lsh.insert(index, minhash, check_duplication=False)
        return index, near

    def _agreement(self, index: int, signature: NDArray[np.uint32]) -> float:
        return float(np.mean(self._signatures[index] == signature))

    def _minhash(self, text: str) -> Any:
        minhash = self._empty.copy()
        # 32 bits, as datasketch permutes them; unique, because a set is compared, not a sequence
        hashes = np.unique(run_hashes(words_of(text), _RUN)).astype(np.uint32)
        for start in range(0, len(hashes), _HASHES_AT_ONCE):
            minhash.update_batch(hashes[start : start + _HASHES_AT_ONCE].tolist())
        return minhash


def words_of(text: str) -> list[str]:
    """Return the words in lower case, without punctuation; each ideograph is a word."""
    return _WORD.findall(text.lower())


def run_hashes(words: list[str], length: int) -> NDArray[np.uint64]:
    """Return (max(1, words - length + 1),) a hash of every run of ``length`` words, equal on every
    machine."""
    hashes = np.fromiter(map(_word_hash, words), np.uint64, len(words))
    # a text shorter than a run is one run, so that short duplicates are found too
    length = min(length, len(words)) or 1
    runs = np.zeros(max(1, len(words) - length + 1), np.uint64)
    for place in range(min(length, len(words))):
        runs = runs * np.uint64(0x9E3779B97F4A7C15) + hashes[place : place + len(runs)]
    # the finishing steps of splitmix64: without them, low bits depend on the words' low bits alone
    runs ^= runs >> np.uint64(29)
    runs *= np.uint64(0xBF58476D1CE4E5B9)
    return runs ^ (runs >> np.uint64(32))


# crc32 and not hash(), which differs from process to process. Words repeat: most are in the cache.
@lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    return crc32(word.encode())
