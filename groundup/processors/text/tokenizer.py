"""Any tokenizer of the ``tokenizers`` library, learned here or read from files.

Shape legend: V vocabulary, T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from groundup.contracts.processors import TextProcessor
from groundup.core.errors import DataError, did_you_mean
from groundup.processors.saved_files import (
    read_json,
    read_template,
    refuse_surrogates,
    saved_settings,
    tokenizer_config,
    write_json,
    write_text,
)
from groundup.processors.text.added_tokens import add_words
from groundup.processors.text.gguf_bpe import tokenizer_to_gguf
from groundup.processors.text.tokenizer_files import (
    EncoderTokens,
    between_texts,
    continuations,
    piece_sizes,
    space_before,
    tokens_around,
)

__all__ = ["OTHER_END", "TokenizerProcessor", "open_tokenizer"]

OTHER_END = "Name it in the recipe: processor.end_token: '<|endoftext|>'"
# No tokenizer joins it to what follows.
_MARK = "\x01"


class TokenizerProcessor(TextProcessor):
    """A tokenizer of the ``tokenizers`` library.

    Args:
        tokenizer: Taken over: truncation and padding are switched off, and special tokens in texts
            stay text.
        end_token: The special token that ends every document.
        start_token: What chat templates call ``bos_token``, or None.
        name: The registered name to save under.
        chat_template: Jinja source that travels with the processor.
        encoder: The tokens of an encoder, where it is the tokenizer of one.
        begin_token: The special token that starts every document; None: the end token does.
        ends: Further tokens that end what a model writes.

    Raises:
        DataError: If the tokenizer has no ``end_token``.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        end_token: str,
        start_token: str | None,
        name: str = "tokenizer_json",
        chat_template: str | None = None,
        encoder: EncoderTokens | None = None,
        begin_token: str | None = None,
        ends: Sequence[int] = (),
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._template = chat_template
        self.name = name
        self.end_token = end_token
        self.start_token = start_token
        self.encoder = encoder
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        if encoder is not None:
            # encoder_tokens_of has seen that each of them is in the vocabulary.
            first, last, padding, mask = (vocabulary[token] for token in encoder)
            self.frame = tokens_around(tokenizer) or (first, last)
            self.between = between_texts(tokenizer, last)
            self.padding_id = padding
            self.mask_id = mask
        added = tokenizer.get_added_tokens_decoder()
        special = {token.content: i for i, token in added.items() if token.special}
        identity = tokenizer.token_to_id(end_token)
        if identity is None:
            raise DataError(
                "processor.end_token",
                f"the tokenizer has no token {end_token!r}; {did_you_mean(end_token, special)}"
                "allowed: a token of its own",
                OTHER_END,
            )
        # Some files do not mark it as special.
        special.setdefault(end_token, identity)
        self.special_tokens = special
        takes = {token.content: (token.lstrip, token.rstrip) for token in added.values()}
        self.stripping_tokens = {name: takes[name] for name in special if any(takes.get(name, ()))}
        self._space_before = space_before(tokenizer)
        self._end_id: int = identity
        self.other_ends = tuple(end for end in ends if end != identity)
        begin: int | None = tokenizer.token_to_id(begin_token) if begin_token else None
        self._begin_id = identity if begin is None else begin
        self.begin_token = None if self._begin_id == identity else begin_token
        # Ids may have holes, so the largest one counts, not how many tokens there are.
        self._size = 1 + max(vocabulary.values())

    @property
    def vocabulary_size(self) -> int:
        return self._size

    @property
    def end_id(self) -> int:
        return self._end_id

    @property
    def begin_id(self) -> int:
        return self._begin_id

    @property
    def chat_template(self) -> str | None:
        return self._template

    def with_chat_template(self, source: str | None) -> TokenizerProcessor:
        """Return the same processor with another chat template."""
        return self._with(self._copy(), source)

    def with_added_tokens(
        self, words: Sequence[str], special: Sequence[str]
    ) -> tuple[TokenizerProcessor, list[str]]:
        """Return the same processor with further tokens; see ``added_tokens.add_words``."""
        tokenizer = self._copy()
        notes = add_words(tokenizer, words, special)
        return self._with(tokenizer, self._template), notes

    def number_of(self, token: str) -> int | None:
        """Return the id of a token by what it is written as, or None."""
        number: int | None = self._tokenizer.token_to_id(token)
        return number

    def _copy(self) -> Tokenizer:
        # A tokenizer is changed when a processor takes it over.
        return Tokenizer.from_str(self._tokenizer.to_str())

    def _with(self, tokenizer: Tokenizer, template: str | None) -> TokenizerProcessor:
        return TokenizerProcessor(
            tokenizer,
            self.end_token,
            self.start_token,
            self.name,
            template,
            self.encoder,
            self.begin_token,
            self.other_ends,
        )

    def to_gguf(self, size: int, name: str = "") -> dict[str, Any]:
        """Return the metadata that describe it in a GGUF file; see ``gguf_bpe.tokenizer_to_gguf``.

        Raises:
            CheckpointError: If a part of it has no place in such files.
        """
        return tokenizer_to_gguf(self, self.described(), size, name)

    def described(self) -> dict[str, Any]:
        """Return what tokenizer.json holds."""
        return dict(json.loads(self._tokenizer.to_str()))

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return (T,) tokens of each text, encoded on all cores.

        Raises:
            DataError: If a text holds a lone surrogate, which no UTF-8 text can.
        """
        try:
            # The fast one leaves out offsets, which are not needed here.
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError:
            # The library says only that something is no text; this finds where.
            refuse_surrogates(texts)
            raise
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def encode_spans(
        self, texts: Sequence[str]
    ) -> list[tuple[NDArray[np.int32], NDArray[np.int64]]]:
        """Return of each text its tokens (T,), and where in it each begins and ends, in characters
        (T, 2)."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            (
                np.array(encoding.ids, dtype=np.int32),
                np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2),
            )
            for encoding in encodings
        ]

    def encode_parts(
        self, texts: Sequence[str], continues: Sequence[bool]
    ) -> list[NDArray[np.int32]]:
        """Return ``encode_batch`` of texts of which some go on where another ended, without a space
        put before these.

        Args:
            texts: Each follows a special token, or another text.
            continues: Which follow another text.
        """
        if self._space_before == "never":
            return self.encode_batch(texts)
        # The space goes before the mark, which is then cut off: the text behind it gets none.
        (mark,) = self.encode_batch([_MARK])
        marked = [follows or self._space_before == "first" for follows in continues]
        found = self.encode_batch(
            [_MARK * each + text for text, each in zip(texts, marked, strict=True)]
        )
        return [tokens[len(mark) * each :] for tokens, each in zip(found, marked, strict=True)]

    def decode(self, tokens: Sequence[int], *, keep_special: bool = False) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD, ids beyond the vocabulary are
        left out."""
        return str(
            self._tokenizer.decode(
                # Tensors and numpy's numbers are not taken by the library.
                [int(token) for token in tokens],
                skip_special_tokens=not keep_special,
            )
        )

    def token_bytes(self) -> NDArray[np.int32]:
        """Return (V,) how many UTF-8 bytes each token stands for; special tokens count 0.

        Exact for byte-level tokenizers. With a SentencePiece tokenizer the space it puts before a
        text counts too.

        Raises:
            DataError: If the tokenizer loses spaces, as WordPiece does, so that tokens stand for no
                fixed bytes.
        """
        sizes = piece_sizes(self._tokenizer, self._size)
        # Their names are in the vocabulary like any text.
        sizes[list(self.special_tokens.values())] = 0
        return sizes

    def continuations(self) -> NDArray[np.bool_]:
        """Return (V,) which tokens go on with the word of the token before them; see
        ``tokenizer_files.continuations``."""
        found = continuations(self._tokenizer, self._size)
        found[list(self.special_tokens.values())] = False
        return found

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, processor.json and what ``transformers.AutoTokenizer`` needs."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "tokenizer.json", self._tokenizer.to_str(pretty=True))
        saved: dict[str, Any] = {
            "name": self.name,
            "end_token": self.end_token,
            "start_token": self.start_token,
        }
        if self.begin_token:
            saved["begin_token"] = self.begin_token
        if self.other_ends:
            saved["other_ends"] = list(self.other_ends)
        if self.encoder is not None:
            saved["encoder"] = self.encoder._asdict()
        write_json(folder / "processor.json", saved)
        write_json(
            folder / "tokenizer_config.json",
            tokenizer_config(self.end_token, self.start_token, saved.get("encoder")),
        )
        write_text(folder / "chat_template.jinja", self._template)

    @classmethod
    def load(cls, folder: Path) -> TokenizerProcessor:
        """Return the processor that ``save`` wrote to ``folder``.

        Raises:
            DataError: If a file is missing or damaged.
        """
        saved = read_json(folder / "processor.json")
        end = saved.get("end_token")
        if not isinstance(end, str):
            raise DataError(
                f"{folder / 'processor.json'}",
                "has no text 'end_token'",
                "Save the processor again",
            )
        tokenizer = open_tokenizer(folder / "tokenizer.json")
        template = read_template(folder)
        with saved_settings(folder):
            encoder = EncoderTokens(**saved["encoder"]) if "encoder" in saved else None
            # Runs of before begin_token was known start documents with the end token.
            begin = saved.get("begin_token")
            start = saved.get("start_token")
            # Runs of before these were read have none.
            ends = [int(number) for number in saved.get("other_ends", ())]
            name = str(saved.get("name"))
            return cls(tokenizer, end, start, name, template, encoder, begin, ends)


def open_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer in a tokenizer.json.

    Raises:
        DataError: If there is no such file, or the library cannot open it.
    """
    if not path.is_file():
        raise DataError(
            str(path), "no such file", "Give a tokenizer.json, or a folder that holds one"
        )
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing narrower
        # The library raises nothing narrower than Exception.
        raise DataError(
            str(path),
            f"is not a tokenizer that the tokenizers library can open: {error}",
            "Give a tokenizer.json of a fast tokenizer",
        ) from None
