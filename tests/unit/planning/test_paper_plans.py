"""Plans on paper next to published runs: how far off they are, and that the documentation says so.

After a change that is meant to change the table: GROUNDUP_REWRITE_GOLDEN=1 python -m pytest
tests/unit/planning/test_paper_plans.py
"""

from __future__ import annotations

import os
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from published import (
    device_of,
    error_of,
    planned_gib,
    planned_mfu,
    published,
    table_rows,
    workload_of,
)

ROWS = published()
DOCS = Path(__file__).parents[3] / "docs"
# Farther off than the others: between machines these runs lost 2 to 3% that the plan knows nothing
# of, on top of what it is off by on one machine.
MISSED = {"llama3.1-8b-h100x128", "llama3.1-8b-h100x128-compiled"}
TABLE = re.compile(r"(?<=\|---\|---\|---\|---\|---\|---\|---\|\n)(?:\|.*\n)+")


@pytest.mark.parametrize(("name", "row"), ROWS.items(), ids=list(ROWS))
def test_mfu(name: str, row: dict[str, Any]) -> None:
    error = abs(error_of(planned_mfu(row), row, "mfu_percent"))
    assert (error > 0.15) == (name in MISSED), f"{error:.1%}"
    assert error < 0.2


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if "memory_gib" in row])
def test_memory(name: str) -> None:
    assert abs(error_of(planned_gib(ROWS[name]), ROWS[name], "memory_gib")) < 0.1
    assert planned_gib(ROWS[name]) * 2**30 < device_of(ROWS[name]).memory_bytes


def test_one_figure_is_fitted_to_the_rows_that_say_so() -> None:
    fitted = [row for row in ROWS.values() if row.get("fitted")]
    assert {row["device"] for row in fitted} == {"A100"}
    errors = [error_of(planned_mfu(row), row, "mfu_percent") for row in fitted]
    assert abs(statistics.mean(errors)) < 0.01


def test_the_layouts_are_those_of_the_published_numbers_of_devices() -> None:
    sizes = {name: workload_of(row).layout.size for name, row in ROWS.items()}
    for name, size in sizes.items():
        told = re.search(r"h100x(\d+)", name)
        assert told is None or int(told[1]) == size
    assert sizes["llama3.1-405b-131k"] == 16384
    papers = (row for row in ROWS.values() if row["source"].startswith("Llama 3 ("))
    tokens = {row["batch"] * row["length"] for row in papers}
    assert tokens == {2**24}  # the paper's 16 million


@pytest.mark.parametrize("page", ["outgrowing.md", "outgrowing.zh.md"])
def test_the_documentation_has_the_table(page: str) -> None:
    path = DOCS / page
    text = path.read_text(encoding="utf-8")
    rows = "\n".join(table_rows()) + "\n"
    if os.environ.get("GROUNDUP_REWRITE_GOLDEN") == "1":
        path.write_text(TABLE.sub(rows, text), encoding="utf-8")
        return
    assert TABLE.findall(text) == [rows]
