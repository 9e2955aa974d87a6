"""Which files, folders and splits of a data set are training, validation and test by their
names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from groundup.core.values import Split
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.listing import suffix_of

__all__ = [
    "SPELLINGS",
    "ambiguous_names",
    "divide_class_files",
    "divide_files",
    "find_spelling",
    "missing_parts",
    "split_called",
    "split_in_path",
    "split_word",
]

SPELLINGS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training", "训练", "训练集"),
    "validation": ("validation", "valid", "val", "dev", "eval", "验证", "验证集"),
    "test": ("test", "testing", "测试", "测试集"),
}
_SPLIT_OF: dict[str, Split] = {word: split for split, words in SPELLINGS.items() for word in words}
_LIKE_HELD_OUT = re.compile(r"hold-?_?out|held-?_?out|unseen|blind")
_PLAIN = (".txt", ".md", ".html", ".eml")
# test, test1, dev_2, and what the hub calls shards: train-00000-of-00002
_WHOLE_NAME = re.compile(r"([^\W\d_]+)([-_.]?\d[-_.\dof]*)?")
_PART = re.compile(r"(.*)(\d{5})-of-(\d{5})")
_BETWEEN_WORDS = re.compile(r"[-_.]")


def find_spelling(split: Split, names: Iterable[str]) -> str | None:
    """Return the name that a split has among these, the usual spelling first, or None."""
    # usual spelling first, where a data set has several
    there = set(names)
    return next((word for word in SPELLINGS[split] if word in there), None)


def split_called(name: str) -> Split | None:
    """Return the split that a name is a spelling of, such as test_2 of test, or None."""
    whole = _WHOLE_NAME.fullmatch(name.lower())
    return _SPLIT_OF.get(whole[1]) if whole else None


def split_in_path(relative: str, *, folders_only: bool = True) -> Split | None:
    """Return the split that the folders on the way to a file are called, the innermost first, or a
    word at either end of their names, such as instances_train2017; None where none is.

    Args:
        relative: A path with slashes.
        folders_only: Do not look at the file's own name.
    """
    *folders, name = relative.split("/")
    places = folders if folders_only else [*folders, name.split(".")[0]]
    for place in reversed(places):
        words = [place, *_BETWEEN_WORDS.split(place)]
        for word in (words[0], words[-1], words[1]):
            if (split := split_called(word)) is not None:
                return split
    return None


def split_word(value: object) -> Split | None:
    """Return the split that a value in a row, or a key, is a spelling of, or None."""
    return _SPLIT_OF.get(value.strip().lower()) if isinstance(value, str) else None


def divide_class_files(files: Sequence[DataFile]) -> dict[Split, list[DataFile]]:
    """Return which files of folders of classes belong to which split.

    Below a class, folders that are called like splits are splits where one of them is train, such
    as cat/train/1.png and cat/test/2.png, and so are files such as cat/train_1.png.
    """
    found: dict[Split, list[DataFile]] = {"train": [], "validation": [], "test": []}
    keys: list[list[tuple[str | int, Split | None]]] = []
    for file in files:
        *folders, (place, stem) = _places(file)
        # next to each other are folders at one depth, in all classes, and files of one folder
        names: list[tuple[str | int, str]] = [(n, name) for n, (_, name) in enumerate(folders)]
        keys.append([(key, split_called(name)) for key, name in [*names[1:], (place, stem)]])
    beside_train = {key for own in keys for key, split in own if split == "train"}
    for file, own in zip(files, keys, strict=True):
        named = [split for key, split in own if split and key in beside_train]
        found[named[0] if named else "train"].append(file)
    return found


def divide_files(files: Sequence[DataFile]) -> dict[Split, list[DataFile]]:
    """Return which files of a folder belong to which split.

    A folder or file that is called like a split, such as ``dev.jsonl``, ``test/`` or
    ``train-00000-of-00002.parquet``, is that split. Next to something called train, so is one whose
    name begins or ends so, such as ``mnist_test.csv``. All else is training.
    """
    places = [_places(file) for file in files]
    beside_train = {place for own in places for place, part in own if _word_in(part) == "train"}
    found: dict[Split, list[DataFile]] = {"train": [], "validation": [], "test": []}
    for file, own in zip(files, places, strict=True):
        found[_split_of_file(file, own, beside_train)].append(file)
    if not found["train"]:
        # a folder of nothing but eval.jsonl is not held out from anything
        return {"train": list(files), "validation": [], "test": []}
    return found


def ambiguous_names(files: Sequence[DataFile]) -> list[str]:
    """Return which of the files that are trained on have a name or folder that begins or ends like
    a split to hold out."""
    found = []
    for file in files:
        named = {_word_in(part) for _, part in _places(file)}
        called_so = named & {"validation", "test"} or _LIKE_HELD_OUT.search(file.relative.lower())
        if called_so and "train" not in named:
            found.append(file.relative)
    return found


def missing_parts(files: Iterable[DataFile]) -> list[str]:
    """Return the numbers that are missing among parts such as train-00000-of-00002, as texts."""
    parts: dict[tuple[str, str], set[int]] = {}
    for file in files:
        stem = file.relative[: len(file.relative) - len(suffix_of(file.relative))]
        if found := _PART.fullmatch(stem):
            parts.setdefault((found[1], found[3]), set()).add(int(found[2]))
    missing = []
    for (name, of), there in parts.items():
        count = int(of)
        # numbered from 0 nearly everywhere, and from 1 by some
        numbers = range(1, count + 1) if count in there else range(count)
        lost = [number for number in numbers if number not in there]
        if lost:
            missing.append(f"{name}*-of-{of}: {len(lost)} of {count}, such as {lost[0]:05}")
    return missing


def _split_of_file(
    file: DataFile, places: Iterable[tuple[str, str]], beside_train: set[str]
) -> Split:
    for place, part in places:
        named = None
        if place in beside_train:
            named = _word_in(part)
        elif file.kind not in _PLAIN:
            # a folder of notes may well have a dev.md or a chapter called test
            named = split_called(part)
        if named is not None:
            return named
    return "train"


def _places(file: DataFile) -> list[tuple[str, str]]:
    """Return (the folder it is in, its name in lower case) of each folder on the way to a file, and
    of the file itself, without suffixes."""
    stem = file.relative[: len(file.relative) - len(suffix_of(file.relative))]
    parts = stem.lower().split("/")
    return [("/".join(parts[:depth]), part) for depth, part in enumerate(parts)]


def _word_in(part: str) -> Split | None:
    words = _BETWEEN_WORDS.split(part)
    return _SPLIT_OF.get(words[0]) or _SPLIT_OF.get(words[-1])
