"""Inputs and outputs as rows of tokens.

Legend: B rows, N tokens of all rows, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from groundup.contracts.processors import TextProcessor
from groundup.contracts.ragged import pack_ragged, ragged_rows
from groundup.core.errors import DataError
from groundup.core.values import IGNORED, Batch
from groundup.processors.text.bpe_dropout import BPEDropout
from groundup.tasks.text_to_text.frames import Frame

__all__ = [
    "byte_sizes",
    "continued",
    "cut_again",
    "encode_texts",
    "pack",
    "pad_source",
    "pad_target",
]


@lru_cache(maxsize=2)
def byte_sizes(tokenizer: TextProcessor) -> Tensor | None:
    """Return (V,) how many UTF-8 bytes each token stands for; None where these are not fixed."""
    with suppress(DataError):
        return torch.from_numpy(tokenizer.token_bytes())
    return None


def encode_texts(
    texts: Sequence[str], tokenizer: TextProcessor, longest: int, kind: str, frame: Frame
) -> list[Tensor]:
    """Return each text as its tokens within the frame, int64, at most ``longest``.

    What is too long is cut within the frame, and counted.

    Args:
        texts: The texts.
        tokenizer: Of this side.
        longest: The most tokens, those around the text included.
        kind: ``source`` or ``target``.
        frame: What goes around every text.

    Raises:
        DataError: If a text is empty, or the tokens around a text leave no room for it.
    """
    around = len(frame.before) + len(frame.after)
    room = longest - around
    setting = f"max_{kind}_tokens"
    if room < 1:
        problem = f"is {longest}, but {around} tokens go around every text"
        raise DataError(f"recipe.task.{setting}", problem, "Set a larger number")
    for text in texts:
        if not text.strip():
            raise DataError("inputs", f"a {kind} text is empty", "Write one, or leave it out")
    read = tokenizer.encode_batch(texts)
    if tokenizer.cut is not None:
        lengths = [len(tokens) for tokens in read]
        limit = f"{setting} {longest}"
        if frame.cuts_middle:
            limit += " (source_cut: middle)"
        tokenizer.cut.add(f"{kind} texts", "tokens", limit, lengths, room)
    return [frame.put(tokens, longest) for tokens in read]


def cut_again(
    rows: Sequence[Tensor],
    samples: NDArray[np.int64],
    tokenizer: TextProcessor,
    dropout: BPEDropout,
    longest: int,
    side: str,
    frame: Frame,
) -> list[Tensor]:
    """Return rows of ``encode_texts`` with their texts in other tokens, each by its sample's
    number.

    Args:
        rows: Of one side.
        samples: (B,) the samples' numbers.
        tokenizer: Of this side.
        dropout: What cuts the texts.
        longest: The most tokens, those around the text included. A text has more of them now, and
            is cut as before.
        side: ``source`` or ``target``.
        frame: What goes around every text; it stays as it is.
    """
    found = []
    for row, sample in zip(rows, samples.tolist(), strict=True):
        # Of a text that was cut within a letter, the decoder makes a sign at the end.
        text = tokenizer.decode(frame.inner(row).tolist()).rstrip("\ufffd")
        found.append(frame.put(dropout.encode(text, sample, side), longest))
    return found


def pack(source: Sequence[Tensor], target: Sequence[Tensor]) -> Batch:
    """Return the rows of both sides as a batch without padding."""
    return pack_ragged("source", source) | pack_ragged("target", target)


def pad_source(rows: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return inputs as a model reads them: ``source`` (B, T), and ``source_mask`` (B, T), what is
    no padding."""
    # The padding is some token: the mask hides it.
    source = pad_sequence(list(rows), batch_first=True, padding_value=0)
    lengths = torch.tensor([len(row) for row in rows], device=source.device)
    places = torch.arange(source.shape[1], device=source.device)
    return {"source": source, "source_mask": places < lengths[:, None]}


def pad_target(batch: Batch) -> Tensor:
    """Return the targets of a batch (B, T), -100 where a row has ended."""
    return pad_sequence(ragged_rows(batch, "target"), batch_first=True, padding_value=IGNORED)


def continued(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return what a language model reads of a batch, (B, T), and what comes next there, -100 in the
    inputs and where a row has ended.

    Each row is an input and, without its last token, the output. Padding is on the right, where a
    causal model does not see it.
    """
    sources = ragged_rows(batch, "source")
    targets = ragged_rows(batch, "target")
    tokens = [torch.cat((s, t[:-1])) for s, t in zip(sources, targets, strict=True)]
    # The last token of an input predicts the first one of its output.
    learned = [
        torch.cat((torch.full_like(s[1:], IGNORED), t))
        for s, t in zip(sources, targets, strict=True)
    ]
    return (
        pad_sequence(tokens, batch_first=True, padding_value=0),
        pad_sequence(learned, batch_first=True, padding_value=IGNORED),
    )
