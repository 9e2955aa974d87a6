"""Texts with a label each: rows of files or of a Hugging Face data set, or a folder of text files
for every class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.contracts.data import DataContext, Stream
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.cleaning.cleaning import text_digest
from groundup.data.reading.class_folders import SplitFolders, base_of, class_files, named_folders
from groundup.data.reading.compressed import DataFile, decode_lines, open_file
from groundup.data.reading.files import ROW_KINDS, Cells, Record, check_text, list_files
from groundup.data.reading.hub_splits import HubOrigin, label_column, text_column
from groundup.data.reading.location import Origin
from groundup.data.reading.source import Source, refuse_idle
from groundup.data.splitting.held_out import (
    SplitRule,
    draw_missing,
    keep_some,
    label_counts,
    leave_out_repeated,
    lengths_of,
    refuse_empty,
    refuse_unknown,
)
from groundup.data.stream.in_memory import open_indexed_stream

__all__ = ["LabelledText"]

_TEXT_KINDS = (".txt", ".md")
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
    without_class: int = 0
    folders_not_used: tuple[str, ...] = ()


@data("labelled_text")
class LabelledText(Source):
    """Texts to classify: .csv .tsv .jsonl .json .parquet, .txt with a separator, folders of texts,
    or a hub name.

    A folder that holds only .txt and .md files has a folder for each class, or folders of these
    for the splits. Texts that are the same are always on one side; with ``pair_column`` pairs whose
    first is.
    """

    for_files = ("header", "separator", "quotes")
    for_drawing = ("folds", "fold")

    text_column: str | int = setting(
        "text",
        "column of the text; its number from 1 without a header; of a data set found where none is"
        " so called",
    )
    pair_column: str | int | None = setting(
        None, "column of a second text, where the label is of two; null: there is one"
    )
    label_column: str | int = setting(
        "label",
        "column of the label; its number from 1 without a header; of a data set found where none is"
        " so called",
    )
    header: bool = setting(
        True, "the first row of .csv, .tsv and separated .txt files names the columns"
    )
    separator: str | None = setting(
        None,
        "character between cells; silent: a comma in .csv, a tab in .tsv",
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
        named = self._named_folders()
        if hub is not None:
            named = tuple(self._named_splits(hub))
        elif named is None:
            return Origin(self, self._kinds).splits
        return self.rule.splits(named)

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the texts of a split in the order of the files.

        Raises:
            DataError: If a file cannot be read, a column is missing, or a row has no text or label.
        """
        found = self._read_splits()
        if not found.splits[split]:
            raise refuse_empty(split, self.place, self.rule, found.named)
        return found.splits[split]

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return texts of each label in each split, their lengths, duplicates, what was left out,
        and the licence."""
        found = self._read_splits()
        every = [example for split in found.splits.values() for example in split]
        labels_of: dict[str, set[str]] = {}
        for example in every:
            labels_of.setdefault(_key_of(example), set()).add(str(example.target))
        card = dict(found.about)
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
            "without_class": found.without_class,
            "folders_not_used": list(found.folders_not_used),
            "set_aside": len(found.empty),
            "set_aside_empty": found.empty[:_SHOWN],
        }

    def _read_splits(self) -> _Texts:
        """Read everything, and put each text on its side."""
        found = _Texts()
        hub = HubOrigin.of(self)
        folders = self._has_class_folders()
        if folders:
            self._read_folders(found)
        elif hub is not None:
            self._read_hub(hub, found)
        else:
            self._read_files(found)
        # a text that is held out must not be learned, not even with another label
        found.same_as_held_out = leave_out_repeated(
            found.splits, lambda example: [_key_of(example)]
        )
        found.splits = draw_missing(
            found.splits,
            found.named,
            lambda example: [_group_of(example)],
            lambda example: example.target,
            self.rule,
        )
        # the classes of rows may be ratings to predict, of which a rare one is no mistake
        if folders:
            labels = {split: [e.target for e in own] for split, own in found.splits.items()}
            refuse_unknown(labels["train"], labels["validation"] + labels["test"], self.place)
        return found

    # ----------------------------------------------------------------------------------------- rows
    @property
    def _kinds(self) -> tuple[str, ...]:
        return ROW_KINDS if self.separator is None else (*ROW_KINDS, *_TEXT_KINDS)

    def _read_files(self, found: _Texts) -> None:
        origin = Origin(self, self._kinds)
        found.named = origin.held_out
        found.about = origin.about()
        text = str(self.text_column)
        label = str(self.label_column)
        cells = Cells(self.separator, self.header, self.quotes)
        for split in ("train", *found.named):
            records = origin.records(split, self._columns(text, label), cells=cells)
            found.splits[split] = list(self._to_examples(records, split, text, label, found))

    def _read_hub(self, hub: HubOrigin, found: _Texts) -> None:
        names = self._named_splits(hub)
        found.named = tuple(split for split in names if split != "train")
        text, label = self._hub_columns(hub)
        found.about = {"source": self.place, "licence": self.licence or "not stated"}
        found.about |= hub.version() | {"splits": names}
        if not self.streaming:
            found.about = hub.about(hub.tables(label))
        for split, name in names.items():
            records = hub.records(name, self._columns(text, label), self.limit)
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
                check_text(record.fields[name], record.origin, f"column {name!r}")
                for name in columns
            )
            target = _check_label(record.fields[label], record.origin, label)
            # left out and counted, not an error: exports of surveys are full of empty answers
            if not all(each.strip() for each in texts):
                found.empty.append(record.origin)
                continue
            inputs = texts if len(texts) > 1 else texts[0]
            yield Example(f"{split}/{record.name}", inputs, target, record.origin)

    # -------------------------------------------------------------------------------------- folders
    def _has_class_folders(self) -> bool:
        """Whether the path is a folder of .txt and .md files alone, and no separator makes rows of
        these."""
        if not isinstance(self.path, str) or self.separator is not None:
            return False
        root = Path(self.path).expanduser()
        if not root.is_dir():
            return False
        return all(
            file.kind in _TEXT_KINDS for file in list_files(root, (*ROW_KINDS, *_TEXT_KINDS))
        )

    def _named_folders(self) -> tuple[Split, ...] | None:
        """Return the splits that have a folder, or None where there are no folders of classes."""
        if not self._has_class_folders():
            return None
        return tuple(self._folders().folders)

    def _folders(self) -> SplitFolders:
        """Return the folder of each split."""
        idle = self.given("text_column", "pair_column", "label_column", "quotes")
        if idle:
            problem = f"has no effect: {self.path} has a folder of texts for each class"
            remedy = "Remove it, or name a file with columns"
            raise DataError(f"recipe.data.{idle[0]}", problem, remedy)
        return named_folders(self)

    def _read_folders(self, found: _Texts) -> None:
        root = Path(str(self.path)).expanduser()
        folders, found.folders_not_used = self._folders()
        found.named = tuple(split for split in folders if split != "train")
        found.about = {"source": self.place, "licence": self.licence or "not stated"}
        for split, folder in folders.items():
            found.splits[split] = self._read_texts(folder, base_of(folder, root), found)

    def _read_texts(self, folder: Path, root: Path, found: _Texts) -> list[Example]:
        files, loose = class_files(folder, _TEXT_KINDS, root)
        found.without_class += loose
        examples = []
        for path, name, label in keep_some(files, self.limit, self.seed):
            file = DataFile(path, name, path.suffix.lower(), "")
            with open_file(file) as handle:
                text = "".join(decode_lines(file, handle))
            if text.strip():
                examples.append(Example(name, text, label, str(path)))
            else:
                found.empty.append(str(path))
        return examples


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


def _check_label(value: Any, where: str, column: str) -> Any:
    # NaN differs from itself: what Parquet has where a number is missing
    if value is None or value == "" or isinstance(value, dict) or value != value:
        shown = repr(value)[:60] if value not in (None, "") else "nothing"
        problem = (
            f"column {column!r} holds {shown}; allowed: a label, as text or a number, or a list of"
            " them"
        )
        raise DataError(where, problem, "Correct the row, or name another column")
    return value
