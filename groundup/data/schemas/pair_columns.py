"""Which columns of a row hold a text and what is to be made of it: a sentence and its translation,
a document and its summary, a question, what it is about, and its answer."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from groundup.core.errors import DataError, did_you_mean
from groundup.data.reading.files import Record, check_text

__all__ = [
    "ANSWERED_NAMES",
    "OUTPUT_NAMES",
    "PairColumns",
    "choose_columns",
    "first_answer",
    "join_context",
    "say_columns",
    "to_sides",
]

_log = logging.getLogger("groundup")

OUTPUT_NAMES = (
    ("source", "target"),
    ("src", "tgt"),
    ("article", "summary"),
    ("article", "highlights"),
    ("article", "abstract"),
    ("document", "summary"),
    ("dialogue", "summary"),
    ("text", "summary"),
    ("description", "summary"),
    ("text", "title"),
)
"""A text, and what is to be made of it."""

ANSWERED_NAMES = (
    ("question", "answer"),
    ("question", "answers"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "completion"),
    ("prompt", "response"),
)
"""What is asked, and the answer."""

# What a question may be about, in a column of its own.
_CONTEXTS = {"question": ("context",), "instruction": ("input", "context")}
_ANSWERS = "answers"


class PairColumns(NamedTuple):
    """The columns of the text that is read, of what is to be made of it, and of what comes after
    the first."""

    source: str
    target: str
    context: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that rows must have."""
        return tuple(filter(None, self))


@lru_cache(maxsize=1000)
def _find_pair(columns: tuple[str, ...], source: str | None, target: str | None) -> PairColumns:
    """Return which columns are a pair by their names; the target is empty where there is none, and
    so is the source."""
    lower = {name.strip().lower(): name for name in columns}
    for read, written in (*OUTPUT_NAMES, *ANSWERED_NAMES):
        found = (source or lower.get(read, ""), target or lower.get(written, ""))
        if all(found):
            return PairColumns(*found, _context_of(read, lower))
    # Rows to predict from have nothing to be made of them yet.
    for read, _ in (*OUTPUT_NAMES, *ANSWERED_NAMES):
        if read in lower:
            return PairColumns(lower[read], "", _context_of(read, lower))
    return PairColumns("", "")


def choose_columns(
    columns: tuple[str, ...], named: PairColumns, given: Collection[str]
) -> PairColumns:
    """Return which columns of a row are read.

    Args:
        columns: All there are.
        named: By the settings, or their defaults.
        given: Which of the settings ``source_column`` and ``target_column`` are not the defaults;
            what is not given may have another usual name.
    """
    source = named.source if "source_column" in given else None
    target = named.target if "target_column" in given else None
    found = _find_pair(columns, source, target)
    # A context next to a question is read where nobody names any column.
    context = named.context
    if context is None and not given:
        context = found.context
    return PairColumns(
        source or found.source or named.source, target or found.target or named.target, context
    )


def _context_of(read: str, lower: Mapping[str, str]) -> str | None:
    return next((lower[name] for name in _CONTEXTS.get(read, ()) if name in lower), None)


# Said once: a source finds its columns again for each split.
@lru_cache(maxsize=100)
def say_columns(place: str, columns: PairColumns) -> None:
    """Say which columns are read, where their names are others than the usual ones."""
    if columns == PairColumns("source", "target"):
        return
    after = f" with {columns.context!r} after it" if columns.context else ""
    said = f"the source is the column {columns.source!r}{after}, the target {columns.target!r}"
    _log.info("%s: %s", place, said)


def join_context(source: str, context: str) -> str:
    """Return what is read of a question and what it is about. The question is first, so that an
    input that is cut at its end keeps it."""
    return f"{source}\n{context}" if context.strip() else source


def first_answer(value: Any, column: str, where: str) -> tuple[str, int]:
    """Return the first of several answers, and how many other ones there are: of ``{"text":
    [...]}`` as SQuAD has them, of a list of ``{"text": ...}`` or of texts; and of a text itself.

    Args:
        value: The cell; None: a text without content, which is left out.
        column: Lists are read in columns called answers alone.
        where: File and row, for messages.

    Raises:
        DataError: If it holds something else.
    """
    given = value
    if column.strip().lower() == _ANSWERS:
        if isinstance(value, dict) and "text" in value:
            value = value["text"]
        if isinstance(value, list):
            texts = [each.get("text") if isinstance(each, dict) else each for each in value]
            if not all(isinstance(each, str) for each in texts):
                raise DataError(
                    where,
                    f"column {column!r} holds {given!r:.60}; allowed: a text, a list of texts, or"
                    ' {"text": [...]}',
                    "Correct the row",
                )
            different = dict.fromkeys(texts)
            # Without any, the question has no answer: such pairs are left out and counted.
            first = check_text(texts[0], where, f"target {column!r}") if texts else ""
            return first, max(len(different) - 1, 0)
    return ("" if value is None else check_text(value, where, f"target {column!r}")), 0


def to_sides(
    record: Record, columns: PairColumns, languages: tuple[str, str] | None = None
) -> Record:
    """Return a row with its two texts by the names of the sides, and how many ``further`` answers
    it has.

    Args:
        record: The row.
        columns: Which it has.
        languages: Where ``columns.source`` holds a dictionary, the keys of both texts.

    Raises:
        DataError: If one is no text.
    """
    fields = record.fields
    source, target, context = columns
    if languages is not None:
        fields = _translations(fields[source], languages, source, record.origin)
        source, target = languages
    # Where a row has no text it is left out with those that are empty.
    read = "" if fields[source] is None else fields[source]
    text = check_text(read, record.origin, f"source {source!r}")
    if context is not None and text.strip() and fields[context] is not None:
        after = check_text(fields[context], record.origin, f"context {context!r}")
        text = join_context(text, after)
    written, further = first_answer(fields[target], target, record.origin)
    return replace(record, fields={"source": text, "target": written, "further": further})


def _translations(value: Any, languages: Sequence[str], column: str, where: str) -> dict[str, Any]:
    """Return a dictionary of texts by language.

    Raises:
        DataError: If it is none, or lacks a language.
    """
    if not isinstance(value, dict):
        raise DataError(
            where,
            f"column {column!r} holds {value!r:.40}; allowed: a text for each language, as"
            ' {"en": "...", "de": "..."}',
            "Name the right data.translation_column, or the columns of both texts as"
            " data.source_column and data.target_column",
        )
    for language in languages:
        if language not in value:
            raise DataError(
                where,
                f"column {column!r} has no {language!r}; {did_you_mean(language, value)}languages:"
                f" {', '.join(map(str, value))}",
                "Correct data.source_language or data.target_language",
            )
    return value
