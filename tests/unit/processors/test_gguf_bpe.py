"""Tokenizers in GGUF metadata: how text is split by name, special tokens, and the way back."""

from __future__ import annotations

from typing import Any

import pytest
from ggufs import tokenizer
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from groundup.processors.text.gguf_bpe import SPLITS
from groundup.processors.text.special_tokens import END_OF_TEXT
from groundup.processors.text.tokenizer import TokenizerProcessor
from groundup.processors.text.tokenizer_json import TokenizerJSONConfig

LATER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
SAMPLE = "It's  DON'T a1234567+²½ x...\n\n\t yes! 床前, e\u0301 <|user|>  "


def _later(digits: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(LATER.replace("{1,3}", digits)), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])


BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)
PUBLISHED = {  # as the models' own tokenizer.json have it
    "gpt-2": BYTE_LEVEL,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL]),
    "llama-bpe": _later("{1,3}"),
    "qwen2": _later(""),
}


def _changed(pre: pre_tokenizers.PreTokenizer, normalizer: Any = None) -> TokenizerProcessor:
    inner = Tokenizer.from_str(tokenizer()._tokenizer.to_str())
    inner.pre_tokenizer = pre
    if normalizer is not None:
        inner.normalizer = normalizer
    return TokenizerProcessor(inner, END_OF_TEXT, None)


def _split(metadata: dict[str, Any], text: str) -> list[str]:
    inner = TokenizerJSONConfig.from_gguf(metadata)._tokenizer
    assert inner.pre_tokenizer is not None
    return [text[start:stop] for _, (start, stop) in inner.pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_splits_of_published_tokenizers_have_names(name: str) -> None:
    normalizer = normalizers.NFC() if name == "qwen2" else None
    processor = _changed(PUBLISHED[name], normalizer)
    written = processor.to_gguf(300)
    assert written["tokenizer.ggml.pre"] == name
    read = TokenizerJSONConfig.from_gguf(written)
    assert read.encode_batch([SAMPLE])[0].tolist() == processor.encode_batch([SAMPLE])[0].tolist()
    expected = [SAMPLE[start:stop] for _, (start, stop) in PUBLISHED[name].pre_tokenize_str(SAMPLE)]
    assert _split(written, SAMPLE) == expected


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("gpt-2", ["I", "'m", " ab", " 12345", "...!", "  ", "\n", "x"]),
        ("smollm", ["I", "'m", " ab", " ", "1", "2", "3", "4", "5", "...!", "  ", "\n", "x"]),
        ("llama-bpe", ["I", "'m", " ab", " ", "123", "45", "...!", "  \n", "x"]),
        ("llama3", ["I", "'m", " ab", " ", "123", "45", "...!", "  \n", "x"]),
        ("qwen2", ["I", "'m", " ab", " ", "1", "2", "3", "4", "5", "...!", "  \n", "x"]),
        ("default", ["I", "'", "m", " ab", " ", "123", "45", "...!", "  ", "\n", "x"]),
    ],
)
def test_how_each_name_splits(name: str, pieces: list[str]) -> None:
    written = tokenizer().to_gguf(300) | {"tokenizer.ggml.pre": name}
    assert _split(written, "I'm ab 12345...!  \nx") == pieces
    assert set(SPLITS) <= {"gpt-2", "smollm", "llama-bpe", "qwen2", "default"}


def test_a_file_that_names_no_split_has_the_default_one() -> None:
    written = tokenizer().to_gguf(300)
    del written["tokenizer.ggml.pre"], written["tokenizer.ggml.token_type"]
    assert _split(written, "a'm") == ["a", "'", "m"]


def test_special_tokens_and_tokens_of_the_user() -> None:
    written = tokenizer().to_gguf(310)
    tokens, kinds = written["tokenizer.ggml.tokens"], list(written["tokenizer.ggml.token_type"])
    assert (len(tokens), tokens[305], kinds[305]) == (310, "[PAD305]", 5)
    tokens[305], kinds[305] = "<tool_call>", 4
    read = TokenizerJSONConfig.from_gguf(written | {"tokenizer.ggml.token_type": kinds})
    assert (read.vocabulary_size, read.special_tokens) == (310, tokenizer().special_tokens)
    encoded = read.encode_batch(["a<tool_call><|user|>"])[0].tolist()
    assert encoded[1] == 305
    assert len(encoded) > 4  # what a text spells is no special token
    assert read.decode(encoded) == "a<tool_call><|user|>"
    again = read.to_gguf(310)
    plain = [
        1 if kind == 5 else kind for kind in kinds
    ]  # a token without a text is one that no text holds
    assert again == written | {"tokenizer.ggml.token_type": plain}


def test_end_and_start_tokens() -> None:
    written = tokenizer().to_gguf(300)
    assert written["tokenizer.ggml.add_bos_token"] is True
    templated = tokenizer().with_chat_template("x").to_gguf(300)
    assert (templated["tokenizer.ggml.add_bos_token"], templated["tokenizer.chat_template"]) == (
        False,
        "x",
    )
    read = TokenizerJSONConfig.from_gguf(
        written | {"tokenizer.ggml.eos_token_id": 5, "tokenizer.ggml.bos_token_id": 1}
    )
    assert (read.end_token, read.end_id, read.start_token) == ("<|end|>", 5, "<|system|>")
    del written["tokenizer.ggml.bos_token_id"]
    assert TokenizerJSONConfig.from_gguf(written).start_token is None
