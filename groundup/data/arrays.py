"""Arrays with labels: .npz, idx (as MNIST comes), tables of pixels, and the digits that scikit-learn carries."""

from __future__ import annotations

import gzip
import importlib.util
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from groundup.core.errors import DataError, MissingExtraError, did_you_mean
from groundup.core.interfaces import DataContext, DataSource, Split, Stream
from groundup.core.records import Example
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.data.indexed import open_indexed_stream
from groundup.data.splits import split_of

__all__ = ["Arrays", "read_idx"]

_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
Table = tuple[NDArray[Any], NDArray[Any]]
_Files = tuple[str, str | None, str, str]  # inputs, labels; in an .npz the names of both


@data("arrays")
class Arrays(DataSource):
    """Inputs of one shape with a label each: files, or scikit-learn's digits where no path is given."""

    path: str | None = setting(
        None, "An .npz, an idx file of the inputs, or a folder as MNIST comes; silent: scikit-learn's 1,797 real digits"
    )
    labels_path: str | None = setting(None, "The idx file of the labels")
    test_path: str | None = setting(None, "File of examples that are only judged; MNIST's layout names its own")
    test_labels_path: str | None = setting(None, "The idx file of their labels")
    inputs_key: str = setting("x", "Name of the inputs in an .npz; x_train and x_test are found by it too")
    labels_key: str = setting("y", "Name of the labels in an .npz")
    validation_fraction: float = setting(0.1, "Share of the examples held out while training", gt=0, lt=1)
    split_seed: int = setting(0, "Another seed holds out other examples", ge=0)
    labels: tuple[str | int, ...] = setting((), "Keep only examples with these labels; silent: all")
    only_held_out: bool = setting(False, "Take only what a run with the settings above holds out, to fine-tune on it")
    final_fraction: float = setting(
        0.5, "Share of them held out once more, unseen by both", gt=0, lt=1, applies_when={"only_held_out": (True,)}
    )
    licence: str = setting("", "Licence of the data, for the data card")

    @model_validator(mode="after")
    def _consistent(self) -> Arrays:
        needs = {"labels_path": "path", "test_path": "path", "test_labels_path": "test_path"}
        for name, other in needs.items():
            if getattr(self, name) and not getattr(self, other):
                raise ValueError(f"{name} has no effect without {other}. Give {other}, or remove it")
        return self

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are: a test split where the data has one of its own."""
        return ("train", "validation", "test") if self._test() else ("train", "validation")

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the examples of a split in the order of the file.

        Raises:
            DataError: If a file cannot be read, inputs and labels do not fit, or one of ``labels`` does not occur.
        """
        if split == "test":
            test = self._test()
            return self._chosen(_examples(self._read(test), test[0])) if test else []
        if self.path is None:
            every = _examples(_digits(), "digits")
        else:
            files = self._train(self.path)
            every = _examples(self._read(files), files[0])
        _check_labels(self.labels, every)
        part = "validation" if self.only_held_out else split
        found = [e for e in every if split_of(e.name, self.validation_fraction, self.split_seed) == part]
        if self.only_held_out:
            found = [e for e in found if split_of(f"again {e.name}", self.final_fraction, self.split_seed) == split]
        return self._chosen(found)

    def _chosen(self, examples: list[Example]) -> list[Example]:
        kept = {str(label) for label in self.labels}
        return [e for e in examples if str(e.target) in kept] if kept else examples

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many examples there are of each class in each split, their shape, and the licence."""
        sides = {split: self.examples(split, cache) for split in self.splits()}
        licence = self.licence or ("BSD-3-Clause" if self.path is None else "not stated")
        shape = next((list(np.shape(found[0].inputs)) for found in sides.values() if found), [])
        counts = {split: Counter(str(e.target) for e in found) for split, found in sides.items()}
        return {
            **{"source": self.path or "scikit-learn digits", "licence": licence, "shape": shape},
            **{
                name: {"examples": counts[name].total(), "labels": dict(sorted(counts[name].items()))} for name in sides
            },
        }

    def _train(self, path: str) -> _Files:
        folder = Path(path).expanduser()
        if folder.is_dir():
            return _of_folder(folder, "train")
        return path, self.labels_path, self.inputs_key, self.labels_key

    def _test(self) -> _Files | None:
        if self.test_path:
            return self.test_path, self.test_labels_path, self.inputs_key, self.labels_key
        file = Path(self.path or "").expanduser()
        if self.path and file.is_dir():
            return _of_folder(file, "t10k", "test")
        keys = f"{self.inputs_key}_test", f"{self.labels_key}_test"
        if file.suffix == ".npz" and file.is_file() and set(keys) <= set(_names(file)):
            return str(file), None, *keys
        return None

    def _read(self, files: _Files) -> Table:
        path, labels_path, inputs_key, labels_key = files
        file = Path(path).expanduser()
        if not file.is_file():
            raise DataError(path, "no such file", "Correct the path; it is taken relative to the current folder")
        stamp = file.stat().st_mtime_ns
        if file.suffix == ".npz":
            known = _names(file)
            if inputs_key not in known and f"{inputs_key}_train" in known:
                inputs_key, labels_key = f"{inputs_key}_train", f"{labels_key}_train"
            return _read_npz(file, inputs_key, labels_key, stamp)
        if labels_path is None:
            raise DataError(path, "is no .npz, and nothing says where the labels are", "Give labels_path as well")
        return _read_pair(file, Path(labels_path).expanduser(), stamp)


def _of_folder(folder: Path, *prefixes: str) -> _Files:
    """Return the files of inputs and labels in a folder as MNIST comes: train-images-idx3-ubyte.gz and so on."""
    found = []
    for kind in ("images", "labels"):
        names = sorted(p for prefix in prefixes for p in folder.glob(f"{prefix}*{kind}*"))
        if not names:
            there = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
            problem = f"has no file {prefixes[0]}*{kind}*, as MNIST's layout has it; there: {there}"
            raise DataError(str(folder), problem, "Name the files with path, labels_path, test_path, test_labels_path")
        found.append(str(names[0]))
    return found[0], found[1], "", ""


@lru_cache(maxsize=4)
def _read_pair(path: Path, labels: Path, stamp: int) -> Table:
    return read_idx(path), read_idx(labels)


def read_idx(path: Path) -> NDArray[Any]:
    """Return the array of a file in idx format, compressed with gzip or not.

    Raises:
        DataError: If the file is missing or damaged.

    Source:
        LeCun, Cortes and Burges, "The MNIST database of handwritten digits": the file format at its end.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(str(path), f"cannot be read: {error}", "Check the file, or fetch it again") from None
    kind = _IDX_TYPES.get(content[2]) if len(content) > 4 and content[:2] == b"\0\0" else None
    if kind is None:
        raise DataError(
            str(path), "is not an idx file: it does not begin with 0, 0, type, dimensions", "Check the file"
        )
    shape = np.frombuffer(content, ">u4", content[3], 4).tolist()
    values = np.frombuffer(content, kind, offset=4 + 4 * len(shape))
    if len(values) != np.prod(shape):
        raise DataError(str(path), f"says it holds {shape} numbers and holds {len(values)}", "Fetch it again")
    return values.reshape(shape)


