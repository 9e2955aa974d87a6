"""Settings for tasks whose data is small: a pass takes seconds, and all of the validation split can
be evaluated after each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["SMALL_DATA_SETTINGS"]

# Weight decay, clipping and a falling learning rate are habits of training language models. A
# classifier of a few thousand rows is compared with textbooks and other libraries, which do
# without them.
SMALL_DATA_SETTINGS: Mapping[str, Any] = {
    "optim.weight_decay": 0.0,
    "optim.clip_norm": None,
    "optim.schedule": "constant",
    "evaluation.every": "epoch",
    "evaluation.batches": None,
    "checkpoints.every": "epoch",
}
