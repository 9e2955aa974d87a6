"""How a folder of `sentence-transformers` makes vectors of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import CheckpointError
from groundup.formats.sentence_transformers import describe_modules, read_left_out, read_pooling
from groundup.tasks.sentence_embedding import SentenceEmbedding


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("pooling", ["mean", "first", "max", "last", "weighted_mean"])
def test_what_is_written_is_read(tmp_path: Path, pooling: Any) -> None:
    files = SentenceEmbedding(pooling=pooling, max_tokens=64).model_files({"hidden_size": 12}, None)
    write(tmp_path, files)
    assert read_pooling(tmp_path) == pooling
    assert read_left_out(tmp_path) == []
    assert files["1_Pooling/config.json"]["word_embedding_dimension"] == 12
    assert files["sentence_bert_config.json"]["max_seq_length"] == 64
    found = {"pooling": pooling, "max_tokens": 64}
    assert SentenceEmbedding.settings_in(tmp_path, {}) == found
    assert SentenceEmbedding.settings_in(tmp_path, {"pooling": "max", "max_tokens": 9}) == {}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean"),
        ({"pooling_mode": "lasttoken", "embedding_dimension": 8}, "last"),
        ({"pooling_mode": ["cls"]}, "first"),
        ({"word_embedding_dimension": 8}, "mean"),
    ],
)
def test_older_and_newer_files(tmp_path: Path, values: dict[str, Any], expected: str) -> None:
    assert read_pooling(write(tmp_path, {"1_Pooling/config.json": values})) == expected


def test_a_folder_that_says_nothing(tmp_path: Path) -> None:
    assert read_pooling(tmp_path) is None
    assert SentenceEmbedding.settings_in(tmp_path, {}) == {}
    assert SentenceEmbedding(pooling="first").differences(tmp_path) == []


@pytest.mark.parametrize(
    "values",
    [
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode_of_tomorrow": True},
        {"pooling_mode": ["mean", "max"]},
        {"pooling_mode": "attention"},
    ],
)
def test_poolings_that_are_not_built(tmp_path: Path, values: dict[str, Any]) -> None:
    write(tmp_path, {"1_Pooling/config.json": values})
    with pytest.raises(CheckpointError, match=r"makes vectors by .*; allowed: one of mean, cls,"):
        SentenceEmbedding.settings_in(tmp_path, {})
    # The remedy: the recipe says what comes next to it, and the difference is told.
    assert SentenceEmbedding.settings_in(tmp_path, {"pooling": "mean"}) == {}
    assert "task.pooling is mean" in SentenceEmbedding().differences(tmp_path)[0]


@pytest.mark.parametrize("length", [2, "long", 4.5])
def test_a_length_that_is_none(tmp_path: Path, length: Any) -> None:
    write(tmp_path, {"sentence_bert_config.json": {"max_seq_length": length}})
    with pytest.raises(CheckpointError, match=rf"max_seq_length is {length}; allowed: a whole"):
        SentenceEmbedding.settings_in(tmp_path, {})
    assert SentenceEmbedding.settings_in(tmp_path, {"max_tokens": 8}) == {}


def test_keys_of_pooling_that_are_not_known(tmp_path: Path) -> None:
    write(tmp_path, {"1_Pooling/config.json": {"layer_weights": [1, 2], "include_prompt": True}})
    with pytest.raises(CheckpointError, match=r"keys that are not known here: layer_weights\. Set"):
        SentenceEmbedding.settings_in(tmp_path, {})
    assert SentenceEmbedding.settings_in(tmp_path, {"pooling": "mean"}) == {}


def test_vectors_that_had_any_length(tmp_path: Path) -> None:
    files = describe_modules("mean", 8, 32)
    del files["modules.json"][2]
    lower = {"max_seq_length": 32, "do_lower_case": True}
    write(tmp_path, files | {"sentence_bert_config.json": lower})
    length, case = read_left_out(tmp_path)
    assert "has no Normalize, but vectors have length 1 here" in length
    assert case.endswith("do_lower_case: texts are read as the tokenizer reads them")


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    files = describe_modules("first", 8, 32)
    files["modules.json"].append({"idx": 3, "path": "2_Dense", "type": "x.models.Dense"})
    prompts = {"prompts": {"query": "query: ", "passage": ""}, "default_prompt_name": "query"}
    write(tmp_path, files | {"config_sentence_transformers.json": prompts})
    dense, prompt, pooling = SentenceEmbedding().differences(tmp_path)
    assert "2_Dense (Dense) is left out: vectors are those that come before it" in dense
    assert "prompts (by default query) are not put in front of texts: query 'query: '" in prompt
    assert "task.pooling is mean, and" in pooling
    assert pooling.endswith("was trained with first")


@pytest.mark.parametrize("content", [3, {"a": 1}, [{"type": 3}], [[]]])
def test_a_damaged_list_of_modules(tmp_path: Path, content: Any) -> None:
    write(tmp_path, {"modules.json": content})
    with pytest.raises(CheckpointError, match=r"modules\.json: holds no list of modules"):
        read_pooling(tmp_path)
