"""Pretrained weights where a run is asked for: folders, GGUF files and names that are neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import encoder_folders
import ggufs
import pretrained_folders
import pytest
import torch

from groundup import api
from groundup.core.errors import CheckpointError, GroundupError, RunError
from groundup.inference.predictor import Predictor
from groundup.inference.pretrained_run import open_run

SHORT = {"max_new_tokens": 6, "temperature": 0.0}


@pytest.fixture(autouse=True)
def _a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_a_gguf_file_writes_with_its_own_tokenizer(tmp_path: Path) -> None:
    weights = ggufs.write_small(tmp_path / "small.gguf")
    predictor = api.load("small.gguf")
    assert predictor.task.registered_name == "language_modeling"
    assert predictor.run.label == str(tmp_path / "small.gguf")
    own = predictor.model.state_dict()
    assert all(torch.equal(own[name], weights[name]) for name in weights)
    text = predictor("Once", **SHORT)
    assert api.load(tmp_path / "small.gguf")("Once", **SHORT) == text
    opened = [path.name for path in (tmp_path / "cache" / "pretrained").iterdir()]
    assert len(opened) == 1
    # another file under the same name is another run
    ggufs.write_small(tmp_path / "small.gguf", kind="F16")
    api.load("small.gguf")
    assert len(list((tmp_path / "cache" / "pretrained").iterdir())) == 2


@pytest.mark.slow
def test_a_folder_with_a_chat_template_chats(tmp_path: Path) -> None:
    module = pretrained_folders.write_model(tmp_path / "m", "llama2", vocab_size=320)
    tokenizer = pretrained_folders.write_tokenizer(tmp_path / "m")
    predictor = api.load("m")
    assert predictor.task.registered_name == "chat"
    asked = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    said = predictor("Hi", **SHORT)
    with torch.no_grad():
        ids = torch.tensor([tokenizer.encode(asked).ids])
        wanted = module.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=3)
    assert said == tokenizer.decode(wanted[0, ids.shape[1] :].tolist()).strip()
    pretrained_folders.write_tokenizer(tmp_path / "m", template=None)
    assert api.load("m").task.registered_name == "language_modeling"


@pytest.mark.slow
def test_a_classifier_predicts_and_is_evaluated_on_a_file(tmp_path: Path) -> None:
    labels = {0: "bad", 1: "good", 2: "neither"}
    module = encoder_folders.write_encoder(
        tmp_path / "m", "ForSequenceClassification", num_labels=3, id2label=labels
    )
    texts = ["a good film", "a bad film !", "un watch able"]
    (tmp_path / "a.csv").write_text("text\n" + "\n".join(texts) + "\n", encoding="utf-8")
    rows = api.predict_file("m", "a.csv")
    predictor = api.load("m")
    for text, row in zip(texts, rows, strict=True):
        tokens = torch.from_numpy(predictor.processor.encode_inputs([text])["tokens"].numpy())
        with torch.no_grad():
            chances = module(tokens).logits.softmax(1)[0]
        assert list(row["probabilities"]) == ["bad", "good", "neither"]
        assert list(row["probabilities"].values()) == pytest.approx(chances.tolist(), abs=1e-5)
        assert row["prediction"] == labels[int(chances.argmax())]
    right = [str(row["prediction"]) for row in rows]
    lines = [f"{text},{label}" for text, label in zip(texts, right, strict=True)]
    (tmp_path / "b.csv").write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    said: list[str] = []
    found = api.evaluate("m", data="b.csv", progress=said.append)
    assert found["runs"][0]["evaluation"]["metrics"]["accuracy"] == 1.0
    assert "b.csv: 3 examples; nothing is known of what it was trained on" in said
    (tmp_path / "c.csv").write_text("text,label\na film,great\n", encoding="utf-8")
    with pytest.raises(GroundupError, match=r"c\.csv row 1.*'great' .*known: bad, good, neither"):
        api.evaluate("m", data="c.csv")
    with pytest.raises(RunError, match=r"no held-out data of their own\. .* --data FILE"):
        api.evaluate("m")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changed", "task"),
    [
        ("ForMaskedLM", {}, "masked_language_modeling"),
        ("ForTokenClassification", {"id2label": {0: "O", 1: "B-PER"}}, "token_classification"),
        ("ForQuestionAnswering", {"max_position_embeddings": 400}, "extractive_qa"),
        ("ForSequenceClassification", {"num_labels": 1}, "regression"),
    ],
)
def test_the_head_says_the_task(tmp_path: Path, kind: str, changed: Any, task: str) -> None:
    encoder_folders.write_encoder(tmp_path / "m", kind, **changed)
    predictor = Predictor.load(tmp_path / "m")
    assert predictor.task.registered_name == task
    given = {
        "masked_language_modeling": "a [MASK] film",
        "extractive_qa": ("a film ?", "a good film"),
    }
    (row,) = predictor.tabulate([given.get(task, "a good film")])
    assert "prediction" in row


def test_what_predicts_nothing_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="m"):
        open_run(folder)
    (folder / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    with pytest.raises(RunError, match=r"without architectures.* init: \{pretrained: "):
        open_run(folder)
    with pytest.raises(GroundupError, match=r"there is no file .*none\.gguf"):
        open_run("none.gguf")
    with pytest.raises(RunError, match=r"runs/none: is not a run \(it has no recipe\.yaml\)"):
        open_run("runs/none")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match=r"an adapter in PEFT's layout\. Predict with its base and"):
        open_run(tmp_path / "a")
    assert not list((tmp_path / "cache").rglob("recipe.yaml"))
