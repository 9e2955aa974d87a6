"""An encoder-decoder trained for half a minute of CPU writes the first lines of docstrings of
documents that it never saw, better than any sentence of theirs and than those of the most similar
docstring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from groundup import api

RECIPE: dict[str, Any] = {
    "name": "learn_summaries",
    "model": {
        "name": "encoder_decoder",
        "layers": 1,
        "decoder_layers": 1,
        "width": 128,
        "heads": 2,
        "context_length": 64,
        "dropout": 0.2,
        "copying": True,
    },
    "task": {
        "name": "text_to_text",
        "prefix": " ",
        "max_source_tokens": 32,
        "max_target_tokens": 20,
        "label_smoothing": 0.1,
        "no_repeat_ngram": 3,
        "metrics": ["rouge_l"],
        "measured": 0,
        "evaluated": 300,
    },
    "processor": {"name": "bpe", "vocab_size": 4000},
    "data": {"name": "python_summaries", "signatures": "words"},
    "optim": {
        "name": "muon",
        "lr": 2e-2,
        "schedule": "linear",
        "warmup_steps": 20,
        "final_lr_fraction": 0.02,
    },
    "training": {"batch_size": 32, "steps": 200},
    "evaluation": {"every": 200, "batches": 4},
    "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
}


@pytest.mark.slow
def test_first_lines_of_docstrings(tmp_path: Path) -> None:
    run = api.train(RECIPE, runs=tmp_path)
    metrics = api.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]
    answers = {
        way: metrics[f"baseline_{way}_rouge_l"] for way in ("copy", "nearest", "lead", "longest")
    }
    print(f"ROUGE-L {metrics['rouge_l']:.3f}, without a model {answers}")
    # Fitted to the same training pairs, and no weak answers: sentences that people wrote of it.
    assert min(answers.values()) > 0.1
    assert metrics["rouge_l"] > max(answers.values()) + 0.01
