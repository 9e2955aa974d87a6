"""Tables: what is read, how it is split, and what columns become."""

from __future__ import annotations

import csv
import json
import logging
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.core.contracts.processors import InputProcessor
from groundup.core.values import Example
from groundup.data.sources.table import TableSource
from groundup.media.table_values import Row, as_boolean, as_category, as_date, as_number, kind_of
from groundup.processors.table import TableConfig, TableProcessor
from groundup.runs.processor import load_processor


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ","
        )
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def numbered(count: int = 200) -> list[dict[str, Any]]:
    return [
        {"n": n, "user": f"u{n % 9}", "day": f"2024-01-{n % 28 + 1:02}", "y": n / 4}
        for n in range(count)
    ]


def fit(rows: list[dict[str, Any]], **settings: Any) -> TableProcessor:
    return TableConfig(**settings).fit(lambda: (Example(str(n), row) for n, row in enumerate(rows)))


# -------------------------------------------------------------------------------------- the columns
def test_values_are_read_as_what_they_mean() -> None:
    assert [
        as_number(v) for v in ("3.5", " 2 ", 4, True, "1e3", "1_000", "a", date(2024, 1, 1))
    ] == [
        *(3.5, 2.0, 4.0, 1.0, 1000.0),
        *(None, None, None),
    ]
    for nothing in (
        None,
        "",
        "nan",
        "NaN",
        "NA",
        "null",
        "?",
        float("nan"),
        "inf",
        "-Infinity",
        1e999,
    ):
        assert np.isnan(as_number(nothing) or 0.0), nothing
    assert [as_boolean(v) for v in ("Yes", "false", True, 0, "1", "maybe", 2)] == [
        1.0,
        0.0,
        1.0,
        0.0,
        1.0,
        None,
        None,
    ]
    assert [as_category(v) for v in (3, 3.0, "3", True, None, float("nan"), 2.5, "NA")] == [
        *("3", "3", "3", "true"),
        *("", "", "2.5", "NA"),
    ]
    noon = datetime(2024, 5, 31, 12, tzinfo=UTC).timestamp()
    assert as_date("2024-05-31T12:00") == as_date("2024-05-31 14:00+02:00") == as_date(noon) == noon
    assert as_date(date(1970, 1, 2)) == 86400.0
    assert as_date("31/05/2024") is None
    assert as_date(1.7e12) is None


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2.5", ""], "numeric"),
        (["0", "1"], "numeric"),
        (["NA", "1", "2"], "numeric"),
        (["yes", "no", ""], "boolean"),
        ([True, False, None], "boolean"),
        (["2024-01-01", "2024-01-02T10:00:00Z"], "date"),
        ([date(2024, 1, 1)], "date"),
        (["1", "2", "a"], "categorical"),
        (["", None], "categorical"),
        (["Rome", "Oslo"], "categorical"),
    ],
)
def test_the_kind_of_a_column(values: list[Any], kind: str) -> None:
    assert kind_of(dict.fromkeys(values, 1)) == kind


def test_a_column_of_numbers_with_a_few_words_is_numeric() -> None:
    assert kind_of({"1": 50, "2": 45, "x": 5}) == "numeric"
    assert kind_of({"1": 50, "2": 35, "x": 15}) == "categorical"


# --------------------------------------------------------------------------------------- the source
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_rows_are_read(tmp_path: Path, suffix: str) -> None:
    rows = numbered(40)
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pytest.importorskip("pyarrow.parquet").write_table(
            pytest.importorskip("pyarrow").Table.from_pylist(rows), path
        )
    else:
        write(path, rows)
    source = TableSource(path=str(path), target="y", ignore=("day",), validation_fraction=0.3)
    found = [e for split in ("train", "validation") for e in source.examples(split, tmp_path)]  # type: ignore[arg-type]
    assert len(found) == 40
    example = next(e for e in found if e.origin == f"{path} row 12")
    assert dict(example.inputs) in ({"n": "11", "user": "u2"}, {"n": 11, "user": "u2"})
    assert float(example.target) == 11 / 4
    assert len(example.inputs) == 2
    with pytest.raises(KeyError):
        example.inputs["y"]


