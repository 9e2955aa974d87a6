"""Small GGUF files for tests, made byte by byte or by our own writer."""

from __future__ import annotations

import pydoc_data.topics
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.core.gguf import save_gguf
from groundup.models.gpt import GPTConfig
from groundup.processors.bpe import BPEConfig, TokenizerProcessor

__all__ = ["FAMILIES", "header", "pair", "small_model", "text", "tokenizer", "write_small"]

_SHAPE: dict[str, Any] = {
    **{"width": 64, "heads": 4, "kv_heads": 2, "layers": 2, "mlp_width": 96, "context_length": 64, "norm_eps": 1e-5},
    **{"rope_theta": 500.0},
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _SHAPE,
    "llama-biased": {**_SHAPE, "bias": "all", "tied_embeddings": False},
    "qwen2": {**_SHAPE, "bias": "qkv", "tied_embeddings": False},
    "qwen3": {**_SHAPE, "qk_norm": True, "head_dim": 32},
}


def text(words: str) -> bytes:
    return struct.pack("<Q", len(words.encode())) + words.encode()


def pair(name: str, number: int, content: bytes) -> bytes:
    """One metadata."""
    return text(name) + struct.pack("<I", number) + content


def header(tensors: int, pairs: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)


def tokenizer() -> TokenizerProcessor:
    """A BPE of 300 tokens, learned from the language reference."""
    return BPEConfig(vocab_size=300).fit(lambda: iter(sorted(pydoc_data.topics.topics.values())[:3]))


def small_model(family: str, vocabulary: int, **changes: Any) -> tuple[GPTConfig, dict[str, Tensor]]:
    """Random weights, norms and biases too, so that a mistaken name shows."""
    config = GPTConfig(vocabulary_size=vocabulary, **{**FAMILIES[family], **changes})
    torch.manual_seed(3)
    weights = dict(config.build().state_dict())
    return config, {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in weights.items()}


def write_small(path: Path, family: str = "llama", kind: str = "F32", vocabulary: int = 320) -> dict[str, Tensor]:
    """Write a small model, and return its weights."""
    config, weights = small_model(family, vocabulary)
    save_gguf(path, config, weights, tokenizer(), kind, "small")
    return weights
