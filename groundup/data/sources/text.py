"""Documents from files or a Hugging Face data set: cleaned, counted, and split without leakage.

One pass over the text decides for every document whether it is kept and on which side it is (one
byte a document, in the cache); after that each split is one more pass. The text itself is never
whole in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from groundup.contracts.data import DataContext, Stream, Unlabelled
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Document, Split
from groundup.data.cleaning.cleaning import (
    Cleaned,
    Cleaning,
    CleaningReport,
    clean,
    normalise_text,
    text_digest,
)
from groundup.data.reading.location import Origin, no_examples
from groundup.data.reading.placement import Placement
from groundup.data.reading.source import Source
from groundup.data.reading.unlabelled import read_rows, texts_in
from groundup.data.schemas.missing import text_or_nothing
from groundup.data.splitting.drawing import SplitRule, split_examples
from groundup.data.splitting.held_out import HELD_OUT_FIRST
from groundup.data.stream.packing import Packing
from groundup.data.stream.token_stream import open_token_stream

__all__ = ["TextSource"]

_FORMAT = 2  # raise it when the same files would give other documents
_REMOVED = 0
_SIDES: dict[Split, int] = {"train": 1, "validation": 2, "test": 3}  # as bytes in the cache
_DIGEST_BYTES = 16
_GROUPS = 1000  # documents of which a share of none may be drawn
# the ends matter most: empty pages and whole books are what goes wrong
_PERCENTILES = (1, 10, 50, 90, 99)


@data("text")
class TextSource(Source):
    """Documents to learn from: files or folders of .txt .md .jsonl .json .csv .tsv .parquet, or a
    hub name."""

    packs_rows = True
    has_columns = True
    for_files = ("split_on",)

    column: str = setting("text", "column that holds the text, or a list of lines that are joined")
    split_on: str | None = setting(
        None,
        "cut .txt and .md files into documents: line, blank_line, or a separator; silent: one file,"
        " one document",
    )
    cleaning: Cleaning = setting(Cleaning(), "what is changed and removed")
    packing: Packing = setting(Packing(), "how documents become rows of tokens")

    def problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        if self.split_on == "":
            return "split_on is empty. Write line, blank_line or a separator, or remove it"
        return None

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        return Origin(self).splits

    def examples(self, split: Split, cache: Path) -> Iterator[Document]:
        """Yield the documents of a split in the order of the files; see ``DataSource.examples``.

        Raises:
            DataError: If the text cannot be read, or nothing is left for the split.
        """
        origin = Origin(self)
        sides = self._prepare(origin, cache)[0]
        wanted = _SIDES[split]
        # before the first document, not after the last
        if not np.any(sides == wanted):
            raise no_examples(split, origin, self._survey(origin).groups, "document")
        number = -1
        for number, (_, document) in enumerate(self._read_documents(origin)):
            if number < len(sides) and sides[number] == wanted:
                text = normalise_text(document.text, self.cleaning)
                yield Document(document.name, text, document.origin)
        if number + 1 != len(sides):
            raise DataError(
                origin.name,
                f"the files changed while they were read: {number + 1:,} documents after"
                f" {len(sides):,}",
                "Start again once nothing writes to them",
            )

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield the texts of a file or folder; see ``DataSource.unlabelled``."""
        texts = partial(texts_in, names=(self.column,))
        return read_rows(path, texts, self.encoding, text=self.column)

    def too_long_policy(self) -> str:
        """Return that of the packing."""
        return self.packing.too_long

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        return Origin(self).contents()

    def open(self, context: DataContext) -> Stream:
        """Return the packed micro-batches of a split; see ``DataSource.open``."""
        examples = partial(self.examples, context.split, context.cache)
        return open_token_stream(
            examples, f"text-{self._key(Origin(self))}-{context.split}", context, self.packing
        )

    def card(self, cache: Path) -> dict[str, Any]:
        """Return documents, characters, bytes and length percentiles of each split, and what
        cleaning did."""
        return self._prepare(Origin(self), cache)[1]

    def _key(self, origin: Origin) -> str:
        # packing is part of no document, and a licence is no reason to read everything again
        settings = self.model_dump_json(exclude={"packing", "licence"})
        key = hashlib.sha256(f"{_FORMAT}\0{settings}\0{origin.key()}".encode())
        return key.hexdigest()[:24]

    def _read_documents(self, origin: Origin) -> Iterator[tuple[Split, Document]]:
        """Yield every document as it was read: first those named as held out, if any, then the
        others."""
        for split in HELD_OUT_FIRST:
            if split != "train" and split not in origin.held_out:
                continue
            for record in origin.records(split, (self.column,), self.split_on):
                value = _join_lines(record.fields[self.column])
                text = text_or_nothing(value, record.origin, f"column {self.column!r}")
                name = record.name
                if split != "train":  # files of two splits may have the same name
                    name = f"{split}/{name}"
                yield split, Document(name, text, record.origin)

    def _prepare(
        self, origin: Origin, cache: Path
    ) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], dict[str, Any]]:
        """Return (documents,) the side of every document read, and the data card; from the cache if
        it is there."""
        folder = cache / f"text-{self._key(origin)}"
        if not (folder / "card.json").is_file():
            survey = self._survey(origin)
            folder.mkdir(parents=True, exist_ok=True)
            _write_whole(folder / "sides.bin", bytes(survey.sides))
            found = origin.about() | survey.card(origin.splits)
            text = json.dumps(found, ensure_ascii=False, indent=1)
            # the card comes last: where it is, the sides are there too
            _write_whole(folder / "card.json", text.encode("utf-8", "replace"))
        card = json.loads((folder / "card.json").read_bytes())
        sides = np.frombuffer((folder / "sides.bin").read_bytes(), np.uint8)
        # files that are not read change no text, but are counted as they are now
        about = origin.about()
        return sides, card | {key: about[key] for key in ("licence", "files") if key in about}

    def _survey(self, origin: Origin) -> _Survey:
        """Read everything once, and decide."""
        survey = _Survey()
        # One pass in the order test, validation, train: so of equal documents the held-out one is
        # kept, and a training document meets all that is held out.
        cleaned = clean(
            survey.watch(self._read_documents(origin)),
            self.cleaning,
            key=lambda document: text_digest(document.text),
        )
        held_out: dict[str, Split] = {}
        for document in cleaned:
            key = text_digest(document.text)
            owner = held_out.get(key, survey.named)
            if owner != survey.named:
                cleaned.report.remove(f"same_as_{owner}", document, kept_before=True)
                continue
            if survey.named != "train":
                held_out[key] = survey.named
            survey.keep(document, key)
            if origin.placement.columns:
                survey.origins.append(document.origin)
        if origin.held_out:
            survey.leave_out_groups_of_held_out(cleaned)
        if origin.placement.columns:
            survey.draw_by_columns(cleaned, self.rule.without(origin.held_out), origin.placement)
        else:
            survey.draw(cleaned, self.rule.without(origin.held_out))
        survey.groups = survey.groups_of(cleaned)[:_GROUPS]
        survey.report = cleaned.report
        return survey


