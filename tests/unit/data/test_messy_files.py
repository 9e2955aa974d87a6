"""Files as people make them: every row is used or counted as left out, and every value is what
Python, or pandas, reads in it."""

from __future__ import annotations

import csv
import io
import json
import random
import tempfile
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.core.errors import DataError
from groundup.core.values import Example, Split
from groundup.data.sources.labelled_text import LabelledText
from groundup.data.sources.table import TableSource
from groundup.processors.class_targets import SingleLabel
from groundup.processors.table import TableConfig

pytestmark = pytest.mark.xdist_group("hypothesis")  # it reads the whole package once

# A table takes 0.014 s of processor time; the slow tests below try many.
_FAST = settings(
    max_examples=4,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
_FULL = settings(_FAST, max_examples=1200, derandomize=False)
_MARKS = ["", "NA", "n/a", "-", "null", "?", "NaN", "unknown", "#N/A", "--", "None"]
_TEXTS = ["good tea", "bad; very, bad", 'a "quoted" cup', "Grüße aus Köln", "茶很好", "two\nlines"]
_LABELS = {
    "pos": ["pos", "pos ", " pos", "pos\u00a0"],
    "né": ["né", "ne\u0301", "né "],
    "1": ["1", "1.0", " 1 "],
    "true": ["true", "True", "TRUE"],
}


@dataclass(frozen=True)
class Style:
    """How a file is written."""

    seed: int
    separator: str
    suffix: str
    ends: str
    quoting: int
    encoding: str
    decimal: str
    rows: int
    gaps: float


@st.composite
def styles(draw: Any) -> Style:
    return Style(
        draw(st.integers(0, 2**32 - 1)),
        draw(st.sampled_from(",;\t|")),
        draw(st.sampled_from([".csv", ".tsv"])),
        draw(st.sampled_from(["\n", "\r\n"])),
        draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])),
        draw(st.sampled_from(".,")),
        draw(st.integers(12, 40)),
        draw(st.sampled_from([0.0, 0.1, 0.3])),
    )


# ------------------------------------------------------------------------------------------ columns
def make_columns(style: Style, chance: random.Random) -> dict[str, tuple[list[Any], list[str]]]:
    """Return columns by name: what is meant, None where nothing is, and how it is written."""

    def number(value: float, group: str) -> str:
        text = f"{value:,.2f}"
        return text.translate({ord(","): group, ord("."): style.decimal})

    group = chance.choice(["", " ", "'", {".": ",", ",": "."}[style.decimal]])
    cents = [chance.randrange(-(10**8), 10**8) / 100 for _ in range(style.rows)]
    # one of each sign, so that what they are can be told
    cents[:2] = [1234567.25, 12.5]
    ids = [chance.randrange(10**6) for _ in range(style.rows)]
    shares = [chance.randrange(-50, 150) for _ in range(style.rows)]
    days = [
        date(1990, 1, 13) + timedelta(days=31 * chance.randrange(400)) for _ in range(style.rows)
    ]
    days = [day.replace(day=chance.randrange(13, 29)) for day in days]
    moments = [datetime(day.year, day.month, day.day, 9, day.day) for day in days]
    truths = [chance.random() < 0.5 for _ in range(style.rows)]
    words = chance.choice([("yes", "no"), ("Y", "N"), ("TRUE", "false"), ("t", "f"), ("on", "off")])
    cities = [
        chance.choice(["Köln", "Łódź", "a;b", 'c"d', "e,f", "g\th", "i|j"])
        for _ in range(style.rows)
    ]
    form = chance.choice(["%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d %B %Y", "%d.%m.%Y"])
    codes = [f"{chance.randrange(40):04}" for _ in range(style.rows)]
    codes[0] = "0007"
    minus = chance.choice(["-", "\u2212", "("])

    def signed(text: str) -> str:
        if not text.startswith("-") or minus == "-":
            return text
        return f"({text[1:]})" if minus == "(" else minus + text[1:]

    return {
        "price": (cents, [signed(number(value, group)) for value in cents]),
        "paid €": (cents, [signed(number(value, group)) + " €" for value in cents]),
        "id": (ids, [str(value) for value in ids]),
        "share": ([value / 100 for value in shares], [f"{value}%" for value in shares]),
        "day": (days, [day.strftime(form) for day in days]),
        "at": (moments, [moment.strftime(form + " %H:%M") for moment in moments]),
        "member": (truths, [words[0] if truth else words[1] for truth in truths]),
        "city": (cities, cities),
        "code": (codes, codes),
    }


def with_gaps(
    columns: dict[str, tuple[list[Any], list[str]]], gaps: float, chance: random.Random
) -> dict[str, tuple[list[Any], list[str]]]:
    """Return the columns with some values missing, but for the first two rows."""
    found = {}
    for name, (meant, written) in columns.items():
        meant, written = list(meant), list(written)
        # a word in a column of categories is a category
        for row in range(2, len(meant)) if name not in ("city", "code") else ():
            if chance.random() < gaps:
                meant[row], written[row] = None, chance.choice(_MARKS)
        found[name] = (meant, written)
    return found


def write(path: Path, style: Style, header: list[str], rows: list[list[str]]) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(
        buffer,
        delimiter=style.separator,
        quoting=style.quoting,
        lineterminator=style.ends,  # type: ignore[arg-type]
    )
    writer.writerows([header, *rows])
    path.write_bytes(buffer.getvalue().encode(style.encoding))


def plain(value: Any) -> Any:
    """Return a value as JSON and Parquet would give it."""
    return value.isoformat(" ") if isinstance(value, datetime) else value


