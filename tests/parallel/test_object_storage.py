"""Processes that read tokens from an address, each for itself: the losses of one process that has
the texts, and a damaged file in one sentence."""

from __future__ import annotations

import json
import pydoc_data.topics
from pathlib import Path
from typing import Any

import pytest
from launched import launch, rows, said_by_ranks, write_recipe

from groundup import api

pytestmark = pytest.mark.slow
TOPICS = [text[:900] for _, text in sorted(pydoc_data.topics.topics.items())][:40]


def recipe_of(folder: Path, name: str, data: dict[str, Any]) -> Path:
    recipe = {
        "name": name,
        "model": {"name": "gpt", "layers": 1, "width": 16, "heads": 2, "context_length": 64},
        "task": "language_modeling",
        "processor": {"name": "bpe", "vocab_size": 400},
        "data": data,
        "training": {"batch_size": 4, "steps": 5},
        "logging": {"every": 1},
        "machine": {"precision": "fp32", "threads": 1, "compile": False, "device": "cpu"},
    }
    return write_recipe(folder, recipe)


def test_each_process_reads_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    lines = "\n".join(json.dumps({"text": text}) for text in TOPICS)
    (tmp_path / "corpus.jsonl").write_text(lines + "\n", encoding="utf-8")
    data = {"name": "text", "path": str(tmp_path / "corpus.jsonl"), "fraction": 0.2}
    here = recipe_of(tmp_path, "here", data)
    address = f"file://{tmp_path}/there"
    api.prepare_data(here, to=address)
    api.train(here, runs=tmp_path / "runs")
    # on machines that have neither the texts nor the cache
    (tmp_path / "corpus.jsonl").unlink()
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "other"))
    there = recipe_of(tmp_path, "there", {"name": "shards", "path": address})
    done = launch(tmp_path, 2, there)
    assert done.returncode == 0, done.stderr
    one, two = (
        [row["loss"] for row in rows(tmp_path / "runs" / name, "train")]
        for name in ("here", "there")
    )
    assert len(one) == 5
    assert two == pytest.approx(one, rel=1e-5)
    # damaged where it is kept, and no copy is left here
    tokens = tmp_path / "there" / "train" / "tokens-00000.bin"
    tokens.write_bytes(tokens.read_bytes()[:-2] + b"??")
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "third"))
    damaged = recipe_of(tmp_path, "damaged", {"name": "shards", "path": address})
    done = launch(tmp_path, 2, damaged)
    assert done.returncode != 0
    said = said_by_ranks(done.stderr)
    sentence = "tokens-00000.bin: arrived 2 times with another content than its index says"
    assert any(sentence in each for each in said), done.stderr
    assert "Traceback" not in done.stderr
