"""A language model of n-grams of tokens, learned from texts by counting.

Legend: V tokens, N the order.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from groundup.core.errors import DataError

__all__ = ["NGramModel"]

# Around each text: not a token of any vocabulary.
_START = -1
_END = -2


class NGramModel:
    """Probabilities of a token after up to N - 1 others, each order interpolated with the one
    below.

    The lowest order is uniform over all tokens and the end, so that none is impossible.

    Args:
        order: N; 1: how often each token is, whatever comes before.
        vocabulary_size: V.
        counts: Of each context, how often each token follows.

    Source:
        Witten and Bell, 1991, "The zero-frequency problem", method C, in the interpolated form of
        Chen and Goodman, 1998, "An empirical study of smoothing techniques for language modeling",
        section 2.6. Not Kneser and Ney's, whose discounts are estimated from n-grams that are seen
        once and twice: of a few hundred short transcripts, such as digits, there may be none.
    """

    def __init__(
        self,
        order: int,
        vocabulary_size: int,
        counts: Mapping[tuple[int, ...], Mapping[int, int]],
    ) -> None:
        self.order = order
        self.vocabulary_size = vocabulary_size
        self.counts = counts
        self._totals = {context: sum(own.values()) for context, own in counts.items()}
        # A search asks for the same few thousand again and again.
        self._cached = lru_cache(maxsize=1 << 18)(self._probability)

    @classmethod
    def fit(cls, texts: Iterable[Sequence[int]], order: int, vocabulary_size: int) -> NGramModel:
        """Return the model that counts of texts, as tokens, make.

        Raises:
            DataError: If there are no texts.
        """
        counts: dict[tuple[int, ...], dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for text in texts:
            padded = [*[_START] * (order - 1), *map(int, text), _END]
            for place in range(order - 1, len(padded)):
                # Of every shorter context too, which the longer ones are mixed with.
                for length in range(order):
                    context = tuple(padded[place - length : place])
                    counts[context][padded[place]] += 1
        if not counts:
            raise DataError("data", "there are no training transcripts", "Check the data section")
        return cls(order, vocabulary_size, {c: dict(own) for c, own in counts.items()})

    @property
    def start(self) -> tuple[int, ...]:
        """The context at the beginning of a text."""
        return (_START,) * (self.order - 1)

    def log_prob(self, context: tuple[int, ...], token: int) -> float:
        """Return log p in nats of a token after a context, of which the last N - 1 count."""
        return math.log(self._cached(self._last(context), token))

    def end_log_prob(self, context: tuple[int, ...]) -> float:
        """Return log p in nats that a text ends after a context."""
        return math.log(self._cached(self._last(context), _END))

    def text_log_prob(self, tokens: Sequence[int]) -> float:
        """Return log p in nats of a whole text, its end included."""
        context = self.start
        total = 0.0
        for token in tokens:
            total += self.log_prob(context, token)
            context = self._last((*context, token))
        return total + self.end_log_prob(context)

    def _last(self, context: tuple[int, ...]) -> tuple[int, ...]:
        return context[len(context) - self.order + 1 :] if self.order > 1 else ()

    def _probability(self, context: tuple[int, ...], token: int) -> float:
        # The end is one more than the tokens.
        found = 1.0 / (self.vocabulary_size + 1)
        # From the shortest context to the longest: each is mixed into the one before.
        for length in range(len(context) + 1):
            own = context[len(context) - length :]
            following = self.counts.get(own)
            if following is None:
                break  # nor was any longer one seen
            kinds = len(following)
            total = self._totals[own]
            found = (following.get(token, 0) + kinds * found) / (total + kinds)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` reads: counts as lists of numbers, a context a row."""
        # Pairs in one list: an object's keys would be texts.
        rows = []
        for context, following in self.counts.items():
            pairs = [number for pair in sorted(following.items()) for number in pair]
            rows.append([list(context), pairs])
        return {"order": self.order, "vocabulary_size": self.vocabulary_size, "counts": rows}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> NGramModel:
        """Return the model that ``to_json`` described."""
        counts = {}
        for context, pairs in saved["counts"]:
            following = dict(zip(pairs[::2], pairs[1::2], strict=True))
            counts[tuple(context)] = following
        return cls(int(saved["order"]), int(saved["vocabulary_size"]), counts)
