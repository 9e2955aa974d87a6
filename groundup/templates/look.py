"""What a file or folder of data is: one of eleven kinds, by its files, its columns and its rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from groundup.core.errors import DataError
from groundup.data.reading.box_folders import find_form
from groundup.data.reading.files import read_records
from groundup.data.reading.listing import KINDS, ROW_KINDS, list_files
from groundup.data.reading.speech_folders import has_transcripts
from groundup.data.schemas.chat_formats import recognise
from groundup.data.schemas.pair_columns import OUTPUT_NAMES
from groundup.data.schemas.preference_formats import recognise_preference
from groundup.media.audio import SOUND_KINDS
from groundup.media.images import SUFFIXES as PICTURE_KINDS
from groundup.templates.columns import Column, Label, choose_label, describe_columns

__all__ = ["Kind", "Look", "look_at"]

Kind = Literal[
    "text",
    "chats",
    "preferences",
    "labelled text",
    "table",
    "pictures",
    "boxes",
    "sounds",
    "pairs",
    "inputs and outputs",
    "speech",
]
_SAMPLE = 10_000  # rows that are read: enough to know what columns hold
_TEXT_NAMES = ("text", "sentence", "review", "comment", "content", "body", "message", "document")
_PAIR_NAMES = (
    ("anchor", "positive"),
    ("query", "positive"),
    ("query", "passage"),
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("text1", "text2"),
    ("first", "second"),
)
# Of questions about a text the answers.
_ANSWERS = ("answer", "answers")
# Columns called by languages hold translations of each other.
_LANGUAGES = re.compile(
    "ar|bg|bn|ca|cs|da|de|el|en|es|et|fa|fi|fr|he|hi|hr|hu|id|it|ja|ko|lt|lv|ms|nb|nl|no|pl|pt|ro"
    "|ru|sk|sl|sr|sv|sw|ta|te|th|tr|uk|ur|vi|zh|(zh|pt|en)[-_](cn|tw|br|us|gb)"
)
_TRANSLATIONS = "translation"
_ONE_TEXT_LONG = 20_000  # bytes: on average, files of a class hold a text each, not a book
_TABLES_OF_SOUNDS = ("metadata.csv", "metadata.jsonl")
_FOLDERS = "folder"  # --label folder: the folders of texts are their classes


@dataclass(frozen=True)
class Look:
    """What looking at data found.

    Attributes:
        kind: What it is.
        path: As the user gave it.
        why: How one sees what it is, for the recipe's first comment.
        size: Bytes of all files.
        count: Files or rows; of rows at most the first 10,000.
        rows: The rows that were read.
        columns: What their columns hold.
        texts: The columns of texts: one, or two that belong together; three of questions, answers
            and what they are about.
        label: The column to predict; None where there is none, or the folders are the classes.
        files: The files, where these are the examples.
        languages: Of translations that are in one column, by language.
    """

    kind: Kind
    path: Path
    why: str
    size: int
    count: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    columns: Mapping[str, Column] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    label: Label | None = None
    files: tuple[Path, ...] = ()
    languages: tuple[str, ...] = ()


def look_at(path: Path, label: str | None = None) -> Look:
    """Return what data is.

    Args:
        path: A file or a folder.
        label: The column to predict, or ``folder`` where folders of texts are classes.

    Raises:
        DataError: If it cannot be read, is nothing known, or several columns could be the label.
    """
    if not path.exists():
        list_files(path)  # says what is there instead
    if path.is_dir():
        known = (*KINDS, *PICTURE_KINDS, *SOUND_KINDS)
        files = list_files(path, known, with_empty=True).files
        pictures = tuple(file.path for file in files if file.kind in PICTURE_KINDS)
        # Before anything is counted: YOLO has a text, and VOC an XML, for each picture.
        if pictures and label is None and (form := find_form(path)):
            why = f"{len(pictures):,} pictures with boxes in {form}"
            size = sum(file.stat().st_size for file in pictures)
            return Look("boxes", path, why, size, len(pictures), files=pictures)
        for kind, suffixes in (("pictures", PICTURE_KINDS), ("sounds", SOUND_KINDS)):
            own = [file.path for file in files if file.kind in suffixes]
            # A few tables or read-me files may be next to pictures and sounds, not the other way;
            # and a text for each of them, called like it.
            stems = {file.with_suffix("") for file in own}
            others = [file for file in files if file.path.with_suffix("") not in stems]
            if len(own) > len(others):
                return _look_at_media(kind, path, own, label)  # type: ignore[arg-type]  # of Kind
    elif path.suffix.lower() in (*PICTURE_KINDS, *SOUND_KINDS):
        raise DataError(
            str(path),
            "is one file, but pictures and sounds are learned from a folder for each class",
            "Give the folder that holds the folders",
        )
    found = list_files(path).files
    if all(file.kind not in ROW_KINDS for file in found):
        return _look_at_texts(path, [file.path for file in found], label)
    return _look_at_rows(path, sum(file.path.stat().st_size for file in found), label)


def _look_at_media(kind: Kind, path: Path, files: list[Path], label: str | None) -> Look:
    size = sum(file.stat().st_size for file in files)
    tables = [path / name for name in _TABLES_OF_SOUNDS if (path / name).is_file()]
    chosen = None
    if kind == "sounds" and label is None and has_transcripts(path):
        why = f"{len(files):,} sounds with what is said in them"
        return Look("speech", path, why, size, len(files), files=tuple(files))
    if kind == "sounds" and tables:
        rows = [record.fields for record in islice(read_records(tables[0]), _SAMPLE)]
        chosen = choose_label(describe_columns(rows), label, str(tables[0]))
        why = f"{len(files):,} files with labels in {tables[0].name}"
    else:
        classes = sorted({file.parent.name for file in files if file.parent != path})
        if len(classes) < 2:
            raise DataError(
                str(path),
                f"holds {len(files)} {kind}, but not a folder for each class",
                "Put the files of each class into a folder of its",
            )
        why = f"{len(files):,} files in folders that name their classes: {_few(classes)}"
    return Look(kind, path, why, size, len(files), label=chosen, files=tuple(files))


def _look_at_texts(path: Path, files: list[Path], label: str | None) -> Look:
    size = sum(file.stat().st_size for file in files)
    classes = Counter(file.relative_to(path).parts[0] for file in files if file.parent != path)
    # Folders may be classes or chapters. They are taken for classes where each holds many short
    # texts and nothing is outside of them; --label folder says so where they look otherwise.
    look_like_classes = (
        len(classes) > 1
        and classes.total() == len(files)
        and min(classes.values()) >= 5
        and all(len(file.relative_to(path).parts) <= 3 for file in files)
        and size <= _ONE_TEXT_LONG * len(files)
    )
    if label == _FOLDERS or (label is None and look_like_classes):
        why = f"{len(files):,} short texts in folders that name their classes: {_few(classes)}"
        return Look("labelled text", path, why, size, len(files), files=tuple(files))
    if label is not None:
        raise DataError(
            str(path),
            f"files of text have no column {label!r}; allowed: {_FOLDERS}, if folders are classes",
            "Remove --label",
        )
    return Look(
        "text", path, f"files of text: {len(files):,}", size, len(files), files=tuple(files)
    )


def _look_at_rows(path: Path, size: int, label: str | None) -> Look:
    rows = [record.fields for record in islice(read_records(path), _SAMPLE)]
    columns = describe_columns(rows)
    found = f"{len(rows):,} rows with the columns {_few(columns)}"
    if len(rows) == _SAMPLE:
        found = f"at least {found}"

    # Preferences before chats, because they have a conversation too; named shapes before texts,
    # because a prompt or an answer is a text as well.
    def look(kind: Kind, texts: tuple[str, ...] = (), label: Label | None = None) -> Look:
        return Look(kind, path, found, size, len(rows), rows, columns, texts, label)

    if label is None and recognise_preference(columns):
        return look("preferences")
    if label is None and (sides := _inputs_and_outputs(columns)):
        return look("inputs and outputs", sides)
    if label is None and (languages := _languages_of(rows)):
        return replace(look("inputs and outputs"), languages=languages)
    chat = recognise(tuple(columns))
    texts = _texts(columns)
    if label is None and chat == "text":
        return look("text", texts)
    if label is None and chat is not None:
        return look("chats")
    rest = {name: column for name, column in columns.items() if name not in texts}
    if label is None and len(texts) == 2 and not _may_be_labels(rest):
        return look("pairs", texts)
    if label is None and len(texts) == 1 and not _may_be_labels(rest):
        return look("text", texts)
    # A label that was asked for may be any column; else it is looked for next to the texts.
    chosen = choose_label(rest if label is None else columns, label, str(path))
    texts = tuple(name for name in texts if name != chosen.column.name)
    features = [name for name in rest if name != chosen.column.name]
    # A text with more than a few other columns is a part of a table, not the whole example.
    if texts and len(features) <= 2:
        return look("labelled text", texts, chosen)
    return look("table", (), chosen)


def _inputs_and_outputs(columns: Mapping[str, Column]) -> tuple[str, ...]:
    """Return the column that is read and the one that is to be written, by their names, and that of
    what a question is about; () where there are none."""
    lower = {name.lower(): name for name in columns}
    for pair in OUTPUT_NAMES:
        if lower.keys() >= set(pair):
            return (lower[pair[0]], lower[pair[1]])
    answers = [lower[name] for name in _ANSWERS if name in lower]
    if answers and lower.keys() >= {"question", "context"}:
        return (lower["question"], answers[0], lower["context"])
    translated = [name for low, name in lower.items() if _LANGUAGES.fullmatch(low)]
    # A column "id" or "no" is rarely one of texts in Indonesian or Norwegian.
    translated = [name for name in translated if columns[name].holds in ("text", "names")]
    return tuple(translated) if len(translated) == 2 else ()


def _languages_of(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the languages of a column of translations, in the order of the first row."""
    found = rows[0].get(_TRANSLATIONS) if rows else None
    return tuple(found)[:2] if isinstance(found, dict) and len(found) >= 2 else ()


def _texts(columns: Mapping[str, Column]) -> tuple[str, ...]:
    """Return the columns of texts: a pair by its names, else the one that is called text, else
    those that hold texts."""
    lower = {name.lower(): name for name in columns}
    for pair in _PAIR_NAMES:
        if lower.keys() >= set(pair):
            return (lower[pair[0]], lower[pair[1]])
    named = [lower[name] for name in _TEXT_NAMES if name in lower]
    if named:
        return (named[0],)
    return tuple(name for name, column in columns.items() if column.holds == "text")


def _may_be_labels(columns: Mapping[str, Column]) -> bool:
    return any(column.holds in ("classes", "numbers") for column in columns.values())


def _few(names: Any) -> str:
    listed = list(names)
    if len(listed) > 6:
        listed[5:] = [f"{len(listed) - 5} more"]
    return ", ".join(listed)
