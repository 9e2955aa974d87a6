"""Prompts whose answers are scored: rows with a question, and columns that rewards read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from groundup.contracts.data import DataContext, Stream
from groundup.contracts.prompts import Prompt
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Split
from groundup.data.cleaning.cleaning import text_digest
from groundup.data.reading.listing import ROW_KINDS
from groundup.data.reading.location import Origin
from groundup.data.reading.question_rows import QuestionRows
from groundup.data.schemas.missing import without_missing
from groundup.data.schemas.prompts import to_prompt
from groundup.data.sources.conversations import first_question
from groundup.data.splitting.noted_rows import describe_rows, offer_skipping, stream_noted
from groundup.data.stream.in_memory import open_indexed_stream

__all__ = ["PromptSource"]

# Where a row has no column ``answer``, what it calls its answer.
_ANSWERS = ("completion", "output", "response", "solution")
_TURNS = ("messages", "conversations")
_ASKED = ("prompt", "question", "instruction", "query", "input", "user", "human", "problem")
_ASKED_TOO = ("system", "history", "tools", *_TURNS)


@data("prompts")
class PromptSource(QuestionRows):
    """Questions from .jsonl .json .csv .tsv .parquet files, a folder of them, or a hub name.

    A row is a conversation of any format, with its last answer or without; an answer that it has
    becomes the column ``answer``, and its further columns are kept for rewards. Rows with the same
    first question are on the same side of the split.
    """

    invalid_rows: Literal["error", "skip"] = setting(
        "error",
        "what to do with a row that asks nothing; skipped ones are counted in the data card",
    )

    def examples(self, split: Split, cache: Path) -> list[Prompt]:
        """Return the prompts of a split in the order of the files; see ``DataSource.examples``.

        Raises:
            DataError: If nothing is asked in a row, or nothing is left for the split.
        """
        origin = Origin(self, ROW_KINDS)
        found = self._prompts_of(split, origin, Counter())
        if not found:
            rows = self._read_prompts("train", origin, Counter())
            raise self.nothing_left(split, origin, rows)
        return found

    def open(self, context: DataContext) -> Stream:
        """Return the prompts of a split themselves; a task that scores answers opens its own."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return the number of prompts of each split, their lengths and columns, and what was left
        out."""
        origin = Origin(self, ROW_KINDS)

        def count(split: Split, notes: Counter[str]) -> dict[str, Any]:
            return _count_prompts(self._prompts_of(split, origin, notes))

        return describe_rows(origin, count, ["invalid"])

    def _prompts_of(self, split: Split, origin: Origin, notes: Counter[str]) -> list[Prompt]:
        return [row for row, _ in stream_noted(split, origin, self._read_prompts, self.rule, notes)]

    def _read_prompts(
        self, split: Split, origin: Origin, notes: Counter[str]
    ) -> Iterator[tuple[Prompt, str]]:
        for record in origin.records(split):
            row = without_missing(record.fields, notes)
            try:
                asked = to_prompt(row)
                if not any(turn.content.strip() for turn in asked.messages):
                    raise DataError("", "the prompt is empty", "Write it, or remove the row")
            except DataError as error:
                named = DataError(record.origin, error.problem, error.remedy)
                if self.invalid_rows == "error":
                    raise offer_skipping(named) from None
                notes["invalid"] += 1
                continue
            # As conversations and preferences are: models that go on from each other split alike.
            group = text_digest(first_question(asked.messages))
            columns = _columns_of(row)
            yield (
                Prompt(record.name, asked.messages, columns, record.origin, group, asked.tools),
                group,
            )


def _columns_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row that ask nothing, and its answer under that name."""
    # By its own names, which the rewards of whoever wrote the rows know.
    asked = (*_ASKED, *_ASKED_TOO)
    columns = {n: value for n, value in row.items() if n.strip().lower() not in asked}
    if "answer" in columns:
        return columns
    for name in _ANSWERS:
        if name in columns:
            return {**columns, "answer": columns[name]}
    for name in _TURNS:
        turns = row.get(name)
        if isinstance(turns, list) and turns and isinstance(turns[-1], Mapping):
            last = turns[-1]
            said = last.get("content", last.get("value"))
            if last.get("role", last.get("from")) in ("assistant", "gpt"):
                return {**columns, "answer": said}
    return columns


def _count_prompts(prompts: list[Prompt]) -> dict[str, Any]:
    sizes = [len(each.text) for each in prompts]
    columns = Counter(name for each in prompts for name in each.columns)
    return {
        "prompts": len(prompts),
        "questions": len({each.group for each in prompts}),
        "columns": dict(columns),
        "mean_characters": round(float(np.mean(sizes)), 1) if sizes else 0.0,
    }
