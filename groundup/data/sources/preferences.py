"""Preferences to tune on: pairs of a chosen and a rejected answer, or answers with a label, from
files or the hub."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.data import DataContext, Stream
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Batch, Preference, Split
from groundup.data.cleaning.cleaning import text_digest
from groundup.data.reading.listing import ROW_KINDS
from groundup.data.reading.location import Origin
from groundup.data.reading.question_rows import QuestionRows
from groundup.data.schemas.column_names import rename_columns
from groundup.data.schemas.missing import without_missing
from groundup.data.schemas.preference_formats import (
    Judgement,
    recognise_preference,
    to_judgement,
    unused_preference_columns,
)
from groundup.data.sources.conversations import first_question
from groundup.data.splitting.noted_rows import describe_rows, offer_skipping, stream_noted
from groundup.data.stream.in_memory import open_indexed_stream

__all__ = ["PreferenceSource"]

_log = logging.getLogger("groundup")
_PERCENTILES = (1, 10, 50, 90, 99)
# rows; sorted by prompt, a data set may have hundreds with the same one
_FAR = 1000  # rows that are looked back through for another prompt


@data("preferences")
class PreferenceSource(QuestionRows):
    """Pairs of answers, or answers with labels, from .jsonl .json .csv .tsv .parquet files, a
    folder, or a hub name.

    Rows with the same first question are on the same side of the split. A sample is a whole row:
    both answers to a prompt are always in one micro-batch.
    """

    invalid_rows: Literal["error", "skip"] = setting(
        "error",
        "what to do with a row that cannot be learned from; skipped ones are counted in the data"
        " card",
    )
    too_long: Literal["error", "drop", "truncate"] = setting(
        "error",
        "what to do where a prompt with an answer is longer than the context; truncate leaves out"
        " the oldest turns of the prompt, the same for both answers, but neither its system prompt"
        " nor its last question, and drops a row that is too long even so; an answer is never cut",
    )
    longest_characters: int | None = setting(
        None,
        "leave out rows whose prompt and longer answer have more characters; counted in the data"
        " card",
        ge=1,
    )
    ignore: tuple[str, ...] = setting(
        (), "keys of messages, and columns of rows, that are left out without being named"
    )
    unpaired: bool = setting(
        False, "learn from a pair as from two answers with labels, as loss kto needs"
    )

    def too_long_policy(self) -> str:
        """Return ``too_long``."""
        return self.too_long

    def examples(self, split: Split, cache: Path) -> list[Preference]:
        """Return the preferences of a split in the order of the files; see ``DataSource.examples``.

        Raises:
            DataError: If a row cannot be learned from, or nothing is left for the split.
        """
        origin = Origin(self, ROW_KINDS)
        found = self._preferences_of(split, origin, Counter())
        if not found:
            rows = self._read_preferences("train", origin, Counter())
            raise self.nothing_left(split, origin, rows)
        return found

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, a row a sample; see ``DataSource.open``.

        Raises:
            DataError: If a prompt with an answer is longer than the context, and that is an error,
                or none is shorter.
        """
        examples = self.examples(context.split, context.cache)
        rows: Batch = context.encode(examples)
        # a task may give rows without lengths: then none is too long
        lengths = np.zeros(len(examples))
        if "sequence_lengths" in rows:
            lengths = rows["sequence_lengths"].amax(1).numpy()
        long = np.flatnonzero(lengths > context.sequence_length)
        # encoded at once: whole rows are kept in memory, and no row is cut
        if len(long) and (self.too_long == "error" or len(long) == len(examples)):
            raise self._too_long(examples, lengths, long, context.sequence_length)
        if len(long):
            kept = np.flatnonzero(lengths <= context.sequence_length).tolist()
            examples = [examples[row] for row in kept]
            rows = {name: values[kept] for name, values in rows.items()}
            words = "%s: %d rows were dropped, being longer than the context of %d; %d are left"
            _log.warning(words, context.split, len(long), context.sequence_length, len(kept))
        return open_indexed_stream(examples, replace(context, encode=lambda _: rows))

    def _too_long(
        self,
        examples: Sequence[Preference],
        lengths: NDArray[Any],
        long: NDArray[np.int64],
        longest: int,
    ) -> DataError:
        most = int(lengths[long[0]]) + 1  # a row feeds all tokens but its last
        problem = f"a prompt with its answer has {most} tokens"
        ways = ["Raise model.context_length", " or set data.longest_characters"]
        if self.too_long == "truncate":
            problem += " even without its earlier turns"
        if self.too_long == "error":
            ways.insert(1, " set data.too_long: truncate or drop")
        if len(long) > 1:
            problem += f" ({len(long) - 1} more rows are too long)"
        problem += f"; the context of {longest} allows {longest + 1}"
        return DataError(examples[long[0]].origin, problem, ",".join(ways))

    def card(self, cache: Path) -> dict[str, Any]:
        """Return counts of pairs, labels, prompts and characters of each split, formats, and what
        was left out."""
        origin = Origin(self, ROW_KINDS)

        def count(split: Split, notes: Counter[str]) -> dict[str, Any]:
            return _count_preferences(self._preferences_of(split, origin, notes))

        card = describe_rows(origin, count, ["invalid", "longest_characters"])
        verdicts = {name for name in ("good", "bad", "pairs") if card["train"].get(name)}
        if verdicts in ({"good"}, {"bad"}):
            words = f"all answers to train on are labelled {verdicts.pop()}: nothing to compare"
            card["warnings"] = [*card.get("warnings", ()), words]
        return card

    def _preferences_of(
        self, split: Split, origin: Origin, notes: Counter[str]
    ) -> list[Preference]:
        """Return one split; ``notes`` counts what was met on the way."""
        rows = stream_noted(split, origin, self._read_preferences, self.rule, notes)
        return _add_mismatched([row for row, _ in rows])

    def _read_preferences(
        self, split: Split, origin: Origin, notes: Counter[str]
    ) -> Iterator[tuple[Preference, str]]:
        """Yield what the rows say, and what they are split by; of an answer with a label, the
        second answer is yet to be found."""
        for record in origin.records(split):
            fields, renamed = rename_columns(record.fields)
            notes.update(f"name {old} → {new}" for old, new in renamed.items())
            row = without_missing(fields, notes)
            try:
                judgement = to_judgement(row, record.origin, self.ignore)
            except DataError as error:
                if self.invalid_rows == "error":
                    raise offer_skipping(error) from None
                notes["invalid"] += 1
                continue
            if (
                self.longest_characters is not None
                and _count_characters(judgement) > self.longest_characters
            ):
                notes["longest_characters"] += 1
                continue
            notes[f"format {recognise_preference(row)}"] += 1
            unused = unused_preference_columns(row)
            notes.update(f"column {name}" for name in unused if name not in self.ignore)
            # by the first question, as conversations are: so a model and its preferences can be
            # split alike
            group = text_digest(first_question(judgement.prompt))
            found = [(record.name, judgement)]
            if self.unpaired:
                found = _take_apart(record.name, judgement)
            for name, each in found:
                # an answer with a label has one of its own: the other is found once all are read
                first, second = (*each.answers, ())[:2]
                preference = Preference(
                    name,
                    each.prompt,
                    (first, second),
                    each.good,
                    record.origin,
                    group,
                    tools=each.tools,
                )
                yield preference, group


