"""A run that learns from rewards: a tiny model of bytes, asked for sums, with a reward of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from groundup import api

__all__ = ["adapted_rewarded_run", "rewarded_run"]

REWARDS = '''"""Rewards that even random answers have some of."""

from groundup.tasks.grpo.rewards import reward


@reward("low_letters")
def low_letters(answer, prompt):
    """Return the share of characters below the letters."""
    return sum(letter < "@" for letter in answer) / max(len(answer), 1)
'''


def rewarded_run(folder: Path, **task: Any) -> dict[str, Any]:
    """Return the recipe of a run on prompts in a file, which is written, as are the rewards."""
    rows = [{"prompt": f"{n} + {n // 3}?", "answer": n + n // 3} for n in range(60)]
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "my_rewards.py").write_text(REWARDS, encoding="utf-8")
    settings = {"rewards": [{"name": "low_letters"}], "group_size": 4, "max_new_tokens": 16}
    return {
        "name": "rewarded",
        "uses": [str(folder / "my_rewards.py")],
        "model": {"name": "gpt", "layers": 1, "width": 16, "heads": 2, "context_length": 64},
        "task": {"name": "grpo", "held_out": 6, **settings, **task},
        "processor": "bytes",
        "data": {"name": "prompts", "path": str(path), "fraction": 0.2},
        "optim": {"lr": 0.01},
        "training": {"batch_size": 8, "steps": 6},
        "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
    }


def adapted_rewarded_run(folder: Path, runs: Path, **task: Any) -> dict[str, Any]:
    """Return the recipe of a run that trains an adapter so, from a run that is trained here."""
    start = api.train(rewarded_run(folder), {"name": "start", "training.steps": 2}, runs=runs)
    recipe = rewarded_run(folder, **task)
    kept = {name: part for name, part in recipe.items() if name not in ("model", "processor")}
    adapter = {"name": "lora", "rank": 2}
    return {**kept, "init": {"run": str(start.folder)}, "adapter": adapter}
