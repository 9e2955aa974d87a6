"""Pictures with a label each: a folder for every class, or a Hugging Face data set.

``CLASS/*.png``, or such folders in ``train``, ``validation`` (or ``val``) and ``test``; or a table
``metadata.csv`` of ``file_name`` and ``label`` next to the pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from groundup.contracts.data import DataContext, Stream, Unlabelled
from groundup.core.errors import DataError, RecipeError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.reading.class_folders import (
    ClassFile,
    ClassFiles,
    contents_of,
    find_class_files,
    group_in_name,
    problem_with_pattern,
)
from groundup.data.reading.hub_splits import HubOrigin
from groundup.data.reading.label_table import read_label_table, tables_of_labels
from groundup.data.reading.listing import leave_out
from groundup.data.reading.picture_facts import MANY, Check, PictureFacts, read_picture_facts
from groundup.data.reading.source import Source, refuse_idle
from groundup.data.reading.unlabelled import read_files
from groundup.data.reading.unreadable import refuse_unreadable, warn_of_unreadable
from groundup.data.splitting.held_out import (
    draw_missing,
    label_counts,
    leave_out_repeated,
    refuse_empty,
    refuse_lost,
    warn_of_other_labels,
)
from groundup.data.stream.in_memory import open_in_memory_if_small
from groundup.media.images import SUFFIXES

__all__ = ["Images"]

_KINDS = tuple(sorted(SUFFIXES))
_MOST_NUMBERS = 100  # different numbers that the data card counts one by one
_NAMED = 20  # pictures left out that the data card names


@dataclass(frozen=True)
class _ImageFiles:
    """The pictures named for each split; ``key`` changes when one of them does."""

    files: dict[Split, list[ClassFile]]
    key: bytes
    about: dict[str, Any]


@data("images")
class Images(Source):
    """Pictures in folders named like their classes, or in a data set's rows, decoded when they are
    needed.

    Pictures of the same bytes are on one side: what is held out by name is left out of training.
    """

    reads_in_order = False
    reads_many_paths = False
    has_labels = True
    for_files = ("group",)
    reads_texts = False
    for_datasets = ("image_column",)
    for_drawing = ("group",)

    image_column: str | None = setting(None, "column of the pictures; silent: found by its type")
    label_column: str | None = setting(
        None,
        "column of the labels, of a data set or of metadata.csv; silent: label, or the one of"
        " classes",
    )
    group: str | None = setting(
        None,
        "regular expression searched in a file's path below the root; files for which its first"
        " group, or the whole match, is the same, such as a patient's, are on one side",
        min_length=1,
    )
    check: Check = setting(
        "auto",
        "what is looked at before training: each picture decoded, or its header and the end of its"
        " file; auto: decoded up to 50,000 pictures",
    )
    in_memory: Literal["auto", True, False] = setting(
        "auto",
        "decode all pictures at the start and keep them, or each when needed; auto: keep them up to"
        " 1 GiB",
    )

    def problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        return problem_with_pattern(self.group)

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        hub = HubOrigin.of(self)
        if hub is not None:
            return self.rule.splits(hub.tables(self.label_column))
        return self.rule.splits(self._find_labelled().named)

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the pictures of a split, sorted by name, or in the order of the rows: their files
        and labels.

        Raises:
            DataError: If there is nothing to learn from, or a picture is unreadable and
                ``on_unreadable: stop``.
            RecipeError: If a setting of the split is given and a folder or a split is held out.
        """
        return self._read_splits(cache)[0][split]

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        hub = HubOrigin.of(self)
        if hub is not None:
            return hub.contents()
        return contents_of(self._find_files().files) | tables_of_labels(Path(self.place))

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield the pictures of a folder, or of the rows of a file; see
        ``DataSource.unlabelled``."""
        return read_files(path, _KINDS, self.image_column)

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split."""
        splits, facts, _ = self._read_splits(context.cache)
        if context.split == "train":
            warn_of_unreadable(self.place, facts.problems, "pictures")
        return open_in_memory_if_small(splits[context.split], context, self.in_memory)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many pictures there are of each class in each split, their sizes, and which
        were left out."""
        splits, facts, about = self._read_splits(cache)
        card = dict(about)
        card["sizes"] = facts.describe_sizes()
        pictures = sum(facts.sizes.values()) + len(facts.problems)
        if self.check == "headers" or (self.check == "auto" and pictures > MANY):
            card["looked_at"] = "headers and the ends of files: damage between is met in training"
        for split, found in splits.items():
            card[split] = _count_labels(found)
        if "files" in card:
            left = card["files"]["read"] - len(facts.problems)
            leave_out(card["files"], "unreadable", len(facts.problems))
            leave_out(card["files"], "held out as well", left - sum(map(len, splits.values())))
        labels = {e.name: e.target for own in splits.values() for e in own}
        if warning := warn_of_other_labels(facts.digests, labels, "pictures"):
            card["warnings"] = [*card.get("warnings", ()), warning]
        named = dict(sorted(facts.problems.items())[:_NAMED])
        return card | {"set_aside": {"pictures": len(facts.problems), **named}}

    def _read_splits(
        self, cache: Path
    ) -> tuple[dict[Split, list[Example]], PictureFacts, dict[str, Any]]:
        """Return the splits, what looking at the pictures found, and what the card says of them."""
        found = self._find_files()
        every = [file for files in found.files.values() for file in files]
        names = [file.name for file in every]
        facts = read_picture_facts(
            names, [file.path for file in every], found.key, cache, check=self.check
        )
        problems = facts.problems
        bad = [(str(file.path), problems[file.name]) for file in every if file.name in problems]
        refuse_unreadable(bad, "pictures", self.on_unreadable)
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
        leave_out_repeated(
            examples, lambda example: [facts.digests.get(example.name, example.name)]
        )
        if kept and not examples["train"]:
            raise refuse_empty("train", self.place, self.rule, named)
        drawn = draw_missing(
            examples,
            named,
            lambda example: self._keys_of(example, facts),
            lambda example: example.target,
            self.rule,
        )
        splits = {split: drawn[split] for split in self.rule.splits(named)}
        _check_labels(self.place, splits)
        return splits, facts, found.about

    def _keys_of(self, example: Example, facts: PictureFacts) -> tuple[str, ...]:
        key = example.name
        if self.group is not None:
            key = group_in_name(self.group, example.name, example.origin)
        # By its name alone where there is no copy: so the draw is that of before copies were known.
        copies = facts.digests.get(example.name)
        return (key,) if copies is None else (key, copies)

    def _find_labelled(self) -> ClassFiles:
        labels = partial(read_label_table, label_column=self.label_column or "label")
        found = find_class_files(self, _KINDS, read_labels=labels)
        if self.label_column is not None and not found.tabled:
            problem = f"label_column has no effect: there is no metadata.csv in {self.place}"
            raise RecipeError("recipe.data", problem, "Remove label_column, or add the file")
        return found

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
        found = self._find_labelled()
        key_of_files = hashlib.sha256()
        for file in (file for own in found.files.values() for file in own):
            state = file.path.stat()
            key_of_files.update(f"{state.st_size}\0{state.st_mtime_ns}\n".encode())
        return _ImageFiles(found.files, key_of_files.digest(), found.about(self))


def _check_labels(where: str, splits: dict[Split, list[Example]]) -> None:
    """Raise an error for a split that nothing can be learned or evaluated from; numbers may be what
    is predicted."""
    # numbers, which may be predicted too, are no classes and need not repeat
    trained = _labels_in(splits["train"])
    words = all(isinstance(example.target, str | list) for example in splits["train"])
    for split, found in splits.items():
        if words and (unknown := sorted(_labels_in(found) - trained)):
            raise DataError(
                where,
                f"class {unknown[0]!r} is only in the {split} split: it could not be learned",
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
            raise DataError(
                where,
                f"of {len(splits['train'])} pictures none is in the {split} split",
                "Add pictures, or raise data.fraction",
            )


def _count_labels(examples: Sequence[Example]) -> dict[str, Any]:
    """Return how many examples there are of each label, or how many different numbers where there
    are very many."""
    found = label_counts(examples)
    labels = found.get("labels", {})
    if len(labels) <= _MOST_NUMBERS or isinstance(examples[0].target, str | list):
        return found
    return {"examples": len(examples), "different numbers": len(labels)}


def _labels_in(examples: Sequence[Example]) -> set[str]:
    targets = [e.target if isinstance(e.target, list) else [e.target] for e in examples]
    return {str(label) for labels in targets for label in labels}
