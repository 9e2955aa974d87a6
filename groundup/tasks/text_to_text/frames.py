"""The tokens around every text of a side: ends, languages, what a chat template puts around a
question."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.contracts.processors import TextProcessor
from groundup.core.errors import RecipeError, did_you_mean
from groundup.processors.chat.template import ChatTemplate
from groundup.processors.text.add_special_tokens import frame_of
from groundup.tasks.text_to_text.settings import TextToTextSettings

__all__ = ["Frame", "end_ids", "first_token", "source_frame", "target_frame"]


class Frame(NamedTuple):
    """The tokens around every text of a side, and where one that is too long is cut.

    Attributes:
        before: Tokens before every text.
        after: Tokens after every text.
        cuts_middle: Whether its beginning and its end are read, half of the tokens each; else its
            beginning alone.
    """

    before: list[int]
    after: list[int]
    cuts_middle: bool = False

    def put(self, tokens: NDArray[Any], longest: int) -> Tensor:
        """Return tokens within the frame, int64, cut to at most ``longest``."""
        room = longest - len(self.before) - len(self.after)
        if self.cuts_middle and len(tokens) > room:
            last = room // 2
            kept = (tokens[: room - last], tokens[len(tokens) - last :])
            tokens = np.concatenate(kept)
        return torch.from_numpy(
            np.concatenate((self.before, tokens[:room], self.after)).astype(np.int64)
        )

    def inner(self, row: Tensor) -> Tensor:
        """Return a row without the frame."""
        return row[len(self.before) : len(row) - len(self.after)]


def source_frame(task: TextToTextSettings, tokenizer: TextProcessor) -> Frame:
    """Return what goes around every input: the suffix and the end token, or what the tokenizer puts
    around every text itself, as BART's does.

    Raises:
        RecipeError: If the tokenizer lacks ``source_token``, or a chat template.
    """
    cuts = task.source_cut == "middle"
    own: list[int] = []
    if task.suffix:
        own = tokenizer.encode_batch([task.suffix])[0].tolist()
    if task.chat_template:
        chat = _chat_of(tokenizer)
        return Frame(chat.before, [*own, *chat.after], cuts)
    if task.decoder_only:
        # A document begins so for a language model. Where a suffix says that the input is over,
        # there is no end token.
        return Frame([tokenizer.begin_id], own or [tokenizer.end_id], cuts)
    before, after = frame_of(tokenizer)
    first = _number_of(task.source_token, tokenizer, "source_token")
    before = before if first is None else [first]
    return Frame(before, [*own, *(after or [tokenizer.end_id])], cuts)


def target_frame(task: TextToTextSettings, tokenizer: TextProcessor) -> Frame:
    """Return what goes around every output; see ``source_frame``.

    Raises:
        RecipeError: If the tokenizer lacks ``target_token``.
    """
    if task.chat_template:
        return Frame([], [_chat_of(tokenizer).ends[0]])
    before, after = frame_of(tokenizer)
    first = first_token(task, tokenizer)
    return Frame(before if first is None else [first], after or [tokenizer.end_id])


def first_token(task: TextToTextSettings, tokenizer: TextProcessor) -> int | None:
    """Return the token that every output begins with, if there is one.

    Raises:
        RecipeError: If the tokenizer lacks it.
    """
    return _number_of(task.target_token, tokenizer, "target_token")


def end_ids(task: TextToTextSettings, tokenizer: TextProcessor) -> tuple[int, ...]:
    """Return the tokens that end an output."""
    return _chat_of(tokenizer).ends if task.chat_template else tokenizer.end_ids


class _Chat(NamedTuple):
    """The tokens around what the user says, and those that end an answer."""

    before: list[int]
    after: list[int]
    ends: tuple[int, ...]


def _chat_of(tokenizer: TextProcessor) -> _Chat:
    if tokenizer.chat_template is None:
        raise RecipeError(
            "recipe.task.chat_template",
            "is true, but the tokenizer brings no template",
            "Remove it, and say what goes around an input by prefix and suffix",
        )
    bound: Any = tokenizer  # for the cache: an object, told apart by identity
    return _bind(tokenizer.chat_template, bound)


@lru_cache(maxsize=4)
def _bind(source: str, tokenizer: TextProcessor) -> _Chat:
    template = ChatTemplate(source, tokenizer)
    before, after = template.around_user()
    return _Chat(before.tolist(), after.tolist(), template.stop_ids)


def _number_of(token: str | int | None, tokenizer: TextProcessor, setting: str) -> int | None:
    if token is None:
        return None
    if isinstance(token, int):
        if 0 <= token < tokenizer.vocabulary_size:
            return token
        problem = f"is {token}; allowed: 0 to {tokenizer.vocabulary_size - 1}"
        raise RecipeError(f"recipe.task.{setting}", problem, "Correct it")
    found = tokenizer.special_id(token)
    if found is None:
        known = list(tokenizer.special_tokens)
        shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
        near = did_you_mean(token, known)
        problem = f"{token!r} is no special token of the tokenizer; {near}it has: {shown}"
        raise RecipeError(f"recipe.task.{setting}", problem, "Choose one of them, or give a number")
    return found
