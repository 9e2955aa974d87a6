"""That a model can do the task, and that every setting counts for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from torch import nn

from groundup.contracts.models import EncoderDecoder
from groundup.contracts.speech import EmitsFrames
from groundup.core.errors import RecipeError
from groundup.processors.speech import SpeechProcessor
from groundup.tasks.transcribe.by_frames import WindowSettings

__all__ = ["WINDOW_SECONDS", "check_settings", "name_unlearned", "window_settings"]

_NAMED = 8  # characters that a line names

WINDOW_SECONDS = 30.0
"""Of a window, where neither the task nor the processor says how long."""


class _TranscribeSettings(Protocol):
    """The settings that are for one kind of model."""

    # Properties: settings are frozen, and a plain attribute would ask for one that can be set.
    @property
    def max_target_tokens(self) -> int | None: ...

    @property
    def label_smoothing(self) -> float: ...

    @property
    def ngram(self) -> int: ...

    @property
    def on_too_long(self) -> str: ...

    @property
    def window_seconds(self) -> float | None: ...

    @property
    def overlap_seconds(self) -> float: ...

    @property
    def silence_db(self) -> float | None: ...

    @property
    def no_speech(self) -> float | None: ...


def check_settings(task: _TranscribeSettings, model: nn.Module, processor: Any) -> None:
    """Check that a model emits frames or writes texts, and that all settings count for it.

    Raises:
        RecipeError: If it does neither, a setting is for the other kind, or windows are longer than
            what is read of a sound.
    """
    if isinstance(model, EmitsFrames):
        given = {
            "max_target_tokens": task.max_target_tokens is not None,
            "label_smoothing": task.label_smoothing > 0,
        }
        kind = "emits frames: it is for an encoder-decoder"
    elif isinstance(model, EncoderDecoder):
        given = {"ngram": task.ngram > 0, "on_too_long": task.on_too_long != "error"}
        kind = "writes texts: it is for CTC"
    else:
        raise RecipeError(
            "recipe.model",
            f"{type(model).__name__} neither emits frames nor reads sounds and writes texts",
            "Use model: ctc or whisper",
        )
    for name, used in given.items():
        if used:
            problem = f"has no effect with {type(model).__name__}, which {kind}"
            raise RecipeError(f"recipe.task.{name}", problem, "Remove it")
    longest = _kept_seconds(processor)
    asked = task.window_seconds
    if longest is not None and asked is not None and asked > longest:
        # The rest of every window would be cut off, and what is said in it lost.
        problem = f"is {asked:g}, but processor.pad_seconds keeps {longest:g}"
        remedy = f"Set task.window_seconds: {longest:g}"
        raise RecipeError("recipe.task.window_seconds", problem, remedy)


def window_settings(task: _TranscribeSettings, processor: Any) -> WindowSettings:
    """Return how long recordings are read."""
    window = task.window_seconds
    if window is None:
        window = min(WINDOW_SECONDS, _kept_seconds(processor) or WINDOW_SECONDS)
    # Where windows are short, so is what two have in common.
    overlap = min(task.overlap_seconds, window / 2)
    return WindowSettings(window, overlap, task.silence_db, task.no_speech)


def name_unlearned(references: Sequence[str], processor: Any) -> str:
    """Return how many characters of references no training transcript has, which a model that has
    learned from nothing writes wrong; empty where there are none, or nothing is known."""
    known = processor.characters if isinstance(processor, SpeechProcessor) else ""
    others = Counter(each for text in references for each in text if each not in known)
    if not known or not others:
        return ""
    named = ", ".join(repr(each) for each, _ in others.most_common(_NAMED))
    return f"{others.total():,} characters of references are in no training transcript: {named}"


def _kept_seconds(processor: Any) -> float | None:
    """Return how much of a sound the processor keeps; None: all of it."""
    if isinstance(processor, SpeechProcessor) and processor.config.as_whisper:
        return processor.config.pad_seconds
    return None
