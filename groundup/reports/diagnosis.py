"""What a diagnosis is: a verdict on the curves of a run, why, and what to change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from groundup.reports.curves import Curves
from groundup.reports.run_reader import RunRecord

__all__ = ["Diagnosis", "Rule", "Verdict"]

Verdict = Literal[
    "not validated",
    "rate too high",
    "rate too low",
    "diverged",
    "recovered",
    "no better than guessing",
    "no better than a baseline",
    "suspiciously good",
    "no signal",
    "overfitting",
    "noisy validation",
    "too short",
    "underfitting",
    "fine",
]


@dataclass(frozen=True)
class Diagnosis:
    """What the curves of a run say.

    Attributes:
        verdict: What is the matter; ``fine`` where nothing is.
        words: Why, in a few sentences, next to what guessing would reach.
        advice: Settings to try, those of the recipe first; empty where nothing is wrong.
    """

    verdict: Verdict
    words: str
    advice: str

    @property
    def line(self) -> str:
        """All of it in a line, marked unless nothing is the matter."""
        verdict = f"{self.verdict.capitalize()}. {self.words}"
        if self.verdict == "fine":
            return verdict
        return f"! {verdict} To try: {self.advice}."


Rule = Callable[[RunRecord, Curves], Diagnosis | None]
