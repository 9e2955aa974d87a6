"""The tokenizer in a GGUF file's metadata, in both directions: BPE with its chat template.

It is a byte-level BPE, or SentencePiece's, which ``gguf_sentencepiece`` reads and writes. Of a
byte-level one the file names how text is split before merging (``tokenizer.ggml.pre``) and leaves
the expressions to the reader. The expressions below are those of llama.cpp (src/llama-vocab.cpp of
github.com/ggml-org/llama.cpp, MIT).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from groundup.contracts.processors import TextProcessor
from groundup.core.errors import CheckpointError, DataError
from groundup.core.values import Message
from groundup.processors.chat.template import ChatTemplate, find_template
from groundup.processors.text.gguf_sentencepiece import (
    TokenKind,
    display_name,
    sentencepiece_texts,
    sentencepiece_to_gguf,
    sentencepiece_tokenizer,
    takes_blanks,
)
from groundup.processors.text.tokenizer_files import put_before_texts

__all__ = ["GGUF_MODELS", "SPLITS", "GGUFTokenizer", "tokenizer_from_gguf", "tokenizer_to_gguf"]

# Values of tokenizer.ggml.model.
GGUF_MODELS = {"gpt2": "byte-level BPE", "llama": "SentencePiece's BPE"}
_OPEN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_GPT2 = _OPEN + r"|\s+"
_LATER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
# One after the other, each on the pieces that the one before left.
SPLITS: dict[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "llama-bpe": (_LATER.replace("DIGITS", "{1,3}"),),
    "qwen2": (_LATER.replace("DIGITS", ""),),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _OPEN, r"\p{N}+", r"[0-9][0-9][0-9]"),
}
_ALIASES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe"}
# A word that is a token is not merged.
_WHOLE_WORDS = ("llama-bpe",)
# A text begins with the start token, where the file does not say.
_STARTED = ("llama-bpe",)
# Text is brought to Unicode's composed form, as where the model comes from.
_COMPOSED = ("qwen2",)
_NEITHER = "is no byte-level BPE, and no BPE that falls back to bytes"
_NO_PLACE = "Keep it in the project's own layout"
_OTHER = "Use another file of this model, or give its tokenizer apart"


class GGUFTokenizer(NamedTuple):
    """A tokenizer with what its file says about it; see ``TextProcessor``."""

    tokenizer: Tokenizer
    end_token: str
    start_token: str | None
    chat_template: str | None
    begin_token: str | None


def tokenizer_from_gguf(metadata: Mapping[str, Any], end_token: str | None = None) -> GGUFTokenizer:
    """Return the tokenizer, with the file's end and start tokens and its chat template.

    Args:
        metadata: The file's.
        end_token: In place of the file's own.

    Raises:
        CheckpointError: If it is of another kind, or its tables do not fit together.
    """
    prefix = "tokenizer.ggml."
    tokens = _texts(metadata, prefix + "tokens")
    vocabulary = _vocabulary(tokens)
    kinds = metadata.get(prefix + "token_type", [TokenKind.NORMAL] * len(tokens))
    if not isinstance(kinds, list) or len(kinds) != len(tokens):
        found = str(kinds)[:60]
        if isinstance(kinds, list):
            found = f"{len(kinds)} entries"
        raise CheckpointError(
            prefix + "token_type", f"has {found} for {len(tokens)} tokens", _OTHER
        )
    if metadata.get(prefix + "model") == "llama":
        tokenizer = sentencepiece_tokenizer(metadata, vocabulary, kinds)
        starts = True
    else:
        tokenizer, starts = _byte_level(metadata, vocabulary)
    _add(tokenizer, metadata, tokens, kinds)
    end = end_token or _token(metadata, prefix + "eos_token_id", tokens)
    start = _token(metadata, prefix + "bos_token_id", tokens)
    if end is None:
        raise CheckpointError(
            prefix + "eos_token_id", "is missing: nothing says which token ends a text", _OTHER
        )
    template = metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise CheckpointError(
            "tokenizer.chat_template", f"is no text but {str(template)[:60]}", _OTHER
        )
    begin = None
    if start is not None and start != end and metadata.get(prefix + "add_bos_token", starts):
        begin = start
        put_before_texts(tokenizer, begin)
    return GGUFTokenizer(tokenizer, end, start, template, begin)


def tokenizer_to_gguf(
    processor: TextProcessor, described: Mapping[str, Any], size: int, name: str = ""
) -> dict[str, Any]:
    """Return the metadata of a tokenizer, the inverse of ``tokenizer_from_gguf``.

    Args:
        processor: A byte-level BPE, or one of SentencePiece's kind.
        described: What its tokenizer.json holds.
        size: How many tokens the model has. Ids without a token are filled up with tokens that no
            text holds.
        name: What the model is called, which goes into the file: by it llama.cpp tells some
            tokenizers apart.

    Raises:
        CheckpointError: If the processor is none of these, splits text in a way that has no name in
            GGUF files, or joins tokens in an order that no scores mean.
    """
    model = described["model"]
    template = processor.chat_template
    odd = [key for key in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    byte_level = (described["decoder"] or {}).get("type") == "ByteLevel"
    if model["type"] != "BPE" or odd or byte_level == bool(model["byte_fallback"]):
        what = " with ".join([f"a {model['type']} tokenizer", *odd])
        raise CheckpointError("processor", f"{what} {_NEITHER}", _NO_PLACE)
    tokens, kinds = _tables(described, max(size, processor.vocabulary_size))
    write = _byte_level_to_gguf if byte_level else sentencepiece_to_gguf
    written = write(described, tokens, kinds)
    written["tokenizer.ggml.eos_token_id"] = processor.end_id
    if shown := display_name(name, described):
        written["general.name"] = shown
    if template is None:
        written["tokenizer.ggml.bos_token_id"] = processor.begin_id
        written["tokenizer.ggml.add_bos_token"] = True
    else:
        start = processor.start_token
        written["tokenizer.ggml.bos_token_id"] = tokens.index(start) if start else processor.end_id
        # A chat template writes the start token by itself, and llama.cpp leaves one of two out.
        # What a template does not begin with was not before what was learned.
        written["tokenizer.ggml.add_bos_token"] = _begins_with_start(processor)
        written["tokenizer.chat_template"] = template
    # A byte-level BPE is written with its merges, and needs no such check.
    if not byte_level:
        _check_tokens(processor, written)
    return written


# ------------------------------------------------------------------------------------------ reading
def _vocabulary(tokens: list[str]) -> dict[str, int]:
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        twice = next(token for number, token in enumerate(tokens) if vocabulary[token] != number)
        raise CheckpointError("tokenizer.ggml.tokens", f"has the token {twice!r} twice", _OTHER)
    return vocabulary


def _byte_level(metadata: Mapping[str, Any], vocabulary: dict[str, int]) -> tuple[Tokenizer, bool]:
    """Return the tokenizer, and whether texts begin with the start token where the file does not
    say."""
    pre = str(metadata.get("tokenizer.ggml.pre", "default"))
    name = _ALIASES.get(pre, pre)
    if name not in SPLITS:
        known = ", ".join([*SPLITS, *_ALIASES])
        raise CheckpointError("tokenizer.ggml.pre", f"is {pre!r}; known: {known}", _OTHER)
    pairs: list[tuple[str, str]] = []
    for number, merge in enumerate(_texts(metadata, "tokenizer.ggml.merges")):
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocabulary.keys():
            raise CheckpointError(
                "tokenizer.ggml.merges",
                f"entry {number} is {merge!r}, no two tokens that make a third",
                _OTHER,
            )
        pairs.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=name in _WHOLE_WORDS))
    splits: list[Any] = [
        pre_tokenizers.Split(Regex(expression), "isolated") for expression in SPLITS[name]
    ]
    splits.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    if name in _COMPOSED:
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer, name in _STARTED


def _add(
    tokenizer: Tokenizer, metadata: Mapping[str, Any], tokens: list[str], kinds: list[int]
) -> None:
    """Make tokens of the vocabulary whole: they are never merged, and special ones stand for no
    text."""
    for special, taken in (
        (True, (TokenKind.UNKNOWN, TokenKind.CONTROL)),
        (False, (TokenKind.USER,)),
    ):
        added = [
            AddedToken(
                token, special=special, normalized=False, rstrip=takes_blanks(metadata, token)
            )
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in taken and token
        ]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)


def _texts(metadata: Mapping[str, Any], key: str) -> list[str]:
    values = metadata.get(key)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        problem = "is missing"
        if values is not None:
            problem = f"is no list of texts but {str(values)[:60]}"
        raise CheckpointError(key, problem, _OTHER)
    return values


def _token(metadata: Mapping[str, Any], key: str, tokens: list[str]) -> str | None:
    number = metadata.get(key)
    if number is None:
        return None
    if type(number) is not int or not 0 <= number < len(tokens):
        raise CheckpointError(key, f"is {str(number)[:60]}; there are {len(tokens)} tokens", _OTHER)
    return tokens[number]


# ------------------------------------------------------------------------------------------ writing
def _tables(described: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Return each id's token and what kind of token it is."""
    # llama.cpp's converter gives ids without a token the same names.
    tokens = [f"[PAD{number}]" for number in range(size)]
    kinds = [int(TokenKind.UNUSED)] * size
    for token, number in described["model"]["vocab"].items():
        tokens[number] = token
        kinds[number] = int(TokenKind.NORMAL)
    for added in described["added_tokens"]:
        kind = TokenKind.CONTROL if added["special"] else TokenKind.USER
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = int(kind)
    return tokens, kinds


