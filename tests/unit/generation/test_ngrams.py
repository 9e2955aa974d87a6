"""N-grams of tokens: probabilities by hand, and that they sum to one."""

from __future__ import annotations

import json
import math

import pytest

from groundup.core.errors import DataError
from groundup.generation.ngrams import NGramModel

TEXTS = [[0, 1, 0], [1, 1], [0, 2, 2, 1]]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("context", [(), (0,), (0, 1), (3, 3, 3, 0), (2, 2, 2, 2)])
def test_probabilities_sum_to_one(order: int, context: tuple[int, ...]) -> None:
    model = NGramModel.fit(TEXTS, order, 4)
    total = math.exp(model.end_log_prob(context))
    total += sum(math.exp(model.log_prob(context, token)) for token in range(4))
    assert total == pytest.approx(1.0)


def test_orders_are_interpolated_as_witten_and_bell_do() -> None:
    model = NGramModel.fit(TEXTS, 2, 4)
    # Of 12 tokens, ends included, of 4 kinds, 3 are the token 0; uniform is 1 of 5.
    lower = (3 + 4 * 0.2) / (12 + 4)
    # After 1 come 0 once, 1 once and the end twice.
    assert math.exp(model.log_prob((1,), 0)) == pytest.approx((1 + 3 * lower) / (4 + 3))
    # A token of the vocabulary that no text has is not impossible.
    assert math.exp(model.log_prob((1,), 3)) == pytest.approx(3 * (4 * 0.2 / 16) / 7)


def test_seen_texts_are_likelier_than_others() -> None:
    model = NGramModel.fit(TEXTS, 3, 4)
    assert model.text_log_prob([0, 2, 2, 1]) > model.text_log_prob([2, 0, 1, 2])


def test_it_comes_back_from_json() -> None:
    model = NGramModel.fit(TEXTS, 3, 4)
    again = NGramModel.from_json(json.loads(json.dumps(model.to_json())))
    assert again.order == 3
    for text in ([], [0, 1], [3, 3, 2]):
        assert again.text_log_prob(text) == model.text_log_prob(text)


def test_no_texts_are_an_error() -> None:
    with pytest.raises(DataError, match="no training transcripts"):
        NGramModel.fit([], 3, 4)
