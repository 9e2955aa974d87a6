"""Pictures with a label each: a folder for every class, or a Hugging Face data set.

``CLASS/*.png``, or such folders in ``train``, ``validation`` (or ``val``) and ``test``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from groundup.contracts.data import DataContext, Stream
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.reading.class_folders import ClassFile, base_of, class_files, named_folders
from groundup.data.reading.hub_splits import HubOrigin
from groundup.data.reading.source import Source, refuse_idle
from groundup.data.splitting.held_out import draw_missing, keep_some, label_counts, refuse_lost
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.media.images import SUFFIXES, examine

__all__ = ["Images"]

_KINDS = tuple(sorted(SUFFIXES))
_FITS = 1 << 30  # bytes of tensors of one split that are kept in memory
_MOST_NUMBERS = 100  # different numbers that the data card counts one by one
_NAMED = 20  # pictures left out that the data card names
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _ImageFiles:
    """The pictures named for each split; ``key`` changes when one of them does."""

    files: dict[Split, list[ClassFile]]
    key: bytes
    about: dict[str, Any]


@dataclass(frozen=True)
class _ImageFacts:
    """What looking at every picture found; kept in the cache."""

    problems: dict[str, str]  # by name
    sizes: dict[str, int]  # how many pictures have "H x W format"


@data("images")
class Images(Source):
    """Pictures in folders named like their classes, or in a data set's rows, decoded when they are
    needed."""

    reads_in_order = False
    reads_many_paths = False
    for_datasets = ("image_column", "label_column")

    image_column: str | None = setting(None, "column of the pictures; silent: found by its type")
    label_column: str | None = setting(
        None, "column of the labels; silent: label, or the one of classes"
    )
    in_memory: Literal["auto", True, False] = setting(
        "auto",
        "decode all pictures at the start and keep them, or each when needed; auto: keep them up to"
        " 1 GiB",
    )
    on_unreadable: Literal["stop", "skip"] = setting(
        "stop", "damaged pictures: an error, or left out and counted"
    )

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        hub = HubOrigin.of(self)
        if hub is not None:
            return self.rule.splits(hub.tables(self.label_column))
        return self.rule.splits(named_folders(self).folders)

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the pictures of a split, sorted by name, or in the order of the rows: their files
        and labels.

        Raises:
            DataError: If there is nothing to learn from, or a picture is unreadable and
                ``on_unreadable: stop``.
            RecipeError: If a setting of the split is given and a folder or a split is held out.
        """
        return self._read_splits(cache)[0][split]

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split."""
        splits, facts, _ = self._read_splits(context.cache)
        if facts.problems and context.split == "train":
            named = ", ".join(sorted(facts.problems)[:_NAMED])
            _log.warning(
                f"{self.place}: {len(facts.problems):,} unreadable pictures are left out: {named}"
            )
        found = splits[context.split]
        keep = self.in_memory
        if keep == "auto":
            # of one picture encoded: files say nothing of how large a resized one is
            one = context.encode(found[:1])
            keep = len(found) * sum(values.nbytes for values in one.values()) <= _FITS
        return open_indexed_stream(found, context, in_memory=keep)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many pictures there are of each class in each split, their sizes, and which
        were left out."""
        splits, facts, about = self._read_splits(cache)
        sizes = sorted(facts.sizes.items(), key=lambda item: (-item[1], item[0]))
        card = dict(about)
        card["sizes"] = dict(sizes[:5])
        if len(sizes) > 5:
            card["sizes"]["others"] = sum(count for _, count in sizes[5:])
        for split, found in splits.items():
            card[split] = _count_labels(found)
        named = dict(sorted(facts.problems.items())[:_NAMED])
        return card | {"set_aside": {"pictures": len(facts.problems), **named}}

    def _read_splits(
        self, cache: Path
    ) -> tuple[dict[Split, list[Example]], _ImageFacts, dict[str, Any]]:
        """Return the splits, what looking at the pictures found, and what the card says of them."""
        found = self._find_files()
        every = [file for files in found.files.values() for file in files]
        facts = _read_facts(every, cache, found.key)
        if facts.problems and self.on_unreadable == "stop":
            first = next(file for file in every if file.name in facts.problems)
            problem = facts.problems[first.name]
            if len(facts.problems) > 1:
                problem += f" ({len(facts.problems) - 1:,} other pictures too)"
            remedy = "Replace or remove it, or set data.on_unreadable: skip to leave such out"
            raise DataError(str(first.path), problem, remedy)
        examples = {
            split: [
                Example(file.name, file.path, file.label, str(file.path))
                for file in files
                if file.name not in facts.problems
            ]
            for split, files in found.files.items()
        }
        # a class that is lost to damage must not go unnoticed; without any picture another error
        # says so
        kept = [example.target for own in examples.values() for example in own]
        if kept:
            refuse_lost([file.label for file in every], kept, self.place)
        named = [split for split in found.files if split != "train"]
        drawn = draw_missing(
            examples,
            named,
            lambda example: [example.name],
            lambda example: example.target,
            self.rule,
        )
        splits = {split: drawn[split] for split in self.rule.splits(named)}
        _check_labels(self.place, splits)
        return splits, facts, found.about

    def _find_files(self) -> _ImageFiles:
        hub = HubOrigin.of(self)
        files: dict[Split, list[ClassFile]] = {}
        if hub is not None:
            rows = hub.files("image", self.image_column, self.label_column)
            for stored, name, label, split in rows:
                files.setdefault(split, []).append(ClassFile(stored, name, label))
            files = {split: own[: self.limit] for split, own in files.items()}
            refuse_idle(self, tuple(files), "a split")
            tables = hub.tables(self.label_column)
            key = "".join(table.key for table in tables.values())
            return _ImageFiles(files, key.encode(), hub.about(tables))
        root = Path(str(self.path)).expanduser()
        key_of_files = hashlib.sha256()
        for split, folder in named_folders(self).folders.items():
            own, _ = class_files(folder, _KINDS, base_of(folder, root))
            files[split] = keep_some(own, self.limit, self.seed)
            for file in files[split]:
                state = file.path.stat()
                key_of_files.update(f"{state.st_size}\0{state.st_mtime_ns}\n".encode())
        about = {"source": self.path, "licence": self.licence or "not stated"}
        return _ImageFiles(files, key_of_files.digest(), about)


