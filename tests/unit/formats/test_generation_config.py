"""generation_config.json: what ends a text, and how the next token is chosen by default."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from pretrained_folders import CHATML, random_model, recipe_for, transformers, write_tokenizer

import groundup
from groundup.cli.decoding import choose_decoding
from groundup.core.errors import CheckpointError
from groundup.formats.generation_config import (
    describe_generation,
    read_decoding,
    read_end_ids,
    read_first_token,
)
from groundup.processors.chat.template import ChatTemplate
from groundup.processors.text.tokenizer_json import TokenizerJSONConfig


def write(folder: Path, values: dict[str, Any], name: str = "generation_config.json") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"temperature": 0.6, "top_k": 20}, {}),  # nothing is drawn
        ({"do_sample": True}, {"temperature": 1.0}),
        ({"do_sample": True, "temperature": 0.6, "top_k": 20.0}, {"temperature": 0.6, "top_k": 20}),
        ({"do_sample": True, "top_k": 0, "top_p": 1.0, "min_p": None}, {"temperature": 1.0}),
        ({"do_sample": True, "temperature": 0, "top_p": 0.5}, {"temperature": 0}),
        ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
    ],
)
def test_what_is_chosen_by_default(
    values: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    write(tmp_path, values)
    assert read_decoding(tmp_path) == expected


def test_the_first_token(tmp_path: Path) -> None:
    assert read_first_token(tmp_path) is None
    write(tmp_path, {"forced_bos_token_id": 5}, "config.json")
    assert read_first_token(tmp_path) == 5
    write_tokenizer(tmp_path)
    write(tmp_path, {"forced_bos_token_id": 3}, "config.json")
    assert read_first_token(tmp_path) == "<|im_end|>"
    # config.json counts where there is no other file, as in transformers.
    write(tmp_path, {"eos_token_id": 1})
    assert read_first_token(tmp_path) is None
    write(tmp_path, {"forced_bos_token_id": [3]})
    with pytest.raises(CheckpointError) as caught:
        read_first_token(tmp_path)
    assert str(caught.value).endswith(
        "forced_bos_token_id is [3]; allowed: a token's number. Correct or remove it."
    )


def test_every_end_token(tmp_path: Path) -> None:
    assert read_end_ids(tmp_path) == ()
    write(tmp_path, {"eos_token_id": [7, -1]}, "config.json")
    assert read_end_ids(tmp_path) == (7,)
    write(tmp_path, {"eos_token_id": [3, 9, 3]})
    assert read_end_ids(tmp_path) == (3, 9)
    assert describe_generation(1, (3, 9), {"temperature": 0.6}) == {
        **{"bos_token_id": 1, "eos_token_id": [3, 9], "do_sample": True, "temperature": 0.6}
    }


@pytest.mark.parametrize(
    ("key", "value"), [("eos_token_id", "</s>"), ("top_p", 2), ("temperature", "hot")]
)
def test_values_that_mean_nothing(key: str, value: Any, tmp_path: Path) -> None:
    write(tmp_path, {"do_sample": True, key: value})
    read = read_end_ids if key == "eos_token_id" else read_decoding
    with pytest.raises(CheckpointError, match=f"generation_config.json: {key} is {value}; allowed"):
        read(tmp_path)


def test_an_answer_ends_with_each_of_them(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    write(tmp_path, {"eos_token_id": [1, 9]})
    files = TokenizerJSONConfig(path=str(tmp_path))
    processor = files.fit(lambda: iter(()))
    assert ChatTemplate(CHATML, processor).stop_ids == (3, 1, 9)
    processor.save(tmp_path / "saved")
    assert files.load(tmp_path / "saved").end_ids == (1, 9)


@pytest.mark.slow
def test_predicting_by_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = tmp_path / "base"
    write_tokenizer(base, template=None)
    module = random_model("llama2", vocab_size=320)
    module.save_pretrained(base)
    written = groundup.load(base)("the river", temperature=0, max_new_tokens=1)
    (first,) = groundup.load(base).processor.encode_batch([written])[0].tolist()
    values = {"eos_token_id": [1, first], "do_sample": True, "temperature": 0.6, "top_p": 0.9}
    write(base, values | {"num_beams": 2})
    caplog.set_level(logging.INFO, "groundup")
    predictor = groundup.load(base)
    assert "asks for what is not done here: num_beams 2; texts are written" in caplog.text
    # The likeliest token ends the text now, though it is not the first of the list.
    assert predictor("the river", temperature=0) == ""
    assert "".join(predictor.stream("the river", temperature=0)) == ""
    options = {"temperature": 0.6, "top_p": 0.9, "seed": 3}
    assert predictor("the river", seed=3) == predictor("the river", **options)
    assert choose_decoding(predictor, {"seed": 3}) == options
    assert "by generation_config.json of the weights: temperature 0.6, top_p 0.9" in caplog.text
    assert choose_decoding(predictor, {"temperature": 0}) == {"temperature": 0}
    run = groundup.train(recipe_for(tmp_path, "tuned"), runs=tmp_path)
    further = recipe_for(tmp_path, "further", init={"run": str(run.folder)}, model={})
    last = groundup.train(further, runs=tmp_path)
    assert groundup.load(last.folder).decoding == {"temperature": 0.6, "top_p": 0.9}
    theirs = transformers.GenerationConfig.from_pretrained(last.folder / "model")
    assert (theirs.eos_token_id, theirs.do_sample, theirs.top_p) == ([1, first], True, 0.9)
