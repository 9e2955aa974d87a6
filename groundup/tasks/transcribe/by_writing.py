"""Transcripts by a model that reads a window of sound and writes about it.

Legend: W windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from groundup.contracts.models import EncoderDecoder
from groundup.contracts.speech import ListensOnce, ReadsSpeech
from groundup.core.values import Batch
from groundup.generation.beam_search import beam_search
from groundup.generation.combinations import best_different
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.generation.scoring import device_of, evaluating
from groundup.generation.token_times import token_begins
from groundup.tasks.shared.model_outputs import move_batch
from groundup.tasks.transcribe.by_frames import Transcript, WindowSettings, timed_words
from groundup.tasks.transcribe.recordings import Recording, Window, loud_units, pauses

__all__ = ["prompt_of", "transcribe_by_writing"]

_ROWS = 16
"""Windows that are read at once, all beams counted."""
_UNSURE = -1.0
"""Nats a token below which what is written where nothing seems to be said is left out."""


def prompt_of(model: nn.Module) -> tuple[int, ...]:
    """Return the tokens that every transcript begins with, after the start token."""
    return model.prompt_ids if isinstance(model, ListensOnce) else ()


@dataclass
class _Written:
    """What was written about a window: the best texts with their scores, and the words of the best
    with their times, counted from the recording's beginning, where these are asked for."""

    texts: list[tuple[str, float]] = field(default_factory=lambda: [("", 0.0)])
    words: list[dict[str, Any]] = field(default_factory=list)


