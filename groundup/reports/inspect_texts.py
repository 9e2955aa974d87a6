"""Looking at data before training on it: counts, lengths, what cleaning did, samples, and which
tokens are trained on.

Legend: T tokens of one example.
"""

from __future__ import annotations

import hashlib
import html
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from groundup.core.contracts.data import DataSource
from groundup.core.contracts.processors import TextProcessor
from groundup.core.contracts.tasks import SeveralSequences, Task
from groundup.core.values import Conversation, Document, Preference, Split, TokenSequence
from groundup.core.values import Table as SourceTable

__all__ = [
    "Inspection",
    "SplitLook",
    "TokenView",
    "card_rows",
    "inspect_source",
    "inspection_html",
    "look",
]

LIMIT = 20_000  # examples of a split that are tokenized
BATCH = 256
SAMPLE = 600  # characters or tokens of a sample
SPLITS: tuple[Split, ...] = ("train", "validation")
OPENS, CLOSES = "‹", "›"
PERCENTILES = (5, 25, 50, 75, 95, 99)
STYLE = (
    "<style>.gi table{border-collapse:collapse;margin:.6rem 0}.gi td,.gi th{padding:.15rem"
    " .6rem;text-align:left;border-bottom:1px solid rgba(128,128,128,.3)}.gi"
    " .tokens{white-space:pre-wrap;overflow-wrap:anywhere;font-family:monospace;border:1px solid"
    " rgba(128,128,128,.3);padding:.6rem;margin:.6rem 0;border-radius:.4rem}.gi"
    " .t{background:#bfe8c9;color:#0b3d1c}.gi .t.o{background:#a5dcb3}.gi .n{opacity:.55}.gi"
    " .n.o{opacity:.7}</style>"
)


@dataclass(frozen=True)
class TokenView:
    """Every token of an example, coloured by whether it is trained on; without colours, marked
    ‹thus›.

    Attributes:
        pieces: (text, trained) of each token; tokens that share one character are one piece.
        cut: How many tokens are not shown.
    """

    title: str
    pieces: tuple[tuple[str, bool], ...]
    cut: int = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.title, style="bold")
        if console.no_color or console.color_system is None:
            yield Padding(Text(self.marked()), (0, 0, 1, 2))
            return
        text = Text()
        for number, (piece, trained) in enumerate(self.pieces):
            shade = (
                ("black on green", "black on bright_green") if trained else ("dim", "dim italic")
            )
            text.append(piece, style=shade[number % 2])
        yield Padding(text.append(self._rest()), (0, 0, 1, 2))

    def marked(self) -> str:
        """Return plain text in which each run of trained tokens is enclosed as ‹thus›."""
        parts, inside = [], False
        for piece, trained in self.pieces:
            parts.append(
                (OPENS if trained and not inside else CLOSES if inside and not trained else "")
                + piece
            )
            inside = trained
        return "".join(parts) + (CLOSES if inside else "") + self._rest()

    def html(self) -> str:
        """Return the tokens as HTML, each with a class for trained (t) or not (n) and for every
        other one (o)."""
        spans = (
            f'<span class="{"t" if trained else "n"}{" o" if number % 2 else ""}">'
            f"{html.escape(piece)}</span>"
            for number, (piece, trained) in enumerate(self.pieces)
        )
        return (
            f"<p>{html.escape(self.title)}</p><div"
            f' class="tokens">{"".join(spans)}{self._rest()}</div>'
        )

    def _rest(self) -> str:
        return f" … {self.cut:,} more tokens" if self.cut else ""


