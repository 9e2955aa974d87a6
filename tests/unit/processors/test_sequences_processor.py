"""Sequences of frames as tensors: normalised, cut and padded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.data.sources.sequences import Sequences
from groundup.processors.sequences import FramesConfig, mean_and_spread
from groundup.runs.processor import load_processor


def write(path: Path, sequences: int = 60, **more: Any) -> Path:
    draws = np.random.default_rng(sequences)
    lengths = draws.integers(1, 9, sequences)
    arrays = {
        "X": draws.normal(5, 3, (int(lengths.sum()), 4)).astype(np.float32),
        "lengths": lengths,
    }
    np.savez(path, **{**arrays, "y": np.arange(sequences) % 3, **more})
    return path


def test_frames_are_normalised_by_the_training_split_cut_and_padded(tmp_path: Path) -> None:
    examples = Sequences(path=str(write(tmp_path / "a.npz"))).examples("train", tmp_path)
    fitted = FramesConfig().fit(lambda: iter(examples))
    assert fitted.input_shape == (0, 4)
    batch = fitted.encode_inputs([e.inputs for e in examples])
    frames = torch.cat(
        [row[:length] for row, length in zip(batch["inputs"], batch["lengths"], strict=True)]
    )
    torch.testing.assert_close(frames.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(frames.std(0, unbiased=False), torch.ones(4), atol=1e-5, rtol=0)
    assert batch["inputs"].abs().sum() == pytest.approx(float(frames.abs().sum()), rel=1e-5)
    cut = FramesConfig(normalise="none", max_frames=2).fit(lambda: iter(examples))
    cut.save(tmp_path / "saved")
    again: Any = load_processor(tmp_path / "saved")
    short = again.encode_inputs([examples[0].inputs, np.ones((9, 4))])
    assert short["lengths"].tolist() == [min(2, len(examples[0].inputs)), 2]
    np.testing.assert_array_equal(short["inputs"][1], np.ones((2, 4), np.float32))


def test_statistics_in_parts_are_those_of_the_whole() -> None:
    parts = [np.random.default_rng(n).normal(1e4, 2.0, (n + 1, 3)) for n in range(30)]
    mean, spread = mean_and_spread(iter(parts))
    whole = np.concatenate(parts)
    np.testing.assert_allclose(mean, whole.mean(0), rtol=1e-12)
    np.testing.assert_allclose(spread, whole.std(0), rtol=1e-10)
    assert mean_and_spread([np.full((5, 2), 7.3)])[1] == [1.0, 1.0]
