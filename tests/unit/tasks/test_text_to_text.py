"""Text to text: rows, losses, predictions that never see targets, metrics by what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import tiny_run, without_chance

from groundup import api
from groundup.contracts.ragged import ragged_rows
from groundup.contracts.tasks import MeasuresOutputs
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.models.encoder_decoder import EncoderDecoderConfig
from groundup.processors.text.bytes import BytesConfig
from groundup.tasks.text_to_text.task import TextToText

EXAMPLES = [
    Example("a", "One two three", "Three", predicts_text=True),
    Example("b", "Four", "4, a number", predicts_text=True),
    Example("c", "Five six", "56", predicts_text=True),
]


def task(**settings: Any) -> TextToText:
    return validate(TextToText, {"metrics": ["rouge_l"], **settings}, "recipe.task")


def parts() -> tuple[Any, Any]:
    """Return a tokenizer, and a small random model for it."""
    processor: Any = BytesConfig().fit(lambda: iter(()))
    torch.manual_seed(0)
    config = EncoderDecoderConfig(width=16, heads=2, layers=1, init_std=0.3, dropout=0.0)
    return processor, config.complete_from(processor).build()


def test_what_is_read_and_written() -> None:
    processor, model = parts()
    chosen = task(prefix="> ", max_source_tokens=8, max_target_tokens=6)
    batch = chosen.encode(EXAMPLES, processor)
    texts = [processor.decode(row.tolist()) for row in ragged_rows(batch, "source")]
    assert texts == ["> One t", "> Four", "> Five "]
    targets = ragged_rows(batch, "target")
    assert [processor.decode(row.tolist()) for row in targets] == ["Three", "4, a ", "56"]
    # A text that was cut ends, too: the model writes no more than it is taught to.
    assert {int(row[-1]) for row in targets} == {processor.end_id}
    notes = " ".join(processor.cut.notes())
    assert "2 of 3 source texts are longer than max_source_tokens 8 and cut" in notes
    assert "1 of 3 target texts are longer than max_target_tokens 6 and cut" in notes
    inputs = chosen.inputs(batch)
    assert inputs["source_mask"].sum(1).tolist() == [8, 7, 8]
    assert inputs["targets"][2].tolist()[-3:] == [-100, -100, -100]
    assert model.start_id == processor.begin_id


def test_where_a_long_input_is_cut() -> None:
    processor, _ = parts()
    chosen = task(max_source_tokens=8, source_cut="middle", suffix="!", max_target_tokens=4)
    batch = chosen.encode(EXAMPLES, processor)
    texts = [processor.decode(row.tolist()) for row in ragged_rows(batch, "source")]
    # Six characters: three of the beginning, three of the end.
    assert texts == ["Oneree!", "Four!", "Fivsix!"]
    # Outputs are written from the beginning on, and lose their end.
    assert processor.decode(ragged_rows(batch, "target")[0].tolist()) == "Thr"


def test_tokens_of_languages() -> None:
    processor, model = parts()
    first, second = list(processor.special_tokens.items())[:2]
    chosen = task(source_token=first[0], target_token=second[1])
    batch = chosen.encode(EXAMPLES, processor)
    assert {int(row[0]) for row in ragged_rows(batch, "source")} == {first[1]}
    assert {int(row[0]) for row in ragged_rows(batch, "target")} == {second[1]}
    assert processor.decode(ragged_rows(batch, "target")[0].tolist()) == "Three"
    chosen.check_model(model, processor)
    plain = task().predict(model, "One", processor, max_new_tokens=5)
    forced = chosen.predict(model, "One", processor, max_new_tokens=5)
    assert forced != plain
    # One that is asked for comes before the task's own.
    asked = chosen.predict(model, "One", processor, max_new_tokens=1, first_token=66)
    assert asked == "B"


def test_tokens_of_languages_that_the_tokenizer_lacks() -> None:
    processor, model = parts()
    with pytest.raises(RecipeError) as caught:
        task(target_token="deu_Latn").check_model(model, processor)
    assert str(caught.value).startswith(
        "recipe.task.target_token: 'deu_Latn' is no special token of the tokenizer; it has: <|"
    )
    with pytest.raises(RecipeError, match=r"source_token: is 9999; allowed: 0 to \d+\. Correct it"):
        task(source_token=9999).check_model(model, processor)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_are_those_of_the_logits(smoothing: float) -> None:
    processor, model = parts()
    chosen = task(label_smoothing=smoothing)
    batch = chosen.encode(EXAMPLES, processor)
    loss = chosen.loss(model(**chosen.inputs(batch)), batch)
    logits = model(**chosen.prediction_inputs(batch))
    kept = chosen.predicted(batch)
    targets = chosen.inputs(batch)["targets"][kept]
    wanted = torch.nn.functional.cross_entropy(
        logits[kept], targets, reduction="sum", label_smoothing=smoothing
    )
    torch.testing.assert_close(loss.terms["target"].total, wanted, rtol=1e-5, atol=1e-4)
    each = chosen.example_losses(logits, batch)
    torch.testing.assert_close(each.sum(), wanted, rtol=1e-5, atol=1e-4)
    again = chosen.prediction_loss(logits, batch).terms["target"]
    torch.testing.assert_close(again.total, wanted, rtol=1e-5, atol=1e-4)
    assert float(again.count) == kept.sum() == chosen.counts(batch)["target"]
    plain = torch.nn.functional.cross_entropy(logits[kept], targets)
    found = chosen.summarise(
        {"target": (1.0, float(kept.sum())), "plain": (float(loss.metrics["plain"]), 1.0)}
    )
    assert found["loss"] == pytest.approx(plain.item(), rel=1e-5)
    assert chosen.distils == ("" if smoothing else "output tokens")
    # By bytes of the references: their ends are in the loss, and have none.
    size = chosen.count_bytes(batch, processor)
    assert size == sum(len(str(example.target)) for example in EXAMPLES)
    nats = float(loss.metrics["plain"])
    found = chosen.summarise({"target": (1.0, 1.0), "plain": (nats, 1.0), "bytes": (size, 1.0)})
    assert found["bits_per_byte"] == pytest.approx(nats / size / np.log(2))


@pytest.mark.slow
def test_predictions_are_of_the_input_alone() -> None:
    processor, model = parts()
    chosen = task(max_target_tokens=9)
    sources = [example.inputs for example in EXAMPLES]
    together = chosen.predict(model, sources, processor)
    assert [chosen.predict(model, each, processor) for each in sources] == together
    best = chosen.predict(model, sources[0], processor, beams=3, n_best=2)
    assert [sorted(each) for each in best] == [["score", "text"]] * 2
    assert best[0]["score"] >= best[1]["score"]
    assert chosen.predict(model, sources[0], processor, beams=3) == best[0]["text"]
    drawn = [
        chosen.predict(model, sources[0], processor, temperature=2.0, seed=n) for n in range(3)
    ]
    assert len(set(drawn)) > 1
    cut = chosen.predict(model, sources, processor, stop=[together[0][:2]])
    assert cut[0] == ""
    # Other references, the same outputs: they are read for the metric alone.
    others = [Example(e.name, e.inputs, "x", predicts_text=True) for e in EXAMPLES]
    assert isinstance(chosen, MeasuresOutputs)
    assert chosen.measure(model, others, processor) == {"rouge_l": 0.0}
    right = [
        Example(e.name, e.inputs, f"{text} a", predicts_text=True)
        for e, text in zip(EXAMPLES, together, strict=True)
    ]
    assert chosen.measure(model, right, processor)["rouge_l"] > 0.0


@pytest.mark.slow
def test_a_metric_chooses_the_best_checkpoint(tmp_path: Path) -> None:
    recipe = without_chance(tiny_run("encoder_decoder", tmp_path))
    recipe["task"] |= {"metrics": ["rouge_l"], "measured": 4, "evaluated": 6}
    changes = {
        "checkpoints.best_metric": "rouge_l",
        "training.steps": 4,
        "evaluation.every": 2,
    }
    run = api.train(recipe, changes, runs=tmp_path)
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["kind"] == "evaluate"]
    assert all({"loss", "perplexity", "rouge_l"} <= set(row) for row in rows)
    steps = [row for row in map(json.loads, lines) if row["kind"] == "train"]
    # The work of the tokens that there are, far below that of a row as long as the context.
    of_token = run.recipe.model.flops_per_token(10)
    for row in steps:
        assert 0.5 < row["flops_per_s"] / row["tokens_per_s"] / of_token < 2
    found = api.evaluate(run.folder)["runs"][0]["evaluation"]
    metrics = found["metrics"]
    assert metrics["held_out_examples"] == 6
    assert metrics["rouge_l_low_95"] <= metrics["rouge_l"] <= metrics["rouge_l_high_95"]
    for way in ("copy", "nearest", "lead", "longest"):
        assert 0 <= metrics[f"baseline_{way}_rouge_l"] <= 1
    comparison, worst = found["tables"]
    assert [row[0] for row in comparison["rows"]] == [
        "this model",
        "copy",
        "nearest",
        "lead",
        "longest",
    ]
    assert len(worst["rows"]) == 6
    predictor = api.load(run.folder)
    assert isinstance(predictor("_@@_"), str)


@pytest.mark.slow
def test_a_classifier_is_another_model(tmp_path: Path) -> None:
    recipe = tiny_run("encoder_decoder", tmp_path) | {"task": "classify", "data": "arrays"}
    message = "encoder_decoder writes texts, but the task asks for labels"
    with pytest.raises(RecipeError, match=message):
        api.train(recipe | {"processor": "image"}, runs=tmp_path)


@pytest.mark.slow
def test_an_adapter(tmp_path: Path) -> None:
    recipe = tiny_run("encoder_decoder", tmp_path)
    base = api.train(recipe, {"name": "base", "training.steps": 2}, runs=tmp_path)
    kept = {key: value for key, value in recipe.items() if key not in ("model", "processor")}
    kept |= {"init": {"run": str(base.folder)}, "adapter": {"name": "lora", "rank": 2}}
    run = api.train(kept, {"training.steps": 2}, runs=tmp_path)
    names = set(run.checkpoints.load(run.pick("last")).model)
    assert any("blocks.1.cross_attention.query" in name for name in names)
    assert any("blocks.0.attention.query" in name for name in names)
    assert isinstance(api.load(run.folder)("_@@_"), str)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length_penalty": 2.0}, "length_penalty has no effect with one beam"),
        (
            {"min_new_tokens": 9, "max_target_tokens": 8},
            "min_new_tokens 9 is more than max_target_tokens 8",
        ),
        ({"metrics": ["rouge_l", "rouge_l"]}, "metrics names one twice"),
        ({"metrics": ["wer"]}, "bleu.*chrf.*rouge_1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        task(**settings)


def test_bad_inputs() -> None:
    processor, model = parts()
    with pytest.raises(DataError, match=r"inputs: a source text is empty. Write one"):
        task().predict(model, ["a", " "], processor)
    with pytest.raises(DataError, match=r"inputs: 3 is no text\. Give a text"):
        task().predict(model, 3, processor)
    with pytest.raises(DataError, match=r"a target text is empty"):
        task().encode([Example("a", "b", "", predicts_text=True)], processor)
    with pytest.raises(RecipeError, match="options: n_best 4 is more than beams 1"):
        task().predict(model, "a", processor, n_best=4)
    with pytest.raises(RecipeError, match="Linear has no encoder, but task text_to_text writes"):
        task().check_model(torch.nn.Linear(1, 1), processor)
