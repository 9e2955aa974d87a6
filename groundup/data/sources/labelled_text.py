"""Texts with a label each: rows of files or of a Hugging Face data set, or a folder of text files
for every class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import model_validator

from groundup.core.contracts.data import DataContext, DataSource, Stream
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.cleaning.cleaning import text_digest
from groundup.data.reading.class_folders import class_files, split_folders
from groundup.data.reading.compressed import DataFile, decoded_lines, opened
from groundup.data.reading.files import ROW_KINDS, Cells, checked_text, list_files
from groundup.data.reading.hub_splits import (
    HubOrigin,
    label_column,
    problem_with_dataset,
    refuse_idle,
    text_column,
)
from groundup.data.reading.location import Origin, changed, problem_with_origin
from groundup.data.splitting.held_out import (
    Drawing,
    draw,
    label_counts,
    lengths_of,
    problem_with_drawing,
    refuse_empty,
    refuse_unknown,
)
from groundup.data.stream.in_memory import open_indexed_stream

__all__ = ["LabelledText"]

_TEXT_KINDS = (".txt", ".md")
_SHOWN = 20


@dataclass
class _Placed:
    """The examples of each split, and what was left out."""

    train: list[Example] = field(default_factory=list)
    validation: list[Example] = field(default_factory=list)
    test: list[Example] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    same_as_validation: int = 0  # or as a text of the test split
    without_class: int = 0
    folders_not_used: tuple[str, ...] = ()
    named: bool = False  # the held-out texts are, by a path, a split or a folder


@data("labelled_text")
class LabelledText(DataSource):
    """Texts to classify: .csv .tsv .jsonl .json .parquet, .txt with a separator, folders of texts,
    or a hub name.

    A folder that holds only .txt and .md files has a folder for each class; folders ``train`` and
    ``validation`` (or valid, val, dev, test) below it are the splits; of a data set those called
    validation and test are what they are called. Texts that are the same are always on one side;
    with ``pair_column`` pairs whose first is.
    """

    path: str | list[str] | None = setting(
        None, "File or folder, or a list of them, relative to the current folder"
    )
    dataset: str | None = setting(
        None, "Hugging Face data set, such as stanfordnlp/imdb, instead of path"
    )
    subset: str | None = setting(None, "Configuration of the data set")
    dataset_split: str = setting("train", "Split of the data set that is read")
    revision: str | None = setting(None, "Branch, tag or commit of the data set")
    streaming: bool = setting(False, "Read the data set over the network without keeping it")
    text_column: str | int = setting(
        "text",
        "Column of the text; its number from 1 without a header; of a data set found where none is"
        " so called",
    )
    pair_column: str | int | None = setting(
        None, "Column of a second text, where the label is of two; null: there is one"
    )
    label_column: str | int = setting(
        "label",
        "Column of the label; its number from 1 without a header; of a data set found where none is"
        " so called",
    )
    header: bool = setting(
        True, "The first row of .csv, .tsv and separated .txt files names the columns"
    )
    separator: str | None = setting(
        None,
        "Character between cells; silent: a comma in .csv, a tab in .tsv",
        min_length=1,
        max_length=1,
    )
    quotes: bool = setting(
        True, "Cells of .csv and .tsv may be quoted; false: a quote is a character like others"
    )
    validation_path: str | list[str] | None = setting(
        None, "Files held out as they are, instead of a fraction"
    )
    validation_split: str | None = setting(
        None, "Split of the data set held out; silent: its own, or a share"
    )
    test_split: str | None = setting(
        None, "Split that is only judged; silent: the one called test, if it has labels"
    )
    validation_fraction: float = setting(0.1, "Share of the texts held out", gt=0, lt=1)
    folds: int | None = setting(
        None, "Cut the texts into so many folds, even in each label; one is held out", ge=2
    )
    fold: int = setting(0, "The fold that is held out, from 0", ge=0)
    split_seed: int = setting(0, "Another seed holds out other texts", ge=0)
    licence: str = setting("", "Licence of the texts, for the data card")

    @model_validator(mode="after")
    def _consistent(self) -> LabelledText:
        cells = changed(self, "header", "separator", "quotes")
        problem = problem_with_origin(Origin.of(self), cells, [])
        if problem is None and self.dataset is None and self.test_split is not None:
            problem = "test_split has no effect with path; it applies to dataset. Remove test_split"
        if problem is None and self.dataset is not None:
            problem = problem_with_dataset(self, (), ())
        named = next(
            (name for name in ("validation_path", "validation_split") if getattr(self, name)), None
        )
        problem = problem or problem_with_drawing(self._drawing(), self._drawn(), named)
        for name in ("text_column", "pair_column", "label_column"):
            column = getattr(self, name)
            if problem is None and column is not None and isinstance(column, str) != self.header:
                allowed = "a name" if self.header else "a number, from 1"
                problem = (
                    f"{name} is {column!r}, and header is {str(self.header).lower()}; allowed:"
                    f" {allowed}. Correct"
                )
                problem += " one of them"
        for one, other in (("text", "label"), ("text", "pair"), ("pair", "label")):
            column = getattr(self, f"{one}_column")
            if (
                problem is None
                and column is not None
                and column == getattr(self, f"{other}_column")
            ):
                problem = f"{one}_column and {other}_column are both {column!r}. Name two columns"
        if problem:
            raise ValueError(problem)
        return self

    def _drawn(self) -> list[str]:
        return changed(self, "validation_fraction", "folds", "fold", "split_seed")

    def _drawing(self) -> Drawing:
        return Drawing(self.validation_fraction, self.split_seed, self.folds, self.fold)

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are: a test split where the data set has one of its own."""
        return (
            ("train", "validation", "test") if "test" in self._named() else ("train", "validation")
        )

    def _named(self) -> dict[Split, str]:
        """Return which splits of the data set are read for which; none where files are."""
        origin = HubOrigin.of(self)
        if origin is None:
            return {}
        refuse_idle(self, ("validation_fraction", "folds", "fold", "split_seed"), origin)
        names = origin.names()
        # the labels of a test split that nobody named would have to be read to see if there are any
        if self.streaming:
            return {
                split: name
                for split, name in names.items()
                if split != "test" or self.test_split is not None
            }
        return {split: names[split] for split in origin.tables(self._columns(origin)[1])}

    def _columns(self, origin: HubOrigin | None) -> tuple[str, str]:
        """Return the columns of the text and of the label: those named, and of a data set those
        that are found."""
        text, label = str(self.text_column), str(self.label_column)
        if origin is None or origin.streaming:
            return text, label
        train = origin.table(self.dataset_split)
        text = text_column(train, text if changed(self, "text_column") else None)
        return text, label_column(train, label if changed(self, "label_column") else None, text)

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the texts of a split in the order of the files.

        Raises:
            DataError: If a file cannot be read, a column is missing, or a row has no text or label.
        """
        placed = self._placed()
        chosen = {"train": placed.train, "validation": placed.validation, "test": placed.test}[
            split
        ]
        if not chosen:
            raise refuse_empty(
                split, Origin.of(self).name, None if placed.named else self._drawing()
            )
        return chosen

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return texts of each label in each split, their lengths, duplicates, what was left out,
        and the licence."""
        placed = self._placed()
        every = [*placed.train, *placed.validation, *placed.test]
        labels_of: dict[str, set[str]] = {}
        for example in every:
            labels_of.setdefault(_key(example), set()).add(str(example.target))
        card: dict[str, Any] = {
            "source": Origin.of(self).name,
            "licence": self.licence or "not stated",
        }
        if (origin := HubOrigin.of(self)) is not None and not self.streaming:
            card = origin.about(origin.tables(self._columns(origin)[1]), self.licence)
        elif origin is not None:
            card |= {
                "subset": self.subset or "none",
                "revision": self.revision or "newest",
                "splits": self._named(),
            }
        for split in self.splits():
            found = {"train": placed.train, "validation": placed.validation, "test": placed.test}[
                split
            ]
            card[split] = label_counts(found) | lengths_of(map(_characters, found), "characters")
        return card | {
            "same_text": len(every) - len(labels_of),
            "same_text_with_other_labels": sum(len(labels) > 1 for labels in labels_of.values()),
            "labels_only_in_validation": sorted(
                set(card["validation"]["labels"]) - set(card["train"]["labels"])
            ),
            "same_as_validation": placed.same_as_validation,
            "without_class": placed.without_class,
            "folders_not_used": list(placed.folders_not_used),
            "set_aside": len(placed.empty),
            "set_aside_empty": placed.empty[:_SHOWN],
        }

    def _placed(self) -> _Placed:
        """Read everything, and put each text on its side."""
        placed = _Placed()
        if folders := self._has_class_folders():
            self._read_folders(placed)
        else:
            named = self._named()
            placed.named = "validation" in named or Origin.of(self).has_validation
            placed.test = list(self._rows("test", placed)) if "test" in named else []
            placed.validation = list(self._rows("validation", placed)) if placed.named else []
            placed.train = list(self._rows("train", placed))
        judged = {_key(example) for example in placed.test}
        held_out = judged | {_key(example) for example in placed.validation}
        read = len(placed.train) + len(placed.validation)
        placed.validation = [
            example for example in placed.validation if _key(example) not in judged
        ]
        placed.train = [example for example in placed.train if _key(example) not in held_out]
        placed.same_as_validation = read - len(placed.train) - len(placed.validation)
        if placed.named:
            return placed
        every = placed.train
        sides = draw([(_group(e),) for e in every], [e.target for e in every], self._drawing())
        placed.train, placed.validation = (
            [example for example, side in zip(every, sides, strict=True) if side == split]
            for split in ("train", "validation")
        )
        if folders:
            refuse_unknown(
                [e.target for e in placed.train],
                [e.target for e in placed.validation],
                str(self.path),
            )
        return placed

    # ----------------------------------------------------------------------------------------- rows
    def _rows(self, split: Split, placed: _Placed) -> Iterator[Example]:
        origin, hub = Origin.of(self), HubOrigin.of(self)
        text_name, label_name = self._columns(hub)
        if hub is not None:
            origin = replace(origin, dataset_split=self._named()[split])
        kinds = ROW_KINDS if self.separator is None else (*ROW_KINDS, *_TEXT_KINDS)
        cells = Cells(self.separator, self.header, self.quotes)
        side: Split = "train" if hub is not None else split
        texts = (text_name, *([] if self.pair_column is None else [str(self.pair_column)]))
        for record in origin.records(side, (*texts, label_name), kinds=kinds, cells=cells):
            found = [
                checked_text(record.fields[name], record.origin, f"column {name!r}")
                for name in texts
            ]
            label = _checked_label(record.fields[label_name], record.origin, label_name)
            if all(text.strip() for text in found):
                yield Example(
                    f"{split}/{record.name}",
                    found[0] if len(found) == 1 else tuple(found),
                    label,
                    record.origin,
                )
            else:
                placed.empty.append(record.origin)

    # -------------------------------------------------------------------------------------- folders
    def _has_class_folders(self) -> bool:
        """Whether the path is a folder of .txt and .md files alone, and no separator makes rows of
        these."""
        if (
            not isinstance(self.path, str)
            or self.separator is not None
            or not Path(self.path).expanduser().is_dir()
        ):
            return False
        kinds = {
            file.kind
            for file in list_files(Path(self.path).expanduser(), (*ROW_KINDS, *_TEXT_KINDS))
        }
        return kinds <= set(_TEXT_KINDS)

    def _read_folders(self, placed: _Placed) -> None:
        idle = next(
            iter(changed(self, "text_column", "pair_column", "label_column", "quotes")), None
        )
        if idle is not None:
            problem = f"has no effect: {self.path} has a folder of texts for each class"
            raise DataError(
                f"recipe.data.{idle}", problem, "Remove it, or name a file with columns"
            )
        for split, path in (("train", self.path), ("validation", self.validation_path)):
            if isinstance(path, list):
                problem = (
                    f"{split} has a list of folders; allowed with a folder for each class: one"
                )
                raise DataError("recipe.data", problem, "Name one folder")
        root = Path(str(self.path)).expanduser()
        named = (
            None if self.validation_path is None else Path(str(self.validation_path)).expanduser()
        )
        folders = split_folders(root, _TEXT_KINDS)
        if folders.validation is not None and (named is not None or self._drawn()):
            setting_name = "validation_path" if named is not None else self._drawn()[0]
            problem = (
                f"has no effect: the folders train and {folders.validation.name} are the splits"
            )
            raise DataError(
                f"recipe.data.{setting_name}", problem, "Remove it, or name the folder train"
            )
        held_out = named or folders.validation
        placed.folders_not_used = folders.unused
        placed.train = self._texts(folders.train, root, placed)
        if held_out is not None:
            placed.named = True
            placed.validation = self._texts(held_out, root if named is None else held_out, placed)
            refuse_unknown(
                (e.target for e in placed.train),
                (e.target for e in placed.validation),
                str(held_out),
            )

    def _texts(self, folder: Path, root: Path, placed: _Placed) -> list[Example]:
        files, loose = class_files(folder, _TEXT_KINDS, root)
        placed.without_class += loose
        found = []
        for path, name, label in files:
            with opened(DataFile(path, name, path.suffix.lower(), "")) as handle:
                text = "".join(decoded_lines(DataFile(path, name, "", ""), handle))
            if text.strip():
                found.append(Example(name, text, label, str(path)))
            else:
                placed.empty.append(str(path))
        return found


def _key(example: Example) -> str:
    """Return what stands for the text, or the pair of texts, white space at its ends apart."""
    texts = example.inputs if isinstance(example.inputs, tuple) else (example.inputs,)
    return text_digest("\0".join(text.strip() for text in texts))


def _group(example: Example) -> str:
    """Return what must be on one side: a text, or all pairs with the same first text."""
    first = example.inputs[0] if isinstance(example.inputs, tuple) else example.inputs
    return text_digest(first.strip())


def _characters(example: Example) -> int:
    return (
        sum(map(len, example.inputs)) if isinstance(example.inputs, tuple) else len(example.inputs)
    )


def _checked_label(value: Any, where: str, column: str) -> Any:
    if value is None or value == "" or isinstance(value, dict) or value != value:
        shown = "nothing" if value in (None, "") else repr(value)[:60]
        problem = (
            f"column {column!r} holds {shown}; allowed: a label, as text or a number, or a list of"
            " them"
        )
        raise DataError(where, problem, "Correct the row, or name another column")
    return value
