"""How held-out rows are drawn: shares of each label, groups that never cross, the latest rows; in
every source that has labels or columns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from groundup.core import registry
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.data.splitting.drawing import SplitRule, split_examples

_SPLITS = ("train", "validation", "test")
Rows = list[dict[str, Any]]


def source(name: str, **settings: Any) -> Any:
    return validate(registry.lookup("data", name), settings, "recipe.data")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return str(path)


def _message(n: int) -> dict[str, Any]:
    turns = [{"role": "user", "content": f"Question {n}"}, {"role": "assistant", "content": "Yes"}]
    return {"messages": turns}


# what a row of each source of rows is, besides the columns of the test
_ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "text": lambda n: {"text": f"This is document number {n}, of several words."},
    "labelled_text": lambda n: {"text": f"review {n}", "label": ("good", "bad")[n % 2]},
    "conversations": _message,
    "preferences": lambda n: {"prompt": f"Question {n}", "chosen": "Yes", "rejected": "No"},
    "text_pairs": lambda n: {"anchor": f"question {n}", "positive": f"answer {n}"},
    "token_labels": lambda n: {"tokens": [f"word{n}", "is"], "labels": ["N", "V"]},
    "question_answers": lambda n: {
        "question": f"What is {n}?",
        "context": f"Number {n} is here.",
        "answers": [{"text": str(n), "answer_start": 7}],
    },
}


def _numbers_of(found: Any, cache: Path) -> dict[str, set[int]]:
    """Return the numbers of the rows of each split, as their origins say."""
    return {
        split: {int(example.origin.split()[-1]) for example in found.examples(split, cache)}
        for split in found.splits()
    }


@pytest.mark.parametrize("name", _ROWS)
def test_groups_of_a_column_never_cross(name: str, tmp_path: Path) -> None:
    groups = {n: f"user {n * 7 % 25}" for n in range(1, 121)}
    rows = [{**_ROWS[name](n), "user": groups[n]} for n in groups]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    found = source(name, path=path, fraction=0.3, test=0.2, group_column="user")
    numbers = _numbers_of(found, tmp_path / "cache")
    assert sorted(n for own in numbers.values() for n in own) == sorted(groups)
    owners = [{groups[n] for n in numbers[split]} for split in _SPLITS]
    assert all(owners)
    assert sum(map(len, owners)) == len(set(groups.values()))


@pytest.mark.parametrize("name", _ROWS)
def test_validation_is_later_than_training_and_the_test_later_still(
    name: str, tmp_path: Path
) -> None:
    days = {
        n: f"2024-{n * 31 % 100 // 28 + 1:02}-{n * 31 % 100 % 28 + 1:02}" for n in range(1, 101)
    }
    rows = [{**_ROWS[name](n), "day": days[n]} for n in days]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    found = source(name, path=path, fraction=0.2, test=0.1, time_column="day")
    numbers = _numbers_of(found, tmp_path / "cache")
    assert {split: len(own) for split, own in numbers.items()} == dict(
        zip(_SPLITS, (70, 20, 10), strict=True)
    )
    last = max(days[n] for n in numbers["train"])
    assert last < min(days[n] for n in numbers["validation"])
    assert max(days[n] for n in numbers["validation"]) < min(days[n] for n in numbers["test"])


@pytest.mark.parametrize(
    ("written", "latest"),
    [
        (["31/12/1999", "01/02/2000", "05/01/2000", "30/11/1999"], "01/02/2000"),
        (["2023/05/17", "2023/05/18", "2022/12/31", "2023/01/01"], "2023/05/18"),
        (["9", "10", "8", "7"], "10"),
        (["1,000", "999", "998", "2,500"], "2,500"),
        (["09:30", "23:10", "00:05", "12:00"], "23:10"),
        (["20240131", "20240201", "20231231", "20240115"], "20240201"),
    ],
)
def test_times_are_read_as_the_column_is_written(
    written: list[str], latest: str, tmp_path: Path
) -> None:
    rows = [{"text": f"text {n}", "label": "ab"[n % 2], "at": at} for n, at in enumerate(written)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    found = source("labelled_text", path=path, fraction=0.25, time_column="at")
    (held_out,) = found.examples("validation", tmp_path)
    assert held_out.inputs == f"text {written.index(latest)}"


@pytest.mark.parametrize("name", ["labelled_text", "text", "conversations"])
def test_rows_of_a_group_that_is_held_out_by_name_are_not_trained_on(
    name: str, tmp_path: Path
) -> None:
    rows = [{**_ROWS[name](n), "user": n % 5} for n in range(1, 41)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    held_out = write_jsonl(tmp_path / "b.jsonl", [{**_ROWS[name](99), "user": 3}])
    found = source(name, path=path, validation=held_out, group_column="user")
    numbers = _numbers_of(found, tmp_path / "cache")["train"]
    assert numbers == {n for n in range(1, 41) if n % 5 != 3}


def test_rows_of_a_table_whose_group_is_held_out_by_name_are_not_trained_on(
    tmp_path: Path,
) -> None:
    for name, users in (("a", "1 2 3 1 2 3"), ("b", "3 4")):
        lines = [f"{n},{user},{n % 2}" for n, user in enumerate(users.split())]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,user,y", *lines]))
    found = source(
        "table",
        path=str(tmp_path / "a.csv"),
        validation=str(tmp_path / "b.csv"),
        target="y",
        group_column="user",
    )
    assert [e.inputs["x"] for e in found.examples("train", tmp_path)] == ["0", "1", "3", "4"]


# ----------------------------------------------------------------------------------------- by label
def test_shares_are_drawn_within_each_label() -> None:
    labels = ["a"] * 100 + ["b"] * 30 + ["c"] * 9 + ["d"]
    keys = [(f"row {n}",) for n in range(len(labels))]
    rule = SplitRule(0.2, 0, 0.1, stratify=True)
    sides = split_examples(keys, labels, rule)
    held_out = Counter(zip(labels, sides, strict=True))
    assert [held_out[label, "validation"] for label in "abcd"] == [20, 6, 2, 0]
    assert [held_out[label, "test"] for label in "abcd"] == [10, 3, 1, 0]
    other = split_examples(keys, labels, rule._replace(seed=1))
    assert Counter(zip(labels, other, strict=True)) == held_out
    assert other != sides


def test_rare_labels_together_have_their_share() -> None:
    labels = [str(n // 4) for n in range(200)]
    sides = split_examples(
        [(str(n),) for n in range(200)], labels, SplitRule(0.1, 0, stratify=True)
    )
    assert Counter(sides) == {"train": 180, "validation": 20}
    assert (
        max(Counter(zip(labels, sides, strict=True))[label, "validation"] for label in labels) == 1
    )


def test_labels_are_even_where_groups_stay_together() -> None:
    labels = [("x", "y")[n // 3 % 2] for n in range(300)]
    keys = [(f"user {n // 3}",) for n in range(300)]
    sides = split_examples(keys, labels, SplitRule(0.2, 3, stratify=True))
    counts = Counter(zip(labels, sides, strict=True))
    assert counts["x", "validation"] == counts["y", "validation"] == 30
    assert len(set(zip(keys, sides, strict=True))) == 100


def test_the_only_row_of_a_label_is_trained_on_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"text": f"text {n}", "label": "xy"[n % 2]} for n in range(60)]
    for seed in range(12):  # in one of these it would have been drawn
        rare = {"text": f"something else {seed}", "label": f"rare {seed}"}
        path = write_jsonl(tmp_path / "rows.jsonl", [*rows, rare])
        found = source("labelled_text", path=path, seed=seed, fraction=0.3)
        labels = {s: {e.target for e in found.examples(s, tmp_path)} for s in found.splits()}
        assert labels == {"train": {"x", "y", f"rare {seed}"}, "validation": {"x", "y"}}
    assert any("single example or group (1: rare" in r.getMessage() for r in caplog.records)


def test_pictures_arrays_and_tables_hold_out_the_same_share_of_each_label(tmp_path: Path) -> None:
    for n in range(60):
        path = tmp_path / "pictures" / f"c{n % 3}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), n).save(path)
    np.savez(tmp_path / "a.npz", x=np.random.rand(60, 3), y=np.arange(60) % 3)
    lines = [f"{n},{n % 3}" for n in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["x,y", *lines]))
    for found in (
        source("images", path=str(tmp_path / "pictures"), stratify=True),
        source("arrays", path=str(tmp_path / "a.npz"), stratify=True),
        source("table", path=str(tmp_path / "rows.csv"), target="y", stratify=True),
    ):
        counts = Counter(str(e.target) for e in found.examples("validation", tmp_path))
        assert list(counts.values()) == [2, 2, 2]


def test_pictures_of_one_patient_are_on_one_side(tmp_path: Path) -> None:
    for n in range(60):
        path = tmp_path / "pictures" / f"c{n % 2}" / f"patient{n // 4}-{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), n).save(path)
    found = source("images", path=str(tmp_path / "pictures"), fraction=0.4, group=r"patient(\d+)")
    patients = [
        {e.name.split("patient")[1].split("-")[0] for e in found.examples(split, tmp_path)}
        for split in ("train", "validation")
    ]
    assert patients[0].isdisjoint(patients[1])
    assert len(patients[0] | patients[1]) == 15


# ------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("name", "settings", "problem"),
    [
        ("text", {"stratify": True}, "stratify has no effect: data text has no labels"),
        ("images", {"group_column": "a"}, "group_column has no effect: data images has no such"),
        ("arrays", {"time_column": "a"}, "time_column has no effect: data arrays has no such"),
        ("labelled_text", {"time_column": "t", "group_column": "g"}, "group_column has no effect"),
        ("labelled_text", {"time_column": "t", "seed": 3}, "seed has no effect with time_column"),
        ("labelled_text", {"time_column": "t", "stratify": True}, "stratify has no effect with"),
        ("labelled_text", {"time_column": "t", "folds": 3}, "time_column has no effect with folds"),
        ("labelled_text", {"stratify": True, "folds": 3}, "stratify has no effect with folds"),
        ("labelled_text", {"stratify": True, "fraction": 0.0}, "stratify has no effect with frac"),
        ("labelled_text", {"stratify": True, "validation": "b"}, "stratify has no effect with val"),
        ("table", {"target": ["y", "z"], "stratify": True}, "stratify has no effect with several"),
    ],
)
def test_settings_without_effect_are_errors(
    name: str, settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(RecipeError, match=problem):
        source(name, path="a", **settings)


def test_streamed_rows_are_not_drawn_by_columns() -> None:
    with pytest.raises(RecipeError, match="group_column has no effect with streaming"):
        source("text", dataset="a", streaming=True, group_column="user")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"group_column": "user"}, "rows.csv row 2: group_column 'user' is empty. Give each row"),
        ({"group_column": "usr"}, "there is no column 'usr'; did you mean 'user'"),
        (
            {"time_column": "when"},
            "rows.csv row 1: time_column 'when' holds '2020-05-01'; allowed: a num",
        ),
        ({"stratify": True, "target": "x"}, "4 groups of examples have 4 different labels. Remove"),
    ],
)
def test_columns_that_no_split_can_be_drawn_by(
    settings: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    rows = ["1,ann,2020-05-01,a", "2,,2020-05-02,b", "3,bob,2021,a", "4,bob,2020-05-04,b"]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["x,user,when,y", *rows]))
    found = source("table", path=str(path), **{"target": "y", **settings})
    with pytest.raises(DataError, match=problem):
        found.examples("train", tmp_path)
