"""A language model of n-grams of tokens, learned from texts by counting.

Legend: V tokens, N the order.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from groundup.core.errors import DataError

__all__ = ["NGramModel"]

# Around each text: not a token of any vocabulary.
_START = -1
_END = -2

Discounts = tuple[float, float, float]
_FALLBACK: Discounts = (0.5, 1.0, 1.5)


class NGramModel:
    """Probabilities of a token after up to N - 1 others: of each count a little is taken off, which
    the shorter contexts share out, by modified Kneser-Ney smoothing.

    A shorter context counts in how many different longer ones it is followed by a token, not how
    often: what is frequent in one place alone is unlikely in others. The lowest order is
    interpolated with the same probability for every token and the end, so that none is impossible.

    Args:
        order: N; 1: how often each token is, whatever comes before.
        vocabulary_size: V.
        counts: Of each context of N - 1 tokens, how often each token follows; shorter ones are left
            out.
        discounts: What is taken off counts of 1, of 2, and of 3 or more, for contexts of 0 to N - 1
            tokens; None: estimated from how many counts are 1, 2, 3 and 4.

    Source:
        Chen and Goodman, 1999, "An empirical study of smoothing techniques for language modeling",
        Computer Speech and Language 13, section 3 (equations 26 to 28); Kneser and Ney, 1995. Where
        too few counts are small to estimate discounts from, as in a few hundred digits, they are
        those that Heafield et al., 2013, fall back to.
    """

    def __init__(
        self,
        order: int,
        vocabulary_size: int,
        counts: Mapping[tuple[int, ...], Mapping[int, int]],
        discounts: Sequence[Discounts] | None = None,
    ) -> None:
        self.order = order
        self.vocabulary_size = vocabulary_size
        self.counts = {context: own for context, own in counts.items() if len(context) == order - 1}
        levels: list[Mapping[tuple[int, ...], Mapping[int, int]]] = [self.counts]
        for _ in range(order - 1):
            levels.append(_count_contexts(levels[-1]))
        levels.reverse()
        self.discounts = discounts or [_estimate(level) for level in levels]
        self._seen = {context: own for level in levels for context, own in level.items()}
        self._totals = {context: sum(own.values()) for context, own in self._seen.items()}
        self._shared = {
            context: sum(self._discount(len(context), count) for count in own.values())
            for context, own in self._seen.items()
        }
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
                counts[tuple(padded[place - order + 1 : place])][padded[place]] += 1
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
            following = self._seen.get(own)
            if following is None:
                break  # nor was any longer one seen
            count = following.get(token, 0)
            kept = count - self._discount(length, count)
            found = (kept + self._shared[own] * found) / self._totals[own]
        return found

    def _discount(self, length: int, count: int) -> float:
        return self.discounts[length][min(count, 3) - 1] if count else 0.0

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


def _count_contexts(
    counts: Mapping[tuple[int, ...], Mapping[int, int]],
) -> dict[tuple[int, ...], dict[int, int]]:
    """Return, of contexts that are one token shorter, in how many longer ones each token
    follows."""
    found: dict[tuple[int, ...], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for context, following in counts.items():
        for token in following:
            found[context[1:]][token] += 1
    return {context: dict(own) for context, own in found.items()}


def _estimate(counts: Mapping[tuple[int, ...], Mapping[int, int]]) -> Discounts:
    """Return what is taken off counts of 1, 2, and 3 or more: Chen and Goodman's equation 26."""
    many = Counter(count for own in counts.values() for count in own.values())
    one, two, three, four = (many[count] for count in (1, 2, 3, 4))
    if not (one and two and three and four):
        return _FALLBACK
    share = one / (one + 2 * two)
    found = (
        1 - 2 * share * two / one,
        2 - 3 * share * three / two,
        3 - 4 * share * four / three,
    )
    # Of few counts an estimate may be less than nothing, or more than the count.
    fits = all(0 <= discount <= count for count, discount in enumerate(found, 1))
    return found if fits else _FALLBACK