@lru_cache(maxsize=4)
def _read_npz(path: Path, inputs_key: str, labels_key: str, stamp: int) -> Table:
    known = _names(path)
    for key in (inputs_key, labels_key):
        if key not in known:
            problem = f"there is no array {key!r}; {did_you_mean(key, known)}arrays: {', '.join(known) or 'none'}"
            raise DataError(str(path), problem, "Set data.inputs_key and data.labels_key")
    with _opened(path) as arrays:
        return arrays[inputs_key], arrays[labels_key]


def _names(path: Path) -> list[str]:
    with _opened(path) as arrays:
        return list(arrays)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise DataError(str(path), f"cannot be read as .npz without pickle: {error}", "Save plain arrays") from None


@lru_cache(maxsize=1)
def _digits() -> Table:
    """Return the 1,797 handwritten digits of 8 x 8 pixels, 0 to 16, from scikit-learn's own file."""
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise MissingExtraError("scikit-learn", "classic")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(path, delimiter=",", dtype=np.float32)
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)


def _check_labels(wanted: tuple[str | int, ...], examples: list[Example]) -> None:
    known = sorted({str(example.target) for example in examples})
    for label in map(str, wanted):
        if label not in known:
            problem = f"label {label!r} does not occur; {did_you_mean(label, known)}known: {', '.join(known[:12])}"
            raise DataError("recipe.data.labels", problem, "Correct it")


def _examples(table: Table, where: str) -> list[Example]:
    inputs, labels = table
    if len(inputs) != len(labels) or labels.ndim != 1:
        problem = f"{len(inputs)} inputs and labels of shape {labels.shape}; allowed: one label an input"
        raise DataError(where, problem, "Check that both files belong together")
    if not len(inputs):
        raise DataError(where, "there are no examples", "Give a file with something in it")
    return [
        Example(f"{number}", row, label, f"{where} row {number}")
        for number, (row, label) in enumerate(zip(inputs, labels.tolist(), strict=True), 1)
    ]
