"""Every message of speech: of its transcripts, its sounds and its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voices import hum, say, write_library, write_lines, write_sound

from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.data.sources.speech import Speech


def read(root: Path, **settings: Any) -> None:
    source = Speech(path=str(root), **{"fraction": 0.0, **settings})
    for split in source.splits():
        source.examples(split, root.parent / f"{root.name}.cache")


def library(tmp_path: Path, form: str = "text_files") -> Path:
    return write_library(tmp_path / "data", form)


# ------------------------------------------------------------------------------------- folders
def test_folders_without_transcripts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read(tmp_path / "nowhere")
    say(tmp_path / "data" / "a.wav", "one")
    write_lines(tmp_path / "data" / "notes.csv", ["a,b", "1,2"])
    problem = (
        r"data: no transcripts are found for 1 sounds; looked for: metadata\.csv.*; other texts"
    )
    with pytest.raises(DataError, match=problem + r" and tables: notes\.csv\. Write a metadata"):
        read(tmp_path / "data")
    with pytest.raises(DataError, match=r"looked for: Kaldi.s wav.scp and text; other"):
        read(tmp_path / "data", form="kaldi")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file to read in this folder"):
        read(tmp_path / "empty")


def test_transcripts_in_two_forms(tmp_path: Path) -> None:
    root = library(tmp_path, "metadata")
    write_lines(root / "a0-0000.txt", ["one"])
    problem = (
        r"several forms: metadata \(metadata.csv\), text_files \(a0-0000.txt\)\. Name one as data"
    )
    with pytest.raises(DataError, match=problem):
        read(root)
    read(root, form="metadata")


def test_files_that_are_no_table(tmp_path: Path) -> None:
    root = library(tmp_path)
    with pytest.raises(DataError, match=r"a0-0000.txt: is no table. Name the folder of the sounds"):
        read(root / "a0-0000.txt")
    write_lines(root / "list.csv", ["file_name,text", "a0-0000.wav,one"])
    with pytest.raises(DataError, match=r"is a file; allowed with data.form: kaldi: a folder"):
        read(root / "list.csv", form="kaldi")


def test_no_transcript_has_a_sound(tmp_path: Path) -> None:
    root = library(tmp_path, "metadata")
    for path in root.glob("*.wav"):
        path.rename(path.with_suffix(".x.wav"))
    problem = (
        r"no sound has a transcript: 8 transcripts without a sound: a0-0000.wav \(.*row 1.*and 2"
    )
    with pytest.raises(DataError, match=problem):
        read(root)


# -------------------------------------------------------------------------------------- tables
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["wave,text", "a.wav,one"], r"there is no column of the usual names: file_name, path.*;"),
        (
            ["file_name,words", "a.wav,x"],
            r"no column of the usual names: text,.*columns: file_name, w",
        ),
        (["file_name,text", "a.wav,one", "a.wav,two"], r"row 2.*: a.wav has a transcript already"),
        (["file_name,text", "a.wav,one,two"], r"the row has 3 cells and the header 2"),
        (
            ["file_name,text,split", "a.wav,one,train", "b.wav,one,tset"],
            "column 'split' says which",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_tables_that_are_wrong(lines: list[str], message: str, tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        say(tmp_path / "data" / f"{name}.wav", "one", seed=number)
    write_lines(tmp_path / "data" / "metadata.csv", lines)
    if "tset" in lines[-1]:
        lines.insert(1, "a.wav,one,dev")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "data", split_column="split" if "tset" in lines[-1] else None)


def test_columns_that_are_named(tmp_path: Path) -> None:
    root = library(tmp_path, "metadata")
    for name in ("audio_column", "text_column"):
        problem = f"there is no column 'txt'; did you mean 'text'.*Name it as data.{name}"
        with pytest.raises(DataError, match=problem):
            read(root, **{name: "txt"})
    with pytest.raises(
        DataError, match=r"there is no column 'who'; columns: file_name, text\. Corr"
    ):
        read(root, group_column="who", fraction=0.5)
    write_lines(
        root / "metadata.csv", ["file_name,text,who", "a0-0000.wav,one,", "a1-0001.wav,x,a"]
    )
    with pytest.raises(DataError, match="group_column 'who' is empty"):
        read(root, group_column="who", fraction=0.5)


def test_transcripts_that_are_no_text(tmp_path: Path) -> None:
    say(tmp_path / "data" / "a.wav", "one")
    write_lines(tmp_path / "data" / "metadata.jsonl", ['{"file_name": "a.wav", "text": [1, 2]}'])
    with pytest.raises(DataError, match=r"column 'text' is a list \(\[1, 2\]\); allowed: text"):
        read(tmp_path / "data")
    write_lines(tmp_path / "data" / "metadata.jsonl", ['{"audio": {"path": "a"}, "text": "one"}'])
    with pytest.raises(DataError, match=r"column 'audio' is an object .*; allowed: text"):
        read(tmp_path / "data")
    (tmp_path / "data" / "metadata.jsonl").unlink()
    (tmp_path / "data" / "a.txt").write_bytes("größe".encode("latin-1"))
    with pytest.raises(DataError, match=r"a.txt"):
        read(tmp_path / "data")


# --------------------------------------------------------------------------------------- lists
def test_lists_of_kaldi(tmp_path: Path) -> None:
    root = library(tmp_path, "kaldi")
    scp = (root / "wav.scp").read_text(encoding="utf-8")
    write_lines(root / "wav.scp", [*scp.splitlines(), "b-1 flac -d -c b.flac |"])
    problem = (
        r"wav.scp line 9: the sound is made by a command, which is never run: flac -d -c b.flac \|"
    )
    with pytest.raises(DataError, match=problem):
        read(root)
    write_lines(root / "wav.scp", [*scp.splitlines(), "b-1 raw.ark:17"])
    with pytest.raises(DataError, match=r"line 9: the sound is a part of an archive: raw.ark:17"):
        read(root)
    write_lines(root / "wav.scp", [*scp.splitlines(), scp.splitlines()[0]])
    with pytest.raises(DataError, match=r"line 9: a0-0000 has a transcript already"):
        read(root)
    (root / "wav.scp").write_text(scp, encoding="utf-8")
    for line in ("a0 1.0 0.5", "a0 0", "a0 0 x", "a0 0 inf", "a0 -1 1"):
        write_lines(root / "segments", [f"a0-0000 {line}"])
        with pytest.raises(
            DataError, match=rf"segments line 1: '{line}' is no part of a recording"
        ):
            read(root)
    for times in ("0.1 1.0", "0.9 0.95"):
        write_lines(root / "segments", [f"a0-0000 a0-0000 {times}"])
        problem = r"a0-0000.wav from 0.* s: the recording ends at 0.5 s"
        with pytest.raises(DataError, match=problem):
            read(root)
    (root / "segments").unlink()
    (root / "text").unlink()
    with pytest.raises(
        DataError, match=r"there is a wav.scp, but no file text with the transcripts"
    ):
        read(root)


def test_lists_of_librispeech(tmp_path: Path) -> None:
    root = library(tmp_path, "librispeech")
    with (root / "a.trans.txt").open("a", encoding="utf-8") as file:
        file.write("a0-0000 one\n")
    with pytest.raises(DataError, match=r"a.trans.txt line 9: a0-0000 has a transcript already"):
        read(root)


# -------------------------------------------------------------------------------------- sounds
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no sound", r"a0-0000.wav: cannot be read as sound"),
        (b"", r"a0-0000.wav: the file is empty \(0 bytes\)"),
        ([], r"a0-0000.wav: the sound is empty: it holds no samples"),
        ([0.1, np.nan, 0.2], r"a0-0000.wav: sample 1 is no finite number"),
    ],
)
def test_sounds_that_cannot_be_read(content: Any, message: str, tmp_path: Path) -> None:
    root = library(tmp_path)
    path = root / "a0-0000.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        import soundfile

        soundfile.write(path, np.asarray(content, np.float32), 8000, subtype="FLOAT")
    with pytest.raises(DataError, match=message + r".*set data.on_unreadable: skip"):
        read(root)
    (root / "a1-0001.wav").write_bytes(b"no sound either")
    with pytest.raises(DataError, match=r"\(1 other sounds too\)"):
        read(root)
    read(root, on_unreadable="skip")


def test_nothing_that_can_be_used(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"none of 8 sounds can be used: all are unreadable or longer"
    ):
        read(library(tmp_path), max_seconds=0.1)


def test_one_speaker_cannot_be_held_out(tmp_path: Path) -> None:
    root = library(tmp_path, "kaldi")
    problem = (
        r"nothing is left for validation.*of 3 different speakers none was drawn. Set data.seed"
    )
    with pytest.raises(DataError, match=problem):
        read(root, fraction=0.01)
    with pytest.raises(DataError, match=r"data.group '\(b\)' finds nothing in 'a0-0000'"):
        read(root, group="(b)", fraction=0.2)


def test_a_recording_of_hours_is_left_out_and_never_whole_in_memory(tmp_path: Path) -> None:
    import tracemalloc

    root = library(tmp_path)
    write_sound(root / "long.wav", np.tile(hum("one", rate=1000), 4 * 3600), 1000)
    write_lines(root / "long.txt", ["one"])
    tracemalloc.start()
    source = Speech(path=str(root), fraction=0.0)
    left_out = source.card(tmp_path)["left_out"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert left_out["sounds longer than max_seconds 30"]["first"] == ["long.wav (3,600.0 s)"]
    # In 32 bits all of it is 14 MB.
    assert peak < 7e6


# ------------------------------------------------------------------------------------ settings
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time_column": "t"}, "time_column has no effect: speech is not held out by time"),
        ({"group": "a", "group_column": "b"}, "group has no effect with group_column"),
        ({"group": "("}, r"group '\(' is no regular expression"),
        ({"group": "a", "by_speaker": False}, "by_speaker has no effect with group"),
        ({"fold": 1}, "fold has no effect without folds"),
        ({"stratify": True}, "stratify has no effect: data speech has no labels"),
        ({"form": "kalid"}, "form: got \"kalid\"; allowed: 'metadata', 'ljspeech'"),
        ({"max_seconds": 0}, "greater than 0"),
        ({"spelling": "upper"}, "allowed: 'as_written', 'lower' or 'letters'"),
    ],
    ids=str,
)
def test_settings_that_are_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate(Speech, {"path": "x", **settings}, "recipe.data")
    with pytest.raises(RecipeError, match=r"form has no effect with dataset"):
        validate(Speech, {"dataset": "a/b", "form": "kaldi"}, "recipe.data")
