"""The tokenizer in a GGUF file's metadata, in both directions: byte-level BPE with its chat template.

The file names how text is split before merging (``tokenizer.ggml.pre``) and leaves the expressions to the reader. The
expressions below are those of llama.cpp (src/llama-vocab.cpp of github.com/ggml-org/llama.cpp, MIT).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from groundup.core.errors import CheckpointError, DataError
from groundup.core.interfaces import Processor
from groundup.processors.bpe import TokenizerProcessor
from groundup.processors.foreign import put_before_texts

__all__ = ["SPLITS", "processor_from_gguf", "processor_to_gguf"]

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_OPEN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_GPT2 = _OPEN + r"|\s+"
_LATER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS: dict[str, tuple[str, ...]] = {  # one after the other, each on the pieces that the one before left
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "llama-bpe": (_LATER.replace("DIGITS", "{1,3}"),),
    "qwen2": (_LATER.replace("DIGITS", ""),),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _OPEN, r"\p{N}+", r"[0-9][0-9][0-9]"),
}
_ALIASES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe"}
_WHOLE_WORDS = ("llama-bpe",)  # a word that is a token is not merged
_STARTED = ("llama-bpe",)  # a text begins with the start token, where the file does not say
_COMPOSED = ("qwen2",)  # text is brought to Unicode's composed form, as where the model comes from
_NO_PLACE = "Keep it in the project's own layout"
_OTHER = "Use a model with a byte-level BPE tokenizer, or give its tokenizer apart"


def processor_from_gguf(metadata: Mapping[str, Any], end_token: str | None = None) -> TokenizerProcessor:
    """Return the tokenizer, with the file's end and start tokens and its chat template.

    Args:
        metadata: The file's.
        end_token: In place of the file's own.

    Raises:
        CheckpointError: If it is of another kind, or its tables do not fit together.
    """
    prefix = "tokenizer.ggml."
    model, pre = metadata.get(prefix + "model"), str(metadata.get(prefix + "pre", "default"))
    name = _ALIASES.get(pre, pre)
    if model != "gpt2":
        raise CheckpointError(prefix + "model", f"is {model!r}; read is 'gpt2', which means byte-level BPE", _OTHER)
    if name not in SPLITS:
        known = ", ".join([*SPLITS, *_ALIASES])
        raise CheckpointError(prefix + "pre", f"is {pre!r}; known: {known}", _OTHER)
    tokens, merges = _texts(metadata, prefix + "tokens"), _texts(metadata, prefix + "merges")
    tokenizer = _tokenizer(name, tokens, merges)
    kinds = metadata.get(prefix + "token_type", [_NORMAL] * len(tokens))
    if not isinstance(kinds, list) or len(kinds) != len(tokens):
        found = f"{len(kinds)} entries" if isinstance(kinds, list) else str(kinds)[:60]
        raise CheckpointError(prefix + "token_type", f"has {found} for {len(tokens)} tokens", _OTHER)
    _add(tokenizer, [token for token, kind in zip(tokens, kinds, strict=True) if kind in (_UNKNOWN, _CONTROL)], True)
    _add(tokenizer, [token for token, kind in zip(tokens, kinds, strict=True) if kind == _USER], False)
    end, start = (_token(metadata, f"{prefix}{key}_token_id", tokens) for key in ("eos", "bos"))
    end = end_token or end
    if end is None:
        raise CheckpointError(prefix + "eos_token_id", "is missing: nothing says which token ends a text", _OTHER)
    template = metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise CheckpointError("tokenizer.chat_template", f"is no text but {str(template)[:60]}", _OTHER)
    begin = start if metadata.get(prefix + "add_bos_token", name in _STARTED) and start != end else None
    if begin is not None:
        put_before_texts(tokenizer, begin)
    return TokenizerProcessor(tokenizer, end, start, "tokenizer_json", template, begin_token=begin)


def processor_to_gguf(processor: Processor, size: int) -> dict[str, Any]:
    """Return the metadata of a tokenizer, the inverse of ``processor_from_gguf``.

    Args:
        processor: A byte-level BPE.
        size: How many tokens the model has. Ids without a token are filled up with tokens that no text holds.

    Raises:
        CheckpointError: If the processor is no byte-level BPE, or splits text in a way that has no name in GGUF files.
    """
    if not isinstance(processor, TokenizerProcessor):
        raise CheckpointError("processor", f"{type(processor).__name__} is no byte-level BPE", _NO_PLACE)
    described = processor.described()
    model = described["model"]
    odd = [key for key in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback") if model.get(key)]
    if model["type"] != "BPE" or odd or (described["decoder"] or {}).get("type") != "ByteLevel":
        found = f"a {model['type']} tokenizer" + (f" with {', '.join(odd)}" if odd else "")
        raise CheckpointError("processor", f"{found} is no byte-level BPE", _NO_PLACE)
    tokens, kinds = _tables(described, max(size, processor.vocabulary_size))
    bare = processor.chat_template is None
    start = processor.begin_id if bare else tokens.index(processor.start_token or processor.end_token)
    written: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _name_of(described),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.bos_token_id": start,
        "tokenizer.ggml.eos_token_id": processor.end_id,
        # Without a start token of its own a text begins with the end token; a chat template writes it by itself.
        "tokenizer.ggml.add_bos_token": bare or processor.begin_token is not None,
        "tokenizer.ggml.add_space_prefix": False,
    }
    template = processor.chat_template
    return written if template is None else written | {"tokenizer.chat_template": template}


# -------------------------------------------------------------------------------------------------------------- reading
def _tokenizer(name: str, tokens: list[str], merges: list[str]) -> Tokenizer:
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        twice = next(token for number, token in enumerate(tokens) if vocabulary[token] != number)
        raise CheckpointError("tokenizer.ggml.tokens", f"has the token {twice!r} twice", _OTHER)
    pairs: list[tuple[str, str]] = []
    for number, merge in enumerate(merges):
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocabulary.keys():
            problem = f"entry {number} is {merge!r}, no two tokens that make a third"
            raise CheckpointError("tokenizer.ggml.merges", problem, _OTHER)
        pairs.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=name in _WHOLE_WORDS))
    splits: list[Any] = [pre_tokenizers.Split(Regex(expression), "isolated") for expression in SPLITS[name]]
    splits.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    if name in _COMPOSED:
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _add(tokenizer: Tokenizer, tokens: list[str], special: bool) -> None:
    """Make tokens of the vocabulary whole: they are never merged, and special ones stand for no text."""
    added = [AddedToken(token, special=special, normalized=False) for token in tokens if token]
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)


def _texts(metadata: Mapping[str, Any], key: str) -> list[str]:
    values = metadata.get(key)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        found = "is missing" if values is None else f"is no list of texts but {str(values)[:60]}"
        raise CheckpointError(key, found, _OTHER)
    return values


def _token(metadata: Mapping[str, Any], key: str, tokens: list[str]) -> str | None:
    number = metadata.get(key)
    if number is None:
        return None
    if type(number) is not int or not 0 <= number < len(tokens):
        raise CheckpointError(key, f"is {str(number)[:60]}; there are {len(tokens)} tokens", _OTHER)
    return tokens[number]


# -------------------------------------------------------------------------------------------------------------- writing
def _tables(described: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Return each id's token and what kind of token it is."""
    tokens, kinds = [f"[PAD{number}]" for number in range(size)], [_UNUSED] * size
    for token, number in described["model"]["vocab"].items():
        tokens[number], kinds[number] = token, _NORMAL
    for added in described["added_tokens"]:
        tokens[added["id"]], kinds[added["id"]] = added["content"], _CONTROL if added["special"] else _USER
    return tokens, kinds


