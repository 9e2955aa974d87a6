"""Log-probabilities of all answers to a prompt, for which the prompt is read once.

Shape legend: B prompts, G answers of each, L tokens of all answers of a prompt with it, T tokens of
a prompt and of its answers without it, M tokens fed of a micro-batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from groundup.contracts.models import Generates, HiddenStates
from groundup.core.values import Batch
from groundup.nn.branches import BEGINNING, Branches
from groundup.nn.kv_cache import KeyValueCache

__all__ = ["branch_log_probs", "shares_prompts", "spread_rows", "teaching_rows"]


def teaching_rows(batch: Batch) -> Tensor:
    """Return (B,) which rows have a gradient where nothing but rewards is learned from: answers
    that are all equally good have none. Where no row has one, it is the first, so that there is
    something to ask."""
    found = (batch["advantages"] != 0).any(1)
    if not found.any():
        found[:1] = True
    return found


def spread_rows(log_probs: Tensor, chosen: Tensor, batch: Batch) -> Tensor:
    """Return (M,) what was found of the tokens fed of the chosen rows, 0 of the others."""
    fed = torch.arange(batch["tokens"].shape[1], device=chosen.device) < batch["lengths"][:, None]
    of_chosen = chosen[:, None].expand_as(fed)[fed]
    return log_probs.new_zeros(len(of_chosen)).index_copy(0, of_chosen.nonzero()[:, 0], log_probs)


class _Tree(NamedTuple):
    """Prompts, each with its answers behind it.

    Attributes:
        tokens: (B, T).
        positions: (B, T), in a prompt and one of its answers.
        branches: (B, T), as ``Branches`` takes them.
        places: (B, L) where a token of a batch's row is in these, from 0 to T - 1.
    """

    tokens: Tensor
    positions: Tensor
    branches: Tensor
    places: Tensor


def shares_prompts(model: nn.Module, longest: int) -> bool:
    """Return whether a model can read a prompt once for all answers.

    Args:
        model: A language model.
        longest: Tokens of a prompt with an answer.
    """
    if not (isinstance(model, HiddenStates) and isinstance(model, Generates)):
        return False
    # A library's model keeps keys in a way of its own, which nothing can be put in the place of.
    cache: Any = model.new_cache(1, 1)
    if not isinstance(cache, KeyValueCache):
        return False
    # Keys that are turned by how long a text has become differ from answer to answer.
    return not any(cache.outgrown(length, length + 1) for length in range(1, longest))


def branch_log_probs(model: Any, batch: Batch) -> Tensor:
    """Return (M,) log p in nats of the tokens fed, 0 where none is scored, as ``token_log_probs``
    does of the answers each with its prompt: the same sums, in another order.

    Args:
        model: One that ``shares_prompts``.
        batch: Rows of G sequences that begin with the same prompt.
    """
    tree = _tree_of(batch)
    layers = len(model.new_cache(1, 1).layers)
    cache = Branches(tree.branches, layers)
    hidden = model.hidden(tree.tokens.long(), tree.positions, cache=cache)
    fed = torch.arange(tree.places.shape[1], device=hidden.device) < batch["lengths"][:, None]
    following = batch["next_tokens"][fed]
    rows = torch.arange(len(hidden), device=hidden.device)[:, None]
    places = (rows * hidden.shape[1] + tree.places)[fed]
    scored = (following >= 0).nonzero()[:, 0]
    # The last token of a prompt is asked about once for each answer, and computed once.
    states = hidden.flatten(0, 1).index_select(0, places[scored])
    found: Tensor = model.log_probs_from(states, following[scored].long())
    return found.new_zeros(len(following)).index_copy(0, scored, found)


def _tree_of(batch: Batch) -> _Tree:
    lengths = batch["sequence_lengths"]  # (B, G)
    device = lengths.device
    ends = lengths.cumsum(1)
    columns = torch.arange(batch["tokens"].shape[1], device=device)
    # (B, L) which answer a token is of, and its position there.
    answer = (columns[None, :, None] >= ends[:, None]).sum(2).clamp(max=lengths.shape[1] - 1)
    offset = columns - (ends - lengths).gather(1, answer)
    # The first token that is scored follows the prompt's last one.
    prompt = (batch["next_tokens"] >= 0).int().argmax(1, keepdim=True) + 1  # (B, 1)
    own = lengths - prompt  # (B, G) tokens of an answer alone
    starts = prompt + own.cumsum(1) - own
    behind = starts.gather(1, answer) + offset - prompt
    places = torch.where(offset < prompt, offset, behind)
    fed = columns < batch["lengths"][:, None]
    size = int((prompt[:, 0] + own.sum(1)).max())
    # Written by place: the tokens of a prompt several times, which are the same.
    row = torch.arange(len(lengths), device=device)[:, None].expand_as(places)[fed]
    place = places[fed]
    tokens = batch["tokens"].new_zeros(len(lengths), size)
    tokens[row, place] = batch["tokens"][fed]
    positions = torch.zeros(len(lengths), size, dtype=torch.int64, device=device)
    positions[row, place] = offset[fed]
    branches = torch.full_like(positions, BEGINNING - 1)
    branch = torch.where(offset < prompt, BEGINNING, answer + 1)
    branches[row, place] = branch[fed]
    return _Tree(tokens, positions, branches, places.clamp(min=0))
