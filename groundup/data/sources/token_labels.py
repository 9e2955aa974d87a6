"""Sentences whose words have a label each: rows with two lists, or CoNLL files with a word and its
label a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.contracts.data import DataContext, Stream, Unlabelled
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.cleaning.cleaning import text_digest
from groundup.data.reading.compressed import DataFile, open_file
from groundup.data.reading.encodings import decode_lines
from groundup.data.reading.listing import LINE_KINDS, ROW_KINDS
from groundup.data.reading.location import Origin
from groundup.data.reading.source import Source
from groundup.data.reading.unlabelled import read_rows, text_in
from groundup.data.splitting.held_out import lengths_of
from groundup.data.splitting.row_split import SplitExamples, read_splits
from groundup.data.stream.in_memory import open_indexed_stream

__all__ = ["TokenLabels"]

_ROWS = tuple(kind for kind in ROW_KINDS if kind not in (".csv", ".tsv"))
# endings under which CoNLL files are found; .tsv too, where each line is a word
_LINES = (*LINE_KINDS, ".txt", ".tsv")
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

    has_columns = True

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
        return self._read_splits(Origin(self, _KINDS))[split]

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        return Origin(self, _KINDS).contents()

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield sentences, as lists of words or as texts; see ``DataSource.unlabelled``."""

        def to_inputs(row: Mapping[str, Any]) -> Any:
            words = row.get(self.words_column)
            if isinstance(words, list) and words:
                return tuple(map(str, words))
            return text_in(row, self.words_column, "text")

        return read_rows(path, to_inputs, self.encoding)

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return sentences, words, and words of each label in each split, and the licence."""
        origin = Origin(self, _KINDS)
        splits = self._read_splits(origin)
        card = origin.about()
        for split, found in splits.items():
            labels = Counter(label for example in found for label in example.target)
            sizes = lengths_of((len(example.target) for example in found), "words")
            card[split] = {"sentences": len(found), "labels": dict(sorted(labels.items())), **sizes}
        return card

    def _read_splits(self, origin: Origin) -> SplitExamples:
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
        changed = self.given("words_column", "labels_column", "group_column", "time_column")
        if changed:
            raise DataError(
                f"recipe.data.{changed[0]}",
                f"has no effect: {origin.name} has a word and its label a line, the label last",
                "Remove it, or name a file with rows",
            )
        for path, file in origin.files(split):
            if file.kind in _ROWS:
                raise DataError(
                    str(file.path),
                    f"is {file.kind}, next to files with a word a line",
                    "Name files of one kind",
                )
            yield from _read_conll(file, f"{split}/{path}/{file.relative}")


def _read_conll(file: DataFile, name: str) -> Iterator[Example]:
    """Yield the sentences of a CoNLL file."""
    words: list[str] = []
    labels: list[str] = []
    first = columns = 0
    file.notes.clear()
    with open_file(file) as handle:
        # an empty line at the end, which files often lack, ends the last sentence too
        for number, line in enumerate([*decode_lines(file, handle), ""], 1):
            # a word may hold a blank where tabs are between the columns, and other white space
            # always
            plain = line.rstrip("\r\n")
            if "\t" in plain:
                cells = [cell.strip(" ") for cell in plain.split("\t")]
            else:
                cells = [cell for cell in plain.split(" ") if cell]
            if cells[:1] == [_DOCUMENT]:
                file.notes[f"{_DOCUMENT} lines"] += 1
            elif any(cells):
                where = f"{file.path} line {number}"
                # of the first line: a line with fewer lacks its label, and the last column would be
                # something else
                columns = columns or len(cells)
                if len(cells) < 2 or len(cells) != columns or not cells[0] or not cells[-1]:
                    raise DataError(
                        where,
                        f"the line has {len(cells)} columns; allowed: a word and its label,"
                        f" {max(columns, 2)} columns",
                        "Write the word, a blank or tab, and its label",
                    )
                first = first or number
                words.append(cells[0])
                labels.append(cells[-1])
                continue
            if words:
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
            raise DataError(
                where,
                f"the {what} are {values!r:.60}; allowed: a list of them, at least one",
                "Correct or remove it",
            )
    if len(words) != len(labels):
        raise DataError(
            where,
            f"there are {len(words)} words and {len(labels)} labels",
            "Give every word one label",
        )
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
