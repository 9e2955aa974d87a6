"""Tables at every width: nothing is wider than the terminal, no number folds, nothing is cut."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType
from test_console_summary import FINETUNE, PRETRAIN
from test_run_tables import make_run

from groundup.reports.console_summary import print_summary
from groundup.reports.run_tables import (
    compare_runs,
    list_runs,
    make_comparison_table,
    make_runs_table,
)
from groundup.reports.tables import Grid, can_print

LONG = "reviews-of-books-and-hotels-lr-0.0003-width-256-layers-6-seed-1"
WIDTHS = (200, 80, 60, 40)


def rendered(table: RenderableType, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


def joined(text: str) -> str:
    """Return a text without the breaks and blanks that laying it out has put in."""
    return "".join(text.split())


@pytest.mark.parametrize("width", WIDTHS)
def test_names_fold_and_numbers_stay(width: int) -> None:
    rows = [(LONG, "transformer_classifier", "1,234,567", "0.123"), ("b", "gpt", "8", "12.5")]
    grid = Grid.of("Runs", ("run", "model", "step", "validation loss"), rows, numbers=2)
    text = rendered(grid, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for whole in ("transformer_classifier", "1,234,567", "0.123", "12.5", "validation"):
        assert whole in text, whole
    assert LONG in joined(text) or LONG[:16] in text


def test_rows_without_room_are_laid_out_one_by_one() -> None:
    rows = [("a", "1,234,567", "2,345,678", "3,456,789")]
    grid = Grid.of("", ("run", "first", "second", "third"), rows, numbers=1)
    assert rendered(grid, 80).splitlines()[1].split() == list(rows[0])
    assert rendered(grid, 30).splitlines() == [
        "a",
        "  first 1,234,567",
        "  second 2,345,678",
        "  third 3,456,789",
    ]


def test_markup_and_wide_characters_are_texts() -> None:
    grid = Grid.of(
        "[b]title", ("name", "n"), [("[red]x[/red]", "1"), ("床前明月光", "2")], numbers=1
    )
    text = rendered(grid, 80)
    assert "[b]title" in text
    assert "[red]x[/red]  1" in text
    assert "床前明月光    2" in text


def test_long_names_fold_behind_their_separators() -> None:
    rows = [("data.cleaning.near_duplicate_threshold", "a word or two more than there is room for")]
    lines = rendered(Grid.of("", ("key", "value"), rows), 50).splitlines()
    assert [line[:24].strip() for line in lines[1:3]] == [
        "data.cleaning.near_",
        "duplicate_threshold",
    ]
    assert "a word or two more" in lines[1]


@pytest.mark.parametrize("width", [80, 60])
def test_the_list_of_runs_and_a_comparison_keep_every_name(tmp_path: Path, width: int) -> None:
    runs = [make_run(tmp_path / name, name, 0.1 * n, 2.0 / n) for n, name in ((1, LONG), (2, "b"))]
    listed = rendered(make_runs_table(list_runs(tmp_path)), width)
    compared = rendered(make_comparison_table(compare_runs(runs)), width)
    for text in (listed, compared):
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        assert LONG in joined(text)
    assert "2.333" in listed
    assert "unfinished" in listed
    for words in ("validation loss", "optim.lr", "0.2"):
        assert words in compared


@pytest.mark.parametrize("width", [80, 60])
def test_the_summary_keeps_every_word(width: int) -> None:
    worst: dict[str, Any] = {
        "title": "Surest mistakes",
        "columns": ["text", "true", "predicted", "probability"],
        "rows": [["a film without any redeeming qualities", "negative", "positive", 0.991]],
    }
    metrics = [PRETRAIN, FINETUNE, {"held_out_examples": 1234.0, "quadratic_weighted_kappa": 0.5}]
    runs = [
        {"name": LONG, "evaluation": {"metrics": found, "tables": [worst]}} for found in metrics
    ]
    out = io.StringIO()
    print_summary({"runs": runs}, Console(file=out, width=width))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for words in ("quadratic weighted kappa", "redeeming", "negative", "probability", "0.991"):
        assert words in text, words
    assert LONG in joined(text)


def test_bars_are_of_characters_that_the_console_has() -> None:
    for encoding, block in (("utf-8", "█"), ("gbk", "█"), ("cp1252", "#"), ("ascii", "#")):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        console = Console(file=stream, width=80)
        assert can_print(console, block)
        print_summary({"runs": [{"evaluation": {"metrics": PRETRAIN}}]}, console)
        stream.flush()
        assert block in stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
