"""Files and folders that are called like splits are splits in every source, and never pooled."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.core import registry
from groundup.core.errors import DataError
from groundup.core.settings import validate
from groundup.core.values import Split
from groundup.data.reading.source import Source
from groundup.data.sources.audio import Audio
from groundup.data.sources.images import Images
from groundup.data.sources.labelled_text import LabelledText
from groundup.data.sources.text import TextSource
from groundup.reports.data_notes import data_notes

Write = Callable[[Path, Split, int], None]
COUNTS: dict[Split, int] = {"train": 12, "validation": 4, "test": 3}
ROWS: dict[str, Callable[[str], dict[str, Any]]] = {
    "text": lambda name: {"text": f"some text {name}"},
    "conversations": lambda name: {"prompt": f"why {name}", "completion": name},
    "preferences": lambda name: {"prompt": f"q {name}", "chosen": "a", "rejected": "b"},
    "labelled_text": lambda name: {"text": f"some text {name}", "label": name[-1]},
    "parallel_text": lambda name: {"source": f"q {name}", "target": f"a {name}"},
    "text_pairs": lambda name: {"anchor": f"q {name}", "positive": f"a {name}"},
    "question_answers": lambda name: {
        "question": f"where is {name}",
        "context": f"{name} is here",
        "answers": [{"text": name, "answer_start": 0}],
    },
    "token_labels": lambda name: {"tokens": ["one", name], "labels": ["O", "B"]},
}


def sizes(source: Source, cache: Path) -> dict[str, int]:
    return {split: len(list(source.examples(split, cache))) for split in source.splits()}


def write_rows(kind: str) -> Write:
    def write(path: Path, split: Split, count: int) -> None:
        lines = [json.dumps(ROWS[kind](f"{split}{number}")) for number in range(count)]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    return write


def write_table(path: Path, split: Split, count: int) -> None:
    rows = "".join(f"{len(split) * 100 + number},{number % 2}\n" for number in range(count))
    path.write_text(f"x,y\n{rows}", encoding="utf-8")


def write_arrays(path: Path, split: Split, count: int) -> None:
    y = np.arange(count) % 2
    values = len(split) * 100.0 + np.arange(count)[:, None]
    np.savez(path, x=np.zeros((count, 3)), y=y, X=values, lengths=np.ones_like(y))


@pytest.mark.parametrize("name", [*ROWS, "table", "arrays", "sequences"])
@pytest.mark.parametrize(
    "layout",
    [
        "train.{} validation.{} test.{}",
        "Train.{} VAL.{} Test.{}",
        "data_train.{} data_dev.{} data_test.{}",
        "train/a.{} valid/a.{} test/a.{}",
        "training/a.{} eval/a.{} testing/a.{}",
        "x/train-00000-of-00002.{} x/validation-00000-of-00001.{} x/test-00000-of-00001.{}",
    ],
)
def test_splits_by_name(name: str, layout: str, tmp_path: Path) -> None:
    write, suffix = {
        "table": (write_table, "csv"),
        "arrays": (write_arrays, "npz"),
        "sequences": (write_arrays, "npz"),
    }.get(name, (write_rows(name) if name in ROWS else write_table, "jsonl"))
    for split, place in zip(COUNTS, layout.format(*[suffix] * 3).split(), strict=True):
        path = tmp_path / "data" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, split, COUNTS[split])
    settings = {"path": str(tmp_path / "data")} | ({"target": "y"} if name == "table" else {})
    source = validate(registry.lookup("data", name), settings, "recipe.data")
    assert isinstance(source, Source)
    assert sizes(source, tmp_path / "cache") == COUNTS


@pytest.mark.parametrize("name", ROWS)
def test_another_file_is_read_whole(name: str, tmp_path: Path) -> None:
    write_rows(name)(tmp_path / "others.jsonl", "test", 7)
    source = validate(registry.lookup("data", name), {"path": "rows.jsonl"}, "recipe.data")
    other = source.reading(str(tmp_path / "others.jsonl"))
    assert isinstance(other, Source)
    assert sizes(other, tmp_path / "cache") == {"train": 7}


# ---------------------------------------------------------------------------------- class folders
def write_text(path: Path, number: int) -> None:
    path.write_text(f"{path} {number}", encoding="utf-8")


def write_picture(path: Path, number: int) -> None:
    image = pytest.importorskip("PIL.Image")
    seed = zlib.crc32(str(path).encode())
    image.fromarray(np.random.default_rng(seed).integers(0, 255, (4, 4), np.uint8)).save(path)


def write_sound(path: Path, number: int) -> None:
    soundfile = pytest.importorskip("soundfile")
    seed = zlib.crc32(str(path).encode())
    soundfile.write(path, np.random.default_rng(seed).uniform(-1, 1, 60), 8000)


@pytest.mark.parametrize(
    ("source", "write", "suffix"),
    [
        (LabelledText, write_text, "txt"),
        (Images, write_picture, "png"),
        pytest.param(Audio, write_sound, "wav", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("layout", "named"),
    [
        ("{split}/{label}/{number}", {}),
        ("{label}/{split}/{number}", {}),
        ("{label}/{split}_{number}", {}),
        ("{split}/{label}/deep/{number}", {}),
        ("{label}/{number}", {"validation": "held/validation", "test": "held/test"}),
    ],
)
def test_class_folders(
    source: type[Source],
    write: Callable[[Path, int], None],
    suffix: str,
    layout: str,
    named: dict[str, str],
    tmp_path: Path,
) -> None:
    for split, count in COUNTS.items():
        for number in range(count):
            for label in ("cat", "dog"):
                place = layout.format(split=split, label=label, number=number)
                root = tmp_path / "data"
                if named and split != "train":
                    root = tmp_path / "held" / split
                path = root / f"{place}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, number)
    settings = {"path": str(tmp_path / "data")}
    settings |= {split: str(tmp_path / path) for split, path in named.items()}
    made = validate(source, settings, "recipe.data")
    assert sizes(made, tmp_path / "cache") == {split: 2 * n for split, n in COUNTS.items()}
    labels = {example.target for example in made.examples("train", tmp_path / "cache")}
    assert labels == {"cat", "dog"}
    files = made.card(tmp_path / "cache")["files"]
    assert (files["found"], files["read"]) == (38, 38)


def test_a_test_folder_without_a_validation_folder(tmp_path: Path) -> None:
    for split, count in (("train", 40), ("test", 5)):
        for number in range(count):
            for label in "ab":
                path = tmp_path / "data" / split / label / f"{number}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, number)
    source = LabelledText(path=str(tmp_path / "data"), fraction=0.2)
    found = sizes(source, tmp_path)
    assert found["test"] == 10
    assert found["train"] + found["validation"] == 80
    assert found["validation"] > 4


def test_a_folder_named_for_a_split_is_no_class(tmp_path: Path) -> None:
    for label in ("a", "b", "held/a", "held/b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(8):
            write_text(tmp_path / "data" / label / f"{number}.txt", number)
    named = str(tmp_path / "data" / "held")
    source = LabelledText(path=str(tmp_path / "data"), validation=named)
    assert sizes(source, tmp_path) == {"train": 16, "validation": 16}
    assert {e.target for e in source.examples("train", tmp_path)} == {"a", "b"}


def test_folders_of_files_that_are_splits_without_classes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for number in range(4):
            write_text(tmp_path / split / f"{number}.txt", number)
    with pytest.raises(DataError, match=r"test, train hold files, but no folders of classes\. Put"):
        LabelledText(path=str(tmp_path)).splits()


@pytest.mark.slow
def test_a_table_of_labels_in_the_root(tmp_path: Path) -> None:
    rows = "file_name,label\n"
    for split, count in COUNTS.items():
        (tmp_path / "data" / split).mkdir(parents=True)
        for number in range(count):
            write_sound(tmp_path / "data" / split / f"{number}.wav", number)
            rows += f"{split}/{number}.wav,{number % 2}\n"
    (tmp_path / "data" / "metadata.csv").write_text(rows, encoding="utf-8")
    assert sizes(Audio(path=str(tmp_path / "data")), tmp_path) == COUNTS


# -------------------------------------------------------------------------------- what is not clear
def test_names_that_may_be_splits_are_said(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b_test.jsonl"):
        write_rows("text")(tmp_path / name, "train", 3)
    (note,) = data_notes(TextSource(path=str(tmp_path)).card(tmp_path / "cache"))
    assert note == (
        f"{tmp_path}: trained on, although called like held-out rows; data.validation or data.test"
        " would hold them out: b_test.jsonl"
    )


def test_folders_next_to_the_splits_are_said(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "validation/a", "validation/b", "dev/a", "extra/a"):
        (tmp_path / "data" / place).mkdir(parents=True)
        for number in range(3):
            write_text(tmp_path / "data" / place / f"{number}.txt", number)
    card = LabelledText(path=str(tmp_path / "data")).card(tmp_path)
    assert card["files"]["left_out"] == {"next to the folders of splits": 6}
    assert sorted(card["warnings"]) == [
        f"the folder {name} is not used: train, validation are the splits"
        for name in ("dev", "extra")
    ]


@pytest.mark.parametrize("name", ["labelled_text", "table"])
def test_test_rows_without_labels_are_left_out(tmp_path: Path, name: str) -> None:
    rows = "".join(f"t{number},{'ab'[number % 2]}\n" for number in range(30))
    (tmp_path / "train.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    (tmp_path / "test.csv").write_text("text\nq1\nq2\n", encoding="utf-8")
    settings: dict[str, Any] = {"path": str(tmp_path)}
    settings |= {"target": "label"} if name == "table" else {}
    source = validate(registry.lookup("data", name), settings, "recipe.data")
    assert isinstance(source, Source)
    assert sum(sizes(source, tmp_path).values()) == 30
    assert source.splits() == ("train", "validation")
    card = source.card(tmp_path)
    assert card["files"]["left_out"] == {"test files without labels": 1}
    assert card["warnings"] == ["test.csv has no column 'label', and is left out"]
