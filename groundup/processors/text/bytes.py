"""Plain bytes: 256 tokens and the special ones. Nothing to learn, nothing it cannot spell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from groundup.contracts.processors import ProcessorConfig
from groundup.core.registry import processor
from groundup.processors.text.characters import CharacterProcessor

__all__ = ["BytesConfig"]


@processor("bytes")
class BytesConfig(ProcessorConfig):
    """A tokenizer whose token ids 0 to 255 are the bytes of UTF-8; the special tokens follow."""

    def fit(self, texts: Callable[[], Iterator[str]]) -> CharacterProcessor:
        """Return the processor; ``texts`` is not read."""
        return CharacterProcessor("", name="bytes")

    @classmethod
    def load(cls, folder: Path) -> CharacterProcessor:
        """Return the processor that was saved to ``folder``."""
        return CharacterProcessor.load(folder)