@dataclass
class SplitLook:
    """What was seen of one split; the lists hold one number an example."""

    split: Split
    examples: int = 0
    tokenized: int = 0
    characters: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    roles: Counter[str] = field(default_factory=Counter)
    hashes: Counter[bytes] = field(default_factory=Counter)
    trained: int = 0
    answers: int = 0
    answers_with_stop: int = 0
    nothing_trained: int = 0
    doubled: int = 0
    spelled: int = 0  # texts that begin with the letters of the token that starts them
    too_long: int = 0
    without_whole_answer: int = 0  # of those too long
    masked: bool = False
    parts: Counter[str] = field(default_factory=Counter)  # tokens of a mixture's parts
    views: list[TokenView] = field(default_factory=list)

    @property
    def duplicates(self) -> int:
        """How many examples repeat an earlier one exactly, blanks aside."""
        return sum(count - 1 for count in self.hashes.values())


@dataclass(frozen=True)
class Inspection:
    """Everything there is to show: the splits, the data card, what deserves attention, and the
    source's own tables."""

    splits: list[SplitLook]
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
) -> list[RenderableType]:
    """Return what ``groundup data inspect`` prints.

    Args:
        source: The recipe's data.
        task: Encodes the examples; its masks are what is coloured.
        processor: The tokenizer.
        cache: Where the source keeps prepared files.
        examples: How many examples of each split to show token by token.
        sequence_length: The context in tokens, to count the examples that are longer.
    """
    return _renderables(look(source, task, processor, cache, examples, sequence_length))


def inspection_html(
    source: DataSource,
    task: Task,
    processor: TextProcessor,
    cache: Path,
    *,
    examples: int = 5,
    sequence_length: int | None = None,
) -> str:
    """Return the same as one HTML fragment that needs nothing else; arguments as
    ``inspect_source``."""
    found = look(source, task, processor, cache, examples, sequence_length)
    parts = [STYLE, '<div class="gi">']
    for title, columns, rows in _tables(found):
        head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in rows
        )
        parts.append(f"<h4>{html.escape(title)}</h4><table><tr>{head}</tr>{body}</table>")
    if found.warnings:
        parts.append(
            "<ul>"
            + "".join(f"<li>{html.escape(warning)}</li>" for warning in found.warnings)
            + "</ul>"
        )
    parts.append(f"<p>{html.escape(LEGEND)}</p>")
    parts += [view.html() for split in found.splits for view in split.views]
    return "".join([*parts, "</div>"])


