"""Whisper against ``transformers``: logits and gradients of random small models, cached and not;
files in both directions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from writers import stir

from groundup.core.errors import CheckpointError
from groundup.core.settings import validate
from groundup.formats.huggingface_folder import read_config
from groundup.generation.beam_search import beam_search
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.models.whisper import WhisperConfig

pytestmark = pytest.mark.slow
VOCABULARY = 40
SHAPE: dict[str, Any] = {
    "vocabulary_size": 40,
    "mel_bands": 8,
    "width": 16,
    "heads": 2,
    "layers": 3,
}
SETTINGS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "num_mel_bins": 8,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_source_positions": 15,
    "max_target_positions": 20,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
    "begin_suppress_tokens": [4, 2],
    "suppress_tokens": [5, 6],
    "init_std": 0.3,
}


def hf_whisper(**changed: Any) -> Any:
    """Return a random small model of ``transformers``."""
    torch.manual_seed(0)
    config = transformers.WhisperConfig(**{**SETTINGS, **changed})
    model = transformers.WhisperForConditionalGeneration(config)
    stir(model)
    return model.eval()


def own_whisper(folder: Path, **changed: Any) -> Any:
    """Return groundup's model of a folder."""
    settings = WhisperConfig.from_huggingface(read_config(folder))
    config = WhisperConfig(**{**settings, **changed})
    model = config.build()
    model.load_state_dict(config.weights_from_huggingface(load_file(folder / "model.safetensors")))
    return model.eval()


def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        "inputs": torch.randn(3, 30, 8),
        "tokens": torch.randint(3, VOCABULARY, (3, 7)),
        "targets": torch.randint(3, VOCABULARY, (3, 7)).where(torch.rand(3, 7) < 0.8, -100),
    }


def hf_logits(model: Any, given: dict[str, Tensor]) -> Tensor:
    found = model(input_features=given["inputs"].transpose(1, 2), decoder_input_ids=given["tokens"])
    return found.logits  # type: ignore[no-any-return]


def test_logits_and_gradients(tmp_path: Path) -> None:
    theirs = hf_whisper()
    theirs.save_pretrained(tmp_path)
    ours = own_whisper(tmp_path)
    given = batch()
    wanted = hf_logits(theirs, given)
    found = ours(inputs=given["inputs"], tokens=given["tokens"])
    assert (found - wanted).abs().max() <= 1e-4
    kept = given["targets"] != -100
    loss = torch.nn.functional.cross_entropy(wanted[kept], given["targets"][kept])
    loss.backward()
    sums = ours(**given)
    (sums[0] / kept.sum()).backward()
    torch.testing.assert_close(sums[0] / kept.sum(), loss, rtol=1e-5, atol=1e-5)
    uniform = -wanted[kept].log_softmax(-1).mean(-1).sum()
    torch.testing.assert_close(sums[1], uniform, rtol=1e-4, atol=1e-4)
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    _, by_name = ours.config.to_huggingface(gradients | dict(ours.named_buffers()))
    compared = 0
    for name, parameter in theirs.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert (by_name[name] - parameter.grad).abs().max() <= 1e-4, name
            compared += 1
    # All of groundup's but none left out.
    assert compared == len(gradients)


def test_cached_is_the_same_token_by_token(tmp_path: Path) -> None:
    theirs = hf_whisper()
    theirs.save_pretrained(tmp_path)
    ours = own_whisper(tmp_path)
    given = batch()
    wanted = hf_logits(theirs, given)
    with torch.no_grad():
        cache = ours.new_cache(3, 7)
        ours.encode(cache, inputs=given["inputs"])
        for place in range(7):
            tokens = given["tokens"][:, place : place + 1]
            found = ours(tokens, cache=cache, last_only=True)
            assert (found[:, 0] - wanted[:, place]).abs().max() <= 1e-4
        # Two texts about each sound, next to each other, share what was read of it.
        double = ours.new_cache(6, 7)
        ours.encode(double, states=ours.read_sound(given["inputs"]))
        found = ours(given["tokens"].repeat_interleave(2, 0), cache=double)
        again = ours.new_cache(3, 7)
        ours.encode(again, **cache.encoded)
        assert (ours(given["tokens"], cache=again) - wanted).abs().max() <= 1e-4
        from_states = ours(given["tokens"], states=ours.read_sound(given["inputs"]))
    assert (found[::2] - wanted).abs().max() <= 1e-4
    assert (found[1::2] - wanted).abs().max() <= 1e-4
    assert (from_states - wanted).abs().max() <= 1e-4


def test_attention_to_the_sound(tmp_path: Path) -> None:
    theirs = hf_whisper()
    theirs.set_attn_implementation("eager")
    theirs.save_pretrained(tmp_path)
    ours = own_whisper(tmp_path)
    given = batch()
    wanted = theirs(
        input_features=given["inputs"].transpose(1, 2),
        decoder_input_ids=given["tokens"],
        output_attentions=True,
    ).cross_attentions
    heads = [(0, 1), (2, 0), (2, 1)]
    cache = ours.new_cache(3, 1)
    ours.encode(cache, inputs=given["inputs"])
    found = ours.attention_to_sound(given["tokens"], cache.encoded, heads)
    # As the published code: all heads of the upper half, where nothing else is known.
    assert ours.attention_to_sound(given["tokens"], cache.encoded).shape == (3, 4, 7, 15)
    for number, (layer, head) in enumerate(heads):
        torch.testing.assert_close(found[:, number], wanted[layer][:, head], rtol=0, atol=1e-5)


