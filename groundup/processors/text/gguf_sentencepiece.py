"""SentencePiece's BPE in a GGUF file's metadata (``tokenizer.ggml.model`` is ``llama``), in both
directions.

Such a file has no merges but a score for each token: of all neighbours that together are a token,
those of the best score are joined first, and of equal ones the leftmost. A character that is no
token becomes its bytes in UTF-8, the tokens ``<0x00>`` to ``<0xFF>``. Spaces are written as ``▁``;
with ``add_space_prefix`` one is put before each stretch of text between special tokens.

Source: Kudo & Richardson, "SentencePiece", 2018, arXiv:1808.06226, as llama.cpp reads it
    (src/llama-vocab.cpp of
github.com/ggml-org/llama.cpp, MIT). Legend: V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers

from groundup.core.errors import CheckpointError

__all__ = [
    "TokenKind",
    "display_name",
    "sentencepiece_texts",
    "sentencepiece_to_gguf",
    "sentencepiece_tokenizer",
    "takes_blanks",
]


class TokenKind(IntEnum):
    """What a token is, by its number in ``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER = 4
    UNUSED = 5
    BYTE = 6


_SPACE = "▁"
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
# Never made by joining what a text says.
_APART = (TokenKind.UNKNOWN, TokenKind.CONTROL, TokenKind.BYTE)
_SCORES = "tokenizer.ggml.scores"
_PREFIX = "tokenizer.ggml.add_space_prefix"
_OTHER = "Use another file of this model, or give its tokenizer apart"
_NO_PLACE = "Keep it in the project's own layout"
# llama.cpp knows by a model's name that the special tokens of Phi-3 take the blanks behind them,
# but for these.
_PHI_NAMES = ("phi-3", "phi3")
_PHI_PLAIN = ("<unk>", "<s>", "<|endoftext|>")
# A written tokenizer is tried on this many texts of this many pieces.
_TEXTS = 400
_PIECES = 12
_REPEATED = (
    character * times
    for character in (" ", "\n", "\t", "a", "=", "-", "0")
    for times in (1, 2, 3, 5, 8, 17, 40)
)
_HARD = (
    *_REPEATED,
    "",
    "a b",
    " a  b ",
    "\r\n\r\n",
    "naïve café",
    "床前明月光",
    "1234567",
    "🙂🙃",
    "e\u0301",
    "\x00\x7f\u00ad",
    "def f(x):\n    return x[0] + 1  # ok\n",
    "It's  DON'T!?",
    "▁",
    "a▁b",
    "<0x0A>",
    "\u2028 \u3000x",
)


def takes_blanks(metadata: Mapping[str, Any], token: str) -> bool:
    """Return whether a special token takes the blanks behind it, which is known from the model's
    name."""
    name = str(metadata.get("general.name", "")).lower()
    return any(known in name for known in _PHI_NAMES) and token not in _PHI_PLAIN


def display_name(name: str, described: Mapping[str, Any]) -> str:
    """Return a name for the file by which its special tokens take blanks where they should, and
    only there."""
    takes = _blanks_as_phi(described)
    known = next((known for known in _PHI_NAMES if known in name.lower()), None)
    if takes and known is None:
        return f"{name} (Phi-3)".strip()
    if not takes and known is not None:
        at = name.lower().index(known)
        return display_name(f"{name[:at]}Phi 3{name[at + len(known) :]}", described)
    return name


