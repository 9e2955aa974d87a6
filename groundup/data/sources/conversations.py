"""Conversations to fine-tune on, from files or a Hugging Face data set, in the shapes people keep
them in."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import model_validator

from groundup.core.contracts.data import DataContext, DataSource, Stream
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Conversation, Document, Message, Split
from groundup.data.cleaning.cleaning import text_digest
from groundup.data.reading.files import ROW_KINDS, checked_text
from groundup.data.reading.location import Origin, changed, no_examples, problem_with_origin
from groundup.data.schemas.chat_formats import ChatFormat, recognise, to_messages
from groundup.data.schemas.tool_calls import tools_of
from groundup.data.splitting.hash_split import split_of
from groundup.data.stream.packing import Packing
from groundup.data.stream.token_stream import open_token_stream

__all__ = ["ConversationSource", "first_question"]

_FORMAT = 2  # raise it when the same files would give other conversations
_PERCENTILES = (1, 10, 50, 90, 99)
_Grouped = tuple[Conversation | Document, str]  # an example, and what it is split by


@data("conversations")
class ConversationSource(DataSource):
    """Conversations from .jsonl .json .csv .tsv .parquet files, a folder of them, or a hub name.

    Conversations with the same first question lie on the same side of the split. Rows that hold
    nothing but a text are plain documents, all of which is learned.
    """

    packs_rows = True
    path: str | list[str] | None = setting(
        None, "file or folder, or a list of them, relative to the current folder"
    )
    dataset: str | None = setting(
        None, "Hugging Face data set, such as HuggingFaceTB/smoltalk, instead of path"
    )
    subset: str | None = setting(None, "configuration of the data set")
    dataset_split: str = setting("train", "split of the data set that is read")
    revision: str | None = setting(None, "branch, tag or commit of the data set")
    streaming: bool = setting(False, "read the data set over the network without keeping it")
    format: Literal["auto", "messages", "sharegpt", "alpaca", "pairs", "text"] = setting(
        "auto", "shape of the rows; auto recognises it by the columns"
    )
    invalid_rows: Literal["error", "skip"] = setting(
        "error",
        "what to do with a conversation that cannot be learned from; skipped ones are counted in"
        " the data card",
    )
    validation_fraction: float = setting(
        0.05, "share of conversations held out for validation", ge=0.0, lt=1.0
    )
    validation_path: str | list[str] | None = setting(
        None, "files held out as they are, instead of a fraction"
    )
    validation_split: str | None = setting(
        None, "split of the data set held out as it is, instead of a fraction"
    )
    split_seed: int = setting(0, "another seed holds out other conversations", ge=0)
    limit_conversations: int | None = setting(None, "read at most so many rows", ge=1)
    licence: str = setting("", "licence of the conversations, for the data card")
    packing: Packing = setting(Packing(), "how conversations become rows of tokens")

    @model_validator(mode="after")
    def _one_origin(self) -> ConversationSource:
        drawing = changed(self, "validation_fraction", "split_seed")
        if problem := problem_with_origin(Origin.of(self), (), drawing):
            raise ValueError(problem)
        return self

    def examples(self, split: Split, cache: Path) -> Iterator[Conversation | Document]:
        """Yield the conversations of a split in the order of the files; see
        ``DataSource.examples``.

        Raises:
            DataError: If a row cannot be learned from, or nothing is left for the split.
        """
        empty = True
        for example, _ in self._side(split, Counter()):
            empty = False
            yield example
        if empty:
            raise no_examples(split, Origin.of(self).name, self.validation_fraction)

    def too_long_policy(self) -> str:
        """Return that of the packing."""
        return self.packing.too_long

    def open(self, context: DataContext) -> Stream:
        """Return the packed micro-batches of a split; see ``DataSource.open``."""
        settings = self.model_dump_json(exclude={"packing", "licence"})
        key = hashlib.sha256(
            f"{_FORMAT}\0{settings}\0{Origin.of(self).key(ROW_KINDS)}".encode()
        ).hexdigest()[:24]
        examples = partial(self.examples, context.split, context.cache)
        return open_token_stream(
            examples, f"conversations-{key}-{context.split}", context, self.packing
        )

    def card(self, cache: Path) -> dict[str, Any]:
        """Return counts of conversations, turns, roles and characters of each split, formats, and
        what was left out."""
        notes: Counter[str] = Counter()
        splits: tuple[Split, ...] = ("train", "validation")
        counts: dict[str, Any] = {
            str(split): _counts(self._side(split, notes if split == "train" else Counter()))
            for split in splits
        }
        return {
            "source": Origin.of(self).name,
            "licence": self.licence or "not stated",
            **counts,
            "left_out": {reason: notes[reason] for reason in ("invalid", "question_in_validation")},
            "formats": {
                key.removeprefix("format "): n
                for key, n in sorted(notes.items())
                if key.startswith("format ")
            },
        }

    def _side(self, split: Split, notes: Counter[str]) -> Iterator[_Grouped]:
        """Yield one side; ``notes`` counts what was met on the way."""
        if not Origin.of(self).has_validation:
            for example, group in self._read("train", notes):
                if split_of(group, self.validation_fraction, self.split_seed) == split:
                    yield example, group
            return
        if split == "validation":
            yield from self._read("validation", notes)
            return
        held_out = {group for _, group in self._read("validation", Counter())}
        for example, group in self._read("train", notes):
            if group in held_out:
                notes["question_in_validation"] += 1
            else:
                yield example, group

    def _read(self, split: Split, notes: Counter[str]) -> Iterator[_Grouped]:
        records = Origin.of(self).records(split, kinds=ROW_KINDS)
        for record in islice(records, self.limit_conversations):
            row = {name: value for name, value in record.fields.items() if value is not None}
            form: ChatFormat | None = recognise(list(row)) if self.format == "auto" else self.format
            try:
                example = _example(row, form, record.name, record.origin)
            except DataError:
                if self.invalid_rows == "error":
                    raise
                notes["invalid"] += 1
                continue
            notes[f"format {form}"] += 1
            yield (
                example,
                example.group if isinstance(example, Conversation) else text_digest(example.text),
            )


def _example(
    row: dict[str, Any], form: ChatFormat | None, name: str, where: str
) -> Conversation | Document:
    """Return what a row holds: a conversation, or a text where the format says so."""
    messages = to_messages(row, form or "auto", where)
    if form == "text":
        text = checked_text(row.get("text"), where, "column 'text'")
        if not text.strip():
            raise DataError(where, "the text is empty", "Remove the row or fill it in")
        return Document(name, text, where)
    return Conversation(
        name, messages, where, text_digest(first_question(messages)), tools_of(row, where)
    )


def first_question(messages: tuple[Message, ...]) -> str:
    """Return the first user turn in lower case and with single spaces, by which conversations count
    as the same."""
    question = next((message.content for message in messages if message.role == "user"), "")
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


def _counts(examples: Iterator[_Grouped]) -> dict[str, Any]:
    roles: Counter[str] = Counter()
    characters: list[int] = []
    seen: set[str] = set()
    groups: set[str] = set()
    for example, group in examples:
        messages: tuple[Message, ...] = (Message("text", example.text),)
        if isinstance(example, Conversation):
            messages = example.messages
        roles.update(message.role for message in messages)
        characters.append(len(example.text) - len(messages) + 1)
        groups.add(group)
        seen.add(text_digest("\0".join(f"{turn.role}\0{turn.text}" for turn in messages)))
    lengths = np.percentile(characters, _PERCENTILES) if characters else np.zeros(len(_PERCENTILES))
    return {
        "conversations": len(characters),
        "turns": dict(roles),
        "characters": sum(characters),
        "exact_duplicates": len(characters) - len(seen),
        "questions": len(groups),
        "length_percentiles_characters": {
            f"p{rank}": round(float(length))
            for rank, length in zip(_PERCENTILES, lengths, strict=True)
        },
    }
