"""Near-duplicates as they are found in memory, one document after the other, by a library: what
the search on disk is compared with."""

from __future__ import annotations

from typing import Any

import datasketch
import numpy as np
from numpy.typing import NDArray

from groundup.data.cleaning.minhash import run_hashes, words_of

__all__ = ["OneByOne"]


class OneByOne:
    """Finds near-duplicates among the documents it is shown."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._signatures: list[NDArray[np.uint32]] = []
        self._seen: dict[bytes, int] = {}
        self._index: Any = datasketch.MinHashLSH(threshold, 64, weights=(0.02, 0.98))

    def match(self, text: str, *, remember: bool = True) -> tuple[int, list[int]]:
        """The number of the document's signature, and those of earlier ones that it is near to."""
        minhash = self.minhash(text)
        key = minhash.hashvalues.tobytes()
        if key in self._seen:
            return self._seen[key], [self._seen[key]]
        near = [
            number
            for number in sorted(self._index.query(minhash))
            if float(np.mean(self._signatures[number] == minhash.hashvalues)) >= self._threshold
        ]
        if near and not remember:
            return -1, near
        number = len(self._signatures)
        self._signatures.append(minhash.hashvalues)
        self._seen[key] = number
        self._index.insert(number, minhash, check_duplication=False)
        return number, near

    def minhash(self, text: str) -> Any:
        """The library's signature of a text."""
        minhash = datasketch.MinHash(64, seed=1, hashfunc=int)
        hashes = np.unique(run_hashes(words_of(text), 5)).astype(np.uint32)
        minhash.update_batch(hashes.tolist())
        return minhash
