"""Data is recognised by its files, columns and rows; what is not clear is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import DataError
from groundup.templates.columns import describe_columns
from groundup.templates.look import look_at

LONG = "This is a sentence of number {} that has enough words to be a text"


def write(path: Path, columns: dict[str, Any], rows: int = 40) -> Path:
    """Write rows whose values are made of the row's number: by a function, or the same for all."""
    lines = (
        {name: value(n) if callable(value) else value for name, value in columns.items()}
        for n in range(rows)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("columns", "kind", "texts"),
    [
        ({"text": LONG.format}, "text", ("text",)),
        ({"text": LONG.format, "source": lambda n: "ab"[n % 2]}, "text", ("text",)),
        ({"body": LONG.format, "id": lambda n: n}, "text", ("body",)),
        ({"question": "How?", "answer": LONG.format}, "chats", ()),
        ({"instruction": "Sum up", "input": LONG.format, "output": "So."}, "chats", ()),
        ({"prompt": "How?", "completion": LONG.format, "label": True}, "preferences", ()),
        ({"chosen": "a", "rejected": "b"}, "preferences", ()),
        ({"left": LONG.format, "right": LONG.format}, "pairs", ("left", "right")),
        ({"sentence1": "a", "sentence2": "b"}, "pairs", ("sentence1", "sentence2")),
        ({"en": LONG.format, "de": LONG.format, "id": 1}, "inputs and outputs", ("en", "de")),
        ({"Article": LONG.format, "summary": "x"}, "inputs and outputs", ("Article", "summary")),
        ({"translation": {"en": "a", "fr": "b"}}, "inputs and outputs", ()),
        ({"a": LONG.format, "b": lambda n: "xyz"[n % 3]}, "labelled text", ("a",)),
        (
            {"sentence1": "a", "sentence2": "b", "label": lambda n: n % 2},
            "labelled text",
            ("sentence1", "sentence2"),
        ),
        ({"a": lambda n: n / 7, "b": lambda n: n % 3, "label": lambda n: n % 2}, "table", ()),
        (
            {"note": LONG.format, "a": 1, "b": 2.5, "c": lambda n: n / 3, "y": lambda n: n % 2},
            "table",
            (),
        ),
    ],
)
def test_rows_by_their_columns(
    columns: dict[str, Any], kind: str, texts: tuple[str, ...], tmp_path: Path
) -> None:
    found = look_at(write(tmp_path / "rows.jsonl", columns))
    assert found.kind == kind
    assert found.texts == texts
    assert found.count == 40


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        (LONG.format, "text"),
        (lambda n: "春眠不觉晓处处闻啼鸟夜来风雨声" + "花落知多少"[n % 5], "text"),
        (lambda n: f"user-{n}", "names"),
        (lambda n: n + 1, "names"),
        (lambda n: n % 4, "classes"),
        (lambda n: "ab"[n % 2], "classes"),
        (lambda n: n % 2 == 0, "classes"),
        (lambda n: n * n, "numbers"),
        (lambda n: n % 25, "numbers"),
        (lambda n: n / 3, "numbers"),
        (lambda n: f"2024-05-{n % 28 + 1:02}", "dates"),
        (lambda n: [n], "structure"),
    ],
)
def test_what_a_column_holds(value: Any, holds: str) -> None:
    found = describe_columns([{"column": value(n)} for n in range(60)])["column"]
    assert found.holds == holds


def texts_in(folder: Path, names: tuple[str, ...], each: int) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            (folder / name / f"{number}.txt").write_text(LONG.format(number), encoding="utf-8")
    return folder


def test_folders_of_texts_are_classes_where_they_look_so_or_the_user_says_so(
    tmp_path: Path,
) -> None:
    many = texts_in(tmp_path / "many", ("pos", "neg"), 6)
    assert look_at(many).kind == "labelled text"
    few = texts_in(tmp_path / "few", ("tutorial", "library"), 2)
    assert look_at(few).kind == "text"
    assert look_at(few, "folder").kind == "labelled text"
    with pytest.raises(DataError, match="files of text have no column 'kind'; allowed: folder"):
        look_at(few, "kind")


def test_pictures_and_sounds_need_folders_that_are_classes(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    with pytest.raises(DataError, match="holds 2 pictures, but not a folder for each class"):
        look_at(tmp_path)
    with pytest.raises(DataError, match="is one file, but pictures and sounds are learned from"):
        look_at(tmp_path / "a.png")


def test_what_is_not_there_or_not_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file or folder"):
        look_at(tmp_path / "nothing.csv")
    (tmp_path / "a.xls").write_text("1", encoding="utf-8")
    with pytest.raises(DataError, match=r"the suffix '\.xls' is not a kind of file"):
        look_at(tmp_path / "a.xls")


def test_several_named_columns_are_asked_about(tmp_path: Path) -> None:
    columns = {"text": LONG.format, "label": lambda n: n % 2, "category": lambda n: n % 3}
    with pytest.raises(DataError, match=r"could be the label: label \(.*\); category \(.*--label"):
        look_at(write(tmp_path / "a.jsonl", columns))
