"""Values of table cells: what each means, and what kind a column is of."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest

from groundup.media.table_values import as_boolean, as_category, as_date, as_number, kind_of


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
