"""Sounds: how they are read, brought to one rate, made features of, labelled by folders and tables,
and split."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from groundup.contracts.data import DataContext
from groundup.core.values import Example
from groundup.data.sources.audio import Audio
from groundup.media.audio import read_sound
from groundup.processors.audio import AudioConfig
from groundup.processors.labelled import Labelled
from groundup.tasks.classify.task import Classify


def tone(hz: float, rate: int = 8000, seconds: float = 0.25) -> np.ndarray[Any, Any]:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


def write(path: Path, samples: np.ndarray[Any, Any], rate: int = 8000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path


def library(root: Path, files: int = 12) -> Path:
    """Two classes, low and high tones, by three speakers."""
    for number in range(files):
        for label, hz in (("低音", 200), ("high", 1500)):
            write(
                root / label / f"s{number % 3}_{number}.wav",
                tone(hz + 5 * number, seconds=0.2 + 0.01 * number),
            )
    return root


def sides(source: Audio, cache: Path) -> dict[str, set[str]]:
    return {
        split: {e.name for e in source.examples(split, cache)} for split in ("train", "validation")
    }


# --------------------------------------------------------------------------------------- the source
def test_a_folder_for_each_class(tmp_path: Path) -> None:
    source = Audio(path=str(library(tmp_path / "库")), fraction=0.3)
    write(tmp_path / "库" / "loose.wav", tone(100))
    found = sides(source, tmp_path)
    assert len(found["train"] | found["validation"]) == 24
    assert not found["train"] & found["validation"]
    card = source.card(tmp_path)
    assert card["train"]["examples"] + card["validation"]["examples"] == 24
    assert set(card["train"]["labels"]) == {"低音", "high"}
    assert card["train"]["min_seconds"] >= 0.2
    assert card["train"]["max_seconds"] <= 0.31
    left_out = {"without a class folder": 1}
    assert card["files"] == {"found": 25, "read": 24, "left_out": left_out}
    assert (card["set_aside"], card["channels"]) == (0, {"1": 24})
    assert card["several_channels"] == "averaged"
    assert found != sides(source.model_copy(update={"seed": 1}), tmp_path)


def test_speakers_and_same_samples_stay_on_one_side(tmp_path: Path) -> None:
    root = library(tmp_path / "root")
    source = Audio(path=str(root), group=r"/(s\d)_", fraction=0.4, seed=2)
    speakers = {
        split: {name.split("/")[1].split("_")[0] for name in names}
        for split, names in sides(source, tmp_path).items()
    }
    assert speakers["train"] | speakers["validation"] == {"s0", "s1", "s2"}
    assert not speakers["train"] & speakers["validation"]
    for number in range(20):
        write(root / "high" / f"copy{number}.wav", tone(999))
    found = sides(Audio(path=str(root), fraction=0.3), tmp_path)
    assert len({split for split, names in found.items() for name in names if "copy" in name}) == 1
    assert Audio(path=str(root), fraction=0.3).card(tmp_path)["same_samples"] == 19


def test_folds_are_even_and_cover_everything(tmp_path: Path) -> None:
    root = library(tmp_path / "root", 10)
    folds = [
        Audio(path=str(root), folds=5, fold=fold).examples("validation", tmp_path)
        for fold in range(5)
    ]
    assert sorted(e.name for fold in folds for e in fold) == sorted(
        {e.name for fold in folds for e in fold}
    )
    assert [sorted(e.target for e in fold) for fold in folds] == [["high"] * 2 + ["低音"] * 2] * 5


@pytest.mark.parametrize("held_out", ["validation", "eval"])
def test_folders_that_are_splits(tmp_path: Path, held_out: str) -> None:
    library(tmp_path / "train", 3)
    for label in ("低音", "high"):
        write(tmp_path / held_out / label / "x.wav", tone(700 if label == "high" else 100))
    (tmp_path / held_out / "high" / "y.wav").write_bytes(
        (tmp_path / "train" / "high" / "s0_0.wav").read_bytes()
    )
    source = Audio(path=str(tmp_path))
    found = sides(source, tmp_path / "cache")
    assert found["validation"] == {
        f"{held_out}/{name}.wav" for name in ("低音/x", "high/x", "high/y")
    }
    assert len(found["train"]) == 5  # the one that is held out as well is left out
    assert source.card(tmp_path / "cache")["same_as_held_out"] == 1


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for label in ("train", "bus", "test"):
        for number in range(9):
            write(tmp_path / label / f"{number}.wav", tone(100 + number + 100 * ord(label[0])))
    source = Audio(path=str(tmp_path), fraction=0.3)
    found = {e.target for e in source.examples("train", tmp_path)}
    assert found == {"bus", "train", "test"}
    assert "read as classes, not as splits" in source.card(tmp_path)["warnings"][0]
    assert source.card(tmp_path)["warnings"][0].endswith(": test, train")


def test_a_table_beside_the_files(tmp_path: Path) -> None:
    for number in range(8):
        write(tmp_path / "clips" / f"{number}.wav", tone(100 + number))
    rows = "".join(f"clips/{number}.wav,{number % 2}\n" for number in range(7))
    (tmp_path / "metadata.csv").write_text(f"file_name,digit\n{rows}", encoding="utf-8")
    source = Audio(path=str(tmp_path), label_column="digit", folds=2)
    assert {e.target for e in source.examples("train", tmp_path)} == {"0", "1"}
    assert sum(len(names) for names in sides(source, tmp_path).values()) == 7
    files = source.card(tmp_path)["files"]
    assert files["left_out"]["not named in the table of labels"] == 1
    rows = "".join(f'{{"file_name": "clips/{n}.wav", "label": ["a", "l{n}"]}}\n' for n in range(8))
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.jsonl").write_text(rows, encoding="utf-8")
    tagged = Audio(path=str(tmp_path), folds=2)
    assert tagged.examples("validation", tmp_path)[0].target[0] == "a"
    assert tagged.card(tmp_path)["train"]["labels"]["a"] == 4


def test_unreadable_files_are_set_aside_and_named(tmp_path: Path) -> None:
    root = library(tmp_path / "root")
    (root / "high" / "bad.wav").write_bytes(b"RIFF nothing")
    write(root / "high" / "empty.wav", np.zeros(0))
    source = Audio(path=str(root), on_unreadable="skip", fraction=0.3)
    assert sum(len(names) for names in sides(source, tmp_path).values()) == 24
    card = source.card(tmp_path)
    assert card["set_aside"] == 2
    assert set(card["set_aside_files"]) == {"high/bad.wav", "high/empty.wav"}
    assert "no samples" in card["set_aside_files"]["high/empty.wav"]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    root = library(tmp_path / "root")
    source = Audio(path=str(root), fraction=0.3)
    before = source.card(tmp_path)["train"]["max_seconds"]
    write(root / "high" / "longer.wav", tone(100, seconds=3))
    write(root / "high" / "longest.wav", tone(105, seconds=4))
    card = source.card(tmp_path)
    assert before < 0.4 < 2 < max(card["train"]["max_seconds"], card["validation"]["max_seconds"])
    write(root / "high" / "longest.wav", tone(105, seconds=6))
    changed = source.card(tmp_path)
    assert max(changed["train"]["max_seconds"], changed["validation"]["max_seconds"]) == 6.0


@pytest.mark.parametrize("in_memory", [True, False])
def test_micro_batches(tmp_path: Path, in_memory: bool) -> None:
    source = Audio(path=str(library(tmp_path / "root")), in_memory=in_memory, fraction=0.3)

    def train() -> Iterator[Example]:
        return iter(source.examples("train", tmp_path))

    task = Classify()
    processor = task.fit_processor(AudioConfig(sample_rate=8000).fit(train), train)
    assert isinstance(processor, Labelled)
    context = DataContext("train", lambda e: task.encode(e, processor), "", 0, 0, 4, 4, 0, tmp_path)
    batch = next(source.open(context))
    assert batch["inputs"].shape == (4, int(batch["lengths"].max()), 13)
    if not in_memory:
        kept = next(source.model_copy(update={"in_memory": True}).open(context))
        assert all(torch.equal(batch[name], kept[name]) for name in kept)


def test_bytes_from_memory() -> None:
    content = io.BytesIO()
    soundfile.write(content, tone(440), 8000, format="WAV")
    assert read_sound(content.getvalue()).rate == 8000
