"""What the files of an existing tokenizer say: its end and start tokens, its chat template, the
bytes of its pieces."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors

from groundup.core.errors import DataError
from groundup.processors.saved_files import read_json, read_template

__all__ = [
    "EncoderTokens",
    "begin_token_of",
    "between_texts",
    "chat_template_of",
    "continuations",
    "encoder_tokens_of",
    "end_token_of",
    "piece_sizes",
    "put_before_texts",
    "space_before",
    "start_token_of",
    "tokens_around",
]

# Ends of a text come before ends of a turn: the end token ends every document.
ENDS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
    "[EOS]",
    "<|im_end|>",
    "<|eot_id|>",
)
_MAP = "special_tokens_map.json"
STARTS = ("<|begin_of_text|>", "<s>", "<bos>", "<｜begin▁of▁sentence｜>", "[BOS]")


class EncoderTokens(NamedTuple):
    """What an encoder's tokenizer reserves: a text is read as ``first``, its tokens, ``last``.

    The names of the fields are those that tokenizer_config.json has, less ``_token``.
    """

    cls: str
    sep: str
    pad: str
    mask: str


KNOWN_ENCODERS = (
    EncoderTokens("[CLS]", "[SEP]", "[PAD]", "[MASK]"),
    EncoderTokens("<s>", "</s>", "<pad>", "<mask>"),
)


def encoder_tokens_of(folder: Path, tokenizer: Tokenizer) -> EncoderTokens | None:
    """Return an encoder's tokens: by tokenizer_config.json, without that file well-known ones, else
    None."""
    found: tuple[EncoderTokens, ...] = KNOWN_ENCODERS
    if config := _read_optional(folder / "tokenizer_config.json"):
        named = [_text_of(config.get(f"{name}_token")) for name in EncoderTokens._fields]
        found = (EncoderTokens(*(token or "" for token in named)),)
    known = tokenizer.get_vocab()
    return next((each for each in found if known.keys() >= set(each)), None)


def tokens_around(tokenizer: Tokenizer) -> tuple[int, int] | None:
    """Return the tokens that tokenizer.json puts before and after a text, such as its language and
    the end token of NLLB's; None, where they are not one each."""
    alone = tokenizer.encode("", add_special_tokens=True).ids
    ids = tokenizer.encode("a", add_special_tokens=True).ids
    if len(alone) != 2 or len(ids) < 3 or [ids[0], ids[-1]] != alone:
        return None
    return alone[0], alone[1]


def between_texts(tokenizer: Tokenizer, last: int) -> tuple[tuple[int, ...], int]:
    """Return what a tokenizer puts between two texts, and the kind of the second one's tokens; by
    default as BERT.

    Args:
        tokenizer: Of an encoder.
        last: The token at the end of a text.
    """
    pair = tokenizer.encode("", "", add_special_tokens=True)
    special = [n for n, is_special in enumerate(pair.special_tokens_mask) if is_special]
    # Of two empty texts only special tokens are left: first, those between, last.
    if len(special) < 3:
        return (last,), 1
    return tuple(pair.ids[n] for n in special[1:-1]), int(pair.type_ids[special[-1]])


def end_token_of(folder: Path, tokenizer: Tokenizer) -> str | None:
    """Return the end token by the folder's files, as ``_configured``, else a well-known name, else
    None."""
    return _configured(folder, tokenizer, "eos_token") or _first_known(tokenizer, ENDS)


def start_token_of(folder: Path, tokenizer: Tokenizer) -> str | None:
    """Return what chat templates call ``bos_token``: by the folder's files, else a well-known name,
    else None.

    A tokenizer_config.json that does not name one means that there is none, as in transformers.
    """
    if config := _read_optional(folder / "tokenizer_config.json"):
        named = _text_of(config.get("bos_token"))
        return named or _text_of(_read_optional(folder / _MAP).get("bos_token"))
    return _configured(folder, tokenizer, "bos_token") or _first_known(tokenizer, STARTS)


def _first_known(tokenizer: Tokenizer, tokens: tuple[str, ...]) -> str | None:
    return next((token for token in tokens if tokenizer.token_to_id(token) is not None), None)


def begin_token_of(folder: Path, tokenizer: Tokenizer, start: str | None) -> str | None:
    """Return the start token where the tokenizer puts it before every text, as Gemma's and Llama's
    do; else None.

    Whether it does, ``add_bos_token`` of tokenizer_config.json says, else what tokenizer.json puts
    around texts. The tokenizer is changed to do as the former says, so that it does so wherever it
    is written.
    """
    if start is None or tokenizer.token_to_id(start) is None:
        return None
    # Set in many files for training; it would cut what is tried here.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    first = tokenizer.encode("a", add_special_tokens=True).ids[:1]
    begin = start if first == [tokenizer.token_to_id(start)] else None
    said = _read_optional(folder / "tokenizer_config.json").get("add_bos_token")
    # The two files of a model may well disagree; transformers goes by tokenizer_config.json.
    wanted = begin
    if isinstance(said, bool):
        wanted = start if said else None
    if wanted != begin:
        put_before_texts(tokenizer, wanted)
    return wanted


def put_before_texts(tokenizer: Tokenizer, start: str | None) -> None:
    """Make other libraries put a token before every text, or none, wherever they read this
    tokenizer."""
    if start is None:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1")
        return
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start}:0 $A:0",
        pair=f"{start}:0 $A:0 {start}:1 $B:1",
        special_tokens=[(start, tokenizer.token_to_id(start))],
    )


