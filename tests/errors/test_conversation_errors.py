"""Every conversation that cannot be learned from is refused with its file and row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.data.sources.conversations import ConversationSource


def turn(role: str, content: Any = "words") -> dict[str, Any]:
    return {"role": role, "content": content}


USER, ASSISTANT = turn("user"), turn("assistant")

BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"messages": [turn("usr"), ASSISTANT]},
        "turn 1 has the unknown role 'usr'; did you mean 'user'? allowed: system,",
    ),
    ({"conversations": [{"from": "bot", "value": "x"}]}, "turn 1 has the unknown role 'bot'; "),
    ({"messages": [turn(["user"])]}, "turn 1 has the unknown role ['user']"),  # type: ignore[arg-type]
    ({"messages": []}, "the conversation is empty"),
    (
        {"messages": [USER, USER, ASSISTANT]},
        "turns 1 and 2 are both the user's; allowed after user: assistant",
    ),
    ({"messages": [USER, ASSISTANT, ASSISTANT]}, "turns 2 and 3 are both the assistant's"),
    (
        {"messages": [USER, ASSISTANT, USER]},
        "the last turn is the user's; allowed: the assistant's",
    ),
    (
        {"messages": [USER, ASSISTANT, turn("system")]},
        "turn 3 is the system's after the assistant's",
    ),
    ({"messages": [ASSISTANT]}, "turn 1 is the assistant's; allowed: system or user"),
    ({"messages": [USER, {"role": "assistant"}]}, "turn 2 (assistant) has no content"),
    ({"messages": [USER, turn("assistant", None)]}, "turn 2 (assistant) has no content"),
    ({"messages": [USER, turn("assistant", " \n")]}, "turn 2 (assistant) has no content"),
    (
        {"messages": [USER, turn("assistant", 7)]},
        "the content of turn 2 is a number (7); allowed: text",
    ),
    (
        {"messages": [turn("user", [{"type": "image_url"}]), ASSISTANT]},
        "the content of turn 1 has a part of type 'image_url'; allowed: text",
    ),
    ({"messages": [{"content": "x"}]}, "turn 1 has no role (keys: content)"),
    ({"messages": ["hello"]}, 'turn 1 is not an object but "hello"'),
    ({"messages": "hello"}, 'the turns are not a list but "hello"'),
    (
        {"text": "hello", "label": 1},
        "no known kind of conversation has the columns text, label; known: messages",
    ),
    ({"instruction": "a", "output": 3}, "column 'output' is a number (3)"),
    (
        {"instruction": "a", "output": "b", "history": ["c"]},
        "history 1 is not a pair [question, answer]",
    ),
    ({"prompt": "a", "completion": ["b"]}, "column 'completion' is a list"),
]


@pytest.mark.parametrize(("row", "problem"), BAD)
def test_bad_rows_name_file_line_and_what_is_allowed(
    tmp_path: Path, row: dict[str, Any], problem: str
) -> None:
    fine = {"messages": [USER, ASSISTANT]}
    (tmp_path / "a.jsonl").write_text(json.dumps(fine) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError) as caught:
        list(
            ConversationSource(path=str(tmp_path / "a.jsonl"), fraction=0.0).examples(
                "train", tmp_path
            )
        )
    assert f"a.jsonl line 2: {problem}" in str(caught.value)
    skipping = ConversationSource(path=str(tmp_path / "a.jsonl"), fraction=0.0, invalid_rows="skip")
    assert len(list(skipping.examples("train", tmp_path))) == 1


def test_a_named_format_that_the_rows_do_not_have(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(
        DataError,
        match=r"no column 'messages', which messages conversations need; .*prompt, completion",
    ):
        list(ConversationSource(path=str(tmp_path), format="messages").examples("train", tmp_path))


def test_plain_text_is_not_conversations(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(
        DataError, match=r"the suffix '.txt' is not a kind of file .* allowed: .jsonl, .json"
    ):
        list(ConversationSource(path=str(tmp_path / "a.txt")).examples("train", tmp_path))


def test_a_side_without_conversations(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    source = ConversationSource(path=str(tmp_path), fraction=0.0)
    with pytest.raises(DataError, match="nothing is left for validation"):
        list(source.examples("validation", tmp_path))


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({}, "neither path nor dataset is given"),
        ({"path": "a", "dataset": "b"}, "both path and dataset are given"),
        ({"path": "a", "subset": "b"}, "subset has no effect with path"),
        ({"path": "a", "format": "openai"}, 'got "openai"; allowed: '),
        (
            {"path": "a", "validation": "b", "seed": 3},
            "seed has no effect with validation",
        ),
    ],
)
def test_sources_that_contradict_themselves(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        validate(ConversationSource, section, "recipe.data")
    assert problem in str(caught.value)
