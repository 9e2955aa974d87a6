"""How a transcript is written: as is asked for, else as the task's settings say."""

from __future__ import annotations

from typing import Any, Protocol

from groundup.core.errors import DataError
from groundup.core.settings import validate
from groundup.generation.options import DecodingOptions
from groundup.tasks.shared.text_generation import decoding_options
from groundup.tasks.transcribe.by_frames import FrameDecoding

__all__ = ["WritesTranscripts", "frame_decoding", "writing_options"]

_LONGEST = 224
"""Tokens of a transcript: half of Whisper's context, as its authors decode."""
# Of the command line, which gives them for every task.
_OF_TEXTS = ("max_new_tokens", "seed")


class WritesTranscripts(Protocol):
    """A task with the settings that say how."""

    # Properties: settings are frozen, and a plain attribute would ask for one that can be set.
    @property
    def beams(self) -> int: ...

    @property
    def ngram(self) -> int: ...

    @property
    def ngram_weight(self) -> float: ...

    @property
    def length_bonus(self) -> float: ...

    @property
    def max_target_tokens(self) -> int | None: ...


def frame_decoding(task: WritesTranscripts, options: dict[str, Any]) -> FrameDecoding:
    """Return how frames are decoded.

    Raises:
        DataError: If tokens are to be drawn, or n-grams to count that were not learned.
        RecipeError: If an option is unknown or of the wrong type.
    """
    if options.get("temperature", 0.0):
        raise DataError(
            "options.temperature",
            f"is {options['temperature']}, but CTC searches for the likeliest text and draws none",
            "Use temperature 0",
        )
    # The command line gives these for every task, and frames are as many as they are.
    asked = {n: v for n, v in options.items() if n not in (*_OF_TEXTS, "temperature")}
    if asked.get("ngram_weight") and not task.ngram:
        problem = "has no effect: the run learned no n-grams"
        raise DataError("options.ngram_weight", problem, "Train with task.ngram, or remove it")
    # As many beams as texts are asked for, where nobody says how many.
    own: dict[str, Any] = {"beams": max(task.beams, asked.get("n_best", 1))}
    if task.ngram:
        own |= {"ngram_weight": task.ngram_weight, "length_bonus": task.length_bonus}
    found = validate(FrameDecoding, own | asked, "options")
    if found.n_best > found.beams:
        problem = f"is {found.n_best}, but there are {found.beams} beams"
        raise DataError("options.n_best", problem, "Use as many beams")
    return found


def writing_options(task: WritesTranscripts, options: dict[str, Any]) -> DecodingOptions:
    """Return how an encoder-decoder writes.

    Raises:
        RecipeError: If an option is unknown, of the wrong type or without effect.
    """
    longest = task.max_target_tokens or _LONGEST
    own: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": longest}
    # Tokens that are drawn are not searched for.
    if options.get("temperature", 0.0) == 0.0:
        own["beams"] = max(task.beams, options.get("n_best", 1))
    return decoding_options(own | options)
