"""Which pairs of a source and its target are not worth learning from; each that is left out is
counted by its reason."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from pydantic import model_validator

from groundup.core.settings import Settings, setting
from groundup.core.values import Example
from groundup.data.cleaning.cleaning import text_digest

__all__ = ["PairFilters", "PairReport", "filter_pairs"]

Script = Literal[
    "arabic",
    "cyrillic",
    "devanagari",
    "greek",
    "han",
    "hangul",
    "hebrew",
    "japanese",
    "latin",
    "thai",
]
# The first word of the names of a script's letters in Unicode; Japanese is written in three.
_NAMES: dict[Script, tuple[str, ...]] = {
    "han": ("CJK",),
    "japanese": ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"),
}
# of each reason in the data card: enough to see whether a filter is right
_SHOWN = 3
_SHOWN_CHARACTERS = 80


class PairFilters(Settings):
    """Which pairs are left out, besides those of which a side is empty."""

    drop_duplicates: bool = setting(True, "keep only the first of pairs that are the same")
    # Off: of names and numbers the copy is the right translation, and of a text without mistakes
    # its correction.
    drop_copies: bool = setting(False, "leave out pairs whose target is the source itself")
    max_length_ratio: float | None = setting(
        None, "leave out pairs of which one side has more than N times the other's characters", gt=1
    )
    source_script: Script | None = setting(
        None, "leave out sources with too few letters of this script"
    )
    target_script: Script | None = setting(
        None, "leave out targets with too few letters of this script"
    )
    # A quarter: technical Chinese names products and commands in Latin letters.
    min_script_share: float = setting(
        0.25, "share of a text's letters that must be of the script", gt=0, le=1
    )

    @model_validator(mode="after")
    def _share_has_an_effect(self) -> PairFilters:
        default = type(self).model_fields["min_script_share"].default
        named = (self.source_script, self.target_script)
        if self.min_script_share != default and named == (None, None):
            raise ValueError(
                "min_script_share has no effect without source_script or target_script. Set one of"
                " them, or remove it"
            )
        return self


@dataclass
class PairReport:
    """What was left out.

    Attributes:
        found: How many pairs there were.
        left_out: How many were left out, by the reason.
        further_answers: Answers that are not read, of questions that have several.
        examples: Of each reason the first few: where, and how source and target begin.
    """

    found: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    further_answers: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, pair: Example, reason: str) -> None:
        """Count a pair as left out."""
        self.left_out[reason] += 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < _SHOWN:
            sides = (pair.inputs[:_SHOWN_CHARACTERS], pair.target[:_SHOWN_CHARACTERS])
            shown.append(f"{pair.origin}: {sides[0]!r} -> {sides[1]!r}")

    def about(self) -> dict[str, Any]:
        """Return what a data card says: pairs found, read and left out; these add up."""
        card: dict[str, Any] = {"found": self.found, "read": self.found - self.left_out.total()}
        if self.left_out:
            card["left_out"] = dict(sorted(self.left_out.items()))
            card["left_out_examples"] = self.examples
        if self.further_answers:
            card["further_answers_not_read"] = self.further_answers
        return card


def filter_pairs(
    pairs: Iterable[Example], filters: PairFilters, report: PairReport
) -> Iterator[Example]:
    """Yield the pairs that are kept, in order.

    Args:
        pairs: With texts as ``inputs`` and ``target``.
        filters: The settings.
        report: What is left out is counted here.
    """
    # Of one split: what is in two of them is taken out where splits are made, with other counts.
    seen: set[str] = set()
    for pair in pairs:
        report.found += 1
        reason = _reason_to_leave_out(pair.inputs.strip(), pair.target.strip(), filters)
        if not reason and filters.drop_duplicates:
            digest = text_digest(f"{pair.inputs}\0{pair.target}")
            if digest in seen:
                reason = "the same as an earlier pair"
            seen.add(digest)
        if reason:
            report.leave_out(pair, reason)
        else:
            yield pair


def _reason_to_leave_out(source: str, target: str, filters: PairFilters) -> str:
    if not source or not target:
        side = "source" if target else "target"
        return f"with an empty {side}" if source or target else "with both sides empty"
    if filters.drop_copies and source == target:
        return "whose target is the source itself"
    ratio = filters.max_length_ratio
    if ratio is not None and max(len(source), len(target)) > ratio * min(len(source), len(target)):
        return f"with sides more than {ratio:g} times as long as the other"
    for side, text, script in (
        ("source", source, filters.source_script),
        ("target", target, filters.target_script),
    ):
        if script is not None and _share_of(script, text) < filters.min_script_share:
            return f"whose {side} is not in {script} letters"
    return ""


def _share_of(script: Script, text: str) -> float:
    """Return the share of a text's letters that are of a script; 1 where it has no letters."""
    wanted = _NAMES.get(script, (script.upper(),))
    # Digits and marks are of no script, and are in texts of all.
    letters = [character for character in text if character.isalpha()]
    if not letters:
        return 1.0
    return sum(_script_of(letter) in wanted for letter in letters) / len(letters)


@lru_cache(maxsize=100_000)
def _script_of(letter: str) -> str:
    # Python knows no scripts, but the name of a letter begins with that of its script; of wide and
    # narrow forms that of the plain letter does.
    plain = unicodedata.normalize("NFKC", letter)
    return unicodedata.name(plain[0], "").partition(" ")[0]
