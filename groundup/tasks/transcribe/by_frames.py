"""Transcripts by a model that emits a token or a blank for each frame.

Legend: W windows, O frames of a model's output, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from groundup.contracts.processors import TextProcessor
from groundup.contracts.speech import EmitsFrames, ReadsSpeech
from groundup.core.settings import Settings, setting
from groundup.generation.combinations import best_different
from groundup.generation.ctc import (
    FoundText,
    align_tokens,
    greedy_tokens,
    prefix_beam_search,
)
from groundup.generation.ngrams import NGramModel
from groundup.generation.scoring import device_of, evaluating
from groundup.processors.text.stream_decoder import StreamDecoder
from groundup.tasks.shared.model_outputs import move_batch
from groundup.tasks.transcribe.recordings import Recording, Window, loud_units, windows

__all__ = ["FrameDecoding", "Transcript", "WindowSettings", "timed_words", "transcribe_by_frames"]

_AT_ONCE = 16
"""Windows that are computed together."""
_GATHERED = 64
"""Windows that are put in order of their lengths first: what is padding takes time too."""
_SEGMENT = 1500
"""Frames of the output that are decoded at once; a minute, at 40 ms."""


@dataclass(frozen=True)
class WindowSettings:
    """How long recordings are read: see the task's settings of the same names."""

    window_seconds: float
    overlap_seconds: float
    silence_db: float | None
    no_speech: float | None = None


class FrameDecoding(Settings):
    """How texts are made of the probabilities of frames."""

    beams: int = setting(
        1, "Beginnings of texts that are kept from frame to frame; 1: the likeliest symbol", ge=1
    )
    n_best: int = setting(1, "Return this many texts, the best first", ge=1)
    ngram_weight: float = setting(0.0, "What the n-gram model's log-probabilities count", ge=0)
    length_bonus: float = setting(0.0, "Added to a text's score for each token")


@dataclass
class Transcript:
    """What was found in a recording.

    Attributes:
        text: What is said.
        words: Each word with where it begins and ends, in seconds; None where nothing tells.
        alternatives: Several texts with their scores, the best first, where these were asked for.
    """

    text: str
    words: list[dict[str, Any]] | None = None
    alternatives: list[dict[str, Any]] = field(default_factory=list)

    def as_row(self) -> dict[str, Any]:
        """Return what there is of it, by name."""
        row: dict[str, Any] = {"text": self.text}
        # No words is said by a list without any: nothing is said by none.
        if self.words is not None:
            row["words"] = self.words
        if self.alternatives:
            row["alternatives"] = self.alternatives
        return row


def transcribe_by_frames(
    model: nn.Module,
    sources: Sequence[Any],
    processor: ReadsSpeech,
    options: FrameDecoding,
    how: WindowSettings,
    ngrams: NGramModel | None,
) -> list[Transcript]:
    """Return the transcript of each recording.

    Args:
        model: An ``EmitsFrames``, in any mode.
        sources: Paths, bytes, (samples, rate), or features.
        processor: The run's.
        options: How to decode.
        how: How to cut long recordings.
        ngrams: A model of the training transcripts.

    Raises:
        DataError: If one cannot be read.
    """
    assert isinstance(model, EmitsFrames)
    # What the whole of it is counted in: windows, words and silence.
    unit = processor.frame_seconds * model.reach
    decoders: dict[int, _Decoder] = {}

    def read() -> Iterator[tuple[int, Window]]:
        for number, source in enumerate(sources):
            recording = Recording(source, processor, f"sound {number}")
            decoders[number] = _Decoder(options, ngrams)
            own = windows(recording, unit, how.window_seconds, how.overlap_seconds)
            yield from ((number, window) for window in own)

    parts = read()
    found: list[Transcript] = []
    # Lazily: of a recording of hours a few windows are in memory at a time.
    while gathered := list(islice(parts, _GATHERED)):
        rows = _log_probs(model, [window for _, window in gathered], processor, how, unit)
        for (number, window), log_probs in zip(gathered, rows, strict=True):
            decoders[number].add(log_probs[window.first : window.end])
            if window.last:
                # Popped: its frames are needed no more.
                found.append(decoders.pop(number).finish(processor.tokenizer, unit))
    return found


def _log_probs(
    model: nn.Module,
    chosen: Sequence[Window],
    processor: ReadsSpeech,
    how: WindowSettings,
    unit: float,
) -> list[NDArray[np.float32]]:
    """Return (O, V + 1) of each window, in nats; in silence all of it is the blank's."""
    found: dict[int, NDArray[np.float32]] = {}
    order = sorted(range(len(chosen)), key=lambda number: len(chosen[number].content))
    device = device_of(model)
    # Of a reference in float64 the frames are as wide as the weights.
    dtype = next(model.parameters()).dtype
    # Whether it emits frames was asked of the model that was built.
    emits: Any = model
    for first in range(0, len(order), _AT_ONCE):
        together = order[first : first + _AT_ONCE]
        content = [chosen[number].content for number in together]
        encode = processor.encode_samples if chosen[0].is_sound else processor.encode_inputs
        batch = encode(content)
        read = batch | {"inputs": batch["inputs"].to(dtype)}
        with evaluating(model):
            logits = model(**move_batch(read, device)).float().log_softmax(-1).cpu()
        # Beyond these a row holds what the model made of padding.
        lengths = emits.output_lengths(batch["lengths"]).tolist()
        for number, row, length in zip(together, logits, lengths, strict=True):
            own = row[:length].numpy()
            if chosen[number].is_sound and how.silence_db is not None:
                loud = loud_units(
                    chosen[number].content, processor.sample_rate, unit, how.silence_db, length
                )
                # What a model makes of silence, it has seldom been taught.
                own[~loud, :-1] = -np.inf
                own[~loud, -1] = 0.0
            found[number] = own
    return [found[number] for number in range(len(chosen))]