def _name_of(described: Mapping[str, Any]) -> str:
    """Return the name of the way this tokenizer splits text."""
    try:
        found = _expressions(described["pre_tokenizer"])
        names = [name for name, expressions in SPLITS.items() if expressions == found]
    except DataError as error:
        found, names = (error.problem,), []
    normalizer = (described["normalizer"] or {}).get("type")
    if not names or (normalizer is not None and (normalizer != "NFC" or names[0] not in _COMPOSED)):
        problem = f"splits text by {' then '.join(found)[:200]}, normalised by {normalizer}, which has no name in GGUF"
        raise CheckpointError("processor", problem, _NO_PLACE)
    return names[0]


def _expressions(part: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the expressions that a part of a tokenizer.json splits by, in order."""
    kind = None if part is None else part["type"]
    if part is not None and kind == "Sequence":
        return sum((_expressions(inner) for inner in part["pretokenizers"]), ())
    if part is not None and kind == "ByteLevel" and not part["add_prefix_space"]:
        return (_GPT2,) if part["use_regex"] else ()
    if part is not None and kind == "Digits" and part["individual_digits"]:
        return (r"\p{N}",)
    plain = part is not None and kind == "Split" and part["behavior"] == "Isolated" and not part["invert"]
    if part is not None and plain and "Regex" in part["pattern"]:
        return (str(part["pattern"]["Regex"]),)
    raise DataError("pre_tokenizer", str(kind))
