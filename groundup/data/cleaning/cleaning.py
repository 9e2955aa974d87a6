"""Cleaning of documents as a stream of counted steps; nothing is removed without being counted and
shown.

Source (repetition): Rae et al., "Scaling language models: methods, analysis & insights from
training Gopher", 2021, arXiv 2112.11446, table A1. Departs from the paper: one measure, the larger
of repeated lines and repeated 10-word runs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from pydantic import model_validator

from groundup.core.settings import Settings, setting
from groundup.core.values import Document
from groundup.data.cleaning.duplicates import NearDuplicates, run_hashes, words_of
from groundup.data.splitting.hash_split import UnionFind

__all__ = [
    "Cleaned",
    "Cleaning",
    "CleaningReport",
    "clean",
    "normalise_text",
    "repetition",
    "text_digest",
]

# Also what no one sees: zero-width spaces, word joiners, byte-order marks inside a text, and code
# points that are no characters. Tab, newline and carriage return stay, and U+200C and U+200D, which
# some scripts and emoji need.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\u200b\u2060\ufeff\ufdd0-\ufdef\ufffe\uffff]"
)
# of each reason in the data card: enough to see whether a filter is right
_EXAMPLES_A_REASON = 3
_EXAMPLE_CHARACTERS = 120
# words; long enough that prose seldom repeats one, and boilerplate always does
_REPEATED_RUN = 10


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

    def remove(self, reason: str, document: Document, *, kept_before: bool = False) -> None:
        """Count a document as removed; ``kept_before`` takes back that it was counted as kept."""
        self.removed[reason] = self.removed.get(reason, 0) + 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < _EXAMPLES_A_REASON:
            beginning = document.text[:_EXAMPLE_CHARACTERS]
            shown.append({"name": document.name, "origin": document.origin, "beginning": beginning})
        if kept_before:
            self.kept -= 1
            self.kept_characters -= len(document.text)

    def forget(self, reason: str, characters: int) -> None:
        """Count as removed a document that was kept at first, and of which only the length is still
        known."""
        self.removed[reason] = self.removed.get(reason, 0) + 1
        self.kept -= 1
        self.kept_characters -= characters

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a data card."""
        return asdict(self)


