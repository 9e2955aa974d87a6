"""Questions whose answers are pieces of a text: SQuAD's files, or rows with a question, a context
and answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.contracts.data import DataContext, Stream, Unlabelled
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.values import Example, Split
from groundup.data.cleaning.cleaning import text_digest
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.files import Record, check_text, read_file
from groundup.data.reading.location import Origin
from groundup.data.reading.source import Source
from groundup.data.reading.unlabelled import read_rows, texts_in
from groundup.data.schemas.squad import squad_rows
from groundup.data.splitting.held_out import lengths_of
from groundup.data.splitting.row_split import SplitExamples, read_splits
from groundup.data.stream.in_memory import open_indexed_stream

__all__ = ["QuestionAnswers"]

_KINDS = (".jsonl", ".json", ".parquet")
_COLUMNS = ("question", "context", "answers")


@data("question_answers")
class QuestionAnswers(Source):
    """Questions about a text that holds the answer, or does not: SQuAD's .json, .jsonl, .json,
    .parquet, or a hub name.

    Rows have ``question``, ``context`` and ``answers``: a list of
    ``{"text": ..., "answer_start": ...}``, or an object with lists ``text`` and ``answer_start``;
    without any, the text does not hold the answer. ``answer_start`` counts characters from 0.
    Questions about the same text are always on one side of the split.
    """

    has_columns = True

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        return Origin(self, _KINDS).splits

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the questions of a split: (question, context) as inputs, a list of (answer, start)
        as target.

        Raises:
            DataError: If a file cannot be read, or an answer is not where it is said to be.
        """
        return self._read_splits(Origin(self, _KINDS))[split]

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        return Origin(self, _KINDS).contents()

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield questions and the texts they are about; see ``DataSource.unlabelled``."""
        to_inputs = partial(texts_in, names=_COLUMNS[:2])
        return read_rows(path, to_inputs, self.encoding, nested=squad_rows)

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, encoded when their turn comes."""
        return open_indexed_stream(
            self.examples(context.split, context.cache), context, in_memory=False
        )

    def card(self, cache: Path) -> dict[str, Any]:
        """Return questions, those without an answer, texts and their lengths in each split, and the
        licence."""
        origin = Origin(self, _KINDS)
        splits = self._read_splits(origin)
        card = origin.about()
        for split, found in splits.items():
            texts = {example.inputs[1] for example in found}
            unanswered = sum(not example.target for example in found)
            sizes = lengths_of(map(len, texts), "characters")
            card[split] = {
                "questions": len(found),
                "without_answer": unanswered,
                "texts": len(texts),
                **sizes,
            }
        return card

    def _read_splits(self, origin: Origin) -> SplitExamples:
        return read_splits(
            origin, lambda split: self._read_questions(split, origin), _key_of_text, self.rule
        )

    def _read_questions(self, split: Split, origin: Origin) -> Iterator[Example]:
        for record in islice(_read_rows(split, origin), self.limit):
            question, context = (
                check_text(record.fields[name], record.origin, f"column {name!r}")
                for name in _COLUMNS[:2]
            )
            for name, text in (("question", question), ("context", context)):
                if not text.strip():
                    raise DataError(
                        record.origin, f"the {name} is empty", "Write it, or remove the question"
                    )
            answers = _check_answers(record.fields["answers"], context, record.origin)
            yield Example(f"{split}/{record.name}", (question, context), answers, record.origin)


def _read_rows(split: Split, origin: Origin) -> Iterator[Record]:
    placement = origin.placement
    if not origin.files("train"):
        return origin.records(split, _COLUMNS)

    def read(file: DataFile, more: tuple[str, ...]) -> Iterator[Record]:
        columns = (*_COLUMNS, *placement.columns, *more)
        return squad_rows(file) or read_file(file, columns=columns)

    return placement.watch(origin.rows_of_files(split, read))


def _check_answers(value: Any, context: str, where: str) -> list[tuple[str, int]]:
    """Return answers as (text, first character), once each."""
    # as the hub keeps SQuAD: columns of lists
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        starts = value.get("answer_start")
        if not isinstance(starts, list) or len(starts) != len(value["text"]):
            raise DataError(
                where,
                f"there are {len(value['text'])} answers, but answer_start is {starts!r:.40}",
                "Give every answer its start",
            )
        value = [
            {"text": text, "answer_start": start}
            for text, start in zip(value["text"], starts, strict=True)
        ]
    if not isinstance(value, list):
        raise DataError(
            where, f"the answers are {value!r:.60}; allowed: a list", 'Write [{"text": ..., ...}]'
        )
    found: list[tuple[str, int]] = []
    for answer in value:
        text, start = (
            answer.get(name) if isinstance(answer, dict) else None
            for name in ("text", "answer_start")
        )
        if (
            not isinstance(text, str)
            or not text.strip()
            or not isinstance(start, int)
            or isinstance(start, bool)
        ):
            raise DataError(
                where,
                f"an answer is {answer!r:.60}; allowed: text and answer_start, a number of"
                " characters",
                "Correct it; for a question without an answer leave the list empty",
            )
        # Checked here, because a wrong start trains on the wrong words without any error. They are
        # wrong where offsets count bytes, or a text was normalised after it was annotated.
        if start < 0 or context[start : start + len(text)] != text:
            there = context[max(start, 0) : max(start, 0) + len(text)]
            problem = (
                f"the answer {text!r:.40} is not at character {start}, which has {there!r:.40}"
            )
            place = context.find(text)
            remedy = f"It is at {place}" if place >= 0 else "The context does not hold it"
            raise DataError(
                where, problem, f"{remedy}: correct answer_start, or remove the question"
            )
        # SQuAD's dev set has an answer several times, one for each who annotated it
        if (text, start) not in found:
            found.append((text, start))
    return found


def _key_of_text(example: Example) -> list[str]:
    return [text_digest(example.inputs[1].strip())]
