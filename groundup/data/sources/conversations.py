"""Conversations to fine-tune on, from files or a Hugging Face data set, in the shapes people keep
them in."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from groundup.contracts.data import DataContext, Stream
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Conversation, Document, Message, Split
from groundup.data.cleaning.cleaning import text_digest
from groundup.data.reading.files import check_text
from groundup.data.reading.listing import ROW_KINDS
from groundup.data.reading.location import Origin
from groundup.data.reading.question_rows import QuestionRows
from groundup.data.schemas.chat_formats import ChatFormat, recognise, to_messages, unused_columns
from groundup.data.schemas.column_names import rename_columns
from groundup.data.schemas.missing import without_missing
from groundup.data.schemas.tool_calls import tools_of
from groundup.data.splitting.noted_rows import describe_rows, offer_skipping, stream_noted
from groundup.data.stream.packing import Packing
from groundup.data.stream.token_stream import open_token_stream

__all__ = ["ConversationSource", "first_question"]

_FORMAT = 4  # raise it when the same files would give other conversations
_PERCENTILES = (1, 10, 50, 90, 99)
_Grouped = tuple[Conversation | Document, str]  # an example, and what it is split by


@data("conversations")
class ConversationSource(QuestionRows):
    """Conversations from .jsonl .json .csv .tsv .parquet files, a folder of them, or a hub name.

    Conversations with the same first question are on the same side of the split. Rows that hold
    nothing but a text are plain documents, all of which is learned.
    """

    packs_rows = True

    format: Literal["auto", "messages", "sharegpt", "alpaca", "pairs", "text"] = setting(
        "auto", "shape of the rows; auto recognises it by the columns"
    )
    invalid_rows: Literal["error", "skip"] = setting(
        "error",
        "what to do with a conversation that cannot be learned from; skipped ones are counted in"
        " the data card",
    )
    ignore: tuple[str, ...] = setting(
        (), "keys of messages, and columns of rows, that are left out without being named"
    )
    packing: Packing = setting(Packing(), "how conversations become rows of tokens")

    def examples(self, split: Split, cache: Path) -> Iterator[Conversation | Document]:
        """Yield the conversations of a split in the order of the files; see
        ``DataSource.examples``.

        Raises:
            DataError: If a row cannot be learned from, or nothing is left for the split.
        """
        origin = Origin(self, ROW_KINDS)
        empty = True
        for example, _ in self._conversations_of(split, origin, Counter()):
            empty = False
            yield example
        if empty:
            rows = self._read_conversations("train", origin, Counter())
            raise self.nothing_left(split, origin, rows)

    def too_long_policy(self) -> str:
        """Return that of the packing."""
        return self.packing.too_long

    def open(self, context: DataContext) -> Stream:
        """Return the packed micro-batches of a split; see ``DataSource.open``."""
        settings = self.model_dump_json(exclude={"packing", "licence"})
        key = hashlib.sha256(
            f"{_FORMAT}\0{settings}\0{Origin(self, ROW_KINDS).key()}".encode()
        ).hexdigest()[:24]
        examples = partial(self.examples, context.split, context.cache)
        return open_token_stream(
            examples, f"conversations-{key}-{context.split}", context, self.packing
        )

    def card(self, cache: Path) -> dict[str, Any]:
        """Return counts of conversations, turns, roles and characters of each split, formats, and
        what was left out."""
        origin = Origin(self, ROW_KINDS)

        def count(split: Split, notes: Counter[str]) -> dict[str, Any]:
            return _count_conversations(self._conversations_of(split, origin, notes))

        return describe_rows(origin, count, ["invalid"])

    def _conversations_of(
        self, split: Split, origin: Origin, notes: Counter[str]
    ) -> Iterator[_Grouped]:
        """Yield one split; ``notes`` counts what was met on the way."""
        return stream_noted(split, origin, self._read_conversations, self.rule, notes)

    def _read_conversations(
        self, split: Split, origin: Origin, notes: Counter[str]
    ) -> Iterator[_Grouped]:
        for record in origin.records(split):
            fields, renamed = rename_columns(record.fields)
            notes.update(f"name {old} → {new}" for old, new in renamed.items())
            row = without_missing(fields, notes)
            # of each row, because files of several shapes may be in one folder
            form = recognise(tuple(row)) if self.format == "auto" else self.format
            try:
                example = self._to_example(row, form, record.name, record.origin)
            except DataError as error:
                if self.invalid_rows == "error":
                    raise offer_skipping(error) from None
                notes["invalid"] += 1
                continue
            notes[f"format {form}"] += 1
            # only a row with a known format comes so far
            for name in unused_columns(row, form or "text"):
                if name not in self.ignore:
                    notes[f"column {name}"] += 1
            if isinstance(example, Conversation):
                yield example, example.group
            else:
                yield example, text_digest(example.text)

    def _to_example(
        self, row: dict[str, Any], form: ChatFormat | None, name: str, where: str
    ) -> Conversation | Document:
        """Return what a row holds: a conversation, or a text where the format says so."""
        messages = to_messages(row, form or "auto", where, self.ignore)
        # texts among chats, learned as a whole: pretraining data in a fine-tuning mixture
        if form == "text":
            text = check_text(row.get("text"), where, "column 'text'")
            if not text.strip():
                raise DataError(where, "the text is empty", "Remove the row or fill it in")
            return Document(name, text, where)
        return Conversation(
            name, messages, where, text_digest(first_question(messages)), tools_of(row, where)
        )


def first_question(messages: tuple[Message, ...]) -> str:
    """Return the first user turn in lower case and with single spaces, by which conversations count
    as the same."""
    # Not the whole conversation: with one question and other answers, a model would be asked in
    # validation what it was shown in training.
    question = next((message.content for message in messages if message.role == "user"), "")
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


def _count_conversations(examples: Iterator[_Grouped]) -> dict[str, Any]:
    roles: Counter[str] = Counter()
    characters: list[int] = []
    seen: set[str] = set()
    groups: set[str] = set()
    for example, group in examples:
        messages: tuple[Message, ...] = (Message("text", example.text),)
        if isinstance(example, Conversation):
            messages = example.messages
        roles.update(message.role for message in messages)
        # without the line ends that are put between the turns
        characters.append(len(example.text) - len(messages) + 1)
        groups.add(group)
        seen.add(text_digest("\0".join(f"{turn.role}\0{turn.text}" for turn in messages)))
    lengths = np.zeros(len(_PERCENTILES))
    if characters:
        lengths = np.percentile(characters, _PERCENTILES)
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
