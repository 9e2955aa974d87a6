"""Sequences of frames: what is read from an .npz, how it is split, normalised and padded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.contracts.data import DataContext
from groundup.data.sources.sequences import Sequences
from groundup.data.splitting.drawing import say_once


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
        fraction=0.0,
    )
    assert [e.target for e in renamed.examples("train", tmp_path)] == ["a", "b"]


def test_copies_of_a_sequence_are_on_one_side(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    say_once.cache_clear()
    path = write(tmp_path / "a.npz")
    with np.load(path) as arrays:
        kept = {name: arrays[name] for name in arrays}
    first = int(kept["lengths"][:5].sum())
    np.savez(
        tmp_path / "test.npz",
        X=kept["X"][:first],
        lengths=kept["lengths"][:5],
        y=kept["y"][:5],
    )
    source = Sequences(path=str(path), test=str(tmp_path / "test.npz"), fraction=0.3)
    assert len(source.examples("test", tmp_path)) == 5
    assert len(names(source, "train") | names(source, "validation")) == 55
    assert "5 examples are left out, being held out as well" in caplog.text
    twice = {name: np.concatenate([values, values]) for name, values in kept.items()}
    np.savez(tmp_path / "twice.npz", **twice)
    source = Sequences(path=str(tmp_path / "twice.npz"), fraction=0.3)
    sides = [{(int(name) - 1) % 60 for name in names(source, s)} for s in source.splits()]
    assert not sides[0] & sides[1]


def test_transcripts_are_no_classes_and_batches_of_similar_lengths(tmp_path: Path) -> None:
    texts = np.array([f"one two {number:03}" for number in range(120)])
    path = write(tmp_path / "a.npz", sequences=120, y=texts)
    source = Sequences(path=str(path), fraction=0.3, similar_lengths=True)
    # Each is there once: as a class it would have to be trained on.
    assert 20 < len(names(source, "validation")) < 55
    card = source.card(tmp_path)
    assert "labels" not in card["train"]
    assert card["train"]["different_targets"] == card["train"]["examples"]

    def encode(examples: Any) -> Any:
        return {"frames": torch.tensor([len(example.inputs) for example in examples])}

    for similar in (True, False):
        own = Sequences(path=str(path), fraction=0.3, similar_lengths=similar)
        stream = own.open(
            DataContext(
                split="train",
                encode=encode,
                encode_key="",
                end_id=0,
                sequence_length=1,
                batch_size=8,
                micro_batch_size=8,
                seed=0,
                cache=tmp_path,
            )
        )
        batches = [next(stream)["frames"] for _ in range(10)]
        stream.close()
        padding = sum(int(b.max() * len(b) - b.sum()) for b in batches)
        share = padding / sum(int(b.max()) * len(b) for b in batches)
        assert (share < 0.12) == similar
