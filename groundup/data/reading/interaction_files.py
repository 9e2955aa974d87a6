"""Files of interactions, users and items as columns: tables, lines of JSON, and RecBole's three
kinds, whose headers say what a column holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError, did_you_mean
from groundup.core.settings import as_path
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.files import Cells, fingerprint, read_file
from groundup.data.reading.listing import list_files

__all__ = ["KINDS", "Rows", "files_of", "find_column", "next_to", "read_rows", "stamp_of"]

RECBOLE = (".inter", ".user", ".item")
KINDS = (".csv", ".tsv", ".parquet", ".jsonl", ".json")
# What RecBole's headers say behind a colon. Zhao et al., 2021 (arXiv:2011.01731), section 3.1.
_ONE_VALUE = ("token", "float")
_SEVERAL_WORDS = "token_seq"


@dataclass
class Rows:
    """A table in memory.

    Attributes:
        columns: The values of each column.
        origins: Where each row is.
        lists: Columns of several words, with what is between them.
        left_out: What is not read, by the reason.
    """

    columns: dict[str, list[Any]] = field(default_factory=dict)
    origins: list[str] = field(default_factory=list)
    lists: dict[str, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.origins)


def next_to(path: str, kind: str) -> str | None:
    """Return the file of ``kind`` that belongs to RecBole's interactions at ``path``, if there is
    one."""
    place = as_path(path)
    if place.is_dir():
        found = sorted(place.glob(f"*{kind}"))
        # Of several nobody knows which one belongs to the interactions.
        return str(found[0]) if len(found) == 1 else None
    other = place.with_suffix(kind)
    return str(other) if place.suffix == ".inter" and other.is_file() else None


def stamp_of(paths: Sequence[str]) -> str:
    """Return what changes when one of the files does."""
    return fingerprint((path, file) for path in paths for file in files_of(path))


def files_of(path: str) -> list[DataFile]:
    """Return the files of a path that are read; of RecBole's folder the interactions."""
    kinds: tuple[str, ...] = (*KINDS, *RECBOLE)
    place = as_path(path)
    if place.is_dir() and any(place.glob("*.inter")):
        # Users, items and knowledge graphs are next to them.
        kinds = (".inter",)
    return list_files(path, kinds).files


def read_rows(path: str, separator: str | None = None, encoding: str | None = None) -> Rows:
    """Return all rows of a file, or of the files of a folder.

    Args:
        path: Of a folder with one ``.inter`` file only that is read.
        separator: The character between cells; None: as the suffix and the header say.
        encoding: Of text without a mark; None: UTF-8.

    Raises:
        DataError: If a file cannot be read, or has other columns than the first.
    """
    found = Rows()
    for file in files_of(path):
        cells = Cells(separator)
        typed = file.kind in RECBOLE
        if typed:
            # Quotes in titles are letters there.
            cells = Cells("\t", quotes=False)
            file = replace(file, kind=".tsv")
        file = replace(file, encoding=encoding)
        _append(found, file, cells, typed=typed)
        # Known only once the file was read to its end.
        for what, count in file.notes.items():
            found.left_out[what] += count
    return found


def _append(found: Rows, file: DataFile, cells: Cells, *, typed: bool) -> None:
    names: dict[str, str] = {}
    for record in read_file(file, cells=cells):
        fields = record.fields
        if not names:
            names = {name: name for name in fields}
            if typed:
                names = _plain_names(file.path, fields, found)
            _check_columns(found, file.path, names)
        for name, plain in names.items():
            if plain not in found.columns:
                continue
            if name not in fields:
                raise DataError(record.origin, f"has no {name!r}", "Give all rows the same keys")
            found.columns[plain].append(fields[name])
        found.origins.append(record.origin)


def _plain_names(path: Path, fields: Mapping[str, Any], found: Rows) -> dict[str, str]:
    """Return the name of each column without its type; columns of several numbers are left out."""
    names: dict[str, str] = {}
    for header in fields:
        plain, _, kind = header.rpartition(":")
        if not plain:
            raise DataError(
                str(path),
                f"column {header!r} has no type; RecBole's files have name:token, name:float,"
                " name:token_seq or name:float_seq",
                "Write the type behind a colon, or save the file as .csv",
            )
        if kind == _SEVERAL_WORDS:
            found.lists[plain] = " "
        elif kind not in _ONE_VALUE:
            found.left_out[f"column {plain!r} of type {kind}"] += 1
            continue
        # The user means the name without the type.
        names[header] = plain
    return names


def _check_columns(found: Rows, path: Path, names: Mapping[str, str]) -> None:
    if not found.columns:
        found.columns = {plain: [] for plain in names.values()}
    other = sorted(set(found.columns) ^ set(names.values()))
    if other:
        first = found.origins[0].rpartition(" ")[0] if found.origins else str(path)
        raise DataError(
            str(path),
            f"has other columns than {first}: {', '.join(map(repr, other[:3]))}",
            "Give all files the same columns, or name one of them",
        )


def find_column(
    rows: Rows, given: str | None, usual: Sequence[str], where: str, what: str
) -> str | None:
    """Return the column that a setting names, or the one with a usual name; None without any.

    Args:
        rows: The table.
        given: What the recipe says; empty: there is none.
        usual: Names that are found by themselves, in lower case.
        where: The setting, for messages.
        what: What it holds, for messages.

    Raises:
        DataError: If the column does not exist, or several have usual names.
    """
    listed = ", ".join(rows.columns)
    if given is not None:
        if given and given not in rows.columns:
            hint = did_you_mean(given, rows.columns)
            raise DataError(
                where,
                f"there is no column {given!r}; {hint}there are: {listed}",
                "Name one of them",
            )
        return given or None
    # Names differ in case and blanks from file to file.
    plain = {name.strip().lower().replace(" ", "_"): name for name in rows.columns}
    found = [plain[name] for name in usual if name in plain]
    if len(found) > 1:
        several = " and ".join(map(repr, found[:2]))
        raise DataError(where, f"{several} may both be {what}", f"Say which: {where}: {found[0]}")
    return found[0] if found else None
