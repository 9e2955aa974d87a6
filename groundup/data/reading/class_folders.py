"""Folders whose names are classes: root/CLASS/file; or root/train/CLASS/file and
root/CLASS/train/file, next to other splits."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from groundup.core.errors import DataError
from groundup.core.settings import expand_path
from groundup.core.values import Split
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.listing import NOT_USED, Listing, in_one_form, list_files
from groundup.data.reading.source import Source, refuse_idle
from groundup.data.splitting.held_out import keep_some
from groundup.data.splitting.split_names import (
    SPELLINGS,
    divide_class_files,
    divide_files,
    find_spelling,
    split_called,
)

__all__ = [
    "ClassFile",
    "ClassFiles",
    "ReadLabels",
    "contents_of",
    "find_class_files",
    "group_in_name",
    "problem_with_pattern",
]

_NOT_IN_TABLE = "not named in the table of labels"


class ClassFile(NamedTuple):
    """A file and its class; ``name`` is its path below the root, with slashes, or a data set's
    split and row."""

    path: Any  # a Path, or a StoredFile in a row of a data set
    name: str
    label: Any
    file: DataFile | None = None  # how it is read, where it is one


class ReadLabels(Protocol):
    """Reads a table in a folder that says the labels of its files."""

    def __call__(self, folder: Path) -> Mapping[str, tuple[Any, str]] | None:
        """Return (label, where it says so) by the files' paths below the folder, or None where it
        has no table."""


@dataclass
class ClassFiles:
    """The files of each split that has some, with their classes.

    Attributes:
        kinds: Kinds of files that are read.
        files: By split, sorted by name.
        listing: What was left out.
        tabled: Whether a table says the labels.
        warnings: What looks like a mistake, for the log and the data card.
    """

    kinds: Sequence[str]
    files: dict[Split, list[ClassFile]] = field(default_factory=lambda: {"train": []})
    listing: Listing = field(default_factory=Listing)
    tabled: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def named(self) -> tuple[Split, ...]:
        """The splits besides training that have files of their own."""
        return tuple(split for split in self.files if split != "train")

    def about(self, source: Source) -> dict[str, Any]:
        """Return what a data card says of where the files come from."""
        card: dict[str, Any] = {"source": source.place, "licence": source.licence or "not stated"}
        card["files"] = self.listing.about(sum(map(len, self.files.values())))
        if self.warnings:
            card["warnings"] = self.warnings
        return card

    def add_folders(self, split: Split, files: Iterable[DataFile], depth: int = 0) -> None:
        """Add files whose classes are the folders at a depth; those without one are counted."""
        own = self.files.setdefault(split, [])
        for file in files:
            parts = file.relative.split("/")
            if len(parts) < depth + 2:
                self.listing.left_out["without a class folder"] += 1
            else:
                own.append(ClassFile(file.path, file.relative, parts[depth], file))


def find_class_files(
    source: Source,
    kinds: Sequence[str],
    *,
    with_empty: bool = True,
    read_labels: ReadLabels = lambda folder: None,
    listing: Listing | None = None,
) -> ClassFiles:
    """Return the files of every class, in the splits that the source names, or that are called so.

    Args:
        source: The settings.
        kinds: Kinds of files.
        with_empty: Files without content are found too.
        read_labels: Reads the table in a folder that says the labels.
        listing: What the source's path holds, where that is known; it is changed.

    Raises:
        DataError: If the path is no folder, there are no classes, or one has no file.
        RecipeError: If settings say how examples are drawn, but those held out have a folder.
    """
    found = ClassFiles(kinds)
    root = _require_folder(source.place)
    if listing is None:
        listing = _list(root, kinds, source, with_empty)
    found.listing.count(listing)
    for split, path in _named_folders(source).items():
        folder = _require_folder(path)
        prefix = os.path.relpath(folder.resolve(), root.resolve()).replace(os.sep, "/")
        if prefix == "." or prefix.startswith("../"):
            other = _list(folder, kinds, source, with_empty)
            found.listing.count(other)
            prefix = in_one_form(f"{folder.name}/")
            inside = [replace(file, relative=prefix + file.relative) for file in other.files]
            folders = [prefix + name for name in other.folders]
        else:
            prefix = in_one_form(f"{prefix}/")
            inside = [file for file in listing.files if file.relative.startswith(prefix)]
            listing.files = [file for file in listing.files if not file.relative.startswith(prefix)]
            folders = [name for name in listing.folders if name.startswith(prefix)]
            listing.folders = [f for f in listing.folders if not f"{f}/".startswith(prefix)]
        _add(found, split, folder, prefix, inside, folders, read_labels)
    labels = read_labels(root)
    if labels is None:
        _divide(found, root, listing, read_labels)
    else:
        rows = [DataFile(root, name, Path(name).suffix, "") for name in labels]
        for split, own in divide_files(rows).items():
            chosen = {file.relative: labels[file.relative] for file in own}
            _add_table(found, split, root, "", chosen, listing.files)
        found.listing.left_out[_NOT_IN_TABLE] = len(listing.files) - len(labels)
    for split, files in found.files.items():
        # by name, because folders list their files in another order on every file system
        files.sort(key=lambda file: file.name)
        found.files[split] = keep_some(files, source.limit, source.seed)
        found.listing.left_out["beyond data.limit"] += len(files) - len(found.files[split])
    _warn_of_case(found)
    refuse_idle(source, found.named, "a folder")
    return found


def _list(folder: Path, kinds: Sequence[str], source: Source, with_empty: bool) -> Listing:
    return list_files(
        folder,
        kinds,
        encoding=source.encoding,
        on_unreadable=source.on_unreadable,
        with_empty=with_empty,
    )


def _named_folders(source: Source) -> dict[Split, str]:
    named: dict[Split, str] = {}
    paths: dict[Split, Any] = {"validation": source.validation, "test": source.test}
    for split, path in paths.items():
        if isinstance(path, list):
            raise DataError(
                source.place,
                f"data.{split} is a list; allowed with a folder for each class: one folder",
                "Name one folder",
            )
        if isinstance(path, str):
            named[split] = path
    return named


def contents_of(files: Mapping[Split, Sequence[ClassFile]]) -> dict[str, Path | str]:
    """Return the files of all splits by split and name."""
    return {f"{split}/{file.name}": Path(file.path) for split, own in files.items() for file in own}


def problem_with_pattern(pattern: str | None) -> str | None:
    """Return what is wrong with a source's ``group``, as ``"problem. remedy"``, or None."""
    if pattern is not None:
        try:
            re.compile(pattern)
        except re.error as error:
            return f"group {pattern!r} is no regular expression: {error}. Correct it"
    return None


