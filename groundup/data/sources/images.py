"""Pictures with a label each: a folder for every class, or a Hugging Face data set.

``CLASS/*.png``, or ``train/CLASS``, ``validation/CLASS`` (or ``val``) and ``test/CLASS`` with such
folders.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from groundup.core.contracts.data import DataContext, DataSource, Stream
from groundup.core.errors import DataError, RecipeError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split, StoredFile
from groundup.data.reading.hub_splits import HubOrigin, problem_with_dataset, refuse_idle
from groundup.data.reading.location import changed
from groundup.data.splitting.hash_split import split_of
from groundup.data.splitting.held_out import label_counts, refuse_lost
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.media.images import SUFFIXES, examine

__all__ = ["Images"]

_HELD_OUT = ("validation", "val", "test")
_FITS = 1 << 30  # bytes of tensors of one split that are kept in memory
_MOST_NUMBERS = 100  # different numbers that the data card counts one by one
_NAMED = 20  # pictures set aside that the data card names
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _File:
    path: Path | StoredFile
    name: str  # below the root, with slashes; of a data set the split and the row
    label: Any
    split: Split | None  # None: drawn by a hash of the name
    state: tuple[int, int]  # bytes, time of the last change in ns


@dataclass(frozen=True)
class _Checked:
    """What looking at every picture found; kept in the cache."""

    problems: dict[str, str]  # by name
    sizes: dict[str, int]  # how many pictures have "H x W format"


@data("images")
class Images(DataSource):
    """Pictures in folders named like their classes, or in a data set's rows, decoded when they are
    needed.

    With folders ``train``, ``validation`` (or ``val``) and ``test`` the last is the test split;
    beside ``train`` alone it is held out for validation. Of a data set the splits called validation
    and test are what they are called.
    """

    path: str | None = setting(
        None, "Folder of one folder a class, or train/, validation/ (val), test/ of these"
    )
    dataset: str | None = setting(
        None, "Hugging Face data set, such as ylecun/mnist, or a folder with a copy of one"
    )
    subset: str | None = setting(None, "Configuration of the data set")
    revision: str | None = setting(None, "Branch, tag or commit of the data set")
    dataset_split: str = setting(
        "train", "Split of the data set that is learned from, or a part such as train[:80%]"
    )
    validation_split: str | None = setting(
        None, "Split that is held out; silent: its own, or a share of the other"
    )
    test_split: str | None = setting(
        None, "Split that is only judged; silent: the one called test, if it has labels"
    )
    image_column: str | None = setting(None, "Column of the pictures; silent: found by its type")
    label_column: str | None = setting(
        None, "Column of the labels; silent: label, or the one of classes"
    )
    validation_fraction: float = setting(
        0.1, "Share held out where no split is, by a hash of the names", gt=0, lt=1
    )
    split_seed: int = setting(0, "Another seed holds out other pictures", ge=0)
    in_memory: Literal["auto", True, False] = setting(
        "auto",
        "Decode all pictures at the start and keep them, or each when needed; auto: keep them up to"
        " 1 GiB",
    )
    unreadable: Literal["stop", "set_aside"] = setting(
        "stop", "Damaged pictures: an error, or left out and counted"
    )
    licence: str = setting("", "Licence of the data, for the data card")

    @model_validator(mode="after")
    def _consistent(self) -> Images:
        if problem := problem_with_dataset(self, ("image_column", "label_column"), ()):
            raise ValueError(problem)
        return self

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are: a test split where the data has one of its own."""
        if (origin := HubOrigin.of(self)) is not None:
            has_test = "test" in origin.tables(self.label_column)
        else:
            has_test = _test_folder(self._root()) is not None
        return ("train", "validation", "test") if has_test else ("train", "validation")

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the pictures of a split, sorted by name, or in the order of the rows: their files
        and labels.

        Raises:
            DataError: If there is nothing to learn from, or a picture is unreadable and
                ``unreadable: stop``.
            RecipeError: If a setting of the split is given and a folder or a split is held out.
        """
        return self._read(cache)[0][split]

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split."""
        splits, checked = self._read(context.cache)
        if checked.problems and context.split == "train":
            named = ", ".join(sorted(checked.problems)[:_NAMED])
            _log.warning(
                f"{self.path or self.dataset}: {len(checked.problems):,} unreadable pictures are"
                f" set aside: {named}"
            )
        found = splits[context.split]
        keep = self.in_memory
        if keep == "auto":
            one = context.encode(found[:1])
            keep = len(found) * sum(values.nbytes for values in one.values()) <= _FITS
        return open_indexed_stream(found, context, in_memory=keep)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many pictures there are of each class in each split, their sizes, and which
        were set aside."""
        splits, checked = self._read(cache)
        sizes = sorted(checked.sizes.items(), key=lambda item: (-item[1], item[0]))
        card: dict[str, Any] = {"source": self.path, "licence": self.licence or "not stated"}
        if (origin := HubOrigin.of(self)) is not None:
            card = origin.about(origin.tables(self.label_column), self.licence)
        card["sizes"] = dict(sizes[:5]) | (
            {"others": sum(n for _, n in sizes[5:])} if len(sizes) > 5 else {}
        )
        for split, found in splits.items():
            card[split] = _counted(found)
        named = dict(sorted(checked.problems.items())[:_NAMED])
        return card | {"set_aside": {"pictures": len(checked.problems), **named}}

    def _read(self, cache: Path) -> tuple[dict[Split, list[Example]], _Checked]:
        where = str(self.dataset or self._root())
        files, key = (self._files(self._root()), b"") if self.dataset is None else self._rows()
        checked = _checked(files, cache, key)
        if checked.problems and self.unreadable == "stop":
            first = next(file for file in files if file.name in checked.problems)
            rest = (
                f" ({len(checked.problems) - 1:,} other pictures too)"
                if len(checked.problems) > 1
                else ""
            )
            remedy = (
                "Replace or remove it, or set data.unreadable: set_aside to leave such pictures out"
            )
            raise DataError(str(first.path), checked.problems[first.name] + rest, remedy)
        splits: dict[Split, list[Example]] = {split: [] for split in self.splits()}
        for file in files:
            if file.name not in checked.problems:
                side = file.split or split_of(file.name, self.validation_fraction, self.split_seed)
                splits[side].append(Example(file.name, file.path, file.label, str(file.path)))
        if any(splits.values()):
            refuse_lost(
                [f.label for f in files],
                [e.target for found in splits.values() for e in found],
                where,
            )
        _check_labels(where, splits)
        return splits, checked

    def _root(self) -> Path:
        return Path(self.path or "").expanduser()

    def _rows(self) -> tuple[list[_File], bytes]:
        """Return all pictures of a data set, and what changes when it does."""
        origin = HubOrigin.of(self)
        assert origin is not None
        refuse_idle(self, ("validation_fraction", "split_seed"), origin)
        files = origin.files("image", self.image_column, self.label_column)
        keys = "".join(table.key for table in origin.tables(self.label_column).values())
        return [
            _File(file, name, label, split, (0, 0)) for file, name, label, split in files
        ], keys.encode()

    def _files(self, root: Path) -> list[_File]:
        """Return all pictures."""
        if not root.is_dir():
            found = "is a file, not a folder" if root.is_file() else "no such folder"
            raise DataError(
                str(self.path),
                found,
                "Correct the path; it is taken relative to the current folder",
            )
        train = root / "train"
        if not _folders(train):
            return _pictures(root, root, None)
        held_out = next((root / name for name in _HELD_OUT if _folders(root / name)), None)
        if held_out is None:
            return _pictures(train, root, None)
        for name in changed(self, "validation_fraction", "split_seed"):
            problem = f"has no effect: {held_out} is held out as it is"
            raise RecipeError(f"recipe.data.{name}", problem, "Remove it, or move that folder away")
        test = _test_folder(root)
        judged = _pictures(test, root, "test") if test is not None else []
        return _pictures(train, root, "train") + _pictures(held_out, root, "validation") + judged


def _test_folder(root: Path) -> Path | None:
    """Return the folder of the test split, which there is where others are learned from and held
    out."""
    others = any(_folders(root / name) for name in _HELD_OUT if name != "test")
    return (
        root / "test" if others and _folders(root / "train") and _folders(root / "test") else None
    )


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, hidden ones aside; none if it is no folder itself."""
    return (
        sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._")
        if folder.is_dir()
        else []
    )


