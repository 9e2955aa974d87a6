"""The embedded corpus: what is read from source, how it is split, and that questions do not
leak."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

import pytest

from groundup.data.sources.python_docs import PythonDocs, related_documents
from groundup.data.sources.python_question_pairs import PythonQuestionPairs
from groundup.data.sources.python_questions import PythonQuestions, first_paragraph, question_for
from groundup.data.sources.python_source import (
    DocumentedObject,
    extract_documents,
    python_documents,
)

MODULE = '''
"""Tools for boxes."""
import json
raise RuntimeError("modules must not be run")

class Box(dict):
    """A box that holds things."""

    def __init__(self, size=3, *, lid=None):
        """Make a box."""

    @classmethod
    def of(cls, /, *things: int) -> "Box":
        """Make a box
           of things."""

    @property
    def volume(self):
        """How much fits in."""

    def undocumented(self): ...

if json:
    def pack(box, how={"a long default": "that would", "fill": "the line, " * 9}):
        """Pack a box."""
else:
    def pack(box):
        """Another text."""
'''


def library(folder: Path, modules: int = 60) -> Path:
    """A standard library in small: every module has documents of its own."""
    (folder / "test").mkdir(parents=True)
    (folder / "pydoc_data").mkdir()
    (folder / "boxes").mkdir()
    (folder / "boxes" / "__init__.py").write_text(MODULE)
    (folder / "broken.py").write_text("def (:")
    (folder / "test" / "test_boxes.py").write_text('"""A test."""')
    (folder / "pydoc_data" / "topics.py").write_text(
        "topics = {'if': 'The if statement\\n' '****', 'for': 'Loops'}"
    )
    for number in range(modules):
        words = " ".join(f"word{number * 100 + i}" for i in range(60))
        function = f'def act{number}(a):\n    """Perform action number {number} on a thing."""\n'
        same = 'def close():\n    """Close this thing and release what it holds."""\n'
        (folder / f"module{number:02}.py").write_text(f'"""{words}"""\n{function}{same}')
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = library(tmp_path / "library")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(folder))
    return tmp_path / "cache"


def test_documents_hold_every_docstring_under_its_name_and_signature(tmp_path: Path) -> None:
    documents = {document.name: document for document in extract_documents(library(tmp_path))}
    assert (
        documents["boxes"].text == "module boxes\n\nTools for boxes.\n\n"
        "class Box(size=3, *, lid=None)\n\nA box that holds things.\n\n"
        "def Box.__init__(size=3, *, lid=None)\n\nMake a box.\n\n"
        "def Box.of(*things: int) -> 'Box'\n\nMake a box\nof things.\n\n"
        "def Box.volume\n\nHow much fits in.\n\n"
        "def pack(box, how=...)\n\nPack a box."
    )
    assert documents["topics.if"].text == "The if statement\n****"
    assert "test.test_boxes" not in documents
    assert "broken" not in documents


def test_a_cached_corpus_equals_a_fresh_one(cache: Path) -> None:
    fresh = python_documents(cache)
    assert python_documents(cache) == fresh
    assert [path.suffix for path in cache.iterdir()] == [".jsonl"]


def test_documents_inside_others_stay_together() -> None:
    short = "one two three four five six seven eight nine ten eleven twelve"
    long = " ".join(f"w{i}" for i in range(300))
    assert related_documents(
        [long, short, f"{long} {short}", "nothing of the kind stands here at all today"]
    ) == [
        0,
        0,
        0,
        3,
    ]


def test_the_split_is_a_function_of_the_seed_and_covers_everything(cache: Path) -> None:
    source = PythonDocs(fraction=0.3, min_characters=100)
    train = [document.name for document in source.examples("train", cache)]
    held_out = [document.name for document in source.examples("validation", cache)]
    assert not set(train) & set(held_out)
    assert len(train) + len(held_out) == 61
    assert 5 < len(held_out) < 35
    other = PythonDocs(fraction=0.3, min_characters=100, seed=1)
    assert [document.name for document in other.examples("validation", cache)] != held_out
    card = source.card(cache)
    assert card["documents"] == {"train": len(train), "validation": len(held_out)}
    assert card["dropped"] == {"shorter than 100 characters": card["found_documents"] - 61}


def test_held_out_questions_come_from_held_out_documents_and_share_no_answer(cache: Path) -> None:
    documents = PythonDocs(fraction=0.3)
    questions = PythonQuestions(fraction=0.3, phrasings=2, full_sentence=False)
    sides = {split: list(questions.examples(split, cache)) for split in ("train", "validation")}
    for split, conversations in sides.items():
        names = {document.name for document in documents.examples(split, cache)}
        assert conversations
        assert {conversation.group for conversation in conversations} <= names
    answers = {
        split: {c.messages[1].content for c in conversations}
        for split, conversations in sides.items()
    }
    assert not answers["train"] & answers["validation"]
    assert len(sides["train"]) == 2 * len(
        answers["train"]
    )  # every answer once in each of two phrasings
    assert len({c.messages[0].content for c in sides["train"]}) == len(sides["train"])
    assert questions.card(cache)["dropped"]["same answer as another object"] >= 50


def test_an_answer_begins_by_saying_what_is_asked_about(cache: Path) -> None:
    plain = list(PythonQuestions(fraction=0.3, full_sentence=False).examples("validation", cache))
    full = list(PythonQuestions(fraction=0.3).examples("validation", cache))
    assert [c.messages[0] for c in plain] == [c.messages[0] for c in full]
    for short, long in zip(plain, full, strict=True):
        subject, _, rest = long.messages[1].content.partition(". ")
        assert rest == short.messages[1].content or long.messages[1].content.endswith(
            short.messages[1].content
        )
        assert subject.startswith(f"{long.name} is a ") or "." in long.name


def test_the_same_questions_as_pairs_of_texts(cache: Path) -> None:
    settings: dict[str, Any] = {"fraction": 0.2, "phrasings": 2}
    for split in PythonQuestions(**settings).splits():
        chats = list(PythonQuestions(**settings).examples(split, cache))
        pairs = PythonQuestionPairs(**settings).examples(split, cache)
        assert [(pair.name, pair.inputs, pair.target, pair.origin) for pair in pairs] == [
            (chat.name, chat.messages[0].content, chat.messages[1].content, chat.origin)
            for chat in chats
        ]
        assert all(pair.predicts_text for pair in pairs)


def test_phrasings_differ_by_turn_and_are_keyed() -> None:
    item = DocumentedObject("textwrap.fill", "function", "(text, width=70)", "Fill.", 1)
    asked = [question_for(item, "textwrap", 0, turn) for turn in range(8)]
    assert len(set(asked)) == 8
    assert all("fill" in question for question in asked)
    assert question_for(item, "textwrap", 0) == asked[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wrap a\n  text.\n\nMore.", "Wrap a text."),
        ("wrap(text : str) -> list\n\nWrap it well.", "Wrap it well."),
        ("wrap(text) -> list\nWrap it well.", "Wrap it well."),
        ("One sentence. " + "word " * 30, "One sentence."),
        ("word " * 30, "word word word word word word word ..."),
        ("", ""),
    ],
)
def test_an_answer_is_the_first_paragraph_that_says_something(text: str, expected: str) -> None:
    assert first_paragraph(text, 40) == expected


@pytest.mark.slow
def test_this_interpreters_documentation_is_large_enough(tmp_path: Path) -> None:
    documents = PythonDocs()
    card = documents.card(tmp_path)
    assert card["bytes"]["train"] + card["bytes"]["validation"] > 1_800_000
    pairs = PythonQuestions().card(tmp_path)["pairs"]
    assert pairs["train"] > 3500
    assert pairs["validation"] > 150
