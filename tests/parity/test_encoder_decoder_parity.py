"""T5, BART and Marian against ``transformers``: logits and gradients of random small models, padded
on either side, cached and not; files in both directions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import transformers, write_tokenizer
from resuming import stopped_and_resumed
from safetensors.torch import load_file, save_file
from tiny_runs import tiny_run
from torch import Tensor
from writers import stir

import groundup
from groundup.core.errors import CheckpointError
from groundup.formats.huggingface_folder import read_config
from groundup.models.encoder_decoder import EncoderDecoderConfig

pytestmark = pytest.mark.slow
VOCABULARY = 40
_BART: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 30,
    "pad_token_id": 1,
    "decoder_start_token_id": 2,
    "eos_token_id": 2,
    "forced_eos_token_id": None,
    "init_std": 0.3,
}
_MARIAN = {**_BART, "activation_function": "swish", "scale_embedding": True}
_T5: dict[str, Any] = {
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 24,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0,
    "initializer_factor": 1.0,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5", _T5),
    "t5 v1.1": ("T5", {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "bart": ("Bart", _BART),
    "marian": ("Marian", _MARIAN),
    "marian of two vocabularies": (
        "Marian",
        {**_MARIAN, "share_encoder_decoder_embeddings": False, "decoder_vocab_size": 50},
    ),
}


def hf_model(family: str, vocabulary: int = VOCABULARY) -> Any:
    """Return a random small model of ``transformers``."""
    name, settings = FAMILIES[family]
    suffix = {"T5": "ForConditionalGeneration", "Bart": "ForConditionalGeneration"}.get(
        name, "MTModel"
    )
    config = getattr(transformers, f"{name}Config")(vocab_size=vocabulary, **settings)
    torch.manual_seed(0)
    model = getattr(transformers, name + suffix)(config)
    stir(model)
    if name != "T5":
        model.final_logits_bias.normal_()
    return model.eval()


def own_model(folder: Path) -> Any:
    """Return groundup's model of a folder."""
    settings = EncoderDecoderConfig.from_huggingface(read_config(folder))
    config = EncoderDecoderConfig(**settings)
    model = config.build()
    model.load_state_dict(config.weights_from_huggingface(load_file(folder / "model.safetensors")))
    return model.eval()


def batch(side: str) -> dict[str, Tensor]:
    """Return inputs of three lengths, padded on one side, and texts about them."""
    torch.manual_seed(1)
    lengths = torch.tensor([[9], [1], [5]])
    rows = torch.randint(3, VOCABULARY, (3, 9))
    mask = torch.arange(9) < lengths
    if side == "left":
        rows = rows.gather(1, (torch.arange(9) + lengths) % 9)
        mask = mask.flip(1)
    return {
        "source": rows.where(mask, 1),
        "source_mask": mask,
        "tokens": torch.randint(3, VOCABULARY, (3, 7)),
        "targets": torch.randint(3, VOCABULARY, (3, 7)).where(torch.rand(3, 7) < 0.8, -100),
    }


