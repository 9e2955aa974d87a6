"""Spans of words by their labels, and how many of them are right, by hand."""

from __future__ import annotations

import pytest

from groundup.metrics.spans import are_spans, span_measures, spans_of


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ("B-x I-x O B-y", [("x", 0, 2), ("y", 3, 4)]),
        ("B-x B-x", [("x", 0, 1), ("x", 1, 2)]),
        ("I-x I-x O", [("x", 0, 2)]),
        ("B-x I-y", [("x", 0, 1), ("y", 1, 2)]),
        ("O O", []),
        ("O B-x I-x", [("x", 1, 3)]),
    ],
)
def test_spans(labels: str, found: list[tuple[str, int, int]]) -> None:
    assert spans_of(labels.split()) == found


@pytest.mark.parametrize(
    ("labels", "spans"),
    [("O B-x I-x", True), ("O I-x", False), ("O", False), ("B-x NOUN", False), ("B-x", True)],
)
def test_which_labels_are_of_spans(labels: str, spans: bool) -> None:
    assert are_spans(labels.split()) is spans


def test_measures_by_counts() -> None:
    true = [["B-x", "I-x", "O", "B-y"], ["B-x", "O"], ["B-q", "O"]]
    predicted = [["B-x", "I-x", "O", "B-x"], ["O", "B-y"], ["B-q", "B-z"]]
    measures, kinds = span_measures(true, predicted)
    assert measures == pytest.approx(
        {"span_precision": 2 / 5, "span_recall": 2 / 4, "span_f1": 4 / 9}
    )
    # Precision, recall, F1, and how many there are; z is predicted alone.
    assert kinds == {
        "q": (1.0, 1.0, 1.0, 1),
        "x": (0.5, 0.5, 0.5, 2),
        "y": (0.0, 0.0, 0.0, 1),
        "z": (0.0, 0.0, 0.0, 0),
    }


def test_nothing_given_and_nothing_wanted() -> None:
    measures, kinds = span_measures([["O"]], [["O"]])
    assert measures == {"span_precision": 0.0, "span_recall": 0.0, "span_f1": 0.0}
    assert kinds == {}
