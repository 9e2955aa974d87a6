"""Tables as tensors: what columns become, by what the training split shows."""

from __future__ import annotations

import csv
import json
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.contracts.processors import InputProcessor
from groundup.core.values import Example
from groundup.data.sources.table import TableSource
from groundup.media.table_values import Row
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


def fit(rows: list[dict[str, Any]], **settings: Any) -> TableProcessor:
    return TableConfig(**settings).fit(lambda: (Example(str(n), row) for n, row in enumerate(rows)))


# ------------------------------------------------------------------------------------ the processor
ROWS: list[dict[str, Any]] = [
    {"size": 1.0, "gap": "", "ok": "yes", "city": "Rome", "day": "2024-01-01", "same": "x"},
    {"size": 2.0, "gap": "4", "ok": "no", "city": "Oslo", "day": "2024-07-02", "same": "x"},
    {"size": 3.0, "gap": "nan", "ok": "yes", "city": "Rome", "day": "2023-12-31", "same": "x"},
    {"size": 6.0, "gap": "6", "ok": "yes", "city": "Pisa", "day": "2024-01-08", "same": "x"},
]


def test_numbers_are_scaled_and_gaps_filled_and_said() -> None:
    fitted = fit(ROWS)
    assert fitted.notes == (
        "column 'gap': 2 missing ('nan' 1)",
        "column 'ok': yes or no; 4 written like 'yes' for 1",
        "column 'city': 2 of 4 values are rarer than processor.min_count 2, and read as one unknown"
        " category",
        "column 'same' is dropped: it does not vary in the training split",
    )
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


def test_a_number_that_stands_for_no_value_is_noted() -> None:
    rows = [{"x": "-999" if n % 6 == 0 else f"{n / 4}"} for n in range(48)]
    (note,) = fit(rows).notes
    assert note.startswith("column 'x' holds -999 in 8 rows, far from all other numbers (0.25 to")
    assert note.endswith("set processor.missing_values=['-999']")
    # as the note says
    processor = fit(rows, missing_values=("-999",))
    assert processor.notes == ("column 'x': 8 missing ('-999' 8)",)
    # 99 among others like it is a number
    assert not any("99" in note for note in fit([{"x": n * 3 % 102} for n in range(204)]).notes)


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


def test_values_that_training_did_not_have_are_counted() -> None:
    rows = [{"a": str(n), "c": "xy"[n % 2]} for n in range(20)]
    processor = TableConfig().fit(lambda: iter([Example(str(n), r) for n, r in enumerate(rows)]))
    processor.encode_inputs([*rows, {"a": "", "c": "new"}, {"a": "3", "c": "new"}])
    assert processor.cut.filled() == [
        "1 values of column 'a' are missing, as none were in training (the mean is taken)",
        "2 values of column 'c' are none of the known categories (such as 'new')",
    ]
