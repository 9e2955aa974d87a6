"""Small GGUF files for tests, made byte by byte or by our own writer."""

from __future__ import annotations

import pydoc_data.topics
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from groundup.models.gpt import GPTConfig
from groundup.processors.text.bpe import BPEConfig
from groundup.processors.text.tokenizer import TokenizerProcessor
from groundup.weights.gguf import save_gguf

__all__ = [
    "FAMILIES",
    "header",
    "pair",
    "sentencepiece",
    "small_model",
    "text",
    "tokenizer",
    "write_small",
]

_SHAPE: dict[str, Any] = {
    **{
        "width": 64,
        "heads": 4,
        "kv_heads": 2,
        "layers": 2,
        "mlp_width": 96,
        "context_length": 64,
        "norm_eps": 1e-5,
    },
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
    return BPEConfig(vocab_size=300).fit(
        lambda: iter(sorted(pydoc_data.topics.topics.values())[:3])
    )


@lru_cache(maxsize=1)
def _pieces() -> tuple[str, ...]:
    """Pieces of SentencePiece's kind: joined ones in the order they were learned, then
    characters."""
    learned = Tokenizer(models.BPE())
    learned.normalizer = normalizers.Replace(" ", "▁")
    learned.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False)
    learned.train_from_iterator(sorted(pydoc_data.topics.topics.values())[:3], trainer)
    vocabulary = learned.get_vocab()
    return tuple(sorted(vocabulary, key=lambda piece: (len(piece) == 1, vocabulary[piece])))


def sentencepiece(**changed: Any) -> dict[str, Any]:
    """Metadata of a small SentencePiece BPE, as files of Llama 2 have it; a value of None leaves
    one out."""
    special, raw = (
        ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"],
        [f"<0x{n:02X}>" for n in range(256)],
    )
    pieces = _pieces()
    kinds = [2, *[3] * 6, *[6] * 256, *[1] * len(pieces)]
    ggml = {
        **{"model": "llama", "tokens": [*special, *raw, *pieces], "token_type": kinds},
        "scores": [*[0.0] * 263, *(-float(rank) for rank in range(len(pieces)))],
        **{"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, **changed},
    }
    return {f"tokenizer.ggml.{key}": value for key, value in ggml.items() if value is not None}


def small_model(
    family: str, vocabulary: int, **changes: Any
) -> tuple[GPTConfig, dict[str, Tensor]]:
    """Random weights, norms and biases too, so that a mistaken name shows."""
    config = GPTConfig(vocabulary_size=vocabulary, **{**FAMILIES[family], **changes})
    torch.manual_seed(3)
    weights = dict(config.build().state_dict())
    return config, {
        name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in weights.items()
    }


def write_small(
    path: Path, family: str = "llama", kind: str = "F32", vocabulary: int = 320
) -> dict[str, Tensor]:
    """Write a small model, and return its weights."""
    config, weights = small_model(family, vocabulary)
    save_gguf(path, config, weights, tokenizer(), kind, "small")
    return weights