# ------------------------------------------------------------------------------------------- checks
def check_table(style: Style, *, with_pandas: bool = False) -> None:
    chance = random.Random(style.seed)
    columns = with_gaps(make_columns(style, chance), style.gaps, chance)
    keys = list(_LABELS)
    classes = [chance.choice(keys) for _ in range(style.rows)]
    classes[:4] = keys
    header = [*columns, "y"]
    written = [list(row) for row in zip(*(cells for _, cells in columns.values()), strict=True)]
    for row, label in zip(written, classes, strict=True):
        row.append(chance.choice(_LABELS[label]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{style.suffix}"
        write(path, style, header, written)
        source = TableSource(path=str(path), target="y", fraction=chance.choice([0.0, 0.25]))
        splits: dict[Split, list[Example]] = {
            split: source.examples(split, path.parent) for split in source.splits()
        }
        # every row is used, once
        numbers = [
            int(example.name.rpartition(":")[2]) - 1 for own in splits.values() for example in own
        ]
        assert sorted(numbers) == list(range(style.rows))
        if all(
            row in {int(e.name.rpartition(":")[2]) - 1 for e in splits["train"]} for row in range(4)
        ):
            check_values(splits, columns, classes)
            if with_pandas:
                check_pandas(path, style, columns)


def check_values(
    splits: dict[Split, list[Example]],
    columns: dict[str, tuple[list[Any], list[str]]],
    classes: list[str],
) -> None:
    """Check that rows give the tensors that the meant values give, whatever the split."""
    fit = TableConfig(scaling="none", min_count=1, categorical=("code",))

    def meant(example: Example) -> Example:
        row = int(example.name.rpartition(":")[2]) - 1
        values = {name: plain(values[row]) for name, (values, _) in columns.items()}
        return Example(example.name, values)

    read = fit.fit(lambda: iter(splits["train"]))
    expected = fit.fit(lambda: map(meant, splits["train"]))
    assert [(c.name, c.kind) for c in read.columns] == [(c.name, c.kind) for c in expected.columns]
    targets = SingleLabel.fit(example.target for example in splits["train"])
    assert set(targets.labels) <= {label.replace("é", "é") for label in _LABELS}
    for own in splits.values():
        found = read.encode_inputs([example.inputs for example in own])
        wanted = expected.encode_inputs([meant(example).inputs for example in own])
        for name, values in wanted.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-6, equal_nan=False)
        labels = [targets.labels[n] for n in targets.encode([example.target for example in own])]
        assert labels == [classes[int(e.name.rpartition(":")[2]) - 1] for e in own]


def check_pandas(path: Path, style: Style, columns: dict[str, tuple[list[Any], list[str]]]) -> None:
    """Where pandas can read the numbers, they are those that were meant."""
    pandas = pytest.importorskip("pandas")
    group = {".": ",", ",": "."}[style.decimal]
    table = pandas.read_csv(
        path,
        sep=style.separator,
        decimal=style.decimal,
        thousands=group,
        na_values=_MARKS,
        encoding=style.encoding,
    )
    for name in ("id", "price"):
        if table[name].dtype.kind in "if":
            values = np.array([np.nan if v is None else v for v in columns[name][0]], np.float64)
            np.testing.assert_allclose(table[name].to_numpy(np.float64), values)


def check_texts(style: Style, as_json: bool) -> None:
    chance = random.Random(style.seed)
    rows = []
    for number in range(style.rows):
        text = f"{chance.choice(_TEXTS)} {chance.randrange(style.rows)}"
        if chance.random() < 0.1:
            text = chance.choice(["", "  ", "\t"])
        label = chance.choice(list(_LABELS)) if number >= len(_LABELS) else list(_LABELS)[number]
        rows.append((text, label, chance.choice(_LABELS[label])))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("rows.jsonl" if as_json else f"rows{style.suffix}")
        if as_json:
            lines = (json.dumps({"text": t, "label": spelt}) + style.ends for t, _, spelt in rows)
            path.write_text("".join(lines), "utf-8", newline="")
        else:
            write(path, style, ["text", "label"], [[text, spelt] for text, _, spelt in rows])
        source = LabelledText(path=str(path), fraction=0.2)
        try:
            found = {split: source.examples(split, path.parent) for split in source.splits()}
        except DataError as error:
            if "nothing is left for validation" in str(error):
                return  # of few rows chance may hold out none
            raise
        card = source.card(path.parent)
    used = [example for own in found.values() for example in own]
    assert len(used) + card["set_aside"] + card["same_as_held_out"] == len(rows)
    assert card["set_aside"] == sum(not text.strip() for text, *_ in rows)
    targets = SingleLabel.fit(example.target for example in used)
    for example in used:
        text, label, _ = rows[int(example.name.rpartition(":")[2]) - 1]
        assert example.inputs == text
        assert targets.labels[int(targets.encode([example.target]))] == label


@pytest.mark.slow
@_FAST
@given(styles())
def test_tables(style: Style) -> None:
    check_table(style)


@_FAST
@given(styles(), st.booleans())
def test_labelled_texts(style: Style, as_json: bool) -> None:
    check_texts(style, as_json)


@pytest.mark.slow
@_FULL
@given(styles())
def test_many_tables(style: Style) -> None:
    check_table(style, with_pandas=True)


@pytest.mark.slow
@_FULL
@given(styles(), st.booleans())
def test_many_labelled_texts(style: Style, as_json: bool) -> None:
    check_texts(style, as_json)