def transcribe_by_writing(
    model: nn.Module,
    sources: Sequence[Any],
    processor: ReadsSpeech,
    options: DecodingOptions,
    how: WindowSettings,
    *,
    timed: bool = False,
) -> list[Transcript]:
    """Return the transcript of each recording: what is written about its windows, one behind the
    other.

    Args:
        model: An ``EncoderDecoder``, in any mode.
        sources: Paths, bytes, (samples, rate), or features.
        processor: The run's.
        options: How to choose tokens.
        how: How to cut long recordings: at pauses.
        timed: Whether to find out when each word is said, of a model that tells.

    Raises:
        DataError: If one cannot be read.
    """
    timed = timed and isinstance(model, ListensOnce)
    found: list[list[_Written]] = [[] for _ in sources]
    parts = (
        (number, window)
        for number, source in enumerate(sources)
        for window in pauses(
            Recording(source, processor, f"sound {number}"),
            how.window_seconds,
            how.overlap_seconds,
        )
    )
    together = max(1, _ROWS // options.beams)
    while gathered := list(islice(parts, together)):
        # Asked about silence, such models write what is often said around it.
        heard = [_is_heard(window, processor, how) for _, window in gathered]
        chosen = [each[1] for each, loud in zip(gathered, heard, strict=True) if loud]
        written = iter(_write(model, chosen, processor, options, how, timed=timed))
        for (number, _), loud in zip(gathered, heard, strict=True):
            found[number].append(next(written) if loud else _Written())
    return [_join(own, options, timed=timed) for own in found]


def _is_heard(window: Window, processor: ReadsSpeech, how: WindowSettings) -> bool:
    if how.silence_db is None or not window.is_sound:
        return True
    seconds = len(window.content) / processor.sample_rate
    units = max(1, round(seconds / 0.1))
    loud = loud_units(window.content, processor.sample_rate, 0.1, how.silence_db, units)
    return bool(np.any(loud))


def _write(
    model: nn.Module,
    chosen: Sequence[Window],
    processor: ReadsSpeech,
    options: DecodingOptions,
    how: WindowSettings,
    *,
    timed: bool,
) -> list[_Written]:
    if not chosen:
        return []
    assert isinstance(model, EncoderDecoder)
    content = [window.content for window in chosen]
    encode = processor.encode_samples if chosen[0].is_sound else processor.encode_inputs
    batch = encode(content)
    read: Mapping[str, Tensor] = move_batch(batch, device_of(model))
    # What its forward takes, a module does not say in types.
    decoder: Any = model
    prompt = [model.start_id, *prompt_of(decoder)]
    absent = [0.0] * len(chosen)
    if isinstance(model, ListensOnce):
        read, absent = _listen(decoder, read)
        never, first = model.suppressed
        options = options.model_copy(
            update={"suppress_tokens": never, "begin_suppress_tokens": first}
        )
    tokenizer = processor.tokenizer
    prompts = [prompt] * len(chosen)
    ends = set(tokenizer.end_ids)
    best: list[list[tuple[list[int], float]]]
    if options.beams > 1:
        searched = beam_search(decoder, prompts, options, ends, read)
        best = [[(each.tokens, each.score) for each in own] for own in searched]
    else:
        rows = generate_batch(decoder, prompts, options, ends, None, read)
        best = [[(row, 0.0)] for row in rows]
    found = []
    for number, (window, own) in enumerate(zip(chosen, best, strict=True)):
        tokens = own[0][0]
        of_window = {name: values[number : number + 1] for name, values in read.items()}
        if how.no_speech is not None and absent[number] > how.no_speech:
            score = _mean_log_prob(decoder, of_window, prompt, [*tokens, tokenizer.end_id])
            if score < _UNSURE:
                found.append(_Written())
                continue
        texts = [(tokenizer.decode(each), score) for each, score in own]
        words = []
        if timed:
            frames = int(batch["lengths"][number])
            spans = _spans(decoder, of_window, prompt, tokens, tokenizer.end_id, frames)
            unit = 2 * processor.frame_seconds
            words = list(timed_words(tokens, spans, tokenizer, unit, window.begin_s))
        found.append(_Written(texts, words))
    return found


def _listen(model: Any, read: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[float]]:
    """Return what the decoder attends to in windows, and the probability of each that nothing is
    said in it.

    Source:
        Radford et al., Whisper, 2022 (arXiv:2212.04356), section 2.3: what it predicts first, of
        the start token alone.
    """
    rows = len(read["lengths"])
    with evaluating(model):
        cache = model.new_cache(rows, 1)
        model.encode(cache, **read)
        encoded = dict(cache.encoded)
        token = model.no_speech_id
        if token is None:
            return encoded, [0.0] * rows
        start = torch.full((rows, 1), model.start_id, device=read["lengths"].device)
        logits = model(start, cache=cache, last_only=True)[:, 0].float()
    return encoded, [float(value) for value in logits.softmax(-1)[:, token]]


@torch.no_grad()
def _mean_log_prob(
    model: Any, encoded: Batch, prompt: Sequence[int], tokens: Sequence[int]
) -> float:
    """Return the mean of log p in nats of tokens after a prompt."""
    before = [*prompt, *tokens[:-1]]
    device = next(iter(encoded.values())).device
    with evaluating(model):
        cache = model.new_cache(1, len(before))
        model.encode(cache, **encoded)
        logits = model(torch.tensor([before], device=device), cache=cache)[0].float()
    own = logits[len(prompt) - 1 :].log_softmax(-1)
    return float(own.gather(1, torch.tensor(tokens, device=device)[:, None]).mean())


def _spans(
    model: Any, encoded: Batch, prompt: Sequence[int], tokens: Sequence[int], end: int, frames: int
) -> list[tuple[int, int]]:
    """Return the first and last position of the sound that each token is said in."""
    if not tokens:
        return []
    device = next(iter(encoded.values())).device
    with evaluating(model):
        given = torch.tensor([[*prompt, *tokens, end]], device=device)
        attention = model.attention_to_sound(given, encoded)[0]
    # The place before a token is where it is predicted; that of the last predicts the end.
    begins = token_begins(attention[:, :, : max(1, frames // 2)], len(prompt) - 1, 1)
    return [(first, max(first, following - 1)) for first, following in pairwise(begins)]


def _join(parts: Sequence[_Written], options: DecodingOptions, *, timed: bool) -> Transcript:
    best = [own.texts[0][0].strip() for own in parts]
    alternatives = []
    if options.n_best > 1:
        found = best_different(
            [own.texts for own in parts],
            lambda each: each[1],
            lambda some: " ".join(filter(None, (text.strip() for text, _ in some))),
            options.n_best,
        )
        alternatives = [{"text": text, "score": score} for text, score in found]
    words = [word for own in parts for word in own.words]
    return Transcript(" ".join(filter(None, best)), words if timed else None, alternatives)
