"""Prompts that are too long, cut by whole turns: the oldest go first, and both answers keep the
same prompt."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PrivateAttr

from groundup.core.contracts.data import DataContext, DataSource, Stream
from groundup.core.error_location import encode_located
from groundup.core.values import Message, Preference, Split

__all__ = ["with_short_prompts"]

_log = logging.getLogger("groundup")
_AT_ONCE = 512  # examples that are tokenized together
Lengths = Callable[[Sequence[Preference]], NDArray[np.int64]]


class _Shortened(DataSource):
    """Another source, without the oldest turns of prompts that are too long."""

    _source: DataSource = PrivateAttr()
    _lengths: Lengths = PrivateAttr()
    _longest: int = PrivateAttr()
    _known: dict[str, Preference] = PrivateAttr(default_factory=dict)

    @classmethod
    def of(cls, source: DataSource, lengths: Lengths, longest: int) -> _Shortened:
        made = cls()
        made._source, made._lengths, made._longest = source, lengths, longest
        return made

    def splits(self) -> tuple[Split, ...]:
        return self._source.splits()

    def examples(self, split: Split, cache: Path) -> Iterable[Any]:
        return self._shortened(list(self._source.examples(split, cache)))

    def open(self, context: DataContext) -> Stream:
        def encode(given: Sequence[Any]) -> Any:
            found = self._shortened(given)
            cut = sum(
                len(each.prompt) < len(was.prompt) for each, was in zip(found, given, strict=True)
            )
            if cut:
                words = (
                    "%s: the oldest turns of %d of %d prompts were left out, to fit into the"
                    " context of %d"
                )
                _log.warning(words, context.split, cut, len(found), self._longest)
            return context.encode(found)

        return self._source.open(replace(context, encode=encode))

    def card(self, cache: Path) -> dict[str, Any]:
        return self._source.card(cache)

    def _shortened(self, examples: Sequence[Any]) -> list[Any]:
        """Return the examples; those that are too long with as many of their last turns as there is
        room for."""
        keys = [_key(example) for example in examples]
        new = {
            key: each for key, each in zip(keys, examples, strict=True) if key not in self._known
        }
        pending = list(new.items())
        for first in range(0, len(pending), _AT_ONCE):
            some = pending[first : first + _AT_ONCE]
            lengths = encode_located(self._lengths, [each for _, each in some])
            for (key, each), length in zip(some, lengths.tolist(), strict=True):
                self._known[key] = each if length <= self._longest else self._cut(each)
        prompts = (self._known[key].prompt for key in keys)
        return [
            replace(each, prompt=prompt) for each, prompt in zip(examples, prompts, strict=True)
        ]

    def _cut(self, example: Preference) -> Preference:
        """Return the example with the longest prompt that fits, or as it is where none does."""
        fewer = [replace(example, prompt=prompt) for prompt in _shorter(example.prompt)]
        fits = (
            np.flatnonzero(self._lengths(fewer) <= self._longest)
            if fewer
            else np.empty(0, np.int64)
        )
        return fewer[int(fits[0])] if len(fits) else example


def with_short_prompts(source: DataSource, lengths: Lengths, longest: int) -> DataSource:
    """Return the source; prompts that are too long lose their oldest turns, the system prompt
    aside.

    What is left begins with a question. Answers are never cut: an example that is too long even
    with its last question alone stays as it is.

    Args:
        source: Gives preferences.
        lengths: Gives (N,) how many tokens the longer answer of each example has, with its prompt.
        longest: The most tokens that there is room for.
    """
    return _Shortened.of(source, lengths, longest)


def _shorter(prompt: tuple[Message, ...]) -> Iterator[tuple[Message, ...]]:
    """Yield the prompt without its oldest turns, the longest first."""
    told = prompt[:1] if prompt and prompt[0].role == "system" else ()
    for turn in range(len(told) + 1, len(prompt)):
        if prompt[turn].role == "user":
            yield (*told, *prompt[turn:])


def _key(example: Any) -> str:
    said = (getattr(example, "prompt", ()), *getattr(example, "answers", ()))
    return json.dumps([[(turn.role, turn.content) for turn in turns] for turns in said])
