"""Strings of handwritten digits, read column by column by CTC, which is never told where a digit
begins: better than the best fit of templates to all ways to cut them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groundup import api
from groundup.core.values import Split
from groundup.data.sources.arrays import Arrays
from groundup.metrics.error_rates import error_rates

STRINGS: dict[Split, int] = {"train": 1200, "validation": 80, "test": 150}
WIDTH = 8  # columns of a digit
GAP = 3  # blank columns between two digits, at most


def strings(split: Split, folder: Path) -> tuple[list[NDArray[Any]], list[str]]:
    """Return columns (T, 8) of one to six digits of a split's own pictures, and what they are."""
    digits = Arrays().examples("test" if split == "test" else "train", folder)
    # What is validated on is no part of what is trained on.
    cut = len(digits) * 9 // 10
    own = {"train": digits[:cut], "validation": digits[cut:], "test": digits}[split]
    draws = np.random.default_rng(len(own))
    frames, texts = [], []
    for _ in range(STRINGS[split]):
        chosen = [own[n] for n in draws.integers(0, len(own), draws.integers(1, 7))]
        parts = []
        for each in chosen:
            parts += [each.inputs.reshape(8, 8).T, np.zeros((int(draws.integers(0, GAP + 1)), 8))]
        frames.append(np.concatenate(parts).astype(np.float32))
        texts.append("".join(str(each.target) for each in chosen))
    return frames, texts


def best_fit(frames: NDArray[Any], templates: NDArray[Any]) -> str:
    """Return the digits whose mean pictures, with blanks between, are nearest to the columns:
    the best of all ways to cut them (dynamic programming)."""
    blank = (frames**2).sum(1)
    best = np.full(len(frames) + 1, np.inf)
    best[0] = 0.0
    texts = [""] * len(best)
    for end in range(1, len(best)):
        best[end] = best[end - 1] + blank[end - 1]
        texts[end] = texts[end - 1]
        if end < WIDTH:
            continue
        costs = ((templates - frames[end - WIDTH : end]) ** 2).sum((1, 2))
        digit = int(costs.argmin())
        if best[end - WIDTH] + costs[digit] < best[end]:
            best[end] = best[end - WIDTH] + costs[digit]
            texts[end] = texts[end - WIDTH] + str(digit)
    return texts[-1]


@pytest.mark.slow
def test_ctc_reads_strings_of_digits(tmp_path: Path) -> None:
    data: dict[str, tuple[list[NDArray[Any]], list[str]]] = {}
    for split in STRINGS:
        frames, texts = data[split] = strings(split, tmp_path)
        np.savez(
            tmp_path / f"{split}.npz",
            X=np.concatenate(frames),
            lengths=list(map(len, frames)),
            y=texts,
        )
    recipe = {
        "name": "digit-strings",
        "model": {"name": "ctc", "blocks": "bilstm", "layers": 1, "width": 96, "subsampling": 2},
        "task": {"name": "transcribe", "metrics": ["cer"], "beams": 4, "ngram": 2},
        "data": {"name": "sequences", "path": str(tmp_path)},
        "processor": {"name": "speech", "features": "given"},
        "optim": {"lr": 4e-3, "warmup_steps": 20, "clip_norm": 1.0, "schedule": "cosine"},
        "training": {"batch_size": 24, "epochs": 7},
        "evaluation": {"every": 175},
        "checkpoints": {"best_metric": "cer"},
        "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
    }
    run = api.train(recipe, runs=tmp_path / "runs")
    found = api.load(run.folder).evaluate().metrics
    pictures = Arrays().examples("train", tmp_path)
    templates = np.stack(
        [
            np.mean([e.inputs.reshape(8, 8).T for e in pictures if e.target == n], 0)
            for n in range(10)
        ]
    )
    frames, texts = data["test"]
    fitted = error_rates(["cer"], [best_fit(each, templates) for each in frames], texts)["cer"]
    assert fitted < 0.1  # the templates know much
    assert found["cer"] < 0.045
    assert found["cer_high_95"] < fitted
    assert found["cer"] < found["baseline_nearest_cer"] / 5
