"""Documents from files or a Hugging Face data set: cleaned, counted, and split without leakage.

One pass over the text decides for every document whether it is kept and on which side it lies (one
byte a document, in the cache); after that each split is one more pass. The text itself is never
whole in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import model_validator

from groundup.core.contracts.data import DataContext, DataSource, Stream
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Document, Split
from groundup.data.cleaning.cleaning import (
    Cleaned,
    Cleaning,
    CleaningReport,
    clean,
    normalised,
    text_digest,
)
from groundup.data.reading.files import checked_text
from groundup.data.reading.location import Origin, changed, no_examples, problem_with_origin
from groundup.data.splitting.hash_split import split_of
from groundup.data.stream.packing import Packing
from groundup.data.stream.token_stream import open_token_stream

__all__ = ["TextSource"]

_FORMAT = 1  # raise it when the same files would give other documents
_REMOVED, _TRAIN, _VALIDATION = 0, 1, 2
_DIGEST_BYTES = 16
_PERCENTILES = (1, 10, 50, 90, 99)


@data("text")
class TextSource(DataSource):
    """Documents to learn from: files or folders of .txt .md .jsonl .json .csv .tsv .parquet, or a
    hub name."""

    packs_rows = True
    path: str | list[str] | None = setting(
        None, "file or folder, or a list of them, relative to the current folder"
    )
    dataset: str | None = setting(
        None, "Hugging Face data set, such as roneneldan/TinyStories, instead of path"
    )
    subset: str | None = setting(None, "configuration of the data set")
    dataset_split: str = setting("train", "split of the data set that is read")
    revision: str | None = setting(None, "branch, tag or commit of the data set")
    streaming: bool = setting(False, "read the data set over the network without keeping it")
    column: str = setting("text", "column that holds the text, or a list of lines that are joined")
    split_on: str | None = setting(
        None,
        "cut .txt and .md files into documents: line, blank_line, or a separator; silent: one file,"
        " one document",
    )
    cleaning: Cleaning = setting(Cleaning(), "what is changed and removed")
    validation_fraction: float = setting(
        0.05, "share of documents held out for validation", ge=0.0, lt=1.0
    )
    validation_path: str | list[str] | None = setting(
        None, "files held out as they are, instead of a fraction"
    )
    validation_split: str | None = setting(
        None, "split of the data set held out as it is, instead of a fraction"
    )
    split_seed: int = setting(0, "another seed holds out other documents", ge=0)
    limit_documents: int | None = setting(None, "read at most so many documents", ge=1)
    licence: str = setting("", "licence of the text, for the data card")
    packing: Packing = setting(Packing(), "how documents become rows of tokens")

    @model_validator(mode="after")
    def _one_origin(self) -> TextSource:
        drawing = changed(self, "validation_fraction", "split_seed")
        cutting = ["split_on"] if self.split_on is not None else []
        problem = problem_with_origin(Origin.of(self), cutting, drawing)
        if problem is None and self.split_on == "":
            problem = "split_on is empty. Write line, blank_line or a separator, or remove it"
        if problem:
            raise ValueError(problem)
        return self

    def examples(self, split: Split, cache: Path) -> Iterator[Document]:
        """Yield the documents of a split in the order of the files; see ``DataSource.examples``.

        Raises:
            DataError: If the text cannot be read, or nothing is left for the split.
        """
        sides = self._prepared(cache)[0]
        wanted = _TRAIN if split == "train" else _VALIDATION
        if not np.any(sides == wanted):
            raise no_examples(split, Origin.of(self).name, self.validation_fraction)
        for side, (_, document) in zip(sides, self._documents(), strict=True):
            if side == wanted:
                yield Document(
                    document.name, normalised(document.text, self.cleaning), document.origin
                )

    def too_long_policy(self) -> str:
        """Return that of the packing."""
        return self.packing.too_long

    def open(self, context: DataContext) -> Stream:
        """Return the packed micro-batches of a split; see ``DataSource.open``."""
        examples = partial(self.examples, context.split, context.cache)
        return open_token_stream(
            examples, f"text-{self._key()}-{context.split}", context, self.packing
        )

    def card(self, cache: Path) -> dict[str, Any]:
        """Return documents, characters, bytes and length percentiles of each split, and what
        cleaning did."""
        return self._prepared(cache)[1]

    def _key(self) -> str:
        settings = self.model_dump_json(exclude={"packing", "licence"})
        return hashlib.sha256(
            f"{_FORMAT}\0{settings}\0{Origin.of(self).key()}".encode()
        ).hexdigest()[:24]

    def _documents(self) -> Iterator[tuple[Split, Document]]:
        """Yield every document as it was read: first those named for validation, if any, then the
        others."""
        origin = Origin.of(self)
        splits: tuple[Split, ...] = ("validation", "train") if origin.has_validation else ("train",)
        for split in splits:
            records = origin.records(split, (self.column,), self.split_on)
            for record in islice(records, self.limit_documents):
                text = checked_text(
                    _joined(record.fields[self.column]), record.origin, f"column {self.column!r}"
                )
                name = f"validation/{record.name}" if split == "validation" else record.name
                yield split, Document(name, text, record.origin)

    def _prepared(self, cache: Path) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], dict[str, Any]]:
        """Return (documents,) the side of every document read, and the data card; from the cache if
        it is there."""
        folder = cache / f"text-{self._key()}"
        if not (folder / "card.json").is_file():
            survey = self._survey()
            folder.mkdir(parents=True, exist_ok=True)
            _replace(folder / "sides.bin", bytes(survey.sides))
            card = json.dumps(
                {"source": Origin.of(self).name} | survey.card(), ensure_ascii=False, indent=1
            )
            _replace(folder / "card.json", card.encode("utf-8", "replace"))
        card = json.loads((folder / "card.json").read_bytes())
        sides = np.frombuffer((folder / "sides.bin").read_bytes(), np.uint8)
        return sides, card | {"licence": self.licence or "not stated"}

    def _survey(self) -> _Survey:
        """Read everything once, and decide."""
        survey = _Survey()
        cleaned = clean(
            survey.watch(self._documents()),
            self.cleaning,
            key=lambda document: text_digest(document.text),
        )
        held_out: set[str] = set()
        for document in cleaned:
            key = text_digest(document.text)
            if survey.named == "train" and key in held_out:
                cleaned.report.remove("same_as_validation", document, kept_before=True)
                continue
            if survey.named == "validation":
                held_out.add(key)
            survey.keep(document, key)
        if Origin.of(self).has_validation:
            survey.leave_out_groups_of_validation(cleaned)
        else:
            survey.draw(cleaned, self.validation_fraction, self.split_seed)
        survey.report = cleaned.report
        return survey


@dataclass
class _Survey:
    """What is remembered of every document: a side; and of those kept: a digest and two lengths."""

    sides: bytearray = field(default_factory=bytearray)
    named: Split = "train"
    report: CleaningReport = field(default_factory=CleaningReport)
    _places: array[int] = field(default_factory=lambda: array("q"))
    _digests: bytearray = field(default_factory=bytearray)
    _characters: array[int] = field(default_factory=lambda: array("q"))
    _bytes: array[int] = field(default_factory=lambda: array("q"))

    def watch(self, documents: Iterable[tuple[Split, Document]]) -> Iterator[Document]:
        """Pass documents on, each counted as removed until it is kept."""
        for self.named, document in documents:
            self.sides.append(_REMOVED)
            yield document

    def keep(self, document: Document, key: str) -> None:
        """Note the document that was passed on last as kept."""
        self.sides[-1] = _VALIDATION if self.named == "validation" else _TRAIN
        self._places.append(len(self.sides) - 1)
        self._digests += bytes.fromhex(key)
        self._characters.append(len(document.text))
        self._bytes.append(len(document.text.encode()))

    def draw(self, cleaned: Cleaned, fraction: float, seed: int) -> None:
        """Put every group on the side that its keyed hash says."""
        for place, group in zip(self._places, self._groups(cleaned), strict=True):
            self.sides[place] = (
                _VALIDATION if split_of(group, fraction, seed) == "validation" else _TRAIN
            )

    def leave_out_groups_of_validation(self, cleaned: Cleaned) -> None:
        """Remove the training documents that are near-duplicates of named validation documents."""
        groups = self._groups(cleaned)
        placed = list(zip(self._places, groups, self._characters, strict=True))
        held_out = {group for place, group, _ in placed if self.sides[place] == _VALIDATION}
        for place, group, characters in placed:
            if self.sides[place] == _TRAIN and group in held_out:
                self.sides[place] = _REMOVED
                cleaned.report.forget("near_duplicate_of_validation", characters)

    def card(self) -> dict[str, Any]:
        """Return counts by split and the cleaning report as plain values."""
        sides = np.frombuffer(bytes(self.sides), np.uint8)[np.asarray(self._places, np.int64)]
        splits: tuple[tuple[Split, int], ...] = (("train", _TRAIN), ("validation", _VALIDATION))
        return {split: self._counts(sides == side) for split, side in splits} | {
            "cleaning": self.report.as_dict()
        }

    def _counts(self, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
        characters = np.asarray(self._characters, np.int64)[chosen]
        lengths = (
            np.percentile(characters, _PERCENTILES)
            if len(characters)
            else np.zeros(len(_PERCENTILES))
        )
        return {
            "documents": int(chosen.sum()),
            "characters": int(characters.sum()),
            "bytes": int(np.asarray(self._bytes, np.int64)[chosen].sum()),
            "length_percentiles_characters": {
                f"p{rank}": round(float(length))
                for rank, length in zip(_PERCENTILES, lengths, strict=True)
            },
        }

    def _groups(self, cleaned: Cleaned) -> list[str]:
        starts = range(0, len(self._digests), _DIGEST_BYTES)
        return [
            cleaned.group_of(self._digests[start : start + _DIGEST_BYTES].hex()) for start in starts
        ]


def _joined(value: Any) -> Any:
    """Return a list of lines, such as a poem's, as one text; anything else as it is."""
    return (
        "\n".join(value)
        if isinstance(value, list) and all(isinstance(line, str) for line in value)
        else value
    )


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also when several processes write the
    same."""
    partial_path = path.with_name(f"{path.name}.{os.getpid()}")
    partial_path.write_bytes(content)
    partial_path.replace(path)
