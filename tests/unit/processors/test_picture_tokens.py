"""Texts and pictures in one vocabulary, and the autoencoder that travels with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from picture_runs import captioned_digits, picture_tokens

from groundup.core.errors import DataError
from groundup.processors.picture_tokens import PictureTokens
from groundup.processors.text.bytes import BytesConfig
from groundup.runs.processor import load_processor


@pytest.fixture(scope="module")
def processor() -> PictureTokens:
    return picture_tokens()


def test_pictures_come_after_texts(processor: PictureTokens) -> None:
    texts = processor.tokenizer.vocabulary_size
    assert processor.picture_id == texts
    assert processor.vocabulary_size == texts + 1 + 12
    assert processor.picture_length == 4
    assert processor.token_bytes()[texts:].tolist() == [0] * 13
    assert len(processor.continuations()) == processor.vocabulary_size
    digits = [each.inputs for each in captioned_digits(3)]
    tokens = processor.encode_pictures(digits)
    assert tokens.shape == (3, 4)
    assert tokens.min() > texts
    assert tokens.max() < processor.vocabulary_size
    assert processor.encode_pictures([]).shape == (0, 4)
    drawn = processor.draw(tokens)
    assert drawn.shape == (3, 8, 8)
    assert drawn.dtype == np.uint8


def test_texts_are_those_of_the_tokenizer(processor: PictureTokens) -> None:
    (text,) = processor.encode_batch(["a nine, written"])
    assert text.tolist() == processor.tokenizer.encode_batch(["a nine, written"])[0].tolist()
    mixed = [*text.tolist(), processor.picture_id, processor.picture_id + 3, processor.end_id]
    assert processor.decode(mixed) == "a nine, written"
    shown = processor.decode(mixed, keep_special=True)
    assert shown.startswith("a nine, written<|picture|>")
    assert processor.special_id("<|picture|>") == processor.picture_id
    # A text that spells it stays a text.
    spelt = processor.encode_batch(["<|picture|>"])[0]
    assert spelt.max() < processor.picture_id


def test_it_is_saved_with_its_autoencoder(processor: PictureTokens, tmp_path: Path) -> None:
    processor.save(tmp_path)
    again = load_processor(tmp_path)
    assert isinstance(again, PictureTokens)
    digits = [each.inputs for each in captioned_digits(4)]
    tokens = processor.encode_pictures(digits)
    assert torch.equal(again.encode_pictures(digits), tokens)
    assert np.array_equal(again.draw(tokens), processor.draw(tokens))
    assert again.vocabulary_size == processor.vocabulary_size
    assert again.special_tokens == processor.special_tokens


def test_damaged_files_are_named(processor: PictureTokens, tmp_path: Path) -> None:
    processor.save(tmp_path)
    weights = tmp_path / "autoencoder.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:40])
    with pytest.raises(DataError, match=r"autoencoder\.safetensors: is missing or damaged"):
        load_processor(tmp_path)
    weights.unlink()
    with pytest.raises(DataError, match=r"autoencoder\.safetensors: is missing or damaged"):
        load_processor(tmp_path)
    weights.write_bytes(whole)
    BytesConfig().fit(lambda: iter(())).save(tmp_path / "pictures")
    with pytest.raises(DataError, match="names no tokenizer and reader of pictures"):
        load_processor(tmp_path)
    (tmp_path / "processor.json").write_text('{"name": "picture_tokens"}')
    with pytest.raises(DataError, match=r"processor\.json: is damaged: KeyError"):
        load_processor(tmp_path)


def test_tokens_that_are_no_picture_are_refused(processor: PictureTokens) -> None:
    with pytest.raises(DataError, match=r"have shape \(1, 3\); allowed: \(pictures, 4\)"):
        processor.draw(torch.full((1, 3), processor.picture_id + 1))
    with pytest.raises(DataError, match="has the code -1; allowed: 0 to 11"):
        processor.draw(torch.full((1, 4), processor.picture_id))
    with pytest.raises(DataError, match="has the code 12; allowed: 0 to 11"):
        processor.draw(torch.full((1, 4), processor.vocabulary_size))
