"""Labels of words: files, pieces, the loss and logits that transformers gives, spans, runs, and
errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from encoder_folders import write_encoder
from pretrained_folders import transformers

import groundup
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.data.sources.token_labels import TokenLabels
from groundup.metrics.spans import are_spans, span_measures, spans_of
from groundup.models.bert import BERTConfig
from groundup.processors.class_targets import SingleLabel
from groundup.processors.labelled import Labelled
from groundup.processors.text.bytes import BytesConfig
from groundup.processors.text.tokenizer_json import TokenizerJSONConfig
from groundup.tasks.token_classification import TokenClassification

WORDS = ["A", "good", "unwatchable", "film", "!"]
LABELS = ["O", "O", "B-x", "I-x", "O"]
CONLL = (
    "-DOCSTART- -X- O\n\nA DT O\ngood JJ O\nunwatchable JJ B-x\nfilm NN I-x\n! . O\n\n\nbad JJ"
    " O\nfilm NN B-x\n"
)


def written(folder: Path, sentences: int = 30) -> str:
    rows = [{"tokens": [*WORDS, "!" * n], "labels": [*LABELS, "O"]} for n in range(1, sentences)]
    (folder / "a.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    return str(folder / "a.jsonl")


@pytest.mark.parametrize("name", ["a.conll", "a.txt", "a.tsv"])
def test_a_word_and_its_label_a_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(CONLL.replace(" ", "\t") if name == "a.tsv" else CONLL, encoding="utf-8")
    source = TokenLabels(path=str(path), fraction=0.5)
    found = [e for split in ("train", "validation") for e in source.examples(split, tmp_path)]  # type: ignore[arg-type]
    by_size = sorted(found, key=lambda example: -len(example.inputs))
    assert (list(by_size[0].inputs), by_size[0].target) == (WORDS, LABELS)
    assert by_size[1].inputs == ("bad", "film")
    assert by_size[1].origin == f"{path} line 10"


def test_tokens_logits_and_loss_are_those_of_transformers(tmp_path: Path) -> None:
    module = write_encoder(tmp_path, "ForTokenClassification", num_labels=3)
    processor = Labelled(
        TokenizerJSONConfig(path=str(tmp_path)).fit(lambda: iter(())),
        SingleLabel(["B-x", "I-x", "O"]),
        8,
        head="tokens",
    )
    sentences = [WORDS, ["bad", "unwatchable", "unwatchable", "unwatchable", "film"]]
    labels = [LABELS, ["O", "B-x", "I-x", "B-x", "O"]]
    examples = [
        Example("", tuple(words), own) for words, own in zip(sentences, labels, strict=True)
    ]
    batch = TokenClassification().encode(examples, processor)
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path)(
        sentences,
        is_split_into_words=True,
        padding=True,
        truncation=True,
        max_length=8,
        return_tensors="pt",
    )
    assert torch.equal(batch["tokens"], inputs["input_ids"])
    expected = torch.full_like(batch["tokens"], -100)
    for row, own in enumerate(labels):
        for place, word in enumerate(inputs.word_ids(row)):
            if word is not None and word != inputs.word_ids(row)[place - 1]:
                expected[row, place] = ["B-x", "I-x", "O"].index(own[word])
    assert torch.equal(batch["labels"], expected)
    settings = BERTConfig.from_huggingface(json.loads((tmp_path / "config.json").read_text()))
    model = validate(BERTConfig, settings, "recipe.model").build().eval()
    model.load_state_dict(model.config.weights_from_huggingface(module.state_dict()))
    theirs = module(**inputs, labels=expected)
    outputs = model(**TokenClassification().inputs(batch))
    inside = inputs["attention_mask"].bool()
    torch.testing.assert_close(outputs[inside], theirs.logits[inside], rtol=1e-5, atol=1e-6)
    term = TokenClassification().loss(outputs, batch).terms["word"]
    torch.testing.assert_close(term.total / term.count, theirs.loss)


def test_spans() -> None:
    assert spans_of(["B-a", "I-a", "B-a", "I-b", "O", "I-a"]) == [
        ("a", 0, 2),
        ("a", 2, 3),
        ("b", 3, 4),
        ("a", 5, 6),
    ]
    measures, kinds = span_measures([["B-a", "I-a", "O", "B-b"]], [["B-a", "O", "O", "B-b"]])
    assert measures == {"span_precision": 0.5, "span_recall": 0.5, "span_f1": 0.5}
    assert kinds == {"a": (0.0, 0.0, 0.0, 1), "b": (1.0, 1.0, 1.0, 1)}
    assert are_spans(["B-a", "O"])
    assert not are_spans(["NN", "O"])


@pytest.mark.slow
def test_a_run_and_every_word_of_a_long_sentence(tmp_path: Path) -> None:
    write_encoder(tmp_path / "bert", "Model")
    recipe = {
        **{
            "name": "words",
            "init": {"pretrained": str(tmp_path / "bert")},
            "training": {"batch_size": 8, "steps": 2},
        },
        **{"task": {"name": "token_classification", "max_tokens": 12}},
        **{"data": {"name": "token_labels", "path": written(tmp_path), "fraction": 0.3}},
        "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
    }
    run = groundup.train(recipe, runs=tmp_path / "runs")
    predictor = groundup.load(run.folder)
    long = "unwatchable film " * 20
    found = predictor([long, tuple(WORDS)])
    assert [word for word, _ in found[0]] == long.split()
    assert found[1] == predictor(tuple(WORDS))
    assert {label for _, label in found[0]} <= set(LABELS)
    metrics = groundup.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]
    assert {"accuracy", "baseline_accuracy", "span_f1"} <= set(metrics)
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(run.folder / "model")
    assert theirs.config.id2label == dict(enumerate(sorted(set(LABELS))))
    with pytest.raises(
        DataError, match=r"inputs: ' ' has no words, or an empty one\. Give a text, or a tuple of"
    ):
        predictor(" ")
    named = recipe | {"data": {"name": "token_labels", "path": written(tmp_path)}, "name": "other"}
    other = tmp_path / "b.jsonl"
    other.write_text('{"tokens": ["x"], "labels": ["B-y"]}\n', encoding="utf-8")
    with pytest.raises(
        DataError, match=r"b\.jsonl line 1: label 'B-y' is none of the training split's"
    ):
        groundup.trainer(named, {"data.validation": str(other)}, runs=tmp_path / "runs")


def test_words_of_other_tokenizers_and_without_any_piece(tmp_path: Path) -> None:
    reader = BytesConfig().fit(lambda: iter(()))
    batch = TokenClassification().encode(
        [Example("", ("ab", "c"), ["x", "y"])], Labelled(reader, SingleLabel(["x", "y"]), 8)
    )
    assert batch["labels"].tolist() == [[0, -100, 1]]
    write_encoder(tmp_path)
    processor = Labelled(
        TokenizerJSONConfig(path=str(tmp_path)).fit(lambda: iter(())), SingleLabel(["x", "y"]), 8
    )
    batch = TokenClassification().encode([Example("", ("\x00", "film"), ["x", "y"])], processor)
    assert batch["labels"].tolist() == [[-100, 0, 1, -100]]
    assert np.isin(batch["tokens"], range(13)).all()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "a.jsonl",
            '{"tokens": ["a", "b"], "labels": ["O"]}',
            r"line 1: there are 2 words and 1 labels\. Give every",
        ),
        (
            "a.jsonl",
            '{"tokens": [], "labels": []}',
            r"line 1: the words are \[\]; allowed: a list of them, at least",
        ),
        (
            "a.jsonl",
            '{"tokens": ["a"], "labels": "O"}',
            r"line 1: the labels are 'O'; allowed: a list of them",
        ),
        (
            "a.jsonl",
            '{"tokens": ["a", " "], "labels": [1, 2]}',
            r"line 1: word 2 is ' '; allowed: text",
        ),
        ("a.jsonl", '{"words": ["a"]}', r"line 1: there is no column 'tokens'"),
        (
            "a.conll",
            "a O\nb\n",
            r"line 2: the line has 1 columns; allowed: a word and its label, 2 columns",
        ),
        (
            "a.conll",
            "a X O\nb O\n",
            r"line 2: the line has 2 columns; allowed: a word and its label, 3 columns",
        ),
    ],
)
def test_files_that_cannot_be_read(name: str, content: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        TokenLabels(path=str(tmp_path / name)).examples("train", tmp_path)


def test_settings_without_effect(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(CONLL, encoding="utf-8")
    with pytest.raises(
        DataError,
        match=r"recipe\.data\.words_column: has no effect: .* has a word and its label a li",
    ):
        TokenLabels(path=str(tmp_path / "a.conll"), words_column="w").examples("train", tmp_path)
    written(tmp_path)
    with pytest.raises(
        DataError,
        match=r"a\.jsonl: is \.jsonl, next to files with a word a line\. Name files of one",
    ):
        TokenLabels(path=str(tmp_path)).examples("train", tmp_path)
    with pytest.raises(RecipeError, match="the column 'tokens' is named twice"):
        validate(TokenLabels, {"path": "a", "labels_column": "tokens"}, "recipe.data")
