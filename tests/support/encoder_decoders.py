"""Small encoder-decoders of every kind of part, and texts for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["ENCODER_DECODERS", "SHAPE", "texts"]

SHAPE: dict[str, Any] = {"vocabulary_size": 30, "width": 16, "heads": 2, "context_length": 12}
ENCODER_DECODERS: dict[str, list[dict[str, Any]]] = {
    "encoder_decoder": [
        {**SHAPE, "layers": 2, "start_id": 3},
        {
            **SHAPE,
            "layers": 1,
            "decoder_layers": 2,
            "positions": "relative",
            "dropout": 0.0,
            "relative_buckets": 4,
            "relative_distance": 6,
            "attention_scale": 1.0,
            "activation": "geglu_tanh",
            "tied_embeddings": False,
            "head_dim": 6,
        },
        {
            **SHAPE,
            "layers": 1,
            "positions": "learned",
            "position_offset": 2,
            "bias": "all",
            "norm": "layernorm",
            "norm_placement": "post",
            "embedding_norm": True,
            "activation": "gelu",
            "output_bias": True,
        },
        {
            **SHAPE,
            "layers": 2,
            "positions": "sinusoidal",
            "bias": "qkv",
            "activation": "silu",
            "norm_placement": "post",
            "embedding_scale": True,
            "output_scale": True,
        },
        {**SHAPE, "layers": 1, "copying": True},
        {**SHAPE, "layers": 1, "source_vocabulary_size": 37},
    ]
}


def texts() -> dict[str, Tensor]:
    """Return inputs of three lengths, with something in the padding, and texts about them."""
    torch.manual_seed(1)
    mask = torch.arange(7) < torch.tensor([[7], [2], [5]])
    return {
        "source": torch.randint(30, (3, 7)),
        "source_mask": mask,
        "text": torch.randint(30, (3, 6)),
    }
