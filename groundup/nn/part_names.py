"""How the parts of every model are called: blocks, heads, and what a task adds.

Freezing, adapters, layer-wise learning rates and new heads find their tensors by these names alone,
so that no model has to declare them apart.
"""

from __future__ import annotations

import re

__all__ = ["BLOCK", "HEADS", "TASK_WEIGHTS"]

# Every model that is a stack calls it ``blocks``.
BLOCK = re.compile(r"blocks\.(\d+)\.")
"""How the names of a block's tensors begin."""

HEADS = ("head.", "head_")
"""How the names of what reads a model's features begin."""

TASK_WEIGHTS = "task_weights."
"""How the names of what a task adds to a model begin."""
