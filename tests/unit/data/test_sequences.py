"""Sequences of frames: what is read from an .npz, how it is split, normalised and padded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from groundup.data.sources.sequences import Sequences


def write(path: Path, sequences: int = 60, **more: Any) -> Path:
    draws = np.random.default_rng(sequences)
    lengths = draws.integers(1, 9, sequences)
    arrays = {
        "X": draws.normal(5, 3, (int(lengths.sum()), 4)).astype(np.float32),
        "lengths": lengths,
    }
    np.savez(path, **{**arrays, "y": np.arange(sequences) % 3, **more})
    return path


def names(source: Sequences, split: Any) -> set[str]:
    return {example.name for example in source.examples(split, Path())}


def test_sequences_are_cut_from_all_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz")
    source = Sequences(path=str(path), fraction=0.3)
    every = sorted(
        source.examples("train", tmp_path) + source.examples("validation", tmp_path),
        key=lambda e: int(e.name),
    )
    with np.load(path) as arrays:
        np.testing.assert_array_equal(np.concatenate([e.inputs for e in every]), arrays["X"])
        assert [len(e.inputs) for e in every] == arrays["lengths"].tolist()
        assert [e.target for e in every] == arrays["y"].tolist()
    card = source.card(tmp_path)
    assert card["train"]["frames"] + card["validation"]["frames"] == sum(
        len(e.inputs) for e in every
    )
    assert card["features"] == 4
    assert (card["train"]["min_frames"], card["train"]["max_frames"]) == (1, 8)
    assert not names(source, "train") & names(source, "validation")
    assert names(source, "train") != names(source.model_copy(update={"seed": 1}), "train")


def test_other_names_groups_and_folds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", speaker=np.array([f"s{n % 6}" for n in range(60)]))
    source = Sequences(path=str(path), groups_key="speaker", folds=3, fold=1)
    sides = [
        {(int(name) - 1) % 6 for name in names(source, split)} for split in ("train", "validation")
    ]
    assert not sides[0] & sides[1]
    assert len(sides[1]) == 2
    folds = [
        names(Sequences(path=str(path), folds=4, fold=fold), "validation") for fold in range(4)
    ]
    assert [len(fold) for fold in folds] == [15] * 4
    assert len(set.union(*folds)) == 60
    np.savez(tmp_path / "b.npz", values=np.ones((3, 2)), n=[1, 2], label=["a", "b"])
    renamed = Sequences(
        **{
            "path": str(tmp_path / "b.npz"),
            "values_key": "values",
            "lengths_key": "n",
            "labels_key": "label",
        },
        validation=str(tmp_path / "b.npz"),
    )
    assert [e.target for e in renamed.examples("validation", tmp_path)] == ["a", "b"]
