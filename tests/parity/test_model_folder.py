"""``model/`` of a run opens in transformers and is the model that was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from later import Library
from safetensors.torch import load_file

import groundup
from groundup.core.values import Message
from groundup.tasks.chat.task import Chat

pytestmark = pytest.mark.xdist_group("transformers")  # imported once, by one worker

transformers: Any = Library("transformers")


def opened(folder: Path) -> tuple[Any, Any]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"qk_norm": True, "kv_heads": 1},
        {"positions": "learned", "norm": "layernorm", "activation": "gelu_tanh", "bias": "all"},
    ],
    ids=["llama", "qwen3", "gpt2"],
)
@pytest.mark.parametrize(
    "processor",
    [
        pytest.param({"name": "characters", "min_count": 2}, marks=pytest.mark.slow),
        {"name": "bpe", "vocab_size": 300},
    ],
)
def test_transformers_opens_it_with_the_same_logits(
    recipe: dict[str, Any], tmp_path: Path, shape: dict[str, Any], processor: dict[str, Any]
) -> None:
    recipe["model"] |= {**shape, "dropout": 0.0}
    recipe["processor"] = processor
    recipe["training"] = {"batch_size": 4, "steps": 2}
    run = groundup.train(recipe, runs=tmp_path)
    predictor = groundup.load(run.folder)
    model, tokenizer = opened(run.folder / "model")
    tokens = predictor.processor.encode_batch(["The if statement 好"])[0]
    assert tokenizer.encode("The if statement 好", add_special_tokens=False) == tokens.tolist()
    batch = torch.from_numpy(tokens)[None].long()
    with torch.no_grad():
        theirs = model(batch).logits[..., : predictor.processor.vocabulary_size]
        assert (theirs - predictor.model(batch)).abs().max() < 1e-4
    assert model.config.eos_token_id == predictor.processor.end_id


@pytest.mark.slow
def test_a_chat_template_travels_with_the_run_and_renders_the_same_prompt(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    groundup.train(recipe, runs=tmp_path)
    data = tmp_path / "talk.jsonl"
    roles = ("user", "assistant")
    talks = [
        [{"role": role, "content": f"{role} {number}"} for role in roles] for number in range(20)
    ]
    data.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    template = tmp_path / "mine.jinja"
    template.write_text(
        "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}{{"
        " m.content }}<|end|>{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}{%"
        " if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tuning = {
        key: recipe[key]
        for key in ("optim", "training", "logging", "evaluation", "checkpoints", "machine")
    }
    tuning |= {
        "name": "tuned",
        "init": {"run": str(tmp_path / "small")},
        "task": {"name": "chat", "template": str(template)},
    }
    tuning["data"] = {"name": "conversations", "path": str(data), "fraction": 0.2}
    run = groundup.train(tuning, runs=tmp_path)
    source = template.read_text()
    template.write_text("changed after training")
    predictor = groundup.load(run.folder)
    assert predictor.processor.chat_template == source
    task = predictor.task
    assert isinstance(task, Chat)
    ours = task.chat_template(predictor.processor).prompt([Message("user", "Hi 好")])
    _, tokenizer = opened(run.folder / "model")
    said = [{"role": "user", "content": "Hi 好"}]
    theirs = tokenizer.apply_chat_template(
        said, add_generation_prompt=True, tokenize=True, return_dict=True
    )
    np.testing.assert_array_equal(ours, theirs["input_ids"])


@pytest.mark.slow
def test_a_model_without_a_name_there_keeps_its_own(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["model"] |= {"norm": "layernorm"}
    run = groundup.train(recipe, runs=tmp_path)
    assert (
        json.loads((run.folder / "model" / "config.json").read_text())["model_type"]
        == "groundup_gpt"
    )
    stored = load_file(run.folder / "model" / "model.safetensors")
    assert stored.keys() == run.checkpoints.load(run.pick("best")).model.keys()


@pytest.mark.slow
def test_the_model_card_is_written_from_the_run(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["about"] = "A small one."
    run = groundup.train(recipe, runs=tmp_path)
    card = run.folder / "model" / "README.md"
    assert "Not evaluated yet" in card.read_text()
    groundup.evaluate(run.folder, limit=1)
    text = card.read_text()
    assert "Not evaluated yet" not in text
    assert "- bits per byte: " in text
    head = yaml.safe_load(text.split("---")[1])
    assert head["tags"] == ["groundup"]
    assert {"# small", "A small one.", "## Data", "## Limits"} <= set(text.splitlines())
