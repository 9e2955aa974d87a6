"""Sums of two numbers as prompts, for ``data: sums``: what is right is known, so that answers can
be scored; no pair of numbers is in two splits, in whatever order."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from groundup.contracts.data import DataContext, DataSource, Stream
from groundup.contracts.prompts import Prompt
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Message, Split
from groundup.data.stream.in_memory import open_indexed_stream

WORDS = {
    "number": "What is {a} + {b}? Answer with the number alone.",
    # An example, as anybody would give one: without it no drawn answer fits at first.
    "json": 'What is {a} + {b}? Answer with JSON alone, such as {{"a": 1, "b": 2, "sum": 3}}.',
}


@data("sums")
class Sums(DataSource):
    """Questions such as ``What is 12 + 34?``, with the column ``answer``."""

    low: int = setting(10, "Smallest number", ge=0)
    high: int = setting(99, "Largest number", ge=1)
    count: int = setting(2000, "Questions in all", ge=10)
    validation: int = setting(200, "How many of them are held out", ge=1)
    form: Literal["number", "json"] = setting("number", "How an answer is asked for")

    def examples(self, split: Split, cache: Path) -> list[Prompt]:
        """Return the questions of a split."""
        draws = random.Random(0)
        numbers = range(self.low, self.high + 1)
        pairs = [(a, b) for a in numbers for b in numbers if a <= b]
        draws.shuffle(pairs)
        found = []
        for place, (a, b) in enumerate(pairs[: self.count]):
            if (place < self.validation) != (split == "validation"):
                continue
            first, second = (a, b) if draws.random() < 0.5 else (b, a)
            question = WORDS[self.form].format(a=first, b=second)
            columns = {"answer": a + b}
            found.append(Prompt(f"{a}+{b}", (Message("user", question),), columns))
        return found

    def open(self, context: DataContext) -> Stream:
        """Return the prompts; the task has them answered."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many questions there are."""
        return {split: {"prompts": len(self.examples(split, cache))} for split in self.splits()}

    def contents(self) -> Mapping[str, Path | str]:
        """Return nothing: no file is read."""
        return {}