def group_in_name(pattern: str, name: str, where: str) -> str:
    """Return what a regular expression finds in a file's name: its first group, or all of it.

    Raises:
        DataError: If it finds nothing.
    """
    found = re.search(pattern, name)
    group = found.group(min(found.re.groups, 1)) if found is not None else None
    if group is None:
        raise DataError(
            where,
            f"data.group {pattern!r} finds nothing in {name!r}",
            "Correct the expression so that it fits every file",
        )
    return f"group {group}"


def _require_folder(path: str) -> Path:
    folder = Path(expand_path(path))
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "there is no such folder"
        raise DataError(
            path, f"{problem}; allowed: a folder", "Correct the path, from the current folder"
        )
    return folder


def _divide(found: ClassFiles, root: Path, listing: Listing, read_labels: ReadLabels) -> None:
    """Add the files below the root, in folders of splits if there are some, else all of them."""
    deep = {file.relative.split("/")[0] for file in listing.files if file.relative.count("/") > 1}
    top = {name.lower(): name for name in listing.folders if "/" not in name}
    # a folder is a split only if it holds folders or a table; a class may be called train
    there = {
        low: name
        for low, name in top.items()
        if name in deep or (split_called(low) and read_labels(root / name) is not None)
    }
    splits = {split: there[low] for split in SPELLINGS if (low := find_spelling(split, there))}
    if "train" not in splits:
        # without train the names may be classes, such as test and validation of an experiment
        _refuse_empty_classes(found, root, "", listing.files, listing.folders)
        _warn_of_classes(found, root, top)
        for split, files in divide_class_files(listing.files).items():
            if files and split != "train" and split in found.files:
                found.listing.left_out[NOT_USED] += len(files)
            elif files:
                found.add_folders(split, files)
        return
    for split, name in splits.items():
        inside = [file for file in listing.files if file.relative.startswith(f"{name}/")]
        listing.files = [file for file in listing.files if not file.relative.startswith(f"{name}/")]
        if split != "train" and split in found.files:
            found.listing.left_out[NOT_USED] += len(inside)
            found.warnings.append(f"the folder {name} is not used: data.{split} names another")
        else:
            folders = [each for each in listing.folders if each.startswith(f"{name}/")]
            _add(found, split, root / name, f"{name}/", inside, folders, read_labels)
    # dev next to validation, for example: one is read, and the other must not be forgotten silently
    others = Counter(file.relative.split("/")[0] for file in listing.files)
    found.listing.left_out["next to the folders of splits"] += others.total()
    for name in others.keys() & top.values():
        problem = f"the folder {name} is not used: {', '.join(splits.values())} are the splits"
        found.warnings.append(problem)


