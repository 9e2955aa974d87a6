"""Conversations in the shapes people keep them in; no question on both sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.core.values import Message
from groundup.data.schemas.chat_formats import recognise, to_messages
from groundup.data.sources.conversations import ConversationSource, first_question

ASKED = (Message("user", "What is len?"), Message("assistant", "A built-in."))
SYSTEM = Message("system", "Be brief.")
SAME: list[tuple[str, dict[str, Any]]] = [
    (
        "messages",
        {
            "messages": [
                {"role": "user", "content": "What is len?"},
                {"role": "assistant", "content": "A built-in."},
            ]
        },
    ),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "What is len?"},
                {"from": "gpt", "value": "A built-in."},
            ]
        },
    ),
    ("alpaca", {"instruction": "What is len?", "input": "", "output": "A built-in."}),
    ("pairs", {"prompt": "What is len?", "completion": "A built-in."}),
    ("pairs", {"prompt": "What is len?", "response": "A built-in."}),
    ("pairs", {"question": "What is len?", "answer": "A built-in."}),
    (
        "pairs",
        {
            "prompt": [{"role": "user", "content": "What is len?"}],
            "completion": [{"role": "assistant", "content": "A built-in."}],
        },
    ),
]


@pytest.mark.parametrize(("form", "row"), SAME)
def test_the_same_conversation_in_every_format(form: Any, row: dict[str, Any]) -> None:
    assert recognise(tuple(row)) == form
    assert to_messages(row, "auto", "here") == to_messages(row, form, "here") == ASKED


def test_nothing_is_recognised_in_other_columns() -> None:
    assert recognise(("text", "label")) is None


@pytest.mark.parametrize("position", [1, 2, 3])
def test_a_system_column_comes_first(position: int) -> None:
    assert to_messages(SAME[position][1] | {"system": "Be brief."}, "auto", "here") == (
        SYSTEM,
        *ASKED,
    )


def test_alpaca_history_and_input() -> None:
    row = {
        "instruction": "And this?",
        "input": "max",
        "output": "Also.",
        "history": [["What is len?", "A built-in."]],
    }
    expected = (*ASKED, Message("user", "And this?\nmax"), Message("assistant", "Also."))
    assert to_messages(row, "auto", "here") == expected


def test_tools_developer_and_text_parts() -> None:
    turns = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "len?"}],
        },
        {"role": "assistant", "content": "I look."},
        {"role": "tool", "content": "len(obj)"},
        {"role": "assistant", "content": "A built-in."},
    ]
    messages = to_messages({"messages": turns}, "auto", "here")
    assert [message.role for message in messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert messages[1].content == "What is len?"


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def questions(count: int) -> list[dict[str, Any]]:
    rows = [
        {"question": f"What is  function {n // 2}?", "answer": f"Answer {n}."} for n in range(count)
    ]
    return [
        row | {"question": row["question"].upper()} if n % 2 else row for n, row in enumerate(rows)
    ]


def test_a_question_is_on_one_side_only(tmp_path: Path) -> None:
    source = ConversationSource(path=write(tmp_path / "a.jsonl", questions(400)), fraction=0.2)
    train, validation = (
        [first_question(conversation.messages) for conversation in source.examples(split, tmp_path)]
        for split in ("train", "validation")
    )
    assert len(train) + len(validation) == 400
    assert 40 < len(validation) < 120
    assert not set(train) & set(validation)


def test_named_validation_questions_are_kept_out_of_training(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    write(tmp_path / "train" / "a.jsonl", questions(10))
    held_out = write(tmp_path / "held_out.jsonl", questions(2))
    source = ConversationSource(path=str(tmp_path / "train"), validation=held_out)
    assert len(list(source.examples("train", tmp_path))) == 8
    assert source.card(tmp_path)["left_out"] == {"invalid": 0, "question_in_validation": 2}


def test_the_card_counts_turns_formats_and_skipped_rows(tmp_path: Path) -> None:
    rows = [row for _, row in SAME[:4]] + [{"messages": []}, {"prompt": "hi", "completion": "  "}]
    source = ConversationSource(
        path=write(tmp_path / "a.jsonl", rows), fraction=0.0, invalid_rows="skip"
    )
    card = source.card(tmp_path)
    assert card["formats"] == {"alpaca": 1, "messages": 1, "pairs": 1, "sharegpt": 1}
    assert card["left_out"]["invalid"] == 2
    assert card["train"]["conversations"] == 4
    assert card["train"]["turns"] == {"user": 4, "assistant": 4}
    assert (card["train"]["exact_duplicates"], card["train"]["questions"]) == (3, 1)
    assert "validation" not in card


def test_csv_and_json_lists(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        'instruction,input,output\n"What is len?",,A built-in.\n', encoding="utf-8"
    )
    (tmp_path / "b.json").write_text(json.dumps([SAME[0][1]]), encoding="utf-8")
    source = ConversationSource(path=str(tmp_path), fraction=0.0)
    found = list(source.examples("train", tmp_path))
    assert [conversation.messages for conversation in found] == [ASKED, ASKED]
    assert [conversation.name for conversation in found] == ["a.csv:1", "b.json:1"]