def _configured(folder: Path, tokenizer: Tokenizer, key: str) -> str | None:
    """Return a token by tokenizer_config.json, else by special_tokens_map.json, else by its number
    in generation_config.json or config.json."""
    for name in ("tokenizer_config.json", _MAP):
        named = _text_of(_read_optional(folder / name).get(key))
        if named and tokenizer.token_to_id(named) is not None:
            return named
    for name in ("generation_config.json", "config.json"):
        identity = _read_optional(folder / name).get(f"{key}_id")
        if isinstance(identity, list) and identity:
            # Chat models list the end of a turn too; the end of a text comes first.
            identity = identity[0]
        if isinstance(identity, int) and identity >= 0:
            token: str | None = tokenizer.id_to_token(identity)
            if token:
                return token
    return None


def chat_template_of(folder: Path) -> str | None:
    """Return the source in chat_template.jinja, else in tokenizer_config.json (the one named
    default), else None."""
    # Newer folders have a file of its own, which then counts.
    source = read_template(folder)
    if source is not None:
        return source
    configured = _read_optional(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(configured, list):
        named = {entry.get("name"): entry.get("template") for entry in configured}
        configured = named.get("default")
    return configured if isinstance(configured, str) else None


def piece_sizes(tokenizer: Tokenizer, size: int) -> NDArray[np.int32]:
    """Return (size,) UTF-8 bytes of each piece of the vocabulary.

    Raises:
        DataError: If the pieces do not say where spaces were, as in WordPiece.
    """
    described = json.loads(tokenizer.to_str())
    kinds = _types([described[part] for part in ("decoder", "pre_tokenizer", "normalizer")])
    sizes = np.zeros(size, dtype=np.int32)
    measure = _measure(kinds, described["model"]["type"])
    for piece, index in tokenizer.get_vocab(with_added_tokens=False).items():
        sizes[index] = measure(piece)
    # Added tokens are written as they are, without marks for spaces.
    for index, token in tokenizer.get_added_tokens_decoder().items():
        sizes[index] = len(token.content.encode())
    return sizes


def _measure(kinds: set[str], model: str) -> Callable[[str], int]:
    """Return the function from a piece to its number of bytes."""
    if "ByteLevel" in kinds:
        # A piece is written with a letter for each byte; what is not was added as it is.
        alphabet = set(pre_tokenizers.ByteLevel.alphabet())
        return lambda piece: len(piece if alphabet.issuperset(piece) else piece.encode())
    if model in {"BPE", "Unigram"}:
        # Spaces are written as a mark of three bytes, but stand for one.
        mark = "▁" if kinds & {"Metaspace", "Prepend", "Replace"} else " "
        return lambda piece: 1 if _is_byte(piece) else len(piece.replace(mark, " ").encode())
    raise DataError(
        "tokenizer.json",
        f"a {model} tokenizer does not keep spaces, so its tokens stand for no fixed number of"
        " bytes",
        "Use a byte-level BPE, a SentencePiece BPE or Unigram tokenizer, or train one:"
        " processor.name: bpe",
    )


def continuations(tokenizer: Tokenizer, size: int) -> NDArray[np.bool_]:
    """Return (size,) which pieces go on with the word of the piece before them.

    Of WordPiece those that begin with ``##``; of SentencePiece those without a leading space; of
    byte-level BPE those
    that begin with a letter or digit: a space, a mark or a line's end begins a word.
    """
    described = json.loads(tokenizer.to_str())
    kinds = _types([described["decoder"], described["pre_tokenizer"]])
    prefix = described["model"].get("continuing_subword_prefix") or "##"
    decoder = decoders.ByteLevel()
    found = np.zeros(size, dtype=np.bool_)
    for piece, index in tokenizer.get_vocab(with_added_tokens=False).items():
        if described["model"]["type"] == "WordPiece":
            found[index] = piece.startswith(prefix)
        elif "ByteLevel" in kinds:
            first = decoder.decode([piece])[:1]
            # U+FFFD: the piece begins in the middle of a character.
            found[index] = first.isalnum() or first == "\ufffd"
        else:
            found[index] = not piece.startswith("▁")
    found[list(tokenizer.get_added_tokens_decoder())] = False
    return found


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def space_before(tokenizer: Tokenizer) -> Literal["always", "first", "never"]:
    """Return before which texts between special tokens a tokenizer puts a space: all, the first, or
    none."""
    described = json.loads(tokenizer.to_str())
    for part in _objects_in([described["normalizer"], described["pre_tokenizer"]]):
        kind = part.get("type")
        if kind == "Prepend" or (kind == "ByteLevel" and part.get("add_prefix_space")):
            return "always"
        if kind == "Metaspace" and "prepend_scheme" in part:
            schemes: dict[str, Literal["always", "first"]] = {"always": "always", "first": "first"}
            return schemes.get(part["prepend_scheme"], "never")
        # An older file.
        if kind == "Metaspace":
            return "always" if part.get("add_prefix_space", True) else "never"
    return "never"


def _objects_in(part: Any) -> list[dict[str, Any]]:
    """Return every object inside a part of a tokenizer.json, however nested."""
    if isinstance(part, list):
        return [inner for item in part for inner in _objects_in(item)]
    if not isinstance(part, dict):
        return []
    return [part, *_objects_in(list(part.values()))]


def _types(part: Any) -> set[str]:
    """Return every ``type`` inside a part of a tokenizer.json, however nested."""
    return {inner["type"] for inner in _objects_in(part) if isinstance(inner.get("type"), str)}


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _text_of(token: Any) -> str | None:
    """Return a token that is written as text, or as an object with its text under ``content``."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
