"""From the probabilities of tokens and blanks in each frame to texts: greedily, by prefix beam
search, and where in time each token of a text is.

Legend: O frames, V tokens, the blank is number V, L tokens of a text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FoundText",
    "ScoresTokens",
    "align_tokens",
    "frames_needed",
    "greedy_tokens",
    "prefix_beam_search",
]

_NEVER = -math.inf
# Tokens that are less likely than this in a frame, next to the likeliest one, begin no text: with a
# vocabulary of hundreds nearly all of the time would go into them.
_LEAST = math.log(1e-5)


class FoundText(NamedTuple):
    """A text as ``tokens``, and its ``score``: log p in nats, with what a language model adds."""

    tokens: list[int]
    score: float


class ScoresTokens(Protocol):
    """A language model of short contexts, such as n-grams."""

    @property
    def order(self) -> int:
        """The tokens of a context are one less."""

    def log_prob(self, context: tuple[int, ...], token: int) -> float:
        """Return log p in nats of a token after at most ``order - 1`` others."""

    def end_log_prob(self, context: tuple[int, ...]) -> float:
        """Return log p in nats that a text ends there."""

    @property
    def start(self) -> tuple[int, ...]:
        """The context at the beginning of a text."""


def frames_needed(tokens: Sequence[int]) -> int:
    """Return the least frames in which a text can be emitted: one a token, and a blank between two
    that are equal.

    Source:
        Graves et al., 2006, "Connectionist temporal classification", section 3.1.
    """
    repeats = sum(one == other for one, other in pairwise(tokens))
    return len(tokens) + repeats


def greedy_tokens(log_probs: NDArray[Any]) -> list[int]:
    """Return the likeliest symbol of each frame (O, V + 1), repeats taken once, without blanks."""
    best = log_probs.argmax(-1)
    blank = log_probs.shape[-1] - 1
    # Repeats first and blanks after: a blank between two equal tokens keeps both.
    new = np.ones(len(best), np.bool_)
    new[1:] = best[1:] != best[:-1]
    return [int(token) for token in best[new] if token != blank]


class _Prefix:
    """The beginning of a text: a node of the tree of all that were looked at."""

    __slots__ = ("children", "context", "language", "length", "parent", "token")

    def __init__(
        self, parent: _Prefix | None, token: int, context: tuple[int, ...], language: float
    ) -> None:
        self.parent = parent
        self.token = token
        self.children: dict[int, _Prefix] = {}
        self.context = context
        self.language = language
        self.length: int = 0 if parent is None else parent.length + 1

    def tokens(self) -> list[int]:
        found = []
        node = self
        while node.parent is not None:
            found.append(node.token)
            node = node.parent
        return found[::-1]


class _Search:
    """What the prefixes of one search are weighed by."""

    def __init__(self, scorer: ScoresTokens | None, weight: float, bonus: float) -> None:
        self.scorer = scorer
        self.weight = weight
        self.bonus = bonus

    def extend(self, node: _Prefix, token: int) -> _Prefix:
        """Return the prefix with one more token: the same one whenever it is asked for."""
        # One node for a text, however it was reached: its ways are then added up.
        child = node.children.get(token)
        if child is None:
            context = node.context
            language = node.language
            if self.scorer is not None:
                language += self.scorer.log_prob(context, token)
                kept = self.scorer.order - 1
                context = (*context, token)[-kept:] if kept else ()
            child = node.children[token] = _Prefix(node, token, context, language)
        return child

    def score(self, node: _Prefix, log_prob: float) -> float:
        return log_prob + self.weight * node.language + self.bonus * node.length


def prefix_beam_search(
    log_probs: NDArray[Any],
    beams: int,
    *,
    n_best: int = 1,
    scorer: ScoresTokens | None = None,
    weight: float = 0.0,
    bonus: float = 0.0,
    context: tuple[int, ...] | None = None,
    ends: bool = True,
    least: float = _LEAST,
) -> list[FoundText]:
    """Return the texts with the highest sum over all the ways to emit them, the best first.

    Args:
        log_probs: (O, V + 1) in nats.
        beams: How many beginnings of texts are kept from frame to frame.
        n_best: How many texts are returned, at most as many as beams.
        scorer: A language model of tokens.
        weight: Its log-probabilities are multiplied with this.
        bonus: Added for each token: a language model makes long texts unlikely.
        context: The tokens before the first frame; None: the text begins there.
        ends: Whether the text ends at the last frame, which the language model then scores.
        least: Tokens whose log-probability is this much below that of the likeliest symbol of a
            frame are not looked at in it.

    Source:
        Hannun et al., 2014, "First-pass large vocabulary continuous speech recognition using
        bi-directional recurrent DNNs" (arXiv:1408.2873), algorithm 1, with a language model of
        tokens in place of one of words.
    """
    search = _Search(scorer, weight, bonus)
    begin = context if context is not None else ()
    if context is None and scorer is not None:
        begin = scorer.start
    root = _Prefix(None, -1, begin, 0.0)
    # Of each prefix: log p of all ways that end in a blank, and of those that do not.
    kept: dict[_Prefix, tuple[float, float]] = {root: (0.0, _NEVER)}
    blank = log_probs.shape[-1] - 1
    # float64: sums of thousands of frames are compared.
    for row in np.asarray(log_probs, np.float64):
        near = np.flatnonzero(row[:blank] > row.max() + least).tolist()
        found = _step(search, kept, row.tolist(), near, blank)
        # Stable: of equal scores the prefix that was found first.
        ranked = sorted(
            found.items(), key=lambda item: search.score(item[0], _add(*item[1])), reverse=True
        )
        kept = dict(ranked[:beams])
    texts = []
    for node, (with_blank, without) in kept.items():
        score = search.score(node, _add(with_blank, without))
        if ends and scorer is not None:
            score += weight * scorer.end_log_prob(node.context)
        texts.append(FoundText(node.tokens(), score))
    return sorted(texts, key=lambda text: text.score, reverse=True)[:n_best]


def _step(
    search: _Search,
    kept: dict[_Prefix, tuple[float, float]],
    row: list[float],
    near: list[int],
    blank: int,
) -> dict[_Prefix, tuple[float, float]]:
    """Return the prefixes after one more frame, whose log-probabilities are ``row``."""
    found: dict[_Prefix, tuple[float, float]] = {}
    for node, (with_blank, without) in kept.items():
        total = _add(with_blank, without)
        before = found.get(node, (_NEVER, _NEVER))
        # The same text: another blank, or the last token going on.
        goes_on = without + row[node.token] if node.parent is not None else _NEVER
        found[node] = (_add(before[0], total + row[blank]), _add(before[1], goes_on))
        for token in near:
            child = search.extend(node, token)
            # A token after itself is a new one only behind a blank.
            ways = with_blank if token == node.token else total
            # It would only push out prefixes that are possible.
            if ways == _NEVER:
                continue
            own = found.get(child, (_NEVER, _NEVER))
            found[child] = (own[0], _add(own[1], ways + row[token]))
    return found


def _add(one: float, other: float) -> float:
    """Return log(exp(one) + exp(other))."""
    # In plain numbers: NumPy's logaddexp takes ten times as long for two of them.
    high = max(one, other)
    if high == _NEVER:
        return _NEVER
    return high + math.log1p(math.exp(min(one, other) - high))


def align_tokens(log_probs: NDArray[Any], tokens: Sequence[int]) -> list[tuple[int, int]]:
    """Return the first and the last frame of each token, in the likeliest way to emit them all.

    Args:
        log_probs: (O, V + 1) in nats.
        tokens: (L,) of them, which ``frames_needed`` says to fit into O frames.

    Source:
        Graves et al., 2006, section 4.1: the states of a text with blanks around each token; here
        the likeliest path through them (Viterbi, 1967).
    """
    if not tokens:
        return []
    blank = log_probs.shape[-1] - 1
    states = np.full(2 * len(tokens) + 1, blank)
    states[1::2] = tokens
    emitted = np.asarray(log_probs, np.float64)[:, states]
    # From a token to the next one without a blank, unless they are equal.
    skips = np.zeros(len(states), np.bool_)
    skips[3::2] = states[3::2] != states[1:-2:2]
    # A path begins in the first blank or the first token.
    best = np.full(len(states), _NEVER)
    best[:2] = emitted[0, :2]
    moves = np.zeros(emitted.shape, np.int8)
    for frame in range(1, len(emitted)):
        ways = np.full((3, len(states)), _NEVER)
        ways[0] = best
        ways[1, 1:] = best[:-1]
        ways[2, 2:] = np.where(skips[2:], best[:-2], _NEVER)
        moves[frame] = ways.argmax(0)
        best = ways.max(0) + emitted[frame]
    # A path ends in the last token, or in the blank behind it.
    state = len(states) - 1
    if best[-2] > best[-1]:
        state -= 1
    # Back along the moves: how many states each was above the one before.
    path = np.empty(len(emitted), np.int64)
    for frame in range(len(emitted) - 1, -1, -1):
        path[frame] = state
        state -= int(moves[frame, state])
    spans = []
    for number in range(len(tokens)):
        own = np.flatnonzero(path == 2 * number + 1)
        spans.append((int(own[0]), int(own[-1])))
    return spans
