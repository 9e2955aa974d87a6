"""How quickly data are read and encoded: rows a second of processor time, by kind of file.

Run ``python benchmarks/reading.py``. Files of every kind are made in a temporary folder, the same
at each run. Every kind is read through its source, then encoded through the task that learns from
it, with a tokenizer of bytes. Shown is the best of several rounds.

With ``--against TREE``, another checkout, both are measured in turns, each time in a process of its
own, and the ratio of their rates is shown; ``--only`` chooses kinds by a part of their name.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

__all__ = ["main"]

ROWS = 10_000
CHATS = 2_000
FILES = 1_000  # texts of each class
WORDS = [
    "the",
    "river:",
    "lamp",
    "cloud",
    "said",
    '"yes"',
    "to",
    "https://x.y",
    "time",
    "12:30",
    "good",
    "café",
    "茶很好",
]


def write_files(root: Path) -> None:
    """Write the files that are read."""
    chance = random.Random(0)

    def text(words: int) -> str:
        return " ".join(chance.choices(WORDS, k=words))

    rows = [{"text": text(80), "label": number % 3, "id": number} for number in range(ROWS)]
    with (root / "rows.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    write_lines(root / "rows.jsonl", map(json.dumps, rows))
    write_lines(root / "text.txt", (row["text"] for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), root / "rows.parquet")
    turns = [
        [{"role": "user", "content": text(30)}, {"role": "assistant", "content": text(60)}] * 3
        for _ in range(CHATS)
    ]
    write_lines(root / "chats.jsonl", (json.dumps({"messages": each}) for each in turns))
    with (root / "numbers.csv").open("w", newline="") as file:
        numbers = csv.writer(file)
        numbers.writerow([*(f"c{place}" for place in range(20)), "colour", "y"])
        for number in range(ROWS):
            values = [round(chance.random(), 4) for _ in range(20)]
            numbers.writerow([*values, chance.choice(["red", "green", "blue"]), number % 2])
    for label in "ab":
        (root / "texts" / label).mkdir(parents=True)
        for number in range(FILES):
            (root / "texts" / label / f"{number}.txt").write_text(text(200))
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = root / "digits" / f"digit {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype(np.uint8)).save(folder / f"{number}.png")


def write_lines(path: Path, lines: Iterator[str]) -> None:
    """Write a text of lines."""
    path.write_text("".join(f"{line}\n" for line in lines))


class Kind:
    """One kind of data: a source, and what encodes its examples."""

    def __init__(self, data: str, processor: str, task: str, **settings: Any) -> None:
        from groundup.core.registry import lookup

        self.source = lookup("data", data)(**settings)
        self.processor = lookup("processor", processor)()
        self.task = lookup("task", task)()
        self.examples: list[Any] = []

    def read(self, cache: Path) -> int:
        """Read all examples of the training split, and return how many there are."""
        from groundup.data.reading import columns

        columns.read_columns.cache_clear()
        self.examples = list(self.source.examples("train", cache))
        return len(self.examples)

    def encode(self, cache: Path) -> int:
        """Fit the processor and encode what was read."""

        def texts() -> Iterator[Any]:
            yield from self.examples

        processor = self.processor.fit(texts)
        processor = self.task.fit_processor(processor, texts)
        for first in range(0, len(self.examples), 1000):
            self.task.encode(self.examples[first : first + 1000], processor)
        return len(self.examples)


def make_kinds(root: Path) -> dict[str, Kind]:
    """Return what is measured, by name."""
    labelled = partial(Kind, "labelled_text", "bytes", "classify")
    # Near-duplicates take ten times as long to find as texts to read.
    alone = {"near_duplicates": "keep"}
    plain = partial(Kind, "text", "bytes", "language_modeling", cleaning=alone)
    return {
        "labelled text, CSV": labelled(path=str(root / "rows.csv")),
        "labelled text, JSONL": labelled(path=str(root / "rows.jsonl")),
        "labelled text, Parquet": labelled(path=str(root / "rows.parquet")),
        "labelled text, folders": labelled(path=str(root / "texts")),
        "plain text, CSV": plain(path=str(root / "rows.csv")),
        "plain text, JSONL": plain(path=str(root / "rows.jsonl")),
        "plain text, Parquet": plain(path=str(root / "rows.parquet")),
        "plain text, lines": plain(path=str(root / "text.txt"), split_on="line"),
        "plain text, whole files": plain(path=str(root / "texts")),
        "conversations": Kind("conversations", "bytes", "chat", path=str(root / "chats.jsonl")),
        "table, CSV": Kind(
            "table", "table", "classify", path=str(root / "numbers.csv"), target="y"
        ),
        "pictures, PNG": Kind("images", "image", "classify", path=str(root / "digits")),
    }


def measure(root: Path, rounds: int, only: str) -> dict[str, float]:
    """Return the best rate of each kind, read and encoded, in rows a second of processor time."""
    logging.getLogger("groundup").setLevel(logging.ERROR)
    rates: dict[str, float] = {}
    kinds = {name: kind for name, kind in make_kinds(root).items() if only in name}
    for _ in range(rounds):
        for name, kind in kinds.items():
            steps: dict[str, Callable[[Path], int]] = {"read": kind.read, "encoded": kind.encode}
            for step, work in steps.items():
                with tempfile.TemporaryDirectory() as cache:
                    begin = time.process_time()
                    count = work(Path(cache))
                    rate = count / (time.process_time() - begin)
                rates[f"{name}, {step}"] = max(rate, rates.get(f"{name}, {step}", 0.0))
            kind.examples = []
    return rates


def measure_tree(tree: Path, root: Path, only: str) -> dict[str, float]:
    """Return ``measure`` of a checkout in a process of its own."""
    script = str(Path(__file__).resolve())
    command = [sys.executable, script, "--files", str(root), "--only", only]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(tree.resolve())},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return dict(json.loads(done.stdout))


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--against", type=Path, metavar="TREE", help="another checkout")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--only", default="", help="kinds with this in their name")
    options.add_argument("--files", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.files:
        print(json.dumps(measure(given.files, 3, given.only)))
        return
    trees = [Path(__file__).parents[1], *([given.against] if given.against else [])]
    best: list[dict[str, float]] = [{} for _ in trees]
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        for _ in range(given.rounds):
            for tree, rates in zip(trees, best, strict=True):
                for name, rate in measure_tree(tree, Path(folder), given.only).items():
                    rates[name] = max(rate, rates.get(name, 0.0))
    for name, rate in best[0].items():
        line = f"| {name} | {rate:,.0f} |"
        if given.against:
            line += f" {best[1][name]:,.0f} | {rate / best[1][name]:.2f} |"
        print(line)


if __name__ == "__main__":
    main()
