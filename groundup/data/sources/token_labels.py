"""Sentences whose words have a label each: rows with two lists, or CoNLL files with a word and its
label a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import model_validator

from groundup.core.contracts.data import DataContext, DataSource, Stream
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.cleaning.cleaning import text_digest
from groundup.data.reading.compressed import DataFile, decoded_lines, opened
from groundup.data.reading.files import ROW_KINDS, list_files
from groundup.data.reading.location import Origin, changed, problem_with_origin
from groundup.data.splitting.held_out import lengths_of
from groundup.data.splitting.row_split import Sides, problem_with_rows, split_examples
from groundup.data.stream.in_memory import open_indexed_stream

__all__ = ["WordLabels"]

_ROWS = tuple(kind for kind in ROW_KINDS if kind not in (".csv", ".tsv"))
_LINES = (".conll", ".bio", ".iob", ".iob2", ".txt", ".tsv")
_DOCUMENT = "-DOCSTART-"


@data("word_labels")
class WordLabels(DataSource):
    """Words with labels, such as names of persons and places: .jsonl, .json, .parquet, a hub name,
    or CoNLL files.

    A CoNLL file (.conll .bio .iob .iob2 .txt .tsv) has a word a line, its label in the last column,
    columns apart by blanks or tabs, and an empty line between sentences; lines ``-DOCSTART-`` are
    passed over. The same sentence is always on one side of the split.
    """

    path: str | list[str] | None = setting(
        None, "File or folder, or a list of them, relative to the current folder"
    )
    dataset: str | None = setting(None, "Hugging Face data set instead of path")
    subset: str | None = setting(None, "Configuration of the data set")
    dataset_split: str = setting("train", "Split of the data set that is read")
    revision: str | None = setting(None, "Branch, tag or commit of the data set")
    streaming: bool = setting(False, "Read the data set over the network without keeping it")
    words_column: str = setting("tokens", "Column of the list of words, in rows")
    labels_column: str = setting("labels", "Column of the list of labels, in rows")
    validation_path: str | list[str] | None = setting(
        None, "Files held out as they are, instead of a fraction"
    )
    validation_split: str | None = setting(
        None, "Split of the data set held out as it is, instead of a fraction"
    )
    validation_fraction: float = setting(0.1, "Share of the sentences held out", gt=0, lt=1)
    split_seed: int = setting(0, "Another seed holds out other sentences", ge=0)
    licence: str = setting("", "Licence of the texts, for the data card")

    @model_validator(mode="after")
    def _consistent(self) -> WordLabels:
        origin, drawn = Origin.of(self), changed(self, "validation_fraction", "split_seed")
        columns = [self.words_column, self.labels_column]
        problem = problem_with_origin(origin, [], []) or problem_with_rows(origin, columns, drawn)
        if problem:
            raise ValueError(problem)
        return self

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the sentences of a split: a tuple of words as inputs, a list of labels as target.

        Raises:
            DataError: If a file cannot be read, or words and labels do not fit each other.
        """
        return self._sides()[split]

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return sentences, words, and words of each label in each split, and the licence."""
        card: dict[str, Any] = {
            "source": Origin.of(self).name,
            "licence": self.licence or "not stated",
        }
        for split, found in self._sides().items():
            labels = Counter(label for example in found for label in example.target)
            sizes = lengths_of((len(example.target) for example in found), "words")
            card[split] = {"sentences": len(found), "labels": dict(sorted(labels.items())), **sizes}
        return card

    def _sides(self) -> Sides:
        return split_examples(
            Origin.of(self), self._read, _keys, self.validation_fraction, self.split_seed
        )

    def _read(self, split: Split) -> Iterator[Example]:
        origin = Origin.of(self)
        found = self.validation_path if split == "validation" else self.path
        paths = [found] if isinstance(found, str) else list(found or [])
        files = [
            (path, file)
            for path in paths
            for file in list_files(Path(path).expanduser(), (*_ROWS, *_LINES))
        ]
        if not files or all(file.kind in _ROWS for _, file in files):
            for record in origin.records(
                split, (self.words_column, self.labels_column), kinds=_ROWS
            ):
                words, labels = record.fields[self.words_column], record.fields[self.labels_column]
                yield _example(f"{split}/{record.name}", words, labels, record.origin)
            return
        if idle := changed(self, "words_column", "labels_column"):
            problem = (
                f"has no effect: {origin.name} has a word and its label a line, the label last"
            )
            raise DataError(
                f"recipe.data.{idle[0]}", problem, "Remove it, or name a file with rows"
            )
        for path, file in files:
            if file.kind in _ROWS:
                problem = f"is {file.kind}, beside files with a word a line"
                raise DataError(str(file.path), problem, "Name files of one kind")
            yield from _sentences(file, f"{split}/{path}/{file.relative}")


def _sentences(file: DataFile, name: str) -> Iterator[Example]:
    """Yield the sentences of a CoNLL file."""
    words: list[str] = []
    labels: list[str] = []
    first = columns = 0
    with opened(file) as handle:
        for number, line in enumerate([*decoded_lines(file, handle), ""], 1):
            cells = line.split("\t") if "\t" in line else line.split()
            cells = [cell.strip() for cell in cells]
            if cells and cells[0] != _DOCUMENT and any(cells):
                where = f"{file.path} line {number}"
                columns = columns or len(cells)
                if len(cells) < 2 or len(cells) != columns or not cells[0] or not cells[-1]:
                    problem = (
                        f"the line has {len(cells)} columns; allowed: a word and its label,"
                        f" {max(columns, 2)} columns"
                    )
                    raise DataError(where, problem, "Write the word, a blank or tab, and its label")
                first = first or number
                words.append(cells[0])
                labels.append(cells[-1])
            elif words:
                yield _example(f"{name}:{first}", words, labels, f"{file.path} line {first}")
                words, labels, first = [], [], 0


def _example(name: str, words: Any, labels: Any, where: str) -> Example:
    for what, values in (("words", words), ("labels", labels)):
        fits = (
            isinstance(values, list)
            and values
            and all(isinstance(each, str | int) for each in values)
        )
        if not fits:
            problem = f"the {what} are {values!r:.60}; allowed: a list of them, at least one"
            raise DataError(where, problem, "Correct or remove it")
    if len(words) != len(labels):
        problem = f"there are {len(words)} words and {len(labels)} labels"
        raise DataError(where, problem, "Give every word one label")
    empty = next(
        (n for n, word in enumerate(words, 1) if not isinstance(word, str) or not word.strip()),
        None,
    )
    if empty is not None:
        raise DataError(
            where, f"word {empty} is {words[empty - 1]!r}; allowed: text", "Correct or remove it"
        )
    return Example(name, tuple(words), [str(label) for label in labels], where)


def _keys(example: Example) -> list[str]:
    return [text_digest("\0".join(example.inputs))]
