"""Questions about Python's library, answered by its own docstrings: the fine-tuning set that needs
no download."""

from __future__ import annotations

import hashlib
import re
from abc import ABC
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from groundup.contracts.data import DataContext, DataSource, Stream
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Conversation, Message, Split
from groundup.data.sources.python_docs import PythonDocs
from groundup.data.sources.python_source import (
    LICENCE,
    DocumentedObject,
    SourceDocument,
    corpus_key,
    python_version,
)
from groundup.data.stream.packing import Packing
from groundup.data.stream.token_stream import open_token_stream

__all__ = [
    "ECHO",
    "Asked",
    "PythonQuestions",
    "QuestionAnswer",
    "QuestionsOfPython",
    "first_paragraph",
    "question_for",
]

_PHRASINGS = (
    "What does {name} do?",
    "What is {name}{signature} for?",
    "Explain the {kind} {name}.",
    "Explain {name}{signature}.",
    "Describe the {kind} {name}{signature} in Python.",
    "What is the purpose of {name}?",
    "I found {name}{signature} in some Python code. What does it do?",
    "What does the {kind} {short}{signature} in the module {module} do?",
)
ECHO = re.compile(
    r"^[\w.]+\s*\(.*\)(\s*(->|=>|--?).*)?$"
)  # "wrap(text) -> list" repeated inside the docstring
_LONGEST_SIGNATURE = 100  # characters in a question
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


@dataclass(frozen=True)
class QuestionAnswer:
    """A documented object and the answer made from its docstring; ``document`` is the module it
    is in."""

    item: DocumentedObject
    document: str
    origin: str
    answer: str


class Asked(NamedTuple):
    """A question and its answer; ``document`` is the module of what is asked about."""

    name: str
    question: str
    answer: str
    origin: str
    document: str


