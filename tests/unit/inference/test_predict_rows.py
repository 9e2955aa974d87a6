"""Predictions of files: each row with its own, in order, whatever cannot be read."""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from groundup.api import evaluate
from groundup.contracts.data import Unlabelled
from groundup.core.errors import DataError, RunError
from groundup.core.values import Message
from groundup.data.schemas.prompts import to_prompt
from groundup.data.sources.images import Images
from groundup.data.sources.labelled_text import LabelledText
from groundup.data.sources.question_answers import QuestionAnswers
from groundup.data.sources.table import TableSource
from groundup.data.sources.text import TextSource
from groundup.data.sources.token_labels import TokenLabels
from groundup.inference.predict_rows import check_out, predict_rows, to_lines, write_rows
from groundup.inference.predictor import Predictor
from groundup.inference.remedies import remedies_after_training


class Doubles:
    """Predicts twice the number; refuses a batch with a negative one, as processors do."""

    @contextlib.contextmanager
    def noting_what_is_cut(self) -> Iterator[None]:
        yield

    def tabulate(self, inputs: Sequence[int], **options: Any) -> list[dict[str, Any]]:
        if any(number < 0 for number in inputs):
            raise DataError("inputs", "a number is negative", "Correct it")
        return [{"prediction": 2 * n, "probabilities": {"odd": n / 8, "even": 1.0}} for n in inputs]


def rows_of(*numbers: int) -> Iterator[Unlabelled]:
    for place, number in enumerate(numbers, 1):
        problem = "is zero" if number == 0 else ""
        yield Unlabelled({"id": f"r{place}"}, number, f"a.csv row {place}", problem)


def predicted(*numbers: int, **how: Any) -> tuple[list[dict[str, Any]], list[str]]:
    said: list[str] = []
    found = predict_rows(Doubles(), rows_of(*numbers), progress=said.append, **how)  # type: ignore[arg-type]
    return found, said


def test_rows_keep_their_columns_and_their_order() -> None:
    found, said = predicted(*range(1, 201))
    assert [row["id"] for row in found] == [f"r{n}" for n in range(1, 201)]
    assert [row["prediction"] for row in found] == [2 * n for n in range(1, 201)]
    assert said == []


def test_a_row_that_cannot_be_read_stops_or_is_left_out_and_never_shifts() -> None:
    with pytest.raises(DataError, match=r"a\.csv row 2: is zero\. .* --on-unreadable skip"):
        predicted(1, 0, 3)
    with pytest.raises(DataError, match=r"a\.csv row 3: a number is negative"):
        predicted(1, 2, -3, 4)
    found, said = predicted(1, 0, 3, -4, 5, on_unreadable="skip")
    assert [(row["id"], row["prediction"]) for row in found] == [("r1", 2), ("r3", 6), ("r5", 10)]
    assert said == [
        "2 of 5 rows cannot be read and are left out: a.csv row 2: is zero; a.csv row 4: a number"
        " is negative"
    ]
    with pytest.raises(DataError, match=r"a\.csv row 1: is zero"):
        predicted(0, -1, on_unreadable="skip")


