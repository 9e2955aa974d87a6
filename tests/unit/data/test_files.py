"""Data files are read alike in every format, compression and folder layout."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import os
import pydoc_data.topics
from pathlib import Path

import pytest

from groundup.data.reading.files import fingerprint, read_records
from groundup.data.reading.listing import list_files

TEXTS = [text for _, text in sorted(pydoc_data.topics.topics.items())][:12]


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def json_lines() -> bytes:
    return "".join(
        json.dumps({"text": text, "n": n}) + "\n" for n, text in enumerate(TEXTS)
    ).encode()


def texts(path: Path, **options: object) -> list[str]:
    return [record.fields["text"] for record in read_records(path, columns=("text",), **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_delimited_rows_keep_newlines_and_quotes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"topics{suffix}"
    with path.open("w", encoding="utf-8", newline="") as handle:
        rows = csv.writer(handle, delimiter="\t" if suffix == ".tsv" else ",")
        rows.writerows([["n", "text"], *([n, text] for n, text in enumerate(TEXTS))])
    assert texts(path) == TEXTS


def test_json_lists_and_json_lines_named_json(tmp_path: Path) -> None:
    assert (
        texts(
            write(
                tmp_path / "a.json",
                json.dumps([{"text": text} for text in TEXTS], indent=1).encode(),
            )
        )
        == TEXTS
    )
    assert texts(write(tmp_path / "b.json", json_lines())) == TEXTS


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(
        pyarrow.table({"text": TEXTS, "n": list(range(len(TEXTS)))}), tmp_path / "a.parquet"
    )
    assert texts(tmp_path / "a.parquet") == TEXTS
    assert list(next(read_records(tmp_path / "a.parquet")).fields) == ["text", "n"]


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_compressed_reads_as_plain(tmp_path: Path, suffix: str, compress: object) -> None:
    assert texts(write(tmp_path / f"a.jsonl{suffix}", compress(json_lines()))) == TEXTS  # type: ignore[operator]


def test_zstandard_reads_across_frames(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    half = zstandard.ZstdCompressor().compress
    assert (
        texts(write(tmp_path / "a.jsonl.zst", half(json_lines()) + half(json_lines()))) == TEXTS * 2
    )


def test_a_folder_is_read_in_the_order_of_its_relative_paths(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a/1.md", "b/10.txt", ".hidden/x.txt", "photo.jpg"):
        write(tmp_path / name, name.encode())
    write(tmp_path / "empty.txt", b"")
    found = list_files(tmp_path)
    assert [file.relative for file in found.files] == ["a/1.md", "b/10.txt", "b/2.txt"]
    left_out = {"empty (0 bytes)": 1, "hidden": 1, "of other kinds": 1}
    about = {"found": 6, "read": 3, "left_out": left_out, "other_kinds": ".jpg 1"}
    assert found.about(len(found.files)) == about
    assert [record.name for record in read_records(tmp_path)] == ["a/1.md", "b/10.txt", "b/2.txt"]


def test_plain_text_can_be_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo\n\n\nthree\n---\nfour\n")
    assert texts(path) == ["one\ntwo\n\n\nthree\n---\nfour\n"]
    assert texts(path, split_on="line") == ["one", "two", "three", "---", "four"]
    assert texts(path, split_on="blank_line") == ["one\ntwo", "three\n---\nfour"]
    assert texts(path, split_on="\n---\n") == ["one\ntwo\n\n\nthree", "four\n"]


def test_a_separator_is_found_across_chunks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\n<end>\n".join(b"line\n" * 3000 for _ in range(4)))
    assert [len(text) for text in texts(path, split_on="\n<end>\n")] == [15000] * 4


def test_rows_are_streamed(tmp_path: Path) -> None:
    rows = iter(read_records(write(tmp_path / "a.jsonl", b'{"text": "fine"}\nnot json\n')))
    assert next(rows).fields == {"text": "fine"}


def test_the_fingerprint_follows_names_sizes_and_times(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"one")

    def key() -> str:
        return fingerprint(("here", file) for file in list_files(tmp_path).files)

    before = key()
    assert key() == before
    os.utime(path, ns=(1, 1))
    touched = key()
    write(tmp_path / "b.txt", b"two")
    assert len({before, touched, key()}) == 3
