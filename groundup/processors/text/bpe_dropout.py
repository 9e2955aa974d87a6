"""BPE-dropout: a text cut into other pieces each time it is seen, so that a model learns what words
are made of.

Source: Provilkov, Emelianenko and Voita, 2020, "BPE-Dropout: simple and effective subword
    regularization", arXiv:1910.13267, section 3. Departs from the paper: a word is cut in one of a
    number of ways that are drawn once, not anew at every place.
Legend: T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, pre_tokenizers

from groundup.contracts.processors import TextProcessor
from groundup.core import seeding
from groundup.core.errors import RecipeError
from groundup.processors.text.tokenizer import TokenizerProcessor

__all__ = ["BPEDropout", "bpe_dropout"]

# Ways in which a word is cut: drawing one takes far longer than looking it up, and a frequent word
# is seen thousands of times an epoch.
_WAYS = 64
_KEPT = 1 << 18  # ways of words, about 60 MB


@lru_cache(maxsize=4)
def bpe_dropout(tokenizer: TextProcessor, rate: float, seed: int) -> BPEDropout:
    """Return what cuts texts at random; kept, with the ways that were drawn.

    Raises:
        RecipeError: If the tokenizer is no byte-level BPE.
    """
    return BPEDropout(tokenizer, rate, seed)


class BPEDropout:
    """Cuts texts into tokens by merges of which each is left out at random, at every step.

    Args:
        tokenizer: A byte-level BPE, learned here or read from a file.
        rate: The chance that a merge is left out where it could be made.
        seed: The run's.

    Raises:
        RecipeError: If the tokenizer is no such.
    """

    def __init__(self, tokenizer: TextProcessor, rate: float, seed: int) -> None:
        described = tokenizer.described() if isinstance(tokenizer, TokenizerProcessor) else {}
        model = described.get("model", {})
        pre_tokenizer = str(described.get("pre_tokenizer"))
        # Without spaces of their own in the text, pieces are bytes and decoding gives it back.
        plain = "'ByteLevel'" in pre_tokenizer and "'add_prefix_space': True" not in pre_tokenizer
        bytes_known = set(pre_tokenizers.ByteLevel.alphabet()) <= set(model.get("vocab", ()))
        changes = described.get("normalizer") is not None
        if model.get("type") != "BPE" or not plain or not bytes_known or changes:
            raise RecipeError(
                "recipe.task.bpe_dropout",
                "needs a byte-level BPE tokenizer that changes no text, and the processor is none",
                "Use processor: bpe with words: false, or remove bpe_dropout",
            )
        self._rate = rate
        self._seed = seed
        self._cut = Tokenizer.from_str(json.dumps(described)).pre_tokenizer
        self._ids: dict[str, int] = model["vocab"]
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        self._ranks = {(first, second): rank for rank, (first, second) in enumerate(pairs)}
        self._cut_word = lru_cache(maxsize=_KEPT)(self._draw)

    def encode(self, text: str, sample: int, side: str) -> NDArray[np.int64]:
        """Return (T,) the tokens of a text, a function of it, the seed, the sample's number and
        the side alone.

        Args:
            text: The text.
            sample: Counted from the start of the run, so that it is cut otherwise in every epoch.
            side: What it is of the sample, such as ``source``.
        """
        words = [word for word, _ in self._cut.pre_tokenize_str(text)]
        key = seeding.key(self._seed, f"bpe dropout {side}", sample)
        draws = seeding.scramble(np.arange(len(words)), key) % np.uint64(_WAYS)
        pieces = [
            token
            for word, way in zip(words, draws.tolist(), strict=True)
            for token in self._cut_word(word, way)
        ]
        return np.array(pieces, np.int64)

    def _draw(self, word: str, way: int) -> tuple[int, ...]:
        """Return the tokens of a word in one of its ways."""
        # Keyed by the word and the way: the same in every process, whenever it is first seen.
        draws = np.random.default_rng(seeding.key(self._seed, f"bpe dropout of {word}", way))
        return tuple(self._ids[piece] for piece in self._merge(word, draws))

    def _merge(self, word: str, draws: np.random.Generator) -> Sequence[str]:
        pieces = list(word)
        while len(pieces) > 1:
            kept = draws.random(len(pieces) - 1) >= self._rate
            ranked = [
                (self._ranks[pair], place)
                for place, pair in enumerate(pairwise(pieces))
                if pair in self._ranks and kept[place]
            ]
            # Where all are left out in one step, the word stays as it is cut, as in the paper.
            if not ranked:
                break
            _, place = min(ranked)
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
        return pieces
