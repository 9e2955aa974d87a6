"""A GPT trained for seconds on real documentation predicts held-out documents better than a byte
bigram does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groundup import api
from groundup.core.registry import lookup
from groundup.metrics.compression import ngram_bits_per_byte
from groundup.runs.processor import cache_folder

RECIPE = {
    "name": "learn",
    "model": {
        "name": "gpt",
        "layers": 2,
        "width": 128,
        "heads": 2,
        "context_length": 128,
        "qk_norm": True,
    },
    "task": "language_modeling",
    "processor": {"name": "bpe", "vocab_size": 2048},
    "data": "python_docs",
    "optim": {
        "name": "muon",
        "lr": 1e-2,
        "schedule": "linear",
        "warmup_steps": 5,
        "final_lr_fraction": 0.02,
    },
    "training": {"batch_size": 8, "steps": 100},
    "evaluation": {"every": 100, "batches": None},
    "checkpoints": {"every": 100},
    "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
}


@pytest.mark.slow
def test_a_small_gpt_beats_a_byte_bigram(tmp_path: Path) -> None:
    run = api.train(RECIPE, runs=tmp_path)
    source = lookup("data", "python_docs")()
    texts = {
        split: [d.text for d in source.examples(split, cache_folder())]
        for split in ("train", "validation")
    }
    bigram = ngram_bits_per_byte(texts["train"], texts["validation"], order=2)
    records = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    learned = [row for line in records if (row := json.loads(line))["kind"] == "evaluate"][-1][
        "bits_per_byte"
    ]
    print(f"GPT {learned:.3f}, byte bigram {bigram:.3f} bits per byte")
    assert learned < 0.95 * bigram
