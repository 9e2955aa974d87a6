"""Every message about encoder-decoders that the model ``hub`` opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_encoder_decoders import recipe_from, write_encoder_decoder
from tiny_families import tiny_config

import groundup
from groundup.core.errors import CheckpointError, DataError, RecipeError
from groundup.export.ctranslate2 import write_folder
from groundup.models.hub.config import HubConfig

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("transformers")]


def config_of(family: str, **changed: Any) -> dict[str, Any]:
    found: dict[str, Any] = tiny_config(family, **changed).to_dict()
    return found


def test_nobody_says_how_outputs_begin(tmp_path: Path) -> None:
    write_encoder_decoder("mbart", tmp_path / "base")
    for name in ("config.json", "generation_config.json"):
        path = tmp_path / "base" / name
        values = json.loads(path.read_text())
        values.pop("decoder_start_token_id", None)
        path.write_text(json.dumps(values))
    recipe = recipe_from(tmp_path)
    with pytest.raises(RecipeError) as caught:
        groundup.trainer(recipe, runs=tmp_path / "runs")
    assert str(caught.value) == (
        "recipe.model.start_id: is not given, and config.json has no decoder_start_token_id. Set it"
        " to the token that comes before every output, often the end token."
    )
    recipe["model"] |= {"start_id": 2}
    trainer = groundup.trainer(recipe, runs=tmp_path / "runs")
    assert trainer.model.start_id == 2
    trainer.close()
    with pytest.raises(RecipeError, match=r"start_id: is 320, but the vocabulary has 320 tokens"):
        HubConfig(config=values | {"vocab_size": 320, "model_type": "mbart"}, start_id=320).build()


def test_attention_that_depends_on_texts_before() -> None:
    config = config_of("bigbird_pegasus", attention_type="block_sparse")
    with pytest.raises(CheckpointError) as caught:
        HubConfig(config=config).build()
    assert str(caught.value) == (
        "config.json: attention_type is block_sparse, by which a text's states depend on the texts"
        " before. Set attention_type: original_full there: the weights are the same."
    )


def test_a_family_that_is_no_classifier_is_refused_when_the_recipe_is_read() -> None:
    with pytest.raises(CheckpointError, match="model_type fsmt reads by one vocabulary"):
        HubConfig.from_huggingface({"model_type": "fsmt"})


def test_two_tokenizers() -> None:
    class Two:
        source = target = None

    processor: Any = Two()
    with pytest.raises(RecipeError, match="has two tokenizers, but model hub has one vocabulary"):
        HubConfig(config=config_of("bart")).complete_from(processor)


def test_texts_longer_than_the_tables_of_positions() -> None:
    model = HubConfig(config=config_of("bart", decoder_start_token_id=2)).build()
    long = torch.full((1, 65), 5)
    said = "inputs: a sequence of 65 tokens, but positions end at 64. Cut the texts to 64 tokens."
    for given in ({"source": long, "text": long[:, :4]}, {"source": long[:, :4], "text": long}):
        with pytest.raises(DataError) as caught:
            model(**given)
        assert str(caught.value) == said


def test_positions_that_cannot_be_stretched() -> None:
    scaling = {"kind": "linear", "factor": 2.0}
    config = config_of("pegasus", decoder_start_token_id=0)
    with pytest.raises(RecipeError, match="this pegasus has no rotary positions"):
        HubConfig(config=config, rope_scaling=scaling).build()


def test_formats_that_have_no_place_for_it(tmp_path: Path) -> None:
    model = HubConfig(config=config_of("pegasus", decoder_start_token_id=0)).build()
    with pytest.raises(CheckpointError) as caught:
        write_folder(tmp_path, model, [], 1, "fp32")
    assert str(caught.value) == (
        "model: HubEncoderDecoder is another library's, and only encoder_decoder is written for"
        " CTranslate2. Export it to huggingface."
    )
