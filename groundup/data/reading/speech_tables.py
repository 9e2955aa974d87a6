"""Transcripts in tables: metadata of sounds as Hugging Face's folders have them, LJSpeech's, Common
Voice's, and manifests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError, did_you_mean
from groundup.core.values import Split
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.files import Cells, Record, check_text, read_file
from groundup.data.reading.split_column import find_split_column, split_of
from groundup.data.reading.utterances import (
    SpeechColumns,
    Transcripts,
    Utterance,
    find_sound,
    one_line,
    refuse_twice,
)
from groundup.data.splitting.split_names import split_called

__all__ = [
    "TEXT_COLUMNS",
    "has_text_column",
    "is_common_voice",
    "is_ljspeech",
    "read_common_voice",
    "read_ljspeech",
    "read_table",
    "sounds_in_table",
    "speaker_of",
]

# As public data sets call them, the commonest first.
SOUND_COLUMNS = ("file_name", "path", "audio", "audio_filepath", "file", "filename", "wav")
TEXT_COLUMNS = (
    "text",
    "transcription",
    "sentence",
    "transcript",
    "normalized_text",
    "raw_transcription",
)
_SPEAKERS = ("speaker_id", "speaker", "client_id")
_PIPES = Cells(separator="|", header=False, quotes=False)
_TABS = Cells(separator="\t", quotes=False)


def _first_line(path: Path) -> str:
    # A table in another encoding has the same signs between its cells.
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline().strip()


def is_ljspeech(path: Path) -> bool:
    """Return whether a table is one of ids and texts with | between them, without a header."""
    cells = _first_line(path).split("|")
    return path.suffix in (".csv", ".txt") and len(cells) in (2, 3) and not _names_sounds(cells)


def is_common_voice(path: Path) -> bool:
    """Return whether a table has the columns of Common Voice."""
    cells = _first_line(path).split("\t")
    return path.suffix == ".tsv" and {"path", "sentence"} <= set(cells)


def has_text_column(file: DataFile) -> bool:
    """Return whether the rows of a table have a column that is called as transcripts are."""
    first = next(iter(read_file(file)), None)
    return first is not None and any(name in first.fields for name in TEXT_COLUMNS)


def _names_sounds(header: Collection[str]) -> bool:
    return any(name in header for name in SOUND_COLUMNS)


# ------------------------------------------------------------------------------------------ tables
def read_table(
    file: DataFile,
    columns: SpeechColumns,
    transcripts: Transcripts,
    *,
    split: Split | None = None,
    folder: str = "",
    cells: Cells | None = None,
) -> None:
    """Add the rows of a table with a column of sounds and one of texts.

    Args:
        file: The table; sounds are next to it, or in a folder next to it.
        columns: Those that the recipe names.
        transcripts: What they are added to.
        split: What they are of, where the table's name says so; else a column may.
        folder: The table's folder below the path that is read.
        cells: How lines become cells.

    Raises:
        DataError: If a column is missing, a row is no row, or two rows have one sound.
    """
    transcripts.files[file.relative] = file.path
    sides = None if split else find_split_column([file], columns.split)
    seen: set[str] = set()
    for record in read_file(file, cells=cells or Cells()):
        audio = _column(record, columns.audio, SOUND_COLUMNS, "audio_column")
        text = _column(record, columns.text, TEXT_COLUMNS, "text_column")
        # Sounds that are in the cells themselves are read as a data set, by dataset:.
        given = record.fields[audio] or ""
        named = check_text(given, record.origin, f"column {audio!r}").strip()
        refuse_twice(named, record.origin, seen)
        sound = find_sound(file.path.parent, named) if named else None
        if sound is None:
            transcripts.without_sound.append(f"{named or 'no name'} ({record.origin})")
            continue
        own = split
        if sides is not None:
            own = split_of(sides.name, record.fields[sides.name])
        name = f"{folder}/{named}".removeprefix("/")
        transcripts.add(
            Utterance(
                sound,
                name,
                one_line(record.fields[text], record.origin, f"column {text!r}"),
                record.origin,
                speaker_of(record.fields),
                own,
                name.rpartition("/")[0],
                record.fields,
            )
        )


def sounds_in_table(file: DataFile) -> Iterator[Path]:
    """Yield the sounds that the rows of a table of Common Voice name."""
    for record in read_file(file, cells=_TABS, may_be_empty=True):
        sound = find_sound(file.path.parent, str(record.fields.get("path", "")))
        if sound is not None:
            yield sound


def _column(record: Record, named: str | None, usual: Iterable[str], setting: str) -> str:
    if named is not None and named in record.fields:
        return named
    found = next((name for name in usual if name in record.fields), None)
    if named is None and found is not None:
        return found
    wanted = repr(named) if named is not None else f"of the usual names: {', '.join(usual)}"
    guess = did_you_mean(named, record.fields) if named is not None else ""
    raise DataError(
        record.origin,
        f"there is no column {wanted}; {guess}columns: {', '.join(map(str, record.fields))}",
        f"Name it as data.{setting}",
    )


def speaker_of(row: Mapping[str, Any]) -> str:
    """Return who speaks, where a column says so."""
    name = next((name for name in _SPEAKERS if name in row), None)
    value = None if name is None else row[name]
    return "" if value is None else str(value).strip()


def read_ljspeech(file: DataFile, transcripts: Transcripts, folder: str = "") -> None:
    """Add the rows ``id|text|normalised text`` of a metadata.csv, whose sounds are in wavs/; the
    last text is taken, in which numbers are words."""
    transcripts.files[file.relative] = file.path
    seen: set[str] = set()
    for record in read_file(file, cells=_PIPES):
        cells = list(record.fields.values())
        refuse_twice(cells[0], record.origin, seen)
        sound = find_sound(file.path.parent, cells[0])
        if sound is None:
            transcripts.without_sound.append(f"{cells[0]} ({record.origin})")
            continue
        name = f"{folder}/{cells[0]}".removeprefix("/")
        text = one_line(cells[-1], record.origin, "the last cell")
        transcripts.add(Utterance(sound, name, text, record.origin, folder=folder))


def read_common_voice(
    files: Iterable[DataFile], columns: SpeechColumns, transcripts: Transcripts, folder: str = ""
) -> Iterator[DataFile]:
    """Add the rows of the tables of a language: its train.tsv, dev.tsv and test.tsv, or else its
    validated.tsv; yield the other tables, which are not used."""
    tables = {Path(file.relative).stem: file for file in files}
    sides = {name: split for name in tables if (split := split_called(name))}
    used: dict[str, Split | None] = {}
    if "train" in sides.values():
        used.update(sides)
    elif "validated" in tables:
        used["validated"] = None
    else:
        used.update(dict.fromkeys(tables))
    for name, split in used.items():
        read_table(tables[name], columns, transcripts, split=split, folder=folder, cells=_TABS)
    yield from (file for name, file in tables.items() if name not in used)
