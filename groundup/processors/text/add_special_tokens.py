"""Texts between the tokens that a model expects around them: documents, prompts, and rows for
encoders.

Legend: N rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.contracts.processors import TextProcessor
from groundup.core.errors import DataError, RecipeError
from groundup.core.values import Batch, CutInputs

__all__ = [
    "Row",
    "documents",
    "frame_of",
    "frame_pairs",
    "frame_texts",
    "pad_rows",
    "prompts",
    "split_pair",
]

# (T,) tokens, and the kind of each.
Row = tuple[NDArray[np.int64], NDArray[np.int64] | None]


def documents(texts: Sequence[str], tokenizer: TextProcessor) -> list[NDArray[np.int32]]:
    """Return each text as a language model reads a document: its start, the text, the end token.

    The start is the tokenizer's own start token where it puts one before every text (Gemma, Llama),
    else the end token.
    """
    return [
        np.concatenate(([tokenizer.begin_id], tokens, [tokenizer.end_id])).astype(np.int32)
        for tokens in tokenizer.encode_batch(texts)
    ]


def prompts(texts: Sequence[str], tokenizer: TextProcessor) -> list[list[int]]:
    """Return each text as the beginning of a document, to be written on."""
    return [[tokenizer.begin_id, *tokens.tolist()] for tokens in tokenizer.encode_batch(texts)]


def split_pair(value: Any) -> tuple[str, str]:
    """Return an input as two texts: it is a tuple or a list of two, or one text with a tab between
    them.

    Raises:
        DataError: If it is none of these, or one of the two is empty.
    """
    parts = value
    if isinstance(value, str):
        parts = value.split("\t")
    fits = (
        isinstance(parts, list | tuple)
        and len(parts) == 2
        and all(isinstance(part, str) for part in parts)
    )
    if not fits:
        raise DataError(
            "inputs",
            f"{value!r:.80} is not two texts, but the model was trained on pairs",
            "Give (first, second), or one text with a tab between the two",
        )
    first, second = parts
    if not first.strip() or not second.strip():
        which = "second" if first.strip() else "first"
        raise DataError(
            "inputs", f"the {which} text of a pair is empty", "Give both, or remove the pair"
        )
    return first, second


def frame_of(tokenizer: TextProcessor) -> tuple[list[int], list[int]]:
    """Return the tokens that go before and after a text; none, where it is no encoder's."""
    if tokenizer.frame is None:
        return [], []
    first, last = tokenizer.frame
    return [first], [last]


def frame_texts(
    texts: Sequence[str], tokenizer: TextProcessor, longest: int, cut: CutInputs | None = None
) -> list[Row]:
    """Return each text as an encoder reads it, ``[CLS] text [SEP]``, cut to ``longest``; as it is
    for other models. What is cut is counted in ``cut``."""
    # The frame stays whole where a text is cut.
    before, after = frame_of(tokenizer)
    room = max(0, longest - len(before) - len(after))
    read = tokenizer.encode_batch(texts)
    if cut is not None:
        cut.add("texts", "tokens", f"max_tokens {longest}", list(map(len, read)), room)
    # Arrays of whole numbers made once: an empty list would be one of fractions.
    start, end = np.array(before, np.int64), np.array(after, np.int64)
    return [(np.concatenate((start, tokens[:room], end)), None) for tokens in read]


def frame_pairs(
    pairs: Sequence[tuple[str, str]],
    tokenizer: TextProcessor,
    longest: int,
    cut: CutInputs | None = None,
) -> list[Row]:
    """Return each pair as an encoder reads it: ``[CLS] a [SEP] b [SEP]``, the second text's tokens
    of another kind.

    RoBERTa's tokenizer puts ``</s></s>`` between and has one kind. Other models read the end token
    between the two. What is too long is cut at the end of the longer text first.
    """
    firsts = tokenizer.encode_batch([first for first, _ in pairs])
    seconds = tokenizer.encode_batch([second for _, second in pairs])
    start, end = frame_of(tokenizer)
    middle, kind = tokenizer.between or ((tokenizer.end_id,), 0)
    room = longest - len(start) - len(middle) - len(end)
    # One token of each text at least.
    if room < 2:
        raise RecipeError(
            "recipe.task.max_tokens",
            f"is {longest}, but two texts with the tokens around them take at least"
            f" {longest - room + 2}",
            "Set a larger number",
        )
    if cut is not None:
        lengths = [len(first) + len(second) for first, second in zip(firsts, seconds, strict=True)]
        cut.add("pairs of texts", "tokens", f"max_tokens {longest}", lengths, room)
    found: list[Row] = []
    for first, second in zip(firsts, seconds, strict=True):
        left, right = _shares(len(first), len(second), room)
        tokens = np.concatenate((start, first[:left], middle, second[:right], end)).astype(np.int64)
        types = np.zeros(len(tokens), np.int64)
        types[len(start) + left + len(middle) :] = kind
        # Without kinds a model need not read any.
        found.append((tokens, types if kind else None))
    return found


def pad_rows(rows: Sequence[Row], tokenizer: TextProcessor) -> Batch:
    """Return rows as ``tokens`` (N, T) int64 and ``lengths`` (N,), and ``token_types`` (N, T) where
    there are kinds."""
    padding = tokenizer.end_id if tokenizer.padding_id is None else tokenizer.padding_id
    # One column at least, and a length of 1: models divide by lengths, and an empty text has none.
    shape = (len(rows), max([1, *(len(tokens) for tokens, _ in rows)]))
    tokens = np.full(shape, padding, dtype=np.int64)
    types = np.zeros(shape, dtype=np.int64)
    for place, (own, kinds) in enumerate(rows):
        tokens[place, : len(own)] = own
        if kinds is not None:
            types[place, : len(own)] = kinds
    lengths = torch.tensor([max(1, len(own)) for own, _ in rows])
    found = {"tokens": torch.from_numpy(tokens), "lengths": lengths}
    if any(kinds is not None for _, kinds in rows):
        found["token_types"] = torch.from_numpy(types)
    return found


def _shares(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens are kept of two texts: the longer one is cut until both are as long,
    then both."""
    if first + second <= room:
        return first, second
    # Where both are cut, the longer one keeps the odd token.
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)