@dataclass
class _Survey:
    """What is remembered of every document: a side; and of those kept: a digest and two lengths."""

    # Arrays of plain numbers: at a hundred million documents, a list of objects would not fit.
    sides: bytearray = field(default_factory=bytearray)
    named: Split = "train"
    origins: list[str] = field(default_factory=list)  # where groups or times are in columns
    report: CleaningReport = field(default_factory=CleaningReport)
    groups: list[str] = field(default_factory=list)  # the first, for messages
    _places: array[int] = field(default_factory=lambda: array("q"))
    _digests: bytearray = field(default_factory=bytearray)
    _characters: array[int] = field(default_factory=lambda: array("q"))
    _bytes: array[int] = field(default_factory=lambda: array("q"))

    def watch(self, documents: Iterable[tuple[Split, Document]]) -> Iterator[Document]:
        """Pass documents on, each counted as removed until it is kept."""
        for self.named, document in documents:
            # what the cleaning does not give back has been removed
            self.sides.append(_REMOVED)
            yield document

    def keep(self, document: Document, key: str) -> None:
        """Note the document that was passed on last as kept."""
        self.sides[-1] = _SIDES[self.named]
        self._places.append(len(self.sides) - 1)
        self._digests += bytes.fromhex(key)
        self._characters.append(len(document.text))
        self._bytes.append(len(document.text.encode()))

    def draw(self, cleaned: Cleaned, rule: SplitRule) -> None:
        """Put every group of the documents named for training on the side that its hash says."""
        for place, group in zip(self._places, self.groups_of(cleaned), strict=True):
            if self.sides[place] == _SIDES["train"]:
                self.sides[place] = _SIDES[rule.side_of(group)]

    def draw_by_columns(self, cleaned: Cleaned, rule: SplitRule, placement: Placement) -> None:
        """Put the documents named for training on the sides that their groups or times say, near
        duplicates together; a later copy that is held out takes the earlier out of training."""
        groups = self.groups_of(cleaned)
        keys = [(g, *placement.keys(o)) for g, o in zip(groups, self.origins, strict=True)]
        named = [self.sides[place] for place in self._places]
        taken = {
            key
            for own, side in zip(keys, named, strict=True)
            if side != _SIDES["train"]
            for key in own
        }
        drawn = [number for number, side in enumerate(named) if side == _SIDES["train"]]
        sides = split_examples(
            [keys[number] for number in drawn],
            [None] * len(drawn),
            rule,
            [placement.time(self.origins[number]) for number in drawn],
        )
        for number, side in zip(drawn, sides, strict=True):
            if side != "train":
                taken.update(keys[number])
        for number, side in zip(drawn, sides, strict=True):
            place = self._places[number]
            self.sides[place] = _SIDES[side]
            if side == "train" and not taken.isdisjoint(keys[number]):
                self.sides[place] = _REMOVED
                cleaned.report.forget("group_is_held_out", self._characters[number])

    def leave_out_groups_of_held_out(self, cleaned: Cleaned) -> None:
        """Remove the documents that are near-duplicates of named test or validation documents."""
        groups = self.groups_of(cleaned)
        placed = list(zip(self._places, groups, self._characters, strict=True))
        taken: dict[str, Split] = {}
        for split in HELD_OUT_FIRST:
            own = [item for item in placed if self.sides[item[0]] == _SIDES[split]]
            for place, group, characters in own:
                if group in taken:
                    self.sides[place] = _REMOVED
                    cleaned.report.forget(f"near_duplicate_of_{taken[group]}", characters)
            taken |= {group: split for _, group, _ in own if group not in taken}

    def card(self, splits: Iterable[Split]) -> dict[str, Any]:
        """Return counts by split and the cleaning report as plain values."""
        sides = np.frombuffer(bytes(self.sides), np.uint8)[np.asarray(self._places, np.int64)]
        counts: dict[str, Any] = {split: self._counts(sides == _SIDES[split]) for split in splits}
        return counts | {"cleaning": self.report.as_dict()}

    def _counts(self, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
        characters = np.asarray(self._characters, np.int64)[chosen]
        lengths = np.zeros(len(_PERCENTILES))
        if len(characters):
            lengths = np.percentile(characters, _PERCENTILES)
        return {
            "documents": int(chosen.sum()),
            "characters": int(characters.sum()),
            "bytes": int(np.asarray(self._bytes, np.int64)[chosen].sum()),
            "length_percentiles_characters": {
                f"p{rank}": round(float(length))
                for rank, length in zip(_PERCENTILES, lengths, strict=True)
            },
        }

    def groups_of(self, cleaned: Cleaned) -> list[str]:
        """Return what each kept document is drawn by."""
        starts = range(0, len(self._digests), _DIGEST_BYTES)
        return [
            cleaned.group_of(self._digests[start : start + _DIGEST_BYTES].hex()) for start in starts
        ]


def _join_lines(value: Any) -> Any:
    """Return a list of lines, such as a poem's, as one text; anything else as it is."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    return value


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also when several processes write the
    same."""
    # under another name first: a process that is killed leaves no half of a file
    partial_path = path.with_name(f"{path.name}.{os.getpid()}")
    partial_path.write_bytes(content)
    partial_path.replace(path)
