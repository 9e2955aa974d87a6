"""Cells of texts that stand for nothing: null, NaN, and the words that programs write in their
place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from groundup.data.reading.files import check_text
from groundup.data.schemas.messages import REASONING

__all__ = ["name_missing", "stands_for_nothing", "text_or_nothing", "without_missing"]

# What pandas, R and spreadsheets write for a missing value.
_WRITTEN = frozenset(("nan", "-nan", "<na>", "nat", "null", "(null)", "#n/a", "#na", "\\n"))
# These are answers too ("None of them", sodium's sign), but no input and no system prompt.
_WORDS = _WRITTEN | {"na", "n/a", "n.a.", "none", "(none)", "nil", "<noinput>", "<no input>"}
# columns in which a row may have nothing
_OPTIONAL = {"system", "input", "history", "tools", "functions", *REASONING}
_LEARNED = {"instruction", "output", "prompt", "completion", "response", "question", "answer"}
_LEARNED |= {"chosen", "rejected", "text"}
_LEFT_OUT, _KEPT = "missing ", "word "  # of notes


def text_or_nothing(value: Any, where: str, what: str) -> str:
    """Return a text, empty where the value is missing; errors as ``check_text``."""
    return "" if _is_missing(value) else check_text(value, where, what)


def stands_for_nothing(text: str) -> bool:
    """Whether a text is what programs write where there is none, such as ``nan``."""
    return len(text) < 9 and text.strip().lower() in _WRITTEN


def without_missing(fields: Mapping[str, Any], notes: Counter[str]) -> dict[str, Any]:
    """Return a row of a chat or a preference without the values that are missing.

    In columns that may be empty, such as ``input``, words such as ``nan`` and ``None`` mean that
    they are. In others they are learned: an answer may be ``None``.

    Args:
        fields: The row.
        notes: Counts the words, by column.
    """
    row = {}
    for name, value in fields.items():
        if _is_missing(value):
            continue
        # no word of either list is longer, and most values are
        if isinstance(value, str) and len(value) < 12:
            if name in _OPTIONAL and value.strip().lower() in _WORDS:
                notes[f"{_LEFT_OUT}{name}"] += 1
                continue
            if name in _LEARNED and stands_for_nothing(value):
                notes[f"{_KEPT}{name}"] += 1
        row[name] = value
    return row


def name_missing(card: dict[str, Any], notes: Counter[str]) -> None:
    """Say in a data card what ``without_missing`` counted."""
    met = dict(card.get("met_in_files", {}))
    warnings = list(card.get("warnings", ()))
    for key, count in sorted(notes.items()):
        if key.startswith(_LEFT_OUT):
            column = key.removeprefix(_LEFT_OUT)
            met[f"cells of {column!r} that say nan, None or the like, read as empty"] = count
        elif key.startswith(_KEPT):
            column = key.removeprefix(_KEPT)
            warnings.append(
                f"{count:,} cells of {column!r} are nan, null or the like, and learned as that"
                " word: if they stand for nothing, empty them and set data.invalid_rows: skip"
            )
    card |= {"met_in_files": met} if met else {}
    card |= {"warnings": warnings} if warnings else {}


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)
