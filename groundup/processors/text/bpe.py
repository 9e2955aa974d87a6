"""Byte-level BPE, learned with the ``tokenizers`` library, and any tokenizer that comes as a
tokenizer.json.

Source: Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", 2016,
    arXiv:1508.07909; over
bytes: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019. Legend: V
    vocabulary, T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from groundup.core.contracts.processors import ProcessorConfig, TextProcessor
from groundup.core.errors import DataError, did_you_mean
from groundup.core.registry import processor
from groundup.core.settings import setting
from groundup.processors.saved_files import (
    read_json,
    read_template,
    refuse_surrogates,
    saved_settings,
    tokenizer_config,
    write_json,
    write_text,
)
from groundup.processors.text.special_tokens import END_OF_TEXT, SPECIAL_TOKENS
from groundup.processors.text.tokenizer_files import (
    EncoderTokens,
    begin_token_of,
    between_texts,
    chat_template_of,
    continuations,
    encoder_tokens_of,
    end_token_of,
    piece_sizes,
    space_before,
    start_token_of,
)

__all__ = ["BPEConfig", "TokenizerJSONConfig", "TokenizerProcessor"]

# The split of GPT-4 and Llama 3 (so other tools know it): digits by three, a space joins the word
# that follows it. On held-out Python documentation and 4,096 tokens it gives 3.55 bytes a token;
# GPT-2's split gives 3.43.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORD = r"[\p{L}\p{M}\p{N}]+|[^\p{L}\p{M}\p{N}]"
_MARK = "\x01"  # no tokenizer joins it to what follows
SMALLEST = 256 + len(SPECIAL_TOKENS)
ENCODER = EncoderTokens("[CLS]", "[SEP]", "[PAD]", "[MASK]")


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

    Attributes:
        begin_id: The token that starts every document.
        frame: The tokens that an encoder expects before and after a text, or None.
        padding_id: The token that fills rows up, or None.
        mask_id: The token that stands for a hidden one, or None.
        between: The tokens that an encoder expects between two texts, and the kind of the second
            one's; or None.

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
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self._tokenizer, self._template, self.name = tokenizer, chat_template, name
        self.end_token, self.start_token, self.encoder = end_token, start_token, encoder
        numbers: list[Any] | None = (
            None if encoder is None else [tokenizer.token_to_id(token) for token in encoder]
        )
        self.frame: tuple[int, int] | None = None if numbers is None else (numbers[0], numbers[1])
        self.padding_id: int | None = None if numbers is None else numbers[2]
        self.mask_id: int | None = None if numbers is None else numbers[3]
        self.between = None if self.frame is None else between_texts(tokenizer, self.frame[1])
        added = tokenizer.get_added_tokens_decoder()
        self.special_tokens: dict[str, int] = {
            token.content: i for i, token in added.items() if token.special
        }
        identity = tokenizer.token_to_id(end_token)
        if identity is None:
            near = did_you_mean(end_token, self.special_tokens)
            raise DataError(
                "processor.end_token",
                f"the tokenizer has no token {end_token!r}; {near}",
                _OTHER_END,
            )
        self.special_tokens.setdefault(end_token, identity)
        takes = {token.content: (token.lstrip, token.rstrip) for token in added.values()}
        self.stripping_tokens = {
            name: takes[name] for name in self.special_tokens if any(takes.get(name, ()))
        }
        self._space_before = space_before(tokenizer)
        self._end_id: int = identity
        begin: int | None = tokenizer.token_to_id(begin_token) if begin_token else None
        self._begin_id = identity if begin is None else begin
        self.begin_token = None if self._begin_id == identity else begin_token
        self._size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())

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
        copy = Tokenizer.from_str(self._tokenizer.to_str())
        tokens = self.end_token, self.start_token
        return TokenizerProcessor(copy, *tokens, self.name, source, self.encoder, self.begin_token)

    def described(self) -> dict[str, Any]:
        """Return what tokenizer.json holds."""
        return dict(json.loads(self._tokenizer.to_str()))

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return (T,) tokens of each text, encoded on all cores.

        Raises:
            DataError: If a text holds a lone surrogate, which no UTF-8 text can.
        """
        try:
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError:
            refuse_surrogates(texts)
            raise
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def encode_spans(
        self, texts: Sequence[str]
    ) -> list[tuple[NDArray[np.int32], NDArray[np.int64]]]:
        """Return of each text its tokens (T,), and where in it each begins and ends, in characters
        (T, 2)."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        spans = (
            np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2) for encoding in encodings
        )
        return [
            (np.array(each.ids, dtype=np.int32), span)
            for each, span in zip(encodings, spans, strict=True)
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
        bare = [follows or self._space_before == "first" for follows in continues]
        (mark,) = self.encode_batch([_MARK])
        found = self.encode_batch(
            [_MARK + text if each else text for text, each in zip(texts, bare, strict=True)]
        )
        return [
            tokens[len(mark) :] if each else tokens
            for tokens, each in zip(found, bare, strict=True)
        ]

    def decode(self, tokens: Sequence[int], *, keep_special: bool = False) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD, ids beyond the vocabulary are
        left out."""
        return str(
            self._tokenizer.decode(
                [int(token) for token in tokens], skip_special_tokens=not keep_special
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
        sizes[list(self.special_tokens.values())] = 0
        return sizes

    def continuations(self) -> NDArray[np.bool_]:
        """Return (V,) which tokens go on with the word of the token before them; see
        ``foreign.continuations``."""
        found = continuations(self._tokenizer, self._size)
        found[list(self.special_tokens.values())] = False
        return found

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, processor.json and what ``transformers.AutoTokenizer`` needs."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "tokenizer.json", self._tokenizer.to_str(pretty=True))
        encoder = None if self.encoder is None else self.encoder._asdict()
        tokens = {"end_token": self.end_token, "start_token": self.start_token}
        tokens |= {"begin_token": self.begin_token} if self.begin_token else {}
        tokens_of_encoder = {} if encoder is None else {"encoder": encoder}
        write_json(folder / "processor.json", {"name": self.name, **tokens, **tokens_of_encoder})
        write_json(
            folder / "tokenizer_config.json",
            tokenizer_config(self.end_token, self.start_token, encoder),
        )
        write_text(folder / "chat_template.jinja", self._template)

    @classmethod
    def load(cls, folder: Path) -> TokenizerProcessor:
        """Return the processor that ``save`` wrote to ``folder``.

        Raises:
            DataError: If a file is missing or damaged.
        """
        saved = read_json(folder / "processor.json")
        end, start = saved.get("end_token"), saved.get("start_token")
        if not isinstance(end, str):
            raise DataError(
                f"{folder / 'processor.json'}",
                "has no text 'end_token'",
                "Save the processor again",
            )
        tokenizer, template = _open(folder / "tokenizer.json"), read_template(folder)
        with saved_settings(folder):
            encoder = EncoderTokens(**saved["encoder"]) if "encoder" in saved else None
            begin = saved.get(
                "begin_token"
            )  # a run of before it was known starts documents with the end token
            return cls(tokenizer, end, start, str(saved.get("name")), template, encoder, begin)


@processor("bpe")
class BPEConfig(ProcessorConfig):
    """Byte-level byte-pair encoding learned from the training texts: any text can be spelled, none
    is lost."""

    vocab_size: int = setting(
        4096, "Tokens in all, the 256 bytes and the special tokens included.", ge=SMALLEST
    )
    min_frequency: int = setting(2, "A pair seen fewer times than this is never merged.", ge=1)
    words: bool = setting(
        False,
        "Read texts as words and marks in small letters, however they are spaced, so that a word is"
        " the same token wherever it stands: for classifiers of few texts. Decoded, each has a"
        " space before it; bytes count as then.",
    )

    encoder: bool = setting(
        False,
        "Reserve [CLS], [SEP], [PAD] and [MASK], for a model that sees the whole text: it reads"
        " [CLS] text [SEP]",
    )

    @model_validator(mode="after")
    def _large_enough(self) -> BPEConfig:
        least = SMALLEST + len(ENCODER)
        if self.encoder and self.vocab_size < least:
            raise ValueError(
                f"vocab_size is {self.vocab_size}, and encoder: true needs {least}. Use at least"
                f" {least}"
            )
        return self

    def fit(self, texts: Callable[[], Iterator[str]]) -> TokenizerProcessor:
        """Return the processor, with fewer than ``vocab_size`` tokens where the texts give too few
        pairs.

        Raises:
            DataError: If there is no text to learn from.
        """
        tokenizer = Tokenizer(models.BPE())
        splits: list[pre_tokenizers.PreTokenizer] = [
            pre_tokenizers.Split(Regex(WORD if self.words else SPLIT), "isolated")
        ]
        if self.words:
            tokenizer.normalizer = normalizers.Lowercase()
            splits.insert(0, pre_tokenizers.WhitespaceSplit())
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=self.words, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=[*SPECIAL_TOKENS, *(ENCODER if self.encoder else ())],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        first = next((text for text in texts() if text), None)
        if first is None:
            raise DataError(
                "recipe.processor", "the training texts are empty", "Check the data section"
            )
        tokenizer.train_from_iterator(texts(), trainer)
        if self.encoder:
            tokenizer.post_processor = _framing(tokenizer)
        encoder = ENCODER if self.encoder else None
        return TokenizerProcessor(tokenizer, END_OF_TEXT, END_OF_TEXT, "bpe", encoder=encoder)

    @classmethod
    def load(cls, folder: Path) -> TokenizerProcessor:
        """Return the processor that was saved to ``folder``."""
        return TokenizerProcessor.load(folder)


@processor("tokenizer_json")
class TokenizerJSONConfig(ProcessorConfig):
    """An existing tokenizer: a tokenizer.json, or a folder in Hugging Face layout that holds
    one."""

    path: str = setting(..., "A tokenizer.json, or the folder of one.", min_length=1)
    end_token: str | None = setting(
        None, "The token that ends documents, where its files do not say."
    )

    def fit(self, texts: Callable[[], Iterator[str]]) -> TokenizerProcessor:
        """Return the processor as it is in the files; ``texts`` is not read.

        Raises:
            DataError: If the files are missing or damaged, or nothing says which token ends a text.
        """
        given = Path(self.path).expanduser()
        file = given / "tokenizer.json" if given.is_dir() else given
        tokenizer = _open(file)
        encoder = encoder_tokens_of(file.parent, tokenizer)
        end = (
            self.end_token
            or end_token_of(file.parent, tokenizer)
            or (encoder.sep if encoder else None)
        )
        if end is None:
            raise DataError(str(file), "nothing says which token ends a text", _OTHER_END)
        start, template = start_token_of(file.parent, tokenizer), chat_template_of(file.parent)
        begin = begin_token_of(file.parent, tokenizer, start)
        return TokenizerProcessor(tokenizer, end, start, "tokenizer_json", template, encoder, begin)

    @classmethod
    def load(cls, folder: Path) -> TokenizerProcessor:
        """Return the processor that was saved to ``folder``."""
        return TokenizerProcessor.load(folder)


_OTHER_END = "Name it in the recipe: processor.end_token: '<|endoftext|>'"


def _framing(tokenizer: Tokenizer) -> processors.TemplateProcessing:
    """Return what puts an encoder's tokens around a text, or two, where other libraries use the
    tokenizer."""
    numbers = [(token, tokenizer.token_to_id(token)) for token in (ENCODER.cls, ENCODER.sep)]
    return processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=numbers
    )


def _open(path: Path) -> Tokenizer:
    if not path.is_file():
        raise DataError(
            str(path), "no such file", "Give a tokenizer.json, or a folder that holds one"
        )
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing narrower
        problem = f"is not a tokenizer that the tokenizers library can open: {error}"
        raise DataError(str(path), problem, "Give a tokenizer.json of a fast tokenizer") from None
