"""A tokenizer for what is read and another for what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import tiny_run

from groundup import api
from groundup.contracts.ragged import ragged_rows
from groundup.contracts.two_tokenizers import HasTwoTokenizers, tokenizers_of
from groundup.core.errors import CheckpointError, DataError, RecipeError, RunError
from groundup.core.settings import validate
from groundup.core.values import Document, Example
from groundup.models.encoder_decoder import EncoderDecoderConfig
from groundup.models.gpt import GPTConfig
from groundup.processors.text.bpe import BPEConfig
from groundup.processors.text.bytes import BytesConfig
from groundup.processors.text.two_tokenizers import TwoTokenizers, TwoTokenizersConfig
from groundup.runs.processor import load_processor
from groundup.tasks.text_to_text.task import TextToText

PAIRS = [
    Example("a", "One two three", "\u4e00\u4e8c\u4e09", predicts_text=True),
    Example("b", "Two one", "\u4e8c\u4e00", predicts_text=True),
]
SETTINGS: dict[str, Any] = {"source": {"name": "bytes"}, "target": {"name": "characters"}}


def fitted(**settings: Any) -> TwoTokenizers:
    config = validate(TwoTokenizersConfig, SETTINGS | settings, "recipe.processor")
    return config.fit(lambda: iter(PAIRS))


def model_for(processor: Any, **settings: Any) -> EncoderDecoderConfig:
    config = EncoderDecoderConfig(width=16, heads=2, layers=1, **settings)
    return config.complete_from(processor)


def test_each_side_has_its_own_tokens(tmp_path: Path) -> None:
    processor = fitted()
    source, target = tokenizers_of(processor)
    # Of the side's texts alone: no letter of the inputs is a token of the outputs.
    assert target.vocabulary_size - source.vocabulary_size == 3
    assert target.decode(target.encode_batch(["\u4e8c"])[0].tolist()) == "\u4e8c"
    assert len(target.encode_batch(["\u4e8c"])[0]) == 1
    assert processor.vocabulary_size == target.vocabulary_size
    processor.save(tmp_path)
    again = load_processor(tmp_path)
    assert isinstance(again, HasTwoTokenizers)
    assert again.source.vocabulary_size == source.vocabulary_size
    assert (
        again.target.encode_batch(["\u4e09"])[0].tolist()
        == target.encode_batch(["\u4e09"])[0].tolist()
    )


def test_a_tokenizer_from_a_file_and_one_that_is_learned(tmp_path: Path) -> None:
    texts = ["one two three", "two one"]
    BPEConfig(vocab_size=270).fit(lambda: iter(texts)).save(tmp_path / "existing")
    path = str(tmp_path / "existing" / "tokenizer.json")
    section = {"name": "tokenizer_json", "path": path, "end_token": "<|endoftext|>"}
    processor = fitted(source=section)
    processor.save(tmp_path / "saved")
    again: Any = load_processor(tmp_path / "saved")
    found = again.source.encode_batch(texts)[0].tolist()
    assert found == processor.source.encode_batch(texts)[0].tolist()
    assert again.source.decode(found) == texts[0]


def test_rows_and_what_is_cut() -> None:
    processor = fitted()
    task = validate(TextToText, {"max_source_tokens": 6, "metrics": []}, "recipe.task")
    batch = task.encode(PAIRS, processor)
    source, target = tokenizers_of(processor)
    assert [source.decode(r.tolist()) for r in ragged_rows(batch, "source")] == ["One t", "Two o"]
    found = [target.decode(row.tolist()) for row in ragged_rows(batch, "target")]
    assert found == [pair.target for pair in PAIRS]
    # One list for both, which whoever asks the processor reads.
    (note,) = processor.cut.notes()
    assert "2 of 2 source texts are longer than max_source_tokens 6" in note


def test_the_model_has_an_embedding_for_each() -> None:
    processor = fitted()
    config = model_for(processor)
    assert config.source_vocabulary_size == processor.source.vocabulary_size
    assert config.vocabulary_size == processor.target.vocabulary_size
    module = config.build()
    assert module.embed_source is not None
    assert len(module.embed_source.weight) == config.source_vocabulary_size
    assert len(module.output_weight) == config.vocabulary_size
    assert model_for(processor, source_vocabulary_size=300).source_vocabulary_size == 300
    one: Any = BytesConfig().fit(lambda: iter(()))
    assert model_for(one).source_vocabulary_size == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"copying": True},
            r"recipe\.model\.copying: needs one vocabulary, but inputs and outputs",
        ),
        (
            {"source_vocabulary_size": 9},
            r"source_vocabulary_size: the inputs. tokenizer has 262 tokens, but the model 9",
        ),
    ],
)
def test_models_that_cannot_have_two(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        model_for(fitted(), **settings)


def test_a_model_of_one_vocabulary_and_a_processor_of_one() -> None:
    with pytest.raises(RecipeError, match="and another for outputs, but model gpt has one vocab"):
        GPTConfig().complete_from(fitted())
    one: Any = BytesConfig().fit(lambda: iter(()))
    with pytest.raises(RecipeError, match="source_vocabulary_size: is 9, but the processor has"):
        model_for(one, source_vocabulary_size=9)
    with pytest.raises(ValueError, match="copying needs one vocabulary: a token of the input"):
        EncoderDecoderConfig(vocabulary_size=9, source_vocabulary_size=9, copying=True)
    with pytest.raises(ValueError, match="padding_id 9 is no token of the inputs"):
        EncoderDecoderConfig(vocabulary_size=12, source_vocabulary_size=9, padding_id=9)
    config = model_for(fitted(), positions="relative")
    with pytest.raises(CheckpointError, match="inputs and outputs share an embedding, but the"):
        config.weights_from_huggingface({"shared.weight": config.build().embed.weight})


def test_what_is_no_tokenizer_and_no_pair(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"processor\.target\.name: is image, which reads no te"):
        fitted(target={"name": "image"})
    with pytest.raises(RecipeError, match=r"processor\.source\.name: is required and missing"):
        fitted(source={"vocab_size": 300})
    config = validate(TwoTokenizersConfig, SETTINGS, "recipe.processor")
    message = "two_tokenizers learns from pairs of texts, but the data gives Document objects that"
    with pytest.raises(DataError, match=message):
        config.fit(lambda: iter([Document("a", "a text")]))
    with pytest.raises(RecipeError, match="Nothing makes no tokens, which texts are read as"):
        tokenizers_of(type("Nothing", (), {})())
    processor = fitted()
    processor.save(tmp_path)
    (tmp_path / "target" / "processor.json").write_text('{"name": "image"}', encoding="utf-8")
    with pytest.raises((DataError, RunError)):
        load_processor(tmp_path)


@pytest.mark.slow
def test_a_run_of_two_tokenizers(tmp_path: Path) -> None:
    recipe = tiny_run("encoder_decoder", tmp_path)
    recipe["processor"] = {
        "name": "two_tokenizers",
        "source": {"name": "bpe", "vocab_size": 300},
        "target": {"name": "characters"},
    }
    recipe["training"] = {"batch_size": 16, "steps": 3}
    recipe["task"] |= {"metrics": ["rouge_l"], "measured": 4, "evaluated": 4}
    api.inspect_data(recipe, examples=1, limit=20)
    run = api.train(recipe, runs=tmp_path)
    assert sorted(p.name for p in (run.folder / "processor").iterdir()) == [
        "processor.json",
        "source",
        "target",
    ]
    predictor = api.load(run.folder)
    assert isinstance(predictor("_@@_", max_new_tokens=4), str)
    api.evaluate(run.folder)
    found = json.loads((run.folder / "evaluation.json").read_text(encoding="utf-8"))
    assert "rouge_l" in found["metrics"]
    saved = json.loads((run.folder / "model" / "config.json").read_text(encoding="utf-8"))
    assert saved["source_vocabulary_size"] == 300
