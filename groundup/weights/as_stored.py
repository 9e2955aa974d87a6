"""Pretrained weights for a model that is not quite theirs: one with more tokens, or with an output
layer of its own where theirs is the embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from groundup.contracts.models import FromGGUF, FromHuggingFace, HasVocabulary
from groundup.contracts.shared_weights import TiesEmbeddings
from groundup.formats.gguf import open_gguf
from groundup.formats.huggingface_folder import Pretrained, read_config
from groundup.weights.new_tokens import add_rows, token_tables

__all__ = ["AsStored", "with_own_head"]


class AsStored:
    """The settings with which weights are read, and what makes of them those of the model.

    Args:
        base: The weights.
        wanted: The model's settings.

    Attributes:
        config: With which they are read.
    """

    def __init__(self, base: Pretrained, wanted: Any) -> None:
        # Any: what the protocol below asks of it would narrow its type to that alone.
        model = wanted
        self.config: Any = wanted
        self._untied = False
        self._rows = 0
        self._tables: dict[str, torch.Size] = {}
        if not isinstance(wanted, HasVocabulary):
            return
        there: dict[str, Any] = {}
        if base.is_gguf and isinstance(model, FromGGUF):
            there = model.from_gguf(open_gguf(base.folder))
        elif isinstance(model, FromHuggingFace):
            there = model.from_huggingface(read_config(base.folder))
        apart = isinstance(model, TiesEmbeddings) and not model.tied_embeddings
        self._untied = apart and (base.is_gguf or bool(there.get("tied_embeddings")))
        update: dict[str, Any] = {"tied_embeddings": True} if self._untied else {}
        rows = there.get("vocabulary_size", 0)
        if 0 < rows < wanted.vocabulary_size:
            update |= {"vocabulary_size": rows}
            self._rows = rows
            self._tables = token_tables(model)
        if update and not base.is_gguf:
            self.config = model.model_copy(update=update)

    def complete(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the model's tensors of those that were read."""
        found = with_own_head(weights) if self._untied else dict(weights)
        return add_rows(found, self._tables, self._rows)


def with_own_head(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with an output layer of the embedding's numbers, if they have none."""
    if "embed.weight" in weights and "head.weight" not in weights:
        return weights | {"head.weight": weights["embed.weight"].clone()}
    return weights
