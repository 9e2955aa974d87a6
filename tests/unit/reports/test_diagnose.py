"""What is said about curves of known shape."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from groundup.reports.diagnose import diagnose
from groundup.reports.diagnosis import Diagnosis
from groundup.reports.formatting import number
from groundup.reports.reward_curves import MADE_BY_WEIGHTS
from groundup.reports.run_reader import read_run

Curve = Callable[[float], float]
RECIPE = """
model: {name: mlp, hidden: [128], dropout: 0.0}
task: {name: classify, label_smoothing: 0.0}
optim: {name: adamw, lr: 0.001, weight_decay: 0.1}
training: {batch_size: 32, epochs: 10}
"""


def diagnosed(
    folder: Path,
    training: Curve,
    validation: Curve,
    steps: int = 1000,
    *,
    recipe: str = RECIPE,
    tables: Sequence[str] = (),
    **metrics: float,
) -> Diagnosis | None:
    rows: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        noise = 0.02 * math.sin(7.0 * step)
        rows.append({"kind": "train", "step": step, "loss": training(step / steps) * (1 + noise)})
        if step % (steps // 10) == 0:
            rows.append({"kind": "evaluate", "step": step, "loss": validation(step / steps)})
    (folder / "recipe.yaml").write_text(recipe, "utf-8")
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    listed = [{"title": title, "columns": [], "rows": []} for title in tables]
    evaluation = {"metrics": metrics, "tables": listed}
    (folder / "evaluation.json").write_text(json.dumps(evaluation), "utf-8")
    return diagnose(read_run(folder))


def test_a_validation_loss_that_rises_is_overfitting(tmp_path: Path) -> None:
    scores = {"training_accuracy": 0.998, "accuracy": 0.912, "accuracy_high_95": 0.94}
    found = diagnosed(
        tmp_path, lambda t: 2 * math.exp(-5 * t), lambda t: 0.5 + (t - 0.4) ** 2, **scores
    )
    assert found is not None
    assert found.verdict == "overfitting"
    assert "rising since step 400, from 0.500 to 0.7" in found.words
    assert "training examples 99.8% are right, of held-out ones 91.2%" in found.words
    for setting in (
        "some model.dropout, such as 0.2",
        "more optim.weight_decay, such as 0.2 instead of 0.1",
        "smaller model.hidden, such as [64] instead of [128]",
        "more training data",
    ):
        assert setting in found.advice
    assert "augment" not in found.advice, "this recipe has no such setting"


def test_a_model_that_cannot_be_smaller_is_not_advised_to_be(tmp_path: Path) -> None:
    curves = (lambda t: 2 * math.exp(-5 * t), lambda t: 0.5 + (t - 0.4) ** 2)
    for model, wanted in (
        ("{name: x, layers: 1}", None),
        ("{name: x, layers: 1, width: 64}", "a smaller model.width, such as 32 instead of 64"),
        ("{name: x, hidden: [1]}", None),
        ("{name: x}", "a smaller model,"),
        ("{name: x, layers: 4}\ninit: {run: before}", "a smaller model to start from"),
    ):
        recipe = RECIPE.replace("{name: mlp, hidden: [128], dropout: 0.0}", model)
        found = diagnosed(tmp_path, *curves, recipe=recipe)
        assert found is not None
        assert found.verdict == "overfitting"
        assert "instead of 1," not in found.advice
        assert "[1]" not in found.advice
        assert ("smaller" in found.advice) == (wanted is not None)
        assert (wanted or "") in found.advice


def test_losses_that_explode_are_not_overfitting(tmp_path: Path) -> None:
    # Fine-tuning at far too high a rate: the first steps destroy what was known.
    def training(t: float) -> float:
        return 0.5 + 9 * math.exp(-(((t - 0.3) / 0.1) ** 2)) - 0.3 * t

    def validation(t: float) -> float:
        return 0.6 + 8 * min(1.0, 2 * max(0.0, t - 0.1))

    found = diagnosed(tmp_path, training, validation)
    assert found is not None
    assert found.verdict == "diverged"
    assert "The training loss was 0.501 at first, 8.555 at step 300" in found.words
    assert "the validation loss ends at 8.600, from 0.600 at step 100" in found.words
    assert found.advice.startswith("a lower optim.lr, such as ")
    # Where the rise itself was over before the first line: by how far it is beyond all.
    early = diagnosed(tmp_path, lambda t: 3 - 2 * t, lambda t: 0.6 if t < 0.15 else 40.0)
    assert early is not None
    assert early.verdict == "diverged"


def test_losses_of_examples_that_the_weights_make_do_not_compare(tmp_path: Path) -> None:
    recipe = RECIPE + "checkpoints: {best_metric: move_accuracy}\n"
    curves = (lambda t: 2 * math.exp(-5 * t), lambda t: 0.5 + (t - 0.4) ** 2)
    before = diagnosed(tmp_path, *curves, recipe=recipe)
    assert before is not None
    assert before.verdict == "overfitting"
    (tmp_path / "data_card.json").write_text(json.dumps({MADE_BY_WEIGHTS: True}), "utf-8")
    found = diagnosed(tmp_path, *curves, recipe=recipe)
    assert found is not None
    assert found.verdict == "fine"
    assert (
        found.words == "The weights make the examples, so losses of different steps do not compare."
    )
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for end, verdict in ((0.9, "fine"), (0.3, "no better than a baseline")):
        for row in rows:
            if row["kind"] == "evaluate":
                row["move_accuracy"] = 0.5 + (end - 0.5) * (row["step"] - 100) / 900
        (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
        judged = diagnose(read_run(tmp_path))
        assert judged is not None
        assert judged.verdict == verdict
        assert f"move accuracy went from 0.500 to {number(end)}" in judged.words


def test_a_gap_of_accuracies_is_overfitting_though_no_loss_rises(tmp_path: Path) -> None:
    def flat(t: float) -> float:
        return 0.4

    scores = {"training_accuracy": 1.0, "accuracy": 0.8, "accuracy_high_95": 0.85}
    found = diagnosed(tmp_path, lambda t: 2 * math.exp(-9 * t), flat, **scores)
    assert found is not None
    assert found.verdict == "overfitting"
    assert "100.0% are right, of held-out ones 80.0%" in found.words
    wide = diagnosed(
        tmp_path, lambda t: 2 * math.exp(-9 * t), flat, **{**scores, "accuracy_high_95": 1.0}
    )
    assert wide is not None
    assert wide.verdict == "fine", "few held-out examples: it may be chance"


@pytest.mark.parametrize(
    ("held_out", "verdict"),
    [(0.84, "fine"), (0.83, "overfitting"), (0.7, "overfitting")],
)
def test_a_gap_begins_at_fifteen_points(tmp_path: Path, held_out: float, verdict: str) -> None:
    scores = {"training_accuracy": 0.985, "accuracy": held_out, "accuracy_high_95": 0.88}
    found = diagnosed(tmp_path, lambda t: 2 * math.exp(-9 * t), lambda t: 0.25, **scores)
    assert found is not None
    assert found.verdict == verdict


def test_losses_that_still_fall_are_too_short_a_run(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, lambda t: 3 - 2 * t, lambda t: 3.1 - 2 * t)
    assert found is not None
    assert found.verdict == "too short"
    assert "the last validation loss, 1.100, is the lowest" in found.words
    assert found.advice == "more training.epochs, such as 20 instead of 10, or a higher optim.lr"


def test_a_model_that_is_too_small_is_underfitting(tmp_path: Path) -> None:
    scores = {"training_accuracy": 0.31, "accuracy": 0.3, "accuracy_high_95": 0.33}
    scores["baseline_accuracy"] = 0.25
    found = diagnosed(tmp_path, lambda t: 1 + math.exp(-20 * t), lambda t: 1.05, **scores)
    assert found is not None
    assert found.verdict == "underfitting"
    assert "31.0% are right" in found.words
    assert found.advice.startswith(
        "a larger model.hidden, such as [512] instead of [128], less optim.weight_decay, such as 0.025"
    )


def test_a_training_loss_that_rises_again_has_diverged(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, lambda t: 0.5 + 2 * abs(t - 0.5), lambda t: 1 + t)
    assert found is not None
    assert found.verdict == "diverged"
    assert "lower optim.lr" in found.advice


@pytest.mark.parametrize("level", [0.3, 3.0])
def test_curves_that_settle_are_fine(tmp_path: Path, level: float) -> None:
    found = diagnosed(
        tmp_path,
        lambda t: level * (1 + math.exp(-20 * t)),
        lambda t: level * (1.1 + math.exp(-20 * t)),
    )
    assert found is not None
    assert found.verdict == "fine"
    assert found.advice == ""
    assert "lowest:" in found.words


def test_a_run_that_has_hardly_begun_gets_a_sentence(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, lambda t: 1.0, lambda t: 1.0, steps=50)
    assert found is not None
    assert found.words.startswith("The training loss went from ")


def test_a_single_validation_is_not_from_one_value_to_the_same(tmp_path: Path) -> None:
    rows = [
        {"kind": "train", "step": 10, "loss": 4.4},
        {"kind": "evaluate", "step": 10, "loss": 4.347},
    ]
    (tmp_path / "recipe.yaml").write_text(RECIPE, "utf-8")
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    found = diagnose(read_run(tmp_path))
    assert found is not None
    assert found.words == (
        "The training loss is 4.400; the only validation loss is 4.347, at step 10."
    )


def test_a_run_without_validations_is_told_how_to_have_some(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE, "utf-8")
    row = {"kind": "train", "step": 10, "loss": 4.4}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    found = diagnose(read_run(tmp_path))
    assert found is not None
    assert found.verdict == "not validated"
    assert "evaluation.every" in found.advice


def test_what_is_written_no_better_than_without_a_model(tmp_path: Path) -> None:
    def curve(t: float) -> float:
        return 3 + 4 * math.exp(-9 * t)

    scores = {"bleu": 8.0, "bleu_low_95": 7.0, "bleu_high_95": 9.0, "chrf": 30.0}
    scores |= {"baseline_copy_bleu": 3.8, "baseline_nearest_bleu": 8.35, "baseline_copy_chrf": 40.0}
    written = ["Scores", "The outputs with the lowest bleu"]
    found = diagnosed(tmp_path, curve, curve, tables=written, **scores)
    assert found is not None
    assert found.verdict == "no better than a baseline"
    assert "bleu is 8, and without a model 8.350" in found.words
    assert "by the answer 'nearest'" in found.words
    assert found.advice.endswith("; read the outputs with the lowest bleu in the report")
    # Items that were ranked are no outputs to read.
    ranked = diagnosed(tmp_path, curve, curve, tables=["All items ranked"], **scores)
    assert ranked is not None
    assert "report" not in ranked.advice
    assert "a higher optim.lr" in ranked.advice
    better = diagnosed(tmp_path, curve, curve, **scores | {"bleu": 8.4})
    assert better is not None
    assert better.verdict == "fine"
    rates = {"cer": 0.4, "cer_low_95": 0.3, "cer_high_95": 0.5, "baseline_empty_cer": 1.0}
    fine = diagnosed(tmp_path, curve, curve, **rates)
    assert fine is not None
    assert fine.verdict == "fine"
    worse = diagnosed(tmp_path, curve, curve, **rates | {"cer": 1.2})
    assert worse is not None
    assert "by the answer 'empty'" in worse.words
    alone = {name: value for name, value in scores.items() if not name.startswith("baseline")}
    nothing_beside = diagnosed(tmp_path, curve, curve, **alone)
    assert nothing_beside is not None
    assert nothing_beside.verdict == "fine"
