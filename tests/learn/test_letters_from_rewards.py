"""Learning from rewards alone: a tiny chat model that answers with any of four letters finds out
that it is to repeat the one in the question, which nobody shows it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from groundup import api

pytestmark = pytest.mark.slow
LETTERS = "abcd"
GPT = {"name": "gpt", "layers": 2, "width": 32, "heads": 2, "context_length": 48}
MACHINE = {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1}


REWARD = '''from groundup.tasks.grpo.rewards import reward


@reward("repeats")
def repeats(answer, prompt):
    """1 where the answer is the letter asked about, and nothing else."""
    return answer == prompt.columns["answer"]
'''


def written(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_the_letter_that_is_asked_about(tmp_path: Path) -> None:
    draws = random.Random(0)
    # Numbers make questions about one letter differ, so that some of each are held out.
    asked = [(f"{n} {LETTERS[n % 4]}", LETTERS[n % 4]) for n in range(240)]
    shown = [{"prompt": question, "completion": draws.choice(LETTERS)} for question, _ in asked]
    chat = {
        "name": "chat",
        "model": GPT,
        "task": "chat",
        "processor": "bytes",
        "data": {"name": "conversations", "path": written(tmp_path, "chats.jsonl", shown)},
        "optim": {"lr": 0.01},
        "training": {"batch_size": 16, "steps": 60},
        "machine": MACHINE,
    }
    start = api.train(chat, runs=tmp_path)
    (tmp_path / "repeats.py").write_text(REWARD, encoding="utf-8")
    rows = [{"prompt": question, "answer": letter} for question, letter in asked]
    rewarded = {
        "name": "rewarded",
        "uses": [str(tmp_path / "repeats.py")],
        "init": {"run": str(start.folder)},
        "task": {
            "name": "grpo",
            "rewards": [{"name": "repeats"}],
            "group_size": 16,
            "max_new_tokens": 3,
            # Without it, two letters are soon all that is written.
            "kl_weight": 0.1,
        },
        "data": {
            "name": "prompts",
            "path": written(tmp_path, "asked.jsonl", rows),
            "fraction": 0.2,
        },
        "optim": {"lr": 0.004, "schedule": "constant"},
        "training": {"batch_size": 8, "steps": 300},
        "machine": MACHINE,
    }
    run = api.train(rewarded, runs=tmp_path)
    metrics = api.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]
    # Whoever always writes the same letter is right in a quarter; so is the chat model.
    assert metrics["base_reward_repeats"] < 0.5
    assert metrics["reward_repeats"] > 0.8
