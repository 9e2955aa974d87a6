"""Shared fixtures: a quiet machine, a private cache, and a small real corpus."""

from __future__ import annotations

import gc
import json
import pydoc_data.topics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.core.optimizers import build_optimizers
from groundup.core.recipe import Optim

build_optimizers(Optim(), torch.nn.Linear(1, 1).named_parameters())  # no optimizer after it imports the compiler (3 s)


def pytest_collection_finish() -> None:
    """Look for garbage among what the tests make only: what was imported stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def _private_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give every test its own working folder (for ``runs/``) and cache, one thread, and the random state it found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A .jsonl file of forty topics of Python's language reference."""
    path = tmp_path / "topics.jsonl"
    topics = sorted(pydoc_data.topics.topics.items())[:40]
    path.write_text("".join(json.dumps({"text": text[:1500]}) + "\n" for _, text in topics), encoding="utf-8")
    return path


@pytest.fixture
def recipe(corpus: Path) -> dict[str, Any]:
    """A complete recipe that trains for a few steps in well under a second."""
    return {
        "name": "small",
        "model": {"name": "gpt", "layers": 2, "width": 32, "heads": 2, "context_length": 32, "dropout": 0.1},
        "task": "language_modeling",
        "processor": "bytes",
        "data": {"name": "text", "path": str(corpus), "validation_fraction": 0.2},
        "optim": {"lr": 3e-3, "warmup_steps": 2},
        "budget": {"batch_size": 4, "steps": 6},
        "every": {"log": 1, "evaluate": 3, "save": 2, "evaluate_batches": 2},
        "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1, "micro_batch": 4},
    }
