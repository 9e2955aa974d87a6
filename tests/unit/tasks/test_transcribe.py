"""Transcripts: rows, the loss of frames, what cannot be emitted, n-grams that travel, and
predictions that never see transcripts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_runs import tiny_run, without_chance

from groundup import api
from groundup.contracts.ragged import ragged_rows
from groundup.contracts.tasks import MeasuresOutputs
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Batch, Example
from groundup.metrics.error_rates import error_rates
from groundup.models.ctc import CTCConfig
from groundup.processors.speech import SpeechConfig, SpeechProcessor
from groundup.runs.processor import load_processor
from groundup.tasks.transcribe.checks import name_unlearned
from groundup.tasks.transcribe.rows import frame_targets
from groundup.tasks.transcribe.task import Transcribe

TEXTS = ["abba", "cab", "", "a cab", "bb"]


def frames(seed: int, count: int = 40) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)


EXAMPLES = [Example(f"e{n}", frames(n, 40 - 3 * n), text) for n, text in enumerate(TEXTS)]


def task(**settings: Any) -> Transcribe:
    return validate(Transcribe, settings, "recipe.task")


def parts(**settings: Any) -> tuple[SpeechProcessor, Any]:
    """Return a processor of features, and a small random model for it."""
    processor = SpeechConfig(features="given").fit(lambda: iter(EXAMPLES))
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"blocks": "bilstm", "layers": 1, "width": 12, "subsampling": 2}
    config = CTCConfig(**{**sizes, "dropout": 0.0, **settings})
    return processor, config.complete_from(processor).build()


def encoded(chosen: Transcribe, processor: SpeechProcessor) -> Batch:
    return chosen.encode(EXAMPLES, processor)


def test_what_is_read_and_learned() -> None:
    processor, _ = parts()
    batch = encoded(task(), processor)
    assert batch["lengths"].tolist() == [40, 37, 34, 31, 28]
    rows = ragged_rows(batch, "text")
    assert [processor.tokenizer.decode(row.tolist()) for row in rows] == TEXTS
    assert {int(row[-1]) for row in rows} == {processor.tokenizer.end_id}
    read = task().inputs(batch)
    assert read["inputs"].shape == (5, 40, 6)
    assert not read["inputs"][4, 28:].any()
    targets = frame_targets(batch)
    assert targets.tokens.tolist() == [4, 3, 0, 5, 2]
    # Two equal tokens need a blank between them.
    assert targets.needed.tolist() == [5, 3, 0, 5, 3]


def test_the_loss_and_its_gradients_are_those_of_torch() -> None:
    processor, model = parts()
    chosen = task()
    batch = encoded(chosen, processor)
    loss = chosen.loss(chosen.forward(model, batch), batch)
    loss.terms["target"].total.backward()  # type: ignore[no-untyped-call]
    found = {name: each.grad.clone() for name, each in model.named_parameters()}
    model.zero_grad()
    total = torch.zeros(())
    for example in EXAMPLES:
        alone = processor.encode_inputs([example.inputs])
        logits = model(**alone)
        tokens = processor.tokenizer.encode_batch([example.target])[0].tolist()
        total = total + torch.nn.functional.ctc_loss(
            logits.log_softmax(-1).transpose(0, 1),
            torch.tensor([tokens], dtype=torch.int64),
            torch.tensor([logits.shape[1]]),
            torch.tensor([len(tokens)]),
            blank=model.blank_id,
            reduction="sum",
        )
    total.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss.terms["target"].total, total, rtol=1e-5, atol=1e-5)
    for name, each in model.named_parameters():
        # sums of hundreds of terms up to 1: in which order depends on where they are in memory
        torch.testing.assert_close(found[name], each.grad, rtol=1e-4, atol=1e-4)
    assert float(loss.terms["target"].count) == sum(map(len, TEXTS)) + 5
    assert chosen.summarise({"plain": (30.0, 0.0), "target": (30.0, 15.0)}) == {"loss": 2.0}


def test_a_transcript_that_cannot_be_emitted_is_refused_or_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Of 40 frames 5 are left, and "a cab" and "abba" need as many; of 31 frames there are 4.
    processor, model = parts(subsampling=8)
    batch = encoded(task(), processor)
    outputs = task().forward(model, batch)
    assert outputs.lengths.tolist() == [5, 5, 5, 4, 4]
    with pytest.raises(
        DataError,
        match=r"transcript 'a cab': has 5 tokens, which need 5 frames, but its 0\.31 seconds of"
        r" sound give 4\. Lower model\.subsampling .* task\.on_too_long: skip",
    ):
        task().build_objective(model, processor)(outputs, batch)
    skips = task(on_too_long="skip")
    objective = skips.build_objective(model, processor)
    with caplog.at_level(logging.WARNING, "groundup"):
        loss = objective(outputs, batch)
        objective(outputs, batch)
    named = [record.getMessage() for record in caplog.records]
    assert len(named) == 1
    assert "transcript 'a cab' has 5 tokens" in named[0]
    assert "it is left out" in named[0]
    assert float(loss.metrics["left_out"]) == 1
    assert torch.isfinite(loss.terms["target"].total)
    # Neither its loss nor its tokens count.
    kept = [each for each in EXAMPLES if each.target != "a cab"]
    batch = skips.encode(kept, processor)
    wanted = skips.loss(skips.forward(model, batch), batch).terms["target"]
    torch.testing.assert_close(loss.terms["target"].total, wanted.total)
    assert float(loss.terms["target"].count) == float(wanted.count)
    sums = {"plain": (30.0, 0.0), "target": (30.0, 15.0), "left_out": (1.0, 0.0)}
    assert skips.summarise(sums) == {"loss": 2.0, "left_out": 1.0}


def test_where_none_is_left_the_loss_is_nothing() -> None:
    processor, model = parts(subsampling=8)
    skips = task(on_too_long="skip")
    batch = skips.encode([EXAMPLES[3]], processor)
    loss = skips.loss(skips.forward(model, batch), batch).terms["target"]
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert float(loss.total.detach()) == float(loss.count) == 0
    assert all(torch.isfinite(each.grad).all() for each in model.parameters())


def test_padding_and_neighbours_change_no_prediction() -> None:
    processor, model = parts()
    inputs = [example.inputs for example in EXAMPLES]
    together = task().predict(model, inputs, processor)
    for number, each in enumerate(inputs):
        assert task().predict(model, each, processor) == together[number]
        assert task(beams=4).predict(model, each, processor)["text"] is not None


def test_predictions_do_not_depend_on_transcripts(tmp_path: Path) -> None:
    recipe = without_chance(tiny_run("ctc", tmp_path)) | {
        "training": {"batch_size": 16, "steps": 2}
    }
    run = api.train(recipe, runs=tmp_path / "runs")
    predictor = api.load(run.folder)
    assert isinstance(predictor.task, MeasuresOutputs)
    found = predictor.evaluate()
    examples = list(predictor.run.recipe.data.examples("validation", tmp_path))
    texts = [row["text"] for row in predictor([each.inputs for each in examples])]
    references = [str(each.target) for each in examples]
    assert found.metrics["cer"] == error_rates(["cer"], texts, references)["cer"]
    assert {"baseline_empty_cer", "baseline_most_frequent_cer", "baseline_nearest_cer"} <= set(
        found.metrics
    )
    assert found.metrics["baseline_empty_cer"] == 1
    titles = [table.title for table in found.tables]
    assert titles[0] == "Transcripts next to those without a model"
    assert "jiwer" in found.tables[0].note


def test_words_have_times() -> None:
    processor, model = parts()
    blank, ids = model.blank_id, processor.tokenizer.encode_batch(["ab c"])[0].tolist()
    # A frame of the output is 20 ms here.
    symbols = [blank, ids[0], ids[0], ids[1], blank, ids[2], blank, ids[3], ids[3], blank]

    class Spoken(torch.nn.Linear):
        reach = 2
        blank_id = blank

        def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
            return (lengths + 1) // 2

        def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            rows = torch.nn.functional.one_hot(torch.tensor([symbols]), blank + 1)
            return 20.0 * rows.float()

    found = task().predict(Spoken(1, 1), frames(0, 20), processor)
    assert found == {
        "text": "ab c",
        "words": [
            {"word": "ab", "begin_s": 0.02, "end_s": 0.08},
            {"word": "c", "begin_s": 0.14, "end_s": 0.18},
        ],
    }


def test_ngrams_are_learned_and_travel(tmp_path: Path) -> None:
    chosen = task(ngram=3, beams=4, ngram_weight=0.7)
    plain, model = parts()
    processor = chosen.fit_processor(plain, lambda: iter(EXAMPLES))
    assert plain.ngrams is None
    processor.save(tmp_path)
    again: Any = load_processor(tmp_path)
    assert again.ngrams.order == 3
    tokens = plain.tokenizer.encode_batch(["cab"])[0].tolist()
    assert again.ngrams.text_log_prob(tokens) == processor.ngrams.text_log_prob(tokens)
    found = chosen.predict(model, EXAMPLES[0].inputs, again, n_best=3)
    scores = [each["score"] for each in found["alternatives"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3
    assert found["alternatives"][0]["text"] == found["text"]
    # With a weight of nothing, as if there were none.
    without = task(beams=4).predict(model, EXAMPLES[0].inputs, plain, n_best=3)
    assert chosen.predict(model, EXAMPLES[0].inputs, again, n_best=3, ngram_weight=0.0) == without


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ngram": 3}, "ngram has no effect with one beam"),
        ({"overlap_seconds": 20.0}, "overlap_seconds 20 is more than half of window_seconds 30"),
        ({"metrics": ["cer", "cer"]}, "metrics names one twice"),
        ({"length_bonus": 1.0}, "length_bonus has no effect with ngram: 0"),
    ],
)
def test_settings_without_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        task(**settings)


def test_settings_of_the_other_kind_of_model() -> None:
    processor, model = parts()
    for name, value in (("max_target_tokens", 9), ("label_smoothing", 0.1)):
        with pytest.raises(RecipeError, match=rf"recipe\.task\.{name}: has no effect with CTC"):
            task(**{name: value}).check_model(model, processor)
    with pytest.raises(RecipeError, match="Linear neither emits frames nor reads sounds"):
        task().check_model(torch.nn.Linear(1, 1), processor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.7}, r"options\.temperature: is 0\.7, but CTC searches"),
        ({"ngram_weight": 1.0}, r"options\.ngram_weight: has no effect: the run learned no"),
        ({"n_best": 3, "beams": 2}, r"options\.n_best: is 3, but there are 2 beams"),
        ({"top_k": 3}, r"options\.top_k: unknown key"),
    ],
)
def test_options_without_sense(options: dict[str, Any], message: str) -> None:
    processor, model = parts()
    with pytest.raises((DataError, RecipeError), match=message):
        task().predict(model, EXAMPLES[0].inputs, processor, **options)


def test_what_is_no_transcript_or_no_speech() -> None:
    processor, _ = parts()
    with pytest.raises(DataError, match=r"e9: its transcript is 7, which is no text"):
        task().encode([Example("e9", frames(1), 7)], processor)
    with pytest.raises(RecipeError, match="makes no frames with transcripts, which task transcr"):
        task().fit_processor(object(), lambda: iter(()))
    chosen = task(augmentation={"speed": 0.1})
    with pytest.raises(RecipeError, match=r"recipe\.task\.augmentation\.speed: does nothing"):
        chosen.fit_processor(processor, lambda: iter(EXAMPLES))
    with pytest.raises(RecipeError, match="makes no frames with transcripts, which model ctc"):
        CTCConfig().complete_from(object())  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="frame_width or vocabulary_size is 0"):
        CTCConfig().build()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": 4}, r"kernel 4 is even\. Use 5"),
        ({"blocks": "bilstm", "width": 15}, r"width 15 is odd, but each direction has half"),
        ({"blocks": "bilstm", "heads": 2}, "heads has no effect with blocks"),
        ({"width": 30, "heads": 4}, "width 30 is not a multiple of heads 4"),
    ],
)
def test_shapes_that_are_not_possible(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate(CTCConfig, settings, "recipe.model")


def test_damaged_ngrams_are_named(tmp_path: Path) -> None:
    processor = task(ngram=2, beams=2).fit_processor(parts()[0], lambda: iter(EXAMPLES))
    processor.save(tmp_path)
    (tmp_path / "ngrams.json").write_text('{"order": 2}', encoding="utf-8")
    with pytest.raises(DataError, match=r"ngrams\.json: is damaged: KeyError"):
        load_processor(tmp_path)


@pytest.mark.slow
def test_a_long_recording_has_one_text() -> None:
    processor, model = parts()
    long = np.concatenate([frames(n, 400) for n in range(20)])
    chosen = task(window_seconds=2.0, overlap_seconds=0.5)
    assert chosen.predict(model, long, processor)["text"]


def test_the_work_of_frames_is_not_told_by_the_tokens(tmp_path: Path) -> None:
    """What CTC computes depends on the frames, which are not counted: no rate is better than one
    that is a hundred times too low."""
    run = api.train(tiny_run("ctc", tmp_path), {"training.steps": 2}, runs=tmp_path / "runs")
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["kind"] == "train"]
    assert rows
    assert all("tokens_per_s" in row and "flops_per_s" not in row for row in rows)


def test_what_a_model_cannot_write_is_found_before_training() -> None:
    processor, model = parts(subsampling=4)
    chosen = task()
    long = [*EXAMPLES, Example("long", frames(9, 12), "abc" * 4)]
    assert chosen.beyond_frames(model, chosen.encode(long, processor)) == [5]
    assert chosen.beyond_frames(torch.nn.Linear(1, 1), chosen.encode(long, processor)) == []
    found = name_unlearned(["abba", "zürich", "zoo"], processor)
    assert found.startswith("8 characters of references are in no training transcript: 'z', 'o', ")
    assert not name_unlearned(["a cab"], processor)
    assert not name_unlearned(["zoo"], object())