def _pictures(folder: Path, root: Path, split: Split | None) -> list[_File]:
    """Return the pictures in the folders of each class, and in folders within these."""
    classes = _folders(folder)
    if not classes:
        loose = sum(p.suffix.lower() in SUFFIXES for p in folder.iterdir())
        found = (
            f"holds no folders, and {loose} pictures outside of any"
            if loose
            else "holds no folders"
        )
        raise DataError(
            str(folder), found, "Put the pictures of each class into a folder with the class's name"
        )
    found_files: list[_File] = []
    for each in classes:
        before = len(found_files)
        for place, folders, names in os.walk(each):
            folders.sort()
            for name in sorted(names):
                path = Path(place, name)
                if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                    state = path.stat()
                    below = path.relative_to(root).as_posix()
                    found_files.append(
                        _File(path, below, each.name, split, (state.st_size, state.st_mtime_ns))
                    )
        if len(found_files) == before:
            problem = (
                f"the folder of class {each.name!r} holds no pictures"
                f" ({', '.join(sorted(SUFFIXES))})"
            )
            raise DataError(str(each), problem, "Put some in, or remove the folder")
    return found_files


def _check_labels(where: str, splits: dict[Split, list[Example]]) -> None:
    """Raise an error for a split that nothing can be learned or judged from; numbers may be what is
    predicted."""
    trained = _labels_in(splits["train"])
    words = all(isinstance(example.target, str | list) for example in splits["train"])
    for split, found in splits.items():
        if words and (unknown := sorted(_labels_in(found) - trained)):
            name = "held-out" if split == "validation" else split
            problem = f"class {unknown[0]!r} is only in the {name} split: it could not be learned"
            raise DataError(
                where,
                problem,
                "Add pictures of it to training, or remove it; check how it is spelt",
            )
    if len(trained) < 2:
        names = ", ".join(map(repr, sorted(trained)))
        problem = (
            f"every readable training picture has the class {names}"
            if trained
            else "no picture can be read"
        )
        raise DataError(
            where,
            f"{problem}; a classifier needs two classes or more",
            "Add pictures of other classes",
        )
    if not splits["validation"]:
        problem = f"of {len(splits['train'])} pictures none is held out"
        raise DataError(where, problem, "Add pictures, or raise data.validation_fraction")


