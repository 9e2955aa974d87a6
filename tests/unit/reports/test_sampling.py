"""What is looked at of data: a sample drawn from all, and copies among all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from groundup.media.table_values import Row
from groundup.reports.sampling import Copies, Sample


def test_a_sample_is_of_all_and_in_order() -> None:
    sample = Sample(100)
    sample.add(range(6_000))
    sample.add(range(6_000, 10_000))
    assert sample.total == 10_000
    assert len(sample.rows) == 100
    assert sample.rows == sorted(sample.rows)
    # the mean of 100 numbers drawn evenly is within four standard errors
    assert abs(np.mean(sample.rows) - 5_000) < 4 * 289
    assert sample.in_words == "100 of 10,000 rows, drawn with seed 0"
    again = Sample(100)
    again.add(range(10_000))
    assert again.rows == sample.rows


def test_few_examples_are_looked_at_all() -> None:
    sample = Sample(100)
    sample.add("abc")
    assert sample.rows == ["a", "b", "c"]
    assert sample.in_words == "all"


def test_copies_of_rows_arrays_texts_and_files(tmp_path: Path) -> None:
    columns = {"a": ["1", "1", "2"], "b": [0.5, 0.5, 0.5]}
    files = []
    for name, content in (("a", b"same"), ("b", b"same"), ("c", b"else"), ("d", b"longer")):
        (tmp_path / name).write_bytes(content)
        files.append(tmp_path / name)
    kinds = (
        [Row(columns, n, f"row {n}") for n in range(3)],
        [np.zeros(3), np.zeros(3), np.zeros(4)],
        ["a", "a", "b"],
        [("a", "b"), ("a", "b"), ("b", "a")],
        [files[0], files[1], files[2], files[3]],
    )
    for inputs in kinds:
        copies = Copies()
        copies.add("train", inputs)
        copies.add("validation", [inputs[0], inputs[2]])
        assert copies.count("train") == (1, 0), inputs
        assert copies.count("validation") == (0, 2), inputs