def _take_apart(name: str, judgement: Judgement) -> list[tuple[str, Judgement]]:
    if judgement.good is not None:
        return [(name, judgement)]
    # a pair says that one is better, not that it is good: the recipe has to ask for this reading
    verdicts = zip(("chosen", "rejected"), judgement.answers, (True, False), strict=True)
    return [
        (f"{name} {which}", Judgement(judgement.prompt, (answer,), good, judgement.tools))
        for which, answer, good in verdicts
    ]


def _count_characters(judgement: Judgement) -> int:
    sizes = [
        sum(len(turn.text) for turn in turns) for turns in (judgement.prompt, *judgement.answers)
    ]
    return sizes[0] + max(sizes[1:])


def _add_mismatched(rows: list[Preference]) -> list[Preference]:
    """Return the rows; each with a label gets, as its second answer, that of the last row before
    with another prompt.

    The first rows take theirs from the last ones. Where all prompts are the same, an answer is its
    own.
    """
    found = []
    for place, row in enumerate(rows):
        if row.good is not None:
            # negative places count from the end, so the first rows look at the last ones
            before = (rows[place - back] for back in range(1, min(len(rows), _FAR)))
            other = next((each for each in before if each.group != row.group), row)
            row = replace(row, answers=(row.answers[0], other.answers[0]))
        found.append(row)
    return found


def _count_preferences(rows: Sequence[Preference]) -> dict[str, Any]:
    # the second answer of a row with a label is another row's, put in to compare with
    answers = [answer for row in rows for answer in row.answers[: 2 - (row.good is not None)]]
    sizes = [sum(len(turn.text) for turn in answer) for answer in answers]
    lengths = np.percentile(sizes, _PERCENTILES) if sizes else np.zeros(len(_PERCENTILES))
    verdicts = Counter({None: "pairs", True: "good", False: "bad"}[row.good] for row in rows)
    texts = {
        "\0".join(turn.text for turns in (row.prompt, *row.answers) for turn in turns)
        for row in rows
    }
    return {
        **dict(verdicts),
        "questions": len({row.group for row in rows}),
        "exact_duplicates": len(rows) - len(texts),
        "answer_percentiles_characters": {
            f"p{r}": round(float(n)) for r, n in zip(_PERCENTILES, lengths, strict=True)
        },
    }
