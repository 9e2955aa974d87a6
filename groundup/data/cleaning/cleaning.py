"""What cleaning changes in documents and which it removes; nothing is removed without being counted
and shown."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any, Literal

from pydantic import model_validator

from groundup.core.settings import Settings, setting
from groundup.core.values import Document
from groundup.data.cleaning.repetition import repetition

__all__ = [
    "Cleaning",
    "CleaningReport",
    "digest_of",
    "normalise_text",
    "reason_to_remove",
    "text_digest",
]

# Also what no one sees: zero-width spaces, word joiners, byte-order marks inside a text, and code
# points that are no characters. Tab, newline and carriage return stay, and U+200C and U+200D, which
# some scripts and emoji need.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\u200b\u2060\ufeff\ufdd0-\ufdef\ufffe\uffff]"
)
# of each reason in the data card: enough to see whether a filter is right
EXAMPLES_A_REASON = 3
_EXAMPLE_CHARACTERS = 120


class Cleaning(Settings):
    """What is changed in documents, and which are removed."""

    normalise: Literal["none", "nfc", "nfkc"] = setting(
        "nfc", "Unicode normalisation; nfkc also makes full-width forms and ligatures plain"
    )
    strip_control: bool = setting(
        True, "remove control characters other than tab, newline and carriage return"
    )
    min_characters: int = setting(
        1, "remove documents with fewer characters, not counting white space at the ends", ge=0
    )
    max_characters: int | None = setting(None, "remove documents with more characters", ge=1)
    # off by default: code, tables and poems repeat themselves rightfully
    max_repetition: float | None = setting(
        None,
        "remove documents of which a larger share repeats earlier lines or 10-word runs; try 0.3",
        ge=0.0,
        le=1.0,
    )
    drop_exact_duplicates: bool = setting(
        True, "keep only the first of documents with the same text"
    )
    # grouping loses no text, and keeps the split honest; dropping is for crawled pages
    near_duplicates: Literal["keep", "drop", "group"] = setting(
        "group",
        "near-duplicates by MinHash. keep: ignore them; drop: keep the first; group: keep all, on"
        " one side of a split",
    )
    near_duplicate_threshold: float = setting(
        0.8,
        "share of common 5-word runs from which documents are near-duplicates",
        applies_when={"near_duplicates": ("drop", "group")},
        gt=0.0,
        lt=1.0,
    )

    @model_validator(mode="after")
    def _lengths_in_order(self) -> Cleaning:
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError(
                f"max_characters {self.max_characters} is below min_characters"
                f" {self.min_characters}, so that nothing could be kept. Raise max_characters or"
                " lower min_characters"
            )
        return self


@dataclass
class CleaningReport:
    """What cleaning did. ``examples`` shows the first documents removed for each reason: name,
    origin, beginning."""

    documents: int = 0
    characters: int = 0
    kept: int = 0
    kept_characters: int = 0
    changed: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    near_duplicate_groups: int = 0
    near_duplicates_grouped: int = 0

    def show(self, reason: str, document: Document) -> None:
        """Note a document as an example of what was removed, unless there are enough."""
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES_A_REASON:
            beginning = document.text[:_EXAMPLE_CHARACTERS]
            shown.append({"name": document.name, "origin": document.origin, "beginning": beginning})

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a data card."""
        return asdict(self)


def normalise_text(text: str, settings: Cleaning) -> str:
    """Return the text as the settings change it; it depends on nothing else."""
    if settings.strip_control:
        text = _CONTROL.sub("", text)
    if settings.normalise == "none":
        return text
    return unicodedata.normalize(settings.normalise.upper(), text)  # type: ignore[arg-type]


def reason_to_remove(text: str, settings: Cleaning) -> str | None:
    """Return why a text is removed, whatever other texts there are; None where it is not.

    Args:
        text: As ``normalise_text`` has changed it.
        settings: What is removed.
    """
    length = len(text.strip())
    if length < settings.min_characters:
        return "too_short"
    if settings.max_characters is not None and length > settings.max_characters:
        return "too_long"
    if settings.max_repetition is not None and repetition(text) > settings.max_repetition:
        return "repetitive"
    return None


def digest_of(text: bytes) -> bytes:
    """Return 16 bytes, a hash of a text in UTF-8."""
    return blake2b(text, digest_size=16).digest()


def text_digest(text: str) -> str:
    """Return 32 hexadecimal digits, a hash of the text."""
    return digest_of(text.encode()).hex()
