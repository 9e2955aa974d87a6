"""Classes with an order: soft labels, how far predictions are off, and the order from recipe to
report."""

from __future__ import annotations

import io
import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

import groundup
from groundup import api
from groundup.contracts.processors import LabelProcessor
from groundup.core.errors import DataError
from groundup.core.values import Example
from groundup.metrics.ordinal import evaluate_order
from groundup.processors.class_targets import SingleLabel
from groundup.processors.image import ImageConfig
from groundup.processors.labelled import Labelled, with_targets
from groundup.reports.console_summary import print_summary
from groundup.tasks.classify.class_weights import class_weights
from groundup.tasks.classify.losses import soft_labels
from groundup.tasks.classify.task import Classify
from groundup.tasks.multitask.task import Multitask

pytestmark = pytest.mark.xdist_group("sklearn")  # imported by one worker

WORDS = ["low", "mid", "high"]


def examples_of(targets: list[Any]) -> list[Example]:
    return [Example(f"e{n}", np.full((2, 2), float(n)), target) for n, target in enumerate(targets)]


def fitted(task: Classify, targets: list[Any], processor: Any = None) -> LabelProcessor:
    examples = examples_of(targets)
    reads = processor or ImageConfig().fit(lambda: iter(examples))
    return task.fit_processor(reads, lambda: iter(examples))


# --------------------------------------------------------------------------------------------- loss
def test_soft_labels_by_hand() -> None:
    found = soft_labels(torch.tensor([0, 2]), 4, 1.0).double()
    powers = torch.exp(
        -torch.tensor([[0.0, 1.0, 2.0, 3.0], [2.0, 1.0, 0.0, 1.0]], dtype=torch.float64)
    )
    torch.testing.assert_close(found, powers / powers.sum(1, keepdim=True), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        soft_labels(torch.tensor([1]), 3, 0.02), torch.tensor([[0.0, 1.0, 0.0]])
    )


def test_the_loss_is_torchs_with_class_weights_however_the_batch_is_cut() -> None:
    targets = [1, 1, 1, 2, 3, 3, 10, 1, 2, 10, 3]
    task = Classify(
        labels="ordinal", ordinal_smoothing=0.7, class_weights="balanced", label_smoothing=0.1
    )
    processor = fitted(task, targets)
    batch = task.encode(examples_of(targets), processor)
    assert set(batch) == set(task.batch_spec)
    assert set(task.inputs(batch)) == {"inputs"}
    outputs = torch.randn(len(targets), 4, generator=torch.Generator().manual_seed(0))
    whole = task.loss(outputs, batch)
    weights = class_weights(processor.targets.counts, "balanced", 0.0)[batch["labels"]]  # type: ignore[attr-defined]
    wanted = soft_labels(batch["labels"], 4, 0.7) * 0.9 + 0.1 / 4
    plain = (weights * -(wanted * F.log_softmax(outputs, 1)).sum(1)).sum() / weights.sum()
    torch.testing.assert_close(whole.terms["label"].total / whole.terms["label"].count, plain)
    cut = [
        task.loss(outputs[i : i + 3], {n: v[i : i + 3] for n, v in batch.items()})
        for i in range(0, 11, 3)
    ]
    for name in ("total", "count"):
        parts = sum(getattr(each.terms["label"], name) for each in cut)
        torch.testing.assert_close(parts, getattr(whole.terms["label"], name))
    assert sum(float(each.metrics["off"]) for each in cut) == float(whole.metrics["off"])
    off = (outputs.argmax(1) - batch["labels"]).abs().double().mean()
    sums = {name: (float(value), 1.0) for name, value in whole.metrics.items()}
    found = task.summarise({**sums, "label": (1.0, 1.0)})
    assert found["mean_absolute_error"] == pytest.approx(float(off))
    assert set(found) == {"loss", "accuracy", "mean_absolute_error"}


def test_a_mixture_counts_both_labels_by_their_share() -> None:
    task = Classify(labels="ordinal")
    outputs = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    first, second, mix = (
        torch.tensor([0, 1, 2]),
        torch.tensor([2, 0, 0]),
        torch.tensor([1.0, 0.3, 0.6]),
    )
    found = task.loss(outputs, {"labels": first, "labels_2": second, "mix": mix}).terms["label"]
    wanted = mix[:, None] * soft_labels(first, 3, 1.0) + (1 - mix[:, None]) * soft_labels(
        second, 3, 1.0
    )
    torch.testing.assert_close(found.total, F.cross_entropy(outputs, wanted, reduction="sum"))


