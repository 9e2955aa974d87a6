"""What sources share whose rows begin with a question: conversations, preferences, prompts."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from groundup.contracts.data import Unlabelled
from groundup.core.errors import DataError
from groundup.core.values import Split
from groundup.data.reading.listing import ROW_KINDS
from groundup.data.reading.location import Origin, no_examples
from groundup.data.reading.source import Source
from groundup.data.reading.unlabelled import read_rows
from groundup.data.schemas.prompts import to_prompt

__all__ = ["QuestionRows"]


class QuestionRows(Source, ABC):
    """Rows from files, a folder of them or a hub name, those with one first question on the same
    side of the split."""

    has_columns = True

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        return Origin(self, ROW_KINDS).splits

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        return Origin(self, ROW_KINDS).contents()

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield what is asked in each row; see ``DataSource.unlabelled``."""
        return read_rows(path, to_prompt, self.encoding)

    def nothing_left(
        self, split: Split, origin: Origin, rows: Iterable[tuple[Any, str]]
    ) -> DataError:
        """Return the error about a split without a row.

        Args:
            split: The empty one.
            origin: Where the rows are.
            rows: All there are to train on, with what they are split by.
        """
        return no_examples(split, origin, {group for _, group in rows}, "first question")
