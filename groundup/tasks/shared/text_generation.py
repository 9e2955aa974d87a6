"""Text written on from prompts, at once or as a stream, ended by stop tokens and stop texts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, cast

from torch import nn

from groundup.contracts.processors import TextProcessor
from groundup.core.errors import DataError
from groundup.core.settings import validate
from groundup.generation.beam_search import beam_search
from groundup.generation.decoding import Decodable, Finished, generate, generate_batch
from groundup.generation.options import DecodingOptions
from groundup.processors.text.stream_decoder import StreamDecoder

__all__ = ["cut_at_stop", "decoding_options", "stop_check", "write", "write_stream"]


def decoding_options(options: dict[str, Any]) -> DecodingOptions:
    """Return the options, checked.

    Raises:
        RecipeError: If one is unknown, of the wrong type or without effect.
    """
    return validate(DecodingOptions, options, "options")


def write(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    processor: TextProcessor,
    options: DecodingOptions,
    stop_ids: Collection[int],
    rows: int = 32,
) -> list[str]:
    """Return what the model writes on from each prompt (lists of token ids), at most ``rows``
    texts at a time, all beams counted.

    Raises:
        DataError: If more than one text of each prompt is asked for, or an engine for beams.
    """
    if options.n_best > 1:
        problem = f"is {options.n_best}, but this task gives one text for each prompt"
        raise DataError("options.n_best", problem, "Use n_best 1")
    texts: list[str] = []
    if options.beams > 1:
        together = max(1, rows // options.beams)
        for first in range(0, len(prompts), together):
            found = beam_search(model, prompts[first : first + together], options, stop_ids)
            texts += [cut_at_stop(processor.decode(best[0].tokens), options.stop) for best in found]
        return texts
    for first in range(0, len(prompts), rows):
        # Stop texts may end in the middle of a token, so texts are looked at, not tokens.
        finished = stop_check(processor, options.stop)
        # What its forward takes, a module does not say in types.
        written = generate_batch(
            cast(Decodable, model), prompts[first : first + rows], options, stop_ids, finished
        )
        texts += [cut_at_stop(processor.decode(tokens), options.stop) for tokens in written]
    return texts


def write_stream(
    model: nn.Module,
    prompt: Sequence[int],
    processor: TextProcessor,
    options: DecodingOptions,
    stop_ids: Collection[int],
) -> Iterator[str]:
    """Yield what the model writes as it is written; joined, it is what ``write`` returns.

    What may become a stop text is held back until it cannot.

    Raises:
        DataError: If beams are asked for.
    """
    if options.beams > 1:
        problem = f"is {options.beams}, but tokens are shown as they are chosen, before the best"
        raise DataError("options.beams", f"{problem} text is known", "Use beams 1, or no stream")
    decoder = StreamDecoder(processor)
    # What may be the beginning of a stop text must not be shown yet: it cannot be taken back.
    held = ""
    # As above: a module's forward has no types.
    for step in generate(
        cast(Decodable, model), [prompt], options, stop_ids, stop_check(processor, options.stop)
    ):
        token = step[0]
        held += decoder.push(token) if token is not None else ""
        if cut_at_stop(held, options.stop) != held:
            break
        ready = len(held) - _may_grow(held, options.stop)
        if ready:
            yield held[:ready]
            held = held[ready:]
    else:
        held += decoder.flush()
    # What was held back, up to a stop text that may be in it.
    rest = cut_at_stop(held, options.stop)
    if rest:
        yield rest


def stop_check(processor: TextProcessor, stop: tuple[str, ...]) -> Finished | None:
    """Return what tells whether a text holds a stop text; None where there are none."""
    if not stop:
        return None
    # Only the last tokens are decoded at each step: nearly every token is a byte or more, so a stop
    # text has no more of them than bytes.
    tail = max(len(text.encode()) for text in stop) + 8

    def finished(row: int, written: list[int]) -> bool:
        text = processor.decode(written[-tail:])
        return any(end in text for end in stop)

    return finished


def cut_at_stop(text: str, stop: tuple[str, ...]) -> str:
    """Return a text up to the first stop text in it."""
    places = [place for place in (text.find(end) for end in stop) if place >= 0]
    return text[: min(places)] if places else text


def _may_grow(text: str, stop: tuple[str, ...]) -> int:
    """Return how many characters at the end of a text begin a stop text."""
    sizes = (
        size
        for end in stop
        for size in range(min(len(end) - 1, len(text)), 0, -1)
        if text.endswith(end[:size])
    )
    return max(sizes, default=0)
