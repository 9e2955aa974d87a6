"""In which direction runs and trials are ranked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from groundup.reports.run_tables import _find_best
from groundup.tuning.page import Trial, write_tuning_report


@pytest.mark.parametrize(
    ("name", "best"),
    [("loss", 0.5), ("rmse", 0.5), ("accuracy", 2.0), ("macro_f1", 2.0), ("base_loss", None)],
)
def test_the_best_run_of_a_comparison(name: str, best: float | None) -> None:
    assert _find_best(name, [1.0, None, 0.5, 2.0]) == best
    assert _find_best(name, [1.0, 1.0]) is None


@pytest.mark.parametrize(("metric", "order"), [("loss", [1, 0, 2]), ("accuracy", [2, 0, 1])])
def test_trials_are_ranked_by_what_is_better(metric: str, order: list[int], tmp_path: Path) -> None:
    trials = [
        Trial(n, "complete", found, {"optim.lr": 0.1}, {1: found})
        for n, found in enumerate((0.6, 0.5, 0.7))
    ]
    page = write_tuning_report(tmp_path, "x", metric, trials, {}, "").read_text(encoding="utf-8")
    assert f"trial {order[0]};" in page
    rows = re.findall(r"<tr[^>]*>\s*<td[^>]*>(\d)</td>", page)
    assert [int(row) for row in rows] == order
