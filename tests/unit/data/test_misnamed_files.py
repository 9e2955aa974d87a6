"""Paths that name no files to read, and files that are not what they are called: what to do is said, and
works."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from user_files import make, write

from groundup.core import registry
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.data.reading.listing import list_files


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "a.jsonl",
            '{"text": "x"},\n{"text": "y"},\n',
            r"sed 's/,\[\[:space:\]\]\*\$//' OLD > NEW",
        ),
        ("a.jsonl", '[\n{"text": "x"}\n]\n', "name the file .json"),
        ("a.json", "text,label\nx,1\n", "give the file its suffix, such as .csv"),
        ("a.csv", '{"text": "x", "n": 1}\n', "looks like lines of JSON, not cells. Name it .jsonl"),
        ("a.csv", "<html><table>\n", "looks like a web page, as some programs export tables"),
        ("a.csv", "a,1\nb,2\n", r"\(labelled_text: data.header: false\)"),
        ("a.csv", 'text,n\n"x", "a, b"\n', "Remove the blanks between separators and quotes"),
        ("a.csv", "text,n\nx,1\n(1 row)\n", "Fill in the cells that are missing, or remove the"),
        ("a.csv", 'text\n"say \\"x\\""\n', r"not with a backslash: sed 's/"),
        ("a.txt", "version https://git-lfs.github.com/spec/v1\n", "Fetch it: git lfs pull"),
        ("a.parquet", "version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("a.txt", "\x1b$B$3$l$O\x1b(B\n", "Set data.encoding: iso2022_jp"),
    ],
)
def test_files_that_are_not_what_they_are_called(
    name: str, content: str, problem: str, tmp_path: Path
) -> None:
    source = make("text", write(tmp_path / name, content), fraction=0.0)
    with pytest.raises(DataError, match=problem):
        list(source.examples("train", tmp_path))


def test_fasttext_by_the_remedy(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "__label__x one text\n__label__y 2\n")
    with pytest.raises(DataError, match="Write fastText's lines as cells: sed") as told:
        make("labelled_text", path).splits()
    command = told.value.remedy.split("cells: ")[1].split(", and set")[0]
    subprocess.run(command, shell=True, check=True)
    columns = {"header": False, "label_column": 1, "text_column": 2, "quotes": False}
    source = make("labelled_text", tmp_path / "a.tsv", fraction=0.0, **columns)
    found = {example.inputs: example.target for example in source.examples("train", tmp_path)}
    assert found == {"one text": "x", "2": "y"}


def test_damaged_utf8_is_no_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("これは".encode() + b"\xff\n")
    with pytest.raises(DataError, match="or leave out such: iconv -c -f UTF-8 -t UTF-8"):
        list(make("text", path).examples("train", tmp_path))


def test_paths_that_are_no_files_to_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="path is empty"):
        validate(registry.lookup("data", "text"), {"path": ""}, "recipe.data")
    with pytest.raises(DataError, match="is a device, not a file or folder"):
        list_files("/dev/null")
    path = write(tmp_path / "a.txt", "text")
    with pytest.raises(DataError, match=r"is named to train on and as data\.validation"):
        make("text", path, validation=str(path)).splits()
    write(tmp_path / "s" / "state.json", {})
    write(tmp_path / "s" / "data.arrow", "x")
    with pytest.raises(DataError, match=r"set data\.dataset: .*/s in place of data\.path"):
        list_files(tmp_path / "s")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("a.xlsx", "Save its sheet as .csv in UTF-8"),
        ("a.pdf", "Save it as plain text, .txt"),
        ("a.pkl", "can run code, and are never opened"),
        ("a.h5", "Convert it to .parquet or .csv"),
        ("a.gz", "such as a.txt.gz"),
        ("a.log", "if it is plain text, name it so: mv "),
    ],
)
def test_other_kinds(name: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a kind of file that is read here") as told:
        list_files(write(tmp_path / name, "x"))
    assert remedy in str(told.value)


def test_patterns_and_names_of_the_hub(tmp_path: Path) -> None:
    write(tmp_path / "a-1.txt", "x")
    with pytest.raises(DataError, match=r"1 files match it\. Name their folder, .*a-1\.txt\]"):
        list_files(tmp_path / "a-*.txt")
    with pytest.raises(DataError, match="a data set of Hugging Face is data"):
        list_files("owner/name")
    with pytest.raises(DataError, match=r"If \.srt files are plain text, name them \.txt"):
        list_files(write(tmp_path / "s" / "a.srt", "x").parent)


@pytest.mark.slow
def test_the_command_for_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.txt", "text")
    with pytest.raises(DataError) as told:
        list_files(tmp_path / "a.zip")
    command = told.value.remedy.split(": python ")[1]
    subprocess.run([sys.executable, *command.split()], check=True)
    assert [file.relative for file in list_files(tmp_path / "a").files] == ["b.txt"]


def test_zero_bytes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"take them out: tr -d '\\000' < "):
        list(make("text", write(tmp_path / "a.txt", "a\0b")).examples("train", tmp_path))