def _byte_level_to_gguf(
    described: Mapping[str, Any], tokens: list[str], kinds: list[int]
) -> dict[str, Any]:
    merges = described["model"]["merges"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _name_of(described),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        # Older files hold a merge as one text, newer ones as two.
        "tokenizer.ggml.merges": [
            pair if isinstance(pair, str) else " ".join(pair) for pair in merges
        ],
        "tokenizer.ggml.add_space_prefix": False,
    }


def _begins_with_start(processor: TextProcessor) -> bool:
    """Return whether a start token is put before texts, and before conversations by the chat
    template too."""
    if processor.begin_token is None:
        return False
    try:
        rendered = ChatTemplate(find_template(None, processor), processor).render(
            (Message("user", "Hi"), Message("assistant", "Hello"))
        )
    # A template that shows no such conversation says nothing about its beginning.
    except DataError:
        return True
    return rendered.startswith(processor.begin_token)


def _check_tokens(processor: TextProcessor, written: Mapping[str, Any]) -> None:
    """Refuse metadata that means other tokens than the tokenizer's."""
    texts = sentencepiece_texts(
        written["tokenizer.ggml.tokens"], written["tokenizer.ggml.token_type"]
    )
    # Scores cannot say every order of merges, so the file is read back and compared.
    tokenizer = tokenizer_from_gguf(written).tokenizer
    tokenizer.encode_special_tokens = True
    there = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    for text, own, read in zip(texts, processor.encode_batch(texts), there, strict=True):
        if own.tolist() != read.ids:
            raise CheckpointError(
                "processor",
                f"joins tokens in an order that no scores of tokens give: {text!r:.100} is read"
                " otherwise",
                _NO_PLACE,
            )


def _name_of(described: Mapping[str, Any]) -> str:
    """Return the name of the way this tokenizer splits text."""
    try:
        found = _expressions(described["pre_tokenizer"])
        names = [name for name, expressions in SPLITS.items() if expressions == found]
    except DataError as error:
        found = (error.problem,)
        names = []
    normalizer = (described["normalizer"] or {}).get("type")
    if not names or (normalizer is not None and (normalizer != "NFC" or names[0] not in _COMPOSED)):
        raise CheckpointError(
            "processor",
            f"splits text by {' then '.join(found)[:200]}, normalised by {normalizer}, which has no"
            " name in GGUF",
            _NO_PLACE,
        )
    return names[0]


def _expressions(part: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the expressions that a part of a tokenizer.json splits by, in order."""
    match part:
        case {"type": "Sequence", "pretokenizers": inner}:
            return sum((_expressions(each) for each in inner), ())
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return (_GPT2,)
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return ()
        case {"type": "Digits", "individual_digits": True}:
            return (r"\p{N}",)
        case {
            "type": "Split",
            "behavior": "Isolated",
            "invert": False,
            "pattern": {"Regex": expression},
        }:
            return (str(expression),)
    raise DataError("pre_tokenizer", str(part and part["type"]))
