"""Tables next to pictures or sounds that say their labels, as Hugging Face's folders have them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError, did_you_mean
from groundup.data.reading.files import read_records
from groundup.data.splitting.split_names import split_called

__all__ = ["read_label_table", "tables_of_labels"]

# ImageId,PredictionString: a picture's name, its class and where it is.
_IMAGENET = "LOC_val_solution.csv"
_TABLES = ("metadata.csv", "metadata.jsonl")


def tables_of_labels(root: Path) -> dict[str, Path]:
    """Return the tables of a folder and of the folders in it: changed labels are changed data."""
    places = [
        t for name in (*_TABLES, _IMAGENET) for t in (root / name, *sorted(root.glob(f"*/{name}")))
    ]
    return {f"{table.parent.name}/{table.name}": table for table in places if table.is_file()}


def read_label_table(folder: Path, label_column: str) -> dict[str, tuple[Any, str]] | None:
    """Return (label, where it says so) by the names of files, of the table in a folder; None where
    it has none.

    Raises:
        DataError: If a file is named twice, or has no label.
    """
    table = next((folder / name for name in _TABLES if (folder / name).is_file()), None)
    if table is None:
        return _read_imagenet(folder)
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


def _read_imagenet(folder: Path) -> dict[str, tuple[Any, str]] | None:
    """Return the labels of ImageNet's validation pictures, which lie in one folder: of the table of
    their classes and boxes, in the folder or next to it."""
    places = (folder / _IMAGENET, folder.parent / _IMAGENET)
    table = next((place for place in places if place.is_file()), None)
    # Next to folders of classes it says what these say.
    if table is None or split_called(folder.name) != "validation" or _has_folders(folder):
        return None
    found: dict[str, tuple[Any, str]] = {}
    for record in read_records(table, columns=("ImageId", "PredictionString")):
        # The class of the first box is that of the picture; its corners follow.
        label = str(record.fields["PredictionString"]).split(" ", 1)[0]
        if not label:
            raise DataError(record.origin, "the picture has no class", "Fetch the table again")
        found[f"{record.fields['ImageId']}.JPEG"] = (label, record.origin)
    return found


def _has_folders(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.is_dir() for entry in entries)
