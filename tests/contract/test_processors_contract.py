"""What holds for every registered text processor."""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from groundup.contracts.processors import ProcessorConfig, TextProcessor
from groundup.core.registry import lookup, names
from groundup.core.values import Example
from groundup.processors.text.special_tokens import SPECIAL_TOKENS
from groundup.processors.text.stream_decoder import StreamDecoder
from groundup.runs.processor import load_processor
from groundup.testing import check_processor
from groundup.testing.processors import TEXTS

DOCUMENTS = [text for _, text in sorted(pydoc_data.topics.topics.items())][:12]
BUILT_IN = ["bpe", "bytes", "characters", "tokenizer_json"]


def _texts() -> Iterator[str]:
    return iter([*DOCUMENTS, "床前明月光"])


def settings_of(name: str, folder: Path) -> ProcessorConfig:
    """Return the settings of a processor, small, with the file that it may read."""
    settings: dict[str, Any] = {"bpe": {"vocab_size": 600}}.get(name, {})
    if name == "tokenizer_json":
        lookup("processor", "bpe")(vocab_size=400).fit(_texts).save(folder)
        settings = {"path": str(folder / "tokenizer.json")}
    elif name == "characters":
        settings = {"min_count": 2}
    return lookup("processor", name)(**settings)  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=BUILT_IN)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def processor(name: str, tmp_path_factory: pytest.TempPathFactory) -> TextProcessor:
    found: Any = settings_of(name, tmp_path_factory.mktemp("foreign")).fit(_texts)
    return found  # type: ignore[no-any-return]


def test_every_built_in_processor_is_here() -> None:
    assert set(BUILT_IN) <= set(names("processor"))


def test_contract(name: str, tmp_path: Path) -> None:
    check_processor(settings_of(name, tmp_path), [*DOCUMENTS, *TEXTS])


def test_contract_of_two_tokenizers() -> None:
    settings = lookup("processor", "two_tokenizers")(
        source={"name": "bpe", "vocab_size": 400}, target={"name": "characters"}
    )
    examples = [Example(str(n), text, TEXTS[0], predicts_text=True) for n, text in enumerate(TEXTS)]
    check_processor(settings, examples)


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


def test_what_is_read_again_is_written_alike(processor: TextProcessor, tmp_path: Path) -> None:
    processor.save(tmp_path)
    load_processor(tmp_path).save(tmp_path / "again")
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
