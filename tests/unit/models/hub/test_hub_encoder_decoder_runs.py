"""Runs that start from an encoder-decoder that the model ``hub`` opens: training, resuming,
predicting and what comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_decoders import texts
from hub_encoder_decoders import recipe_from, write_encoder_decoder
from pretrained_folders import transformers
from resuming import stopped_and_resumed
from tiny_families import tiny_config

import groundup
from groundup import api
from groundup.contracts.models import EncoderDecoder, Generates, blocks_of
from groundup.core.errors import CheckpointError
from groundup.export.export_run import export_run
from groundup.models.hub.config import HubConfig
from groundup.models.hub.encoder_decoder import HubEncoderDecoder
from groundup.testing import check_model
from groundup.testing.failure import ContractError
from groundup.training.optimizers import depths

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("transformers")]


@pytest.mark.parametrize(
    ("family", "part"),
    [("pegasus", {}), ("mt5", {"adapter": {"name": "lora", "rank": 2}})],
    ids=["whole", "adapter"],
)
def test_a_folder_is_trained_on_resumed_and_opened_again(
    family: str, part: dict[str, Any], tmp_path: Path
) -> None:
    base = write_encoder_decoder(family, tmp_path / "base")
    recipe = recipe_from(tmp_path, **part)
    stopped_and_resumed(recipe, tmp_path, (1, 3))
    run = groundup.train(recipe, runs=tmp_path / "parts")
    predictor = groundup.load(run.folder)
    assert isinstance(predictor.model, HubEncoderDecoder)
    options = {"min_new_tokens": 9, "max_new_tokens": 12}
    texts = [predictor("_@@_", **options), predictor("_@@_", beams=3, **options)]

    tuned = transformers.AutoModelForSeq2SeqLM.from_pretrained(run.folder / "model").eval()
    source = predictor.processor.encode_batch(["_@@_"])[0].tolist()
    source = torch.tensor([[*source, predictor.processor.end_id]])
    for text, beams in zip(texts, (1, 3), strict=True):
        found = tuned.generate(source, do_sample=False, num_beams=beams, **options)[0, 1:]
        assert text
        assert predictor.processor.decode([n for n in found.tolist() if n != 1]) == text
    moved = {
        name: float((parameter - base.get_parameter(name)).detach().abs().max())
        for name, parameter in tuned.named_parameters()
    }
    changed = {name for name, distance in moved.items() if distance > 0}
    assert all(distance < 0.1 for distance in moved.values())
    fixed = {name for name in moved if "embed_positions" in name}
    if part:
        assert changed == {name for name in moved if name.endswith("weight") and _is_linear(name)}
    else:
        assert changed == set(moved) - fixed
    evaluation = groundup.evaluate(run.folder)
    (evaluated,) = evaluation["runs"]
    assert evaluated["evaluation"]["metrics"]["held_out_examples"] > 0


def _is_linear(name: str) -> bool:
    linear = (".q.", ".k.", ".v.", ".o.", ".wi_0.", ".wi_1.", ".wo.")
    return any(part in name for part in linear)


def test_a_folder_predicts_without_training(tmp_path: Path) -> None:
    write_encoder_decoder("blenderbot", tmp_path / "base", max_position_embeddings=512)
    predictor = groundup.load(str(tmp_path / "base"))
    assert isinstance(predictor("some text", max_new_tokens=4), str)
    pytest.importorskip("onnx")
    with pytest.raises(CheckpointError, match="which is not written as two graphs"):
        export_run(tmp_path / "base", "onnx", out=tmp_path / "onnx")


def force_first(folder: Path, token: int) -> None:
    """Say in a folder's files that every output begins with a token."""
    path = folder / "generation_config.json"
    values = json.loads(path.read_text()) | {"forced_bos_token_id": token}
    path.write_text(json.dumps(values))


def test_the_language_of_outputs_is_learned_forced_and_handed_on(tmp_path: Path) -> None:
    write_encoder_decoder("m2m_100", tmp_path / "base", max_position_embeddings=512)
    force_first(tmp_path / "base", 3)
    options: dict[str, Any] = {"min_new_tokens": 9, "max_new_tokens": 12}
    pretrained = groundup.load(str(tmp_path / "base"))
    assert pretrained.task.target_token == "<|im_end|>"
    as_it_is = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base").eval()
    assert texts_of(pretrained, as_it_is, options) == texts_of(pretrained, pretrained, options)

    run = groundup.train(recipe_from(tmp_path), runs=tmp_path / "runs")
    predictor = groundup.load(run.folder)
    example = next(iter(run.recipe.data.examples("train", tmp_path)))
    targets = predictor.task.encode([example], predictor.processor)["target"].tolist()
    assert targets[0] == 3
    assert targets.count(3) == 1
    tuned = transformers.AutoModelForSeq2SeqLM.from_pretrained(run.folder / "model").eval()
    assert tuned.generation_config.forced_bos_token_id == 3
    assert texts_of(predictor, tuned, options) == texts_of(predictor, predictor, options)
    # A run that goes on from it, and a folder with another language.
    recipe = recipe_from(tmp_path, name="second")
    recipe["init"] = {"run": str(run.folder)}
    assert api.plan([recipe], runs=tmp_path / "runs")[0].task.target_token == "<|im_end|>"
    recipe["task"] |= {"target_token": "<|im_start|>"}
    (planned,) = api.plan([recipe], runs=tmp_path / "runs")
    (note,) = planned.task.differences(run.folder / "model")
    assert note.endswith(
        "begin with <|im_end|> by its files, but task.target_token is <|im_start|>"
    )


def texts_of(predictor: Any, model: Any, options: dict[str, Any]) -> list[list[int]]:
    """Return what a model writes about two texts, with one beam and with three."""
    processor = predictor.processor
    found = []
    for text in ("_@@_", "a_b"):
        for beams in (1, 3):
            if model is predictor:
                found.append(predictor(text, beams=beams, **options))
                continue
            source = torch.tensor([[*processor.encode_batch([text])[0].tolist(), processor.end_id]])
            rows = model.generate(source, do_sample=False, num_beams=beams, **options)
            own = [token for token in rows[0, 1:].tolist() if token not in (1, 3)]
            found.append(processor.decode(own))
    return found


def test_it_keeps_the_contract_of_models() -> None:
    values = json.loads(tiny_config("bart", decoder_start_token_id=2).to_json_string())
    config = HubConfig(config=values, dropout=0.1)
    model = config.build()
    assert isinstance(model, EncoderDecoder)
    assert isinstance(model, Generates)
    assert len(blocks_of(model)) == 4
    # The last of the contracts is the one that the library does not keep: it embeds an output after
    # it has read the input. Depth is told by names, which are in order.
    with pytest.raises(ContractError, match="parts are made in the order in which they are used"):
        check_model(config, texts(), untrained=("k_proj.bias",))
    found = depths(list(model.state_dict()))
    assert {name.partition(".")[0]: depth for name, depth in found.items() if depth == 5} == {
        "embed": 5
    }
    assert {name for name, depth in found.items() if depth == 0} == {
        "head.outside.final_logits_bias"
    }