class Cleaned:
    """The kept documents, as an iterable to go through ONCE; ``report`` and ``group_of`` are
    complete after that.

    Only digests and, where near-duplicates matter, signatures of documents stay in memory, never
    texts.

    Attributes:
        report: What was kept and removed.
    """

    def __init__(
        self, documents: Iterable[Document], settings: Cleaning, key: Callable[[Document], str]
    ) -> None:
        self._documents = documents
        self._settings = settings
        self._key = key
        self.report = CleaningReport()
        self._digests: set[bytes] = set()
        self._near: NearDuplicates | None = None
        if settings.near_duplicates != "keep":
            self._near = NearDuplicates(settings.near_duplicate_threshold)
        # Chains of near-duplicates are one group: where a is near b and b is near c, all three stay
        # on one side.
        self._sets = UnionFind()
        self._keys_of: list[str] = []  # by signature, the smallest key of its documents
        self._signature_of: dict[str, int] = {}
        self._labels: dict[int, str] = {}

    def __iter__(self) -> Iterator[Document]:
        for document in self._documents:
            self.report.documents += 1
            self.report.characters += len(document.text)
            text = normalise_text(document.text, self._settings)
            changed = text != document.text
            if changed:
                document = Document(document.name, text, document.origin)
            # by the changed text, so that two spellings of one text are duplicates
            reason = self._reason_to_remove(document)
            if reason:
                self.report.remove(reason, document)
                continue
            self.report.changed += changed
            self.report.kept += 1
            self.report.kept_characters += len(text)
            yield document
        self._label_groups()

    def group_of(self, key: str) -> str:
        """Return the key that near-duplicates of a kept document share, or the document's own if it
        has none."""
        signature = self._signature_of.get(key)
        return key if signature is None else self._labels.get(self._sets.find(signature), key)

    def _reason_to_remove(self, document: Document) -> str | None:
        settings = self._settings
        length = len(document.text.strip())
        if length < settings.min_characters:
            return "too_short"
        if settings.max_characters is not None and length > settings.max_characters:
            return "too_long"
        if (
            settings.max_repetition is not None
            and repetition(document.text) > settings.max_repetition
        ):
            return "repetitive"
        if settings.drop_exact_duplicates:
            # digests, not texts: 16 bytes a document, however long it is
            digest = bytes.fromhex(text_digest(document.text))
            if digest in self._digests:
                return "exact_duplicate"
            self._digests.add(digest)
        # last, because it is the most expensive: signatures are made of what is kept so far alone
        return "near_duplicate" if self._is_near_duplicate(document) else None

    def _is_near_duplicate(self, document: Document) -> bool:
        """Return whether the document is to go; where near-duplicates are grouped, note what it is
        near to."""
        if self._near is None:
            return False
        grouping = self._settings.near_duplicates == "group"
        # where the later one is dropped, it need not be found again: its signature is not kept
        index, matches = self._near.match(document.text, remember=grouping)
        if not grouping:
            return bool(matches)
        key = self._key(document)
        if index == len(self._keys_of):
            self._keys_of.append(key)
        # the smallest key, so that the label of a group does not depend on the order of files
        self._keys_of[index] = min(key, self._keys_of[index])
        self._signature_of[key] = index
        for match in matches:
            self._sets.join(index, match)
        return False

    def _label_groups(self) -> None:
        # A group is called by its smallest key, not its first: then the side of the split on which
        # it falls does not depend on the order of the files.
        members = self._sets.members()
        self._labels = {
            first: min(self._keys_of[i] for i in group) for first, group in members.items()
        }
        # only documents in a group need a label: those alone, nearly all, are forgotten here
        inside = {i for group in members.values() for i in group}
        self._signature_of = {
            key: index for key, index in self._signature_of.items() if index in inside
        }
        self.report.near_duplicate_groups = len(members)
        self.report.near_duplicates_grouped = len(self._signature_of)


def clean(
    documents: Iterable[Document],
    settings: Cleaning,
    key: Callable[[Document], str] = lambda document: document.name,
) -> Cleaned:
    """Return the documents, normalised and without those that the settings remove.

    Args:
        documents: Any number of documents with names of their own.
        settings: What to change and remove.
        key: how ``Cleaned.group_of`` calls a document that is in no group; its name, unless said
            otherwise.
    """
    return Cleaned(documents, settings, key)


def normalise_text(text: str, settings: Cleaning) -> str:
    """Return the text as the settings change it; it depends on nothing else."""
    if settings.strip_control:
        text = _CONTROL.sub("", text)
    if settings.normalise == "none":
        return text
    return unicodedata.normalize(settings.normalise.upper(), text)  # type: ignore[arg-type]


def text_digest(text: str) -> str:
    """Return 32 hexadecimal digits, a hash of the text."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def repetition(text: str) -> float:
    """Return the share, 0 to 1, of a text that repeats an earlier part of it.

    The larger of: characters in lines that occurred before, over all characters in lines; words
        inside runs of 10 words
    that occurred before, over all words.
    """
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    seen: set[str] = set()
    repeated = 0
    for line in lines:
        if line in seen:
            repeated += len(line)
        seen.add(line)
    # the larger of two measures: lines find lists and menus, words text without line ends
    by_line = repeated / max(1, sum(map(len, lines)))
    return max(by_line, _repeated_words(words_of(text)))


def _repeated_words(words: list[str]) -> float:
    if len(words) <= _REPEATED_RUN:
        return 0.0
    runs = run_hashes(words, _REPEATED_RUN)
    # the first of equal runs is no repetition
    later = np.ones(len(runs), np.bool_)
    later[np.unique(runs, return_index=True)[1]] = False
    # A word is repeated when any run that covers it occurred before.
    edges = np.zeros(len(words) + 1, np.int64)
    starts = np.flatnonzero(later)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + _REPEATED_RUN, -1)
    return float(np.mean(np.cumsum(edges[:-1]) > 0))
