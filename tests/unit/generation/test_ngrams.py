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


def test_bigrams_by_hand() -> None:
    model = NGramModel.fit(TEXTS, 2, 4)
    # There are too few counts to estimate from: 0.5 is taken off a count of 1, 1 off one of 2.
    # Of 10 different pairs 0 is the second token in two; uniform is 1 of 5.
    followed = {0: 2, 1: 4, 2: 2, "end": 2}
    total = sum(followed.values())
    shared = 1.0 + 1.5 + 1.0 + 1.0
    lower = (followed[0] - 1.0 + shared * 0.2) / total
    # After 1 come 0 once, 1 once and the end twice.
    wanted = (1 - 0.5 + (0.5 + 0.5 + 1.0) * lower) / 4
    assert math.exp(model.log_prob((1,), 0)) == pytest.approx(wanted)
    # A token of the vocabulary that no text has is not impossible.
    assert math.exp(model.log_prob((1,), 3)) == pytest.approx(2.0 * (shared * 0.2 / total) / 4)


def test_discounts_by_hand() -> None:
    # Of one token after each: four counts of 1, three of 2, two of 3, one of 4.
    counts = [1, 1, 1, 1, 2, 2, 2, 3, 3, 4]
    model = NGramModel(2, 20, {(n,): {0: count} for n, count in enumerate(counts)})
    share = 4 / (4 + 2 * 3)
    wanted = (1 - 2 * share * 3 / 4, 2 - 3 * share * 2 / 3, 3 - 4 * share * 1 / 2)
    assert model.discounts[1] == pytest.approx(wanted)


@pytest.mark.parametrize("order", [2, 3])
def test_against_nltk(order: int) -> None:
    lm = pytest.importorskip("nltk.lm")
    texts = ["the house", "a hat on the heath", "other hats", "the other house heats"]
    ids = {letter: n for n, letter in enumerate(sorted(set("".join(texts))))}
    # Its own padding ends a text several times, and counts its beginning as said.
    grams = []
    for text in texts:
        padded = [*["<s>"] * (order - 1), *text, "</s>"]
        for place in range(order - 1, len(padded)):
            grams += [tuple(padded[place - n : place + 1]) for n in range(order)]
    reference = lm.KneserNeyInterpolated(order, discount=0.6)
    reference.fit([grams], [*ids, "<s>", "</s>"])
    encoded = [[ids[letter] for letter in text] for text in texts]
    # There the lowest order has no discount, and no share for what was never seen.
    discounts = [(0.0, 0.0, 0.0), *[(0.6, 0.6, 0.6)] * (order - 1)]
    counts = NGramModel.fit(encoded, order, len(ids)).counts
    model = NGramModel(order, len(ids), counts, discounts)
    compared = 0
    for text in texts:
        for place in range(order - 1, len(text)):
            context = text[place - order + 1 : place]
            for letter in "theasor ":
                found = model.log_prob(tuple(ids[each] for each in context), ids[letter])
                assert math.exp(found) == pytest.approx(reference.score(letter, tuple(context)))
                compared += 1
    assert compared > 300


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
