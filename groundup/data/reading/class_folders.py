"""Folders whose names are classes: root/CLASS/file, or root/train/CLASS/file with another folder to
hold out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from groundup.core.errors import DataError
from groundup.core.values import Split
from groundup.data.reading.source import Source, refuse_idle
from groundup.data.splitting.split_names import SPELLINGS, find_spelling

__all__ = ["ClassFile", "SplitFolders", "base_of", "class_files", "named_folders", "split_folders"]


class ClassFile(NamedTuple):
    """A file and its class; ``name`` is its path below the root, with slashes, or a data set's
    split and row."""

    path: Any  # a Path, or a StoredFile in a row of a data set
    name: str
    label: Any


class SplitFolders(NamedTuple):
    """The folder of each split that there is; ``unused`` are called like one of them too."""

    folders: dict[Split, Path]
    unused: tuple[str, ...]


def split_folders(root: Path, tables: Sequence[str] = ()) -> SplitFolders:
    """Return the folders of the splits next to ``train``, or the root for all where there is none.

    A folder is a split only if it holds folders or a table; a class may be called train.

    Raises:
        DataError: If the root is no folder.
    """
    if not root.is_dir():
        problem = "is a file" if root.exists() else "there is no such folder"
        raise DataError(
            str(root), f"{problem}; allowed: a folder", "Correct the path, from the current folder"
        )
    there = {path.name.lower(): path for path in root.iterdir() if _is_split(path, tables)}
    found: dict[Split, Path] = {}
    for split in SPELLINGS:
        if name := find_spelling(split, there):
            found[split] = there[name]
    # without train the names may be classes, such as test and validation of an experiment
    if "train" not in found:  # classes may be called test
        return SplitFolders({"train": root}, ())
    # dev next to validation, for example: one is read, and the other must not be forgotten silently
    words = {word for spelled in SPELLINGS.values() for word in spelled}
    unused = [p.name for name, p in there.items() if name in words and p not in found.values()]
    return SplitFolders(found, tuple(sorted(unused)))


def named_folders(source: Source, tables: Sequence[str] = ()) -> SplitFolders:
    """Return the folder of each split that a source names, or that is called like it.

    Raises:
        DataError: If the path is no folder.
        RecipeError: If settings say how examples are drawn, but those held out have a folder.
    """
    folders, unused = split_folders(Path(str(source.path)).expanduser(), tables)
    named = {"validation": source.validation, "test": source.test}
    for split in ("validation", "test"):
        path = named[split]
        if isinstance(path, list):
            problem = f"data.{split} is a list; allowed with a folder for each class: one folder"
            raise DataError(source.place, problem, "Name one folder")
        if isinstance(path, str):
            named_folder = Path(path).expanduser()
            if split in folders and folders[split].resolve() != named_folder.resolve():
                unused = (*unused, folders[split].name)
            # a folder called test may be named for validation: then it is no test
            others = {s: f for s, f in folders.items() if f.resolve() != named_folder.resolve()}
            folders = others | {split: named_folder}
    refuse_idle(source, tuple(folders), "a folder")
    return SplitFolders(folders, unused)


def base_of(folder: Path, root: Path) -> Path:
    """Return what the names of a split's files are relative to: the root, or of a folder elsewhere
    the one it is in."""
    return root if folder.is_relative_to(root) else folder.parent


def class_files(folder: Path, kinds: Sequence[str], root: Path) -> tuple[list[ClassFile], int]:
    """Return the files of every class, sorted by name, and how many are in the folder itself,
    without a class.

    Args:
        folder: It holds one folder a class; what is deeper belongs to the class as well.
        kinds: Suffixes of the files, in lower case.
        root: What names are relative to.

    Raises:
        DataError: If there is no class folder, or one without a file.
    """
    # counted, because a picture next to the folders of classes is easily overlooked
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
    # classes without a file are refused: a model would have an output that nothing is learned for
    found: list[ClassFile] = []
    for inner in classes:
        own = [
            ClassFile(path, path.relative_to(root).as_posix(), inner.name)
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
    # by name, because folders list their files in another order on every file system
    return sorted(found, key=lambda file: file.name), loose


def _is_split(folder: Path, tables: Sequence[str]) -> bool:
    if not folder.is_dir():
        return False
    inside = list(folder.iterdir())
    return any(path.is_dir() or path.name in tables for path in inside)


def _is_hidden(name: str) -> bool:
    # __MACOSX is what archives made on a Mac hold besides their files
    return name.startswith((".", "__MACOSX"))


def _is_hidden_below(path: Path, folder: Path) -> bool:
    return any(_is_hidden(part) for part in path.relative_to(folder).parts)
