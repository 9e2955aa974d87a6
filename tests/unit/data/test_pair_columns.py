"""Pairs are read by the usual names of their columns: documents with summaries, questions with
answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.core.settings import validate
from groundup.data.sources.parallel_text import ParallelText

ANSWERS = {"text": ["in Oslo", "Oslo", "in Oslo"], "answer_start": [0, 3, 0]}


@pytest.mark.parametrize(
    ("row", "read", "written"),
    [
        ({"document": "It rains.", "summary": "Rain", "id": "7"}, "It rains.", "Rain"),
        ({"Article": "It rains.", "highlights": "Rain"}, "It rains.", "Rain"),
        ({"text": "It rains.", "summary": "Rain", "title": "R"}, "It rains.", "Rain"),
        ({"question": "Where?", "answer": "in Oslo"}, "Where?", "in Oslo"),
        (
            {"title": "A", "context": "It is in Oslo.", "question": "Where?", "answers": ANSWERS},
            "Where?\nIt is in Oslo.",
            "in Oslo",
        ),
        ({"instruction": "Sum.", "input": "", "output": "3"}, "Sum.", "3"),
        # What is called source and target is that, whatever else there is.
        ({"document": "x", "summary": "y", "source": "a", "target": "b"}, "a", "b"),
    ],
)
def test_columns_with_usual_names(
    row: dict[str, Any], read: str, written: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    source = validate(ParallelText, {"path": str(path), "fraction": 0}, "recipe.data")
    (pair,) = source.examples("train", tmp_path)
    assert (pair.inputs, pair.target) == (read, written)
    # As it is read in predicting, where there is nothing to be made of it yet.
    names = ("summary", "highlights", "answer", "answers", "output", "target")
    path.write_text(json.dumps({k: v for k, v in row.items() if k not in names}) + "\n")
    (found,) = source.unlabelled(str(path))
    assert found.inputs == read


def test_named_columns_and_further_answers(tmp_path: Path) -> None:
    row = {"context": "It is in Oslo.", "question": "Where?", "answers": ANSWERS, "document": "D"}
    path = tmp_path / "rows.jsonl"
    none = row | {"question": "Who?", "answers": {"text": [], "answer_start": []}}
    path.write_text("".join(json.dumps(each) + "\n" for each in (row, none)), encoding="utf-8")
    source = validate(ParallelText, {"path": str(path), "fraction": 0}, "recipe.data")
    card = source.card(tmp_path)
    assert card["rows"]["further_answers_not_read"] == 1
    assert card["rows"]["left_out"] == {"with an empty target": 1}
    # Where a column is named, no other is added to it.
    settings: dict[str, Any] = {"path": str(path), "fraction": 0}
    settings |= {"source_column": "question", "target_column": "answers"}
    found = validate(ParallelText, settings, "recipe.data").examples("train", tmp_path)
    assert [pair.inputs for pair in found] == ["Where?"]
    settings["context_column"] = "document"
    (pair,) = validate(ParallelText, settings, "recipe.data").examples("train", tmp_path)
    assert pair.inputs == "Where?\nD"
    (one, other) = validate(ParallelText, settings, "recipe.data").unlabelled(str(path))
    assert (one.inputs, other.inputs) == ("Where?\nD", "Who?\nD")


def test_squads_own_file(tmp_path: Path) -> None:
    asked = {"question": "Where?", "id": "1", "answers": [{"text": "Oslo", "answer_start": 9}]}
    article = {"paragraphs": [{"context": "It is in Oslo.", "qas": [asked]}]}
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [article]}), encoding="utf-8")
    source = validate(ParallelText, {"path": str(path), "fraction": 0}, "recipe.data")
    (pair,) = source.examples("train", tmp_path)
    assert (pair.inputs, pair.target) == ("Where?\nIt is in Oslo.", "Oslo")
    # Prediction reads what training reads.
    (row,) = source.unlabelled(str(path))
    assert row.inputs == pair.inputs
    assert row.columns["question"] == "Where?"
    path.write_text(json.dumps([{"question": "Who?", "context": "It is me."}]), encoding="utf-8")
    (row,) = source.unlabelled(str(path))
    assert row.inputs == "Who?\nIt is me."
