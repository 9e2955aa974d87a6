"""Texts with a label each: rows of files or of a data set, or a folder of texts for each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.contracts.data import DataContext, Stream, Unlabelled
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.cleaning.cleaning import text_digest
from groundup.data.reading.class_folders import ClassFiles, contents_of, find_class_files
from groundup.data.reading.files import Cells, Record, check_label, find_unreadable, read_file
from groundup.data.reading.hub_splits import HubOrigin, label_column, text_column
from groundup.data.reading.listing import ROW_KINDS, TEXT_KINDS, leave_out, list_files
from groundup.data.reading.location import Origin
from groundup.data.reading.named_columns import find_columns, text_column_of
from groundup.data.reading.placement import Placement
from groundup.data.reading.source import Source, refuse_idle
from groundup.data.reading.unlabelled import read_rows, texts_in
from groundup.data.schemas.missing import stands_for_nothing, text_or_nothing
from groundup.data.splitting.drawing import SplitRule
from groundup.data.splitting.held_out import (
    draw_missing,
    label_counts,
    leave_out_repeated,
    lengths_of,
    refuse_empty,
    refuse_unknown,
)
from groundup.data.splitting.labels import doubtful_labels, groups_to_draw
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.media.table_values import as_category

__all__ = ["LabelledText"]

# empty texts that the card names
_SHOWN = 20


@dataclass
class _Texts:
    """The examples of each split, and what was left out."""

    splits: dict[Split, list[Example]] = field(default_factory=dict)
    named: tuple[Split, ...] = ()  # the splits that have texts of their own
    about: dict[str, Any] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    same_as_held_out: int = 0
    placement: Placement | None = None  # of rows


@data("labelled_text")
class LabelledText(Source):
    """Texts to classify: .csv .tsv .jsonl .json .parquet, .txt with a separator, folders of texts,
    or a hub name.

    A folder without rows, of texts, mails and web pages alone, has a folder for each class, or
    folders of these for the splits. Texts that are the same are always on one side; with
    ``pair_column`` pairs whose first is.
    """

    for_files = ("header", "separator", "quotes")
    for_drawing = ("folds", "fold")
    has_labels = True
    has_columns = True

    text_column: str | int = setting(
        "text",
        "column of the text; its number from 1 without a header; found by another common name"
        " where none is so called",
    )
    pair_column: str | int | None = setting(
        None, "column of a second text, where the label is of two; null: there is one"
    )
    label_column: str | int = setting(
        "label",
        "column of the label; its number from 1 without a header; found by another common name"
        " where none is so called",
    )
    header: bool = setting(
        True, "the first row of .csv, .tsv and separated .txt files names the columns"
    )
    separator: str | None = setting(
        None,
        "character between cells; silent: a comma in .csv, a tab in .tsv, or what the header makes"
        " certain",
        min_length=1,
        max_length=1,
    )
    quotes: bool = setting(
        True, "cells of .csv and .tsv may be quoted; false: a quote is a character like others"
    )
    folds: int | None = setting(
        None, "cut the texts into N folds, even in each label; one is held out", ge=2
    )
    fold: int = setting(0, "the fold that is held out, from 0", ge=0)

    def problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        columns: dict[str, str | int | None] = {
            "text_column": self.text_column,
            "pair_column": self.pair_column,
            "label_column": self.label_column,
        }
        names: dict[str | int, str] = {}
        for name, column in columns.items():
            if column is None:
                continue
            if isinstance(column, str) != self.header:
                allowed = {True: "true; allowed: a name", False: "false; allowed: a number, from 1"}
                found = f"{name} is {column!r}, but header is {allowed[self.header]}"
                return f"{found}. Correct one of them"
            if column in names:
                return f"{names[column]} and {name} are both {column!r}. Name two columns"
            names[column] = name
        return self.rule.problem(self.given("fraction", "fold"))

    @property
    def rule(self) -> SplitRule:
        """How texts are held out where none are named."""
        return super().rule._replace(folds=self.folds, fold=self.fold)

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        hub = HubOrigin.of(self)
        folders = self._find_folders()
        if hub is not None:
            return self.rule.splits(self._named_splits(hub))
        return self._origin().splits if folders is None else self.rule.splits(folders.named)

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the texts of a split in the order of the files.

        Raises:
            DataError: If a file cannot be read, a column is missing, or a row has no text or label.
        """
        found = self._read_splits()
        if not found.splits[split]:
            groups: set[str] = set()
            if self.group_column is None and split not in found.named:
                every = [each for own in found.splits.values() for each in own]
                groups = groups_to_draw(split, every, _group_of, self.place)
            raise refuse_empty(split, self.place, self.rule, found.named, groups, "text")
        return found.splits[split]

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        folders = self._find_folders()
        return self._origin().contents() if folders is None else contents_of(folders.files)

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield texts or pairs without labels; see ``DataSource.unlabelled``."""
        text = str(self.text_column)

        def to_inputs(row: Mapping[str, Any]) -> Any:
            *columns, _ = self._columns(text_column_of(row, text), "")
            return texts_in(row, columns)

        return read_rows(path, to_inputs, self.encoding, text=text, cells=self._cells)

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return labels and lengths of each split, duplicates, what was left out, the licence."""
        found = self._read_splits()
        every = [example for split in found.splits.values() for example in split]
        labels_of: dict[str, set[str]] = {}
        for example in every:
            labels_of.setdefault(_key_of(example), set()).add(as_category(example.target))
        card = dict(found.about)
        warnings = doubtful_labels(every if found.placement else ())  # folders say it themselves
        if count := len(found.empty):
            warnings.append(f"{count:,} rows without a text are left out, as {found.empty[0]}")
        if warnings:
            card["warnings"] = [*card.get("warnings", ()), *warnings]
        labels: dict[Split, set[str]] = {"train": set(), "validation": set(), "test": set()}
        for split in self.rule.splits(found.named):
            examples = found.splits[split]
            card[split] = label_counts(examples) | lengths_of(
                map(_length_of, examples), "characters"
            )
            labels[split] = set(card[split]["labels"])
        return card | {
            "same_text": len(every) - len(labels_of),
            "same_text_with_other_labels": sum(len(labels) > 1 for labels in labels_of.values()),
            "labels_only_in_validation": sorted(labels["validation"] - labels["train"]),
            "same_as_held_out": found.same_as_held_out,
            "set_aside": len(found.empty),
            "set_aside_empty": found.empty[:_SHOWN],
        }

    def _read_splits(self) -> _Texts:
        """Read everything, and put each text on its side."""
        found = _Texts()
        hub = HubOrigin.of(self)
        folders = self._find_folders()
        if folders is not None:
            self._read_folders(folders, found)
        elif hub is not None:
            self._read_hub(hub, found)
        else:
            self._read_files(found)
        # a text that is held out must not be learned, not even with another label
        placement = found.placement or Placement(self)

        def groups_of(example: Example) -> tuple[str, ...]:
            return (_group_of(example), *placement.keys(example.origin))

        found.same_as_held_out = leave_out_repeated(
            found.splits,
            lambda example: (_key_of(example), *placement.keys(example.origin)),
        )
        found.splits = draw_missing(
            found.splits,
            found.named,
            groups_of,
            lambda example: example.target,
            self.rule,
            lambda example: placement.time(example.origin),
        )
        # the classes of rows may be ratings to predict, of which a rare one is no mistake
        if folders is not None:
            labels = {split: [e.target for e in own] for split, own in found.splits.items()}
            refuse_unknown(labels["train"], labels["validation"] + labels["test"], self.place)
        return found

    # ----------------------------------------------------------------------------------------- rows
    @property
    def _kinds(self) -> tuple[str, ...]:
        return ROW_KINDS if self.separator is None else (*ROW_KINDS, *TEXT_KINDS)

    @property
    def _cells(self) -> Cells:
        return Cells(self.separator, self.header, self.quotes)

    def _origin(self) -> Origin:
        return Origin(self, self._kinds, self._file_columns()[1], self._cells)

    def _file_columns(self) -> tuple[str, str]:
        named = str(self.text_column), str(self.label_column)
        given = self.given("text_column", "label_column")
        return find_columns(self, self._kinds, self._cells, *named, given)

    def _read_files(self, found: _Texts) -> None:
        origin = self._origin()
        found.named = origin.held_out
        found.placement = origin.placement
        text, label = self._file_columns()
        for split in ("train", *found.named):
            records = origin.records(split, self._columns(text, label), cells=self._cells)
            found.splits[split] = list(self._to_examples(records, split, text, label, found))
        found.about = origin.about()

    def _read_hub(self, hub: HubOrigin, found: _Texts) -> None:
        names = self._named_splits(hub)
        found.named = tuple(split for split in names if split != "train")
        text, label = self._hub_columns(hub)
        found.placement = Placement(self)
        found.about = {"source": self.place, "licence": self.licence or "not stated"}
        found.about |= hub.version() | {"splits": names}
        if not self.streaming:
            found.about = hub.about(hub.tables(label))
        for split, name in names.items():
            columns = (*self._columns(text, label), *found.placement.columns)
            records = found.placement.watch(hub.records(name, columns, self.limit))
            found.splits[split] = list(self._to_examples(records, split, text, label, found))

    def _named_splits(self, hub: HubOrigin) -> dict[Split, str]:
        """Return which splits of the data set are read for which."""
        names = hub.names()
        if not self.streaming:
            names = {split: names[split] for split in hub.tables(self._hub_columns(hub)[1])}
        elif not self.names_test:
            # whether a test split that nobody named has labels would take reading all of it
            names.pop("test", None)
        # only now, because whether there are splits of its own is known only once it is opened
        refuse_idle(self, tuple(names), f"the split {names.get('validation')}")
        return names

    def _hub_columns(self, hub: HubOrigin) -> tuple[str, str]:
        """Return the columns of the text and of the label: those named, or those that are found."""
        text = str(self.text_column)
        label = str(self.label_column)
        if self.streaming:
            return text, label
        given = self.given("text_column", "label_column")
        train = hub.table(hub.train)
        if "text_column" not in given:
            text = text_column(train, None)
        if "label_column" not in given:
            label = label_column(train, None, text)
        return text_column(train, text), label_column(train, label)

    def _columns(self, text: str, label: str) -> tuple[str, ...]:
        if self.pair_column is None:
            return (text, label)
        return (text, str(self.pair_column), label)

    def _to_examples(
        self, records: Iterator[Record], split: Split, text: str, label: str, found: _Texts
    ) -> Iterator[Example]:
        """Yield the rows as examples; those without a text are noted."""
        *columns, _ = self._columns(text, label)
        for record in records:
            texts = tuple(
                text_or_nothing(record.fields[name], record.origin, f"column {name!r}")
                for name in columns
            )
            target = check_label(record.fields[label], record.origin, label)
            # left out and counted, not an error: exports of surveys are full of empty answers
            if not all(each.strip() and not stands_for_nothing(each) for each in texts):
                found.empty.append(record.origin)
                continue
            inputs = texts if len(texts) > 1 else texts[0]
            yield Example(f"{split}/{record.name}", inputs, target, record.origin)

    # -------------------------------------------------------------------------------------- folders
    def _find_folders(self) -> ClassFiles | None:
        """Return the files of every class, where the path is a folder of texts alone, of which no
        separator makes rows; else None."""
        if not isinstance(self.path, str) or self.separator is not None:
            return None
        if not Path(self.path).is_dir():
            return None
        kinds = (*ROW_KINDS, *TEXT_KINDS)
        listing = list_files(
            self.path, kinds, encoding=self.encoding, on_unreadable=self.on_unreadable
        )
        if any(file.kind in ROW_KINDS for file in listing.files):
            return None
        idle = self.given(
            "text_column",
            "pair_column",
            "label_column",
            "quotes",
            "group_column",
            "time_column",
        )
        if idle:
            raise DataError(
                f"recipe.data.{idle[0]}",
                f"has no effect: {self.path} has a folder of texts for each class",
                "Remove it, or name a file with columns",
            )
        return find_class_files(self, TEXT_KINDS, with_empty=False, listing=listing)

    def _read_folders(self, folders: ClassFiles, found: _Texts) -> None:
        found.named = folders.named
        met: Counter[str] = Counter()
        bad: list[str] = []
        for split, files in folders.files.items():
            found.splits[split] = []
            for _, _, label, file in files:
                assert file is not None
                if self.on_unreadable == "skip" and (problem := find_unreadable(file)):
                    bad.append(f"left out: {file.path}: {problem}")
                    continue
                records = list(read_file(file, columns=("text",), may_be_empty=True))
                for record in records:
                    text = record.fields["text"]
                    example = Example(record.name, text, label, record.origin)
                    if text.strip():
                        found.splits[split].append(example)
                    else:
                        found.empty.append(record.origin)
                if not records:
                    found.empty.append(str(file.path))
                met += file.notes
        folders.warnings += bad[:_SHOWN]
        found.about = folders.about(self)
        leave_out(found.about["files"], "unreadable", len(bad))
        if met:
            found.about["met_in_files"] = dict(sorted(met.items()))


def _texts_of(example: Example) -> tuple[str, ...]:
    return example.inputs if isinstance(example.inputs, tuple) else (example.inputs,)


def _key_of(example: Example) -> str:
    """Return a hash of the text, or the pair of texts, without white space at its ends."""
    return text_digest("\0".join(text.strip() for text in _texts_of(example)))


def _group_of(example: Example) -> str:
    """Return what must be on one side: a text, or all pairs with the same first text."""
    return text_digest(_texts_of(example)[0].strip())


def _length_of(example: Example) -> int:
    return sum(map(len, _texts_of(example)))
