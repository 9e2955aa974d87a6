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
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from groundup.contracts.data import DataSource
from groundup.contracts.tasks import Start
from groundup.core.error_location import encode_located
from groundup.core.errors import DataError
from groundup.core.storage import Storage
from groundup.core.values import Batch, Preference, Split
from groundup.generation.scoring import device_of, evaluating
from groundup.nn.lora.adapters import adapted
from groundup.tasks.preference.changed_source import ChangedSource
from groundup.tasks.shared.model_outputs import move_batch
from groundup.tasks.shared.sequence_rows import split_samples

__all__ = ["add_reference", "answer_log_probs", "sums_by_answer"]

_log = logging.getLogger("groundup")
_SHARE = re.compile("dropout|pdrop")  # how libraries call it where it is no module
_AT_ONCE = 512  # examples that are tokenized together
_EVERY_S = 20.0  # between two messages of progress
Floats = NDArray[np.float64]
Score = Callable[[nn.Module, Sequence[Preference]], Floats]


def add_reference(source: DataSource, start: Start, score: Score) -> DataSource:
    """Return the source, its examples completed with their log-probabilities under the starting
    weights; those that are too long stay without.

    Args:
        source: Gives preferences.
        start: The weights, built only where the cache does not have the values.
        score: Gives the (N, 2) log-probabilities of N examples; not a number where one is too long.
    """
    known: dict[bytes, tuple[float, float]] = {}
    # Built at most once, and not at all where every split is in the cache.
    model = functools.cache(start.model)
    for split in start.splits:
        examples = _examples_by_digest(source, split, start.cache)
        if not examples:
            continue
        key = hashlib.sha256(
            # In words how: values that were computed otherwise are not equal to the last bit.
            f"{start.key()} {start.sequence_length} one by one ".encode() + b"".join(examples)
        )
        path = start.cache / "references" / f"{key.hexdigest()[:24]}.npy"
        values = _read_values(path, len(examples))
        if values is None:
            values = score(model(), list(examples.values()))
            _write_values(path, values)
        for digest, (first, second) in zip(examples, values.tolist(), strict=True):
            # Too long for the context: what becomes of such an example is said by the data source.
            if not math.isnan(first + second):
                known[digest] = (first, second)

    def complete(examples: Sequence[Any], split: Split | None) -> list[Any]:
        return [
            replace(each, reference=known.get(_digest(each), each.reference))
            if isinstance(each, Preference)
            else each
            for each in examples
        ]

    return ChangedSource.of(source, complete)


def _examples_by_digest(source: DataSource, split: Split, cache: Path) -> dict[bytes, Preference]:
    try:
        examples = [e for e in source.examples(split, cache) if isinstance(e, Preference)]
    except DataError:
        if split == "train":
            raise
        return {}  # a held-out split that is empty is an error only where it is needed
    found: dict[bytes, Preference] = {}
    for example in examples:
        found.setdefault(_digest(example), example)
    return found


def answer_log_probs(
    model: nn.Module,
    examples: Sequence[Preference],
    encode: Callable[[Sequence[Preference]], Batch],
    forward: Callable[[nn.Module, Batch], torch.Tensor],
    longest: int,
    progress: Callable[[str], None] = _log.info,
) -> Floats:
    """Return the log-probability of each answer in nats, (N, 2); not a number where one is longer
    than the context.

    Args:
        model: A language model.
        examples: N of them.
        encode: The task's.
        forward: The task's.
        longest: The context.
        progress: Called from time to time.
    """
    if dropping := _dropping(model):
        _log.warning(
            "%s drops out in training, but the reference is computed without: the loss begins above"
            " what two equal models give, and rewards are noisy. Set model.dropout: 0",
            dropping,
        )
    found = np.full((len(examples), 2), np.nan)
    device = device_of(model)
    begin = said = time.perf_counter()
    with evaluating(model):
        for first in range(0, len(examples), _AT_ONCE):
            rows = encode_located(encode, examples[first : first + _AT_ONCE])
            for row, one in enumerate(split_samples(rows)):
                if int(one["sequence_lengths"].max()) > longest:
                    continue
                batch = move_batch(one, device)
                # With what gradients need, which is forgotten: other kernels round otherwise.
                with torch.enable_grad():
                    values = forward(model, batch).detach()
                found[first + row] = sums_by_answer(values, batch)[0].double().cpu().numpy()
                if time.perf_counter() - said > _EVERY_S:
                    said = time.perf_counter()
                    done = int(np.isfinite(found[:, 0]).sum())
                    progress(
                        f"log-probabilities of answers: {done} of {len(examples)} after"
                        f" {said - begin:.0f} s"
                    )
    return found


def _dropping(model: nn.Module) -> str:
    """Return the name of the first part that drops numbers out in training; empty: none does."""
    # An adapter's dropout changes nothing as long as the adapter does not.
    spared = set(adapted(model))
    for name, module in model.named_modules():
        shares = {key: value for key, value in vars(module).items() if _SHARE.search(key)}
        if isinstance(module, nn.Dropout):
            shares["p"] = module.p
        if name not in spared and any(
            isinstance(share, float) and share > 0 for share in shares.values()
        ):
            return str(name)
    return ""


def sums_by_answer(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the sums over each answer, (B, 2), of one value for each token fed, (M,)."""
    # Reference and trainer both sum here: what rounding does is nearly the same for both.
    parts = torch.split(values, batch["sequence_lengths"].flatten().tolist())
    return torch.stack([part.sum() for part in parts]).view(-1, 2)


def _digest(example: Preference) -> bytes:
    # By content, not by name: a row that moves to another file keeps its values.
    turns = [list(map(asdict, turns)) for turns in (example.prompt, *example.answers)]
    said = json.dumps([turns, example.tools], default=str)
    return hashlib.blake2b(said.encode(), digest_size=16).digest()


def _read_values(path: Path, number: int) -> Floats | None:
    if not path.is_file():
        return None
    try:
        values: Floats = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        values = np.empty(0)  # of a shape that no answers have
    if values.shape != (number, 2):
        _log.warning("%s is damaged; the reference log-probabilities are computed again", path)
        return None
    _log.info(
        "Reusing the reference log-probabilities of %s answers in %s", f"{values.size:,}", path
    )
    return values


def _write_values(path: Path, values: Floats) -> None:
    # Written whole by the storage layer: a file that is cut off is never found under this name.
    content = io.BytesIO()
    np.save(content, values, allow_pickle=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    Storage().write_parts(path, [content.getvalue()])
