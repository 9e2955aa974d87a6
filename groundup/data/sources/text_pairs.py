"""Pairs of texts that belong together, such as a question and its answer: rows of files or of a
data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from groundup.contracts.data import DataContext, Stream, Unlabelled
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.cleaning.cleaning import text_digest
from groundup.data.reading.files import check_text
from groundup.data.reading.listing import ROW_KINDS
from groundup.data.reading.location import Origin
from groundup.data.reading.source import Source
from groundup.data.reading.unlabelled import read_rows, text_in
from groundup.data.splitting.held_out import lengths_of
from groundup.data.splitting.row_split import SplitExamples, read_splits
from groundup.data.stream.in_memory import open_indexed_stream

__all__ = ["TextPairs"]


@data("text_pairs")
class TextPairs(Source):
    """Texts that are to be near each other, and perhaps a third that is not: .csv .tsv .jsonl
    .json .parquet, or a hub name.

    Pairs that share one of their two texts are always on one side of the split.
    """

    has_columns = True

    anchor_column: str = setting(
        "anchor", "Column of the text that is looked for with, such as a question"
    )
    positive_column: str = setting(
        "positive", "Column of the text that is to be found, such as its answer"
    )
    negative_column: str | None = setting(
        None, "Column of a text that is not to be found; null: there is none"
    )

    def problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        columns = self._columns()
        twice = next((name for n, name in enumerate(columns) if name in columns[:n]), None)
        return twice and f"the column {twice!r} is named twice. Name another"

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        return Origin(self, ROW_KINDS).splits

    def _columns(self) -> list[str]:
        columns = [self.anchor_column, self.positive_column, self.negative_column]
        return [name for name in columns if name is not None]

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the pairs of a split, each as a tuple of two or three texts, in the order of the
        files.

        Raises:
            DataError: If a file cannot be read, a column is missing, or a text is empty.
        """
        return self._read_splits(Origin(self, ROW_KINDS))[split]

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        return Origin(self, ROW_KINDS).contents()

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield the texts to make vectors of; see ``DataSource.unlabelled``."""

        def to_inputs(row: Mapping[str, Any]) -> str:
            return text_in(row, self.anchor_column, "text")

        return read_rows(path, to_inputs, self.encoding, text=self.anchor_column)

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many pairs each split has, how long their texts are, how many are the same,
        and the licence."""
        origin = Origin(self, ROW_KINDS)
        splits = self._read_splits(origin)
        card = origin.about()
        for split, found in splits.items():
            sizes = {
                name: lengths_of((len(example.inputs[n]) for example in found), "characters")
                for n, name in enumerate(self._columns())
            }
            card[split] = {
                "pairs": len(found),
                "different": len({e.inputs for e in found}),
                **sizes,
            }
        return card

    def _read_splits(self, origin: Origin) -> SplitExamples:
        return read_splits(
            origin, lambda split: self._read_pairs(split, origin), _keys_of_pair, self.rule
        )

    def _read_pairs(self, split: Split, origin: Origin) -> Iterator[Example]:
        columns = self._columns()
        for record in origin.records(split, columns):
            texts = tuple(
                check_text(record.fields[name], record.origin, f"column {name!r}")
                for name in columns
            )
            for name, text in zip(columns, texts, strict=True):
                if not text.strip():
                    raise DataError(
                        record.origin,
                        f"column {name!r} is empty",
                        "Write a text, or remove the row",
                    )
            # in a batch of others such a pair is always right, whatever the model does
            if texts[0].strip() == texts[1].strip():
                raise DataError(
                    record.origin,
                    f"columns {columns[0]!r} and {columns[1]!r} are the same text; nothing is"
                    " learned from that",
                    "Correct or remove the row",
                )
            yield Example(f"{split}/{record.name}", texts, None, record.origin)


def _keys_of_pair(example: Example) -> list[str]:
    # not of a negative: hard ones are mined from the answers to other questions, and would join all
    return [text_digest(text.strip()) for text in example.inputs[:2]]
