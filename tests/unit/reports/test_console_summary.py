"""The printed summary, and numbers and names as a person reads them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from groundup.reports.console_summary import print_summary
from groundup.reports.formatting import (
    compact,
    duration,
    label,
    list_baselines,
    list_changes,
    memory,
    number,
    value,
)

PRETRAIN = {
    "bits_per_byte": 2.1,
    "baseline_unigram_bits_per_byte": 4.7,
    "baseline_xz_bits_per_byte": 2.9,
    "baseline_xz_given_train_bits_per_byte": 1.9,
    "perplexity": 37.2,
}
FINETUNE = {
    "answer_bits_per_byte": 1.5,
    "answer_bits_per_byte_other_question": 2.0,
    "base_answer_bits_per_byte": 3.0,
    "base_answer_bits_per_byte_other_question": 3.1,
    "rouge_l": 0.2,
    "base_rouge_l": 0.1,
}


def printed(summary: dict[str, Any], width: int = 100) -> str:
    out = io.StringIO()
    print_summary(summary, Console(file=out, width=width, highlight=False))
    return out.getvalue()


def test_the_summary_shows_baselines_changes_questions_and_what_to_do_next() -> None:
    rows = [[f"What is [bold]{i}[/bold]?", "long " * 60, "short\nanswer", 0.5] for i in range(12)]
    table = {
        "title": "Held-out questions",
        "columns": ["question", "before", "after", "ROUGE-L"],
        "rows": rows,
        "note": "n",
    }
    runs = [
        {
            "name": "pretrain",
            "folder": "runs/p",
            "seconds": 200.0,
            "evaluation": {"metrics": PRETRAIN, "tables": []},
        },
        {
            "name": "finetune",
            "folder": "runs/f",
            "seconds": 9.5,
            "evaluation": {"metrics": FINETUNE, "tables": [table]},
        },
    ]
    text = printed({"runs": runs, "report": "runs/f/report.html", "next": "groundup chat runs/f"})
    for expected in (
        "3 min 20 s",
        "this model",
        "xz -9 given the training text",
        "4.700",
        "perplexity",
        "-50.0%",
        "-25.0%",
        "+100.0%",
        "What is [bold]0",
        "short answer",
        "2 more in the report",
        "runs/f/report.html",
        "groundup chat runs/f",
    ):
        assert expected in text, expected
    assert max(len(line) for line in text.splitlines()) <= 100
    own, xz = (
        next(line for line in text.splitlines() if name in line)
        for name in ("this model", "text alone")
    )
    assert 0 < own.count("█") < xz.count("█")


@pytest.mark.parametrize(
    "summary", [{}, {"runs": []}, {"runs": [{"name": "x"}, {"evaluation": {"metrics": {}}}]}]
)
def test_a_summary_with_parts_missing_is_printed(summary: dict[str, Any]) -> None:
    assert printed(summary)


def test_baselines_come_best_first_and_need_the_model() -> None:
    assert [own for _, _, own in list_baselines(PRETRAIN)] == [False, True, False, False]
    assert list_baselines({"baseline_xz_bits_per_byte": 1.0}) == []


def test_changes_say_whether_they_helped() -> None:
    found = {change.label: change for change in list_changes(FINETUNE)}
    assert found["ROUGE-L"].better
    assert found["answer bits per byte"].percent == pytest.approx(-50)
    assert found["answer bits per byte"].better
    assert len(found) == 4


def test_words() -> None:
    assert [
        number(x) for x in (12345, 1234.5, 37.2, 1.8321, 0.5, 0.0123, 3e-4, 0, float("inf"))
    ] == [
        "12,345",
        "1,234",
        "37.20",
        "1.832",
        "0.500",
        "0.0123",
        "3.0e-04",
        "0",
        "inf",
    ]
    assert [duration(x) for x in (0.5, 42, 200, 7620)] == [
        "0.5 s",
        "42 s",
        "3 min 20 s",
        "2 h 07 min",
    ]
    assert (memory(640 * 2**20), memory(1.25 * 2**30), memory(12)) == (
        "640 MiB",
        "1.25 GiB",
        "12 B",
    )
    assert (compact(3.1e11, "FLOP/s"), compact(12300), compact(5)) == ("310 GFLOP/s", "12.3 k", "5")
    assert (value("matmul_share", 0.5), value("elapsed_s", 60), value("x", None)) == (
        "50.0%",
        "1 min 00 s",
        "–",
    )
    assert (value("x", True), value("size_bytes", 1024), value("flops_per_s", 2e9)) == (
        "yes",
        "1.00 KiB",
        "2.00 GFLOP/s",
    )
    assert label("base_rouge_l") == "ROUGE-L, before"
    assert label("tokens_per_s") == "tokens/s"
    assert label("baseline_xz_bits_per_byte") == "bits per byte, xz -9 of the text alone"