def _counted(examples: Sequence[Example]) -> dict[str, Any]:
    """Return how many examples there are of each label, or how many different numbers where there
    are very many."""
    found = label_counts(examples)
    if len(found["labels"]) <= _MOST_NUMBERS or isinstance(examples[0].target, str | list):
        return found
    return {"examples": len(examples), "different numbers": len(found["labels"])}


def _labels_in(examples: Sequence[Example]) -> set[str]:
    targets = [e.target if isinstance(e.target, list) else [e.target] for e in examples]
    return {str(label) for labels in targets for label in labels}


# ----------------------------------------------------------------------------------------- checking
def _checked(files: Sequence[_File], cache: Path, key: bytes = b"") -> _Checked:
    """Return what is wrong with which pictures, looking at them only if one has changed since the
    last time."""
    digest = hashlib.sha256(
        b"".join(f"{file.name}\0{file.state}\n".encode("utf-8", "replace") for file in files) + key
    )
    path = cache / "images" / f"{digest.hexdigest()[:24]}.json"
    if path.is_file():
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            return _Checked(saved["problems"], saved["sizes"])
        except (ValueError, KeyError, TypeError):
            pass  # a file that was cut off: look again
    found = _look(files)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(
        json.dumps({"problems": found.problems, "sizes": found.sizes}), encoding="utf-8"
    )
    unfinished.replace(path)
    return found


def _look(files: Sequence[_File]) -> _Checked:
    problems: dict[str, str] = {}
    sizes: Counter[str] = Counter()
    with ThreadPoolExecutor(
        min(8, os.cpu_count() or 1)
    ) as threads:  # decoding lets other threads run
        looks = threads.map(examine, [file.path for file in files])
        for number, (file, (problem, size)) in enumerate(zip(files, looks, strict=True), 1):
            if problem is not None:
                problems[file.name] = problem
            else:
                sizes[size] += 1
            if number % 20_000 == 0:
                _log.info(f"looked at {number:,} of {len(files):,} pictures")
    return _Checked(problems, dict(sizes))