# ------------------------------------------------------------------------------------------ reading
def sentencepiece_tokenizer(
    metadata: Mapping[str, Any], vocabulary: Mapping[str, int], kinds: Sequence[int]
) -> Tokenizer:
    """Return a BPE with the merges that the scores mean; no token is added to it yet.

    Args:
        metadata: The file's.
        vocabulary: The number of each token; V of them.
        kinds: What each is.

    Raises:
        CheckpointError: If there is no finite score for each token, a byte has no token, or a
            setting is malformed.
    """
    lost = next((byte for byte in _BYTES if byte not in vocabulary), None)
    if lost is not None:
        raise CheckpointError(
            "tokenizer.ggml.tokens",
            f"lacks the token {lost} of a byte, and some text needs it",
            _OTHER,
        )
    unknown = metadata.get("tokenizer.ggml.unknown_token_id")
    prefix = metadata.get(_PREFIX, True)
    if unknown is not None and (type(unknown) is not int or not 0 <= unknown < len(vocabulary)):
        raise CheckpointError(
            "tokenizer.ggml.unknown_token_id",
            f"is {str(unknown)[:60]}; there are {len(vocabulary)} tokens",
            _OTHER,
        )
    if not isinstance(prefix, bool):
        raise CheckpointError(_PREFIX, f"is {str(prefix)[:60]}; allowed: true or false", _OTHER)
    # The library joins by rank of merges, and a score says the same of the token that is made.
    merges = _merges(vocabulary, _scores(metadata, len(vocabulary)), kinds)
    unknown_token = None if unknown is None else list(vocabulary)[unknown]
    bpe = models.BPE(
        dict(vocabulary), merges, unk_token=unknown_token, fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(bpe)
    spaces = normalizers.Replace(" ", _SPACE)
    steps: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.normalizer = spaces
    if prefix:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces])
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def _scores(metadata: Mapping[str, Any], size: int) -> list[float]:
    scores = metadata.get(_SCORES)
    if not isinstance(scores, list) or len(scores) != size:
        found = f"is {str(scores)[:60]}"
        if isinstance(scores, list):
            found = f"has {len(scores)} entries"
        raise CheckpointError(_SCORES, f"{found}; there are {size} tokens", _OTHER)
    for number, score in enumerate(scores):
        if not isinstance(score, float | int) or not math.isfinite(score):
            raise CheckpointError(
                _SCORES, f"entry {number} is {str(score)[:60]}, no finite number", _OTHER
            )
    return scores


def _merges(
    vocabulary: Mapping[str, int], scores: Sequence[float], kinds: Sequence[int]
) -> list[tuple[str, str]]:
    """Return all pairs of tokens that make a token, those with the best scores first.

    Among the pairs of one token those with the longer left part come first: where the leftmost are
    joined first, a token has grown from its left end.
    """
    joined = {token: number for token, number in vocabulary.items() if kinds[number] not in _APART}
    return [
        (token[:at], token[at:])
        for token in sorted(joined, key=lambda token: -scores[joined[token]])
        for at in range(len(token) - 1, 0, -1)
        if token[:at] in joined and token[at:] in joined
    ]


# ------------------------------------------------------------------------------------------ writing
def sentencepiece_to_gguf(
    described: Mapping[str, Any], tokens: Sequence[str], kinds: Sequence[int]
) -> dict[str, Any]:
    """Return the metadata of a BPE that falls back to bytes: what its tokens are, and their scores.

    A token's score is minus the rank of the first merge that makes it. Whether that gives the same
    tokens is for the caller to try, on ``sentencepiece_texts``.

    Args:
        described: What tokenizer.json holds.
        tokens: Each number's token.
        kinds: What each is, before bytes and the unknown token are told apart.

    Raises:
        CheckpointError: If such files have no place for how it writes spaces, for a token that
            takes blanks, or for bytes without a token.
    """
    model = described["model"]
    numbers = {token: number for number, token in enumerate(tokens)}
    _refuse_blanks(described)
    prefix = _space_prefix(described)
    lost = next((byte for byte in _BYTES if byte not in model["vocab"]), None)
    if model.get("ignore_merges") or model.get("dropout") or lost is not None:
        what = "merges that it leaves out"
        if lost:
            what = f"no token for the byte {lost}"
        raise CheckpointError("processor", f"has {what}, for which GGUF has no place", _NO_PLACE)
    own = list(kinds)
    unknown = model["unk_token"]
    for byte in _BYTES:
        # llama.cpp falls back to tokens of this kind alone.
        own[numbers[byte]] = TokenKind.BYTE
    if unknown is not None:
        own[numbers[unknown]] = TokenKind.UNKNOWN
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault(left + right, rank)
    # What no merge makes is a single character, or whole: it is never joined.
    last = len(model["merges"])
    written = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.token_type": [int(kind) for kind in own],
        _SCORES: [-float(ranks.get(token, last)) for token in tokens],
        _PREFIX: prefix,
    }
    if unknown is not None:
        written["tokenizer.ggml.unknown_token_id"] = numbers[unknown]
    return written


