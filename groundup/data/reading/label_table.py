"""Tables next to pictures or sounds that say their labels, as Hugging Face's folders have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundup.core.errors import DataError, did_you_mean
from groundup.data.reading.files import read_records

__all__ = ["read_label_table", "tables_of_labels"]

_TABLES = ("metadata.csv", "metadata.jsonl")


def tables_of_labels(root: Path) -> dict[str, Path]:
    """Return the tables of a folder and of the folders in it: changed labels are changed data."""
    places = [t for name in _TABLES for t in (root / name, *sorted(root.glob(f"*/{name}")))]
    return {f"{table.parent.name}/{table.name}": table for table in places if table.is_file()}


def read_label_table(folder: Path, label_column: str) -> dict[str, tuple[Any, str]] | None:
    """Return (label, where it says so) by the names of files, of the table in a folder; None where
    it has none.

    Raises:
        DataError: If a file is named twice, or has no label.
    """
    table = next((folder / name for name in _TABLES if (folder / name).is_file()), None)
    if table is None:
        return None
    found: dict[str, tuple[Any, str]] = {}
    for record in read_records(table):
        for column in ("file_name", label_column):
            if column not in record.fields:
                raise DataError(
                    record.origin,
                    f"there is no column {column!r}; {did_you_mean(column, record.fields)}columns:"
                    f" {', '.join(record.fields)}",
                    f"Rename the one that says the {'file' if column == 'file_name' else 'label'}",
                )
        name = str(record.fields["file_name"])
        label = record.fields[label_column]
        problem = ""
        if name in found:
            problem = f"{name} has a row already"
        elif label in (None, ""):
            problem = f"{name} has no label"
        if problem:
            raise DataError(record.origin, problem, "Correct the row, or remove it")
        found[name] = (label, record.origin)
    return found
