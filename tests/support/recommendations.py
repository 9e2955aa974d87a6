"""Interactions to learn from: each of scikit-learn's digits is a user, who chooses the pixels with
ink, row by row, and rates them by how much there is."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from groundup.data.sources.arrays import Arrays

INK = 6  # of 16, from which on a pixel is chosen


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a table, and return its path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return str(path)


def write_interactions(folder: Path, count: int = 60) -> dict[str, Any]:
    """Write interactions and what is known of users and items, and return the section ``data``."""
    digits = Arrays().examples("train", folder)[:count]
    rows = []
    for user, digit in enumerate(digits):
        for pixel, ink in enumerate(digit.inputs.reshape(-1).tolist()):
            if ink > INK:
                rows.append((f"u{user}", f"p{pixel}", ink, 1000 + pixel // 2))
    pixels = [(f"p{n}", f"row {n // 8}, column {n % 8}", n // 8, f"c{n % 8}") for n in range(64)]
    users = [(f"u{n}", f"digit {digit.target}", n % 3) for n, digit in enumerate(digits)]
    header = ("user", "item", "rating", "time")
    return {
        "name": "interactions",
        "path": write_rows(folder / "interactions.csv", header, rows),
        "items": write_rows(folder / "items.csv", ("item", "title", "row", "column"), pixels),
        "users": write_rows(folder / "users.csv", ("user", "digit", "third"), users),
    }
