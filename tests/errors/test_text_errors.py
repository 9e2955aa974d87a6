"""Every way in which text data can be wrong has its own message."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from groundup.core.errors import DataError, MissingExtraError, RecipeError
from groundup.core.settings import validate
from groundup.data.reading.files import read_records
from groundup.data.reading.hub import hub_fingerprint, hub_records
from groundup.data.sources.text import TextSource


def message(path: Path, content: bytes | None = None, **options: Any) -> str:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_records(path, **{"columns": ("text",), **options}))
    return str(caught.value)


def test_missing_path_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("x")
    text = message(tmp_path / "corpos.txt")
    assert "there is no such file or folder" in text
    assert "did you mean 'corpus.txt'?" in text
    assert f"{tmp_path} has no 'nowhere'" in message(tmp_path / "nowhere" / "deep.txt")


def test_empty_file(tmp_path: Path) -> None:
    assert "a.txt: the file is empty (0 bytes)" in message(tmp_path / "a.txt", b"")
    assert "nothing to read: no rows, or only white space" in message(tmp_path / "b.txt", b" \n\n")
    assert "nothing to read" in message(tmp_path / "b.csv", b"text\n")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"%PDF-1.7\n", "a PDF"),
        (gzip.compress(b"text", mtime=0), "compressed with gzip"),
        (b"abc\0def", "a binary file (a zero byte at byte 3)"),
    ],
)
def test_binary_named_txt(tmp_path: Path, content: bytes, what: str) -> None:
    assert f"a.txt: this is {what}, not text" in message(tmp_path / "a.txt", content)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.json"])
def test_invalid_utf8_names_file_and_byte(tmp_path: Path, name: str) -> None:
    text = message(tmp_path / name, b'{"text": "fine"}\n{"text": "caf\xe9"}\n', columns=())
    assert f"{name}: byte 30 (0xe9) is not UTF-8" in text
    assert "iconv" in text


def test_bad_json_line_names_line_and_column(tmp_path: Path) -> None:
    text = message(tmp_path / "a.jsonl", b'{"text": "a"}\n\n{"text": "b" "n": 1}\n')
    assert "a.jsonl line 3: not JSON at column 14: Expecting ',' delimiter" in text
    assert "a.json: not JSON at line 2 column 1" in message(tmp_path / "a.json", b"[{},\n]")
    assert "nested too deeply" in message(tmp_path / "b.jsonl", b"[" * 200_000 + b"\n")


def test_missing_column_names_those_that_exist(tmp_path: Path) -> None:
    text = message(tmp_path / "a.jsonl", b'{"texts": "a", "id": 1}\n')
    assert (
        "a.jsonl line 1: there is no column 'text'; did you mean 'texts'? columns: texts, id"
        in text
    )
    assert "columns: id, body" in message(tmp_path / "a.csv", b"id,body\n1,x\n")


def test_missing_parquet_column_and_damaged_parquet(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"texts": ["a"], "id": [1]}), tmp_path / "a.parquet")
    assert "no column 'text'; did you mean 'texts'? the columns are: texts, id" in message(
        tmp_path / "a.parquet"
    )
    assert "cannot be read as Parquet" in message(tmp_path / "b.parquet", b"PAR1 not really")
    assert "Parquet inside another compression" in message(tmp_path / "a.parquet.gz", b"x")


def test_row_that_is_not_an_object(tmp_path: Path) -> None:
    assert "a.jsonl line 2: the row is a list" in message(
        tmp_path / "a.jsonl", b'{"text": "a"}\n["b"]\n'
    )
    assert "a.json row 1: the row is text" in message(tmp_path / "a.json", b'["b"]')
    assert "a.json: the file holds text; allowed: a list of" in message(tmp_path / "a.json", b'"b"')


def test_csv_rows_of_another_width_and_open_quotes(tmp_path: Path) -> None:
    assert "row 1 (ends on line 2): the row has 3 cells and the header 2" in message(
        tmp_path / "a.csv", b"text,n\na,b,c\n"
    )
    assert "line 2: a quote is opened in the row that begins here, and never closed" in message(
        tmp_path / "b.csv", b'text,n\n"a,b\n'
    )


def test_unsupported_suffix(tmp_path: Path) -> None:
    text = message(tmp_path / "a.docx", b"x")
    assert (
        "the suffix '.docx' is not a kind of file that is read here; allowed: .txt, .md, .jsonl"
        in text
    )
    assert "'(none)'" in message(tmp_path / "weights", b"\x01\x02")


def test_folder_without_readable_file(tmp_path: Path) -> None:
    assert "no file to read in this folder; it has no files" in message(tmp_path)
    (tmp_path / "a.docx").write_text("x")
    assert "it has 1 of other kinds (.docx 1); allowed: .txt" in message(tmp_path)
    (tmp_path / "b.zip").write_text("x")
    assert message(tmp_path).endswith("Unpack the archive, or give another folder.")


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_damaged_compression(tmp_path: Path, suffix: str) -> None:
    if suffix == ".zst":
        pytest.importorskip("zstandard")
    assert f"cannot be read as {suffix}" in message(
        tmp_path / f"a.txt{suffix}", b"this is not compressed at all"
    )
    whole = gzip.compress(b"line of text\n" * 5000)
    assert "cannot be read as .gz" in message(tmp_path / "b.txt.gz", whole[: len(whole) // 2])


def test_missing_extras_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("zstandard", "pyarrow", "datasets"):
        monkeypatch.setitem(sys.modules, library, None)
    for name in ("a.txt.zst", "a.parquet"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(MissingExtraError, match=r"is not installed.*groundup\[data\]"):
            list(read_records(tmp_path / name))
    with pytest.raises(MissingExtraError, match="datasets: is not installed"):
        list(hub_records("org/name"))


# ------------------------------------------------------------------------------------------ the hub
@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A stand-in for the `datasets` library, which would need the network."""
    calls: list[tuple[Any, ...]] = []

    def load_dataset(name: str, subset: str | None, **options: Any) -> list[dict[str, str]]:
        calls.append((name, subset, options))
        if options["split"] == "test":
            raise ValueError('Unknown split "test". Should be one of ["train"].\nmore')
        return [{"content": "one"}, {"content": "two"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return calls


def test_hub_rows_and_options(hub: list[tuple[Any, ...]]) -> None:
    rows = list(
        hub_records("org/name", subset="small", revision="v1", streaming=True, columns=("content",))
    )
    assert [(row.fields["content"], row.name) for row in rows] == [
        ("one", "train:1"),
        ("two", "train:2"),
    ]
    assert hub == [("org/name", "small", {"split": "train", "revision": "v1", "streaming": True})]
    keys = {
        hub_fingerprint("a", subset=None, split="train", revision=r, streaming=True)
        for r in ("v1", "v2")
    }
    assert len(keys) == 2


def test_a_connection_that_breaks_while_streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(*_: Any, **__: Any) -> Iterator[dict[str, str]]:
        yield {"text": "one"}
        raise ConnectionError("the other side closed the connection")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=rows))
    read = hub_records("org/name", streaming=True)
    assert next(read).fields == {"text": "one"}
    with pytest.raises(
        DataError, match=r"org/name .* cannot be loaded: the other side closed the connection"
    ):
        next(read)