def test_columns_that_are_named_and_several_targets(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", numbered(30))
    source = TableSource(path=path, target=("y", "n"), columns=("user",))
    example = source.examples("train", tmp_path)[0]
    assert list(example.inputs) == ["user"]
    assert set(example.target) == {"y", "n"}


def test_files_of_a_folder_and_of_a_list_are_one_table(tmp_path: Path) -> None:
    rows = numbered(60)
    (tmp_path / "parts").mkdir()
    paths = [write(tmp_path / "parts" / f"{n}.csv", rows[n * 20 : n * 20 + 20]) for n in range(3)]
    for given in (str(tmp_path / "parts"), paths):
        source = TableSource(path=given, target="y")
        found = [e for split in ("train", "validation") for e in source.examples(split, tmp_path)]  # type: ignore[arg-type]
        assert sorted(int(e.inputs["n"]) for e in found) == list(range(60))
        assert len({e.name for e in found}) == 60


def test_a_group_stays_on_one_side(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", numbered())
    source = TableSource(path=path, target="y", group_column="user", validation_fraction=0.4)
    users = {
        s: {e.inputs["user"] for e in source.examples(s, tmp_path)} for s in ("train", "validation")
    }  # type: ignore[arg-type]
    assert not users["train"] & users["validation"]
    assert len(users["train"] | users["validation"]) == 9


@pytest.mark.parametrize("column", ["n", "day"])
def test_the_latest_rows_are_held_out(tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "rows.csv", numbered())
    source = TableSource(path=path, target="y", time_column=column, validation_fraction=0.25)
    sides = [
        [e.inputs[column] for e in source.examples(s, tmp_path)] for s in ("train", "validation")
    ]  # type: ignore[arg-type]
    before, after = ([float(v) if column == "n" else v for v in side] for side in sides)
    assert max(before) < min(after)
    assert 50 <= len(after) <= 57


def test_another_seed_holds_out_others_and_files_can_be_held_out(tmp_path: Path) -> None:
    path, other = write(tmp_path / "a.csv", numbered()), write(tmp_path / "b.csv", numbered(7))
    held_out = [
        {
            e.name
            for e in TableSource(path=path, target="y", split_seed=seed).examples(
                "validation", tmp_path
            )
        }
        for seed in (0, 0, 1)
    ]
    assert held_out[0] == held_out[1] != held_out[2]
    source = TableSource(path=path, target="y", validation_path=other)
    assert [len(source.examples(split, tmp_path)) for split in ("train", "validation")] == [200, 7]  # type: ignore[arg-type]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    source = TableSource(
        path=write(tmp_path / "a.csv", numbered(50)), target="y", validation_path=str(tmp_path)
    )
    assert len(source.examples("train", tmp_path)) == 50
    write(tmp_path / "a.csv", numbered(51))
    assert len(source.examples("train", tmp_path)) == 51


def test_the_card_lists_columns(tmp_path: Path) -> None:
    rows = [{**row, "gap": "" if n % 4 else n, "same": 1} for n, row in enumerate(numbered())]
    card = TableSource(path=write(tmp_path / "a.csv", rows), target="y", time_column="n").card(
        tmp_path
    )
    assert {name: about["kind"] for name, about in card["columns"].items()} == {
        **{
            "n": "numeric",
            "user": "categorical",
            "day": "date",
            "gap": "numeric",
            "same": "numeric",
        }
    }
    assert card["columns"]["gap"]["missing"] == pytest.approx(0.75)
    assert card["columns"]["user"] == {"kind": "categorical", "missing": 0.0, "distinct": 9}
    assert card["constant_columns"] == ["same"]
    assert card["targets"]["y"]["highest"] == pytest.approx(179 / 4)
    assert (card["train"], card["validation"]) == ({"examples": 180}, {"examples": 20})
    labels = TableSource(path=str(tmp_path / "a.csv"), target="user", time_column="n").card(
        tmp_path
    )["targets"]["user"]
    assert sum(labels["labels"].values()) == 180
    json.dumps(card)


# ------------------------------------------------------------------------------------ the processor
ROWS: list[dict[str, Any]] = [
    {"size": 1.0, "gap": "", "ok": "yes", "city": "Rome", "day": "2024-01-01", "same": "x"},
    {"size": 2.0, "gap": "4", "ok": "no", "city": "Oslo", "day": "2024-07-02", "same": "x"},
    {"size": 3.0, "gap": "nan", "ok": "yes", "city": "Rome", "day": "2023-12-31", "same": "x"},
    {"size": 6.0, "gap": "6", "ok": "yes", "city": "Pisa", "day": "2024-01-08", "same": "x"},
]


def test_numbers_are_scaled_and_gaps_filled_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "groundup"):
        fitted = fit(ROWS)
    assert "column 'same' is dropped" in caplog.text
    assert set(fitted.dropped) == {"same"}
    assert isinstance(fitted, InputProcessor)
    batch = fitted.encode_inputs(ROWS)
    values = batch["inputs"].double()
    assert values.dtype == torch.float64
    assert batch["inputs"].shape == (4, *fitted.input_shape)
    size = np.array([1.0, 2, 3, 6])
    torch.testing.assert_close(
        values[:, 0], torch.from_numpy((size - 3) / size.std()), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(
        values[:, 1], torch.tensor([0.0, -1, 0, 1]).double()
    )  # gap: mean 5, deviation 1
    assert values[:, 2].tolist() == [1, 0, 1, 0]  # that it is missing
    assert values[1, 3] < 0 < values[0, 3]  # ok
    assert fitted.category_sizes == (2,)  # Rome, and all others
    assert batch["categories"].tolist() == [[1], [0], [1], [0]]


def test_dates_become_numbers() -> None:
    fitted = fit(ROWS, scaling="none")
    (day,) = (column for column in fitted.columns if column.kind == "date")
    assert [part.name for part in day.parts] == [
        *("year", "month", "day_of_week", "day_of_year_sin", "day_of_year_cos", "seconds")
    ]
    numbers = fitted.encode_inputs(ROWS)["inputs"][:, -6:].double()
    assert numbers[:, 0].tolist() == [2024, 2024, 2023, 2024]
    assert numbers[:, 1].tolist() == [1, 7, 12, 1]
    assert numbers[:, 2].tolist() == [date.fromisoformat(row["day"]).weekday() for row in ROWS]
    torch.testing.assert_close(
        (numbers[:, 3] ** 2 + numbers[:, 4] ** 2), torch.ones(4).double(), rtol=0, atol=1e-6
    )
    assert numbers[0, 3:5].tolist() == [0.0, 1.0]
    assert numbers[1, 4] < -0.99
    assert numbers[:, 5].tolist() == [86400, 184 * 86400, 0, 8 * 86400]
    before = datetime(1969, 12, 30, tzinfo=UTC)
    old = fitted.encode_inputs([ROWS[0] | {"day": before}])["inputs"][0, -6:].tolist()
    assert old[:3] == [1969, 12, before.weekday()]


def test_scalings() -> None:
    values = [{"x": x} for x in (1.0, 2.0, 3.0, 4.0, 100.0)]
    robust = fit(values, scaling="robust").encode_inputs([*values, {"x": None}])["inputs"][:, 0]
    torch.testing.assert_close(robust, (torch.tensor([1.0, 2, 3, 4, 100, 22]) - 3) / 2)
    assert fit(values, scaling="none").encode_inputs(values)["inputs"][:, 0].tolist() == [
        1,
        2,
        3,
        4,
        100,
    ]
    mostly_one = [{"x": 1.0}] * 9 + [{"x": 2.0}]
    assert fit(mostly_one, scaling="robust").encode_inputs(mostly_one)["inputs"].std() > 0.5


def test_categories_by_frequency_and_kinds_that_are_given() -> None:
    rows = [{"id": n, "n": n} for n in (7, 7, 7, 5, 5, 5, 5, 3, 2, 2)]
    fitted = fit(rows, categorical=("id",), min_count=2)
    (column,) = (column for column in fitted.columns if column.kind == "categorical")
    assert column.values == ("5", "7", "2")
    asked = [{"id": value, "n": 1} for value in ("5", 7, 7.0, 3, 99, None, "")]
    assert fitted.encode_inputs(asked)["categories"][:, 0].tolist() == [1, 2, 2, 0, 0, 0, 0]
    assert fit(rows, categorical=("id",), min_count=1).category_sizes == (5,)
    assert {c.name: c.kind for c in fit(rows, dates=("id",)).columns} == {
        "id": "date",
        "n": "numeric",
    }
    words = [{"id": value, "n": 1} for value in ("1", "2", "")]
    assert {c.kind for c in fit(words, numeric=("id",)).columns} == {"numeric"}


def test_rows_of_any_form_give_the_same_and_so_does_what_was_saved(tmp_path: Path) -> None:
    fitted = fit(ROWS)
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    shared = [Row(columns, number) for number in (2, 0)]
    fitted.save(tmp_path)
    again = load_processor(tmp_path)
    assert isinstance(again, TableProcessor)
    assert (again.input_shape, again.category_sizes) == (fitted.input_shape, fitted.category_sizes)
    for rows in (shared, [dict(row) for row in shared], [json.dumps(dict(row)) for row in shared]):
        for made in (fitted, again):
            for name, values in made.encode_inputs(rows).items():
                assert torch.equal(values, fitted.encode_inputs(ROWS)[name][[2, 0]])
    again.save(tmp_path / "again")
    assert (tmp_path / "again" / "processor.json").read_bytes() == (
        tmp_path / "processor.json"
    ).read_bytes()


def test_one_row_does_not_depend_on_the_others() -> None:
    fitted = fit(ROWS)
    for n, row in enumerate(ROWS):
        for name, values in fitted.encode_inputs([row]).items():
            assert torch.equal(values[0], fitted.encode_inputs(ROWS)[name][n])


@pytest.mark.slow
def test_a_hundred_thousand_rows_in_seconds(tmp_path: Path) -> None:
    rows = [
        {
            "user": n % 943,
            "film": n % 1682,
            "when": 880000000 + n,
            **{f"x{k}": n * k % 97 for k in range(20)},
        }
        for n in range(100_000)
    ]
    path, begin = write(tmp_path / "rows.csv", rows), time.perf_counter()
    examples = TableSource(path=path, target="x1").examples("train", tmp_path)
    loaded = time.perf_counter()
    fitted = TableConfig(categorical=("user", "film"), dates=("when",)).fit(lambda: iter(examples))
    fitted.encode_inputs([example.inputs for example in examples])
    assert loaded - begin < 20
    assert time.perf_counter() - loaded < 20
