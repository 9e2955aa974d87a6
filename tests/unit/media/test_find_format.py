"""How columns are written: numbers, dates and times as people and spreadsheets write them."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest

from groundup.media.column_format import AmbiguousColumn, Style
from groundup.media.find_format import Found, find_formats, look_at
from groundup.media.written_dates import parse_date
from groundup.media.written_numbers import clean


def find(values: list[Any], **style: Any) -> Found:
    return find_formats({"c": Counter(values)}, Style(**style))["c"]


def read(values: list[Any], **style: Any) -> list[float | None]:
    found = find(values, **style)
    return [found.format.read(value, found.kind) for value in values]


def seconds(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2.5", ""], "numeric"),
        (["0", "1"], "numeric"),
        (["NA", "1", "2"], "numeric"),
        (["yes", "no", ""], "boolean"),
        ([True, False, None], "boolean"),
        (["Y", "N", "-"], "boolean"),
        (["2024-01-01", "2024-01-02T10:00:00Z"], "date"),
        ([date(2024, 1, 1)], "date"),
        (["1", "2", "a"], "categorical"),
        (["", None], "categorical"),
        (["Rome", "Oslo"], "categorical"),
        # names made of digits
        (["007", "010", "100"], "categorical"),
        (["12A", "14B", "3C"], "categorical"),
        (["10.0.0.1", "10.0.0.2"], "categorical"),
        (["1_000", "2_000"], "categorical"),
        (["2020-21", "2021-22"], "categorical"),
    ],
)
def test_the_kind_of_a_column(values: list[Any], kind: str) -> None:
    assert look_at("c", dict.fromkeys(values, 1)).kind == kind


def test_a_column_of_numbers_with_a_few_words_is_numeric() -> None:
    assert look_at("c", {"1": 50, "2": 45, "x": 5}).kind == "numeric"
    assert look_at("c", {"1": 50, "2": 35, "x": 15}).kind == "categorical"


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["1,017", "1,234,567", "5"], [1017, 1234567, 5]),
        (["1,234.5", "2"], [1234.5, 2]),
        (["1.234,5", "2.000,25", "7"], [1234.5, 2000.25, 7]),
        (["0,25", "1,5"], [0.25, 1.5]),
        (["1.234.567", "12"], [1234567, 12]),
        (["12,34,567", "1,00,000.5"], [1234567, 100000.5]),
        (["1 234", "1\u00a0234,5", "1\u202f000"], [1234, 1234.5, 1000]),
        (["1'234", "1\u2019234.5"], [1234, 1234.5]),
        (["45%", "5 %", "0"], [0.45, 0.05, 0]),
        (["\u00a55", "\uffe51,200"], [5, 1200]),
        (["$1.5k", "$900", "-$2M", "$3B"], [1500, 900, -2e6, 3e9]),
        (["5\u5143", "1.2\u4e07\u5143"], [5, 12000]),
        (["(5)", "(1,234.50)", "6-", "7", "+8"], [-5, -1234.5, -6, 7, 8]),
        (["\u22125", "\u20136", "\uff0d7"], [-5, -6, -7]),
        (["\uff11\uff12", "13"], [12, 13]),
        (["1e5", "1E-2", "1,5e3", "0,1"], [1e5, 0.01, 1500, 0.1]),
        (["0x1F", "0x20"], [31, 32]),
        (["5 kg", "6kg", "7"], [5, 6, 7]),
        (["(5) €", "6 €"], [-5, 6]),
        (["100 EUR", "7 EUR"], [100, 7]),
        (["inf", "1", "-inf"], [math.nan, 1, math.nan]),
        ([".5", "5."], [0.5, 5]),
    ],
)
def test_numbers_however_they_are_written(values: list[Any], numbers: list[float]) -> None:
    assert find(values).kind == "numeric"
    assert read(values) == pytest.approx(numbers, nan_ok=True, rel=1e-15)


@pytest.mark.parametrize(
    ("values", "dates"),
    [
        (["31/12/1999", "01/02/2000"], [seconds(1999, 12, 31), seconds(2000, 2, 1)]),
        (["12/31/1999", "01/02/2000"], [seconds(1999, 12, 31), seconds(2000, 1, 2)]),
        (["1.2.2024"], [seconds(2024, 2, 1)]),
        (["2023/05/17", "2023.5.7"], [seconds(2023, 5, 17), seconds(2023, 5, 7)]),
        (["2023\u5e745\u670817\u65e5"], [seconds(2023, 5, 17)]),
        (["17 May 2023", "May 17, 2023", "17-May-23"], [seconds(2023, 5, 17)] * 3),
        (["Wed, 17 May 2023 10:00:00 +0200"], [seconds(2023, 5, 17, 8)]),
        (["2023-05-17T10:00Z", "2023-05-17 12:00:00+02:00"], [seconds(2023, 5, 17, 10)] * 2),
        (
            ["31/12/1999 10:30 PM", "31/12/1999"],
            [seconds(1999, 12, 31, 22, 30), seconds(1999, 12, 31)],
        ),
        (["20240131", 20240201], [seconds(2024, 1, 31), seconds(2024, 2, 1)]),
        (["2023-05", "05/2023"], [seconds(2023, 5, 1)] * 2),
        (["31/12/99", "31/12/24"], [seconds(1999, 12, 31), seconds(2024, 12, 31)]),
        (["2024-01-01", "n/a", "0000-00-00"], [seconds(2024, 1, 1), math.nan, math.nan]),
    ],
)
def test_dates_however_they_are_written(values: list[Any], dates: list[float]) -> None:
    assert find(values).kind == "date"
    assert read(values) == pytest.approx(dates, nan_ok=True)


def test_times_and_durations_are_seconds() -> None:
    assert read(["9:30", "9:30 pm", "-"]) == pytest.approx([34200, 77400, math.nan], nan_ok=True)
    assert read(["1:02:03.5", "2 days 03:00:00", "PT5M"]) == [3723.5, 183600, 300]
    values = [time(1, 0), timedelta(hours=-22), "-1 day, 2:00:00"]
    assert read(values) == [3600, -79200, -79200]


def test_numbers_that_are_raw_are_what_they_are() -> None:
    found = find(["45%", "5%"])
    assert found.format.read(0.45, "numeric") == 0.45
    assert found.format.read("45", "numeric") is None
    found = find(["0,5", "1,25"])
    assert found.format.read(1.5, "numeric") == 1.5
    assert found.format.read("1.234", "numeric") == 1234
    assert found.format.read("1.5", "numeric") is None
    # no number of the training split says what a comma is
    assert find(["5", "6"]).format.read("1,234", "numeric") is None
    assert find(["5.5", "6"]).format.read("1,234", "numeric") == 1234
    assert find(["$5", "$6"]).format.read("\u20ac6", "numeric") is None


@pytest.mark.parametrize(
    ("values", "problem", "remedy"),
    [
        (["1,5", "1,234"], "'1,5' and '1,234', where the same sign can be", "decimal: "),
        (["1,5", "1.5"], "'1,5' and '1.5', where the same", "decimal: "),
        (["45%", "5"], "'45%' and '5': with and without %", "or none"),
        (["$5", "\u20ac5"], "'$5' and '\u20ac5', numbers of two units", "categorical"),
        (
            ["01/02/2000", "03/04/2001"],
            "dates such as '01/02/2000', but no value says",
            "day_first",
        ),
        (
            ["31/12/1999", "12/31/1999"],
            "in one the day comes first, in the other the month",
            "2024",
        ),
        (["31-12-23", "30-12-23"], "dates such as '31-12-23', but no value", "day_first"),
        (["9:30", "1:02:03"], "'9:30' and '1:02:03': the first can be hours and minutes", "hours"),
        (
            [*map(str, range(20)), *["none known"] * 5],
            "80% of its values are numbers, 'none known' is not",
            "{section}.missing_values, such as",
        ),
    ],
)
def test_what_can_be_read_in_two_ways(values: list[Any], problem: str, remedy: str) -> None:
    with pytest.raises(AmbiguousColumn) as caught:
        find(values)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


def test_what_the_remedies_say() -> None:
    assert read(["1,5", "1,234"], decimal=",") == [1.5, 1.234]
    assert read(["1,234"], decimal=".") == [1234]
    assert read(["01/02/2000"], day_first=True) == [seconds(2000, 2, 1)]
    assert read(["01/02/2000"], day_first=False) == [seconds(2000, 1, 2)]
    marked = [*map(str, range(20)), *["none known"] * 5]
    found = find(marked, missing=("none known",))
    assert found.kind == "numeric"
    assert found.format.read("none known", "numeric") != found.format.read("none known", "numeric")


def test_one_column_decides_for_another() -> None:
    columns = {"a": ["01/02/2000"], "b": ["31/12/1999"], "c": ["1,234"], "d": ["0,5"]}
    found = find_formats({name: Counter(values) for name, values in columns.items()})
    assert found["a"].format.day_first is True
    assert found["c"].format.read("1,234", "numeric") == 1.234
    with pytest.raises(AmbiguousColumn, match=r"column 'c' holds '1.234', where the same sign"):
        find_formats({"c": Counter(["1.234"]), "d": Counter(["0,5"])})
    # between semicolons a comma is more often a decimal sign than not
    with pytest.raises(AmbiguousColumn, match="'1,234', where the same sign"):
        find(["1,234"], separator=";")
    assert read(["1,5", "1,234"], separator=";") == [1.5, 1.234]
    assert read(["1,234"]) == [1234]


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (
            ["1,017"] * 3 + ["-", "n/a", "-", "5"],
            "numbers; 3 written like '1,017' for 1017 (thousands separator ','); 3 missing ('-' 2,"
            " 'n/a' 1)",
        ),
        (["45%"], "numbers; 1 written like '45%' for 0.45 (unit '%')"),
        (["0,5"], "numbers; 1 written like '0,5' for 0.5 (decimal comma)"),
        (["31/12/1999"], "dates; 1 written like '31/12/1999' for 1999-12-31 (day first)"),
        (["20240131"], "dates of eight digits, such as '20240131'"),
        (["yes", "no"], "yes or no; 2 written like 'yes' for 1"),
        (["9:30"], "seconds; 1 written like '9:30' for 34200"),
        (
            ["007", "1"],
            "1 values begin with a zero, such as '007': read as categories, as names are; to read"
            " numbers, name it under processor.numeric",
        ),
        (
            [*map(str, range(100, 120)), *(f"A/{n} 7" for n in range(9))],
            "69% of its values are numbers, 'A/0 7', 'A/1 7', 'A/2 7' and others are not: read as"
            " categories; to read numbers, write all of them alike, and name what stands for no"
            " value under processor.missing_values",
        ),
        (["1", "inf"], "1 missing ('inf' 1)"),
    ],
)
def test_what_is_said(values: list[str], note: str) -> None:
    assert find(values).notes == [f"column 'c': {note}"]


def test_plain_columns_say_nothing() -> None:
    for values in (["1", "2.5", ""], ["a", "b"], ["2024-01-01"], [1.5, None], ["1e5", "2"]):
        assert find(values).notes == []


@pytest.mark.parametrize(
    ("texts", "day"),
    [
        (("3. März 2021", "03. Mrz. 2021", "Mittwoch, 3. März 2021", "MÄRZ 3, 2021"), "2021-03-03"),
        (("1er août 2020", "1 août 2020", "samedi 1 août 2020"), "2020-08-01"),
        (("5 de enero de 2019", "5 ene 2019", "5-ene-19", "5 jan. 2019"), "2019-01-05"),
    ],
)
def test_months_in_other_languages(texts: tuple[str, ...], day: str) -> None:
    for text in texts:
        found = parse_date(clean(text))
        assert found is not None, text
        assert datetime.fromtimestamp(found.seconds, UTC).date().isoformat() == day


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["~5", "ca. 9", "7"], [5, 9, 7]),
        (["£1.2m", "£300k", "£1 million"], [1.2e6, 3e5, 1e6]),
        (["5h 20m", "2h", "45m", "90 sec"], [19200, 7200, 2700, 90]),
        (["12h05", "9 h 30"], [43500, 34200]),
        (["#3", "#12"], [3, 12]),
        (["'42", '="7"', '"3"'], [42, 7, 3]),
        (["1 year", "2 years"], [1, 2]),
        (["2021Q3", "Q1 2021"], [seconds(2021, 7, 1), seconds(2021, 1, 1)]),
    ],
)
def test_amounts_as_people_write_them(values: list[str], numbers: list[float]) -> None:
    assert read(values) == numbers


@pytest.mark.parametrize(
    "values",
    [["5 kg", "300 g"], ["1.5MB", "20KB"], ["20 °C", "68 °F"], ["5", "7", "<3"], ["40", "100+"]],
)
def test_amounts_that_nobody_can_compare(values: list[str]) -> None:
    with pytest.raises(AmbiguousColumn) as caught:
        find(values)
    assert "under processor.categorical" in caught.value.remedy


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (["3-4", "10-12"], "values such as '3-4' are no numbers, dates or times"),
        (["1/2", "3/4"], "values such as '1/2' are no numbers"),
        (["Jan-21", "Feb-21"], "values such as 'Jan-21' are no numbers"),
        (["[1, 2]", "[3]"], "values such as '[1, 2]' are no numbers"),
        (["202101", "202112"], "look like a year and a month"),
        (["100000000148903034", "3"], "so large that neighbours are read as one"),
        (["1609459200000", "1609459300000"], "look like milliseconds since 1970"),
        (["1609459200", "1609459300"], "look like seconds since 1970: to read dates, name it"),
    ],
)
def test_what_is_read_otherwise_than_it_may_be_meant_is_said(values: list[str], note: str) -> None:
    assert note in " ".join(find(values).notes)


def test_much_white_space_takes_no_time() -> None:
    for text in ("(1" + " " * 100_000 + "x", "(" + " " * 100_000 + "x1"):
        assert look_at("c", {text: 1}).kind == "categorical"
