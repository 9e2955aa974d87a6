"""The named sizes of ``encoder_decoder``."""

from __future__ import annotations

from typing import Any

__all__ = ["SIZES"]

# As config.json has them. The first two are not published: they are for small data.
_T5: dict[str, Any] = {
    "vocabulary_size": 32128,
    "context_length": 512,
    "positions": "relative",
    "head_dim": 64,
    "attention_scale": 1.0,
    "start_id": 0,
}
_BART: dict[str, Any] = {
    "vocabulary_size": 50265,
    "context_length": 1024,
    "positions": "learned",
    "position_offset": 2,
    "norm": "layernorm",
    "norm_eps": 1e-5,
    "norm_placement": "post",
    "activation": "gelu",
    "bias": "all",
    "embedding_norm": True,
    "output_bias": True,
    "start_id": 2,
    "padding_id": 1,
}
SIZES: dict[str, dict[str, Any]] = {
    "nano": {"layers": 2, "width": 64, "heads": 2},
    "micro": {"layers": 3, "width": 192, "heads": 4},
    "t5-small": {
        **_T5,
        "layers": 6,
        "width": 512,
        "heads": 8,
        "mlp_width": 2048,
        "activation": "relu",
        "output_scale": True,
    },
    "t5-v1.1-small": {
        **_T5,
        "layers": 8,
        "width": 512,
        "heads": 6,
        "mlp_width": 1024,
        "activation": "geglu_tanh",
        "tied_embeddings": False,
    },
    "bart-base": {**_BART, "layers": 6, "width": 768, "heads": 12, "mlp_width": 3072},
    "bart-large": {**_BART, "layers": 12, "width": 1024, "heads": 16, "mlp_width": 4096},
}
