"""The special tokens that every trained tokenizer reserves, so that fine-tuning never resizes an
embedding."""

from __future__ import annotations

__all__ = ["END_OF_TEXT", "END_OF_TURN", "SPECIAL_TOKENS"]

END_OF_TEXT = "<|endoftext|>"
END_OF_TURN = "<|end|>"
SPECIAL_TOKENS: tuple[str, ...] = (
    END_OF_TEXT,
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    END_OF_TURN,
)
