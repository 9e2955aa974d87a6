"""Arrays with labels: .npz, idx (as MNIST comes), tables of pixels, and the digits that
scikit-learn carries."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.data import DataContext, Stream, Unlabelled
from groundup.core.errors import DataError, MissingExtraError, did_you_mean
from groundup.core.registry import data
from groundup.core.settings import PathText, setting
from groundup.core.values import Example, Split
from groundup.data.reading.idx import mnist_files, read_idx
from groundup.data.reading.listing import count_files, list_files
from groundup.data.reading.npz import array_names, read_arrays
from groundup.data.reading.source import Source, refuse_idle
from groundup.data.reading.unlabelled import read_files, read_npz
from groundup.data.splitting.drawing import SplitRule
from groundup.data.splitting.hash_split import split_of
from groundup.data.splitting.held_out import draw_missing, keep_some, warn_of_repeated
from groundup.data.splitting.split_names import SPELLINGS, divide_files
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.media.images import SUFFIXES
from groundup.media.table_values import as_category

__all__ = ["Arrays"]

# Share and key of scikit-learn's digits that are the test, whatever the validation split, so that
# figures of two recipes compare.
_TEST_SHARE = 1 / 6
_TEST_KEY = 1 << 40
_MOST_CLASSES = 100
# inputs; labels by target, "" where there is one target
Table = tuple[NDArray[Any], dict[str, NDArray[Any]]]
_Keys = tuple[tuple[str, str], ...]
# inputs, labels; in an .npz the names of the inputs and of each target's
_Files = tuple[str, str | None, str, _Keys]
# how file names of MNIST's layout begin
_PREFIXES: dict[Split, tuple[str, ...]] = SPELLINGS | {"test": ("t10k", *SPELLINGS["test"])}


@data("arrays")
class Arrays(Source):
    """Inputs of one shape with a label each: an .npz, idx files, or a folder of these, as MNIST
    comes.

    Without a path: the 1,797 real digits that scikit-learn carries. Arrays of an .npz that end in
    ``_train``, ``_val`` and ``_test`` are the splits.
    """

    reads_datasets = False
    reads_many_paths = False
    reads_texts = False
    has_built_in = True
    has_labels = True

    labels_path: PathText | None = setting(None, "the idx file of the labels")
    validation_labels_path: PathText | None = setting(None, "the idx file of those of validation")
    test_labels_path: PathText | None = setting(None, "the idx file of those of the test")
    inputs_key: str = setting(
        "x", "name of the inputs in an .npz; x_train and x_test are found by it too"
    )
    labels_key: str = setting("y", "name of the labels in an .npz")
    labels_keys: dict[str, str] = setting(
        {}, "for several targets, the .npz's array of each; NaN where one is missing"
    )
    labels: tuple[str | int, ...] = setting((), "keep only examples with these labels; silent: all")
    only_held_out: bool = setting(
        False, "take only what a run with the settings above holds out, to fine-tune on it"
    )
    final_fraction: float = setting(
        0.5,
        "share of them held out once more, unseen by both",
        gt=0,
        lt=1,
        applies_when={"only_held_out": (True,)},
    )

    def problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        needs = {
            "labels_path": "path",
            "labels_keys": "path",
            "validation": "path",
            "test": "path",
            "validation_labels_path": "validation",
            "test_labels_path": "test",
        }
        if self.given("on_unreadable"):
            return "on_unreadable has no effect: each split is one file. Remove it"
        given = self.given("path", *needs)
        for name, other in needs.items():
            if name in given and other not in given:
                return f"{name} has no effect without {other}. Give {other}, or remove it"
        if self.labels_keys and (self.labels_path or self.labels_key != "y"):
            other = self.given("labels_path", "labels_key")[0]
            return f"{other} has no effect with labels_keys. Remove one of them"
        return None

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        if self.path is None:
            return self.rule.splits(["test"])
        return self.rule.splits(self._files())

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the examples of a split in the order of the file.

        Raises:
            DataError: If a file cannot be read, inputs and labels do not fit, or one of ``labels``
                does not occur.
        """
        files = {str(path) for own in self._files().values() for path in own[:2] if path}
        # files that were written again are read again, within one process too
        stamps = tuple(Path(f).stat().st_mtime_ns for f in sorted(files) if Path(f).exists())
        return _splits_of(self.model_dump_json(), stamps)[split]

    def _read_splits(self) -> dict[Split, list[Example]]:
        found: dict[Split, list[Example]] = {}
        if self.path is None:
            for example in _to_examples(_read_digits(), "digits"):
                side = split_of(example.name, 0.0, _TEST_KEY, _TEST_SHARE)
                found.setdefault(side, []).append(example)
        for split, files in self._files().items():
            found[split] = _to_examples(self._read_table(files), files[0])
        named = tuple(split for split in found if split != "train")
        refuse_idle(self, named, "a file")
        _check_labels(self.labels, found["train"])
        kept = {as_category(label) for label in self.labels}
        for split, every in found.items():
            wanted = [
                example for example in every if not kept or as_category(example.target) in kept
            ]
            found[split] = keep_some(wanted, self.limit, self.seed)
        sides = _draw_splits(found, named, "", self.rule)
        if not self.only_held_out:
            return sides
        rule = SplitRule(self.final_fraction, self.seed)
        # "again", so that the second draw is not the first one over
        held_out: dict[Split, list[Example]] = {
            "train": sides["validation"],
            "test": sides["test"],
        }
        return _draw_splits(held_out, ["test"], "again ", rule)

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        files = {(s, p) for s, own in self._files().items() for p in own[:2] if p is not None}
        found = {f"{s}/{Path(path).name}": Path(path) for s, path in sorted(files)}
        return found or {"digits": "1,797 of scikit-learn"}

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield the inputs of an .npz, or pictures; see ``DataSource.unlabelled``."""
        is_npz = path.endswith(".npz")
        return read_npz(path, self.inputs_key) if is_npz else read_files(path, SUFFIXES)

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many examples there are of each class in each split, their shape, and the
        licence."""
        sides = {split: self.examples(split, cache) for split in self.splits()}
        card: dict[str, Any] = {
            "source": self.path or "scikit-learn digits",
            "licence": self.licence or "not stated",
        }
        if self.path is None and not self.licence:
            card["licence"] = "BSD-3-Clause"
        card |= self._describe_files()
        card["shape"] = next((list(np.shape(own[0].inputs)) for own in sides.values() if own), [])
        rows = {s: (np.asarray(e.inputs).tobytes() for e in own) for s, own in sides.items()}
        if warnings := warn_of_repeated(rows, "inputs"):
            card["warnings"] = warnings
        for split, found in sides.items():
            labels = _count_labels([example.target for example in found])
            card[split] = {"examples": len(found), "labels": labels}
        return card

    def _describe_files(self) -> dict[str, Any]:
        """Return what the card says of files and arrays that are there and not read."""
        about: dict[str, Any] = {}
        files = self._files().values()
        if self.path is not None and Path(self.place).is_dir():
            used = {Path(path) for own in files for path in own[:2] if path is not None}
            about["files"] = count_files(Path(self.place), used)
        read: dict[str, set[str]] = {}
        for path, _, inputs_key, keys in files:
            own_keys = {inputs_key, *dict(keys).values()}
            read.setdefault(path, set()).update(own_keys, (f"{key}_train" for key in own_keys))
        not_used = [
            name
            for path, own_keys in read.items()
            if path.endswith(".npz")
            for name in array_names(Path(path))
            if name not in own_keys
        ]
        return about | ({"arrays_not_used": not_used} if not_used else {})

    @property
    def _keys(self) -> _Keys:
        return tuple(self.labels_keys.items()) or (("", self.labels_key),)

    def _files(self) -> dict[Split, _Files]:
        """Return the files of each split that has some; none of scikit-learn's digits."""
        if self.path is None:
            return {}
        place = Path(self.place)
        found: dict[Split, _Files] = {"train": self._files_named(self.place, self.labels_path)}
        if place.is_dir():
            found = self._files_of_folder(place)
        elif place.suffix == ".npz" and place.is_file():
            found |= self._held_out_arrays(place)
        if isinstance(self.validation, str):
            found["validation"] = self._files_named(self.validation, self.validation_labels_path)
        if isinstance(self.test, str):
            found["test"] = self._files_named(self.test, self.test_labels_path)
        return found

    def _files_named(self, path: str, labels: str | None) -> _Files:
        return path, labels, self.inputs_key, self._keys

    def _files_of_folder(self, folder: Path) -> dict[Split, _Files]:
        found: dict[Split, _Files] = {}
        if not any(folder.rglob("*.npz")):
            # MNIST's layout has no validation files of its own, but people add some
            found = {"train": (*mnist_files(folder, *_PREFIXES["train"]), "", ())}
            if any(any(folder.glob(f"{word}*images*")) for word in _PREFIXES["validation"]):
                found["validation"] = (*mnist_files(folder, *_PREFIXES["validation"]), "", ())
            return found | {"test": (*mnist_files(folder, *_PREFIXES["test"]), "", ())}
        for split, files in divide_files(list_files(folder, (".npz",)).files).items():
            if len(files) > 1:
                names = ", ".join(file.relative for file in files[:6])
                problem = f"holds several .npz for {split}: {names}; allowed: one a split"
                raise DataError(str(folder), problem, "Name one as data.path")
            for file in files:
                found[split] = self._files_named(str(file.path), None)
        return found

    def _held_out_arrays(self, file: Path) -> dict[Split, _Files]:
        """Return the arrays of an .npz whose names end like a split."""
        there = set(array_names(file))
        found: dict[Split, _Files] = {}
        for split in ("validation", "test"):
            for word in SPELLINGS[split]:
                inputs_key = f"{self.inputs_key}_{word}"
                keys = tuple((name, f"{key}_{word}") for name, key in self._keys)
                if split not in found and {inputs_key, *dict(keys).values()} <= there:
                    found[split] = str(file), None, inputs_key, keys
        return found

    def _read_table(self, files: _Files) -> Table:
        path, labels_path, inputs_key, keys = files
        file = Path(path)
        if not file.is_file():
            raise DataError(
                path, "no such file", "Correct the path; it is taken relative to the current folder"
            )
        stamp = file.stat().st_mtime_ns
        if file.suffix == ".npz":
            known = array_names(file)
            if inputs_key not in known and f"{inputs_key}_train" in known:
                # as Keras saves MNIST: x_train, y_train, x_test, y_test
                inputs_key += "_train"
                keys = tuple((name, f"{key}_train") for name, key in keys)
            return _read_npz(file, inputs_key, keys, stamp)
        # idx files and MNIST's layout have one label an input
        if self.labels_keys:
            raise DataError(
                path,
                "is no .npz, whose arrays data.labels_keys names",
                "Save the targets in one .npz",
            )
        if labels_path is None:
            raise DataError(
                path,
                "is no .npz, and nothing says where the labels are",
                "Give labels_path as well",
            )
        return _read_pair(file, Path(labels_path), stamp)