def _add(
    found: ClassFiles,
    split: Split,
    folder: Path,
    prefix: str,
    files: list[DataFile],
    folders: list[str],
    read_labels: ReadLabels,
) -> None:
    """Add the files of a split's folder; ``prefix`` is what their names begin with."""
    labels = read_labels(folder)
    if labels is not None:
        _add_table(found, split, folder, prefix, labels, files)
        found.listing.left_out[_NOT_IN_TABLE] += len(files) - len(labels)
    else:
        _refuse_empty_classes(found, folder, prefix, files, folders)
        found.add_folders(split, files, prefix.count("/"))


def _add_table(
    found: ClassFiles,
    split: Split,
    folder: Path,
    prefix: str,
    labels: Mapping[str, tuple[Any, str]],
    files: Iterable[DataFile],
) -> None:
    """Add the files that a table in a folder names."""
    found.tabled = True
    known = {file.relative: file.path for file in files}
    seen: set[str] = set()
    for name, (label, origin) in labels.items():
        relative = in_one_form(os.path.normpath(prefix + name).replace(os.sep, "/"))
        path = known.get(relative, folder / name)
        problem = ""
        if not path.is_file():
            problem = f"there is no file {path}"
        elif relative in seen:
            problem = f"{name} has a row already"
        if problem:
            raise DataError(origin, problem, "Correct the row, or remove it")
        seen.add(relative)
        found.files.setdefault(split, []).append(ClassFile(path, relative, label))


def _refuse_empty_classes(
    found: ClassFiles,
    folder: Path,
    prefix: str,
    files: Sequence[DataFile],
    folders: Sequence[str],
) -> None:
    """Raise an error where there are no folders of classes, or one has no file: a model would have
    an output that nothing is learned for."""
    depth = prefix.count("/")
    parts = [file.relative.split("/") for file in files]
    inside = {own[depth] for own in parts if len(own) > depth + 1}
    classes = [name for name in folders if name.count("/") == depth]
    if not classes:
        raise DataError(
            str(folder),
            f"there are no class folders, and {len(files)} files without one; allowed: CLASS/file"
            " for every class",
            _table_advice(folder),
        )
    for name in sorted(classes):
        label = name.split("/")[depth]
        if label not in inside:
            there = folder / label
            others = Counter(p.suffix or p.name for p in there.rglob("*") if p.is_file())
            have = "it is empty"
            if others:
                have = "it has " + ", ".join(f"{kind} {n}" for kind, n in others.most_common(8))
            raise DataError(
                str(there),
                f"the class folder {label!r} holds no file of the kinds {', '.join(found.kinds)};"
                f" {have}",
                "Put files into it, or remove it",
            )


def _table_advice(folder: Path) -> str:
    advice = "Put the files of each class into a folder of its name"
    tables = [path.name for path in sorted(folder.glob("*.csv"))]
    if tables:
        advice += (
            f"; or, of pictures and sounds, let {tables[0]} say them: call it metadata.csv, with"
            " columns file_name and label"
        )
    return advice


def _warn_of_classes(found: ClassFiles, root: Path, top: Mapping[str, str]) -> None:
    """Say which classes are called like a split, or refuse to take splits for classes.

    Raises:
        DataError: If all folders are called like splits.
    """
    called = sorted(name for low, name in top.items() if split_called(low))
    if len(called) > 1 and len(called) == len(top) and "train" in map(split_called, top):
        raise DataError(
            str(root),
            f"{', '.join(called)} hold files, but no folders of classes",
            "Put the files of each class into a folder of its name",
        )
    if called:
        found.warnings.append(
            f"read as classes, not as splits, since no folder train with classes is next to them:"
            f" {', '.join(called)}"
        )


def _warn_of_case(found: ClassFiles) -> None:
    spellings: dict[str, set[str]] = defaultdict(set)
    for file in (file for files in found.files.values() for file in files):
        if isinstance(file.label, str):
            spellings[file.label.casefold()].add(file.label)
    for names in spellings.values():
        if len(names) > 1:
            found.warnings.append(f"classes that differ in case only: {', '.join(sorted(names))}")
