"""Characters: a vocabulary learned from text; any other character is spelled in UTF-8 bytes, so
that nothing is lost.

Token ids: 0 to 255 are bytes, then the special tokens, then the characters from the most frequent
    to the rarest.
Legend: V vocabulary, T tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.processors import ProcessorConfig, TextProcessor
from groundup.core.errors import DataError
from groundup.core.registry import processor
from groundup.core.settings import setting
from groundup.processors.saved_files import (
    read_json,
    read_template,
    refuse_surrogates,
    tokenizer_config,
    write_json,
    write_text,
)
from groundup.processors.text.special_tokens import END_OF_TEXT, SPECIAL_TOKENS

__all__ = ["CharacterProcessor", "CharactersConfig"]

BYTES = 256
CODE_POINTS = 0x110000


class CharacterProcessor(TextProcessor):
    """Bytes, special tokens and a list of characters, looked up in a table by code point.

    Args:
        characters: The characters that are a token each, in the order of their ids; none gives
            plain bytes.
        name: The registered name to save under.
        chat_template: Jinja source that travels with the processor.

    Example:
        >>> CharacterProcessor("ab").encode_batch(["ba"])[0].tolist()
        [263, 262]
    """

    def __init__(
        self, characters: str, name: str = "characters", chat_template: str | None = None
    ) -> None:
        self.name = name
        self.characters = characters
        self._template = chat_template
        self.special_tokens = {token: BYTES + index for index, token in enumerate(SPECIAL_TOKENS)}
        self.end_token = self.start_token = END_OF_TEXT
        self._first = BYTES + len(SPECIAL_TOKENS)
        # 4 MB, looked up for a whole text at once.
        self._table = np.full(CODE_POINTS, -1, dtype=np.int32)
        self._table[[ord(character) for character in characters]] = (
            np.arange(len(characters)) + self._first
        )
        self._spellings = [bytes([value]) for value in range(BYTES)]
        self._spellings += [token.encode() for token in SPECIAL_TOKENS]
        self._spellings += [character.encode() for character in characters]

    @property
    def vocabulary_size(self) -> int:
        return self._first + len(self.characters)

    @property
    def end_id(self) -> int:
        return self.special_tokens[self.end_token]

    @property
    def chat_template(self) -> str | None:
        return self._template

    def with_chat_template(self, source: str | None) -> CharacterProcessor:
        """Return the same processor with another chat template."""
        return CharacterProcessor(self.characters, self.name, source)

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return (T,) tokens of each text.

        Raises:
            DataError: If a text holds a lone surrogate, which no UTF-8 text can.
        """
        try:
            return [self._encode(text) for text in texts]
        except UnicodeEncodeError:
            refuse_surrogates(texts)
            raise

    def _encode(self, text: str) -> NDArray[np.int32]:
        if not self.characters:
            # Plain bytes need no look-up.
            return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int32)
        # Four bytes a character: code points without a loop over the text.
        found = self._table[np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)]
        pieces = []
        start = 0
        for position in np.flatnonzero(found < 0).tolist():
            spelled = np.frombuffer(text[position].encode(), dtype=np.uint8).astype(np.int32)
            pieces += [found[start:position], spelled]
            start = position + 1
        return np.concatenate([*pieces, found[start:]]) if pieces else found

    def decode(self, tokens: Sequence[int], *, keep_special: bool = False) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD, ids beyond the vocabulary are
        left out."""
        spellings = self._spellings
        if not keep_special:
            tokens = [token for token in tokens if not BYTES <= token < self._first]
        # A model may have more rows than there are tokens.
        kept = (spellings[token] for token in tokens if token < len(spellings))
        return b"".join(kept).decode(errors="replace")

    def token_bytes(self) -> NDArray[np.int32]:
        """Return (V,) how many UTF-8 bytes each token stands for; special tokens count 0."""
        sizes = np.array([len(spelling) for spelling in self._spellings], dtype=np.int32)
        sizes[BYTES : self._first] = 0
        return sizes

    def save(self, folder: Path) -> None:
        """Write processor.json, and a tokenizer.json that gives the same tokens in the
        ``tokenizers`` library."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "processor.json", {"name": self.name, "characters": self.characters})
        write_json(folder / "tokenizer.json", self._as_tokenizer_json())
        write_json(
            folder / "tokenizer_config.json", tokenizer_config(self.end_token, self.start_token)
        )
        write_text(folder / "chat_template.jinja", self._template)

    @classmethod
    def load(cls, folder: Path) -> CharacterProcessor:
        """Return the processor that ``save`` wrote to ``folder``.

        Raises:
            DataError: If processor.json is missing or is not what ``save`` writes.
        """
        saved = read_json(folder / "processor.json")
        characters = saved.get("characters")
        if not isinstance(characters, str):
            raise DataError(
                f"{folder / 'processor.json'}",
                "has no text 'characters'",
                "Save the processor again",
            )
        return cls(characters, str(saved.get("name")), read_template(folder))

    def _as_tokenizer_json(self) -> dict[str, object]:
        """Return a BPE without merges whose unknown characters fall back to byte tokens."""
        vocabulary = {f"<0x{value:02X}>": value for value in range(BYTES)}
        vocabulary |= dict(self.special_tokens)
        vocabulary |= {
            character: self._first + index for index, character in enumerate(self.characters)
        }
        flags = {
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        added = [
            {"id": index, "content": token, **flags} for token, index in self.special_tokens.items()
        ]
        # Without merges, what is not in the vocabulary falls back to bytes.
        decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
        model = {
            "type": "BPE",
            "byte_fallback": True,
            "unk_token": None,
            "vocab": vocabulary,
            "merges": [],
        }
        return {"version": "1.0", "added_tokens": added, "decoder": decoder, "model": model}


@processor("characters")
class CharactersConfig(ProcessorConfig):
    """A tokenizer with one token a character, for scripts and corpora whose characters are few."""

    min_count: int = setting(1, "Characters seen fewer times than this are spelled in bytes.", ge=1)

    def fit(self, texts: Callable[[], Iterator[str]]) -> CharacterProcessor:
        """Return the processor with every character that ``texts`` holds at least ``min_count``
        times.

        Raises:
            DataError: If the texts hold no character often enough.
        """
        counts: Counter[str] = Counter()
        for text in texts():
            counts.update(text)
        # Surrogates are no characters, and no file could hold them.
        frequent = [
            c for c, n in counts.items() if n >= self.min_count and not 0xD800 <= ord(c) <= 0xDFFF
        ]
        if not frequent:
            raise DataError(
                "recipe.processor",
                f"no character appears {self.min_count} times in the training texts",
                "Check that the data is not empty, or lower min_count",
            )
        # Of equally frequent ones by code point: the order of texts plays no part.
        return CharacterProcessor("".join(sorted(frequent, key=lambda c: (-counts[c], c))))

    @classmethod
    def load(cls, folder: Path) -> CharacterProcessor:
        """Return the processor that was saved to ``folder``."""
        return CharacterProcessor.load(folder)
