"""What every task keeps, tried by the checks that users have: through runs of a few steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from picture_runs import caption_run, from_captions_run
from rewarded import rewarded_run
from tiny_runs import (
    ENCODER_TASKS,
    encoder_run,
    preference_run,
    tiny_run,
    without_chance,
    write_several_targets,
)

from groundup.core.registry import BUILTINS
from groundup.testing import check_task

pytestmark = pytest.mark.slow
SEVERAL = {
    "digit": {"name": "classify", "class_weights": "balanced"},
    "ink": "regression",
    "loop": "classify",
}
# Settings of the tasks, each tried by itself.
CASES: dict[str, list[dict[str, Any]]] = {
    "language_modeling": [{}],
    "chat": [{}, {"train_on": "last"}],
    "masked_language_modeling": [{}],
    "classify": [
        {},
        {"class_weights": "effective", "effective_beta": 0.99, "label_smoothing": 0.1},
    ],
    "regression": [{}, {"objective": "huber", "delta": 0.5}],
    "autoencode": [{}, {"objective": "mae", "measured": 0}],
    "text_and_pictures": [{"caption_weight": 0.5}, {"directions": "to_caption", "measured": 0}],
    "multitask": [{"tasks": SEVERAL}, {"tasks": SEVERAL, "weighting": "uncertainty"}],
    "preference": [{}, {"objective": "simpo"}],
    "grpo": [
        {},
        {
            **{"average": "tokens", "updates": 2, "draws": 2, "clip_high": 0.3},
            **{"overlong_buffer": 4, "kl_weight": 0.0, "scale_by_spread": False},
        },
    ],
    "text_to_text": [
        {},
        {"label_smoothing": 0.1, "metrics": ["rouge_l"], "measured": 5, "beams": 3, "prefix": "> "},
    ],
    "generate_images": [
        {},
        {"weighting": "picture", "times": "uniform"},
        {"condition": "none", "mean_flow": True},
        {"condition": "text", "caption_dropout": 0.3},
    ],
    "detect": [
        {},
        {"dense_loss": {"gamma": 0.0, "candidates": 15, "distribution_weight": 0.0}, "measured": 0},
    ],
    "recommend": [
        {"windows": "random", "shuffle_ties": True},
        {"objective": "sampled_softmax", "drawn_items": 8, "measured": 0},
        {"objective": "bpr", "drawn_items": 4, "popularity_power": 0.5, "k": 3},
        {"objective": "ratings", "mask_seen": False},
    ],
    "policy_value": [{}, {"symmetries": False, "value_weight": 0.5}],
    "transcribe": [{}, {"ngram": 3, "beams": 3, "metrics": ["cer"], "measured": 0}],
    **{name: [{}] for name in ENCODER_TASKS},
}

OWN_MODELS = {
    "text_to_text": "encoder_decoder",
    "transcribe": "ctc",
    "autoencode": "fsq_autoencoder",
    "generate_images": "unet",
    "detect": "detector",
    "policy_value": "policy_value",
    "recommend": "sequence_recommender",
}


def recipe_of(name: str, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a small run of a task on the data that it suits."""
    if name in ENCODER_TASKS:
        return encoder_run(name, folder, **settings)
    if name == "preference":
        return preference_run(folder, **settings)
    if name == "grpo":
        return rewarded_run(folder, **settings)
    if name == "text_and_pictures":
        return caption_run(folder, **settings)
    if settings.get("condition") == "text":
        return from_captions_run(folder, **settings)
    if name in OWN_MODELS:
        recipe = tiny_run(OWN_MODELS[name], folder)
        return recipe | {"task": {**recipe["task"], **settings}}
    if name in ("language_modeling", "chat"):
        recipe = tiny_run("gpt", folder, {"context_length": 96})
    elif name == "masked_language_modeling":
        recipe = tiny_run("bert", folder, {"context_length": 96}, reads="documents")
        recipe["processor"] = {"name": "bpe", "vocab_size": 300, "encoder": True}
    else:
        recipe = tiny_run("mlp", folder, reads="numbers" if name == "regression" else "pictures")
    if name == "chat":
        recipe["data"] = {"name": "conversations", "path": str(write_chats(folder))}
    if name == "multitask":
        recipe["data"] = write_several_targets(folder)
    return recipe | {"task": {"name": name, **settings}}


def write_chats(folder: Path) -> Path:
    """Write conversations whose answers have very different lengths, some of two turns."""
    lines = []
    for number in range(60):
        turns = ["Hello?", "Yes."] if number % 3 else []
        turns += [f"What is {number}?", "A number. " * (1 + number % 4)]
        roles = ("user", "assistant")
        messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]
        lines.append(json.dumps({"messages": messages}) + "\n")
    path = folder / "chats.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_every_task_has_a_case() -> None:
    assert set(CASES) == set(BUILTINS["task"])


@pytest.mark.parametrize(
    ("name", "settings"), [(name, settings) for name, cases in CASES.items() for settings in cases]
)
def test_contract(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    recipe = without_chance(recipe_of(name, settings, tmp_path))
    check_task(recipe, {"training.batch_size": 8})
