"""Values of table cells: what each means, and what kind a column is of."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest

from groundup.media.table_values import as_boolean, as_category, as_date, as_number


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
    ("spellings", "label"),
    [
        ((1, 1.0, "1", "1.0", " 1 ", np.int64(1), np.float32(1), "1.00"), "1"),
        ((True, "true", "True", "TRUE ", np.bool_(True)), "true"),
        (("pos", "pos ", " pos", "pos\t", "pos\u00a0", "\ufeffpos", b"pos", np.str_("pos")), "pos"),
        (("Mu\u0308nchen", "M\u00fcnchen", "M\u00fcnchen".encode()), "M\u00fcnchen"),
        (("New  York", "New York", "New\u00a0York"), "New York"),
        (("007",), "007"),
        (("1.50",), "1.50"),
        (("Pos",), "Pos"),
        ((None, float("nan"), "", "  "), ""),
    ],
)
def test_a_label_has_one_spelling(spellings: tuple[Any, ...], label: str) -> None:
    assert {as_category(each) for each in spellings} == {label}
