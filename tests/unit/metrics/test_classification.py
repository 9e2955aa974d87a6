"""From which probability on a label is predicted."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.metrics.classification import evaluate_labels, has_label

pytestmark = pytest.mark.xdist_group("sklearn")  # imported by one worker


def test_a_label_is_predicted_from_one_half_on() -> None:
    assert has_label(np.array([0.0, 0.45, 0.499, 0.5, 0.55, 1.0])).tolist() == [
        *(False, False, False),
        *(True, True, True),
    ]


@pytest.mark.slow
def test_scores_of_labels_count_probabilities_from_one_half_on_as_predicted() -> None:
    chances = np.array([[0.45, 0.1], [0.5, 0.2], [0.9, 0.45], [0.2, 0.55]])
    true = np.array([[0, 0], [1, 0], [1, 0], [0, 1]])
    found = evaluate_labels(chances, true).metrics
    assert found["label_accuracy"] == found["subset_accuracy"] == found["macro_f1"] == 1.0