def look(
    source: DataSource,
    task: Task,
    processor: TextProcessor,
    cache: Path,
    examples: int = 5,
    sequence_length: int | None = None,
) -> Inspection:
    """Return what there is to see in a source: every example is counted, the first 20,000 of a
    split are tokenized."""
    special = processor.token_bytes() == 0
    splits = []
    for split in SPLITS:
        seen = SplitLook(split)
        given = iter(source.examples(split, cache))
        for batch in _batches(given, BATCH):
            _count(seen, batch)
            if seen.tokenized < LIMIT:
                own = task.sequences if isinstance(task, SeveralSequences) else task.encode
                sequences = cast(list[TokenSequence], own(batch, processor))
                seen.tokenized += len(batch)
                for number, sequence in enumerate(sequences):
                    example = batch[number * len(batch) // len(sequences)]
                    seen.parts[source.part_of(example)] += len(sequence.tokens)
                    _weigh(seen, sequence, special, sequence_length)
                    seen.spelled += _spells(_text(example), sequence, special, processor)
                    if len(seen.views) < examples:
                        seen.views.append(_view(f"{split}: {_name(example)}", sequence, processor))
        splits.append(seen)
    card = source.card(cache)
    warnings = _warnings(splits, sequence_length, source.too_long_policy())
    return Inspection(splits, card, warnings, source.tables(splits[0].parts, card))


LEGEND = (
    "Green: trained on; dim: read only. Shades alternate from token to token. Without colours:"
    " ‹trained on›."
)


def _batches(examples: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(islice(examples, size)):
        yield batch


def _count(seen: SplitLook, batch: Sequence[Any]) -> None:
    for example in batch:
        text = _text(example)
        seen.examples += 1
        seen.characters.append(len(text))
        seen.sizes.append(len(text.encode("utf-8", "replace")))
        seen.hashes[
            hashlib.blake2b(
                " ".join(text.split()).encode("utf-8", "replace"), digest_size=12
            ).digest()
        ] += 1
        if isinstance(example, Conversation):
            seen.turns.append(len(example.messages))
            seen.roles.update(message.role for message in example.messages)


def _weigh(
    seen: SplitLook, sequence: TokenSequence, special: NDArray[np.bool_], longest: int | None
) -> None:
    """Count the tokens of one example, those trained on, and what often goes wrong with special
    tokens."""
    tokens, trained = sequence.tokens, _trained(sequence)
    seen.tokens.append(len(tokens))
    seen.trained += int(trained.sum())
    seen.nothing_trained += not trained.any()
    seen.doubled += bool(np.any((tokens[1:] == tokens[:-1]) & special[tokens[1:]]))
    if longest is not None and len(tokens) - 1 > longest:
        seen.too_long += 1
        seen.without_whole_answer += not sequence.end_of_whole_answers(longest + 1)
    if sequence.trained is not None:
        seen.masked = True
        ends = np.flatnonzero(trained & ~np.append(trained[1:], False))
        seen.answers += len(ends)
        seen.answers_with_stop += int(special[tokens[ends]].sum())


def _spells(
    text: str, sequence: TokenSequence, special: NDArray[np.bool_], processor: TextProcessor
) -> bool:
    """Return whether a text spells the special token that its example begins with."""
    first = int(sequence.tokens[0]) if len(sequence.tokens) else -1
    return (
        first >= 0
        and bool(special[first])
        and text.startswith(processor.decode([first], keep_special=True))
    )


def _trained(sequence: TokenSequence) -> NDArray[np.bool_]:
    if sequence.trained is not None:
        return sequence.trained
    return np.arange(len(sequence.tokens)) > 0


def _view(title: str, sequence: TokenSequence, processor: TextProcessor) -> TokenView:
    trained = _trained(sequence)
    pieces: list[tuple[str, bool]] = []
    held: list[int] = []
    shown = min(len(sequence.tokens), SAMPLE)
    for index in range(shown):
        held.append(int(sequence.tokens[index]))
        text = processor.decode(held, keep_special=True)
        last = index + 1 == shown or trained[index + 1] != trained[index]
        if not text.endswith("\ufffd") or len(held) >= 4 or last:
            pieces.append((text, bool(trained[index])))
            held = []
    return TokenView(title, tuple(pieces), len(sequence.tokens) - shown)


def _warnings(splits: Sequence[SplitLook], longest: int | None, too_long: str) -> list[str]:
    found = []
    for seen in splits:
        of = f"of {seen.tokenized:,} {seen.split} examples"
        fate = _fate(seen, too_long)
        unstopped = seen.answers - seen.answers_with_stop
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
            (seen.too_long, f"{of} are longer than the context of {longest} tokens{fate}."),
            (
                unstopped,
                f"of {seen.answers:,} {seen.split} answers do not end with a trained stop token:"
                " the model would not learn to stop.",
            ),
            (
                seen.duplicates,
                f"of {seen.examples:,} {seen.split} examples are exact duplicates.",
            ),
        )
        found += [f"{count:,} {text}" for count, text in checks if count]
        found += [f"The {seen.split} split is empty."] if not seen.examples else []
    shared = len(splits[0].hashes.keys() & splits[1].hashes.keys())
    return found + (
        [f"{shared:,} validation examples are also in the training split."] if shared else []
    )


def _fate(seen: SplitLook, too_long: str) -> str:
    """Return what becomes of the examples that are too long."""
    policy = too_long if too_long != "auto" else "error" if seen.masked else "split"
    fates = {
        "error": "the run would stop",
        "drop": "they are left out",
        "split": "they are cut into pieces",
    }
    fates["truncate"] = (
        "the oldest turns of prompts are cut" if seen.masked else "their ends are cut off"
    )
    if policy == "truncate" and seen.masked and seen.turns:
        kept = seen.too_long - seen.without_whole_answer
        return (
            f"; {kept:,} are cut after a whole answer, {seen.without_whole_answer:,} have none and"
            " are left out"
        )
    return f"; {fates[policy]}" if policy in fates else ""


# ------------------------------------------------------------------------------------------ showing
Rows = list[tuple[str, ...]]


def _renderables(found: Inspection) -> list[RenderableType]:
    shown: list[RenderableType] = []
    for title, columns, rows in _tables(found):
        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        shown.append(table)
    shown += [Text(f"Note: {warning}", style="yellow") for warning in found.warnings]
    shown.append(Text(LEGEND, style="dim"))
    return shown + [view for split in found.splits for view in split.views]


def _tables(found: Inspection) -> Iterator[tuple[str, tuple[str, ...], Rows]]:
    """Yield (title, columns, rows) of everything but the samples."""
    yield "Data", ("", *(seen.split for seen in found.splits)), _overview(found.splits)
    for table in found.tables:
        yield table.title, table.columns, [tuple(map(str, row)) for row in table.rows]
    columns = ("an example", "split", "mean", "least", *(f"{p}%" for p in PERCENTILES), "most")
    yield "Lengths", columns, [row for seen in found.splits for row in _lengths(seen)]
    card: Rows = list(card_rows(found.card))
    if card:
        yield "Data card", ("what", "value"), card


def _overview(splits: Sequence[SplitLook]) -> Rows:
    columns = [_numbers(seen) for seen in splits]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, *(column.get(name, "") for column in columns)) for name in names]