@lru_cache(maxsize=4)
def _splits_of(settings: str, stamps: tuple[int, ...]) -> dict[Split, list[Example]]:
    """Return the splits' examples, made once for the same settings and files: a start asks for them
    several times."""
    return Arrays.model_validate_json(settings)._read_splits()


def _draw_splits(
    found: dict[Split, list[Example]], named: Sequence[Split], salt: str, rule: SplitRule
) -> dict[Split, list[Example]]:
    return draw_missing(
        found,
        named,
        lambda example: [f"{salt}{example.name}"],
        lambda example: example.target,
        rule,
    )


@lru_cache(maxsize=4)
def _read_pair(path: Path, labels: Path, stamp: int) -> Table:
    return read_idx(path), {"": read_idx(labels)}


@lru_cache(maxsize=4)
def _read_npz(path: Path, inputs_key: str, keys: _Keys, stamp: int) -> Table:
    found = read_arrays(
        path, [inputs_key, *dict(keys).values()], "Set data.inputs_key and data.labels_key"
    )
    return found[0], dict(zip(dict(keys), found[1:], strict=True))


@lru_cache(maxsize=1)
def _read_digits() -> Table:
    """Return the 1,797 handwritten digits of 8 x 8 pixels, 0 to 16, from scikit-learn's own
    file."""
    # its file is read, but it is not imported: that would take a second
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise MissingExtraError("scikit-learn", "classic")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(path, delimiter=",", dtype=np.float32)
    return rows[:, :-1].reshape(-1, 8, 8), {"": rows[:, -1].astype(np.int64)}


