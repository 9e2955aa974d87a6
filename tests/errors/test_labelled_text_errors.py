"""Every message of labelled texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.data.sources.labelled_text import LabelledText


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, **settings: Any) -> None:
    source = LabelledText(path=str(path), **settings)
    source.examples("train", path.parent)
    source.examples("validation", path.parent)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "a.csv",
            "txt,label\nx,y\n",
            r"there is no column 'text', and which .*text_column: txt, label_column: label",
        ),
        (
            "a.csv",
            "text,genre\nx,y\n",
            "there is no column 'label', and which .*; columns: text, genre. Name them in the data section",
        ),
        ("a.csv", "text,label\nx,y,z\n", "row 1 .*: the row has 3 cells and the header 2"),
        ("a.csv", "text,label\nx,\n", "row 1 .*: column 'label' holds nothing; allowed: a label"),
        (
            "a.jsonl",
            '{"text": "x", "label": null}\n',
            "line 1: column 'label' holds nothing; allowed",
        ),
        (
            "a.jsonl",
            '{"text": "x", "label": {"a": 1}}\n',
            r"column 'label' holds \{'a': 1\}; allowed: a label",
        ),
        ("a.jsonl", '{"text": 5, "label": "a"}\n', "line 1: column 'text' is a number"),
        ("a.csv", b"text,label\ncaf\xe9,a\n", r"a.csv: byte 14 \(0xe9\) is not UTF-8"),
        (
            "a.txt",
            "x\ty\n",
            r"the suffix '.txt' is not a kind of file that is read here; allowed: .jsonl",
        ),
        ("a.csv", "text,label\n", "nothing to read: no rows"),
        ("a.csv", "text,label\nx,y\n", r"nothing is left for \w+ \(fraction 0.1\)"),
    ],
)
def test_rows_that_cannot_be_read(
    tmp_path: Path, name: str, content: str | bytes, problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        read(write(tmp_path / name, content))


def test_rows_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "a\tb\na\tb\tc\n")
    with pytest.raises(DataError, match=r"row 2 .*: the row has 3 cells and the first 2"):
        read(path, header=False, text_column=1, label_column=2)
    with pytest.raises(DataError, match=r"there is no column '3'; .*columns: 1, 2"):
        read(path, header=False, text_column=1, label_column=3)


def test_folders(tmp_path: Path) -> None:
    root = tmp_path / "类"
    write(root / "pos" / "1.txt", b"caf\xe9")
    write(root / "neg" / "1.txt", "x")
    with pytest.raises(DataError, match=r"类/pos/1.txt: byte 3 \(0xe9\) is not UTF-8"):
        read(root)
    write(root / "pos" / "1.txt", "y")
    with pytest.raises(
        DataError, match=r"label_column: has no effect: .* has a folder of texts for each class"
    ):
        read(root, label_column="class")
    with pytest.raises(
        DataError,
        match="validation is a list; allowed with a folder for each class: one",
    ):
        read(root, validation=["a"])
    write(tmp_path / "held" / "other" / "1.txt", "z")
    with pytest.raises(
        DataError, match="类: the class 'other' has held-out examples only; training has neg, pos"
    ):
        read(root, validation=str(tmp_path / "held"))
    (root / "empty").mkdir()
    with pytest.raises(
        DataError,
        match=r"the class folder 'empty' holds no file of the kinds .txt, .md.*; it is empty",
    ):
        read(root)
    with pytest.raises(DataError, match="there are no class folders, and 1 files without one"):
        read(tmp_path / "held" / "other")


def test_nothing_to_train_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\nx,y\n")
    with pytest.raises(DataError, match="nothing is left for train, without what cannot be used"):
        read(path, validation=str(write(tmp_path / "b.csv", "text,label\nx,y\n")))


def test_folders_that_are_splits(tmp_path: Path) -> None:
    write(tmp_path / "root" / "train" / "a" / "1.txt", "x")
    write(tmp_path / "root" / "val" / "a" / "1.txt", "y")
    with pytest.raises(
        RecipeError, match=r"folds: has no effect: .*root has a folder of its own for validation"
    ):
        read(tmp_path / "root", folds=2)
    write(tmp_path / "root" / "test" / "a" / "1.txt", "z")
    with pytest.raises(
        RecipeError, match=r"test: has no effect: .*root has a folder of its own for test"
    ):
        read(tmp_path / "root", test=0.5)


def test_classes_of_a_single_text_each_leave_nothing_to_hold_out(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path / "root" / f"c{number}" / "1.txt", f"text {number}")
    with pytest.raises(DataError, match=r"each of the 20 labels has .* data\.validation"):
        read(tmp_path / "root", fraction=0.5)


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({}, "neither path nor dataset is given"),
        ({"path": "a", "dataset": "b"}, "both path and dataset are given"),
        ({"dataset": "b", "separator": ";"}, "separator has no effect with dataset"),
        (
            {"path": "a", "header": False},
            "text_column is 'text', but header is false; allowed: a number, from 1",
        ),
        (
            {"path": "a", "label_column": 2},
            "label_column is 2, but header is true; allowed: a name",
        ),
        ({"path": "a", "label_column": "text"}, "text_column and label_column are both 'text'"),
        ({"path": "a", "fold": 2}, "fold has no effect without folds"),
        ({"path": "a", "folds": 5, "fold": 5}, "fold 5 of 5; allowed: 0 to 4"),
        (
            {"path": "a", "folds": 5, "fraction": 0.2},
            "fraction has no effect with folds",
        ),
        (
            {"path": "a", "validation": "b", "folds": 5},
            "folds has no effect with validation",
        ),
        (
            {"dataset": "a", "validation": "b", "seed": 1},
            "seed has no effect with validation",
        ),
        ({"path": "a", "separator": "||"}, "recipe.data.separator"),
    ],
)
def test_settings_that_contradict_each_other(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        validate(LabelledText, section, "recipe.data")