def sentencepiece_texts(tokens: Sequence[str], kinds: Sequence[int]) -> list[str]:
    """Return texts to try a written tokenizer on: hard ones, and stretches of tokens, whole or
    without their heads."""
    words = (TokenKind.NORMAL, TokenKind.USER)
    pieces = [
        token.replace(_SPACE, " ")
        for token, kind in zip(tokens, kinds, strict=True)
        if kind in words
    ]
    if not pieces:
        return list(_HARD)
    # Strides over the vocabulary by the golden ratio, so that rare follows frequent.
    step = int(len(pieces) * 0.618) | 1
    taken = [pieces[number * step % len(pieces)] for number in range(_PIECES * _TEXTS)]
    texts = list(_HARD)
    for number in range(_TEXTS):
        row = taken[number * _PIECES : (number + 1) * _PIECES]
        texts.append("".join(piece[number % 2 :] for piece in row))
    return texts


def _refuse_blanks(described: Mapping[str, Any]) -> None:
    """Refuse tokens that take the blanks next to them, except for those of Phi-3, which llama.cpp
    knows."""
    takes = [
        each["content"] for each in described["added_tokens"] if each["lstrip"] or each["rstrip"]
    ]
    if takes and not _blanks_as_phi(described):
        raise CheckpointError(
            "processor",
            f"has special tokens that take the blanks next to them ({takes[0]}), for which GGUF has"
            " no place",
            _NO_PLACE,
        )


def _blanks_as_phi(described: Mapping[str, Any]) -> bool:
    """Return whether tokens take the blanks that those of Phi-3 do; llama.cpp opens no file without
    all of them."""
    added = described["added_tokens"]
    names = {each["content"] for each in added}
    takes = {each["content"] for each in added if each["rstrip"]}
    return (
        takes == names - set(_PHI_PLAIN)
        and {"</s>", *_PHI_PLAIN} <= names
        and not any(e["lstrip"] for e in added)
    )


def _space_prefix(described: Mapping[str, Any]) -> bool:
    """Return whether a space is put before each text, where a tokenizer writes spaces as such files
    mean it."""
    kept = [
        *_steps(described["normalizer"], "normalizers"),
        *_steps(described["pre_tokenizer"], "pretokenizers"),
    ]
    found = [_drop_old_keys(step) for step in kept]
    replaced = [{"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}]
    prepended = [{"type": "Prepend", "prepend": _SPACE}]
    never = [
        {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "never", "split": False}
    ]
    cut = [
        {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        }
    ]
    if found == prepended + replaced:
        return True
    if found in (replaced, replaced + cut, never):
        return False
    names = [f"{step['type']} {step.get('prepend_scheme', '')}".strip() for step in kept]
    raise CheckpointError(
        "processor",
        f"prepares text by {', '.join(names) or 'nothing'}; GGUF has a place for spaces as"
        f" {_SPACE!r}, with one before every text or none",
        _NO_PLACE,
    )


def _steps(part: Mapping[str, Any] | None, inner: str) -> list[Mapping[str, Any]]:
    if part is None:
        return []
    if part["type"] == "Sequence":
        return [step for each in part[inner] for step in _steps(each, inner)]
    return [part]


def _drop_old_keys(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step without what only older files say again."""
    return {key: value for key, value in step.items() if key not in ("add_prefix_space", "str_rep")}
