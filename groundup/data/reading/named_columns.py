"""Which columns of files hold the text and the label: those named, or those with a common name."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from groundup.core.errors import DataError, did_you_mean
from groundup.core.values import Split
from groundup.data.reading.files import Cells, read_file
from groundup.data.reading.listing import list_files
from groundup.data.reading.separator import suggest_separator
from groundup.data.reading.source import Source, as_list
from groundup.data.splitting.split_names import divide_files

__all__ = ["find_columns", "text_column_of"]

# rows and files that are looked at
_ROWS = 50
_FILES = 5
_FILE_NAME = re.compile(r"\S*\.[A-Za-z]\w{1,4}")
_log = logging.getLogger("groundup")
_TEXTS = (
    "text texts sentence review review_text reviewtext comment content message tweet tweet_text"
    " body document headline utterance title question text_content sms email description texto"
    " texte testo 文本 内容 评论"
)
_LABELS = (
    "label labels target class category sentiment y outcome topic intent emotion polarity rating"
    " stars score spam tag etiqueta klasse classe 标签 类别 情感"
)
_TEXT_NAMES = frozenset(_TEXTS.split())
_LABEL_NAMES = frozenset(_LABELS.split())


def find_columns(
    source: Source,
    kinds: Sequence[str],
    cells: Cells,
    text: str,
    label: str,
    given: Collection[str],
) -> tuple[str, str]:
    """Return the columns of the text and of the label: those given, those called ``text`` and
    ``label``, or the only ones with a common name, which is said.

    Args:
        source: Where the files are.
        kinds: Of the files.
        cells: How lines become cells.
        text: The setting ``text_column``.
        label: The setting ``label_column``.
        given: Which of these two settings was given.

    Raises:
        DataError: If it cannot be told which they are.
    """
    if len(given) == 2 or not cells.header:
        return text, label
    files = _first_rows(source, kinds, cells)
    for rows in files:  # a folder may hold others, such as a submission to a competition
        found = text if "text_column" in given else _find(rows[0], text, _TEXT_NAMES, ())
        other = label
        if "label_column" not in given:
            other = _find(rows[0], label, _LABEL_NAMES, (found or text,)) or ""
        if found and other:
            _say(source.place, found, other)
            return found, other
    if files:
        _refuse(source, files[0], text, label)
    return text, label  # reading the files says what is wrong with them


def text_column_of(row: Mapping[str, Any], text: str) -> str:
    """Return the column of the text in a row to predict from: the one of that name, else the only
    one with a common name.

    Raises:
        DataError: If there is none.
    """
    found = _find(row, text, _TEXT_NAMES, ())
    if found is None:
        known = f"{did_you_mean(text, row)}columns: {', '.join(row)}"
        example = max(row, key=lambda name: len(str(row[name])), default=text)
        remedy = f"Rename it, or name it for this file: 'data.text_column={example}'"
        raise DataError("", f"there is no column {text!r}; {known}", remedy)
    return found


def _first_rows(source: Source, kinds: Sequence[str], cells: Cells) -> list[list[dict[str, Any]]]:
    """Return the first rows of the first files to learn from; none where they cannot be read."""
    found = []
    with contextlib.suppress(DataError):
        for path in as_list(source.path):
            files = list_files(path, kinds, encoding=source.encoding).files
            divided: dict[Split, Any] = {"train": files}
            if not Path(path).is_file():
                divided = divide_files(files)
            for file in divided["train"][:_FILES]:
                records = read_file(file, cells=cells, may_be_empty=True)
                found.append([record.fields for record in islice(records, _ROWS)])
    return [rows for rows in found if rows]


def _find(
    row: Mapping[str, Any], usual: str, names: Collection[str], taken: Collection[str]
) -> str | None:
    if usual in row:
        return usual
    found = [name for name in row if name.strip().casefold() in names and name not in taken]
    # Text, before Title and Body
    first = [name for name in found if name.strip().casefold() == usual]
    return (first or found)[0] if len(found) == 1 or len(first) == 1 else None


def _refuse(source: Source, rows: Sequence[Mapping[str, Any]], text: str, label: str) -> NoReturn:
    """Raise an error that names the columns there are, and the settings to name them with."""
    names = list(rows[0])
    missing = [repr(name) for name in (text, label) if name not in names]
    others = [name for name in names if name != label] or names
    if text not in names:
        text = max(others, key=lambda name: sum(len(str(row.get(name))) for row in rows))
        if all(_FILE_NAME.fullmatch(str(row.get(text))) for row in rows):
            raise DataError(
                source.place,
                f"there is no column of texts, but {text!r} with names of files;"
                f" columns: {', '.join(names)}",
                "Write the texts into a column, or put the files into a folder for each class",
            )
    if label not in names:
        # The fewest different values, but more than one.
        others = [name for name in names if name != text] or names
        counts = {name: len({str(row.get(name)) for row in rows}) for name in others}
        label = min(counts, key=lambda name: (counts[name] < 2, counts[name]))
    remedy = (
        f"Name them in the data section, for example text_column: {text}, label_column: {label};"
        f" or on the command line: 'data.text_column={text}' 'data.label_column={label}'"
    )
    raise DataError(
        source.place,
        f"there is no column {' and none '.join(missing)}, and which hold the text and the label"
        f" is not clear; columns: {', '.join(names)}",
        suggest_separator(names, remedy),
    )


# Said once: a source finds its columns again for each split.
@lru_cache(maxsize=100)
def _say(place: str, text: str, label: str) -> None:
    if (text, label) != ("text", "label"):
        _log.info("%s: the text is the column %r, the label %r", place, text, label)
