"""What is between the cells of a delimited file: what its suffix says, or what its header makes
certain."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from typing import Literal

from groundup.core.errors import DataError
from groundup.data.reading.compressed import DataFile

__all__ = ["choose_separator", "explain_width", "suggest_separator"]

# Those of the module csv that are used: cells in quotes are known, or not.
Quoting = Literal[0, 3]
_NO_CELLS = re.compile(r"\s*((?:\[\s*)?\{(?=\s*\")|<(html|!doctype|table|head|meta)\b)", re.I)
# |---|:--:| of Markdown, ---+--- of a database's console
_RULER = re.compile(r"\s*[|+]?\s*:?-{2,}[-:|+\s]*")
_LIBSVM = re.compile(r"[-+]?\d+(\.\d+)?(\s+\d+:[-+.\deE]+)+\s*")
_log = logging.getLogger("groundup")
_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_NUMBER = re.compile(r"\s*[+-]?\d*[.,]?\d+([eE][+-]?\d+)?\s*")
_OTHER_QUOTES = {"“": "”", "„": "“", "‘": "’", "'": "'", "`": "`", "«": "»"}
# lines that a separator is found by
_SEEN = 50


def choose_separator(
    file: DataFile, lines: Iterator[str], given: str | None, quoting: Quoting = 0
) -> tuple[str, Iterator[str]]:
    """Return what is between the cells of a file, and all of its lines.

    It is what the recipe says; else a comma, or a tab in .tsv. Where the header has none of it,
    another separator is taken if it cuts the header and the first rows into equally many cells;
    that is said.
    """
    usual = "\t" if file.kind == ".tsv" else ","
    head = list(islice(lines, _SEEN))
    lines = chain(head, lines)
    _refuse_drawn(file, [line for line in head if line.strip()][:2])
    if given is not None:
        return given, lines
    header = next((line for line in head if line.strip()), "")
    _refuse_other_kinds(file, header)
    if usual in header:
        return usual, lines
    for separator in _NAMES:
        if separator in header and _cuts_evenly(head, separator, quoting):
            _say(str(file.path), _NAMES[separator], _NAMES[usual])
            return separator, lines
    return usual, lines


def _refuse_other_kinds(file: DataFile, first: str) -> None:
    """Raise an error for a first line that is an object or a web page's, and no cells."""
    if match := _NO_CELLS.match(first):
        problem = "looks like a web page, as some programs export tables, not cells"
        remedy = "Save it as cells, or name it .html"
        if match[0].endswith("{"):
            problem = "looks like lines of JSON, not cells"
            remedy = "Name it .jsonl"
        if match[0].startswith("["):
            problem = "looks like a list of JSON, not cells"
            remedy = (
                "Write its objects as rows of .csv; data labelled_text reads it once named .json"
            )
        raise DataError(str(file.path), problem, remedy)
    if first.lower().startswith("@relation"):
        problem = "looks like a file of Weka (ARFF), not cells"
        remedy = "Write the names of its attributes as the header of a .csv, and its rows below"
        raise DataError(str(file.path), problem, remedy)
    if _LIBSVM.fullmatch(first):
        problem = "looks like lines of libsvm (label, index:value ...), not cells"
        remedy = "Write it as .csv, such as with sklearn.datasets.load_svmlight_file"
        raise DataError(str(file.path), problem, remedy)


def _refuse_drawn(file: DataFile, first: Sequence[str]) -> None:
    """Raise an error for a table drawn for readers: a line of dashes is below its header."""
    if len(first) == 2 and ("|" in first[0] or "+" in first[1]) and _RULER.fullmatch(first[1]):
        raise DataError(
            str(file.path),
            f"is a table drawn with bars and dashes, as in Markdown: {first[1].strip()[:40]!r}",
            "Write it as .csv: a line of names, then the rows, with commas between the cells",
        )


def suggest_separator(header: Sequence[str], otherwise: str) -> str:
    """Return what to do about a first line that is no header, or is one cell with another
    separator in it; for others ``otherwise``."""
    if header and header[0].startswith(("#", "sep=")):
        return f"The first line, {header[0]!r}, is no header: remove the lines above the header"
    for separator, name in _NAMES.items():
        if len(header) == 1 and separator in header[0]:
            shown = separator.replace("\t", "\\t")
            return (
                f"The header looks separated by {name}: with data table and labelled_text set"
                f' data.separator: "{shown}"; else write the file with commas'
            )
    if len(header) == 1 and " " in header[0].strip():
        return "The header looks separated by spaces: write the file with commas"
    if any(_NUMBER.fullmatch(name) for name in header):
        line = ", ".join(header)[:60]
        remedy = "is a row and no header, put a line of names above it"
        return f"If the first line, {line!r}, {remedy} (labelled_text: data.header: false)"
    return otherwise


def explain_width(header: Sequence[str], cells: Sequence[str]) -> str:
    """Return what to do about a row that has other cells than the header."""
    if len(header) == 1 or not all(header[1:]):
        remedy = f"If {header[0]!r} is a title, remove the lines above the header"
        return suggest_separator(header, remedy)
    if cells[0].startswith(("<<<<<<<", "=======", ">>>>>>>")):
        return f"{cells[0][:40]!r} is a conflict that git left: solve it, and keep one side"
    if cells[0].startswith("#"):
        return f"If {cells[0][:40]!r} is a remark, remove the line"
    if len(cells) < len(header):
        shown = ", ".join(cells)[:40]
        return f"Fill in the cells that are missing, or remove the line: {shown!r}"
    for begin, end in _OTHER_QUOTES.items():
        places = [place for place, cell in enumerate(cells) if cell.strip().startswith(begin)]
        if places and any(cell.strip().endswith(end) for cell in cells[places[0] + 1 :]):
            return f'Quote cells that hold the separator with ", not with {begin}'
    if any(cell.startswith(' "') for cell in cells):
        return "Remove the blanks between separators and quotes, which make letters of the quotes"
    if len(cells) > len(header) and not any(cells[len(header) :]):
        return "Remove the separators at the ends of the rows, or end the header with one, too"
    return suggest_separator(header, "Quote cells that hold the separator")


# Kept in mind, because a source may read its files once for every split.
@lru_cache(maxsize=1000)
def _say(path: str, found: str, usual: str) -> None:
    _log.info("%s: the cells are separated by %s, not %s", path, found, usual)


def _cuts_evenly(lines: Sequence[str], separator: str, quoting: Quoting) -> bool:
    reader = csv.reader(lines, delimiter=separator, quoting=quoting)
    widths = [len(cells) for cells in reader if cells]
    # the last line may be the first half of a cell in quotes, however many rows the lines make
    if len(lines) == _SEEN:
        widths.pop()
    return len(widths) > 1 and len(set(widths)) == 1 and widths[0] > 1
