"""Documents from files or a Hugging Face data set: cleaned, counted, and split without leakage.

One pass over the text decides for every document whether it is kept and on which side it is (one
byte a document, in the cache); after that each split is one more pass. The text itself is never
whole in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.data import DataContext, Part, Stream, Unlabelled
from groundup.core.errors import DataError, RecipeError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Document, Split
from groundup.data.cleaning.cleaning import Cleaning, CleaningReport, normalise_text
from groundup.data.cleaning.document_parts import (
    PartsFolder,
    documents_of_part,
    files_of_part,
    write_part,
)
from groundup.data.cleaning.facts import SIDES, FactsWriter
from groundup.data.cleaning.survey import Survey
from groundup.data.reading.location import Origin, no_examples
from groundup.data.reading.source import Source
from groundup.data.reading.unlabelled import read_rows, texts_in
from groundup.data.schemas.missing import text_or_nothing
from groundup.data.splitting.held_out import HELD_OUT_FIRST
from groundup.data.stream.packing import Packing
from groundup.data.stream.published import write_published
from groundup.data.stream.shard_writer import prepare_shards
from groundup.data.stream.token_stream import open_token_stream, tokens_folder
from groundup.data.stream.working_folder import open_working_folder

__all__ = ["TextSource"]

_PARTS = "parts"  # of corpora that several jobs prepare, in the cache
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
        self._refuse_empty(split, origin, sides, cache)
        number = -1
        for number, (_, document) in enumerate(self._read_documents(origin)):
            if number < len(sides) and sides[number] == wanted:
                text = normalise_text(document.text, self.cleaning)
                yield Document(document.name, text, document.origin)
        if number + 1 != len(sides):
            raise _changed(
                origin, f"while they were read: {number + 1:,} documents after {len(sides):,}"
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
        name = self._tokens_name(Origin(self), context.split)
        return open_token_stream(examples, name, context, self.packing)

    def write_tokens(self, address: str, processor: Path, contexts: Sequence[DataContext]) -> int:
        """Write the tokens of all splits to an address; see ``KeepsTokens``."""
        folders = {}
        for context in contexts:
            examples = partial(self.examples, context.split, context.cache)
            folder = tokens_folder(self._tokens_name(Origin(self), context.split), context)
            folders[context.split] = prepare_shards(folder, examples, context.encode).folder
        card = self.card(contexts[0].cache)
        return write_published(address, processor, folders, contexts[0].encode_key, card)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return documents, characters, bytes and length percentiles of each split, and what
        cleaning did."""
        return self._prepare(Origin(self), cache)[1]

    # ---------------------------------------------------------------------------------------- parts
    def is_joined(self, cache: Path) -> bool:
        """Return whether the documents are decided on; see ``PreparesInParts``."""
        return (self._folder(Origin(self), cache) / "card.json").is_file()

    def examine_part(self, part: Part, cache: Path, sample_bytes: int) -> bool:
        """Note the facts of a part's documents; see ``PreparesInParts``.

        Raises:
            DataError: If the files change meanwhile.
            RecipeError: If documents are held out by columns, all values of which must be known.
        """
        origin = self._origin_of_parts()
        parts = self._parts(origin, part.of, cache)
        if parts.is_there(part.number):
            return False
        files = files_of_part(origin, part)
        if files is None:
            # every part reads all files then: the first one counts what it meets in them
            files = [file for split in origin.splits for _, file in origin.files(split)]
            files = files if part.number == 1 else []
        documents = documents_of_part(origin, lambda: self._read_documents(origin), part)
        about = self._about(origin)
        write_part(parts.folder(part.number), documents, self.cleaning, about, files, sample_bytes)
        if self._about(Origin(self)) != about:
            shutil.rmtree(parts.folder(part.number))
            raise _changed(origin, f"while part {part} read them")
        return True

    def join_examined(self, parts: int, cache: Path, sample_bytes: int) -> None:
        """Decide on the documents of all parts; see ``PreparesInParts``."""
        origin = self._origin_of_parts()
        found = self._parts(origin, parts, cache)
        found.refuse_missing(self._about(origin), origin.name)
        folder = self._folder(origin, cache)
        next(self._read_documents(origin), None)  # which columns are read is known from then on
        with open_working_folder(folder) as own:
            met = found.join(own)
            survey = self._survey(origin, own, CleaningReport(), [])
            found.draw_texts(survey.sides == SIDES["train"], sample_bytes)
            self._keep_survey(folder, origin, survey, met)

    def drawn_texts(self, cache: Path, sample_bytes: int) -> Callable[[], Iterator[str]] | None:
        """Return what gives the texts that parts have drawn; see ``PreparesInParts``."""
        return self._parts(Origin(self), 1, cache).drawn_texts(sample_bytes)

    def encode_part(self, part: Part, context: DataContext) -> bool:
        """Make the tokens of a part's documents of a split; see ``PreparesInParts``."""
        origin = self._origin_of_parts()
        if tokens_folder(self._tokens_name(origin, context.split), context).is_dir():
            return False
        parts = self._parts(origin, part.of, context.cache)
        parts.refuse_missing(self._about(origin), origin.name)
        sides = self._prepare(origin, context.cache)[0]
        self._refuse_empty(context.split, origin, sides, context.cache)
        folder = parts.tokens_folder(part.number, context)
        if folder.is_dir():
            return False

        def examples() -> Iterator[Document]:
            documents = documents_of_part(origin, lambda: self._read_documents(origin), part)
            numbers = parts.numbers_of(part.number)
            for (_, _, document), number in zip(documents, numbers, strict=True):
                if sides[number] == SIDES[context.split]:
                    text = normalise_text(document.text, self.cleaning)
                    yield Document(document.name, text, document.origin)

        prepare_shards(folder, examples, context.encode, may_be_empty=True)
        return True

    def join_encoded(self, parts: int, context: DataContext) -> None:
        """Put the tokens of all parts together; see ``PreparesInParts``."""
        origin = self._origin_of_parts()
        folder = tokens_folder(self._tokens_name(origin, context.split), context)
        if folder.is_dir():
            return
        found = self._parts(origin, parts, context.cache)
        found.refuse_missing(self._about(origin), origin.name)
        found.refuse_missing_tokens(context, origin.name)
        sides = self._prepare(origin, context.cache)[0]
        self._refuse_empty(context.split, origin, sides, context.cache)
        chosen = sides == SIDES[context.split]
        prepare_shards(
            folder,
            lambda: found.encoded(chosen, context),
            lambda batch: [each.sequence for each in batch],
        )

    def remove_parts(self, cache: Path) -> None:
        """Remove what was kept for parts; see ``PreparesInParts``."""
        shutil.rmtree(cache / _PARTS / self._key(Origin(self)), ignore_errors=True)

    def _parts(self, origin: Origin, of: int, cache: Path) -> PartsFolder:
        return PartsFolder(cache / _PARTS, self._key(origin), of)

    def _origin_of_parts(self) -> Origin:
        origin = Origin(self)
        if origin.placement.columns:
            named = "group_column" if self.group_column is not None else "time_column"
            raise RecipeError(
                f"recipe.data.{named}",
                "has all groups or times in memory, which no part knows",
                "Remove it, or run groundup data prepare without --part",
            )
        return origin

    def _about(self, origin: Origin) -> dict[str, Any]:
        """Return what a part is made of and with, to say what differs."""
        files = {}
        for name, content in origin.contents().items():
            files[name] = str(content)
            if isinstance(content, Path):
                status = content.stat()
                files[name] = f"{status.st_size:,} bytes of {status.st_mtime_ns}"
        settings = self.model_dump(mode="json", exclude={"packing", "licence"})
        return {"name": origin.name, "settings": settings, "files": files, "version": _FORMAT}

    # ------------------------------------------------------------------------------------ decisions
    def _folder(self, origin: Origin, cache: Path) -> Path:
        return cache / f"text-{self._key(origin)}"

    def _tokens_name(self, origin: Origin, split: Split) -> str:
        return f"text-{self._key(origin)}-{split}"

    def _refuse_empty(
        self, split: Split, origin: Origin, sides: NDArray[np.uint8], cache: Path
    ) -> None:
        if not np.any(sides == SIDES[split]):
            groups = json.loads((self._folder(origin, cache) / "groups.json").read_bytes())
            raise no_examples(split, origin, groups, "document")

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

    def _prepare(self, origin: Origin, cache: Path) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Return (documents,) the side of every document read, and the data card; from the cache if
        it is there."""
        folder = self._folder(origin, cache)
        if not (folder / "card.json").is_file():
            with open_working_folder(folder) as own:
                report, origins = self._examine(origin, own)
                # before any file is read again, and only in part
                files = [file for split in origin.splits for _, file in origin.files(split)]
                met = sum((file.notes for file in files), Counter[str]())
                survey = self._survey(origin, own, report, origins)
                self._keep_survey(folder, origin, survey, met)
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

    def _keep_survey(self, folder: Path, origin: Origin, survey: Survey, met: Counter[str]) -> None:
        """Write sides and card to the cache."""
        self._show_removed(origin, survey)
        folder.mkdir(parents=True, exist_ok=True)
        _write_whole(folder / "sides.bin", survey.sides.tobytes())
        _write_whole(folder / "groups.json", json.dumps(survey.groups).encode())
        found = origin.about(met) | survey.card(origin.splits)
        text = json.dumps(found, ensure_ascii=False, indent=1)
        # the card comes last: where it is, the others are there too
        _write_whole(folder / "card.json", text.encode("utf-8", "replace"))


def _changed(origin: Origin, when: str) -> DataError:
    problem = f"the files changed {when}"
    return DataError(origin.name, problem, "Start again once nothing writes to them")


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
