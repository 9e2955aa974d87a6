"""What a model in training wrote or drew, for the report."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from groundup.reports.figures import show_picture
from groundup.reports.line_charts import thin
from groundup.reports.run_reader import RunRecord

__all__ = ["SAMPLES_SHOWN", "choose_samples"]

SAMPLES_SHOWN = 8
Row = dict[str, Any]
# What training calls them; a row may be anybody's, and names no file elsewhere.
_PICTURE = re.compile(r"samples/[\w-]+\.png")


def choose_samples(record: RunRecord) -> list[tuple[float, list[Row]]]:
    """Return a few moments of training with what was written or drawn then, grouped by step."""
    by_step: dict[float, list[Row]] = {}
    for row in record.sample:
        by_step.setdefault(row["step"], []).append(row)
    chosen = thin(list(by_step.items()), SAMPLES_SHOWN)
    return [(step, [_embed_picture(row, record.folder) for row in rows]) for step, rows in chosen]


def _embed_picture(row: Row, folder: Path) -> Row:
    """Return a sample with the picture that it names, where the run has it."""
    name = str(row.get("picture") or "")
    if not _PICTURE.fullmatch(name) or not (folder / name).is_file():
        return row
    content = base64.b64encode((folder / name).read_bytes()).decode("ascii")
    words = f"{row.get('prompt', '')} at step {row['step']}"
    return {**row, "shown": show_picture(f"data:image/png;base64,{content}", words)}