# -------------------------------------------------------------------------------------------- order
def test_the_order_is_the_recipes_or_that_of_the_numbers() -> None:
    named = fitted(Classify(labels="ordinal", order=tuple(WORDS)), ["high", "low", "mid", "low"])
    assert (named.labels, named.targets.counts) == (("low", "mid", "high"), (2, 1, 1))  # type: ignore[attr-defined]
    assert named.targets.encode(["high", "low"]).tolist() == [2, 0]
    assert fitted(Classify(labels="ordinal"), [10, 2, "-1", 2.5]).labels == ("-1", "2", "2.5", "10")
    assert fitted(Classify(labels="ordinal", order=(5, 3, 1)), [1, 3, 5]).labels == ("5", "3", "1")


def test_a_base_runs_classes_serve_only_in_the_same_order() -> None:
    alphabet = fitted(Classify(), WORDS)
    assert alphabet.labels == ("high", "low", "mid")
    task = Classify(labels="ordinal", order=tuple(WORDS))
    assert fitted(task, WORDS, alphabet).labels == ("low", "mid", "high")
    wider = Labelled(
        alphabet.inputs, SingleLabel(["low", "lower mid", "mid", "high"], counts=[1, 1, 1, 1]), 0
    )
    again = fitted(task, WORDS, wider)
    assert again.labels == ("low", "lower mid", "mid", "high")
    assert again.targets.counts == (1, 0, 1, 1)  # type: ignore[attr-defined]
    plain = with_targets(wider, lambda: iter(examples_of(WORDS)), SingleLabel.fit, 0)
    assert plain.labels == wider.labels


def test_one_of_several_tasks_may_have_an_order() -> None:
    rating = {"name": "classify", "labels": "ordinal", "order": WORDS}
    task = Multitask(tasks={"rating": rating, "size": {"name": "regression"}})
    examples = examples_of([{"rating": word, "size": n} for n, word in enumerate(WORDS)])
    processor = task.fit_processor(
        ImageConfig().fit(lambda: iter(examples)), lambda: iter(examples)
    )
    assert processor.targets.parts["rating"].labels == tuple(WORDS)  # type: ignore[attr-defined]
    with pytest.raises(
        DataError,
        match=r"task rating: recipe.task.order: names 'mid', which no training example is",
    ):
        task.fit_processor(processor.inputs, lambda: iter([examples[0], examples[2]]))


