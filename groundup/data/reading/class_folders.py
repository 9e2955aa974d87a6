"""Folders whose names are classes: root/CLASS/file, or root/train/CLASS/file with another folder to
hold out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from groundup.core.errors import DataError

__all__ = ["HELD_OUT_FOLDERS", "Filed", "Folders", "class_files", "split_folders"]

HELD_OUT_FOLDERS = (
    "validation",
    "valid",
    "val",
    "dev",
    "test",
)  # the first that is there is held out


class Filed(NamedTuple):
    """A file and its class; ``name`` is its path below the root, with slashes, or a data set's
    split and row."""

    path: Any  # a Path, or a StoredFile in a row of a data set
    name: str
    label: Any


class Folders(NamedTuple):
    """Where the splits lie; ``validation`` is None where nothing is named, and ``unused`` would be
    held out too."""

    train: Path
    validation: Path | None
    unused: tuple[str, ...]


def split_folders(root: Path, kinds: Sequence[str], tables: Sequence[str] = ()) -> Folders:
    """Return the folders of the splits: ``train`` and one of ``HELD_OUT_FOLDERS``, or the root for
    all.

    A folder is a split only if it holds folders or a table; a class may be called train.

    Raises:
        DataError: If the root is no folder, or there is a folder ``train`` of classes and nothing
            to hold out.
    """
    if not root.is_dir():
        problem = "is a file" if root.exists() else "there is no such folder"
        raise DataError(
            str(root), f"{problem}; allowed: a folder", "Correct the path, from the current folder"
        )
    splits = [
        name for name in ("train", *HELD_OUT_FOLDERS) if _is_split(root / name, kinds, tables)
    ]
    if "train" not in splits:
        return Folders(root, None, ())
    if len(splits) == 1:
        names = ", ".join(HELD_OUT_FOLDERS)
        raise DataError(
            str(root),
            f"there is a folder train of classes, and none to hold out: {names}",
            "Name root/train instead",
        )
    return Folders(root / "train", root / splits[1], tuple(splits[2:]))


def class_files(folder: Path, kinds: Sequence[str], root: Path) -> tuple[list[Filed], int]:
    """Return the files of every class, sorted by name, and how many lie in the folder itself,
    without a class.

    Args:
        folder: It holds one folder a class; what lies deeper belongs to the class as well.
        kinds: Suffixes of the files, in lower case.
        root: What names are relative to.

    Raises:
        DataError: If there is no class folder, or one without a file.
    """
    loose = sum(path.is_file() and path.suffix.lower() in kinds for path in folder.iterdir())
    classes = sorted(
        path for path in folder.iterdir() if path.is_dir() and not _is_hidden(path.name)
    )
    if not classes:
        problem = (
            f"there are no class folders, and {loose} files without one; allowed: CLASS/file for"
            " every class"
        )
        raise DataError(
            str(folder), problem, "Put the files of each class into a folder of its name"
        )
    found: list[Filed] = []
    for inner in classes:
        own = [
            Filed(path, path.relative_to(root).as_posix(), inner.name)
            for path in inner.rglob("*")
            if path.suffix.lower() in kinds and path.is_file() and not _is_hidden_below(path, inner)
        ]
        if not own:
            others = sorted(
                {path.suffix or path.name for path in inner.rglob("*") if path.is_file()}
            )
            have = f"it has {', '.join(others[:8])}" if others else "it is empty"
            problem = (
                f"the class folder {inner.name!r} holds no file of the kinds {', '.join(kinds)};"
                f" {have}"
            )
            raise DataError(str(inner), problem, "Put files into it, or remove it")
        found += own
    return sorted(found, key=lambda file: file.name), loose


def _is_split(folder: Path, kinds: Sequence[str], tables: Sequence[str]) -> bool:
    if not folder.is_dir():
        return False
    inside = list(folder.iterdir())
    return any(path.name in tables for path in inside) or (
        any(path.is_dir() for path in inside)
        and not any(path.suffix.lower() in kinds for path in inside)
    )


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _is_hidden_below(path: Path, folder: Path) -> bool:
    return any(_is_hidden(part) for part in path.relative_to(folder).parts)