class _Decoder:
    """Tokens of one recording, of frames that come bit by bit."""

    def __init__(self, options: FrameDecoding, ngrams: NGramModel | None) -> None:
        self._options = options
        # With a weight of 0 they would only cost time.
        self._ngrams = ngrams if options.ngram_weight else None
        self._waiting: list[NDArray[np.float32]] = []
        self._frames = 0
        self._tokens: list[int] = []
        self._spans: list[tuple[int, int]] = []
        # Of each segment the best texts.
        self._best: list[list[FoundText]] = []

    def add(self, log_probs: NDArray[np.float32]) -> None:
        """Take the next frames (O, V + 1)."""
        self._waiting.append(log_probs)
        if sum(map(len, self._waiting)) < 2 * _SEGMENT:
            return
        frames = np.concatenate(self._waiting)
        # Cut in the surest blank: on both sides of it texts are independent, but for what the
        # n-grams say, which are told what came before.
        cut = _SEGMENT + int(frames[_SEGMENT:, -1].argmax())
        self._decode(frames[:cut], ends=False)
        self._waiting = [frames[cut:]]

    def finish(self, tokenizer: TextProcessor, unit: float) -> Transcript:
        """Return the transcript."""
        self._decode(np.concatenate(self._waiting), ends=True)
        # From all tokens together: a word may begin in one segment and end in the next.
        words = list(timed_words(self._tokens, self._spans, tokenizer, unit))
        text = tokenizer.decode(self._tokens)
        if self._options.n_best == 1:
            return Transcript(text, words)
        # A segment's n-grams are told what the best text before it is: of others the first few
        # tokens of the next segment are scored as after that one.
        best = best_different(
            self._best,
            lambda each: each.score,
            lambda parts: tokenizer.decode([t for part in parts for t in part.tokens]),
            self._options.n_best,
        )
        return Transcript(text, words, [{"text": t, "score": score} for t, score in best])

    def _decode(self, frames: NDArray[np.float32], *, ends: bool) -> None:
        options = self._options
        # The likeliest symbol of each frame needs no search, and is ten times as quick.
        if options.beams == 1:
            tokens = greedy_tokens(frames)
        else:
            order = 1 if self._ngrams is None else self._ngrams.order
            begun = bool(self._frames)
            context = self._tokens[-(order - 1) :] if order > 1 else []
            if begun and self._ngrams is not None:
                # Where less was found than a context holds, the text's beginning is before it.
                context = [*self._ngrams.start, *context][-(order - 1) :] if order > 1 else []
            best = prefix_beam_search(
                frames,
                options.beams,
                n_best=options.n_best,
                scorer=self._ngrams,
                weight=options.ngram_weight,
                bonus=options.length_bonus,
                context=tuple(context) if begun else None,
                ends=ends,
            )
            tokens = best[0].tokens
            if options.n_best > 1:
                self._best.append(best)
        # A search sums over all ways to emit a text: where its tokens are, the likeliest one says.
        spans = align_tokens(frames, tokens)
        self._tokens += tokens
        self._spans += [(first + self._frames, last + self._frames) for first, last in spans]
        self._frames += len(frames)


def timed_words(
    tokens: Sequence[int],
    spans: Sequence[tuple[int, int]],
    tokenizer: TextProcessor,
    unit: float,
    begin_s: float = 0.0,
) -> Iterator[dict[str, Any]]:
    """Yield what is between blanks in the text, and from when to when it is said.

    Args:
        tokens: Of the text.
        spans: The first and the last unit of each.
        tokenizer: What made them.
        unit: Seconds of a unit.
        begin_s: Where the first unit begins.
    """
    decoder = StreamDecoder(tokenizer)
    word = ""
    begin = end = 0
    for token, (first, last) in zip(tokens, spans, strict=True):
        # Often one, of a merged token several, and none of a part of a character.
        for character in decoder.push(token):
            if character.isspace():
                if word:
                    yield _timed(word, begin_s + begin * unit, begin_s + (end + 1) * unit)
                word = ""
                continue
            if not word:
                begin = first
            word += character
            end = last
    word += decoder.flush().strip()
    if word:
        yield _timed(word, begin_s + begin * unit, begin_s + (end + 1) * unit)


def _timed(word: str, begin_s: float, end_s: float) -> dict[str, Any]:
    # To the millisecond: a unit is 10 of them or more.
    return {"word": word, "begin_s": round(begin_s, 3), "end_s": round(end_s, 3)}
