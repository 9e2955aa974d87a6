"""How much a text repeats itself.

Source: Rae et al., "Scaling language models: methods, analysis & insights from training Gopher",
2021, arXiv 2112.11446, table A1. Departs from the paper: one measure, the larger of repeated lines
and repeated 10-word runs.
"""

from __future__ import annotations

import numpy as np

from groundup.data.cleaning.minhash import run_hashes, words_of

__all__ = ["repetition"]

# words; long enough that prose seldom repeats one, and boilerplate always does
_REPEATED_RUN = 10


def repetition(text: str) -> float:
    """Return the share, 0 to 1, of a text that repeats an earlier part of it.

    The larger of: characters in lines that occurred before, over all characters in lines; words
    inside runs of 10 words that occurred before, over all words.
    """
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    seen: set[str] = set()
    repeated = 0
    for line in lines:
        if line in seen:
            repeated += len(line)
        seen.add(line)
    # the larger of two measures: lines find lists and menus, words text without line ends
    by_line = repeated / max(1, sum(map(len, lines)))
    return max(by_line, _repeated_words(words_of(text)))


def _repeated_words(words: list[str]) -> float:
    if len(words) <= _REPEATED_RUN:
        return 0.0
    runs = run_hashes(words, _REPEATED_RUN)
    # the first of equal runs is no repetition
    later = np.ones(len(runs), np.bool_)
    later[np.unique(runs, return_index=True)[1]] = False
    # A word is repeated when any run that covers it occurred before.
    edges = np.zeros(len(words) + 1, np.int64)
    starts = np.flatnonzero(later)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + _REPEATED_RUN, -1)
    return float(np.mean(np.cumsum(edges[:-1]) > 0))
