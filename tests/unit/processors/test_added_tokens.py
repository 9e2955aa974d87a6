"""Tokens that tokenizer.json lacks and other files name have the numbers that transformers gives."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from pretrained_folders import transformers, write_tokenizer

from groundup.processors.text.tokenizer_json import TokenizerJSONConfig

pytestmark = pytest.mark.xdist_group("transformers")

SPECIAL = {"special": True, "lstrip": False, "rstrip": True, "normalized": False}
FILES: dict[str, dict[str, Any]] = {
    "added_tokens.json": {"added_tokens.json": {"<new>": 320, "<other>": 321}},
    "a map": {"special_tokens_map.json": {"additional_special_tokens": ["<new>", "<other>"]}},
    "a pad": {"special_tokens_map.json": {"pad_token": {"content": "<new>", **SPECIAL}}},
    "numbered": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {"320": {"content": "<new>", **SPECIAL, "single_word": False}}
        }
    },
    "with a gap": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {"330": {"content": "<new>", **SPECIAL, "single_word": False}}
        }
    },
    "additional": {"tokenizer_config.json": {"additional_special_tokens": ["<new>", "<other>"]}},
    "extra": {"tokenizer_config.json": {"extra_special_tokens": {"image_token": "<new>"}}},
}


def write(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({"vocab_size": 400, "model_type": "llama"}))
    for name, content in files.items():
        path = folder / name
        before = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**before, **content}))


@pytest.mark.slow
@pytest.mark.parametrize("case", FILES)
def test_the_same_numbers(case: str, tmp_path: Path) -> None:
    write(tmp_path, FILES[case])
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = TokenizerJSONConfig(path=str(tmp_path)).fit(lambda: iter(()))
    assert ours.vocabulary_size == len(theirs)
    known = theirs.get_vocab()
    vocabulary = {entry["content"]: entry["id"] for entry in ours.described()["added_tokens"]}
    for token in ("<new>", "<other>"):
        assert vocabulary.get(token) == known.get(token)


def test_what_the_model_has_no_row_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, FILES["added_tokens.json"])
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 321}))
    with caplog.at_level(logging.WARNING, logger="groundup"):
        ours = TokenizerJSONConfig(path=str(tmp_path)).fit(lambda: iter(()))
    assert ours.vocabulary_size == 321
    assert caplog.messages == [
        f"{tmp_path}: the model has no row for token <other>: it is left out"
    ]


def test_special_tokens_map_names_ends_and_starts(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 9}))
    named = {"eos_token": {"content": "<|im_end|>"}, "bos_token": "<s>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(named))
    found = TokenizerJSONConfig(path=str(tmp_path)).fit(lambda: iter(()))
    assert (found.end_token, found.start_token) == ("<|im_end|>", "<s>")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.eos_token, theirs.bos_token) == ("<|im_end|>", "<s>")
