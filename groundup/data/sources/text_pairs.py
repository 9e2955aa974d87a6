"""Pairs of texts that belong together, such as a question and its answer: rows of files or of a
data set."""

from __future__ import annotations

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
from groundup.data.reading.files import ROW_KINDS, checked_text
from groundup.data.reading.location import Origin, changed, problem_with_origin
from groundup.data.splitting.held_out import lengths_of
from groundup.data.splitting.row_split import Sides, problem_with_rows, split_examples
from groundup.data.stream.in_memory import open_indexed_stream

__all__ = ["TextPairs"]


@data("text_pairs")
class TextPairs(DataSource):
    """Texts that are to lie near each other, and perhaps a third that is not: .csv .tsv .jsonl
    .json .parquet, or a hub name.

    Pairs that share one of their two texts are always on one side of the split.
    """

    path: str | list[str] | None = setting(
        None, "File or folder, or a list of them, relative to the current folder"
    )
    dataset: str | None = setting(None, "Hugging Face data set instead of path")
    subset: str | None = setting(None, "Configuration of the data set")
    dataset_split: str = setting("train", "Split of the data set that is read")
    revision: str | None = setting(None, "Branch, tag or commit of the data set")
    streaming: bool = setting(False, "Read the data set over the network without keeping it")
    anchor_column: str = setting(
        "anchor", "Column of the text that is looked for with, such as a question"
    )
    positive_column: str = setting(
        "positive", "Column of the text that is to be found, such as its answer"
    )
    negative_column: str | None = setting(
        None, "Column of a text that is not to be found; null: there is none"
    )
    validation_path: str | list[str] | None = setting(
        None, "Files held out as they are, instead of a fraction"
    )
    validation_split: str | None = setting(
        None, "Split of the data set held out as it is, instead of a fraction"
    )
    validation_fraction: float = setting(0.1, "Share of the pairs held out", gt=0, lt=1)
    split_seed: int = setting(0, "Another seed holds out other pairs", ge=0)
    licence: str = setting("", "Licence of the texts, for the data card")

    @model_validator(mode="after")
    def _consistent(self) -> TextPairs:
        origin, drawn = Origin.of(self), changed(self, "validation_fraction", "split_seed")
        problem = problem_with_origin(origin, [], []) or problem_with_rows(
            origin, self._columns(), drawn
        )
        if problem:
            raise ValueError(problem)
        return self

    def _columns(self) -> list[str]:
        negative = [] if self.negative_column is None else [self.negative_column]
        return [self.anchor_column, self.positive_column, *negative]

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the pairs of a split, each as a tuple of two or three texts, in the order of the
        files.

        Raises:
            DataError: If a file cannot be read, a column is missing, or a text is empty.
        """
        return self._sides()[split]

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many pairs each split has, how long their texts are, how many are the same,
        and the licence."""
        card: dict[str, Any] = {
            "source": Origin.of(self).name,
            "licence": self.licence or "not stated",
        }
        for split, found in self._sides().items():
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

    def _sides(self) -> Sides:
        return split_examples(
            Origin.of(self), self._read, _texts, self.validation_fraction, self.split_seed
        )

    def _read(self, split: Split) -> Iterator[Example]:
        columns = self._columns()
        for record in Origin.of(self).records(split, columns, kinds=ROW_KINDS):
            texts = tuple(
                checked_text(record.fields[name], record.origin, f"column {name!r}")
                for name in columns
            )
            for name, text in zip(columns, texts, strict=True):
                if not text.strip():
                    raise DataError(
                        record.origin,
                        f"column {name!r} is empty",
                        "Write a text, or remove the row",
                    )
            if texts[0].strip() == texts[1].strip():
                problem = (
                    f"columns {columns[0]!r} and {columns[1]!r} are the same text; nothing is"
                    " learned from that"
                )
                raise DataError(record.origin, problem, "Correct or remove the row")
            yield Example(f"{split}/{record.name}", texts, None, record.origin)


def _texts(example: Example) -> list[str]:
    return [text_digest(text.strip()) for text in example.inputs[:2]]
