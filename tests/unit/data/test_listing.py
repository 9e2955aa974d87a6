"""Files found are files read and files left out, by reason, in every source."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import groundup
from groundup.core.errors import DataError
from groundup.core.settings import validate
from groundup.data.reading.listing import KINDS, Listing, list_files
from groundup.data.reading.source import Source
from groundup.data.sources.audio import Audio
from groundup.data.sources.images import Images
from groundup.data.sources.labelled_text import LabelledText
from groundup.data.sources.table import TableSource
from groundup.data.sources.text import TextSource
from groundup.reports.data_notes import data_notes

NFD = unicodedata.normalize("NFD", "café")


def write(path: Path, content: str | bytes = "some text\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def found_in(root: Path, kinds: tuple[str, ...] = KINDS) -> tuple[list[str], dict[str, int]]:
    listing = list_files(root, kinds)
    names = [file.relative for file in listing.files]
    card = listing.about(len(names))
    assert card["found"] == len(names) + sum(card.get("left_out", {}).values())
    return names, card.get("left_out", {})


def texts_of(source: Source, cache: Path) -> list[Any]:
    return [e for split in source.splits() for e in source.examples(split, cache)]


# ------------------------------------------------------------------------------------------ suffixes
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", ".txt"),
        ("a.TEXT", ".txt"),
        ("a.markdown", ".md"),
        ("a.CSV", ".csv"),
        ("a.ndjson", ".jsonl"),
        ("a.tab", ".tsv"),
        ("a.pq", ".parquet"),
        ("a.JSONL.GZ", ".jsonl"),
        ("notes", ".txt"),
        ("00001.7c53336b37003a9286aba55d2945844c", ".txt"),
        ("2021.12.31", ".txt"),
    ],
)
def test_other_names_of_the_same_kinds(tmp_path: Path, name: str, kind: str) -> None:
    write(tmp_path / name)
    (file,) = list_files(tmp_path).files
    assert file.kind == kind
    assert list_files(tmp_path / name).files[0].kind == kind


def test_what_is_not_read_is_counted_by_suffix(tmp_path: Path) -> None:
    write(tmp_path / "a.txt")
    for number in range(15):
        write(tmp_path / f"{number}.xyz")
    for number in range(5):
        write(tmp_path / f"blob{number}", b"\x00\x01\x02")
    write(tmp_path / "more.zip", b"PK\3\4")
    write(tmp_path / "more.tar.gz", b"\x1f\x8b")
    names, left_out = found_in(tmp_path)
    assert (names, left_out) == (["a.txt"], {"of other kinds": 22})
    kinds = list_files(tmp_path).about(1)["other_kinds"]
    assert kinds == ".xyz 15, no suffix 5, .tar.gz 1, .zip 1"
    note = next(data_notes(TextSource(path=str(tmp_path)).card(tmp_path / "cache")))
    assert note == (
        f"{tmp_path}: of 23 files 1 are read; left out: 22 of other kinds"
        " (.xyz 15, no suffix 5, .tar.gz 1, .zip 1)"
    )


def test_a_licence_next_to_rows_is_no_row(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"text": "one"}\n')
    write(tmp_path / "LICENCE")
    assert found_in(tmp_path) == (["a.jsonl"], {"of other kinds": 1})


def test_pictures_by_suffix_and_by_how_they_begin(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for label in ("cat", "dog"):
        folder = tmp_path / "data" / label
        folder.mkdir(parents=True)
        picture = image.fromarray(np.full((4, 4, 3), 99 if label == "cat" else 9, np.uint8))
        for name, kind in (("a.JPG", "JPEG"), ("b.jfif", "JPEG"), ("c", "PNG"), ("d.bmp", "BMP")):
            picture.save(folder / name, kind)
        write(folder / "e.heic", b"....ftypheic")
        write(folder / "Thumbs.db")
    source = Images(path=str(tmp_path / "data"), fraction=0.4)
    card = source.card(tmp_path / "cache")
    assert len(texts_of(source, tmp_path / "cache")) == 8
    left_out = {"hidden": 2, "of other kinds": 2}
    assert card["files"] == {"found": 12, "read": 8, "left_out": left_out, "other_kinds": ".heic 2"}


def test_unreadable_pictures_are_left_out_files(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for label in ("cat", "dog"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(4):
            picture = image.fromarray(np.full((2, 2), number, np.uint8))
            picture.save(tmp_path / "data" / label / f"{number}.png")
    write(tmp_path / "data" / "cat" / "bad.png", b"not a picture")
    source = Images(path=str(tmp_path / "data"), fraction=0.4, on_unreadable="skip")
    files = source.card(tmp_path / "cache")["files"]
    assert files == {"found": 9, "read": 8, "left_out": {"unreadable": 1}}


@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".AIF", ".flac", ".opus", ""])
def test_sounds_by_suffix_and_by_how_they_begin(tmp_path: Path, suffix: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    formats = {".aiff": "AIFF", ".AIF": "AIFF", ".flac": "FLAC", ".opus": "OGG"}
    for number, label in enumerate("ab"):
        (tmp_path / "data" / label).mkdir(parents=True)
        samples = np.sin(np.arange(4800) * (number + 1) / 9)
        path = tmp_path / "data" / label / f"1{suffix}"
        kind = formats.get(suffix, "WAV")
        subtype = "OPUS" if suffix == ".opus" else None
        soundfile.write(path, samples, 48000, format=kind, subtype=subtype)
        write(tmp_path / "data" / label / "1.m4a", b"....ftypM4A")
    source = Audio(path=str(tmp_path / "data"), fraction=0.0)
    assert len(texts_of(source, tmp_path / "cache")) == 2
    assert source.card(tmp_path / "cache")["files"]["left_out"] == {"of other kinds": 2}


# -------------------------------------------------------------------------- links and hidden files
def test_links_are_followed_and_nothing_is_read_twice(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "deep" / "x.txt")
    root = tmp_path / "data"
    write(root / "z" / "a.txt")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root / "z")  # sorted before what it links to
    (root / "loop").symlink_to(root)
    (root / "z" / "up").symlink_to("..")
    (root / "one.txt").symlink_to(tmp_path / "elsewhere" / "deep" / "x.txt")
    (root / "broken.txt").symlink_to(tmp_path / "nowhere")
    (root / "self").symlink_to(root / "self")
    names, left_out = found_in(root)
    # of the file behind two links one is read: the folder's link comes first by name
    assert names == ["linked/deep/x.txt", "z/a.txt"]
    assert left_out == {"broken links": 2, "links to what is read already": 4}


def test_class_folders_may_be_links(tmp_path: Path) -> None:
    for label in ("pos", "neg"):
        for number in range(4):
            write(tmp_path / "store" / label / f"{number}.txt", f"{label} {number}")
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / label).symlink_to(tmp_path / "store" / label)
    found = texts_of(LabelledText(path=str(tmp_path / "data"), fraction=0.3), tmp_path)
    assert sorted(e.inputs for e in found) == sorted(
        f"{e} {n}" for e in ("neg", "pos") for n in range(4)
    )


def test_hidden_files_and_what_systems_leave_behind(tmp_path: Path) -> None:
    write(tmp_path / "a.txt")
    for name in (
        ".DS_Store",
        "._a.txt",
        "__MACOSX/a.txt",
        "$RECYCLE.BIN/a.txt",
        "node_modules/a.md",
        "b/thumbs.db",
        ".git/x/y.txt",
        "a.txt~",
    ):
        write(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.txt")
    left_out = {"hidden": 8, "no files (pipes, sockets, devices)": 1}
    assert found_in(tmp_path) == (["a.txt"], left_out)


def test_folders_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.txt")
    write(tmp_path / "secret" / "b.txt")
    listed = os.scandir

    def scandir(path: str | int) -> Any:  # a number where a folder is removed
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"secret: the folder may not be listed\. Allow it, or set"):
        TextSource(path=str(tmp_path)).splits()
    source = TextSource(path=str(tmp_path), on_unreadable="skip", fraction=0.0)
    card = source.card(tmp_path / "cache")
    assert card["files"]["left_out"] == {"folders that may not be listed": 1}


# -------------------------------------------------------------------------------------------- names
def test_names_of_classes_are_compared_in_one_form(tmp_path: Path) -> None:
    for split, label in (("train", NFD), ("validation", "café"), ("train", "thé"), ("test", "thé")):
        for number in range(4):
            write(tmp_path / split / label / f"{number}.txt", f"{split} {label} {number}")
    for label in (NFD, "thé"):
        write(tmp_path / "validation" / label / "x.txt", f"x {label}")
    write(tmp_path / "test" / "café" / "y.txt")
    source = LabelledText(path=str(tmp_path))
    assert {e.target for e in texts_of(source, tmp_path)} == {"café", "thé"}
    assert source.card(tmp_path)["files"]["found"] == 19


def test_both_forms_of_a_name_in_one_folder(tmp_path: Path) -> None:
    write(tmp_path / f"{NFD}.txt")
    write(tmp_path / "café.txt")
    assert len(set(found_in(tmp_path)[0])) == 2


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with open(path, "wb") as file:
        file.write(b"text")
    assert found_in(tmp_path)[0] == ["caf\\xe9.txt"]
    assert len(texts_of(TextSource(path=str(tmp_path), fraction=0.0), tmp_path / "cache")) == 1


def test_classes_that_differ_in_case_are_said(tmp_path: Path) -> None:
    for label in ("Cat", "cat", "dog"):
        for number in range(9):
            write(tmp_path / "data" / label / f"{number}.txt", f"{label} {number}")
    card = LabelledText(path=str(tmp_path / "data")).card(tmp_path)
    assert card["warnings"] == ["classes that differ in case only: Cat, cat"]


def test_columns_are_found_in_any_form(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", f"{NFD},label\none,x\ntwo,y\n")
    row = json.dumps({NFD: "three", "label": "x"}, ensure_ascii=False)
    write(tmp_path / "b.jsonl", f"{row}\n")
    source = LabelledText(path=str(tmp_path), text_column="café", fraction=0.0)
    assert [e.inputs for e in texts_of(source, tmp_path)] == ["one", "two", "three"]


def test_home_and_environment_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data" / "a.txt")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MY_DATA", str(tmp_path))
    for path in ("~/data", "$MY_DATA/data", "${MY_DATA}/data/a.txt"):
        source = validate(TextSource, {"path": path, "fraction": 0.0}, "recipe.data")
        assert len(texts_of(source, tmp_path / "cache")) == 1
    with pytest.raises(DataError, match="Set the environment variable NOT_SET, or correct the"):
        TextSource(path="$NOT_SET/data").splits()


def test_listings_add_up() -> None:
    one = Listing()
    one.leave_out("a.xyz")
    two = Listing()
    two.leave_out("b.xyz")
    two.count(one)
    assert two.about(3) == {
        "found": 5,
        "read": 3,
        "left_out": {"of other kinds": 2},
        "other_kinds": ".xyz 2",
    }


def test_a_file_in_two_paths_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.txt", "one")
    write(tmp_path / "data" / "b.txt", "two")
    paths = [str(tmp_path / "data"), str(tmp_path / "data" / "a.txt")]
    source = TextSource(path=paths, fraction=0.0)
    assert len(texts_of(source, tmp_path / "cache")) == 2
    left_out = {"in several of the paths": 1}
    files = source.card(tmp_path / "cache")["files"]
    assert files == {"found": 3, "read": 2, "left_out": left_out}


@pytest.mark.parametrize("source", [LabelledText, TableSource])
def test_headers_of_files_put_together(tmp_path: Path, source: type[Source]) -> None:
    write(tmp_path / "a.csv", "\ufefftext,label\nx,a\n\ufefftext,label\ny,b\ntext,label\n")
    settings = {"path": str(tmp_path / "a.csv"), "fraction": 0.0}
    settings |= {"target": "label"} if source is TableSource else {}
    made = validate(source, settings, "recipe.data")
    assert [e.target for e in texts_of(made, tmp_path)] == ["a", "b"]
    assert made.card(tmp_path)["met_in_files"] == {
        "byte-order marks at later lines, left out": 1,
        "header lines again": 2,
    }


def test_archives_are_to_be_unpacked(tmp_path: Path) -> None:
    write(tmp_path / "a.zip", b"PK\3\4")
    for path in (tmp_path, tmp_path / "a.zip"):
        with pytest.raises(DataError, match="Unpack the archive"):
            list_files(path)


@pytest.mark.slow
def test_the_log_and_the_card_of_a_run_say_what_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        write(tmp_path / "data" / "ab"[number % 2] / f"{number}.txt", f"text {number}")
    write(tmp_path / "data" / "a" / "x.xyz")
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = {
        "name": "tiny",
        "model": {"name": "bag_of_ngrams", "width": 4, "ngrams": 2, "buckets": 64},
        "task": {"name": "classify", "max_tokens": 16},
        "processor": {"name": "bytes"},
        "data": {"name": "labelled_text", "path": "~/data", "fraction": 0.3},
        "training": {"batch_size": 4, "steps": 1},
        "machine": {"compile": False, "device": "cpu"},
    }
    run = groundup.train(recipe, runs="~/runs")
    said = f"{tmp_path}/data: of 13 files 12 are read; left out: 1 of other kinds (.xyz 1)"
    assert said in (run.folder / "metrics.jsonl").read_text(encoding="utf-8")
    assert run.folder == tmp_path / "runs" / "tiny"
    assert run.read_json("data_card.json")["files"]["other_kinds"] == ".xyz 1"
