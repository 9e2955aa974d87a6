"""A tokenizer of your own in one file: ASCII, accents taken off, anything else a question mark.

Name it under ``uses:`` and choose it with ``processor: ascii``; see custom.yaml. It derives from
``TextProcessor``, which answers for what is left out here. Bits per byte are then those of the text
as it was folded.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.processors import ProcessorConfig, TextProcessor
from groundup.core.registry import processor

END = 128


class AsciiProcessor(TextProcessor):
    """Token ids 0 to 127 are ASCII; 128 starts and ends every document."""

    vocabulary_size = 129
    end_id = END

    def __init__(self) -> None:
        self.special_tokens = {"<|end|>": END}

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        return [np.frombuffer(_fold(text), np.uint8).astype(np.int32) for text in texts]

    def decode(self, tokens: Sequence[int], *, keep_special: bool = False) -> str:
        return "".join(chr(t) if t < END else "<|end|>" * keep_special for t in tokens)

    def token_bytes(self) -> NDArray[np.int32]:
        return np.array([1] * END + [0], np.int32)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "processor.json").write_text(json.dumps({"name": "ascii"}), encoding="utf-8")


@processor("ascii")
class AsciiConfig(ProcessorConfig):
    """The recipe's ``processor: ascii``; there is nothing to set and nothing to learn."""

    def fit(self, texts: Callable[[], Iterator[str]]) -> AsciiProcessor:
        return AsciiProcessor()

    @classmethod
    def load(cls, folder: Path) -> AsciiProcessor:
        return AsciiProcessor()


def _fold(text: str) -> bytes:
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return plain.encode("ascii", "replace")