class QuestionsOfPython(DataSource, ABC):
    """Question-answer pairs from the docstrings of public classes, functions and methods.

    The validation pairs come only from documents that ``python_docs`` holds out of pretraining with
    the same ``seed``, ``fraction`` and near-duplicate grouping, and no answer is on both sides.
    Each validation object is asked about once; each training object ``phrasings`` times.
    """

    fraction: float = setting(
        0.05, "share of the documents held out for validation, as in python_docs", gt=0, lt=1
    )
    test: float = setting(
        0.0, "share of the documents held out for the test, as in python_docs", ge=0, lt=1
    )
    seed: int = setting(
        0, "another seed holds out others; the same as in python_docs, or answers leak", ge=0
    )
    full_sentence: bool = setting(
        True, "begin an answer by saying what is asked about; false: the docstring alone"
    )
    phrasings: int = setting(
        1, "how many ways each training object is asked about", ge=1, le=len(_PHRASINGS)
    )
    min_answer_characters: int = setting(20, "shorter answers teach nothing and are dropped", ge=1)
    max_answer_characters: int = setting(
        300, "longer answers end at the last sentence or word before this", ge=40
    )

    def asked(self, split: Split, cache: Path) -> Iterator[Asked]:
        """Yield the questions of a split with their answers, in the order of the objects' names."""
        pairs, _ = self._make_pairs(cache)
        for pair in pairs[split]:
            answer = pair.answer
            if self.full_sentence:
                subject = f"{pair.item.name} is a {pair.item.kind} of the module {pair.document}."
                answer = f"{subject} {answer}"
            turns = self.phrasings if split == "train" else 1
            names = [pair.item.name, *(f"{pair.item.name}#{n}" for n in range(2, turns + 1))]
            for turn, name in enumerate(names):
                question = question_for(pair.item, pair.document, self.seed, turn)
                yield Asked(name, question, answer, pair.origin, pair.document)

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are."""
        return PythonDocs(fraction=self.fraction, test=self.test, seed=self.seed).splits()

    def contents(self) -> Mapping[str, Path | str]:
        """Return the interpreter's version, whose documentation it is."""
        return {"library": python_version()}

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many pairs there are, what was dropped and why, and the licence."""
        pairs, dropped = self._make_pairs(cache)
        documents = {split: len({pair.document for pair in pairs[split]}) for split in pairs}
        return {
            "source": f"docstrings of {python_version()}",
            "licence": LICENCE,
            "pairs": {split: len(found) for split, found in pairs.items()},
            "documents": documents,
            "questions_per_training_pair": self.phrasings,
            "dropped": dict(dropped),
        }

    def _make_pairs(self, cache: Path) -> tuple[dict[Split, list[QuestionAnswer]], Counter[str]]:
        documents = PythonDocs(fraction=self.fraction, test=self.test, seed=self.seed)
        sides = documents.source_documents(cache)
        pairs: dict[Split, list[QuestionAnswer]] = {split: [] for split in sides}
        dropped: Counter[str] = Counter()
        answered: set[str] = set()
        # training first: a held-out object whose answer was seen in pretraining would be no test
        for split in pairs:
            for document in sides[split]:
                for pair in self._find_candidates(document, dropped):
                    key = _without_marks(pair.answer)
                    if key in answered:
                        dropped["same answer as another object"] += 1
                    else:
                        answered.add(key)
                        pairs[split].append(pair)
        return pairs, dropped

    def _find_candidates(
        self, document: SourceDocument, dropped: Counter[str]
    ) -> Iterable[QuestionAnswer]:
        for item in document.objects:
            if not item.public:
                dropped["private name"] += 1
                continue
            answer = first_paragraph(item.text, self.max_answer_characters)
            if len(answer) < self.min_answer_characters or " " not in answer:
                dropped[f"answer below {self.min_answer_characters} characters"] += 1
                continue
            yield QuestionAnswer(item, document.name, f"{document.origin} line {item.line}", answer)


@data("python_questions")
class PythonQuestions(QuestionsOfPython):
    """Questions about Python's library as conversations, each answered by a docstring."""

    packs_rows = True

    packing: Packing = setting(Packing(), "how sequences become rows of tokens")

    def examples(self, split: Split, cache: Path) -> Iterator[Conversation]:
        """Yield the conversations of a split, one question and one answer each, in the order of the
        objects' names."""
        for asked in self.asked(split, cache):
            messages = (Message("user", asked.question), Message("assistant", asked.answer))
            yield Conversation(asked.name, messages, asked.origin, asked.document)

    def too_long_policy(self) -> str:
        """Return that of the packing."""
        return self.packing.too_long

    def open(self, context: DataContext) -> Stream:
        """Return the packed micro-batches of a split."""
        key = f"python_questions-{corpus_key()}-{self.model_dump_json(exclude={'packing'})}"
        return open_token_stream(
            lambda: self.examples(context.split, context.cache), key, context, self.packing
        )


def question_for(item: DocumentedObject, module: str, seed: int, turn: int = 0) -> str:
    """Return the question about ``item`` in a phrasing chosen by key; turns 0, 1, ... give
    different phrasings."""
    # by key, so that a question stays the same when other objects come and go
    start = int.from_bytes(
        hashlib.sha256(f"{seed}:question:{item.name}".encode()).digest()[:8], "big"
    )
    phrasing = _PHRASINGS[(start + turn) % len(_PHRASINGS)]
    return phrasing.format(
        name=item.name,
        signature=item.signature if len(item.signature) <= _LONGEST_SIGNATURE else "(...)",
        kind=item.kind,
        module=module,
        short=item.name.removeprefix(f"{module}."),
    )


def first_paragraph(text: str, longest: int) -> str:
    """Return the first paragraph that says something, on one line, at most ``longest`` characters.

    A first line that only repeats the signature is skipped. What is too long ends after the last
    sentence that fits, or, without one, after the last word that fits, with an ellipsis.
    """
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in paragraph.strip().splitlines()]
        while lines and ECHO.match(lines[0]):
            lines.pop(0)
        joined = " ".join(line for line in lines if line)
        if joined:
            return _cut_at_sentence(joined, longest)
    return ""


def _cut_at_sentence(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, longest)]
    # a sentence that is far too short says less than a cut one
    if ends and ends[-1] >= longest // 4:
        return text[: ends[-1]]
    return text[: longest - 4].rsplit(" ", 1)[0] + " ..."


def _without_marks(answer: str) -> str:
    return re.sub(r"\W+", " ", answer).strip().casefold()
