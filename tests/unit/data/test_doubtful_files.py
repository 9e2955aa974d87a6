"""Files that are damaged or doubtful: the cause is named, and what is read all the same is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from user_files import make, notes, write

from groundup.core.errors import DataError


@pytest.mark.parametrize(
    ("name", "content", "remedy"),
    [
        ("a.jsonl", '{"text": "x"}{"text": "y"}\n', "Write each object on a line of its own"),
        ("a.jsonl", '{"text": "x\ty"}\n', r"tabs and line ends inside a text as \\t and \\n"),
        ("a.jsonl", "<!DOCTYPE html><html>", "perhaps an error in place of the file: fetch it"),
        ("a.parquet", "<!DOCTYPE html><html>", "perhaps an error in place of the file: fetch it"),
        ("a.parquet", "ARROW1\0\0", "an Arrow .Feather. file: convert it to Parquet"),
        ("a.json", 'var data = [{"text": "x"}];', "remove what is before the first bracket"),
        ("a.json", '{"a": {"text": "x"}, "b": {"text": "y"}}', "rows are inside, as in 'a', write"),
        ("a.csv", "text,n\n“x, y”,1\n", 'with ", not with “'),
        ("a.csv", "text,n\n'x, y',1\n", "with \", not with '"),
        ("a.csv", "text,n\nx,1\nTotal 1\n", "or remove the line: 'Total 1'"),
    ],
)
def test_the_cause_of_damage(name: str, content: str, remedy: str, tmp_path: Path) -> None:
    source = make("text", write(tmp_path / name, content), fraction=0.0)
    with pytest.raises(DataError, match=remedy):
        list(source.examples("train", tmp_path))


@pytest.mark.parametrize("key", ["input", "system", "history"])
def test_a_zero_is_not_lost(key: str, tmp_path: Path) -> None:
    row = f'{{"instruction": "double it", "{key}": 0, "output": "0"}}\n'
    path = write(tmp_path / "a.jsonl", row if key != "history" else row.replace("0,", "5,"))
    source = make("conversations", path, fraction=0.0)
    with pytest.raises(DataError, match=f"column '{key}' is a number"):
        list(source.examples("train", tmp_path))


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="is a pipe, not a file or folder"):
        make("text", tmp_path / "a.jsonl").splits()
    (tmp_path / "b.txt").symlink_to("gone")
    with pytest.raises(DataError, match="is a broken link, to 'gone'") as told:
        make("text", tmp_path / "b.txt").splits()
    assert "did you mean 'b.txt'" not in str(told.value)
    with pytest.raises(DataError, match=r"Write its lines as rows of \.jsonl; labelled_text"):
        make("conversations", write(tmp_path / "c.txt", "Ann: hi\n")).splits()


def test_ends_of_texts_are_said_and_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one<|endoftext|>two<|endoftext|>")
    source = make("text", path, fraction=0.0)
    assert "<|endoftext|>, read as letters: data.split_on cuts there" in notes(source, tmp_path)
    source = make("text", path, fraction=0.0, split_on="<|endoftext|>")
    assert [each.text for each in source.examples("train", tmp_path)] == ["one", "two"]


def test_parts_that_are_missing_are_said(tmp_path: Path) -> None:
    for part in ("00000-of-00003", "00002-of-00003"):
        write(tmp_path / f"in/train-{part}.jsonl", f'{{"text": "{part}"}}\n')
    source = make("text", tmp_path / "in", fraction=0.0)
    assert "are missing (train-*-of-00003: 1 of 3, such as 00001)" in notes(source, tmp_path)
    write(tmp_path / "in/train-00001-of-00003.jsonl", '{"text": "x"}\n')
    assert "missing" not in notes(make("text", tmp_path / "in", fraction=0.0), tmp_path)


def test_labels_that_look_like_mistakes_are_said(tmp_path: Path) -> None:
    labels = ["pos", "Pos ", "neg", "nan", "#REF!"]
    rows = "".join(f"t{n},{labels[n % 5]}\n" for n in range(10))
    source = make("labelled_text", write(tmp_path / "a.csv", f"text,label\n{rows}"), fraction=0.0)
    said = notes(source, tmp_path)
    assert "differ in case or white space alone are classes of their own ('Pos ' and 'pos')" in said
    assert "look like missing values are classes too ('#REF!', 'nan')" in said


def test_a_second_line_of_headings_is_said(tmp_path: Path) -> None:
    rows = "".join(f"t{n},{n % 2}\n" for n in range(20))
    path = write(tmp_path / "a.csv", f"text,label\n(words),(0 or 1)\n{rows}")
    said = notes(make("labelled_text", path, fraction=0.0), tmp_path)
    assert f"labels of a single example: '(0 or 1)' at {path} row 1 (ends on line 2)" in said
    path = write(tmp_path / "a.csv", f"text,label\n{rows}")
    assert notes(make("labelled_text", path, fraction=0.0), tmp_path) == ""


def test_labels_of_a_single_text_each(tmp_path: Path) -> None:
    rows = "".join(f"t{n},id{n}\n" for n in range(20))
    path = write(tmp_path / "a.csv", f"text,label\n{rows}")
    with pytest.raises(DataError, match="for validation: each of the 20 labels has a single text"):
        make("labelled_text", path).examples("validation", tmp_path)
    assert len(make("labelled_text", path, fraction=0.0).examples("train", tmp_path)) == 20


def test_a_table_of_file_names_is_no_table_of_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "file,label\n1.txt,a\n2.txt,b\n")
    with pytest.raises(DataError, match="no column of texts, but 'file' with names of files"):
        make("labelled_text", path).splits()
