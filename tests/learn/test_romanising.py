"""An encoder-decoder trained for seconds romanises Korean syllables that it never saw, which the
answer to the most similar one does not."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from groundup import api

SYLLABLES = range(0xAC00, 0xD7A4)
PREFIX = "HANGUL SYLLABLE "


def write_syllables(path: Path) -> None:
    """Write the letters of every syllable of the Korean script, and its Latin name in Unicode."""
    with path.open("w", encoding="utf-8") as file:
        for code in SYLLABLES:
            letters = " ".join(unicodedata.normalize("NFD", chr(code)))
            name = unicodedata.name(chr(code)).removeprefix(PREFIX)
            file.write(json.dumps({"source": letters, "target": " ".join(name.lower())}) + "\n")


def recipe_of(path: Path, copying: bool) -> dict[str, Any]:
    return {
        "name": f"learn_{copying}",
        "model": {"name": "encoder_decoder", "size": "nano", "dropout": 0.0, "copying": copying},
        "task": {
            "name": "text_to_text",
            "max_source_tokens": 16,
            "max_target_tokens": 24,
            "metrics": ["exact_match", "rouge_l"],
            "measured": 0,
            "evaluated": 300,
        },
        "processor": "characters",
        "data": {"name": "parallel_text", "path": str(path)},
        "optim": {"name": "muon", "lr": 2e-2, "schedule": "linear", "warmup_steps": 10},
        "training": {"batch_size": 64, "steps": 140},
        "evaluation": {"every": 140},
        "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
    }


@pytest.mark.slow
@pytest.mark.parametrize("copying", [False, True])
def test_syllables_are_romanised(tmp_path: Path, copying: bool) -> None:
    write_syllables(tmp_path / "syllables.jsonl")
    run = api.train(recipe_of(tmp_path / "syllables.jsonl", copying), runs=tmp_path)
    metrics = api.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]
    nearest = metrics["baseline_nearest_rouge_l"]
    print(f"exact {metrics['exact_match']:.3f}, {metrics['rouge_l']:.3f}, nearest {nearest:.3f}")
    # Letters of a syllable say nearly all of another one with two of its three: not a weak answer.
    assert 0.4 < nearest < 0.95
    assert metrics["rouge_l"] > nearest + 0.05
    assert metrics["exact_match"] > metrics["baseline_nearest_exact_match"] + 0.5
