"""Texts from the probabilities of frames: all ways to emit them, tried one by one on small
cases."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from groundup.generation.ctc import (
    align_tokens,
    frames_needed,
    greedy_tokens,
    prefix_beam_search,
)
from groundup.generation.ngrams import NGramModel

ALL = 10_000  # more beams than there are prefixes: the search is then exact
NGRAMS = NGramModel.fit([[0, 1, 0], [1, 1], [0, 2, 2, 1]], 3, 3)
Path = tuple[int, ...]


def frames(seed: int, count: int = 5, tokens: int = 3) -> NDArray[Any]:
    """Return log-probabilities (count, tokens + 1) of random frames."""
    return np.log(np.random.default_rng(seed).dirichlet(np.ones(tokens + 1), count))


def paths(log_probs: NDArray[Any]) -> dict[Path, list[tuple[float, Path]]]:
    """Return each text with all the ways to emit it, and their log-probabilities."""
    count, symbols = log_probs.shape
    found: dict[Path, list[tuple[float, Path]]] = {}
    for path in itertools.product(range(symbols), repeat=count):
        text = tuple(s for s, _ in itertools.groupby(path) if s != symbols - 1)
        total = float(sum(log_probs[n, s] for n, s in enumerate(path)))
        found.setdefault(text, []).append((total, path))
    return found


def sums(log_probs: NDArray[Any]) -> dict[Path, float]:
    """Return log p of each text."""
    ways = paths(log_probs)
    return {t: float(np.logaddexp.reduce([p for p, _ in own])) for t, own in ways.items()}


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_search_finds_the_likeliest_of_all_texts(seed: int) -> None:
    log_probs = frames(seed)
    wanted = sorted(sums(log_probs).items(), key=lambda item: -item[1])
    found = prefix_beam_search(log_probs, ALL, n_best=10, least=-math.inf)
    for (text, score), own in zip(wanted, found, strict=False):
        assert tuple(own.tokens) == text
        assert own.score == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_a_language_model_and_a_bonus_are_added(seed: int) -> None:
    log_probs = frames(seed)
    added = {
        text: score + 0.7 * NGRAMS.text_log_prob(text) + 0.3 * len(text)
        for text, score in sums(log_probs).items()
    }
    wanted = sorted(added.items(), key=lambda item: -item[1])
    settings: dict[str, Any] = {"scorer": NGRAMS, "weight": 0.7, "bonus": 0.3}
    found = prefix_beam_search(log_probs, ALL, n_best=10, least=-math.inf, **settings)
    for (text, score), own in zip(wanted, found, strict=False):
        assert tuple(own.tokens) == text
        assert own.score == pytest.approx(score, abs=1e-9)


def test_scores_are_the_loss_that_torch_computes() -> None:
    log_probs = frames(1, count=7)
    for text, score in itertools.islice(sums(log_probs).items(), 1, 40):
        loss = torch.nn.functional.ctc_loss(
            torch.tensor(log_probs)[:, None],
            torch.tensor([text]),
            torch.tensor([7]),
            torch.tensor([len(text)]),
            blank=3,
            reduction="sum",
        )
        assert -float(loss) == pytest.approx(score, abs=1e-9)


def test_one_beam_may_miss_what_several_find() -> None:
    # Either way to emit "0" is less likely than the blank alone; both together are not.
    log_probs = np.log(np.array([[0.4, 0.6], [0.4, 0.6]]))
    assert greedy_tokens(log_probs) == []
    assert prefix_beam_search(log_probs, 4)[0].tokens == [0]


def test_greedy_takes_repeats_once_unless_a_blank_is_between() -> None:
    def of(*symbols: int) -> list[int]:
        return greedy_tokens(np.eye(3)[list(symbols)])

    assert of(0, 0, 2, 0, 1, 1) == [0, 0, 1]
    assert of(2, 2) == []
    assert greedy_tokens(np.empty((0, 3))) == []


@pytest.mark.parametrize("seed", range(8))
def test_alignment_is_the_likeliest_way_to_emit_a_text(seed: int) -> None:
    log_probs = frames(seed)
    for text, ways in paths(log_probs).items():
        _, best = max(ways)
        wanted = []
        place = 0
        for symbol, group in itertools.groupby(best):
            length = len(list(group))
            if symbol != 3:
                wanted.append((place, place + length - 1))
            place += length
        assert align_tokens(log_probs, text) == wanted


def test_equal_neighbours_need_a_frame_between() -> None:
    assert frames_needed([]) == 0
    assert frames_needed([1, 2, 3]) == 3
    assert frames_needed([1, 1, 2, 2]) == 6


def test_unlikely_tokens_begin_no_text() -> None:
    log_probs = np.log(np.array([[1e-8, 0.5, 0.5 - 1e-8]]))
    found = prefix_beam_search(log_probs, 8, n_best=8)
    assert [0] not in [each.tokens for each in found]
    every = prefix_beam_search(log_probs, 8, n_best=8, least=-math.inf)
    assert [0] in [each.tokens for each in every]


def test_a_text_goes_on_from_its_context() -> None:
    # Both tokens sound alike: what came before decides.
    log_probs = np.log(np.array([[0.49, 0.49, 0.02]]))
    ngrams = NGramModel.fit([[0, 1], [1, 0]] * 20, 2, 2)
    settings: dict[str, Any] = {"scorer": ngrams, "weight": 1.0, "ends": False}
    assert prefix_beam_search(log_probs, 4, context=(0,), **settings)[0].tokens == [1]
    assert prefix_beam_search(log_probs, 4, context=(1,), **settings)[0].tokens == [0]
