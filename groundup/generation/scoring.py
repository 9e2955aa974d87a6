"""How likely a model finds given token sequences: exact sums, however long the sequences are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from groundup.contracts.models import TokenLosses
from groundup.core.values import IGNORED, TokenSequence

__all__ = ["device_of", "evaluating", "sequence_nll", "token_nll"]

# At most this many at once (256 MiB in fp32), whatever the vocabulary.
_MOST_LOGITS = 1 << 26


@dataclass(frozen=True)
class _Window:
    """Part of sequence ``number``: feeds ``tokens[start:stop]`` and scores the predictions from
    ``scored_from`` on."""

    number: int
    start: int
    stop: int
    scored_from: int


def sequence_nll(
    model: nn.Module, sequences: Sequence[TokenSequence], context_length: int, rows: int = 16
) -> list[float]:
    """Return the negative log-likelihood, in nats, of the trained tokens of each sequence; see
    ``token_nll``."""
    return [float(nats.sum()) for nats in token_nll(model, sequences, context_length, rows)]


def token_nll(
    model: nn.Module, sequences: Sequence[TokenSequence], context_length: int, rows: int = 16
) -> list[NDArray[np.float64]]:
    """Return, for each sequence of n tokens, (n,) the negative log-likelihood in nats of each; 0
    where not trained.

    A sequence longer than the context is scored in windows that overlap by half: every token counts
    once, and each has at least half a context before it (or all there is).

    Args:
        model: ``model.token_losses(tokens, targets)`` gives (B, T) nats where it has that method;
            otherwise ``model(tokens)`` gives logits (B, T, V). Padding is at the end of rows,
            unseen by causal attention.
        sequences: The first token of each is only read.
        context_length: The longest row, T.
        rows: At most this many rows at once; fewer where the vocabulary is large.
    """
    found = [np.zeros(len(sequence.tokens)) for sequence in sequences]
    windows = [
        window
        for number, s in enumerate(sequences)
        for window in _windows(number, s, context_length)
    ]
    # Longest first: rows of one batch are alike in length, and memory runs out at once or never.
    windows.sort(key=lambda window: window.start - window.stop)
    with evaluating(model):
        first = 0
        while first < len(windows):
            length = windows[first].stop - windows[first].start
            batch = windows[first : first + _rows_that_fit(model, length, rows)]
            first += len(batch)
            for window, nats in zip(batch, _score(model, sequences, batch, length), strict=True):
                scored = nats[window.scored_from - window.start : window.stop - window.start]
                found[window.number][window.scored_from + 1 : window.stop + 1] = scored
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it the model is in evaluation mode and no gradients are recorded; its mode is
    restored."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def device_of(model: nn.Module) -> torch.device:
    """Return where the model's parameters are."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _windows(number: int, sequence: TokenSequence, context: int) -> Iterator[_Window]:
    fed = len(sequence.tokens) - 1
    # Half a context of overlap: every token but those at the start is predicted from that much.
    stride = max(context // 2, 1)
    scored_to = 0
    start = 0
    while scored_to < fed:
        stop = min(start + context, fed)
        # A window without any token to score, as in a long question, is not computed.
        trained = sequence.trained
        if trained is None or bool(trained[scored_to + 1 : stop + 1].any()):
            yield _Window(number, start, stop, scored_to)
        scored_to = stop
        start += stride


def _rows_that_fit(model: nn.Module, length: int, rows: int) -> int:
    # It never holds all logits.
    if isinstance(model, TokenLosses):
        return rows
    # The vocabulary of a model that is not known: no matrix has more rows than its embedding.
    widest = max(
        (parameter.shape[0] for parameter in model.parameters() if parameter.dim() == 2), default=1
    )
    return max(1, min(rows, _MOST_LOGITS // (length * widest)))


def _score(
    model: nn.Module, sequences: Sequence[TokenSequence], batch: list[_Window], length: int
) -> NDArray[np.float64]:
    tokens = np.zeros((len(batch), length), dtype=np.int64)
    targets = np.full((len(batch), length), IGNORED, dtype=np.int64)
    for row, window in enumerate(batch):
        sequence = sequences[window.number]
        # What is left of a row stays 0: padding, which nothing before it sees.
        tokens[row, : window.stop - window.start] = sequence.tokens[window.start : window.stop]
        wanted = sequence.tokens[window.scored_from + 1 : window.stop + 1].astype(np.int64)
        if sequence.trained is not None:
            wanted[~sequence.trained[window.scored_from + 1 : window.stop + 1]] = IGNORED
        targets[row, window.scored_from - window.start : window.stop - window.start] = wanted
    device = device_of(model)
    nats = _token_losses(
        model, torch.from_numpy(tokens).to(device), torch.from_numpy(targets).to(device)
    )
    return nats.double().cpu().numpy()


def _token_losses(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    """Return -log p of each target, (B, T), 0 where it is -100."""
    if isinstance(model, TokenLosses):
        return model.token_losses(tokens, targets)
    logits: Tensor = model(tokens)  # (B, T, V)
    return functional.cross_entropy(
        logits.float().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
    )
