"""Sounds, tables and labelled texts of a Hugging Face data set."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub import datasets, own_cache, png, write_dataset

from groundup.core.values import StoredFile
from groundup.data.sources.audio import Audio
from groundup.data.sources.labelled_text import LabelledText
from groundup.data.sources.table import TableSource
from groundup.processors.audio import AudioConfig

pytestmark = [pytest.mark.usefixtures("own_cache"), pytest.mark.xdist_group("datasets")]
__all__ = ["own_cache"]


def classes() -> Any:
    return datasets.ClassLabel(names=["low", "high"])


def wav(hertz: float, number: int) -> dict[str, Any]:
    soundfile = pytest.importorskip("soundfile")
    samples = np.sin(np.arange(800) * (hertz + number) / 8000 * 2 * np.pi) / 2
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 8000, format="WAV")
    return {"bytes": buffer.getvalue(), "path": f"{number}.wav"}


def sounds(first: int, last: int) -> dict[str, list[Any]]:
    numbers = range(first, last)
    return {
        "audio": [wav(200 + 600 * (n % 2), n) for n in numbers],
        "label": [n % 2 for n in numbers],
    }


def sizes(source: Any, cache: Path) -> dict[str, int]:
    return {split: len(list(source.examples(split, cache))) for split in source.splits()}


@pytest.mark.slow
def test_sounds_are_decoded_from_their_rows(tmp_path: Path) -> None:
    splits = {"train": sounds(0, 30), "test": sounds(30, 40)}
    splits["train"]["audio"][4] = splits["test"]["audio"][0]  # heard in training and in the test
    features = {"audio": datasets.Audio(), "label": classes()}
    source = Audio(dataset=write_dataset(tmp_path / "sounds", splits, features), fraction=0.3)
    found = sizes(source, tmp_path)
    assert (found["train"] + found["validation"], found["test"]) == (29, 10)
    example = source.examples("test", tmp_path)[1]
    assert (example.name, example.target) == ("test:2", "high")
    assert isinstance(example.inputs, StoredFile)
    config = AudioConfig(sample_rate=8000)
    fitted = config.fit(lambda: iter(source.examples("train", tmp_path)))
    assert fitted.encode_inputs([example.inputs])["inputs"].shape[2] == 13
    card = source.card(tmp_path)
    assert (card["sample_rates"], card["same_as_held_out"], card["test"]["seconds"]) == (
        {"8000": 40},
        1,
        1.0,
    )
    assert card["splits"] == {"train": "train", "test": "test"}
    folds = Audio(dataset=source.dataset, folds=3)
    assert sizes(folds, tmp_path)["test"] == 10


@pytest.mark.slow
def test_sounds_with_a_validation_split(tmp_path: Path) -> None:
    splits = {"train": sounds(0, 8), "validation": sounds(7, 12)}
    splits["train"]["audio"][0] = {"bytes": b"noise", "path": None}
    folder = write_dataset(
        tmp_path / "sounds", splits, {"audio": datasets.Audio(), "label": classes()}
    )
    source = Audio(dataset=folder, on_unreadable="skip", in_memory=False)
    assert sizes(source, tmp_path) == {"train": 6, "validation": 5}
    assert source.card(tmp_path)["set_aside_files"].keys() == {"train:1"}


def rows(first: int, last: int) -> dict[str, list[Any]]:
    numbers = range(first, last)
    return {
        **{"age": [20 + n for n in numbers], "town": [f"town {n % 3}" for n in numbers]},
        **{
            "photo": [{"bytes": png([[n]]), "path": None} for n in numbers],
            "rich": [n % 2 for n in numbers],
        },
    }


def test_a_table_of_the_hub(tmp_path: Path) -> None:
    features = {
        **{"age": datasets.Value("int64"), "town": datasets.Value("string")},
        **{"photo": datasets.Image(), "rich": classes()},
    }
    splits = {"train": rows(0, 40), "test": rows(40, 50)}
    folder = write_dataset(tmp_path / "people", splits, features)
    source = TableSource(dataset=folder, target="rich", ignore=("photo",), licence="CC0")
    found = sizes(source, tmp_path)
    assert found["train"] + found["validation"] == 40
    assert found["test"] == 10
    example = source.examples("test", tmp_path)[0]
    assert (example.name, example.target, example.inputs["age"]) == ("test:1", "low", 60)
    card = source.card(tmp_path)
    assert (card["source"], card["licence"], card["test"]) == (folder, "CC0", {"examples": 10})
    assert card["targets"]["rich"]["labels"].keys() == {"low", "high"}
    late = TableSource(
        dataset=folder,
        target="rich",
        ignore=("photo",),
        time_column="age",
        fraction=0.25,
    )
    assert [e.inputs["age"] for e in late.examples("validation", tmp_path)] == list(range(50, 60))
    named = TableSource(
        dataset=folder, target=("rich", "age"), columns=("town",), validation="test"
    )
    assert sizes(named, tmp_path) == {"train": 40, "validation": 10}


TEXTS = [f"the film number {n} was {'good' if n % 2 else 'bad'}" for n in range(40)]


def reviews(root: Path, splits: dict[str, slice], **features: Any) -> str:
    columns = {
        split: {"review": TEXTS[part], "mood": [n % 2 for n in range(40)][part]}
        for split, part in splits.items()
    }
    return write_dataset(
        root, columns, {"review": datasets.Value("string"), "mood": classes(), **features}
    )


@pytest.mark.slow
def test_labelled_texts_of_the_hub(tmp_path: Path) -> None:
    splits = {"train": slice(0, 30), "validation": slice(28, 34), "test": slice(33, 40)}
    folder = reviews(tmp_path / "reviews", splits)
    source = LabelledText(dataset=folder, licence="MIT")
    assert sizes(source, tmp_path) == {
        "train": 28,
        "validation": 5,
        "test": 7,
    }  # a text is on one side
    example = source.examples("train", tmp_path)[1]
    assert (example.inputs, example.target) == (TEXTS[1], "high")
    card = source.card(tmp_path)
    assert (card["source"], card["licence"], card["same_as_held_out"]) == (folder, "MIT", 3)
    assert card["splits"] == {split: split for split in splits}
    named = LabelledText(
        dataset=folder, text_column="review", label_column="mood", validation="test"
    )
    assert sizes(named, tmp_path) == {"train": 30, "validation": 7}


@pytest.mark.slow
def test_labelled_texts_streamed_from_the_hub(tmp_path: Path) -> None:
    folder = reviews(tmp_path / "reviews", {"train": slice(0, 30), "test": slice(30, 40)})
    columns = {"text_column": "review", "label_column": "mood", "streaming": True}
    source = LabelledText(dataset=folder, **columns)
    assert source.splits() == ("train", "validation")
    assert sum(sizes(source, tmp_path).values()) == 30
    judged = LabelledText(dataset=folder, test="test", **columns)
    assert sizes(judged, tmp_path)["test"] == 10
    assert judged.examples("test", tmp_path)[0].target == "low"
    assert judged.card(tmp_path)["splits"] == {"train": "train", "test": "test"}
