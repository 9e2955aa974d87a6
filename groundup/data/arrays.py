"""Arrays with labels: .npz, idx (as MNIST comes), tables of pixels, and the digits that scikit-learn carries."""

from __future__ import annotations

import gzip
import importlib.util
import zipfile
from collections import Counter
from collections.abc import Sequence
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
_MOST_CLASSES = 100
Table = tuple[NDArray[Any], dict[str, NDArray[Any]]]  # inputs; labels by target, "" where there is one target


@data("arrays")
class Arrays(DataSource):
    """Inputs of one shape with a label each: files, or scikit-learn's digits where no path is given."""

    path: str | None = setting(None, "An .npz, or idx file of the inputs; silent: 1,797 real digits of scikit-learn")
    labels_path: str | None = setting(None, "The idx file of the labels")
    inputs_key: str = setting("x", "Name of the inputs in an .npz; x_train, x_test and the like are found by it")
    labels_key: str = setting("y", "Name of the labels in an .npz")
    labels_keys: dict[str, str] = setting({}, "For several targets, the .npz's array of each; NaN where one is missing")
    validation_path: str | None = setting(None, "File of the inputs held out as they are, instead of a fraction")
    validation_labels_path: str | None = setting(None, "The idx file of their labels")
    validation_fraction: float = setting(0.1, "Share of the examples held out", gt=0, lt=1)
    split_seed: int = setting(0, "Another seed holds out other examples", ge=0)
    licence: str = setting("", "Licence of the data, for the data card")

    @model_validator(mode="after")
    def _consistent(self) -> Arrays:
        if self.path is None:
            names = ("labels_path", "labels_keys", "validation_path", "validation_labels_path")
            given = [n for n in names if getattr(self, n)]
            if given:
                raise ValueError(f"{given[0]} has no effect without path. Give path, or remove it")
        if self.labels_keys and (self.labels_path or self.labels_key != "y"):
            other = "labels_path" if self.labels_path else "labels_key"
            raise ValueError(f"{other} has no effect with labels_keys. Remove one of them")
        if self.validation_labels_path and not self.validation_path:
            raise ValueError("validation_labels_path has no effect without validation_path. Give both, or remove it")
        return self

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the examples of a split in the order of the file.

        Raises:
            DataError: If a file cannot be read, or inputs and labels do not fit.
        """
        if self.validation_path is not None:
            held_out = split == "validation"
            path, labels = (
                (self.validation_path, self.validation_labels_path) if held_out else (self.path, self.labels_path)
            )
            return _examples(self._read(str(path), labels), str(path))
        table = _digits() if self.path is None else self._read(self.path, self.labels_path)
        every = _examples(table, self.path or "digits")
        return [e for e in every if split_of(e.name, self.validation_fraction, self.split_seed) == split]

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many examples there are of each class in each split, their shape, and the licence."""
        splits: dict[str, Any] = {}
        shape: list[int] = []
        for split in ("train", "validation"):
            found = self.examples(split, cache)
            shape = list(np.shape(found[0].inputs)) if found else shape
            splits[split] = {
                "examples": len(found),
                "labels": _label_counts([e.target for e in found]),
            }
        licence = self.licence or ("BSD-3-Clause" if self.path is None else "not stated")
        return {"source": self.path or "scikit-learn digits", "licence": licence, "shape": shape, **splits}

    def _read(self, path: str, labels_path: str | None) -> Table:
        file = Path(path).expanduser()
        if not file.is_file():
            raise DataError(path, "no such file", "Correct the path; it is taken relative to the current folder")
        if file.suffix == ".npz":
            return _read_npz(file, self.inputs_key, self.labels_keys or {"": self.labels_key})
        if self.labels_keys:
            raise DataError(path, "is no .npz, whose arrays data.labels_keys names", "Save the targets in one .npz")
        if labels_path is None:
            raise DataError(path, "is no .npz, and nothing says where the labels are", "Give labels_path as well")
        return read_idx(file), {"": read_idx(Path(labels_path).expanduser())}


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


def _read_npz(path: Path, inputs_key: str, labels_keys: dict[str, str]) -> Table:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            known = list(arrays)
            for key in (inputs_key, *labels_keys.values()):
                if key not in known:
                    hint = did_you_mean(key, known)
                    problem = f"there is no array {key!r}; {hint}arrays: {', '.join(known) or 'none'}"
                    raise DataError(str(path), problem, "Set data.inputs_key and data.labels_key")
            return arrays[inputs_key], {name: arrays[key] for name, key in labels_keys.items()}
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise DataError(str(path), f"cannot be read as .npz without pickle: {error}", "Save plain arrays") from None


def _digits() -> Table:
    """Return the 1,797 handwritten digits of 8 x 8 pixels, 0 to 16, from scikit-learn's own file."""
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise MissingExtraError("scikit-learn", "classic")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(path, delimiter=",", dtype=np.float32)
    return rows[:, :-1].reshape(-1, 8, 8), {"": rows[:, -1].astype(np.int64)}


def _examples(table: Table, where: str) -> list[Example]:
    inputs, labels = table
    for each in labels.values():
        if len(inputs) != len(each) or each.ndim != 1:
            problem = f"{len(inputs)} inputs and labels of shape {each.shape}; allowed: one label an input"
            raise DataError(where, problem, "Check that both files belong together")
    if not len(inputs):
        raise DataError(where, "there are no examples", "Give a file with something in it")
    columns = [each.tolist() for each in labels.values()]
    targets = [dict(zip(labels, row, strict=True)) for row in zip(*columns, strict=True)]
    return [
        Example(f"{number}", row, target.get("", target), f"{where} row {number}")
        for number, (row, target) in enumerate(zip(inputs, targets, strict=True), 1)
    ]


def _label_counts(targets: Sequence[Any]) -> dict[str, Any]:
    """Return how often each label occurs, or how many different ones there are; by target where there are several."""
    if targets and isinstance(targets[0], dict):
        return {name: _label_counts([target[name] for target in targets]) for name in targets[0]}
    found = Counter(str(target) for target in targets)
    if targets and isinstance(targets[0], float) and len(found) > _MOST_CLASSES:
        return {"different numbers": len(found)}
    return dict(sorted(found.items()))