# ----------------------------------------------------------------------------------------- measures
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_measures_are_scikit_learns(classes: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(classes)
    true = rng.integers(classes, size=200)
    predicted = np.clip(true + rng.integers(-2, 3, size=200), 0, classes - 1)
    confusion = metrics.confusion_matrix(true, predicted, labels=range(classes))
    found = evaluate_order(confusion, seed=1)
    kappa = metrics.cohen_kappa_score(true, predicted, weights="quadratic")
    assert found["quadratic_weighted_kappa"] == pytest.approx(kappa, abs=1e-12)
    assert found["mean_absolute_error"] == pytest.approx(
        metrics.mean_absolute_error(true, predicted), abs=1e-12
    )
    for name in ("quadratic_weighted_kappa", "mean_absolute_error"):
        assert found[f"{name}_low_95"] < found[name] < found[f"{name}_high_95"]
    assert evaluate_order(confusion, seed=1) == found != evaluate_order(confusion, seed=2)


@pytest.mark.slow
def test_the_interval_of_kappa_is_that_of_examples_drawn_one_by_one() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    true = rng.integers(4, size=150)
    predicted = np.clip(true + rng.integers(-1, 2, size=150), 0, 3)
    found = evaluate_order(metrics.confusion_matrix(true, predicted))
    drawn = rng.integers(150, size=(400, 150))
    kappas = [metrics.cohen_kappa_score(true[d], predicted[d], weights="quadratic") for d in drawn]
    for end, percent in (("low", 2.5), ("high", 97.5)):
        assert found[f"quadratic_weighted_kappa_{end}_95"] == pytest.approx(
            np.percentile(kappas, percent), abs=0.02
        )


def test_kappa_is_left_out_where_there_is_one_class_only() -> None:
    found = evaluate_order(np.array([[0, 0], [0, 7]]))
    assert found == {f"mean_absolute_error{end}": 0.0 for end in ("", "_low_95", "_high_95")}
    assert evaluate_order(np.array([[0, 5], [0, 1]]))["quadratic_weighted_kappa"] == 0.0


# --------------------------------------------------------------------------------------- whole runs
@pytest.fixture
def rated(tmp_path: Path) -> dict[str, Any]:
    """The diabetes study's progression, cut into four ratings by its quartiles, from its ten
    measurements."""
    datasets = pytest.importorskip("sklearn.datasets")
    inputs, progress = datasets.load_diabetes(return_X_y=True)
    ratings = np.searchsorted(np.quantile(progress, (0.25, 0.5, 0.75)), progress)
    names = np.array(["slow", "medium", "fast", "very fast"])[ratings]
    columns = [f"x{n}" for n in range(10)]
    rows = [",".join([*columns, "rating"])]
    rows += [
        ",".join([*(f"{v:.6f}" for v in row), name])
        for row, name in zip(inputs, names, strict=True)
    ]
    (tmp_path / "rated.csv").write_text("\n".join(rows) + "\n", "utf-8")
    return {
        **{"name": "rated", "model": {"name": "mlp", "hidden": [16]}, "processor": "table"},
        **{"data": {"name": "table", "path": str(tmp_path / "rated.csv"), "target": "rating"}},
        "task": {
            "name": "classify",
            "labels": "ordinal",
            "order": ["slow", "medium", "fast", "very fast"],
        },
        **{"optim": {"lr": 1e-2}, "training": {"batch_size": 32, "steps": 60}},
        **{
            "evaluation": {"every": 20},
            "checkpoints": {"every": 20, "best_metric": "mean_absolute_error"},
        },
        **{"machine": {"precision": "fp32", "threads": 1, "compile": False, "device": "cpu"}},
    }


@pytest.mark.slow
def test_ratings_from_recipe_to_report(rated: dict[str, Any], tmp_path: Path) -> None:
    run = groundup.train(rated, runs=tmp_path / "runs")
    summary = groundup.evaluate(run.folder)
    found = json.loads((run.folder / "evaluation.json").read_text("utf-8"))
    metrics = found["metrics"]
    assert metrics["mean_absolute_error"] < 0.85 * metrics["baseline_mean_absolute_error"]
    assert 0.3 < metrics["quadratic_weighted_kappa"] < 1
    matrix = next(figure for figure in found["figures"] if figure["kind"] == "matrix")
    assert matrix["content"]["labels"] == ["slow", "medium", "fast", "very fast"]
    page = (run.folder / "report.html").read_text("utf-8")
    for words in (
        "mean absolute error",
        "quadratic weighted kappa",
        "always guessing the middle class",
    ):
        assert words in page
    out = io.StringIO()
    print_summary(summary, Console(file=out, width=100, highlight=False))
    for words in (
        "mean absolute error",
        "always guessing the middle class",
        "quadratic weighted kappa",
    ):
        assert words in out.getvalue()
    row = {f"x{n}": 0.0 for n in range(10)}
    answer = groundup.predict(run.folder, row)
    assert answer in matrix["content"]["labels"]
    assert groundup.predict(run.folder, row, top=1)[0][0] == answer
    best = [
        json.loads(line) for line in (run.folder / "metrics.jsonl").read_text("utf-8").splitlines()
    ]
    errors = {row["step"]: row["mean_absolute_error"] for row in best if row["kind"] == "evaluate"}
    assert run.pick("best") == min(errors, key=lambda step: errors[step])


@pytest.mark.slow
def test_micro_batches_and_a_resume_change_nothing(rated: dict[str, Any], tmp_path: Path) -> None:
    rated["task"]["class_weights"] = "effective"
    rated["training"]["steps"] = 8

    def losses(name: str, micro_batch_size: int, stop: int | None = None) -> list[float]:
        trainer = api.trainer(
            rated, {"name": name, "machine.micro_batch_size": micro_batch_size}, runs=tmp_path
        )
        found = [report.loss for report in islice(trainer.steps(), stop)]
        trainer.save()
        trainer.close()
        return found

    whole = losses("whole", 32)
    assert losses("parts", 8) == pytest.approx(whole, rel=1e-5)
    assert losses("stopped", 32, 3) + losses("stopped", 32) == whole
