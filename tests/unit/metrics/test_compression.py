"""The baselines: probabilities that sum to one, and figures known by hand."""

from __future__ import annotations

import lzma
import math

import numpy as np
import pytest

from groundup.metrics.compression import (
    bits_per_byte,
    fit_ngram,
    join_documents,
    ngram_bits_per_byte,
    perplexity,
    unigram_bits_per_byte,
    xz_bits_per_byte,
)
from groundup.metrics.rouge import rouge_l, rouge_tokens

SAID = "the cat sat on the mat and the dog sat on the log while a bird sang in the tree"
WORDS = SAID.split()


def sentences(count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, 12)) + "." for _ in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2, 5, 7])
def test_ngram_probabilities_sum_to_one_after_known_and_unknown_contexts(order: int) -> None:
    model = fit_ngram(join_documents(sentences(50, 0)), order)
    for context in (b"", b"the ", b"on the cat", b"\xff\xfe never", b"the\0"):
        probabilities = [model.probabilities(context + bytes([value]))[-1] for value in range(256)]
        assert sum(probabilities) == pytest.approx(1, abs=1e-12)
        assert min(probabilities) > 0


def test_longer_contexts_predict_a_regular_text_better_than_bytes_and_beat_no_model() -> None:
    train, held_out = sentences(300, 0), sentences(40, 1)
    figures = [ngram_bits_per_byte(train, held_out, order) for order in (1, 2, 3, 5)]
    assert figures == sorted(figures, reverse=True)
    assert figures[-1] < 1.4 < figures[0]
    assert figures[0] == pytest.approx(unigram_bits_per_byte(train, held_out), rel=0.02)


def test_unigram_of_a_text_by_hand() -> None:
    total = 4 + 256  # "aaa" and its end; every byte's count is raised by one
    expected = -(2 * math.log2(4 / total) + math.log2(2 / total)) / 2
    assert unigram_bits_per_byte(["aaa"], ["aa"]) == pytest.approx(expected)


@pytest.mark.slow
def test_ends_are_coded_but_only_text_is_divided_by() -> None:
    documents = ["é" * 100, "x" * 50]
    joined = join_documents(documents)
    assert joined == ("é" * 100 + "\0" + "x" * 50 + "\0").encode()
    assert xz_bits_per_byte(documents) == 8 * len(lzma.compress(joined, preset=9)) / 250


@pytest.mark.slow
def test_xz_given_the_training_text_is_lower() -> None:
    train, held_out = sentences(100, 0), sentences(20, 0)
    assert xz_bits_per_byte(held_out, train) < 0.3 * xz_bits_per_byte(held_out)


def test_units() -> None:
    assert bits_per_byte(math.log(2) * 12, 6) == pytest.approx(2)
    assert perplexity(math.log(7)) == pytest.approx(7)
    assert perplexity(1e6) == math.inf


@pytest.mark.slow
def test_rouge_knows_words_and_chinese_characters() -> None:
    assert rouge_tokens("The cat's 3 猫咪, _x") == ["the", "cat", "s", "3", "猫", "咪", "x"]
    assert rouge_l(["The cat sat"], ["the cat sat"]) == 1
    assert rouge_l(["床前明月光"], ["床前看月光"]) == pytest.approx(0.8)
    assert rouge_l(["a b c d", "x"], ["a c", "y"]) == pytest.approx((2 * (2 / 4) * 1 / (1.5)) / 2)
    assert rouge_l([], []) == 0
