"""Exact match and F1 of answers, as counted by hand."""

from __future__ import annotations

import pytest

from groundup.metrics.answers import answer_scores, normalised_answer


def test_articles_punctuation_case_and_blanks_do_not_count() -> None:
    assert normalised_answer("  The  Cat's, an  A! ") == "cats"
    assert normalised_answer("Another theory") == "another theory"


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        ("the cat", ["Cat."], 1.0, 1.0),
        ("a black cat", ["white cat", "a big black dog"], 0.0, 0.5),
        ("big big cat", ["big cat"], 0.0, 0.8),
        ("dog", ["cat"], 0.0, 0.0),
        ("", [], 1.0, 1.0),
        ("cat", [], 0.0, 0.0),
        ("the", ["a"], 1.0, 1.0),
        ("", ["cat"], 0.0, 0.0),
    ],
)
def test_scores(answer: str, right: list[str], exact: float, f1: float) -> None:
    assert answer_scores(answer, right) == (exact, pytest.approx(f1))
