"""Pictures and their captions by one processor: saved, cut, and what training never had."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from picture_runs import captioned_digits, from_captions_run
from tiny_runs import tiny_run

from groundup import api
from groundup.core.errors import DataError
from groundup.processors.captioned_pictures import CaptionedPictures, CaptionedPicturesConfig
from groundup.runs.processor import load_processor
from groundup.testing import check_processor


def fitted(**settings: object) -> CaptionedPictures:
    config = CaptionedPicturesConfig(tokenizer={"name": "characters"}, **settings)  # type: ignore[arg-type]
    return config.fit(lambda: iter(captioned_digits()))


def test_contract() -> None:
    config = CaptionedPicturesConfig(tokenizer={"name": "characters"})
    check_processor(config, captioned_digits())


def test_captions_are_saved_and_cut(tmp_path: Path) -> None:
    processor = fitted(max_tokens=10)
    processor.save(tmp_path)
    again = load_processor(tmp_path)
    assert isinstance(again, CaptionedPictures)
    for each in (processor, again):
        read = each.encode_captions(["a seven, written by hand", "", "  ", "a one"])
        assert read["text"].shape == (4, 10)
        assert read["text_lengths"].tolist() == [10, 0, 0, 5]
        (note,) = each.cut.notes()
        assert note.startswith("1 of 4 texts are longer than max_tokens 10 and cut")
    assert again.seen == processor.seen
    assert again.input_shape == (1, 8, 8)


def test_what_a_prompt_asks_that_training_never_had() -> None:
    processor = fitted(max_tokens=10)
    assert processor.check_prompt("a seven") == ""
    assert processor.check_prompt("a 7") == "'7'"
    with pytest.raises(DataError, match="has 24 tokens, but the run reads up to 10 of a text"):
        processor.check_prompt("a seven, written by hand")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_captions_as_the_states_of_a_trained_encoder(name: str, tmp_path: Path) -> None:
    base = api.train(tiny_run(name, tmp_path), {"training.steps": 1}, runs=tmp_path).folder
    recipe = from_captions_run(tmp_path)
    del recipe["processor"]["tokenizer"]
    recipe["processor"] |= {"encoder": str(base), "max_tokens": 12}
    recipe["name"] = "frozen"
    run = api.train(recipe, {"training.steps": 2}, runs=tmp_path)
    shutil.rmtree(base)  # the run is whole without it
    predictor = api.load(run.folder)
    processor = predictor.processor
    assert isinstance(processor, CaptionedPictures)
    together = processor.encode_captions(["a seven", "a", ""])
    alone = processor.encode_captions(["a"])
    assert together["text_states"].shape[2] == 16
    torch.testing.assert_close(together["text_states"][1, :1], alone["text_states"][0])
    assert not together["text_states"][1, 1:].any()
    assert together["text_lengths"].tolist()[2] == 0
    assert predictor("a seven").pixels.shape == (8, 8)
