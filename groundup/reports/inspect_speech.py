"""What ``groundup data inspect`` shows of speech: how long sounds and transcripts are, what is cut,
and pictures of what a model reads.

Shape legend: T frames, F features, H rows and W columns of a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import RenderableType
from rich.text import Text
from torch import nn

from groundup.contracts.data import DataSource
from groundup.contracts.processors import Processor
from groundup.contracts.ragged import offsets_of, ragged_rows
from groundup.contracts.speech import FitsTranscripts, ReadsSpeech
from groundup.contracts.tasks import Task
from groundup.core.error_location import encode_located
from groundup.core.values import Batch, Example, Split, TokenSequence
from groundup.media.png import encode_png
from groundup.reports.data_notes import data_notes
from groundup.reports.inspect_texts import PERCENTILES, card_rows
from groundup.reports.sampling import LIMIT, Copies, Sample, read_in_batches
from groundup.reports.tables import Grid
from groundup.reports.token_view import view_tokens

__all__ = ["inspect_speech"]

_TOGETHER = 64  # sounds that are encoded at a time
_VERSIONS = 3  # pictures of an augmented sound below its own
_WIDEST = 3000  # columns of a picture, each a frame
_TALLEST = 2  # rows of a picture for each feature
_BETWEEN = 6  # rows of white between pictures, twice as many between sounds
_SHOWN = 400  # characters of a transcript
_NAMED = 5  # sounds that a note names


@dataclass
class _Seen:
    """What was seen of a split; the lists hold a number for each sound."""

    split: Split
    sample: Sample
    frames: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)


def inspect_speech(
    source: DataSource,
    task: Task,
    processor: ReadsSpeech,
    cache: Path,
    picture: Path,
    model: nn.Module,
    *,
    examples: int = 5,
    seed: int = 0,
    limit: int = LIMIT,
) -> list[RenderableType]:
    """Return counts, lengths, what is cut, the data card, and transcripts with their tokens; a
    picture of what a model reads is written as well.

    Args:
        source: The recipe's data.
        task: Encodes and augments.
        processor: The run's.
        cache: Where the source keeps prepared files.
        picture: The PNG to write.
        model: The recipe's, of which only the shape counts.
        examples: How many sounds of each split are shown; those of training are drawn.
        seed: The run's.
        limit: How many sounds of each split are encoded.
    """
    splits: list[_Seen] = []
    copies = Copies()
    for split in source.splits():
        seen = _Seen(split, Sample(limit))
        for batch in read_in_batches(source.examples(split, cache), _TOGETHER):
            seen.sample.add(batch)
            copies.add(split, [_content(each) for each in batch])
        # What is wrong with one of them would stop the training.
        for batch in read_in_batches(seen.sample.rows, _TOGETHER):
            encoded = encode_located(lambda some: _encode(task, some, processor), batch)
            seen.frames += encoded["lengths"].tolist()
            seen.tokens += encoded[offsets_of("text")].diff().tolist()
            if isinstance(task, FitsTranscripts):
                seen.beyond += [batch[row].name for row in task.beyond_frames(model, encoded)]
        splits.append(seen)
    repeated = {seen.split: copies.count(seen.split) for seen in splits}
    counts = [
        ("sounds", *(f"{seen.sample.total:,}" for seen in splits)),
        ("looked at", *(seen.sample.in_words for seen in splits)),
        ("exact copies of earlier ones", *(f"{repeated[seen.split][0]:,}" for seen in splits)),
    ]
    columns = ("", "split", "mean", "least", *(f"{p}%" for p in PERCENTILES), "most")
    card = source.card(cache)
    shown: list[RenderableType] = [
        Grid.of("Data", ("", *(seen.split for seen in splits)), counts, numbers=1),
        Grid.of("Lengths", columns, list(_lengths(splits, processor)), numbers=2),
        Grid.of("Data card", ("what", "value"), list(card_rows(card))),
    ]
    notes = [*_notes(processor), *_beyond(splits), *data_notes(card)]
    shown += [Text(f"Note: {note}", style="yellow") for note in notes]
    shown += [line for seen in splits for line in _show(seen, processor, examples)]
    drawn = splits[0].sample.rows[:examples]
    if drawn:
        pixels = _draw(drawn, task, processor, seed)
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(encode_png(pixels))
        each = f"each with {_VERSIONS} augmented versions below it" if task.augments else ""
        first = f"the first {len(drawn)} sounds of train above from top to bottom"
        words = ", ".join(filter(None, (first, each)))
        shown.append(Text(f"What a model reads, {words}: {picture}", overflow="fold"))
    return shown


def _content(example: Example) -> object:
    """Return what two sounds that are the same have in common: of a path the file."""
    if isinstance(example.inputs, str) and Path(example.inputs).is_file():
        return Path(example.inputs)
    return example.inputs


def _encode(task: Task, examples: Sequence[Example], processor: ReadsSpeech) -> Batch:
    encoded = task.encode(examples, processor)
    assert isinstance(encoded, dict), "sounds are encoded as tensors"
    return encoded


def _notes(processor: ReadsSpeech) -> list[str]:
    """Return what the processor said of the training sounds, and what it counted since."""
    found = list(processor.notes) if isinstance(processor, Processor) else []
    for cut in (processor.cut, processor.tokenizer.cut):
        found += [] if cut is None else [*cut.notes(), *cut.filled()]
    return found


def _beyond(splits: Sequence[_Seen]) -> Iterator[str]:
    """Yield a line for each split with transcripts that are too long for their sounds."""
    for seen in splits:
        if seen.beyond:
            named = ", ".join(seen.beyond[:_NAMED])
            yield (
                f"{seen.split}: {len(seen.beyond):,} of {len(seen.tokens):,} transcripts need more"
                f" frames than their sounds give this model ({named}): training stops at the first,"
                " or leaves them out with task.on_too_long: skip"
            )


def _lengths(splits: Sequence[_Seen], processor: ReadsSpeech) -> Iterator[tuple[str, ...]]:
    """Yield how long sounds are, and their transcripts, and how many frames a token has: CTC needs
    one for each after subsampling."""
    for seen in splits:
        seconds = [frames * processor.frame_seconds for frames in seen.frames]
        yield _row("seconds", seen.split, seconds, ",.2f")
    for seen in splits:
        yield _row("frames", seen.split, seen.frames, ",.0f")
    for seen in splits:
        yield _row("tokens", seen.split, seen.tokens, ",.0f")
    for seen in splits:
        pairs = zip(seen.frames, seen.tokens, strict=True)
        # The end of a transcript is a token too, so there is one at least.
        ratios = [frames / max(tokens, 1) for frames, tokens in pairs]
        yield _row("frames / tokens", seen.split, ratios, ".1f")


def _row(name: str, split: Split, values: Sequence[float], form: str) -> tuple[str, ...]:
    steps = [min(values), *np.percentile(values, PERCENTILES), max(values)]
    return (name, split, *(format(value, form) for value in (float(np.mean(values)), *steps)))


def _show(seen: _Seen, processor: ReadsSpeech, count: int) -> Iterator[RenderableType]:
    """Yield some sounds: which each is, how long, its transcript and the tokens of it."""
    rows = list(zip(seen.sample.rows, seen.frames, seen.tokens, strict=True))[:count]
    for example, frames, _ in rows:
        seconds = f"{frames * processor.frame_seconds:.2f} s"
        title = f"{seen.split}: {example.name} ({seconds}, {frames:,} frames)"
        yield Text(title, style="bold", overflow="fold")
        text = str(example.target)
        (tokens,) = processor.encode_transcripts([text])
        view = view_tokens("", TokenSequence(tokens), processor.tokenizer)
        pieces = "|".join(piece for piece, _ in view.pieces)
        yield Text(f"  {_shorten(text)}", overflow="fold")
        yield Text(f"  {len(tokens):,} tokens: {_shorten(pieces)}", overflow="fold")


def _shorten(text: str) -> str:
    left = len(text) - _SHOWN
    return text if left <= 0 else f"{text[:_SHOWN]} … {left:,} more characters"


# ------------------------------------------------------------------------------------------ drawing
def _draw(
    examples: Sequence[Example], task: Task, processor: ReadsSpeech, seed: int
) -> NDArray[np.uint8]:
    """Return (H, W) in grey: features over time, the first at the bottom, black where largest."""
    batch = _encode(task, examples, processor)
    versions = [batch]
    for version in range(_VERSIONS if task.augments else 0):
        numbers = np.arange(len(examples), dtype=np.int64) + version * len(examples)
        # No partners are asked for: sounds are not mixed.
        versions.append(task.augment(batch, numbers, lambda which=0: batch, processor, seed))
    rows = [ragged_rows(each, "frames") for each in versions]
    width = min(_WIDEST, max(len(frames) for own in rows for frames in own))
    lines: list[NDArray[np.uint8]] = []
    for place in range(len(examples)):
        original = rows[0][place].numpy()
        # By the sound's own range, so that masks and noise are seen for what they are.
        low, high = np.percentile(original, (1, 99))
        for own in rows:
            shades = (own[place].numpy()[:width] - low) / max(high - low, 1e-6)
            grey = np.round(255 * (1 - np.clip(shades, 0, 1))).astype(np.uint8)
            # High features are at the top, as in spectrograms.
            picture = grey.T[::-1].repeat(_TALLEST, 0)
            lines.append(
                np.pad(picture, ((0, _BETWEEN), (0, width - picture.shape[1])), constant_values=255)
            )
        lines.append(np.full((_BETWEEN, width), 255, np.uint8))
    return np.concatenate(lines)
