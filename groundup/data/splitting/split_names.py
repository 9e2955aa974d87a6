"""Which files, folders and splits of a data set are training, validation and test by their
names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from groundup.core.values import Split
from groundup.data.reading.compressed import DataFile

__all__ = ["SPELLINGS", "divide_files", "find_spelling"]

SPELLINGS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test", "testing"),
}
_SPLIT_OF: dict[str, Split] = {word: split for split, words in SPELLINGS.items() for word in words}
_PLAIN = (".txt", ".md")
# test, test1, dev_2, and what the hub calls shards: train-00000-of-00002
_WHOLE_NAME = re.compile(r"([a-z]+)([-_.]?\d[-_.\dof]*)?")


def find_spelling(split: Split, names: Iterable[str]) -> str | None:
    """Return the name that a split has among these, the usual spelling first, or None."""
    # usual spelling first, where a data set has several
    there = set(names)
    return next((word for word in SPELLINGS[split] if word in there), None)


def divide_files(files: Sequence[DataFile]) -> dict[Split, list[DataFile]]:
    """Return which files of a folder belong to which split.

    A folder or file that is called like a split, such as ``dev.jsonl``, ``test/`` or
    ``train-00000-of-00002.parquet``, is that split. Next to something called train, so is one whose
    name begins or ends so, such as ``mnist_test.csv``. All else is training.
    """
    beside_train = {
        place for file in files for place, part in _places(file) if _word_in(part) == "train"
    }
    found: dict[Split, list[DataFile]] = {"train": [], "validation": [], "test": []}
    for file in files:
        found[_split_of_file(file, beside_train)].append(file)
    if not found["train"]:
        # a folder of nothing but eval.jsonl is not held out from anything
        return {"train": list(files), "validation": [], "test": []}
    return found


def _split_of_file(file: DataFile, beside_train: set[str]) -> Split:
    for place, part in _places(file):
        named = None
        if place in beside_train:
            named = _word_in(part)
        elif file.kind not in _PLAIN:
            # a folder of notes may well have a dev.md or a chapter called test
            whole = _WHOLE_NAME.fullmatch(part)
            named = _SPLIT_OF.get(whole[1]) if whole else None
        if named is not None:
            return named
    return "train"


def _places(file: DataFile) -> list[tuple[str, str]]:
    """Return (the folder it is in, its name in lower case) of each folder on the way to a file, and
    of the file itself, without suffixes."""
    stem = file.relative[: len(file.relative) - len(file.kind) - len(file.compression)]
    parts = stem.lower().split("/")
    return [("/".join(parts[:depth]), part) for depth, part in enumerate(parts)]


def _word_in(part: str) -> Split | None:
    words = re.split(r"[-_.]", part)
    return _SPLIT_OF.get(words[0]) or _SPLIT_OF.get(words[-1])
