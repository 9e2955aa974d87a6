"""Questions whose answers are pieces of a text: SQuAD's files, or rows with a question, a context
and answers."""

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
from groundup.data.reading.compressed import DataFile, opened
from groundup.data.reading.files import ROW_KINDS, Record, checked_text, list_files
from groundup.data.reading.location import Origin, changed, problem_with_origin
from groundup.data.schemas.squad import squad_records
from groundup.data.splitting.held_out import lengths_of
from groundup.data.splitting.row_split import Sides, problem_with_rows, split_examples
from groundup.data.stream.in_memory import open_indexed_stream

__all__ = ["QuestionAnswers"]

_KINDS = (".jsonl", ".json", ".parquet")
_COLUMNS = ("question", "context", "answers")


@data("question_answers")
class QuestionAnswers(DataSource):
    """Questions about a text that holds the answer, or does not: SQuAD's .json, .jsonl, .json,
    .parquet, or a hub name.

    Rows have ``question``, ``context`` and ``answers``: a list of
    ``{"text": ..., "answer_start": ...}``, or an object with lists ``text`` and ``answer_start``;
    without any, the text does not hold the answer. ``answer_start`` counts characters from 0.
    Questions about the same text are always on one side of the split.
    """

    path: str | list[str] | None = setting(
        None, "File or folder, or a list of them, relative to the current folder"
    )
    dataset: str | None = setting(
        None, "Hugging Face data set, such as rajpurkar/squad, instead of path"
    )
    subset: str | None = setting(None, "Configuration of the data set")
    dataset_split: str = setting("train", "Split of the data set that is read")
    revision: str | None = setting(None, "Branch, tag or commit of the data set")
    streaming: bool = setting(False, "Read the data set over the network without keeping it")
    validation_path: str | list[str] | None = setting(
        None, "Files held out as they are, instead of a fraction"
    )
    validation_split: str | None = setting(
        None, "Split of the data set held out as it is, instead of a fraction"
    )
    validation_fraction: float = setting(0.1, "Share of the texts held out", gt=0, lt=1)
    split_seed: int = setting(0, "Another seed holds out other texts", ge=0)
    licence: str = setting("", "Licence of the texts, for the data card")

    @model_validator(mode="after")
    def _consistent(self) -> QuestionAnswers:
        origin, drawn = Origin.of(self), changed(self, "validation_fraction", "split_seed")
        problem = problem_with_origin(origin, [], []) or problem_with_rows(origin, _COLUMNS, drawn)
        if problem:
            raise ValueError(problem)
        return self

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the questions of a split: (question, context) as inputs, a list of (answer, start)
        as target.

        Raises:
            DataError: If a file cannot be read, or an answer does not stand where it is said to.
        """
        return self._sides()[split]

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, encoded when their turn comes."""
        return open_indexed_stream(
            self.examples(context.split, context.cache), context, in_memory=False
        )

    def card(self, cache: Path) -> dict[str, Any]:
        """Return questions, those without an answer, texts and their lengths in each split, and the
        licence."""
        card: dict[str, Any] = {
            "source": Origin.of(self).name,
            "licence": self.licence or "not stated",
        }
        for split, found in self._sides().items():
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

    def _sides(self) -> Sides:
        return split_examples(
            Origin.of(self), self._read, _keys, self.validation_fraction, self.split_seed
        )

    def _read(self, split: Split) -> Iterator[Example]:
        for record in self._records(split):
            question, context = (
                checked_text(record.fields[name], record.origin, f"column {name!r}")
                for name in _COLUMNS[:2]
            )
            for name, text in (("question", question), ("context", context)):
                if not text.strip():
                    raise DataError(
                        record.origin, f"the {name} is empty", "Write it, or remove the question"
                    )
            answers = _answers(record.fields["answers"], context, record.origin)
            yield Example(f"{split}/{record.name}", (question, context), answers, record.origin)

    def _records(self, split: Split) -> Iterator[Record]:
        origin = Origin.of(self)
        if self.dataset is not None:
            yield from origin.records(split, _COLUMNS)
            return
        found = self.validation_path if split == "validation" else self.path
        for path in [found] if isinstance(found, str) else list(found or []):
            for file in list_files(Path(path).expanduser(), _KINDS):
                if file.kind == ".json" and _is_squad(file):
                    yield from squad_records(file)
                else:
                    source = self.model_copy(
                        update={"path": str(file.path), "validation_path": None}
                    )
                    yield from Origin.of(source).records("train", _COLUMNS, kinds=ROW_KINDS)


def _is_squad(file: DataFile) -> bool:
    with opened(file) as handle:
        return b'"paragraphs"' in handle.read()


def _answers(value: Any, context: str, where: str) -> list[tuple[str, int]]:
    """Return answers as (text, first character), once each."""
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        starts = value.get("answer_start")
        if not isinstance(starts, list) or len(starts) != len(value["text"]):
            problem = f"there are {len(value['text'])} answers, and answer_start is {starts!r:.40}"
            raise DataError(where, problem, "Give every answer its start")
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
            problem = (
                f"an answer is {answer!r:.60}; allowed: text and answer_start, a number of"
                " characters"
            )
            raise DataError(
                where, problem, "Correct it; for a question without an answer leave the list empty"
            )
        if start < 0 or context[start : start + len(text)] != text:
            there = context[max(start, 0) : max(start, 0) + len(text)]
            problem = (
                f"the answer {text!r:.40} is not at character {start}, where {there!r:.40} stands"
            )
            place = context.find(text)
            remedy = f"It is at {place}" if place >= 0 else "The context does not hold it"
            raise DataError(
                where, problem, f"{remedy}: correct answer_start, or remove the question"
            )
        if (text, start) not in found:
            found.append((text, start))
    return found


def _keys(example: Example) -> list[str]:
    return [text_digest(example.inputs[1].strip())]
