"""What holds for every registered text processor."""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from groundup.contracts.processors import TextProcessor
from groundup.core.registry import lookup, names
from groundup.processors.text.special_tokens import SPECIAL_TOKENS
from groundup.processors.text.stream_decoder import StreamDecoder
from groundup.runs.processor import load_processor

DOCUMENTS = [text for _, text in sorted(pydoc_data.topics.topics.items())][:12]
TEXTS = [
    *DOCUMENTS[:3],
    "",
    " ",
    "\n\n  indented\tand trailing  \n",
    "床前明月光,疑是地上霜。",
    "👩‍👩‍👧 naïve 🏳️‍🌈 e\u0301 \u200b\ufeff\ufffd \U0010ffff \x00 \r\n",
    "123456789 3.14159",
    "<|end|>\n<|assistant|>hi <|endoftext|><|user|>",
    "<0x41> ▁ Ġ",
]
BUILT_IN = ["bpe", "bytes", "characters", "tokenizer_json"]


def _texts() -> Iterator[str]:
    return iter([*DOCUMENTS, "床前明月光"])


@pytest.fixture(scope="module", params=BUILT_IN)
def processor(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> TextProcessor:
    settings = {"bpe": {"vocab_size": 600}, "characters": {"min_count": 2}}.get(request.param, {})
    if request.param == "tokenizer_json":
        folder = tmp_path_factory.mktemp("foreign")
        lookup("processor", "bpe")(vocab_size=400).fit(_texts).save(folder)
        settings = {"path": str(folder / "tokenizer.json")}
    found: TextProcessor = lookup("processor", request.param)(**settings).fit(_texts)
    return found


def test_every_built_in_processor_is_here() -> None:
    assert set(BUILT_IN) <= set(names("processor"))


def test_is_a_text_processor(processor: TextProcessor) -> None:
    assert isinstance(processor, TextProcessor)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:12]))
def test_decoding_gives_back_the_text(processor: TextProcessor, text: str) -> None:
    (tokens,) = processor.encode_batch([text])
    assert tokens.dtype == np.int32
    assert tokens.ndim == 1
    assert processor.decode(tokens.tolist()) == text


def test_a_batch_equals_its_texts_one_by_one(processor: TextProcessor) -> None:
    together = processor.encode_batch(TEXTS)
    assert [t.tolist() for t in together] == [
        processor.encode_batch([text])[0].tolist() for text in TEXTS
    ]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:12]))
def test_token_bytes_sum_to_the_bytes_of_the_text(processor: TextProcessor, text: str) -> None:
    sizes = processor.token_bytes()
    assert sizes.shape == (processor.vocabulary_size,)
    assert sizes[processor.encode_batch([text])[0]].sum() == len(text.encode())


def test_special_tokens_have_ids_and_no_bytes(processor: TextProcessor) -> None:
    ids = [processor.special_id(token) for token in SPECIAL_TOKENS]
    assert len(set(ids)) == len(SPECIAL_TOKENS)
    for token, index in zip(SPECIAL_TOKENS, ids, strict=True):
        assert index is not None
        assert 0 <= index < processor.vocabulary_size
        assert processor.token_bytes()[index] == 0
        assert processor.decode([index]) == ""
        assert processor.decode([index], keep_special=True) == token
    assert processor.end_id == processor.special_id("<|endoftext|>")
    assert processor.special_id("<|nothing|>") is None
    assert processor.special_id("a") is None


def test_a_text_that_spells_special_tokens_stays_text(processor: TextProcessor) -> None:
    special = {processor.special_id(token) for token in SPECIAL_TOKENS}
    for text in ("".join(SPECIAL_TOKENS), "a <|end|> b", "<|end|>"):
        assert not special & set(processor.encode_batch([text])[0].tolist())


def test_saved_and_loaded_it_is_the_same(processor: TextProcessor, tmp_path: Path) -> None:
    processor.save(tmp_path)
    loaded = load_processor(tmp_path)
    assert type(loaded) is type(processor)
    assert (loaded.vocabulary_size, loaded.end_id) == (processor.vocabulary_size, processor.end_id)
    assert loaded.chat_template is None
    for ours, theirs in zip(processor.encode_batch(TEXTS), loaded.encode_batch(TEXTS), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(processor.token_bytes(), loaded.token_bytes())
    loaded.save(tmp_path / "again")
    for path in tmp_path.glob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_the_saved_folder_opens_with_the_tokenizers_library(
    processor: TextProcessor, tmp_path: Path
) -> None:
    processor.save(tmp_path)
    library = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    library.encode_special_tokens = True
    assert library.get_vocab_size() == processor.vocabulary_size
    for text, tokens in zip(TEXTS, processor.encode_batch(TEXTS), strict=True):
        assert library.encode(text).ids == tokens.tolist()
        assert library.decode(tokens.tolist()) == text


def test_a_chat_template_travels_with_it(processor: TextProcessor, tmp_path: Path) -> None:
    source = "{{ messages[0].content }}\r\n好\n"
    processor.with_chat_template(source).save(tmp_path)  # type: ignore[attr-defined]
    assert load_processor(tmp_path).chat_template == source
    processor.save(tmp_path)
    assert load_processor(tmp_path).chat_template is None


def test_streaming_gives_whole_characters_and_all_of_the_text(processor: TextProcessor) -> None:
    for text in TEXTS:
        decoder = StreamDecoder(processor)
        parts = [decoder.push(token) for token in processor.encode_batch([text])[0]]
        assert "\ufffd" not in "".join(parts) or "\ufffd" in text
        assert "".join(parts) + decoder.flush() == text


def test_streaming_any_tokens_equals_decoding_them(processor: TextProcessor) -> None:
    draws = np.random.default_rng(0)
    for _ in range(20):
        tokens = draws.integers(0, min(300, processor.vocabulary_size), 60).tolist()
        decoder = StreamDecoder(processor)
        assert "".join(map(decoder.push, tokens)) + decoder.flush() == processor.decode(tokens)
