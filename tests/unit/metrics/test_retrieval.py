"""Places of right candidates, and what is counted of them, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.metrics.retrieval import ranks, retrieval_measures

CANDIDATES = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])


def test_a_place_counts_those_that_are_as_near_or_nearer() -> None:
    queries = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert ranks(queries, CANDIDATES, np.array([0, 1, 2, 1])).tolist() == [1, 3, 2, 1]


def test_of_equals_a_candidate_is_the_last() -> None:
    same = np.tile([[1.0, 0.0]], (4, 1))
    assert ranks(same[:1], same, np.array([2])).tolist() == [4]


def test_more_queries_than_are_compared_at_once() -> None:
    angles = np.linspace(0, 1, 1030)
    vectors = np.stack((np.cos(angles), np.sin(angles)), 1)
    assert ranks(vectors, vectors, np.arange(1030)).tolist() == [1] * 1030


def test_measures() -> None:
    assert retrieval_measures(np.array([1, 2, 10, 11, 1]), 20) == pytest.approx(
        {
            "accuracy_at_1": 0.4,
            "recall_at_10": 0.8,
            "mean_reciprocal_rank": (1 + 1 / 2 + 1 / 10 + 1 / 11 + 1) / 5,
            "baseline_accuracy_at_1": 0.05,
        }
    )
