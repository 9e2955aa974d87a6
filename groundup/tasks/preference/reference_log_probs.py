"""What the weights that a run starts from say of its data, asked once: log-probabilities of all
answers, in the cache.

The file is named after everything that the values depend on: the SHA-256 of the starting weights,
the model's settings and precision, the tokenizer with its chat template, the context, and every
answer with its prompt. A run that is resumed, or tuned again with other settings, finds it; where
it is lost, the same values are computed again.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PrivateAttr
from torch import nn

from groundup.core.contracts.data import DataContext, DataSource, Stream
from groundup.core.error_location import encode_located
from groundup.core.errors import DataError
from groundup.core.storage import Storage
from groundup.core.values import Batch, Preference, Split, Start
from groundup.generation.log_probs import token_log_probs
from groundup.generation.scoring import device_of, evaluating

__all__ = ["answer_log_probs", "sums_by_answer", "with_reference"]

_log = logging.getLogger("groundup")
_AT_ONCE = 512  # examples that are tokenized together
_ROWS = 4  # examples that are scored together
_EVERY_S = 20.0
Floats = NDArray[np.float64]
Score = Callable[[nn.Module, Sequence[Preference]], Floats]


class _Referenced(DataSource):
    """Another source, its examples completed with their reference log-probabilities."""

    _source: DataSource = PrivateAttr()
    _known: dict[bytes, tuple[float, float]] = PrivateAttr()

    @classmethod
    def of(cls, source: DataSource, known: dict[bytes, tuple[float, float]]) -> _Referenced:
        made = cls()
        made._source, made._known = source, known
        return made

    def splits(self) -> tuple[Split, ...]:
        return self._source.splits()

    def examples(self, split: Split, cache: Path) -> Iterable[Preference]:
        return map(self._completed, self._source.examples(split, cache))

    def open(self, context: DataContext) -> Stream:
        encode = context.encode
        return self._source.open(
            replace(context, encode=lambda given: encode([self._completed(each) for each in given]))
        )

    def card(self, cache: Path) -> dict[str, Any]:
        return self._source.card(cache)

    def _completed(self, example: Preference) -> Preference:
        values = self._known.get(_digest(example))
        return (
            example
            if values is None or np.isnan(values).any()
            else replace(example, reference=values)
        )


def with_reference(source: DataSource, start: Start, score: Score) -> DataSource:
    """Return the source, its examples completed with their log-probabilities under the starting
    weights.

    Args:
        source: Gives preferences.
        start: The weights, built only where the cache does not have the values.
        score: Gives the (N, 2) log-probabilities of N examples; not a number where one is too long.
    """
    known: dict[bytes, tuple[float, float]] = {}
    model = functools.cache(start.model)
    for split in start.splits:
        examples: dict[bytes, Preference] = {}
        with suppress(
            *(() if split == "train" else (DataError,))
        ):  # an empty split is an error where it is needed
            for example in source.examples(split, start.cache):
                if isinstance(example, Preference):
                    examples.setdefault(_digest(example), example)
        key = hashlib.sha256(
            f"{start.key()} {start.sequence_length} ".encode() + b"".join(examples)
        )
        path = start.cache / "references" / f"{key.hexdigest()[:24]}.npy"
        values = _read(path, len(examples))
        if values is None and examples:
            values = score(model(), list(examples.values()))
            _write(path, values)
        rows = [] if values is None else values.tolist()
        known |= {
            digest: (first, second) for digest, (first, second) in zip(examples, rows, strict=True)
        }
    return _Referenced.of(source, known)


def answer_log_probs(
    model: nn.Module,
    examples: Sequence[Preference],
    encode: Callable[[Sequence[Preference]], Batch],
    inputs: Callable[[Batch], dict[str, Any]],
    longest: int,
    progress: Callable[[str], None] = _log.info,
) -> Floats:
    """Return the log-probability of each answer in nats, (N, 2); not a number where one is longer
    than the context.

    Args:
        model: A language model.
        examples: N of them.
        encode: The task's.
        inputs: The task's.
        longest: The context.
        progress: Called from time to time.
    """
    found, device = np.full((len(examples), 2), np.nan), device_of(model)
    begin = said = time.perf_counter()
    with evaluating(model):
        for first in range(0, len(examples), _AT_ONCE):
            rows = encode_located(encode, examples[first : first + _AT_ONCE])
            lengths = rows["sequence_lengths"].amax(1)
            order = torch.argsort(rows["lengths"], stable=True)
            order = order[lengths[order] <= longest]
            for chosen in torch.split(order, _ROWS) if len(order) else ():
                most = int(rows["lengths"][chosen].max())
                batch = {name: values[chosen].to(device) for name, values in rows.items()}
                batch |= {name: batch[name][:, :most] for name in ("tokens", "next_tokens")}
                sums = sums_by_answer(token_log_probs(model, **inputs(batch)), batch)
                found[first + chosen.numpy()] = sums.double().cpu().numpy()
                if time.perf_counter() - said > _EVERY_S:
                    said = time.perf_counter()
                    done = int(np.isfinite(found[:, 0]).sum())
                    progress(
                        f"log-probabilities of answers: {done} of {len(examples)} after"
                        f" {said - begin:.0f} s"
                    )
    return found


def sums_by_answer(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the sums over each answer, (B, 2), of one value for each token fed, (M,)."""
    parts = torch.split(values, batch["sequence_lengths"].flatten().tolist())
    return torch.stack([part.sum() for part in parts]).view(-1, 2)


def _digest(example: Preference) -> bytes:
    turns = [
        [(turn.role, turn.content) for turn in turns]
        for turns in (example.prompt, *example.answers)
    ]
    return hashlib.blake2b(json.dumps(turns).encode(), digest_size=16).digest()


def _read(path: Path, number: int) -> Floats | None:
    if not path.is_file():
        return None
    try:
        values: Floats = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        values = np.empty(0)
    if values.shape != (number, 2):
        _log.warning("%s is damaged; the reference log-probabilities are computed again", path)
        return None
    _log.info(
        "Reusing the reference log-probabilities of %s answers in %s", f"{values.size:,}", path
    )
    return values


def _write(path: Path, values: Floats) -> None:
    content = io.BytesIO()
    np.save(content, values, allow_pickle=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    Storage().write_parts(path, [content.getvalue()])
