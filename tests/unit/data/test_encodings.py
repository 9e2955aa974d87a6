"""A row is what json and csv read, whatever is between lines and in whichever encoding; and what
is to be done where it is not clear works."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.data.reading.files import read_file, read_records
from groundup.data.reading.listing import list_files
from groundup.data.sources.labelled_text import LabelledText
from groundup.data.sources.text import TextSource

# what str.splitlines takes for the end of a line, and no format does
NO_ENDS = "\u2028\u2029\v\f\x1c\x85"
SAMPLES = {
    "gb18030": "很好的电影，我很喜欢",
    "big5": "很好的電影，我很喜歡",
    "cp932": "とても良い映画でした",
    "euc_jp": "また見たいです。良い",
    "cp949": "정말 좋은 영화였어요",
    "cp1252": "très bon – l’été “café”",
    "cp1251": "очень хороший фильм",
    "koi8_r": "очень хороший фильм",
    "cp1253": "πολύ καλή ταινία",
    "cp1250": "příliš žluťoučký kůň",
}


def rows(path: Path, content: bytes, **options: Any) -> list[dict[str, Any]]:
    path.write_bytes(content)
    return [record.fields for record in read_records(path, **options)]


def message(path: Path, content: bytes, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        rows(path, content, **options)
    return str(caught.value)


# ------------------------------------------------------------------------------------------- lines
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "txt"])
def test_rows_are_cut_at_line_ends_alone(tmp_path: Path, end: str, last: bool, suffix: str) -> None:
    texts = [f"one{mark}two {number}" for number, mark in enumerate(NO_ENDS)]
    lines = texts
    if suffix == "csv":
        lines = ["text,n", *(f"{text},{number}" for number, text in enumerate(texts))]
    elif suffix != "txt":
        lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    content = end.join([*lines, ""] if last else lines)
    read = rows(tmp_path / f"a.{suffix}", content.encode(), columns=("text",), split_on="line")
    assert [row["text"] for row in read] == texts
    if suffix == "csv":
        by_csv = list(csv.reader(io.StringIO(content, newline="")))
        assert [[row["text"], row["n"]] for row in read] == by_csv[1:]


def test_line_ends_inside_cells(tmp_path: Path) -> None:
    cells = [["text", "n"], ["a\rb", "1"], ["a\nb", "2"], ["a\r\nb", "3"], ["\u2028", "4"]]
    written = io.StringIO(newline="")
    csv.writer(written).writerows(cells)
    read = rows(tmp_path / "a.csv", written.getvalue().encode())
    assert [list(row.values()) for row in read] == cells[1:]


def test_empty_lines_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('\n{"text": "a"}\n\n  \n{"text": "b"}\n\n')
    (tmp_path / "b.csv").write_text("text\na\n\n\nb\n")
    (tmp_path / "c.txt").write_text("a\n\nb\n \n")
    for file, count in zip(list_files(tmp_path).files, (4, 2, 2), strict=True):
        assert len(list(read_file(file, columns=("text",), split_on="line"))) == 2
        assert file.notes == {"empty lines": count}
    source = TextSource(path=str(tmp_path), split_on="line")
    assert source.card(tmp_path / "cache")["met_in_files"] == {"empty lines": 8}


def test_zero_bytes_and_a_file_that_is_cut_off(tmp_path: Path) -> None:
    late = b'{"text": "a"}\n' * 1000 + b'{"text": "b"}\0\n'
    assert "a.jsonl line 1001: holds a zero byte" in message(tmp_path / "a.jsonl", late)
    cut = b'{"text": "a"}\n{"text": "cut o'
    assert "line 2: not JSON at column 10: Unterminated" in message(tmp_path / "a.jsonl", cut)
    cut = "text,label\nérable,1\nété,1\nété,1\nété,1\nété".encode()[:-1]
    assert "byte 48 (0xc3) is not UTF-8: unexpected end of data. Correct the byte, or" in message(
        tmp_path / "a.csv", cut
    )


# ------------------------------------------------------------------------------- names that repeat
@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", "text,label,label\na,b,c\n", "the header has 2 columns named 'label'"),
        ("a.tsv", "text\tx\tx\tx\na\tb\tc\td\n", "the header has 3 columns named 'x'"),
        ("a.csv", "text,cafe\u0301,caf\u00e9\na,b,c\n", "2 columns named 'café'"),
        ("a.jsonl", '{"text": "a", "label": 1, "label": 2}\n', "2 keys named 'label'"),
        ("a.jsonl", '{"text":"a","text" :"b"}\n', "line 1: an object has 2 keys named 'text'"),
        ("a.json", '[{"text": "a"}, {"text": "a", "x": 1, "x": 1}]', "2 keys named 'x'"),
        ("a.json", '{"text": "a", "text": "b"}\n{"text": "c"}\n', "line 1: an object has 2 keys"),
        ("a.jsonl", '{"messages": [{"role": "user", "role": "x"}]}\n', "2 keys named 'role'"),
        ("a.jsonl", '{"a": "{", "\\u0061": 1}\n', "2 keys named 'a'"),
    ],
)
def test_two_columns_of_one_name(tmp_path: Path, name: str, content: str, problem: str) -> None:
    found = message(tmp_path / name, content.encode())
    assert problem in found
    assert found.endswith("a name of its own.")


@pytest.mark.slow
def test_two_columns_of_one_name_in_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = pyarrow.array(["a"])
    twice = pyarrow.Table.from_arrays([column, column], names=["text", "text"])
    parquet.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="there are 2 columns named 'text'"):
        list(read_records(tmp_path / "a.parquet"))
    kind = pyarrow.struct([("role", pyarrow.string()), ("role", pyarrow.string())])
    nested = pyarrow.schema([("messages", pyarrow.list_(kind))])
    parquet.write_table(nested.empty_table(), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="there are 2 columns named 'role'"):
        list(read_records(tmp_path / "b.parquet"))


# ---------------------------------------------------------------------------------------- encodings
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "txt", "json"])
def test_marks_say_the_encoding(tmp_path: Path, encoding: str, suffix: str) -> None:
    text = "很好的电影\u2028é"
    content = {"csv": f"text,n\n{text},1\n", "txt": text}.get(suffix)
    content = content or json.dumps({"text": text}, ensure_ascii=False)
    marked = content.encode(encoding)
    if encoding[-2:] in ("le", "be"):
        marked = "\ufeff".encode(encoding) + marked
    assert rows(tmp_path / f"a.{suffix}", marked, columns=("text",))[0]["text"] == text


@pytest.mark.parametrize("encoding", SAMPLES)
def test_an_encoding_is_suggested_and_both_remedies_work(tmp_path: Path, encoding: str) -> None:
    text = SAMPLES[encoding]
    path = tmp_path / "a b.csv"
    path.write_bytes(b"text,label\n" + f"{text},1\n{text}!,0\n".encode(encoding))
    settings = {"path": str(path), "fraction": 0.0}
    with pytest.raises(DataError) as caught:
        LabelledText(**settings).examples("train", tmp_path)
    said = str(caught.value)
    assert f"it looks like {encoding}: {text[:10]!r}"[:-1] in said
    # what the message says is done to the letter
    name = re.search(r"Set data\.encoding: (\w+)", said)
    assert name is not None
    chosen = validate(LabelledText, settings | {"encoding": name[1]}, "recipe.data")
    assert [e.inputs for e in chosen.examples("train", tmp_path)] == [text, f"{text}!"]
    assert chosen.card(tmp_path)["met_in_files"] == {f"files in {encoding}": 1}
    if shutil.which("iconv"):
        command = re.search(r"or convert it: (iconv .*)\.$", said)
        assert command is not None
        subprocess.run(command[1], shell=True, check=True)
        converted = LabelledText(path=str(tmp_path / "utf8-a b.csv"), fraction=0.0)
        assert [e.inputs for e in converted.examples("train", tmp_path)] == [text, f"{text}!"]


def test_utf16_without_a_mark(tmp_path: Path) -> None:
    content = "text\nplain words\n".encode("utf-16-le")
    said = message(tmp_path / "a.csv", content)
    assert "looks like utf-16-le without its mark, not UTF-8. Set data.encoding: utf-16-le" in said
    source = TextSource(path=str(tmp_path / "a.csv"), encoding="utf-16-le", fraction=0.0)
    assert [e.text for e in source.examples("train", tmp_path)] == ["plain words"]


def test_utf8_that_shows_itself_is_read_as_such(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_bytes("很好的电影".encode("gb18030"))
    (tmp_path / "data" / "b.txt").write_bytes("很好的书".encode())
    source = TextSource(path=str(tmp_path / "data"), encoding="gb18030", fraction=0.0)
    assert [e.text for e in source.examples("train", tmp_path / "cache")] == [
        "很好的电影",
        "很好的书",
    ]
    assert source.card(tmp_path / "cache")["met_in_files"] == {"files in gb18030": 1}


def test_a_damaged_byte_is_no_other_encoding(tmp_path: Path) -> None:
    content = "très bon, déjà vu à l'été\n".encode() * 3 + b"\xff\n"
    said = message(tmp_path / "a.txt", content)
    assert "is not UTF-8: invalid start byte. Correct the byte, or leave out such: iconv -c" in said


def test_files_in_another_encoding_may_be_left_out(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for number in range(6):
            path = tmp_path / "data" / label / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{label} text {number}".encode())
    (tmp_path / "data" / "a" / "9.txt").write_bytes(b"caf\xe9")
    folders = LabelledText(path=str(tmp_path / "data"), on_unreadable="skip", fraction=0.3)
    texts = TextSource(path=str(tmp_path / "data"), on_unreadable="skip", fraction=0.3)
    for source in (folders, texts):
        card = source.card(tmp_path / "cache")
        assert card["files"] == {"found": 13, "read": 12, "left_out": {"unreadable": 1}}
        assert "9.txt: byte 3 (0xe9) is not UTF-8" in card["warnings"][0]


def test_text_that_was_encoded_twice_is_said(tmp_path: Path) -> None:
    twice = "très bon — café".encode().decode("cp1252").encode()
    (tmp_path / "a.txt").write_bytes(twice)
    (tmp_path / "b.txt").write_text("SÃO PAULO, ÂNGULO", encoding="utf-8")
    card = TextSource(path=str(tmp_path), fraction=0.0).card(tmp_path / "cache")
    assert card["met_in_files"] == {"files with signs of UTF-8 that was encoded twice": 1}


@pytest.mark.parametrize("name", ["nonsense", "base64", "rot13"])
def test_what_is_no_encoding(name: str) -> None:
    with pytest.raises(RecipeError, match=f"encoding is '{name}'; allowed: an encoding of texts"):
        validate(TextSource, {"path": "a", "encoding": name}, "recipe.data")


def test_encodings_without_effect() -> None:
    with pytest.raises(RecipeError, match="encoding has no effect with dataset"):
        validate(TextSource, {"dataset": "a", "encoding": "cp1252"}, "recipe.data")
