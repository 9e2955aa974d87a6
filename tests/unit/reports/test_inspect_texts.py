"""``groundup data inspect``: counts, masks and warnings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixed_source import Fixed
from rich.console import Console

from groundup.core.values import Conversation, Document, Message, TokenSequence
from groundup.data.sources.mixture import Mixture
from groundup.processors.chat.builtin_templates import TEMPLATES
from groundup.processors.chat.template import ChatTemplate
from groundup.processors.text.bytes import BytesConfig
from groundup.processors.text.characters import CharacterProcessor
from groundup.reports.inspect_texts import TextInspector, inspect_source
from groundup.tasks.chat.task import Chat

PROCESSOR = BytesConfig().fit(lambda: iter(()))
CACHE = Path("unused")


class Encoder:
    """The one method of a task that is used."""

    def __init__(self, template: str | None = None, extra: int = 0) -> None:
        self._template, self._extra = template, extra

    def encode(self, examples: Sequence[Any], processor: CharacterProcessor) -> list[TokenSequence]:
        if self._template:
            return ChatTemplate(self._template, processor).encode_batch(
                [example.messages for example in examples]
            )
        end = np.full(1 + self._extra, processor.end_id, dtype=np.int32)
        return [
            TokenSequence(np.concatenate([end, t, end]))
            for t in processor.encode_batch([e.text for e in examples])
        ]


TEXTS = Fixed.model_construct(
    train=(
        Document("a", "hello 你好"),
        Document("b", "hello  你好 "),
        Document("c", "<b>[red]x[/red]", "c.txt"),
    ),
    validation=(Document("d", "hello 你好"),),
)
TALK = (
    Message("user", "Hi"),
    Message("assistant", "Yo 🎉"),
    Message("user", "Bye"),
    Message("assistant", "So long"),
)
CHATS = Fixed.model_construct(
    train=(Conversation("talk", TALK),), validation=(Conversation("other", TALK[:2]),)
)


def _printed(renderables: Iterable[Any], color: str | None = None) -> str:
    console = Console(
        file=StringIO(), width=200, color_system=color, force_terminal=color is not None
    )  # type: ignore[arg-type]
    for renderable in renderables:
        console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_counts_and_lengths_are_exact() -> None:
    train, validation = TextInspector(TEXTS, Encoder(), PROCESSOR, CACHE).inspect().splits  # type: ignore[arg-type]
    assert (train.examples, validation.examples) == (3, 1)
    assert train.characters == [8, 10, 15]
    assert train.sizes == [12, 14, 15]
    assert train.tokens == [14, 16, 17]
    assert train.trained == 13 + 15 + 16
    assert train.duplicates == 1


def test_warnings_name_what_is_wrong() -> None:
    found = TextInspector(TEXTS, Encoder(extra=1), PROCESSOR, CACHE, sequence_length=17).inspect()  # type: ignore[arg-type]
    text = "\n".join(found.warnings)
    assert "3 of 3 train examples have a special token twice in a row" in text
    assert "1 of 3 train examples are longer than the context of 17 tokens" in text
    assert "1 of 3 train examples are exact duplicates" in text
    assert "1 validation examples are also in the training split" in text
    assert "stop token" not in text


def test_an_empty_split_is_named() -> None:
    empty = Fixed.model_construct(train=(Document("a", "x"),))
    assert TextInspector(empty, Encoder(), PROCESSOR, CACHE).inspect().warnings == [
        "The validation split is empty."
    ]  # type: ignore[arg-type]
    assert "The validation split is empty" in _printed(
        inspect_source(empty, Encoder(), PROCESSOR, CACHE)
    )  # type: ignore[arg-type]


def test_the_answers_and_their_stops_are_marked() -> None:
    found = TextInspector(CHATS, Encoder(TEMPLATES["groundup"]), PROCESSOR, CACHE).inspect()  # type: ignore[arg-type]
    train = found.splits[0]
    assert (
        train.views[0].mark() == "<|endoftext|><|user|>\nHi<|end|>\n<|assistant|>\n‹Yo"
        " 🎉<|end|>›\n<|user|>\nBye<|end|>\n<|assistant|>\n‹So long<|end|>›"
    )
    assert ("🎉", True) in train.views[0].pieces
    assert train.trained == len("Yo 🎉So long".encode()) + 2
    assert (train.answers, train.answers_with_stop) == (2, 2)
    assert train.roles == {"user": 2, "assistant": 2}
    assert found.warnings == []


def test_a_stop_that_is_not_trained_on_is_a_warning() -> None:
    source = TEMPLATES["groundup"].replace(
        "message.content + '<|end|>' }}{% endg", "message.content }}{% endg", 1
    )
    assert source != TEMPLATES["groundup"]
    found = TextInspector(CHATS, Encoder(source), PROCESSOR, CACHE).inspect()  # type: ignore[arg-type]
    assert "2 of 2 train answers do not end with a trained stop token" in "\n".join(found.warnings)


def test_it_prints_marks_without_colours_and_shades_with_them() -> None:
    shown = inspect_source(CHATS, Encoder(TEMPLATES["groundup"]), PROCESSOR, CACHE)  # type: ignore[arg-type]
    plain, coloured = _printed(shown), _printed(shown, "standard")
    assert "‹So long<|end|>›" in plain
    assert "\x1b[" not in plain
    assert "\x1b[30;42m" in coloured
    assert "‹So" not in coloured
    for expected in (
        "removed.near duplicates",
        "1,234",
        "PSF [bold]",
        "2 of 2",
        "95%",
        "assistant 2, user 2",
    ):
        assert expected in plain


def test_markup_in_the_data_stays_as_it_is() -> None:
    assert "‹<b>[red]x[/red]<|endoftext|>›" in _printed(
        inspect_source(TEXTS, Encoder(), PROCESSOR, CACHE)
    )  # type: ignore[arg-type]


def test_only_so_many_examples_and_tokens_are_shown() -> None:
    long = Fixed.model_construct(train=tuple(Document(str(n), "x" * 1000) for n in range(9)))
    views = TextInspector(long, Encoder(), PROCESSOR, CACHE, examples=2).inspect().splits[0].views  # type: ignore[arg-type]
    assert len(views) == 2
    assert views[0].mark().endswith("› … 402 more tokens")


@pytest.mark.parametrize(
    ("too_long", "fate"),
    [
        ("auto", "; the run would stop."),
        ("drop", "; they are left out."),
        ("split", "; they are cut into pieces."),
        ("truncate", "; 1 are cut after a whole answer, 1 have none and are left out."),
    ],
)
def test_what_becomes_of_chats_that_are_too_long(too_long: str, fate: str) -> None:
    class Cut(Fixed):
        def too_long_policy(self) -> str:
            return too_long

    long = (TALK[0], Message("assistant", "x" * 50))
    chats = Cut.model_construct(
        train=(Conversation("a", (*TALK[:2], *long)), Conversation("b", long))
    )
    found = TextInspector(
        chats, Encoder(TEMPLATES["groundup"]), PROCESSOR, CACHE, sequence_length=40
    ).inspect()  # type: ignore[arg-type]
    assert f"2 of 2 train examples are longer than the context of 40 tokens{fate}" in found.warnings


def test_a_mixtures_parts_are_named_with_their_format_and_how_often_they_are_seen(
    tmp_path: Path,
) -> None:
    for name, rows in (("a", 8), ("b", 2)):
        chats = [{"prompt": f"{name}{n}", "completion": "yes"} for n in range(rows)]
        (tmp_path / f"{name}.json").write_text(json.dumps(chats), encoding="utf-8")
    parts = {
        name: {
            "name": "conversations",
            "path": str(tmp_path / f"{name}.json"),
            "fraction": 0.0,
        }
        for name in ("a", "b")
    }
    mixture = Mixture.model_validate({"parts": parts, "weights": {"a": 1.0, "b": 1.0}})
    found = TextInspector(mixture, Chat(), PROCESSOR, tmp_path).inspect()
    rows = [
        ("a", "pairs (8)", "128", "50.0%", "1.00 times"),
        ("b", "pairs (2)", "32", "50.0%", "4.00 times"),
    ]
    assert [(*row[:2], *row[3:]) for row in found.tables[0].rows] == [
        (*row[:2], *row[3:]) for row in rows
    ]
    assert "4.00 times" in _printed(inspect_source(mixture, Chat(), PROCESSOR, tmp_path))
