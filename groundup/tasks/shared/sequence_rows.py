"""All sequences of each sample as one row of a batch, and all of a batch as one row of the model.

Legend: B samples, L tokens of both sequences of a sample together, M tokens fed of a whole
micro-batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from groundup.core.errors import DataError
from groundup.core.values import IGNORED, Batch, TokenSequence

__all__ = ["count_scored", "encode_rows", "join_rows", "keep_last_runs", "split_samples"]


def encode_rows(sequences: Sequence[TokenSequence], together: int = 2) -> Batch:
    """Return (B, L) the tokens that are fed and those that come next, of G B sequences.

    Tokens that come next are below 0 where they are not scored. ``lengths`` (B,) and
    ``sequence_lengths`` (B, G) say where the sequences end.

    Args:
        sequences: Those of a sample follow each other.
        together: G, how many a sample has.
    """
    # The last token of a sequence is predicted, but never fed.
    counts = [len(each.tokens) - 1 for each in sequences]
    fed = torch.tensor(counts, dtype=torch.int64).view(-1, together)
    lengths = fed.sum(1)
    # One row a sample keeps both answers together, whatever order samples come in.
    shape = (len(fed), int(lengths.max()))
    tokens = np.zeros(shape, np.int32)
    following = np.full(shape, IGNORED, np.int32)
    for number, sequence in enumerate(sequences):
        row, place = divmod(number, together)
        begin = int(fed[row, :place].sum())
        span = slice(begin, begin + len(sequence.tokens) - 1)
        tokens[row, span] = sequence.tokens[:-1]
        scored = _trained_of(sequence)[1:]
        following[row, span] = np.where(scored, sequence.tokens[1:], IGNORED)
    return {
        "tokens": torch.from_numpy(tokens),
        "next_tokens": torch.from_numpy(following),
        "lengths": lengths,
        "sequence_lengths": fed,
    }


def join_rows(batch: Batch) -> dict[str, Tensor]:
    """Return all sequences of a batch as one row of M tokens, each a document by itself, and which
    tokens are scored: padding would be fed for nothing."""
    places = torch.arange(batch["tokens"].shape[1], device=batch["lengths"].device)
    fed = places < batch["lengths"][:, None]
    lengths = batch["sequence_lengths"].flatten()
    ends = lengths.cumsum(0)
    starts = (ends - lengths).repeat_interleave(lengths)
    return {
        "tokens": batch["tokens"][fed][None].long(),
        "positions": (torch.arange(len(starts), device=ends.device) - starts)[None],
        "boundaries": torch.cat((ends.new_zeros(1), ends)).int(),
        "scored": batch["next_tokens"][fed],
    }


def split_samples(batch: Batch) -> Iterator[Batch]:
    """Yield each sample of a batch as a batch: so they are computed where they are compared with a
    reference that was.

    Rounding, in bfloat16 up to two nats an answer, depends on what else is in a product, and would
    look like a reward.
    """
    for row in range(len(batch["lengths"])):
        yield {name: values[row : row + 1] for name, values in batch.items()}


def count_scored(batch: Batch) -> Tensor:
    """Return (B, 2) how many tokens of each sequence are scored."""
    # The second sequence begins where the first ends.
    scored = batch["next_tokens"] >= 0
    first = torch.arange(scored.shape[1], device=scored.device) < batch["sequence_lengths"][:, :1]
    return torch.stack(((scored & first).sum(1), (scored & ~first).sum(1)), 1)


def keep_last_runs(sequence: TokenSequence, runs: int) -> TokenSequence:
    """Return the sequence with only its last runs of trained tokens still trained on: the turns of
    the answer, whose prompt may hold earlier answers.

    Raises:
        DataError: If there are fewer runs.
    """
    trained = _trained_of(sequence)
    # A run begins where a trained token follows one that is not.
    starts = np.flatnonzero(trained & ~np.append(False, trained[:-1]))
    if len(starts) < runs:
        raise DataError(
            "chat template",
            "an answer has no tokens of its own once the chat template has put the conversation"
            " together",
            "Use another template, or remove the row",
        )
    kept = trained & (np.arange(len(trained)) >= starts[-runs])
    return dataclasses.replace(sequence, trained=kept)


def _trained_of(sequence: TokenSequence) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    if sequence.trained is None:
        return np.arange(len(sequence.tokens)) > 0
    return sequence.trained
