"""Tokens that a text may not go on with: some never, its end while it is short, and what would
repeat it.

Shape legend: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Constraints", "forbid", "repeating_tokens"]


class Constraints(Protocol):
    """What ``forbid`` reads of decoding options."""

    @property
    def min_new_tokens(self) -> int: ...

    @property
    def no_repeat_ngram(self) -> int | None: ...

    @property
    def suppress_tokens(self) -> tuple[int, ...]: ...

    @property
    def begin_suppress_tokens(self) -> tuple[int, ...]: ...

    @property
    def first_token(self) -> int | None: ...


def forbid(
    scores: Tensor,
    contexts: Sequence[Sequence[int]],
    written: int,
    options: Constraints,
    stop_ids: Collection[int],
) -> Tensor:
    """Return scores (R, V) with -inf for the tokens that may not come next; of a token that must
    come, 0.

    Args:
        scores: Logits or log-probabilities.
        contexts: The R texts so far, with what each began with.
        written: How many tokens of each are new.
        options: What is forbidden.
        stop_ids: Tokens that end a text.

    Source:
        No repeated n-grams: Paulus et al., 2017 (arXiv:1705.04304), section 2.5.
    """
    if written == 0 and options.first_token is not None:
        # What is certain costs a text nothing.
        certain = torch.full_like(scores, -torch.inf)
        certain[:, options.first_token] = 0.0
        return certain
    never = options.suppress_tokens
    if written == 0:
        never = (*never, *options.begin_suppress_tokens)
    if never:
        known = [token for token in never if token < scores.shape[1]]
        # The same for all rows: one column each, not a place for each row.
        scores = scores.index_fill(1, torch.tensor(known, device=scores.device), -torch.inf)
    banned: list[tuple[int, int]] = []
    if written < options.min_new_tokens:
        banned += [(row, token) for row in range(len(contexts)) for token in stop_ids]
    if options.no_repeat_ngram is not None:
        for row, context in enumerate(contexts):
            found = repeating_tokens(context, options.no_repeat_ngram)
            banned += [(row, token) for token in found]
    # A tokenizer may have tokens, such as an image's, that the model does not predict.
    banned = [(row, token) for row, token in banned if token < scores.shape[1]]
    # Most steps forbid nothing, and a copy of all scores would cost as much as the choice.
    if not banned:
        return scores
    rows, tokens = torch.tensor(banned, device=scores.device).T
    return scores.index_put((rows, tokens), scores.new_tensor(-torch.inf))


def repeating_tokens(context: Sequence[int], size: int) -> set[int]:
    """Return the tokens that would end a sequence of ``size`` tokens that is there already."""
    ending = tuple(context[len(context) - size + 1 :])
    if len(ending) < size - 1:
        return set()
    starts = range(len(context) - size + 1)
    return {
        context[start + size - 1]
        for start in starts
        if tuple(context[start : start + size - 1]) == ending
    }
