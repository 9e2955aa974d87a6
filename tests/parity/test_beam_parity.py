"""Greedy decoding and beam search give, token for token, what ``transformers.generate`` gives with
the same random weights: of encoder-decoders and of language models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import transformers
from test_encoder_decoder_parity import FAMILIES, VOCABULARY, hf_model, own_model

from groundup.generation.beam_search import beam_search
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.models.gpt import GPTConfig

pytestmark = pytest.mark.slow
INPUTS = 200
# The library's options, and groundup's.
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "greedy": ({}, {}),
    "beams": ({"num_beams": 5}, {"beams": 5}),
    "n-best": (
        {
            "num_beams": 5,
            "num_return_sequences": 3,
            "length_penalty": 0.6,
            "no_repeat_ngram_size": 3,
            "min_new_tokens": 4,
        },
        {
            "beams": 5,
            "n_best": 3,
            "length_penalty": 0.6,
            "no_repeat_ngram": 3,
            "min_new_tokens": 4,
        },
    ),
    "early": (
        {"num_beams": 4, "early_stopping": True, "length_penalty": 2.0},
        {"beams": 4, "early_stopping": True, "length_penalty": 2.0},
    ),
}


def write(model: Any, prompts: Any, options: dict[str, Any], end: int, inputs: Any) -> Any:
    chosen = DecodingOptions(temperature=0, max_new_tokens=12, **options)
    if chosen.beams == 1:
        return generate_batch(model, prompts, chosen, {end}, inputs=inputs)
    found = beam_search(model, prompts, chosen, {end}, inputs)
    return [each.tokens for texts in found for each in texts]


def until_end(rows: torch.Tensor, prompt: int, end: int) -> list[list[int]]:
    texts = [row[prompt:] for row in rows.tolist()]
    return [text[: text.index(end)] if end in text else text for text in texts]


@pytest.mark.parametrize("family", FAMILIES)
def test_encoder_decoders(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if family.startswith("t5"):
        # The library's cache has as many layers as the encoder.
        monkeypatch.setitem(FAMILIES[family][1], "num_decoder_layers", 2)
    theirs = hf_model(family)
    theirs.save_pretrained(tmp_path)
    ours = own_model(tmp_path)
    torch.manual_seed(5)
    lengths = torch.randint(1, 13, (INPUTS, 1))
    mask = torch.arange(12) < lengths
    source = torch.randint(3, VOCABULARY, (INPUTS, 12)).where(mask, 1)
    end = theirs.config.eos_token_id
    prompts = [[theirs.config.decoder_start_token_id]] * INPUTS
    for hf, own in WAYS.values():
        rows = theirs.generate(
            input_ids=source,
            attention_mask=mask.long(),
            max_new_tokens=12,
            do_sample=False,
            **hf,
        )
        inputs = {"source": source, "source_mask": mask}
        wanted = until_end(rows, 1, end)
        assert write(ours, prompts, own, end, inputs) == wanted
        # What predicts with it: a batch, and inputs one by one, which have no padding.
        decoder = ours.decoder()
        assert write(decoder, prompts, own, end, inputs) == wanted
        many = own.get("n_best", 1)
        for number in range(0, INPUTS, 20):
            length = int(lengths[number])
            alone = {"source": source[number : number + 1, :length]}
            found = write(decoder, prompts[:1], own, end, alone)
            assert found == wanted[number * many : (number + 1) * many]


def test_language_models(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.4,
        eos_token_id=2,
        pad_token_id=0,
    )
    theirs = transformers.LlamaForCausalLM(config).eval()
    own = GPTConfig(**GPTConfig.from_huggingface(theirs.config.to_dict()))
    ours = own.build()
    ours.load_state_dict(own.weights_from_huggingface(theirs.state_dict()))
    prompts = torch.randint(3, VOCABULARY, (50, 4))
    for hf, options in WAYS.values():
        rows = theirs.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=12,
            do_sample=False,
            **hf,
        )
        assert write(ours, prompts.tolist(), options, 2, None) == until_end(rows, 4, 2)
