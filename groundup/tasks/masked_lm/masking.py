"""Which tokens of a text are hidden from a model that is to predict them, and what is put in their
place.

Legend: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.contracts.processors import Processor, TextProcessor
from groundup.core import seeding
from groundup.core.errors import RecipeError
from groundup.core.values import IGNORED

__all__ = ["Masking", "hide_tokens", "require_mask"]


@dataclass(frozen=True)
class Masking:
    """How much is hidden, and how.

    Attributes:
        share: Of the tokens, how many are predicted.
        masked: Of those, how many the mask token replaces.
        replaced: And how many another token does, drawn evenly; the others stay as they are.
        whole_words: Choose words, all tokens of each.
    """

    share: float
    masked: float
    replaced: float
    whole_words: bool


@dataclass(frozen=True)
class _Vocabulary:
    """What a processor's tokens are: (V,) which are special, the others' numbers, (V,) which go on
    with a word."""

    mask: int
    special: NDArray[np.bool_]
    plain: NDArray[np.int64]
    continuing: NDArray[np.bool_]


def require_mask(processor: Processor) -> None:
    """Raise a RecipeError if a processor reserves no token to hide others with."""
    if not isinstance(processor, TextProcessor) or processor.mask_id is None:
        raise RecipeError(
            "recipe.processor",
            "has no token that stands for a hidden one, such as [MASK]",
            "Use the tokenizer of a BERT or RoBERTa, or train one: processor: {name: bpe, encoder:"
            " true}",
        )


# By identity of the processor: its vocabulary does not change while a run lasts.
@lru_cache(maxsize=4)
def _vocabulary(processor: Any) -> _Vocabulary:
    special = np.zeros(processor.vocabulary_size, dtype=np.bool_)
    special[list(processor.special_tokens.values())] = True
    return _Vocabulary(
        processor.mask_id, special, np.flatnonzero(~special), processor.continuations()
    )


def hide_tokens(
    tokens: Tensor,
    wanted: Tensor,
    samples: NDArray[np.int64],
    processor: Any,
    settings: Masking,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Return tokens (B, T) with some hidden, and targets (B, T): the hidden ones, -100 elsewhere.

    In every row ``share`` of the tokens that may be chosen are, at least one. What is chosen in a
    row, and what takes its place, is a function of the row's tokens, the seed and the sample's
    number alone.

    Args:
        tokens: (B, T).
        wanted: (B, T) booleans, which tokens may be chosen; special ones never are.
        samples: (B,) the samples' numbers.
        processor: A tokenizer with a mask token.
        settings: How much, and how.
        seed: The run's, or another to hide the same tokens in every run.

    Source:
        Devlin et al., BERT, 2018 (arXiv:1810.04805), section 3.1, task 1, and appendix A.1. Whole
        words: the authors' code of May 2019 (github.com/google-research/bert); as there, words are
        taken in random order as long as no more than the share of the tokens is hidden, the first
        one in any case.
    """
    known = _vocabulary(processor)
    found = tokens.numpy().copy()
    targets = np.full(tokens.shape, IGNORED, np.int64)
    # Special tokens say where a text begins and ends: they are always the same, so there is
    # nothing to learn by predicting them.
    may = wanted.numpy() & ~known.special[found]
    for row, sample in enumerate(samples.tolist()):
        # Drawn for all positions, so that what one position gets does not depend on the others.
        generator = seeding.generator(seed, "mask", sample)
        draws = torch.rand(3, tokens.shape[1], generator=generator).double().numpy()
        places = np.flatnonzero(may[row])
        if not len(places):
            continue
        continuing = known.continuing[found[row, places]]
        words = _number_words(places, continuing, whole=settings.whole_words)
        chosen = places[_choose_words(words, draws[0][places], settings.share)]
        targets[row, chosen] = found[row, chosen]
        # One draw decides among mask, another token and itself; a second one which other token.
        fate = draws[1][chosen]
        random = known.plain[(draws[2][chosen] * len(known.plain)).astype(np.int64)]
        # Where nothing is changed the model must still predict: it cannot trust what it reads.
        changed = np.where(fate < settings.masked + settings.replaced, random, found[row, chosen])
        found[row, chosen] = np.where(fate < settings.masked, known.mask, changed)
    return torch.from_numpy(found), torch.from_numpy(targets)


def _number_words(
    places: NDArray[np.int64], continuing: NDArray[np.bool_], *, whole: bool
) -> NDArray[np.int64]:
    """Return for each of the tokens at ``places`` the number of its word, from 0; without words its
    own."""
    if not whole:
        return np.arange(len(places))
    first = ~continuing
    first[1:] |= np.diff(places) > 1  # a special token between them ends a word
    first[0] = True
    return first.cumsum() - 1


def _choose_words(
    words: NDArray[np.int64], draws: NDArray[np.float64], share: float
) -> NDArray[np.bool_]:
    """Return which tokens are hidden: words by their first token's draw, up to the share of the
    tokens."""
    # Words are taken whole, by the draw of their first token, so that long ones are not favoured.
    starts = np.flatnonzero(np.diff(words, prepend=-1))
    sizes = np.diff(starts, append=len(words))
    order = np.argsort(draws[starts], kind="stable")
    taken = np.zeros(len(starts), dtype=np.bool_)
    taken[order[np.cumsum(sizes[order]) <= max(1, round(share * len(words)))]] = True
    taken[order[0]] = True  # a word may be longer than the share of a short text
    return taken[words]