def _check_labels(wanted: tuple[str | int, ...], examples: list[Example]) -> None:
    known = sorted({as_category(example.target) for example in examples})
    for label in map(as_category, wanted):
        if label not in known:
            problem = (
                f"label {label!r} does not occur; {did_you_mean(label, known)}known:"
                f" {', '.join(known[:12])}"
            )
            raise DataError("recipe.data.labels", problem, "Correct it")


def _to_examples(table: Table, where: str) -> list[Example]:
    inputs, labels = table
    _refuse_inputs(inputs, where)
    for each in labels.values():
        if not each.ndim or len(inputs) != len(each) or each.ndim != 1:
            problem = (
                f"{len(inputs)} inputs and labels of shape {each.shape}; allowed: one label an"
                " input"
            )
            raise DataError(where, problem, "Check that both files belong together")
    if not len(inputs):
        raise DataError(where, "there are no examples", "Give a file with something in it")
    columns = {name: each.tolist() for name, each in labels.items()}
    targets = columns.get("") or [
        dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
    ]
    return [
        Example(f"{number}", row, target, f"{where} row {number}")
        for number, (row, target) in enumerate(zip(inputs, targets, strict=True), 1)
    ]


def _refuse_inputs(inputs: NDArray[Any], where: str) -> None:
    """Raise an error for inputs that are neither texts nor finite numbers, or have no size."""
    # texts, which a tokenizer reads
    if inputs.ndim == 1 and inputs.dtype.kind == "U":
        return
    if inputs.ndim < 2 or inputs.dtype.kind not in "biuf" or 0 in inputs.shape[1:]:
        found = f"the inputs have shape {inputs.shape} and type {inputs.dtype}"
        problem = f"{found}; allowed: numbers, one row an input, or one text an input"
        raise DataError(where, problem, "Save them so, or name another array with data.inputs_key")
    if inputs.dtype.kind != "f":
        return
    # one at a time: a mask of all would take a quarter of their memory again
    for number, row in enumerate(inputs, 1):
        if not np.isfinite(row).all():
            at = tuple(int(place) for place in np.argwhere(~np.isfinite(row))[0])
            problem = f"the number at {list(at)}, counted from 0, is {row[at]}; allowed: finite"
            raise DataError(f"{where} row {number}", problem, "Correct the example, or remove it")


def _count_labels(targets: Sequence[Any]) -> dict[str, Any]:
    """Return how often each label occurs, or how many different ones there are; by target where
    there are several."""
    if targets and isinstance(targets[0], dict):
        return {name: _count_labels([target[name] for target in targets]) for name in targets[0]}
    found = Counter(map(as_category, targets))
    # a regression's targets, of which a list says nothing
    if targets and isinstance(targets[0], float) and len(found) > _MOST_CLASSES:
        return {"different numbers": len(found)}
    return dict(sorted(found.items()))
