"""Runs that start from pretrained weights in Hugging Face layout: from the folder to model/ written
again."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import CHATML, transformers, write_model, write_tokenizer
from safetensors.torch import load_file

import groundup
from groundup.core.errors import RunError
from groundup.core.values import Message
from groundup.tasks.chat.task import Chat
from groundup.weights.model_folder import write_model_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A random Llama with a tokenizer and a chat template."""
    write_model(tmp_path / "base", "llama3", vocab_size=320)
    write_tokenizer(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def tuning(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A recipe of three steps that starts from the folder."""
    parts = {
        key: recipe[key]
        for key in ("name", "task", "data", "logging", "evaluation", "checkpoints", "machine")
    }
    model = {"context_length": 32, "dropout": 0.1}
    return parts | {
        "model": model,
        "init": {"pretrained": str(folder)},
        "training": {"batch_size": 4, "steps": 3},
    }


@pytest.fixture
def chatting(tuning: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "talk.jsonl"
    talks = [
        [
            {"role": "user", "content": f"Is {n} even?"},
            {"role": "assistant", "content": "Yes." if n % 2 else "No."},
        ]
        for n in range(30)
    ]
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    data = {"name": "conversations", "path": str(path), "fraction": 0.2}
    return tuning | {"task": "chat", "data": data, "model": {"context_length": 48}}


@pytest.mark.slow
def test_text_from_the_folder_to_model_written_again(
    tuning: dict[str, Any], tmp_path: Path, folder: Path
) -> None:
    run = groundup.train(tuning, runs=tmp_path / "runs")
    assert run.finished
    config: Any = run.recipe.model
    assert (config.layers, config.width, config.vocabulary_size, config.context_length) == (
        2,
        32,
        320,
        32,
    )
    assert config.rope_scaling.kind == "llama3"
    predictor = groundup.load(run.folder)
    assert predictor.processor.end_token == "</s>"
    assert predictor.processor.start_token == "<s>"
    assert isinstance(predictor("The ", max_new_tokens=4), str)

    tokens = torch.randint(320, (1, 30))
    written = transformers.AutoModelForCausalLM.from_pretrained(
        run.folder / "model", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        assert (written(tokens).logits - predictor.model(tokens)).abs().max() <= 1e-4
        before = (
            transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            .eval()(tokens)
            .logits
        )
        assert (before - predictor.model(tokens)).abs().max() > 1e-3
    assert (written.config.bos_token_id, written.config.eos_token_id) == (0, 1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.folder / "model")
    assert (
        tokenizer.encode("A text", add_special_tokens=False)
        == predictor.processor.encode_batch(["A text"])[0].tolist()
    )


@pytest.mark.slow
def test_the_run_says_where_its_weights_came_from(
    tuning: dict[str, Any], tmp_path: Path, folder: Path
) -> None:
    run = groundup.train(tuning, runs=tmp_path / "runs")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    recorded = run.read_json("environment.json")
    assert recorded["base_weights_sha256"] == digest
    facts = {
        "name": str(folder),
        "revision": None,
        "files": {"model.safetensors": digest},
        "notes": [],
    }
    assert recorded["pretrained"] == facts
    card = (run.folder / "model" / "README.md").read_text()
    events = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert f"{run.folder}: starts from the pretrained weights {folder}" in [
        row.get("message") for row in events
    ]
    assert (
        f"starting from the pretrained weights `{folder}` (SHA-256 of the weights: `{digest}`)"
        in card
    )


@pytest.mark.slow
def test_before_the_first_step_the_weights_are_the_same_bits(
    tuning: dict[str, Any], tmp_path: Path, folder: Path
) -> None:
    trainer = groundup.trainer(tuning, runs=tmp_path / "runs")
    trainer.save()
    trainer.close()
    written, stored = (
        load_file(write_model_folder(trainer.run) / "model.safetensors"),
        load_file(folder / "model.safetensors"),
    )
    assert written.keys() == stored.keys()
    assert all(torch.equal(written[name], stored[name]) for name in stored)


@pytest.mark.slow
def test_resuming_equals_not_stopping_and_needs_no_folder(
    tuning: dict[str, Any], tmp_path: Path, folder: Path
) -> None:
    whole = groundup.train(tuning | {"name": "whole"}, runs=tmp_path / "runs")
    trainer = groundup.trainer(tuning, runs=tmp_path / "runs")
    next(trainer.steps())
    trainer.save()
    trainer.close()
    shutil.rmtree(folder)
    resumed = groundup.api.resume(trainer.run.folder)
    first, second = (run.checkpoints.load(3).model for run in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert isinstance(groundup.predict(resumed.folder, "The ", max_new_tokens=2), str)
    groundup.evaluate(resumed.folder, limit=1)


@pytest.mark.slow
def test_a_run_may_go_on_from_one_that_started_so(
    tuning: dict[str, Any], tmp_path: Path, folder: Path
) -> None:
    first = groundup.train(tuning, runs=tmp_path / "runs")
    shutil.rmtree(folder)
    second = groundup.train(
        tuning | {"name": "second", "init": {"run": str(first.folder)}}, runs=tmp_path / "runs"
    )
    assert second.recipe.model == first.recipe.model


@pytest.mark.slow
def test_other_weights_in_the_folder_are_noticed(
    tuning: dict[str, Any], tmp_path: Path, folder: Path
) -> None:
    run = groundup.train(tuning, runs=tmp_path / "runs")
    write_model(folder, "llama3", vocab_size=320, dtype=torch.bfloat16)
    with pytest.raises(
        RunError, match=rf"was fine-tuned from other weights than {folder} holds now"
    ):
        groundup.train(tuning, runs=tmp_path / "runs")
    shutil.rmtree(run.folder / "checkpoints")
    with pytest.raises(RunError, match=rf"was begun with other weights than {folder} holds now"):
        groundup.api.resume(run.folder)


@pytest.mark.slow
def test_chat_uses_the_template_of_the_folder(
    chatting: dict[str, Any], tmp_path: Path, folder: Path
) -> None:
    run = groundup.train(chatting, runs=tmp_path / "runs")
    predictor = groundup.load(run.folder)
    assert predictor.processor.chat_template == CHATML
    assert isinstance(predictor("Is 3 even?", max_new_tokens=3), str)
    task = predictor.task
    assert isinstance(task, Chat)
    template = task.chat_template(predictor.processor)
    said = [{"role": "user", "content": "Hi"}]
    for place in (folder, run.folder / "model"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
        theirs = tokenizer.apply_chat_template(
            said, add_generation_prompt=True, tokenize=True, return_dict=True
        )
        assert template.prompt([Message("user", "Hi")]).tolist() == theirs["input_ids"]
    assert template.stop_ids == (3, 1, 2)  # <|im_end|>, </s>, and what generation_config.json says


@pytest.mark.slow
def test_before_and_after_the_pretrained_weights(
    chatting: dict[str, Any], tmp_path: Path, folder: Path
) -> None:
    run = groundup.train(chatting | {"optim": {"lr": 1e-2}}, runs=tmp_path / "runs")
    found = groundup.evaluate(run.folder, limit=1)["runs"][0]["evaluation"]
    metrics, table = found["metrics"], found["tables"][0]
    assert metrics["answer_bits_per_byte"] < metrics["base_answer_bits_per_byte"]
    assert table["note"] == "Before and after, the model is asked with the same template."
    assert table["rows"][0][1] == metrics["base_answer_bits_per_byte"]
    untrained = chatting | {"name": "still", "optim": {"lr": 1e-12, "weight_decay": 0.0}}
    same = groundup.evaluate(groundup.train(untrained, runs=tmp_path / "runs").folder, limit=1)
    metrics = same["runs"][0]["evaluation"]["metrics"]
    assert metrics["base_answer_bits_per_byte"] == pytest.approx(
        metrics["answer_bits_per_byte"], rel=1e-6
    )
    shutil.rmtree(folder)
    told: list[str] = []
    found = groundup.evaluate(run.folder, limit=1, again=True, progress=told.append)["runs"][0][
        "evaluation"
    ]
    assert "base_answer_bits_per_byte" not in found["metrics"]
    assert any(
        "the pretrained weights cannot be read, so nothing is compared with them" in line
        for line in told
    )
