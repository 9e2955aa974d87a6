"""Prompts: what is asked, and the columns that rewards read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from user_files import make

from groundup.contracts.prompts import Prompt
from groundup.core.errors import DataError


def read(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> list[Prompt]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = make("prompts", path, fraction=0.0, **settings)
    return list(source.examples("train", folder))


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"prompt": "2+3?", "answer": 5}, {"answer": 5}),
        ({"prompt": "2+3?", "completion": "5"}, {"completion": "5", "answer": "5"}),
        ({"question": "2+3?", "answer": "5", "level": 1}, {"answer": "5", "level": 1}),
        ({"instruction": "2+3?", "output": "5"}, {"output": "5", "answer": "5"}),
        (
            {
                "messages": [
                    {"role": "user", "content": "2+3?"},
                    {"role": "assistant", "content": "5"},
                ]
            },
            {"answer": "5"},
        ),
        ({"messages": [{"role": "user", "content": "2+3?"}], "tests": "t"}, {"tests": "t"}),
    ],
)
def test_what_is_asked_and_what_is_known(
    row: dict[str, Any], columns: dict[str, Any], tmp_path: Path
) -> None:
    (found,) = read(tmp_path, [row])
    assert [(turn.role, turn.content) for turn in found.messages] == [("user", "2+3?")]
    assert found.columns == columns
    assert found.text == "2+3?"
    assert found.texts == ("2+3?",)


def test_rows_that_ask_nothing(tmp_path: Path) -> None:
    rows = [{"prompt": "a?", "answer": 1}, {"prompt": " ", "answer": 2}]
    with pytest.raises(DataError, match=r"rows.jsonl line 2: .*invalid_rows: skip"):
        read(tmp_path, rows)
    assert len(read(tmp_path, rows, invalid_rows="skip")) == 1
    card = make("prompts", tmp_path / "rows.jsonl", fraction=0.0, invalid_rows="skip").card(
        tmp_path
    )
    assert card["left_out"]["invalid"] == 1
    assert card["train"]["prompts"] == 1
    assert card["train"]["columns"] == {"answer": 1}
