"""Tokenizers that a GGUF file does not hold, or that have no place in one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ggufs import sentencepiece, tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from groundup.core.errors import CheckpointError
from groundup.processors.text.tokenizer import TokenizerProcessor
from groundup.processors.text.tokenizer_json import TokenizerJSONConfig


def _odd(**parts: Any) -> TokenizerProcessor:
    inner = Tokenizer.from_str(tokenizer()._tokenizer.to_str())
    for name, part in parts.items():
        setattr(inner, name, part)
    return TokenizerProcessor(inner, "<|endoftext|>", None)


@pytest.mark.slow
def test_tokenizers_that_have_no_place_in_a_file() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "<|endoftext|>": 1}, "a"))
    cases = (
        (
            TokenizerProcessor(words, "<|endoftext|>", None),
            "processor: a WordLevel tokenizer is no byte-level BPE",
        ),
        (_odd(decoder=decoders.Fuse()), "processor: a BPE tokenizer is no byte-level BPE"),
        (
            _odd(pre_tokenizer=pre_tokenizers.Whitespace()),
            "splits text by Whitespace, normalised by None, which has no",
        ),
        (
            _odd(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)),
            "splits text by ByteLevel, normalised",
        ),
        (_odd(normalizer=normalizers.NFKC()), "normalised by NFKC, which has no name in GGUF"),
        (_odd(normalizer=normalizers.NFC()), "normalised by NFC, which has no name in GGUF"),
    )
    for processor, message in cases:
        with pytest.raises(CheckpointError, match=message):
            processor.to_gguf(320)


SENTENCEPIECE: list[tuple[dict[str, Any], str]] = [
    (
        {"scores": None},
        r"tokenizer\.ggml\.scores: is None; there are \d+ tokens\. Use another file",
    ),
    ({"scores": [0.5, 1]}, r"tokenizer\.ggml\.scores: has 2 entries; there are \d+ tokens"),
    (
        {"scores": [float("nan")] * 563},
        r"tokenizer\.ggml\.scores: entry 0 is nan, no finite number",
    ),
    ({"scores": ["a"] * 563}, r"tokenizer\.ggml\.scores: entry 0 is a, no finite number"),
    ({"tokens": ["<unk>", "<0x00>"]}, r"tokenizer\.ggml\.tokens: lacks the token <0x01> of a byte"),
    ({"tokens": ["a", "a"]}, r"tokenizer\.ggml\.tokens: has the token 'a' twice"),
    ({"token_type": [1]}, r"tokenizer\.ggml\.token_type: has 1 entries for"),
    (
        {"unknown_token_id": 9999},
        r"tokenizer\.ggml\.unknown_token_id: is 9999; there are \d+ tokens",
    ),
    ({"add_space_prefix": 1}, r"tokenizer\.ggml\.add_space_prefix: is 1; allowed: true or false"),
    ({"eos_token_id": None}, r"eos_token_id: is missing"),
]


@pytest.mark.parametrize(("change", "message"), SENTENCEPIECE)
def test_sentencepiece_tokenizers_that_are_not_read(change: dict[str, Any], message: str) -> None:
    metadata = sentencepiece(**change)
    if "tokens" in change:
        metadata["tokenizer.ggml.token_type"] = [1] * len(change["tokens"])
    with pytest.raises(CheckpointError, match=message):
        TokenizerJSONConfig.from_gguf(metadata)


def _described_otherwise(change: Callable[[dict[str, Any]], Any]) -> TokenizerProcessor:
    described = TokenizerJSONConfig.from_gguf(sentencepiece()).described()
    change(described)
    return TokenizerProcessor(Tokenizer.from_str(json.dumps(described)), "</s>", "<s>")


def _without_a_byte(described: dict[str, Any]) -> None:
    del described["model"]["vocab"]["<0x41>"]


PLACELESS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (
        lambda d: d["model"]["merges"].__delitem__(slice(None, None, 2)),
        "joins tokens in an order that no scores of tokens give: '.*' is read",
    ),
    (
        lambda d: d["model"].update(byte_fallback=False),
        "a BPE tokenizer is no byte-level BPE, and no BPE that falls",
    ),
    (
        lambda d: d["model"].update(ignore_merges=True),
        "has merges that it leaves out, for which GGUF has no place",
    ),
    (_without_a_byte, "has no token for the byte <0x41>, for which GGUF has no place"),
    (
        lambda d: d["added_tokens"][3].update(rstrip=True),
        r"take the blanks next to them \(<\|user\|>\), for which GGUF",
    ),
    (
        lambda d: d.update(
            normalizer=None, pre_tokenizer=json.loads(pre_tokenizers.Metaspace().__getstate__())
        ),
        (
            "prepares text by Metaspace always; GGUF has a place for spaces as '▁', with one before"
            " every text or none"
        ),
    ),
    (lambda d: d.update(normalizer=None), "prepares text by nothing; GGUF has a place for spaces"),
]


@pytest.mark.parametrize(("change", "message"), PLACELESS)
def test_sentencepiece_tokenizers_that_have_no_place(
    change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=rf"processor: .*{message}"):
        _described_otherwise(change).to_gguf(600)
