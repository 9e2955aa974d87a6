"""Arrays with labels: .npz, idx (as MNIST comes), tables of pixels, and the digits that scikit-learn carries."""

from __future__ import annotations

import gzip
import importlib.util
import zipfile
from collections import Counter
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


@data("arrays")
class Arrays(DataSource):
    """Inputs of one shape with a label each: files, or scikit-learn's digits where no path is given."""

    path: str | None = setting(None, "An .npz, or idx file of the inputs; silent: 1,797 real digits of scikit-learn")
    labels_path: str | None = setting(None, "The idx file of the labels")
    inputs_key: str = setting("x", "Name of the inputs in an .npz; x_train, x_test and the like are found by it")
    labels_key: str = setting("y", "Name of the labels in an .npz")
    validation_path: str | None = setting(None, "File of the inputs held out as they are, instead of a fraction")
    validation_labels_path: str | None = setting(None, "The idx file of their labels")
    validation_fraction: float = setting(0.1, "Share of the examples held out", gt=0, lt=1)
    split_seed: int = setting(0, "Another seed holds out other examples", ge=0)
    labels: tuple[str | int, ...] = setting((), "Keep only examples with these labels; silent: all")
    only_held_out: bool = setting(False, "Take only what a run with the settings above holds out, to fine-tune on it")
    final_fraction: float = setting(
        0.5, "Share of them held out once more, unseen by both", gt=0, lt=1, applies_when={"only_held_out": (True,)}
    )
    licence: str = setting("", "Licence of the data, for the data card")

    @model_validator(mode="after")
    def _consistent(self) -> Arrays:
        if self.path is None:
            given = [n for n in ("labels_path", "validation_path", "validation_labels_path") if getattr(self, n)]
            if given:
                raise ValueError(f"{given[0]} has no effect without path. Give path, or remove it")
        if self.validation_labels_path and not self.validation_path:
            raise ValueError("validation_labels_path has no effect without validation_path. Give both, or remove it")
        return self

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the examples of a split in the order of the file.

        Raises:
            DataError: If a file cannot be read, inputs and labels do not fit, or one of ``labels`` does not occur.
        """
        found = self._side("validation" if self.only_held_out else split)
        if self.only_held_out:
            found = [e for e in found if split_of(f"again {e.name}", self.final_fraction, self.split_seed) == split]
        kept = {str(label) for label in self.labels}
        return [e for e in found if str(e.target) in kept] if kept else found

    def _side(self, split: Split) -> list[Example]:
        if self.validation_path is not None:
            held_out = split == "validation"
            path, labels = (
                (self.validation_path, self.validation_labels_path) if held_out else (self.path, self.labels_path)
            )
            return _examples(self._read(str(path), labels), str(path))
        table = _digits() if self.path is None else self._read(self.path, self.labels_path)
        every = _examples(table, self.path or "digits")
        _check_labels(self.labels, every)
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
                "labels": dict(sorted(Counter(str(e.target) for e in found).items())),
            }
        licence = self.licence or ("BSD-3-Clause" if self.path is None else "not stated")
        return {"source": self.path or "scikit-learn digits", "licence": licence, "shape": shape, **splits}

    def _read(self, path: str, labels_path: str | None) -> Table:
        file = Path(path).expanduser()
        if not file.is_file():
            raise DataError(path, "no such file", "Correct the path; it is taken relative to the current folder")
        if file.suffix == ".npz":
            return _read_npz(file, self.inputs_key, self.labels_key)
        if labels_path is None:
            raise DataError(path, "is no .npz, and nothing says where the labels are", "Give labels_path as well")
        return read_idx(file), read_idx(Path(labels_path).expanduser())


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


def _read_npz(path: Path, inputs_key: str, labels_key: str) -> Table:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            known = list(arrays)
            for key in (inputs_key, labels_key):
                if key not in known:
                    hint = did_you_mean(key, known)
                    problem = f"there is no array {key!r}; {hint}arrays: {', '.join(known) or 'none'}"
                    raise DataError(str(path), problem, "Set data.inputs_key and data.labels_key")
            return arrays[inputs_key], arrays[labels_key]
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise DataError(str(path), f"cannot be read as .npz without pickle: {error}", "Save plain arrays") from None


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