def test_a_short_sound_is_followed_by_silence(tmp_path: Path) -> None:
    extract = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    theirs = hf_whisper(max_source_positions=50)
    theirs.save_pretrained(tmp_path)
    ours = own_whisper(tmp_path)
    torch.manual_seed(2)
    sounds = [torch.randn(9600).numpy(), torch.randn(4000).numpy() * 0.1, torch.zeros(800).numpy()]
    frames = extract(sounds, sampling_rate=16000, return_tensors="pt").input_features
    tokens = torch.randint(3, VOCABULARY, (3, 7))
    wanted = hf_logits(theirs, {"inputs": frames.transpose(1, 2), "tokens": tokens})
    # Frames that still hear the sound's end, and nothing after them; or zeros.
    lengths = torch.tensor([62, 27, 5])
    cut = frames.transpose(1, 2)[:, :80].clone()
    for row, length in zip(cut, lengths.tolist(), strict=True):
        row[length:] = 0
    for given in (cut, torch.cat((cut, torch.zeros(3, 40, 8)), 1)):
        found = ours(inputs=given, lengths=lengths, tokens=tokens)
        assert (found - wanted).abs().max() <= 1e-4


def test_a_folder_comes_out_as_it_came_in(tmp_path: Path) -> None:
    theirs = hf_whisper()
    theirs.save_pretrained(tmp_path / "in")
    ours = own_whisper(tmp_path / "in")
    values, tensors = ours.config.to_huggingface(ours.state_dict())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text(json.dumps(values))
    save_file(tensors, tmp_path / "out" / "model.safetensors", metadata={"format": "pt"})
    again = type(theirs).from_pretrained(tmp_path / "out").eval()
    given = batch()
    assert torch.equal(hf_logits(again, given), hf_logits(theirs, given))
    with pytest.raises(CheckpointError, match="decoder_ffn_dim 32"):
        WhisperConfig.from_huggingface({**values, "decoder_ffn_dim": 32})
    with pytest.raises(CheckpointError, match="activation_function is relu; supported: gelu"):
        WhisperConfig.from_huggingface({**values, "activation_function": "relu"})
    other = tensors | {"proj_out.weight": tensors["model.decoder.embed_tokens.weight"] + 1}
    with pytest.raises(CheckpointError, match=r"proj_out\.weight differs"):
        ours.config.weights_from_huggingface(other)


@pytest.mark.parametrize("beams", [1, 5])
def test_same_texts(beams: int, tmp_path: Path) -> None:
    theirs = hf_whisper()
    with torch.no_grad():
        # Otherwise random weights write the same about every sound.
        for name, parameter in theirs.named_parameters():
            if "encoder_attn" in name or "decoder.layers" in name:
                parameter.mul_(3)
    theirs.generation_config.forced_decoder_ids = None
    theirs.generation_config.no_timestamps_token_id = 39
    theirs.generation_config.is_multilingual = False
    theirs.save_pretrained(tmp_path)
    ours = own_whisper(tmp_path)
    torch.manual_seed(3)
    frames = torch.randn(200, 30, 8)
    # The start token and one that says there are no timestamps come before the text.
    rows = theirs.generate(
        frames.transpose(1, 2),
        max_new_tokens=10,
        num_beams=beams,
        do_sample=False,
        suppress_tokens=[5, 6],
        begin_suppress_tokens=[4, 2],
    )
    options = DecodingOptions(
        temperature=0,
        beams=beams,
        max_new_tokens=10,
        suppress_tokens=(5, 6),
        begin_suppress_tokens=(4, 2),
    )
    prompts = [[3, 39]] * len(frames)
    inputs = {"inputs": frames}
    wanted = [[token for token in row if token not in (1, 2)] for row in rows.tolist()]
    for writer in (ours, ours.decoder()):
        if beams == 1:
            found = generate_batch(writer, prompts, options, {2}, inputs=inputs)
        else:
            found = [each[0].tokens for each in beam_search(writer, prompts, options, {2}, inputs)]
        assert [[token for token in row if token != 1] for row in found] == wanted
    assert not any({5, 6} & set(row) for row in found)
    assert len({tuple(row) for row in found}) > 30


def test_generation_config_comes_back() -> None:
    english = {
        "forced_decoder_ids": [[1, 39]],
        "no_timestamps_token_id": 39,
        "suppress_tokens": [5, 6, -1],
        "begin_suppress_tokens": [4],
        "alignment_heads": [[2, 1]],
        "is_multilingual": False,
    }
    found = WhisperConfig.from_generation_config(english)
    assert found["prompt_ids"] == [39]
    assert found["suppress_tokens"] == [5, 6]
    config = validate(WhisperConfig, {**SHAPE, **found}, "model")
    assert config.transcript_tokens().no_speech == 38
    assert WhisperConfig.from_generation_config(config.to_generation_config()) == found
    several = {
        "is_multilingual": True,
        "forced_decoder_ids": [[1, None], [2, 30]],
        "lang_to_id": {"<|en|>": 20, "<|de|>": 21},
        "task_to_id": {"transcribe": 30, "translate": 31},
        "no_timestamps_token_id": 39,
    }
    assert WhisperConfig.from_generation_config(several)["prompt_ids"] == [20, 30, 39]
    found = WhisperConfig.from_generation_config({**several, "language": "de"})
    assert found["prompt_ids"] == [21, 30, 39]
    again = validate(WhisperConfig, {**SHAPE, **found}, "model").to_generation_config()
    assert WhisperConfig.from_generation_config(again) == found
    with pytest.raises(CheckpointError, match=r"has no number for '<\|fr\|>'"):
        WhisperConfig.from_generation_config({**several, "language": "fr"})