def _numbers(seen: SplitLook) -> dict[str, str]:
    tokens = sum(seen.tokens)
    size = sum(seen.sizes[: seen.tokenized])
    numbers = {
        "examples": f"{seen.examples:,}",
        "characters": f"{sum(seen.characters):,}",
        "UTF-8 bytes": f"{sum(seen.sizes):,}",
        "exact duplicates": f"{seen.duplicates:,}",
    }
    if seen.tokenized < seen.examples:
        numbers["examples tokenized"] = f"the first {seen.tokenized:,}"
    numbers |= {
        "tokens": f"{tokens:,}",
        "bytes a token": f"{size / tokens:.2f}" if tokens else "–",
        "tokens a byte": f"{tokens / size:.3f}" if size else "–",
        "tokens trained on": f"{seen.trained:,} ({seen.trained / tokens:.1%})" if tokens else "0",
    }
    if seen.masked:
        numbers["answers whose stop token is trained"] = (
            f"{seen.answers_with_stop:,} of {seen.answers:,}"
        )
    if seen.roles:
        numbers["turns by role"] = ", ".join(
            f"{role} {count:,}" for role, count in sorted(seen.roles.items())
        )
    return numbers


def _lengths(seen: SplitLook) -> Rows:
    measures = {"characters": seen.characters, "tokens": seen.tokens, "turns": seen.turns}
    rows: Rows = []
    for name, values in measures.items():
        if values:
            steps = [min(values), *np.percentile(values, PERCENTILES), max(values)]
            rows.append(
                (name, seen.split, f"{np.mean(values):,.1f}", *(f"{step:,.0f}" for step in steps))
            )
    return rows


def card_rows(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted path, text) of every plain value in a data card."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from card_rows(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    else:
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        yield path, text if len(text) <= SAMPLE else text[:SAMPLE] + " …"


def _text(example: Any) -> str:
    known = isinstance(example, Document | Conversation | Preference)
    return example.text if known else str(example)


def _name(example: Any) -> str:
    named = getattr(example, "name", "example")
    origin = getattr(example, "origin", "")
    return f"{named} ({origin})" if origin and origin != named else str(named)
