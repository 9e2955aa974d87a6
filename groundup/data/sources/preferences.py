"""Preferences to tune on: pairs of a chosen and a rejected answer, or answers with a label, from
files or the hub."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from pydantic import model_validator

from groundup.core.contracts.data import DataContext, DataSource, Stream
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Batch, Preference, Split
from groundup.data.cleaning.cleaning import text_digest
from groundup.data.reading.files import ROW_KINDS
from groundup.data.reading.location import Origin, changed, no_examples, problem_with_origin
from groundup.data.schemas.preference_formats import Judgement, recognise_preference, to_judgement
from groundup.data.sources.conversations import first_question
from groundup.data.splitting.hash_split import split_of
from groundup.data.stream.in_memory import open_indexed_stream

__all__ = ["PreferenceSource"]

_log = logging.getLogger("groundup")
_PERCENTILES = (1, 10, 50, 90, 99)
_FAR = 1000  # rows that are looked back through for another prompt


@data("preferences")
class PreferenceSource(DataSource):
    """Pairs of answers, or answers with labels, from .jsonl .json .csv .tsv .parquet files, a
    folder, or a hub name.

    Rows with the same first question lie on the same side of the split. A sample is a whole row:
    both answers to a prompt are always in one micro-batch.
    """

    path: str | list[str] | None = setting(
        None, "file or folder, or a list of them, relative to the current folder"
    )
    dataset: str | None = setting(
        None, "Hugging Face data set, such as trl-lib/ultrafeedback_binarized"
    )
    subset: str | None = setting(None, "configuration of the data set")
    dataset_split: str = setting("train", "split of the data set that is read")
    revision: str | None = setting(None, "branch, tag or commit of the data set")
    streaming: bool = setting(False, "read the data set over the network without keeping it")
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
    unpaired: bool = setting(
        False, "learn from a pair as from two answers with labels, as loss kto needs"
    )
    validation_fraction: float = setting(
        0.05, "share of prompts held out for validation", ge=0.0, lt=1.0
    )
    validation_path: str | list[str] | None = setting(
        None, "files held out as they are, instead of a fraction"
    )
    validation_split: str | None = setting(
        None, "split of the data set held out as it is, instead of a fraction"
    )
    split_seed: int = setting(0, "another seed holds out other prompts", ge=0)
    limit_rows: int | None = setting(None, "read at most so many rows", ge=1)
    licence: str = setting("", "licence of the data, for the data card")

    @model_validator(mode="after")
    def _one_origin(self) -> PreferenceSource:
        drawing = changed(self, "validation_fraction", "split_seed")
        if problem := problem_with_origin(Origin.of(self), (), drawing):
            raise ValueError(problem)
        return self

    def too_long_policy(self) -> str:
        """Return ``too_long``."""
        return self.too_long

    def examples(self, split: Split, cache: Path) -> list[Preference]:
        """Return the preferences of a split in the order of the files; see ``DataSource.examples``.

        Raises:
            DataError: If a row cannot be learned from, or nothing is left for the split.
        """
        found = self._side(split, Counter())
        if not found:
            raise no_examples(split, Origin.of(self).name, self.validation_fraction)
        return found

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, a row a sample; see ``DataSource.open``.

        Raises:
            DataError: If a prompt with an answer is longer than the context, and that is an error,
                or none is shorter.
        """
        examples = self.examples(context.split, context.cache)
        rows: Batch = context.encode(examples)
        lengths = (
            rows["sequence_lengths"].amax(1).numpy()
            if "sequence_lengths" in rows
            else np.zeros(len(examples))
        )
        long = np.flatnonzero(lengths > context.sequence_length)
        if len(long) and (self.too_long == "error" or len(long) == len(examples)):
            where, most = examples[long[0]].origin, int(lengths[long[0]]) + 1
            more = f" ({len(long) - 1} more rows are too long)" if len(long) > 1 else ""
            even = " even without its earlier turns" if self.too_long == "truncate" else ""
            problem = (
                f"a prompt with its answer has {most} tokens{even}{more}; the context of"
                f" {context.sequence_length}"
            )
            way = "" if self.too_long != "error" else " set data.too_long: truncate or drop,"
            remedy = f"Raise model.context_length,{way} or set data.longest_characters"
            raise DataError(where, f"{problem} allows {context.sequence_length + 1}", remedy)
        if len(long):
            kept = np.flatnonzero(lengths <= context.sequence_length).tolist()
            examples, rows = (
                [examples[row] for row in kept],
                {name: values[kept] for name, values in rows.items()},
            )
            words = "%s: %d rows were dropped, being longer than the context of %d; %d are left"
            _log.warning(words, context.split, len(long), context.sequence_length, len(kept))
        return open_indexed_stream(examples, replace(context, encode=lambda _: rows))

    def card(self, cache: Path) -> dict[str, Any]:
        """Return counts of pairs, labels, prompts and characters of each split, formats, and what
        was left out."""
        notes: Counter[str] = Counter()
        splits: tuple[Split, ...] = ("train", "validation")
        counts = {
            str(split): _counts(self._side(split, notes if split == "train" else Counter()))
            for split in splits
        }
        left_out = {
            reason: notes[reason]
            for reason in ("invalid", "longest_characters", "question_in_validation")
        }
        forms = {
            key.removeprefix("format "): n
            for key, n in sorted(notes.items())
            if key.startswith("format ")
        }
        about = {"source": Origin.of(self).name, "licence": self.licence or "not stated"}
        return {**about, **counts, "left_out": left_out, "formats": forms}

    def _side(self, split: Split, notes: Counter[str]) -> list[Preference]:
        """Return one side; ``notes`` counts what was met on the way."""
        if not Origin.of(self).has_validation:
            found = [
                row
                for row in self._read("train", notes)
                if split_of(row.group, self.validation_fraction, self.split_seed) == split
            ]
        elif split == "validation":
            found = list(self._read("validation", notes))
        else:
            held_out = {row.group for row in self._read("validation", Counter())}
            rows = list(self._read("train", notes))
            found = [row for row in rows if row.group not in held_out]
            notes["question_in_validation"] += len(rows) - len(found)
        return _with_mismatched(found)

    def _read(self, split: Split, notes: Counter[str]) -> Iterator[Preference]:
        """Yield what the rows say; of an answer with a label, the second answer is yet to be
        found."""
        for record in islice(Origin.of(self).records(split, kinds=ROW_KINDS), self.limit_rows):
            row = {name: value for name, value in record.fields.items() if value is not None}
            try:
                judged = to_judgement(row, record.origin)
            except DataError:
                if self.invalid_rows == "error":
                    raise
                notes["invalid"] += 1
                continue
            if (
                self.longest_characters is not None
                and _characters(judged) > self.longest_characters
            ):
                notes["longest_characters"] += 1
                continue
            notes[f"format {recognise_preference(row)}"] += 1
            group = text_digest(first_question(judged.prompt))
            for name, each in (
                _unpaired(record.name, judged) if self.unpaired else [(record.name, judged)]
            ):
                answers = cast(Any, each.answers if each.good is None else (each.answers[0], ()))
                yield Preference(name, each.prompt, answers, each.good, record.origin, group)


