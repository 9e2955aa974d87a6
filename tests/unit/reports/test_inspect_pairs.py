"""What is shown of pairs: counts, lengths of both sides and what is cut, and the pairs themselves."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from groundup import api


@pytest.mark.slow
def test_pairs_are_counted_measured_and_shown(tmp_path: Path) -> None:
    rows = [{"source": f"number {n}" + "!" * n, "target": f"{n}, twice: {n}"} for n in range(40)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = {
        "name": "pairs",
        "model": {"name": "encoder_decoder", "layers": 1, "width": 16, "heads": 2},
        "task": {"name": "text_to_text", "metrics": [], "max_source_tokens": 40},
        "data": {"name": "parallel_text", "path": str(path), "fraction": 0.2},
        "processor": "bytes",
        "training": {"steps": 1},
    }
    console = Console(width=120, record=True, file=io.StringIO())
    for part in api.inspect_data(recipe, examples=1, limit=10):
        console.print(part)
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    (pairs,) = (line for line in lines if line.startswith("pairs "))
    train, validation = map(int, pairs.split()[1:])
    assert train + validation == 40
    assert f"looked at 10 of {train} rows, drawn with seed 0" in " ".join(lines)
    assert any(line.startswith("source train ") and line.endswith(" 40") for line in lines)
    assert any(line.startswith("target validation ") for line in lines)
    assert any(line.startswith("target / source train 0.") for line in lines)
    assert any(
        "source texts are longer than max_source_tokens 40 and cut" in line for line in lines
    )
    shown = next(n for n, line in enumerate(lines) if re.match("train: .*pairs.jsonl line", line))
    assert lines[shown + 1].startswith("number ")
    assert lines[shown + 2].startswith("→ ")
