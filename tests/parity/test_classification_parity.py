"""The measures of classifiers are scikit-learn's, and the intervals cover what they should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from groundup.metrics.calibration import fit_temperature, halves, probabilities_of, reliability
from groundup.metrics.classification import evaluate_classes, evaluate_labels

pytestmark = [
    pytest.mark.usefixtures("library"),
    pytest.mark.xdist_group("sklearn"),
]  # imported by one worker
metrics: Any = None


@pytest.fixture
def library() -> None:
    """Import scikit-learn when a test runs, for it takes seconds."""
    globals()["metrics"] = pytest.importorskip("sklearn.metrics")


def chances_of(examples: int, classes: int, skill: float = 1.5) -> tuple[Any, Any]:
    rng = np.random.default_rng(classes)
    true = np.append(np.arange(classes), rng.integers(classes, size=examples - classes))
    outputs = rng.normal(size=(examples, classes)) + skill * np.eye(classes)[true]
    return probabilities_of(outputs), true


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_the_measures_of_one_class_are_scikit_learns(classes: int) -> None:
    chances, true = chances_of(300, classes)
    found, predicted = evaluate_classes(chances, true), chances.argmax(1)
    several: dict[str, Any] = {} if classes == 2 else {"multi_class": "ovr", "average": "macro"}
    expected = {
        "accuracy": metrics.accuracy_score(true, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(true, predicted),
        "macro_f1": metrics.f1_score(true, predicted, average="macro"),
        "auroc": metrics.roc_auc_score(true, chances[:, 1] if classes == 2 else chances, **several),
        "log_loss": metrics.log_loss(true, chances),
    }
    if classes > 5:
        expected["top_5_accuracy"] = metrics.top_k_accuracy_score(true, chances, k=5)
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected)
    assert ("top_5_accuracy" in found.metrics) == (classes > 5)
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(true, predicted))
    report = metrics.classification_report(true, predicted, output_dict=True, zero_division=0)
    for k, (precision, recall, f1, examples) in enumerate(found.per_class):
        row = {"precision": precision, "recall": recall, "f1-score": f1, "support": examples}
        assert report[str(k)] == pytest.approx(row)


def test_classes_that_do_not_occur_are_left_out() -> None:
    chances, _ = chances_of(60, 4)
    true = np.arange(60) % 2
    found = evaluate_classes(chances, true)
    predicted = chances.argmax(1)
    expected = metrics.f1_score(true, predicted, average="macro")
    assert found.metrics["macro_f1"] == pytest.approx(expected)
    areas = [metrics.roc_auc_score(true == k, chances[:, k]) for k in (0, 1)]
    assert found.metrics["auroc"] == pytest.approx(np.mean(areas))
    alone = evaluate_classes(chances, np.zeros(60, np.int64)).metrics
    assert "auroc" not in alone
    assert all(np.isfinite(value) for value in alone.values())


def test_the_measures_of_several_labels_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(2, size=(200, 4))
    chances = probabilities_of(rng.normal(size=true.shape) + true, several=True)
    found, predicted = evaluate_labels(chances, true), (chances >= 0.5).astype(int)
    expected = {
        "subset_accuracy": metrics.accuracy_score(true, predicted),
        "label_accuracy": 1 - metrics.hamming_loss(true, predicted),
    }
    for how in ("macro", "micro"):
        expected |= {
            f"{how}_f1": metrics.f1_score(true, predicted, average=how),
            f"{how}_auroc": metrics.roc_auc_score(true, chances, average=how),
            f"{how}_average_precision": metrics.average_precision_score(true, chances, average=how),
        }
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected)
    for k, (precision, area, f1, examples) in enumerate(found.per_class):
        assert precision == pytest.approx(
            metrics.average_precision_score(true[:, k], chances[:, k])
        )
        assert area == pytest.approx(metrics.roc_auc_score(true[:, k], chances[:, k]))
        assert f1 == pytest.approx(metrics.f1_score(true[:, k], predicted[:, k]))
        assert examples == true[:, k].sum()
    assert (
        found.metrics["macro_f1_low_95"]
        < found.metrics["macro_f1"]
        < found.metrics["macro_f1_high_95"]
    )
    assert evaluate_labels(chances, np.zeros_like(true)).per_class[0][:2] == (None, None)


def test_the_bootstrap_is_that_of_examples_drawn_one_by_one() -> None:
    chances, true = chances_of(250, 3, skill=1.0)
    predicted, rng = chances.argmax(1), np.random.default_rng(1)
    found = evaluate_classes(chances, true, seed=3).metrics
    drawn = rng.integers(250, size=(4000, 250))
    right = (true == predicted)[drawn]
    recalls = [(right & (true[drawn] == k)).sum(1) / (true[drawn] == k).sum(1) for k in range(3)]
    for name, values in (
        ("accuracy_bootstrap", right.mean(1)),
        ("balanced_accuracy", np.mean(recalls, 0)),
    ):
        for end, percent in (("low", 2.5), ("high", 97.5)):
            assert found[f"{name}_{end}_95"] == pytest.approx(
                np.percentile(values, percent), abs=0.012
            )
    assert found["macro_f1_low_95"] < found["macro_f1"] < found["macro_f1_high_95"]
    assert evaluate_classes(chances, true, seed=3).metrics == found
    assert evaluate_classes(chances, true, seed=4).metrics != found


def test_equal_probabilities_share_their_rank() -> None:
    rng = np.random.default_rng(0)
    true, chances = np.arange(90) % 2, np.round(rng.random((90, 1)), 1)
    both = np.concatenate((1 - chances, chances), 1)
    assert evaluate_classes(both, true).metrics["auroc"] == pytest.approx(
        metrics.roc_auc_score(true, chances[:, 0])
    )


@pytest.mark.slow
def test_a_thousand_classes_are_judged_in_seconds() -> None:
    chances, true = chances_of(2000, 1000, skill=5.0)
    assert 0.5 < evaluate_classes(chances, true).metrics["macro_f1"] < 1


def test_reliability_by_hand() -> None:
    found = reliability(
        np.array([0.05, 0.95, 0.95, 1.0]), np.array([False, True, False, True]), bins=10
    )
    assert found.counts.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert found.confidence[9] == pytest.approx(2.9 / 3)
    assert found.right[9] == pytest.approx(2 / 3)
    assert found.expected_error == pytest.approx((0.05 + 0.9) / 4)
    assert found.maximum_error == pytest.approx(0.9 / 3)


@pytest.mark.parametrize("several", [False, True])
def test_the_temperature_is_the_one_of_the_highest_likelihood(several: bool) -> None:
    rng = np.random.default_rng(0)
    outputs = 2.0 * rng.normal(size=(4000, 3))
    honest = probabilities_of(outputs, several=several)
    if several:
        true = (rng.random(honest.shape) < honest).astype(np.int64)
    else:
        true = (rng.random((4000, 1)) > honest.cumsum(1)).sum(1)
    temperature = fit_temperature(3 * outputs, true, several=several)
    assert temperature == pytest.approx(3.0, rel=0.06)

    def loss(value: float) -> float:
        scaled = torch.from_numpy(3 * outputs / value)
        if several:
            return float(
                F.binary_cross_entropy_with_logits(scaled, torch.from_numpy(true).double())
            )
        return float(F.cross_entropy(scaled, torch.from_numpy(true)))

    assert loss(temperature) < min(loss(temperature * 1.01), loss(temperature / 1.01))
    torch.testing.assert_close(
        torch.from_numpy(probabilities_of(outputs)), torch.from_numpy(outputs).softmax(1)
    )
    torch.testing.assert_close(
        torch.from_numpy(probabilities_of(outputs, several=True)),
        torch.from_numpy(outputs).sigmoid(),
    )


def test_the_halves_are_equal_and_keyed() -> None:
    assert halves(101, 0).sum() == 50
    assert (halves(100, 0) == halves(100, 0)).all()
    assert (halves(100, 0) != halves(100, 1)).any()
