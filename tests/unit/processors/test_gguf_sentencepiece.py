"""SentencePiece's BPE in GGUF metadata: scores instead of merges, spaces as marks, bytes, and the
way back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from ggufs import sentencepiece, small_model, tokenizer
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from groundup.formats.gguf import open_gguf
from groundup.processors.text.gguf_sentencepiece import display_name, sentencepiece_texts
from groundup.processors.text.tokenizer import TokenizerProcessor
from groundup.processors.text.tokenizer_json import TokenizerJSONConfig
from groundup.weights.gguf import read_gguf, save_gguf

G = "tokenizer.ggml."
SAMPLE = "  The import statement,\n\tnaïve 床前 🙂  and x == 'y'.\n"
METASPACE = pre_tokenizers.Metaspace("▁", "never", split=False)
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def joined(metadata: dict[str, Any], text: str) -> list[int]:
    """Join the neighbours with the best score, the leftmost first, until none are a token: as the
    files mean it."""
    tokens, scores, kinds = (metadata[G + key] for key in ("tokens", "scores", "token_type"))
    plain = {token: n for n, token in enumerate(tokens) if kinds[n] == 1}
    parts = list(text.replace(" ", "▁"))
    while pairs := [
        (-scores[plain[a + b]], n) for n, (a, b) in enumerate(pairwise(parts)) if a + b in plain
    ]:
        _, at = min(pairs)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    spelled = [
        [plain[part]] if part in plain else [7 + byte for byte in part.encode()] for part in parts
    ]
    return [number for each in spelled for number in each]


def changed(processor: TokenizerProcessor, **parts: Any) -> TokenizerProcessor:
    inner = Tokenizer.from_str(processor._tokenizer.to_str())
    for name, part in parts.items():
        setattr(inner, name, part)
    return TokenizerProcessor(
        inner, processor.end_token, processor.start_token, begin_token=processor.begin_token
    )


@pytest.mark.parametrize("prefix", [True, False])
def test_tokens_are_joined_by_their_scores(prefix: bool) -> None:
    metadata = sentencepiece(add_space_prefix=prefix)
    read = TokenizerJSONConfig.from_gguf(metadata)
    texts = [SAMPLE, *sentencepiece_texts(metadata[G + "tokens"], metadata[G + "token_type"])[:120]]
    for text, ours in zip(texts, read.encode_batch(texts), strict=True):
        assert ours.tolist() == joined(metadata, f" {text}" if prefix and text else text), text
        assert read.decode(ours.tolist()) == text.replace("▁", " ")
    assert (read.start_token, read.end_token, read.begin_token) == ("<s>", "</s>", "<s>")
    assert read._tokenizer.encode("a").tokens[0] == "<s>"


def test_what_a_file_does_not_say() -> None:
    read = TokenizerJSONConfig.from_gguf(sentencepiece(token_type=None, unknown_token_id=None))
    assert read.begin_token == "<s>"
    assert read.encode_batch(["a"])[0].tolist() == joined(sentencepiece(), " a")
    bare = TokenizerJSONConfig.from_gguf(sentencepiece(add_bos_token=False))
    assert (bare.begin_token, bare.begin_id) == (None, 2)


@pytest.mark.parametrize("prefix", [True, False])
def test_there_and_back(prefix: bool) -> None:
    metadata = sentencepiece(add_space_prefix=prefix)
    read = TokenizerJSONConfig.from_gguf(metadata)
    written = read.to_gguf(600, "small")
    assert {
        key: written[key]
        for key in metadata
        if key.split(".")[-1] not in ("tokens", "token_type", "scores")
    } == {
        key: value
        for key, value in metadata.items()
        if key.split(".")[-1] not in ("tokens", "token_type", "scores")
    }
    size = read.vocabulary_size
    assert written[G + "tokens"][:size] == metadata[G + "tokens"]
    assert written[G + "token_type"] == [*metadata[G + "token_type"], *[5] * (600 - size)]
    assert (written[G + "tokens"][599], written["general.name"]) == ("[PAD599]", "small")
    again = TokenizerJSONConfig.from_gguf(written)
    assert again.encode_batch([SAMPLE])[0].tolist() == read.encode_batch([SAMPLE])[0].tolist()
    if not prefix:
        gemma = pre_tokenizers.Split(" ", "merged_with_previous")
        assert changed(read, pre_tokenizer=gemma).to_gguf(600, "small") == written
        spaced = changed(read, normalizer=normalizers.Sequence([]), pre_tokenizer=METASPACE)
        assert spaced.to_gguf(600, "small") == written


def test_tokens_of_the_user_and_of_templates() -> None:
    metadata = sentencepiece()
    for key, value in (("tokens", "<tool>"), ("scores", -1000.0), ("token_type", 4)):
        metadata[G + key].append(value)
    read = TokenizerJSONConfig.from_gguf(metadata)
    number = read.vocabulary_size - 1
    encoded = read.encode_batch(["a<tool>a<|user|>"])[0].tolist()
    (a,) = [joined(sentencepiece(), " a")]
    assert encoded[: 2 * len(a) + 1] == [*a, number, *a]
    assert 3 not in encoded  # what a text spells is no special token
    assert read.to_gguf(1)[G + "token_type"][number] == 4
    assert read.with_chat_template("<s>" + CHAT).to_gguf(1)[G + "add_bos_token"] is True
    assert read.with_chat_template(CHAT).to_gguf(1)[G + "add_bos_token"] is False
    assert read.with_chat_template("{{ x.y.z }}").to_gguf(1)[G + "add_bos_token"] is True


def test_the_tokens_of_phi3_take_blanks_by_the_name_of_the_model() -> None:
    read = TokenizerJSONConfig.from_gguf(sentencepiece() | {"general.name": "Phi-3 mini"})
    assert set(read.stripping_tokens) == {"</s>", "<|user|>", "<|assistant|>", "<|end|>"}
    assert read.to_gguf(1, "mine")["general.name"] == "mine (Phi-3)"
    assert read.to_gguf(1)["general.name"] == "(Phi-3)"
    assert read.to_gguf(1, "my phi3")["general.name"] == "my phi3"
    plain = TokenizerJSONConfig.from_gguf(sentencepiece())
    assert display_name("Phi-3 like PHI3", plain.described()) == "Phi 3 like Phi 3"
    assert "general.name" not in tokenizer().to_gguf(300)


def test_a_model_with_such_a_tokenizer(tmp_path: Any) -> None:
    read = TokenizerJSONConfig.from_gguf(sentencepiece())
    config, weights = small_model("llama", read.vocabulary_size)
    save_gguf(tmp_path / "a.gguf", config, weights, read, "F32", "small")
    assert open_gguf(tmp_path / "a.gguf").metadata["general.name"] == "small"
    settings, _, again = read_gguf(tmp_path / "a.gguf")
    assert isinstance(again, TokenizerProcessor)
    assert settings["vocabulary_size"] == read.vocabulary_size
    assert again.encode_batch([SAMPLE])[0].tolist() == read.encode_batch([SAMPLE])[0].tolist()
