"""Several labels, weights of classes, what is drawn of an evaluation, and how a classifier is
summed up."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from html_pages import HOSTILE, parsed
from PIL import Image
from rich.console import Console
from torch import nn

import groundup
from groundup.contracts.tasks import EvaluationContext
from groundup.core.values import Example
from groundup.data.sources.arrays import Arrays
from groundup.media.png import encode_png
from groundup.processors.class_targets import MultiLabel, SingleLabel
from groundup.processors.image import ImageConfig
from groundup.processors.labelled import with_targets
from groundup.processors.targets import targets_from_json
from groundup.reports.console_summary import print_summary
from groundup.reports.figures import draw_figure
from groundup.tasks.classify.class_weights import class_weights
from groundup.tasks.classify.task import Classify
from groundup.tasks.multitask.parts import NoInputs

DIGITS = Arrays().examples("train", Path())[:300]


def shapes_of(example: Example) -> str:
    """Return what the digit is, as labels: even, large."""
    return "|".join(
        name
        for name, yes in (("even", example.target % 2 == 0), ("large", example.target > 4))
        if yes
    )


SEVERAL = [Example(e.name, e.inputs, shapes_of(e), e.origin) for e in DIGITS]


def judged(task: Classify, examples: list[Example], sharpness: float = 1.0) -> Any:
    processor = task.fit_processor(
        ImageConfig().fit(lambda: iter(examples)), lambda: iter(examples)
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, processor.outputs))
    batch = task.encode(examples[:150], processor)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(40):
        term = task.loss(model(batch["inputs"]), batch).terms["label"]
        optimizer.zero_grad()
        (term.total / term.count).backward()
        optimizer.step()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(sharpness)
    named = Named(model)
    context = EvaluationContext(
        named, processor, lambda split: examples[:150] if split == "train" else examples[150:], 0
    )
    return task.evaluate(context), named, processor


class Named(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.model(inputs)


# ------------------------------------------------------------------------------------ class weights
def test_class_weights_by_hand() -> None:
    assert class_weights([1, 1, 2], "none", 0.9).tolist() == [1, 1, 1]
    balanced = class_weights([10, 30, 0], "balanced", 0.9)
    assert balanced.tolist() == pytest.approx([40 / (2 * 10), 40 / (2 * 30), 0])
    effective = class_weights([10, 1000], "effective", 0.99)
    numbers = [(1 - 0.99**n) / (1 - 0.99) for n in (10, 1000)]
    assert float(effective[0] / effective[1]) == pytest.approx(numbers[1] / numbers[0])
    for weights, counts in ((balanced, [10, 30, 0]), (effective, [10, 1000])):
        assert float((weights * torch.tensor(counts)).sum()) == pytest.approx(sum(counts))
    torch.testing.assert_close(class_weights([10, 1000], "effective", 0.0), torch.ones(2))


def test_the_weighted_loss_is_torchs_however_the_batch_is_cut() -> None:
    rare = [e for e in DIGITS if e.target < 3][:40] + [e for e in DIGITS if e.target == 9][:5]
    task = Classify(class_weights="balanced", label_smoothing=0.1)
    processor = task.fit_processor(ImageConfig().fit(lambda: iter(rare)), lambda: iter(rare))
    batch = task.encode(rare, processor)
    assert set(task.inputs(batch)) == {"inputs"}
    assert set(batch) == set(task.batch_spec)
    outputs = torch.randn(len(rare), processor.outputs, generator=torch.Generator().manual_seed(0))
    weights = class_weights(processor.targets.counts, "balanced", 0.0)  # type: ignore[attr-defined]
    plain = F.cross_entropy(outputs, batch["labels"], weights)
    own = Classify(class_weights="balanced").loss(outputs, batch).terms["label"]
    torch.testing.assert_close(own.total / own.count, plain)
    whole = task.loss(outputs, batch)
    cut = [
        task.loss(outputs[i : i + 9], {n: v[i : i + 9] for n, v in batch.items()})
        for i in range(0, len(rare), 9)
    ]
    torch.testing.assert_close(
        sum(each.terms["label"].total for each in cut), whole.terms["label"].total
    )
    torch.testing.assert_close(
        sum(each.terms["label"].count for each in cut), whole.terms["label"].count
    )
    assert sum(float(each.metrics["examples"]) for each in cut) == len(rare)


def test_counts_travel_with_the_classes() -> None:
    fitted = SingleLabel.fit(["a", "b", "a"])
    again = targets_from_json(json.loads(json.dumps(fitted.to_json())))
    assert (again.labels, again.counts) == (("a", "b"), (2, 1))  # type: ignore[attr-defined]
    assert MultiLabel.fit(["a|b", ["a"], "", "a|a"]).counts == (3, 1)
    assert targets_from_json({"kind": "class", "labels": ["a"]}).counts == ()  # type: ignore[attr-defined]
    base = with_targets(
        NoInputs(), lambda: iter([Example("x", 0, label) for label in "aabc"]), SingleLabel.fit, 0
    )
    other = with_targets(
        base, lambda: iter([Example("x", 0, label) for label in "cab"[:2]]), SingleLabel.fit, 0
    )
    assert (other.labels, other.targets.counts) == (("a", "b", "c"), (1, 0, 1))  # type: ignore[attr-defined]


# ----------------------------------------------------------------------------------- several labels
@pytest.mark.slow
def test_several_labels_are_learned_judged_and_predicted() -> None:
    task = Classify(labels="multi_label", label_smoothing=0.1)
    found, model, processor = judged(task, SEVERAL)
    assert processor.labels == ("even", "large")
    assert found.metrics["subset_accuracy"] > 0.6
    assert found.metrics["macro_auroc"] > 0.85
    assert found.metrics["training_subset_accuracy"] > 0.6
    assert [table.title for table in found.tables] == ["Labels", "Most confidently wrong"]
    assert [figure.kind for figure in found.figures] == ["reliability", "pictures"]
    answers = task.predict(model, [e.inputs for e in SEVERAL[:20]], processor)
    wanted = [set(e.target.split("|")) - {""} for e in SEVERAL[:20]]
    assert sum(set(a) == w for a, w in zip(answers, wanted, strict=True)) > 10
    assert len(task.predict(model, SEVERAL[0].inputs, processor, top=2)) == 2


def test_the_loss_of_several_labels_is_torchs() -> None:
    task = Classify(labels="multi_label")
    outputs, labels = torch.randn(7, 3), torch.randint(2, (7, 3)).float()
    loss = task.loss(outputs, {"labels": labels})
    expected = F.binary_cross_entropy_with_logits(outputs, labels)
    torch.testing.assert_close(loss.terms["label"].total / loss.terms["label"].count, expected)
    right = ((outputs > 0) == (labels > 0)).all(1).sum()
    sums = {
        "label": (float(loss.terms["label"].total), 7.0),
        "right": (float(right), 1.0),
        "examples": (7.0, 1.0),
    }
    assert task.summarise(sums)["subset_accuracy"] == pytest.approx(float(right) / 7)
    assert task.batch_spec["labels"] == "float32 (B, K)"


# -------------------------------------------------------------------------------------- calibration
@pytest.mark.slow
def test_a_model_that_is_too_sure_gets_a_temperature_that_helps_the_other_half() -> None:
    found, model, processor = judged(Classify(), Arrays().examples("train", Path()), sharpness=20.0)
    metrics = found.metrics
    assert metrics["temperature"] > 2
    assert (
        metrics["other_half_calibration_error_with_temperature"]
        < metrics["other_half_calibration_error"]
    )
    sure, less = (
        Classify().predict(model, DIGITS[0].inputs, processor, top=1, temperature=t)[0]
        for t in (0.0, metrics["temperature"])
    )
    assert sure[0] == less[0]
    assert sure[1] > less[1]
    assert json.loads(json.dumps(metrics)) == metrics


# ------------------------------------------------------------------------------------------ drawing
@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3), (1, 1)])
def test_png_is_read_by_pillow(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    with Image.open(io.BytesIO(encode_png(pixels))) as picture:
        picture.load()
        np.testing.assert_array_equal(np.asarray(picture), pixels)


@pytest.mark.slow
def test_figures_are_drawn_and_escaped() -> None:
    found, _, _ = judged(Classify(), DIGITS)
    drawn = [str(draw_figure({**vars(figure)})) for figure in found.figures]
    for page in drawn:
        parsed(page.replace("<img", "<br"))
    assert "8 as 8: " in drawn[0]
    assert "on average" in drawn[1]
    assert "data:image/png;base64,iVBOR" in drawn[2]
    matrix = {"labels": [HOSTILE, "b"], "counts": [[1, 2], [0, 0]]}
    text = {"true": HOSTILE, "predicted": "b", "probability": 0.9, "name": HOSTILE, "text": HOSTILE}
    remote = {**text, "picture": "https://example.com/a.png"}
    for kind, content in (("matrix", matrix), ("pictures", {"items": [text, remote]})):
        page = str(
            draw_figure({"kind": kind, "title": HOSTILE, "content": content, "note": HOSTILE})
        )
        parsed(page)
        assert "&lt;script" in page
        assert "example.com" not in page


@pytest.mark.parametrize(
    "figure",
    [{}, {"kind": "matrix"}, {"kind": "reliability", "title": "a", "content": {"bins": 3}}],
)
def test_figures_that_cannot_be_drawn_are_left_out(figure: dict[str, Any]) -> None:
    assert draw_figure(figure) == ""


@pytest.mark.slow
def test_thirty_classes_can_be_drawn_and_of_more_the_worst() -> None:
    examples = [
        Example(e.name, e.inputs, f"class {n % 40:02d}", e.origin) for n, e in enumerate(DIGITS)
    ]
    found, _, _ = judged(Classify(), examples)
    assert len(found.figures[0].content["labels"]) == 30
    assert "30 classes of 40" in found.figures[0].note
    assert "rotate(-90)" in draw_figure(vars(found.figures[0]))
    assert found.metrics["top_5_accuracy"] > found.metrics["accuracy"]


@pytest.mark.slow
def test_a_classifiers_report_and_summary(tmp_path: Path) -> None:
    recipe = {
        **{
            "name": "tiny",
            "model": {"name": "mlp", "hidden": [32]},
            "processor": "image",
            "data": "arrays",
        },
        **{"task": {"name": "classify", "class_weights": "effective"}},
        **{
            "optim": {"lr": 1e-2},
            "training": {"batch_size": 32, "steps": 60},
            "logging": {"every": 1},
            "evaluation": {"every": 20},
        },
        **{"machine": {"precision": "fp32", "threads": 1, "compile": False}},
    }
    run = groundup.train(recipe, runs=tmp_path)
    summary = groundup.evaluate(run.folder)
    evaluation = json.loads((run.folder / "evaluation.json").read_text("utf-8"))
    assert 0.05 < evaluation["metrics"]["baseline_accuracy"] < 0.2
    assert evaluation["diagnosis"]["verdict"] in {
        "too short",
        "underfitting",
        "overfitting",
        "noisy validation",
        "fine",
    }
    page = (run.folder / "report.html").read_text("utf-8")
    words = " ".join(parsed(page.replace("<img", "<br")).words)
    for expected in (
        "Confusion matrix",
        "Reliability",
        "Most confidently wrong",
        evaluation["diagnosis"]["words"],
    ):
        assert expected in words
    out = io.StringIO()
    print_summary(summary, Console(file=out, width=100, highlight=False))
    text = out.getvalue()
    for expected in (
        "On 322 held-out examples",
        "95%:",
        "always guessing the commonest class",
        "Most confused",
        evaluation["diagnosis"]["verdict"].capitalize(),
    ):
        assert expected in text
    assert summary["next"].startswith("groundup predict")
    assert summary["next"].endswith(" picture.png")
    assert "maximum calibration error" not in text