@pytest.mark.parametrize(
    ("remedy", "said"),
    [
        ("", "Write it as in the data that the run was trained on, or leave such out"),
        ("Set processor.size: [2, 2]", "a. Write it as in the data that the run was trained on"),
        ("Rename it", "a. Rename it, or leave such out: --on-unreadable skip"),
    ],
)
@pytest.mark.parametrize("reading", [True, False])
def test_what_to_do_about_a_row_is_what_can_be_done(
    monkeypatch: pytest.MonkeyPatch, remedy: str, said: str, reading: bool
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise DataError("inputs", "is a", remedy)

    # found by the source, or by the processor
    row = Unlabelled({}, 1, "row 1", *(("is a", remedy) if reading else ()))
    monkeypatch.setattr(Doubles, "tabulate", refuse)
    with pytest.raises(DataError, match=re.escape(said)):
        predict_rows(Doubles(), [row])  # type: ignore[arg-type]


def test_a_limit_says_of_how_many() -> None:
    found, said = predicted(*range(1, 101), limit=3)
    assert [row["prediction"] for row in found] == [2, 4, 6]
    assert said == ["predicted 3 of 100 rows, the first ones"]


def test_a_column_called_as_what_is_predicted_is_refused() -> None:
    rows = [Unlabelled({"prediction": "x"}, 1, "a.csv row 1")]
    with pytest.raises(DataError, match=r"has a column 'prediction'.* Rename that column"):
        predict_rows(Doubles(), rows)  # type: ignore[arg-type]


def test_files_hold_what_was_predicted(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "text": 'a, "b"\n床',
            "n": None,
            "prediction": "x",
            "probabilities": {"x": 0.75, "y": 0.25},
        },
        {"text": "b", "prediction": ["x", "y"], "probabilities": {"x": 1.0, "y": float("nan")}},
    ]
    write_rows(rows, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert read[0] == {
        "text": 'a, "b"\n床',
        "n": "",
        "prediction": "x",
        "probability_x": "0.75",
        "probability_y": "0.25",
    }
    assert json.loads(read[1]["prediction"]) == ["x", "y"]
    write_rows(rows, tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == rows[0]
    assert json.loads(lines[1])["probabilities"] == {"x": 1.0, "y": None}
    assert list(to_lines(rows)) == lines
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.jsonl"]


def test_where_predictions_may_be_written(tmp_path: Path) -> None:
    there = tmp_path / "there.csv"
    there.write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match=r"there\.csv: exists already and was not touched.*--force"):
        check_out(there, force=False)
    check_out(there, force=True)
    with pytest.raises(RunError, match=r"ends in '\.xlsx', but .* \.csv or \.jsonl"):
        check_out(tmp_path / "a.xlsx", force=False)
    with pytest.raises(RunError, match="there is no folder"):
        check_out(tmp_path / "none" / "a.csv", force=False)


# ------------------------------------------------------------------------------- what sources read
def inputs_of(source: Any, path: Path) -> list[Any]:
    return [row.problem or row.inputs for row in source.unlabelled(str(path))]


def test_sources_read_rows_without_labels(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,question,context,x\na b,who?,He did.,1\n,who?,,2\n", encoding="utf-8")
    assert inputs_of(LabelledText(path="x"), path) == ["a b", "column 'text' is empty"]
    pairs = LabelledText(path="x", text_column="question", pair_column="context")
    assert inputs_of(pairs, path) == [("who?", "He did."), "column 'context' is empty"]
    assert inputs_of(TextSource(path="x"), path) == ["a b", "column 'text' is empty"]
    assert inputs_of(TokenLabels(path="x"), path)[0] == "a b"
    assert inputs_of(QuestionAnswers(path="x"), path)[0] == ("who?", "He did.")
    assert inputs_of(TableSource(path="x", target="y"), path)[1]["x"] == "2"
    (row, *_) = LabelledText(path="x", text_column="review").unlabelled(str(path))
    assert row.problem == "there is no column 'review'; columns: text, question, context, x"


def test_a_folder_of_texts_and_of_pictures_has_a_row_for_each(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text(f"This is {name}", encoding="utf-8")
    for name in ("2.png", "1.jpg"):
        (tmp_path / name).write_bytes(b"picture")
    texts = list(LabelledText(path="x").unlabelled(str(tmp_path)))
    assert [row.columns["file"] for row in texts] == ["a.txt", "b.txt"]
    assert [row.inputs for row in texts] == ["This is a.txt", "This is b.txt"]
    pictures = list(Images(path="x").unlabelled(str(tmp_path)))
    assert [row.columns for row in pictures] == [{"file": "1.jpg"}, {"file": "2.png"}]
    (tmp_path / "list.csv").write_text("id,path\n1,2.png\n2,9.png\n", encoding="utf-8")
    named = list(Images(path="x").unlabelled(str(tmp_path / "list.csv")))
    assert named[0].inputs == tmp_path / "2.png"
    assert named[1].problem == f"there is no file {tmp_path / '9.png'}"


def test_what_is_asked_in_a_row() -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    shared = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
    hi = (Message("user", "Hi"),)
    for row in (
        {"messages": turns},
        {"messages": turns[:1]},
        {"conversations": shared},
        {"prompt": "Hi", "id": 3},
        {"prompt": [turns[0]]},
        {"question": "Hi", "answer": None},
        {"instruction": "Hi", "input": "", "output": "Yo"},
        {"text": "Hi"},
    ):
        assert to_prompt(row).messages == hi, row
    both = to_prompt({"system": "Be kind", "instruction": "Hi", "input": "you"})
    assert both.messages == (Message("system", "Be kind"), Message("user", "Hi\nyou"))
    with pytest.raises(DataError, match="nothing is asked in the columns label"):
        to_prompt({"label": "x"})


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ({"limit": -1}, "limit: got -1; allowed: 1 or more"),
        ({"on_unreadable": "ignore"}, "on_unreadable: got 'ignore'; allowed: stop, skip"),
    ],
)
def test_options_that_mean_nothing(how: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        predicted(1, **how)


def test_remedies_leave_the_processor_as_it_was_trained() -> None:
    with pytest.raises(DataError, match="Write it as in the data"), remedies_after_training():
        raise DataError("row 1", "is odd", "Name it under processor.categorical")
    with pytest.raises(DataError, match="Give one value"), remedies_after_training():
        raise DataError("row 1", "is a list", "Give one value")


def test_nothing_to_predict() -> None:
    assert Predictor.__call__(object.__new__(Predictor), []) == []


def test_an_evaluation_of_no_examples() -> None:
    with pytest.raises(RunError, match="limit: got 0; allowed: 1 or more"):
        evaluate("a_run", limit=0)
