"""Encoders and pictures exported to Hugging Face: their outputs, the names of their classes, and
answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_folders import write_encoder, write_films
from pretrained_folders import transformers

import groundup
from groundup.api import export
from groundup.formats.huggingface_folder import labels_in
from groundup.inference.predictor import Predictor
from groundup.models.bert import BERTConfig
from groundup.processors.class_targets import SingleLabel

pytestmark = pytest.mark.xdist_group("transformers")
SMALL = {"max_tokens": 12, "stride": 2, "max_question_tokens": 4}
START: dict[str, Any] = {"optim": {"name": "sgd", "lr": 1e-3}}


@pytest.mark.slow
def test_classes_keep_the_numbers_and_names_of_the_checkpoint(tmp_path: Path) -> None:
    names = {"id2label": {0: "1", 1: "0"}, "label2id": {"1": 0, "0": 1}}
    module = write_encoder(tmp_path / "base", "ForSequenceClassification", **names)
    recipe = write_films(tmp_path) | START | {"init": {"pretrained": str(tmp_path / "base")}}
    recipe["training"] = {"batch_size": 8, "steps": 1}
    run = groundup.train(recipe, runs=tmp_path)
    predictor = Predictor.load(run.folder)
    assert predictor.processor.labels == ("1", "0")
    assert (
        predictor.model.state_dict()["head.weight"] - module.classifier.weight
    ).abs().max() < 0.01  # not drawn anew
    folder = export(run.folder, "huggingface")
    assert labels_in(folder) == ("1", "0")
    found = json.loads((folder / "export.json").read_text())["comparisons"]
    assert [each["other"].split()[0] for each in found] == ["groundup's", "transformers"]
    assert all(each["relative_difference"] < 1e-5 for each in found)


def questions(folder: Path) -> str:
    rows = [
        {
            "question": "A good?",
            "context": "bad film" + "!" * n,
            "answers": [{"text": "film", "answer_start": 4}],
        }
        for n in range(12)
    ]
    (folder / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder / "asked.jsonl")


@pytest.mark.slow
def test_answers_are_exported_as_such_and_read_again(tmp_path: Path) -> None:
    write_encoder(tmp_path / "base")
    data = {"name": "question_answers", "path": questions(tmp_path), "fraction": 0.3}
    recipe = {"name": "qa", "task": {"name": "extractive_qa", **SMALL}, "data": data, **START}
    recipe |= {
        "init": {"pretrained": str(tmp_path / "base")},
        "training": {"batch_size": 4, "steps": 1},
    }
    recipe["machine"] = write_films(tmp_path)["machine"]
    run = groundup.train(recipe, runs=tmp_path)
    folder = export(run.folder, "huggingface")
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["BertForQuestionAnswering"]
    assert (
        json.loads((run.folder / "model" / "config.json").read_text())["architectures"]
        == config["architectures"]
    )
    found = json.loads((folder / "export.json").read_text())["comparisons"]
    assert all(each["relative_difference"] < 1e-5 for each in found)
    model = Predictor.load(run.folder).model
    tokens = torch.tensor([[2, 5, 6, 3, 7, 8, 3]])
    with torch.no_grad():
        theirs = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()(tokens)
        expected = torch.stack((theirs.start_logits, theirs.end_logits), -1)
        torch.testing.assert_close(model(tokens), expected, rtol=1e-5, atol=1e-6)
    again = recipe | {"name": "again", "init": {"pretrained": str(folder)}}
    head = Predictor.load(groundup.train(again, runs=tmp_path).folder).model.state_dict()[
        "head.weight"
    ]
    assert (head - model.state_dict()["head.weight"]).abs().max() < 0.01


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_a_folder_of_answers_has_two_outputs_for_every_token(family: str) -> None:
    kind = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}[family]
    found = BERTConfig.from_huggingface(
        {"model_type": family, "architectures": [f"{kind}ForQuestionAnswering"]}
    )
    assert (found["head"], found["outputs"]) == ("tokens", 2)


def test_classes_in_another_order() -> None:
    found = SingleLabel(["a", "b", "c"], counts=[1, 2, 3]).in_order(["c", "a", "b"])
    assert (found.labels, found.counts) == (("c", "a", "b"), (3, 1, 2))
    assert found.encode(["a", "c"]).tolist() == [1, 0]
