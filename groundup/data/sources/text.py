"""Documents from files or a Hugging Face data set: cleaned, counted, and split without leakage.

One pass over the text decides for every document whether it is kept and on which side it is (one
byte a document, in the cache); after that each split is one more pass. The text itself is never
whole in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from groundup.contracts.data import DataContext, Stream, Unlabelled
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Document, Split
from groundup.data.cleaning.cleaning import Cleaning, CleaningReport, normalise_text
from groundup.data.cleaning.facts import SIDES, FactsWriter
from groundup.data.cleaning.survey import Survey
from groundup.data.reading.location import Origin, no_examples
from groundup.data.reading.source import Source
from groundup.data.reading.unlabelled import read_rows, texts_in
from groundup.data.schemas.missing import text_or_nothing
from groundup.data.splitting.held_out import HELD_OUT_FIRST
from groundup.data.stream.packing import Packing
from groundup.data.stream.token_stream import open_token_stream
from groundup.data.stream.working_folder import open_working_folder

__all__ = ["TextSource"]

_FORMAT = 3  # raise it when the same files would give other documents, or other files in the cache


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
        wanted = SIDES[split]
        # before the first document, not after the last
        if not np.any(sides == wanted):
            folder = cache / f"text-{self._key(origin)}"
            groups = json.loads((folder / "groups.json").read_bytes())
            raise no_examples(split, origin, groups, "document")
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
            with open_working_folder(folder) as own:
                report, origins = self._examine(origin, own)
                survey = self._survey(origin, own, report, origins)
                # Before some is read again: what was met is counted for the last reading.
                found = origin.about()
                self._show_removed(origin, survey)
                self._keep_survey(folder, found | survey.card(origin.splits), survey)
        card = json.loads((folder / "card.json").read_bytes())
        sides = np.frombuffer((folder / "sides.bin").read_bytes(), np.uint8)
        # files that are not read change no text, but are counted as they are now
        about = origin.about()
        return sides, card | {key: about[key] for key in ("licence", "files") if key in about}

    def _examine(self, origin: Origin, folder: Path) -> tuple[CleaningReport, list[str]]:
        """Read everything once, and note the facts of each document in a folder."""
        origins: list[str] = []  # where groups or times are in columns
        # In the order test, validation, train: so of equal documents the held-out one is kept, and
        # a training document meets all that is held out.
        with FactsWriter(folder, self.cleaning) as writer:
            for split, document in self._read_documents(origin):
                writer.add(split, document)
                if origin.placement.columns:
                    origins.append(document.origin)
        return writer.report, origins

    def _survey(
        self, origin: Origin, folder: Path, report: CleaningReport, origins: list[str]
    ) -> Survey:
        """Decide, from the facts in a folder, on which side each document is."""
        survey = Survey(folder, self.cleaning, self.rule, origin.held_out, report)
        if origin.placement.columns:
            survey.draw_by_columns(origins, origin.placement)
        else:
            survey.draw()
        return survey

    def _show_removed(self, origin: Origin, survey: Survey) -> None:
        """Read the first documents again that were removed because of others, for the card."""
        wanted = survey.examples()
        if not wanted:
            return
        # only as far as the last of them: mostly the first few thousand documents
        documents = islice(self._read_documents(origin), max(wanted) + 1)
        for number, (_, document) in enumerate(documents):
            if number in wanted:
                text = normalise_text(document.text, self.cleaning)
                shown = Document(document.name, text, document.origin)
                survey.report.show(wanted[number], shown)

    def _keep_survey(self, folder: Path, card: dict[str, Any], survey: Survey) -> None:
        """Write sides and card to the cache."""
        folder.mkdir(parents=True, exist_ok=True)
        _write_whole(folder / "sides.bin", survey.sides.tobytes())
        _write_whole(folder / "groups.json", json.dumps(survey.groups).encode())
        text = json.dumps(card, ensure_ascii=False, indent=1)
        # the card comes last: where it is, the others are there too
        _write_whole(folder / "card.json", text.encode("utf-8", "replace"))


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
