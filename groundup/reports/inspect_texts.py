"""Looking at texts before training on them: counts, lengths, what cleaning did, and samples with
the tokens that are trained on.

Legend: T tokens of one example.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import RenderableType
from rich.text import Text

from groundup.contracts.data import DataSource
from groundup.contracts.processors import TextProcessor
from groundup.contracts.tasks import SeveralSequences, Task
from groundup.core.values import Conversation, Document, Example, Preference, Split, TokenSequence
from groundup.core.values import Table as SourceTable
from groundup.reports.data_notes import data_notes
from groundup.reports.sampling import LIMIT, Sample, read_in_batches
from groundup.reports.tables import Grid
from groundup.reports.token_view import LEGEND, TokenView, trained_tokens, view_tokens

__all__ = [
    "Inspection",
    "SplitSummary",
    "TextInspector",
    "card_rows",
    "inspect_source",
]

# examples that are tokenized at a time
BATCH = 256
# characters of a value of the data card
CELL = 600
PERCENTILES = (5, 25, 50, 75, 95, 99)
Rows = list[tuple[str, ...]]


@dataclass
class SplitSummary:
    """What was seen of one split; the lists hold one number an example."""

    split: Split
    sample: Sample = field(default_factory=Sample)
    characters: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    # UTF-8 bytes of the examples that are tokenized
    looked_at_bytes: int = 0
    tokens: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    roles: Counter[str] = field(default_factory=Counter)
    hashes: Counter[bytes] = field(default_factory=Counter)
    trained: int = 0
    answers: int = 0
    answers_with_stop: int = 0
    nothing_trained: int = 0
    doubled: int = 0
    # texts that begin with the letters of the token that starts them
    spelled: int = 0
    too_long: int = 0
    # of those too long
    without_whole_answer: int = 0
    masked: bool = False
    # tokens of a mixture's parts
    parts: Counter[str] = field(default_factory=Counter)
    views: list[TokenView] = field(default_factory=list)

    @property
    def examples(self) -> int:
        """How many there are."""
        return self.sample.total

    @property
    def tokenized(self) -> int:
        """How many were looked at closely."""
        return min(self.sample.total, self.sample.limit)

    @property
    def all_parts(self) -> dict[str, int]:
        """How many tokens each part of a mixture has, as many of all examples as of the sample."""
        scale = self.examples / max(self.tokenized, 1)
        return {name: round(tokens * scale) for name, tokens in self.parts.items()}

    @property
    def duplicates(self) -> int:
        """How many examples repeat an earlier one exactly, blanks aside."""
        return sum(count - 1 for count in self.hashes.values())


@dataclass(frozen=True)
class Inspection:
    """Everything there is to show: the splits, the data card, what deserves attention, and what the
    source shows of itself."""

    splits: list[SplitSummary]
    card: dict[str, Any]
    warnings: list[str]
    tables: list[SourceTable] = field(default_factory=list)


def inspect_source(
    source: DataSource,
    task: Task,
    processor: TextProcessor,
    cache: Path,
    *,
    examples: int = 5,
    sequence_length: int | None = None,
    limit: int = LIMIT,
) -> list[RenderableType]:
    """Return what ``groundup data inspect`` prints.

    Args:
        source: The recipe's data.
        task: Encodes the examples; its masks are what is coloured.
        processor: The tokenizer.
        cache: Where the source keeps prepared files.
        examples: How many examples of each split to show token by token.
        sequence_length: The context in tokens, to count the examples that are longer.
        limit: How many examples of each split to tokenize.
    """
    inspector = TextInspector(source, task, processor, cache, examples, sequence_length, limit)
    found = inspector.inspect()
    shown: list[RenderableType] = list(_tables_of(found))
    shown += [Text(f"Note: {warning}", style="yellow") for warning in found.warnings]
    shown.append(Text(LEGEND, style="dim"))
    return shown + [view for split in found.splits for view in split.views]


@dataclass
class TextInspector:
    """Counts the examples of a source; arguments as ``inspect_source``."""

    source: DataSource
    task: Task
    processor: TextProcessor
    cache: Path
    examples: int = 5
    sequence_length: int | None = None
    limit: int = LIMIT

    def __post_init__(self) -> None:
        self._special: NDArray[np.bool_] = self.processor.token_bytes() == 0

    def inspect(self) -> Inspection:
        """Return what there is to see: every example is counted and compared with the others,
        ``limit`` of each split, drawn from all, are tokenized."""
        splits = [self.inspect_split(split) for split in self.source.splits()]
        card = self.source.card(self.cache)
        policy = self.source.too_long_policy()
        warnings = [*data_notes(card), *_list_warnings(splits, self.sequence_length, policy)]
        return Inspection(splits, card, warnings, self.source.tables(splits[0].all_parts, card))

    def inspect_split(self, split: Split) -> SplitSummary:
        """Return what there is to see in one split."""
        seen = SplitSummary(split, Sample(self.limit))
        for batch in read_in_batches(self.source.examples(split, self.cache), BATCH):
            for example in batch:
                _count_example(seen, example)
            seen.sample.add(batch)
        for batch in read_in_batches(seen.sample.rows, BATCH):
            self._count_tokens(seen, batch)
        return seen

    def _count_tokens(self, seen: SplitSummary, batch: list[Any]) -> None:
        if isinstance(self.task, SeveralSequences):
            sequences = self.task.sequences(batch, self.processor)
        else:
            sequences = self.task.encode(batch, self.processor)  # type: ignore[assignment]  # of texts
        seen.looked_at_bytes += sum(_size(_text_of(example)) for example in batch)
        for number, sequence in enumerate(sequences):
            example = batch[number * len(batch) // len(sequences)]
            seen.parts[self.source.part_of(example)] += len(sequence.tokens)
            self._count_sequence(seen, sequence)
            seen.spelled += self._spells_its_start(_text_of(example), sequence)
            if len(seen.views) < self.examples:
                title = f"{seen.split}: {_name(example)}"
                seen.views.append(view_tokens(title, sequence, self.processor))

    def _count_sequence(self, seen: SplitSummary, sequence: TokenSequence) -> None:
        """Count the tokens of one example, those trained on, and what often goes wrong with special
        tokens."""
        tokens = sequence.tokens
        trained = trained_tokens(sequence)
        longest = self.sequence_length
        seen.tokens.append(len(tokens))
        seen.trained += int(trained.sum())
        seen.nothing_trained += not trained.any()
        seen.doubled += bool(np.any((tokens[1:] == tokens[:-1]) & self._special[tokens[1:]]))
        # a context of T tokens reads T and predicts as many: T + 1 fit
        if longest is not None and len(tokens) > longest + 1:
            seen.too_long += 1
            seen.without_whole_answer += not sequence.end_of_whole_answers(longest + 1)
        if sequence.trained is not None:
            seen.masked = True
            ends = np.flatnonzero(trained & ~np.append(trained[1:], False))
            seen.answers += len(ends)
            seen.answers_with_stop += int(self._special[tokens[ends]].sum())

    def _spells_its_start(self, text: str, sequence: TokenSequence) -> bool:
        """Return whether a text spells the special token that its example begins with."""
        if not len(sequence.tokens) or not self._special[sequence.tokens[0]]:
            return False
        start = self.processor.decode([int(sequence.tokens[0])], keep_special=True)
        return text.startswith(start)


def _count_example(seen: SplitSummary, example: Any) -> None:
    text = _text_of(example)
    seen.characters.append(len(text))
    seen.sizes.append(_size(text))
    # hashes: a split of millions of texts would not fit into memory twice
    same = " ".join(text.split()).encode("utf-8", "replace")
    seen.hashes[hashlib.blake2b(same, digest_size=12).digest()] += 1
    if isinstance(example, Conversation):
        seen.turns.append(len(example.messages))
        seen.roles.update(message.role for message in example.messages)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


# ----------------------------------------------------------------------------------------- warnings
def _list_warnings(splits: Sequence[SplitSummary], longest: int | None, policy: str) -> list[str]:
    found = []
    for seen in splits:
        of = f"of {seen.tokenized:,} {seen.split} examples"
        checks = (
            (seen.nothing_trained, f"{of} have no token to train on."),
            (
                seen.doubled,
                f"{of} have a special token twice in a row (a doubled start or end).",
            ),
            (
                seen.spelled,
                f"{of} spell the start token, which is put before them anyway: a doubled start, the"
                " second one as plain text. Remove it from the data.",
            ),
            (
                seen.too_long,
                f"{of} are longer than the context of {longest} tokens{_name_fate(seen, policy)}.",
            ),
            (
                seen.answers - seen.answers_with_stop,
                f"of {seen.answers:,} {seen.split} answers do not end with a trained stop token:"
                " the model would not learn to stop.",
            ),
            (
                seen.duplicates,
                f"of {seen.examples:,} {seen.split} examples are exact duplicates.",
            ),
        )
        found += [f"{count:,} {text}" for count, text in checks if count]
        if not seen.examples:
            found.append(f"The {seen.split} split is empty.")
    train, *held_out = splits
    for seen in held_out:
        shared = sum(count for key, count in seen.hashes.items() if key in train.hashes)
        if shared:
            found.append(f"{shared:,} {seen.split} examples are also in the training split.")
    return found


def _name_fate(seen: SplitSummary, policy: str) -> str:
    """Return what becomes of the examples that are too long."""
    if policy == "auto":
        # answers are never cut without being asked for
        policy = "error" if seen.masked else "split"
    if policy == "truncate" and seen.masked and seen.turns:
        kept = seen.too_long - seen.without_whole_answer
        return (
            f"; {kept:,} are cut after a whole answer, {seen.without_whole_answer:,} have none and"
            " are left out"
        )
    fates = {
        "error": "; the run would stop",
        "drop": "; they are left out",
        "split": "; they are cut into pieces",
        "truncate": "; their ends are cut off",
    }
    if seen.masked:
        # pairs of answers: both have to stay whole
        fates["truncate"] = "; the oldest turns of prompts are cut"
    return fates.get(policy, "")


# ------------------------------------------------------------------------------------------ showing
def _tables_of(found: Inspection) -> Iterator[Grid]:
    """Yield everything but the samples."""
    names = ("", *(seen.split for seen in found.splits))
    yield Grid.of("Data", names, _overview(found.splits))
    for table in found.tables:
        yield Grid.of(table.title, table.columns, [tuple(map(str, row)) for row in table.rows])
    columns = ("an example", "split", "mean", "least", *(f"{p}%" for p in PERCENTILES), "most")
    lengths = [row for seen in found.splits for row in _list_lengths(seen)]
    yield Grid.of("Lengths", columns, lengths, numbers=2)
    card: Rows = list(card_rows(found.card))
    if card:
        yield Grid.of("Data card", ("what", "value"), card)


def _overview(splits: Sequence[SplitSummary]) -> Rows:
    columns = [_totals_of(seen) for seen in splits]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, *(column.get(name, "") for column in columns)) for name in names]


def _totals_of(seen: SplitSummary) -> dict[str, str]:
    totals = {
        "examples": f"{seen.examples:,}",
        "characters": f"{sum(seen.characters):,}",
        "UTF-8 bytes": f"{sum(seen.sizes):,}",
        "exact duplicates": f"{seen.duplicates:,}",
    }
    totals["looked at, token by token"] = seen.sample.in_words
    tokens = sum(seen.tokens)
    size = seen.looked_at_bytes
    totals |= {"tokens": f"{tokens:,}", "bytes a token": "–", "tokens a byte": "–"}
    totals["tokens trained on"] = "0"
    if tokens:
        totals["bytes a token"] = f"{size / tokens:.2f}"
        totals["tokens trained on"] = f"{seen.trained:,} ({seen.trained / tokens:.1%})"
    if size:
        totals["tokens a byte"] = f"{tokens / size:.3f}"
    if seen.masked:
        stopped = f"{seen.answers_with_stop:,} of {seen.answers:,}"
        totals["answers whose stop token is trained"] = stopped
    if seen.roles:
        roles = [f"{role} {count:,}" for role, count in sorted(seen.roles.items())]
        totals["turns by role"] = ", ".join(roles)
    return totals


def _list_lengths(seen: SplitSummary) -> Rows:
    measures = {"characters": seen.characters, "tokens": seen.tokens, "turns": seen.turns}
    rows: Rows = []
    for name, values in measures.items():
        if values:
            steps = [min(values), *np.percentile(values, PERCENTILES), max(values)]
            numbers = (f"{step:,.0f}" for step in steps)
            rows.append((name, seen.split, f"{np.mean(values):,.1f}", *numbers))
    return rows


def card_rows(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted path, text) of every plain value in a data card."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from card_rows(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        yield path, _cut(", ".join(map(str, value)))
    elif isinstance(value, float):
        yield path, f"{value:,.4g}"
    elif isinstance(value, int) and not isinstance(value, bool):
        yield path, f"{value:,}"
    else:
        yield path, _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= CELL else text[:CELL] + " …"


def _text_of(example: Any) -> str:
    if isinstance(example, Document | Conversation | Preference):
        return example.text
    return str(example)


def _name(example: Any) -> str:
    """Return what an example is called and where it was read; a task of one's own may have others
    than these."""
    if not isinstance(example, Document | Conversation | Preference | Example):
        return "example"
    if not example.origin or example.origin == example.name:
        return example.name
    return f"{example.name} ({example.origin})"
