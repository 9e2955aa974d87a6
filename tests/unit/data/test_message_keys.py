"""Every key of a message and of a row is used, refused by its name, or named as left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import DataError
from groundup.core.values import Conversation, Message, ToolCall
from groundup.data.schemas.chat_formats import to_messages
from groundup.data.schemas.preference_formats import to_judgement
from groundup.data.sources.conversations import ConversationSource
from groundup.data.sources.preferences import PreferenceSource

USER = {"role": "user", "content": "Why?"}
SO = {"role": "assistant", "content": "So."}
ASKED = Message("user", "Why?")
THOUGHT = Message("assistant", "So.", reasoning="Hm")


def said(*turns: dict[str, Any], **row: Any) -> tuple[Message, ...]:
    return to_messages({"messages": [USER, *turns], **row}, "auto", "here")


def message(*turns: dict[str, Any], **row: Any) -> str:
    with pytest.raises(DataError) as caught:
        said(*turns, **row)
    return str(caught.value)


@pytest.mark.parametrize(
    "turn",
    [
        {**SO, "reasoning_content": "Hm"},
        {**SO, "reasoning": " Hm\n"},
        {**SO, "thinking": "Hm"},
        {**SO, "thinking": "Hm", "reasoning": "Hm", "refusal": None, "annotations": []},
        {"from": "gpt", "value": "So.", "reasoning_content": "Hm"},
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "So."}],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
                "So.",
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "reasoning", "text": "Hm", "image_url": None},
                {"type": "text", "text": "So.", "image_url": None},
            ],
        },
    ],
)
def test_what_was_thought(turn: dict[str, Any]) -> None:
    assert said(turn) == (ASKED, THOUGHT)


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Why?", "output": "So.", "reasoning": "Hm"},
        {"prompt": "Why?", "response": "So.", "thinking": "Hm"},
        {"question": "Why?", "answer": "So.", "reasoning_content": "Hm"},
        {"messages": json.dumps([USER, {**SO, "thinking": "Hm"}])},
    ],
)
def test_what_was_thought_in_rows_of_other_shapes(row: dict[str, Any]) -> None:
    assert to_messages(row, "auto", "here") == (ASKED, THOUGHT)


def test_thoughts_that_are_in_the_content_too() -> None:
    content = "<think>\nHm\n</think>\n\nSo."
    both = {"role": "assistant", "content": content, "reasoning_content": "Hm"}
    assert said(both)[1] == Message("assistant", content)
    assert "has a reasoning next to another one" in message({**both, "reasoning_content": "Oh"})


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (
            {**SO, "reasoning": "a", "thinking": "b"},
            "turn 2 has reasoning and thinking, which differ",
        ),
        ({**SO, "value": "No."}, "turn 2 has content and value, which differ"),
        ({**SO, "from": "human"}, "turn 2 has role and from, which differ"),
        ({**SO, "weight": 0.5}, "turn 2 has weight 0.5; allowed: 0 or 1"),
        ({**SO, "thinking": ["a"]}, "the reasoning of turn 2 is a list"),
        ({**SO, "tool_calls": [{"name": "f", "arguments": {}, "cost": 3}]}, "has the key 'cost'"),
        (
            {**SO, "content": [{"type": "text", "text": "a", "lang": "en"}]},
            "the keys type, text, lang",
        ),
        (
            {**SO, "content": [{"type": "input_audio", "input_audio": {}}]},
            "a part of type 'input_audio'",
        ),
        ({**SO, "content": [{"type": "refusal", "refusal": "No"}]}, "a part of type 'refusal'"),
    ],
)
def test_keys_that_cannot_be_used(turn: dict[str, Any], expected: str) -> None:
    assert expected in message(turn)


def test_keys_of_other_turns() -> None:
    for key, expected in (
        ("thinking", "turn 1 (user) has a reasoning; allowed: the assistant"),
        ("train", "turn 1 (user) has train 1, but only the assistant's answers are learned"),
    ):
        with pytest.raises(DataError, match="turn 1") as caught:
            to_messages(
                {"messages": [{**USER, key: "1" if key == "thinking" else 1}, SO]}, "auto", "h"
            )
        assert expected in str(caught.value)
    calls = [{"name": "f", "arguments": {}}]
    with pytest.raises(DataError, match=r"turn 1 \(user\) calls a tool; allowed: the assistant"):
        to_messages({"messages": [{**USER, "tool_calls": calls}, SO]}, "auto", "here")


def test_other_keys_travel_to_the_template() -> None:
    assert said({**SO, "mood": "glad", "prefix": False})[1].extra == {
        "mood": "glad",
        "prefix": False,
    }
    left = to_messages({"messages": [USER, {**SO, "mood": "glad"}]}, "auto", "here", ("mood",))
    assert left[1] == Message("assistant", "So.")


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, SO], "images": ["a.jpg"]},
        {"conversations": [USER, SO], "image": "a.jpg"},
        {"instruction": "a", "output": "b", "videos": ["a.mp4"]},
        {"prompt": "a", "completion": "b", "audios": [{"bytes": "x"}]},
        {"messages": [{**USER, "content": "<image>Who are they?"}, SO]},
        {"messages": [{**USER, "content": "What are they doing?<image>"}, SO]},
        {"messages": [{**USER, "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, SO]},
        {"messages": [{**USER, "content": [{"type": "image"}, {"type": "text", "text": "x"}]}, SO]},
    ],
)
def test_pictures_and_sounds_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="Chats are learned from text alone: remove the row"):
        to_messages(row, "auto", "here")
    if "conversations" in row or "messages" in row:
        pair = {"chosen": [SO], "rejected": [{**SO, "content": "No."}], **row}
        for key in ("messages", "conversations"):
            if key in pair:
                pair[key] = pair[key][:1]
        with pytest.raises(DataError, match="learned from text alone"):
            to_judgement(pair, "here")


def test_a_text_about_html() -> None:
    turn = {**USER, "content": "Is <image href='a'/> right, and <image>x</image>?"}
    assert len(to_messages({"messages": [turn, SO], "images": []}, "auto", "here")) == 2


def write(tmp_path: Path, *rows: dict[str, Any]) -> str:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_unused_columns_are_named_with_their_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        {
            "messages": [{**USER, "content": f"Why {n}?"}, SO],
            "id": n,
            "source": "web",
            "score": None,
        }
        for n in range(1, 4)
    ]
    path = write(tmp_path, *rows, {"prompt": "a", "completion": "b", "id": 7, "system": "s"})
    card = ConversationSource(path=path, fraction=0.0).card(tmp_path)
    assert card["unused_columns"] == {"id": 4, "source": 3}
    assert "columns that are not used: id (4 rows), source (3 rows)" in caplog.text
    card = ConversationSource(path=path, fraction=0.0, ignore=("id",)).card(tmp_path)
    assert card["unused_columns"] == {"source": 3}


def test_unused_columns_of_preferences(tmp_path: Path) -> None:
    pair = {"prompt": "a", "chosen": "b", "rejected": "c", "chosen_reasoning": "d", "margin": 2}
    label = {"prompt": "a", "completion": "b", "label": True, "kto_tag": True}
    for row, expected in (
        (pair, {"chosen_reasoning": 1, "margin": 1}),
        (label, {"kto_tag": 1}),
    ):
        found = PreferenceSource(path=write(tmp_path, row), fraction=0.0).card(tmp_path)
        assert found["unused_columns"] == expected


def test_preferences_that_differ_in_thoughts_alone() -> None:
    row = {
        "messages": [USER],
        "chosen": {**SO, "reasoning_content": "Hm"},
        "rejected": {**SO, "reasoning_content": "Oh"},
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    found = to_judgement(row, "here")
    assert [answer[0].reasoning for answer in found.answers] == ["Hm", "Oh"]
    assert found.tools[0]["function"]["name"] == "f"


def test_a_prompt_that_is_another_one() -> None:
    row = {"prompt": "What?", "chosen": [USER, SO], "rejected": [USER, {**SO, "content": "No."}]}
    with pytest.raises(DataError, match=r"the column with the prompt says 'What\?'"):
        to_judgement(row, "here")
    assert to_judgement({**row, "prompt": "Why? "}, "here").prompt == (ASKED,)


@pytest.mark.slow
def test_nothing_is_added_to_the_arguments_of_tools_by_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    calls = [{"function": {"name": "f", "arguments": {"a": 1}}}]
    others = [{"function": {"name": "g", "arguments": {"b": "x"}}}]
    rows = [
        {"messages": [{**USER, "content": str(n)}, {**SO, "tool_calls": each}]}
        for n, each in enumerate((calls, others))
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    source = ConversationSource(path=str(tmp_path / "a.parquet"), fraction=0.0)
    found = [e for e in source.examples("train", tmp_path) if isinstance(e, Conversation)]
    assert [each.messages[1].tool_calls for each in found] == [
        (ToolCall("f", {"a": 1}),),
        (ToolCall("g", {"b": "x"}),),
    ]
