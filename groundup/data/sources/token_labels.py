"""Sentences whose words have a label each: rows with two lists, or CoNLL files with a word and its
label a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.contracts.data import DataContext, Stream
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.cleaning.cleaning import text_digest
from groundup.data.reading.compressed import DataFile, decode_lines, open_file
from groundup.data.reading.files import ROW_KINDS
from groundup.data.reading.location import Origin
from groundup.data.reading.source import Source
from groundup.data.splitting.held_out import lengths_of
from groundup.data.splitting.row_split import SplitExamples, read_splits
from groundup.data.stream.in_memory import open_indexed_stream

__all__ = ["TokenLabels"]

_ROWS = tuple(kind for kind in ROW_KINDS if kind not in (".csv", ".tsv"))
# endings under which CoNLL files are found; .tsv too, where each line is a word
_LINES = (".conll", ".bio", ".iob", ".iob2", ".txt", ".tsv")
_KINDS = (*_ROWS, *_LINES)
_DOCUMENT = "-DOCSTART-"


@data("token_labels")
class TokenLabels(Source):
    """Words with labels, such as names of persons and places: .jsonl, .json, .parquet, a hub name,
    or CoNLL files.

    A CoNLL file (.conll .bio .iob .iob2 .txt .tsv) has a word a line, its label in the last column,
    columns separated by blanks or tabs, and an empty line between sentences; ``-DOCSTART-`` lines
    are passed over. The same sentence is always on one side of the split.
    """

    words_column: str = setting("tokens", "Column of the list of words, in rows")
    labels_column: str = setting("labels", "Column of the list of labels, in rows")

    def problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        if self.words_column == self.labels_column:
            return f"the column {self.words_column!r} is named twice. Name another"
        return None

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        return Origin(self, _KINDS).splits

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the sentences of a split: a tuple of words as inputs, a list of labels as target.

        Raises:
            DataError: If a file cannot be read, or words and labels do not fit each other.
        """
        return self._read_splits()[split]

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return sentences, words, and words of each label in each split, and the licence."""
        card = Origin(self, _KINDS).about()
        for split, found in self._read_splits().items():
            labels = Counter(label for example in found for label in example.target)
            sizes = lengths_of((len(example.target) for example in found), "words")
            card[split] = {"sentences": len(found), "labels": dict(sorted(labels.items())), **sizes}
        return card

    def _read_splits(self) -> SplitExamples:
        origin = Origin(self, _KINDS)
        return read_splits(
            origin, lambda split: self._read_sentences(split, origin), _key_of_sentence, self.rule
        )

    def _read_sentences(self, split: Split, origin: Origin) -> Iterator[Example]:
        if any(file.kind in _LINES for _, file in origin.files(split)):
            return islice(self._read_lines(split, origin), self.limit)
        return self._read_rows(split, origin)

    def _read_rows(self, split: Split, origin: Origin) -> Iterator[Example]:
        columns = (self.words_column, self.labels_column)
        for record in origin.records(split, columns):
            words, labels = (record.fields[name] for name in columns)
            yield _check_sentence(f"{split}/{record.name}", words, labels, record.origin)

    def _read_lines(self, split: Split, origin: Origin) -> Iterator[Example]:
        changed = self.given("words_column", "labels_column")
        if changed:
            problem = (
                f"has no effect: {origin.name} has a word and its label a line, the label last"
            )
            remedy = "Remove it, or name a file with rows"
            raise DataError(f"recipe.data.{changed[0]}", problem, remedy)
        for path, file in origin.files(split):
            if file.kind in _ROWS:
                problem = f"is {file.kind}, next to files with a word a line"
                raise DataError(str(file.path), problem, "Name files of one kind")
            yield from _read_conll(file, f"{split}/{path}/{file.relative}")


def _read_conll(file: DataFile, name: str) -> Iterator[Example]:
    """Yield the sentences of a CoNLL file."""
    words: list[str] = []
    labels: list[str] = []
    first = columns = 0
    with open_file(file) as handle:
        # an empty line at the end, which files often lack, ends the last sentence too
        for number, line in enumerate([*decode_lines(file, handle), ""], 1):
            # a word may hold a blank where tabs are between the columns; None: any blanks are
            cells = [cell.strip() for cell in line.split("\t" if "\t" in line else None)]
            if cells and cells[0] != _DOCUMENT and any(cells):
                where = f"{file.path} line {number}"
                # of the first line: a line with fewer lacks its label, and the last column would be
                # something else
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
                yield _check_sentence(f"{name}:{first}", words, labels, f"{file.path} line {first}")
                words = []
                labels = []
                first = 0


def _check_sentence(name: str, words: Any, labels: Any, where: str) -> Example:
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


def _key_of_sentence(example: Example) -> list[str]:
    return [text_digest("\0".join(example.inputs))]