def _unpaired(name: str, judged: Judgement) -> list[tuple[str, Judgement]]:
    if judged.good is not None:
        return [(name, judged)]
    verdicts = zip(("chosen", "rejected"), judged.answers, (True, False), strict=True)
    return [
        (f"{name} {which}", Judgement(judged.prompt, (answer,), good))
        for which, answer, good in verdicts
    ]


def _characters(judged: Judgement) -> int:
    sizes = [sum(len(turn.content) for turn in turns) for turns in (judged.prompt, *judged.answers)]
    return sizes[0] + max(sizes[1:])


def _with_mismatched(rows: list[Preference]) -> list[Preference]:
    """Return the rows; each with a label gets, as its second answer, that of the last row before
    with another prompt.

    The first rows take theirs from the last ones. Where all prompts are the same, an answer is its
    own.
    """
    found = []
    for place, row in enumerate(rows):
        if row.good is not None:
            before = (rows[place - back] for back in range(1, min(len(rows), _FAR)))
            other = next((each for each in before if each.group != row.group), row)
            row = replace(row, answers=(row.answers[0], other.answers[0]))
        found.append(row)
    return found


def _counts(rows: Sequence[Preference]) -> dict[str, Any]:
    answers = [
        answer for row in rows for answer in (row.answers if row.good is None else row.answers[:1])
    ]
    sizes = [sum(len(turn.content) for turn in answer) for answer in answers]
    lengths = np.percentile(sizes, _PERCENTILES) if sizes else np.zeros(len(_PERCENTILES))
    verdicts = Counter(
        "pairs" if row.good is None else "good" if row.good else "bad" for row in rows
    )
    texts = {
        "\0".join(turn.content for turns in (row.prompt, *row.answers) for turn in turns)
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