def _check_labels(where: str, splits: dict[Split, list[Example]]) -> None:
    """Raise an error for a split that nothing can be learned or evaluated from; numbers may be what
    is predicted."""
    # numbers, which may be predicted too, are no classes and need not repeat
    trained = _labels_in(splits["train"])
    words = all(isinstance(example.target, str | list) for example in splits["train"])
    for split, found in splits.items():
        if words and (unknown := sorted(_labels_in(found) - trained)):
            problem = f"class {unknown[0]!r} is only in the {split} split: it could not be learned"
            raise DataError(
                where,
                problem,
                "Add pictures of it to training, or remove it; check how it is spelt",
            )
    if len(trained) < 2:
        problem = "no picture can be read"
        if trained:
            problem = f"every readable training picture has the class {min(trained)!r}"
        raise DataError(
            where,
            f"{problem}; a classifier needs two classes or more",
            "Add pictures of other classes",
        )
    for split, found in splits.items():
        if not found:
            problem = f"of {len(splits['train'])} pictures none is in the {split} split"
            raise DataError(where, problem, "Add pictures, or raise data.fraction")


def _count_labels(examples: Sequence[Example]) -> dict[str, Any]:
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
def _read_facts(files: Sequence[ClassFile], cache: Path, key: bytes) -> _ImageFacts:
    """Return what is wrong with which pictures, looking at them only if one has changed since the
    last time."""
    digest = hashlib.sha256(
        b"".join(f"{file.name}\n".encode("utf-8", "replace") for file in files) + key
    )
    path = cache / "images" / f"{digest.hexdigest()[:24]}.json"
    if path.is_file():
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            return _ImageFacts(saved["problems"], saved["sizes"])
        except (ValueError, KeyError, TypeError):
            pass  # a file that was cut off: look again
    found = _examine_all(files)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(
        json.dumps({"problems": found.problems, "sizes": found.sizes}), encoding="utf-8"
    )
    unfinished.replace(path)
    return found


def _examine_all(files: Sequence[ClassFile]) -> _ImageFacts:
    problems: dict[str, str] = {}
    sizes: Counter[str] = Counter()
    # threads are enough: decoding lets other threads run
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        looks: Iterable[Any] = threads.map(examine, [file.path for file in files])
        for number, (file, (problem, size)) in enumerate(zip(files, looks, strict=True), 1):
            if problem is not None:
                problems[file.name] = problem
            else:
                sizes[size] += 1
            # decoding a million pictures takes minutes: silence would look like a hang
            if number % 20_000 == 0:
                _log.info(f"looked at {number:,} of {len(files):,} pictures")
    return _ImageFacts(problems, dict(sizes))
