"""The vectors of a recommender as files: those of items, and of users where they have their own.

Legend: N items, U users, C width.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.contracts.recommendation import Recommender, RecommenderProcessor
from groundup.core.errors import CheckpointError
from groundup.export.job import Job

__all__ = ["VECTORS", "write_vectors"]

VECTORS = "vectors.safetensors"


def write_vectors(job: Job) -> None:
    """Write ``vectors.safetensors`` with ``items`` (N, C), ``item_biases`` (N,) and, of a model
    that knows users by a vector, ``users`` (U, C); and ``items.jsonl`` and ``users.jsonl``, a line
    for each row.

    The score of an item is its product with the user's vector, plus its bias.

    Raises:
        CheckpointError: If the model has no such vectors, scores count more than they say, or they
            are not read back as written.
    """
    model = job.merged.module
    processor = job.processor
    if not isinstance(model, Recommender) or not isinstance(processor, RecommenderProcessor):
        problem = f"{type(model).__name__} has no vectors of items"
        raise CheckpointError("model", problem, "Export a run of task recommend")
    if processor.rows is not None:
        # Whoever serves them would get other lists than the run's, and never know.
        raise CheckpointError(
            "task.transition_share",
            "adds to the scores what no vector holds: how often items followed one another",
            "Train with task.transition_share: 0",
        )
    with torch.no_grad():
        # Without the unknown item, so that row n is line n.
        found: dict[str, Tensor] = {
            "items": model.item_vectors()[1:].float().contiguous(),
            "item_biases": model.item_biases()[1:].float().contiguous(),
        }
        # Of a model that reads histories a user has no vector but that of the moment.
        if not model.reads_order:
            users = processor.encode_inputs(list(processor.users))
            found["users"] = model.user_states(**users).float().contiguous()
    save_file(found, job.folder / VECTORS)
    again = load_file(job.folder / VECTORS)
    # What is served from them must be what the run predicts, to the bit.
    if any(not torch.equal(values, again[name]) for name, values in found.items()):
        job.refuse("vectors that were read back differ from those written")
    titles = [
        {"item": item, "title": processor.title(number)}
        for number, item in enumerate(processor.items, 1)
    ]
    _write_lines(job.folder / "items.jsonl", titles)
    if "users" in found:
        _write_lines(job.folder / "users.jsonl", [{"user": user} for user in processor.users])


def _write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
