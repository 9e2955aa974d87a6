"""A tokenizer that comes as a tokenizer.json, or in a GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from groundup.contracts.processors import ProcessorConfig
from groundup.core.errors import DataError
from groundup.core.registry import processor
from groundup.core.settings import PathText, setting
from groundup.formats.generation_config import read_end_ids
from groundup.processors.text.added_tokens import add_named_tokens
from groundup.processors.text.gguf_bpe import GGUF_MODELS, tokenizer_from_gguf
from groundup.processors.text.tokenizer import OTHER_END, TokenizerProcessor, open_tokenizer
from groundup.processors.text.tokenizer_files import (
    begin_token_of,
    chat_template_of,
    encoder_tokens_of,
    end_token_of,
    start_token_of,
)

__all__ = ["TokenizerJSONConfig"]


@processor("tokenizer_json")
class TokenizerJSONConfig(ProcessorConfig):
    """An existing tokenizer: a tokenizer.json, or a folder in Hugging Face layout that holds
    one."""

    gguf_models: ClassVar[Mapping[str, str]] = GGUF_MODELS

    path: PathText = setting(..., "A tokenizer.json, or the folder of one.", min_length=1)
    end_token: str | None = setting(
        None, "The token that ends documents, where its files do not say."
    )

    def fit(self, texts: Callable[[], Iterator[str]]) -> TokenizerProcessor:
        """Return the processor as it is in the files; ``texts`` is not read.

        Raises:
            DataError: If the files are missing or damaged, or nothing says which token ends a text.
        """
        given = Path(self.path)
        file = given / "tokenizer.json" if given.is_dir() else given
        tokenizer = open_tokenizer(file)
        add_named_tokens(file.parent, tokenizer)
        encoder = encoder_tokens_of(file.parent, tokenizer)
        end = (
            self.end_token
            or end_token_of(file.parent, tokenizer)
            or (encoder.sep if encoder else None)
        )
        if end is None:
            raise DataError(str(file), "nothing says which token ends a text", OTHER_END)
        start = start_token_of(file.parent, tokenizer)
        template = chat_template_of(file.parent)
        begin = begin_token_of(file.parent, tokenizer, start)
        return TokenizerProcessor(
            tokenizer,
            end,
            start,
            "tokenizer_json",
            template,
            encoder,
            begin,
            read_end_ids(file.parent),
        )

    @classmethod
    def load(cls, folder: Path) -> TokenizerProcessor:
        """Return the processor that was saved to ``folder``."""
        return TokenizerProcessor.load(folder)

    @classmethod
    def from_gguf(
        cls, metadata: Mapping[str, Any], end_token: str | None = None
    ) -> TokenizerProcessor:
        """Return the tokenizer that a GGUF file's metadata describe; see
        ``gguf_bpe.tokenizer_from_gguf``.

        Raises:
            CheckpointError: If its tables do not fit together.
        """
        read = tokenizer_from_gguf(metadata, end_token)
        return TokenizerProcessor(
            read.tokenizer,
            read.end_token,
            read.start_token,
            "tokenizer_json",
            read.chat_template,
            begin_token=read.begin_token,
        )