def hf_outputs(model: Any, given: dict[str, Tensor], **more: Any) -> Any:
    return model(
        input_ids=given["source"],
        attention_mask=given["source_mask"].long(),
        decoder_input_ids=given["tokens"],
        **more,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients(family: str, tmp_path: Path) -> None:
    theirs = hf_model(family)
    theirs.save_pretrained(tmp_path)
    ours = own_model(tmp_path)
    for side in ("right", "left"):
        given = batch(side)
        reference = given
        if side == "left" and family.startswith(("bart", "marian")):
            # There a token's position counts the padding before it, so that an input padded on the
            # left is another input. Here it is the same: what is compared with is right.
            reference = batch("right")
        wanted = hf_outputs(theirs, reference).logits
        found = ours(**{k: v for k, v in given.items() if k != "targets"})
        assert (found - wanted).abs().max() <= 1e-4
        # Gradients of the mean, by the names of the file.
        theirs.zero_grad()
        ours.zero_grad()
        kept = given["targets"] != -100
        torch.nn.functional.cross_entropy(wanted[kept], given["targets"][kept]).backward()
        sums = ours(**given)
        (sums[0] / kept.sum()).backward()
        wanted_loss = torch.nn.functional.cross_entropy(wanted[kept], given["targets"][kept])
        torch.testing.assert_close(sums[0] / kept.sum(), wanted_loss, rtol=1e-5, atol=1e-5)
        uniform = -wanted[kept].log_softmax(-1).mean(-1).sum()
        torch.testing.assert_close(sums[1], uniform, rtol=1e-4, atol=1e-4)
        gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
        _, by_name = ours.config.to_huggingface(gradients | dict(ours.named_buffers()))
        for name, parameter in theirs.named_parameters():
            if parameter.grad is not None and parameter.requires_grad:
                assert (by_name[name] - parameter.grad).abs().max() <= 1e-4, name


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_is_the_same_token_by_token(family: str, tmp_path: Path) -> None:
    theirs = hf_model(family)
    theirs.save_pretrained(tmp_path)
    ours = own_model(tmp_path)
    given = batch("right")
    wanted = hf_outputs(theirs, given).logits
    with torch.no_grad():
        cache = ours.new_cache(3, 7)
        ours.encode(cache, source=given["source"], source_mask=given["source_mask"])
        for place in range(7):
            tokens = given["tokens"][:, place : place + 1]
            found = ours(tokens, cache=cache, last_only=True)
            assert (found[:, 0] - wanted[:, place]).abs().max() <= 1e-4
        # Two texts about each input, next to each other, share what was read of it.
        double = ours.new_cache(6, 7)
        ours.encode(double, source=given["source"], source_mask=given["source_mask"])
        found = ours(given["tokens"].repeat_interleave(2, 0), cache=double)
    assert (found[::2] - wanted).abs().max() <= 1e-4
    assert (found[1::2] - wanted).abs().max() <= 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_comes_out_as_it_came_in(family: str, tmp_path: Path) -> None:
    theirs = hf_model(family)
    theirs.save_pretrained(tmp_path / "in")
    ours = own_model(tmp_path / "in")
    values, tensors = ours.config.to_huggingface(ours.state_dict())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text(json.dumps(values))
    save_file(tensors, tmp_path / "out" / "model.safetensors", metadata={"format": "pt"})
    again = type(theirs).from_pretrained(tmp_path / "out").eval()
    given = batch("right")
    assert torch.equal(hf_outputs(again, given).logits, hf_outputs(theirs, given).logits)


def test_embeddings_of_two_languages_are_refused(tmp_path: Path) -> None:
    theirs = hf_model("marian")
    tensors = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    tensors["model.decoder.embed_tokens.weight"] += 1
    config = EncoderDecoderConfig(**EncoderDecoderConfig.from_huggingface(theirs.config.to_dict()))
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight differs from model\.shared"):
        config.weights_from_huggingface(tensors)


@pytest.mark.parametrize("part", [{}, {"adapter": {"name": "lora", "rank": 2}}])
def test_a_folder_is_trained_on_resumed_and_opened_again(
    part: dict[str, Any], tmp_path: Path
) -> None:
    base = hf_model("t5 v1.1", 320)
    base.save_pretrained(tmp_path / "base")
    write_tokenizer(tmp_path / "base", template=None)
    recipe = {**tiny_run("encoder_decoder", tmp_path), **part}
    del recipe["model"], recipe["processor"]
    recipe["init"] = {"pretrained": str(tmp_path / "base")}
    recipe["training"] = {"batch_size": 16, "steps": 3}
    stopped_and_resumed(recipe, tmp_path, (1, 3))
    run = groundup.train(recipe, runs=tmp_path / "parts")
    predictor = groundup.load(run.folder)
    text = predictor("_@@_", min_new_tokens=9, max_new_tokens=12)

    tuned = transformers.T5ForConditionalGeneration.from_pretrained(run.folder / "model").eval()
    query = "decoder.block.1.layer.1.EncDecAttention.q.weight"
    moved = {
        name: (tuned.get_parameter(name) - base.get_parameter(name)).abs().max().item()
        for name in ("shared.weight", query)
    }
    assert 0 < moved[query] < 0.1
    assert (moved["shared.weight"] == 0) == bool(part)
    assert moved["shared.weight"] < 0.1
    source = predictor.processor.encode_batch(["_@@_"])[0].tolist()
    source.append(predictor.processor.end_id)
    options = {"min_new_tokens": 9, "max_new_tokens": 12, "do_sample": False, "use_cache": False}
    found = tuned.generate(torch.tensor([source]), **options)[0, 1:]
    assert text
    assert predictor.processor.decode(found.tolist()) == text