@pytest.mark.usefixtures("hub")
def test_hub_split_and_column_that_do_not_exist() -> None:
    with pytest.raises(
        DataError,
        match=r'split test.*cannot be loaded: .*Should be one of \["train"\]\. Check the name',
    ):
        list(hub_records("org/name", split="test"))
    with pytest.raises(DataError, match=r"no column 'text'; .*columns: content"):
        list(hub_records("org/name", columns=("text",)))


# --------------------------------------------------------------------------------------- the recipe
@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({}, "neither path nor dataset is given; allowed: exactly one"),
        ({"path": "a", "dataset": "b"}, "both path and dataset are given; allowed: exactly one"),
        ({"path": []}, "path is an empty list"),
        (
            {"path": "a", "revision": "main"},
            "revision has no effect with path; it applies to dataset",
        ),
        ({"path": "a", "streaming": True}, "streaming has no effect with path"),
        (
            {"dataset": "a", "validation": ["b"]},
            "validation is a list; of a dataset it is one split",
        ),
        (
            {"path": "a", "test": 0.95},
            "test is 0.95; allowed as a share: more than 0 and less than",
        ),
        ({"dataset": "a", "test": "train"}, "the split 'train' is named twice"),
        ({"path": "a", "validation": "b", "fraction": 0.2}, "fraction has no effect with validat"),
        ({"path": "a", "split_on": ""}, "split_on is empty"),
        (
            {"path": "a", "validation": "b", "fraction": 0.2},
            "fraction has no effect",
        ),
        ({"dataset": "a", "split_on": "line"}, "split_on has no effect with dataset"),
        (
            {"path": "a", "cleaning": {"min_characters": 9, "max_characters": 5}},
            "max_characters 5 is below min_characters 9",
        ),
        (
            {"path": "a", "cleaning": {"near_duplicates": "keep", "near_duplicate_threshold": 0.5}},
            'near_duplicate_threshold has no effect with near_duplicates: "keep"',
        ),
    ],
)
def test_sources_that_contradict_themselves(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        validate(TextSource, section, "recipe.data")
    assert problem in str(caught.value)


@pytest.mark.parametrize(("row", "found"), [(b"7", "a number (7)"), (b"[7]", "a list")])
def test_text_column_that_is_not_text(tmp_path: Path, row: bytes, found: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "fine"}\n{"text": ' + row + b"}\n")
    with pytest.raises(DataError) as caught:
        list(TextSource(path=str(tmp_path / "a.jsonl")).examples("train", tmp_path))
    assert f"a.jsonl line 2: column 'text' is {found}" in str(caught.value)


def test_half_a_surrogate_pair(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "ab\\ud800"}\n')
    with pytest.raises(DataError, match="half of a surrogate pair at character 2"):
        list(TextSource(path=str(tmp_path / "a.jsonl")).examples("train", tmp_path))


def test_a_split_that_nothing_fell_into(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("one document\n")
    source = TextSource(path=str(tmp_path / "book.txt"), fraction=0.0)
    assert len(list(source.examples("train", tmp_path))) == 1
    with pytest.raises(DataError, match=r"nothing is left for validation .* set data.split_on"):
        list(source.examples("validation", tmp_path))
