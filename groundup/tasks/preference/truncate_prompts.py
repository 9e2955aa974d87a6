"""Prompts that are too long, cut by whole turns: the oldest go first, and both answers keep the
same prompt."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.data import DataSource
from groundup.core.error_location import encode_located
from groundup.core.values import Message, Preference, Split
from groundup.tasks.preference.changed_source import ChangedSource

__all__ = ["truncate_prompts"]

_log = logging.getLogger("groundup")
_AT_ONCE = 512  # examples that are tokenized together
Lengths = Callable[[Sequence[Preference]], NDArray[np.int64]]


def truncate_prompts(source: DataSource, lengths: Lengths, longest: int) -> DataSource:
    """Return the source; prompts that are too long lose their oldest turns, except for the system
    prompt.

    What is left begins with a question. Answers are never cut: an example that is too long even
    with its last question alone stays as it is.

    Args:
        source: Gives preferences.
        lengths: Gives (N,) how many tokens the longer answer of each example has, with its prompt.
        longest: The most tokens that there is room for.
    """
    return ChangedSource.of(source, _Truncation(lengths, longest))


class _Truncation:
    def __init__(self, lengths: Lengths, longest: int) -> None:
        self._lengths = lengths
        self._longest = longest
        # A source is read more than once (the reference, each epoch), and to cut takes tokenizing.
        self._known: dict[str, tuple[Message, ...]] = {}

    def __call__(self, examples: Sequence[Any], split: Split | None) -> list[Any]:
        keys = [_key_of(example) for example in examples]
        new = {k: each for k, each in zip(keys, examples, strict=True) if k not in self._known}
        pending = list(new.items())
        # Encoded together: a tokenizer uses all cores for a batch, and one for a text.
        for first in range(0, len(pending), _AT_ONCE):
            some = pending[first : first + _AT_ONCE]
            lengths = encode_located(self._lengths, [each for _, each in some])
            for (key, each), length in zip(some, lengths.tolist(), strict=True):
                self._known[key] = each.prompt if length <= self._longest else self._cut(each)
        found = [
            replace(each, prompt=self._known[key]) for key, each in zip(keys, examples, strict=True)
        ]
        cut = sum(
            len(each.prompt) < len(was.prompt) for each, was in zip(found, examples, strict=True)
        )
        # Said once a stream is opened, not whenever the data is looked through.
        if cut and split is not None:
            words = (
                "%s: the oldest turns of %d of %d prompts were left out, to fit into the context"
                " of %d"
            )
            _log.warning(words, split, cut, len(found), self._longest)
        return found

    def _cut(self, example: Preference) -> tuple[Message, ...]:
        """Return the longest prompt that fits, or the example's own where none does."""
        # All that are shorter, the longest first: a template may add what no length could foretell.
        fewer = [replace(example, prompt=prompt) for prompt in _shorten(example.prompt)]
        if not fewer:
            return example.prompt
        fits = np.flatnonzero(self._lengths(fewer) <= self._longest)
        return fewer[int(fits[0])].prompt if len(fits) else example.prompt


def _shorten(prompt: tuple[Message, ...]) -> Iterator[tuple[Message, ...]]:
    """Yield the prompt without its oldest turns, the longest first."""
    system = prompt[:1] if prompt and prompt[0].role == "system" else ()
    for turn in range(len(system) + 1, len(prompt)):
        # A conversation that begins with an answer is not one that a template was made for.
        if prompt[turn].role == "user":
            yield (*system, *prompt[turn:])


def _key_of(example: Any) -> str:
    if not isinstance(example, Preference):  # the task's encode says what is wrong with it
        return repr(example)
    turns = (example.prompt, *example.answers)
    said = [list(map(asdict, each)) for each in turns]
    return json.dumps([said, example.tools], default=str)
