"""Gemma 3 and Phi-3 beyond their logits: packed documents, generation, adapters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from groundup.core.errors import RecipeError
from groundup.core.settings import validate
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.models.gemma import Gemma3Config
from groundup.models.phi3 import Phi3Config
from groundup.nn import logits as output_layer
from groundup.nn.lora.adapters import adapted, attach
from groundup.processors.text.bytes import BytesConfig
from groundup.recipe.adapter import Adapter

SHAPE: dict[str, Any] = {
    "vocabulary_size": 40,
    "layers": 3,
    "width": 16,
    "heads": 2,
    "mlp_width": 24,
}
LONG = {
    "original_context": 8,
    "short_factors": [1, 2, 3],
    "long_factors": [4, 5, 6],
    "amplitude": 1.2,
}
CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gemma3": (
        Gemma3Config,
        {**SHAPE, "head_dim": 8, "sliding_window": 4, "global_every": 2, "logit_cap": 3.0},
    ),
    "phi3": (Phi3Config, {**SHAPE, "rotary_share": 0.8, "sliding_window": 6, "long_rope": LONG}),
}


def built(name: str, std: float = 0.3) -> Any:
    torch.manual_seed(1)
    cls, values = CONFIGS[name]
    return validate(cls, {**values, "init_std": std}, "recipe.model").build().eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_documents_are_what_they_are_alone(name: str) -> None:
    """Each by its own length, too: the first two are within Phi-3's context of before, the last is
    not."""
    model, sizes = built(name), (5, 8, 11)
    documents = [torch.randint(40, (1, size)) for size in sizes]
    positions = torch.cat([torch.arange(size) for size in sizes]).view(2, 12)
    boundaries = torch.tensor([0, 5, 13, 24, 24], dtype=torch.int32)
    tokens = torch.cat(documents, 1).view(2, 12)
    with torch.no_grad():
        found = model(tokens, positions, boundaries).view(1, 24, 40).split(sizes, 1)
        for document, logits in zip(documents, found, strict=True):
            torch.testing.assert_close(logits, model(document), rtol=0, atol=2e-6)
        losses = model.token_losses(tokens, tokens, positions, boundaries)
        torch.testing.assert_close(losses.sum(), model(tokens, positions, boundaries, tokens))


def test_the_loss_of_capped_logits_a_chunk_at_a_time_is_the_plain_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, tokens = built("gemma3"), torch.randint(40, (2, 80))
    found = []
    for size in (output_layer._CHUNK_BYTES, 64 * 40 * 4):
        monkeypatch.setattr(output_layer, "_CHUNK_BYTES", size)
        model.zero_grad()
        total = model(tokens, targets=tokens.roll(-1, 1))
        total.backward()
        found.append([total.detach(), *(p.grad.clone() for p in model.parameters())])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
    logits = model(tokens)
    assert 2.0 < logits.abs().max() < 3.0


@pytest.mark.parametrize("name", CONFIGS)
def test_texts_of_a_batch_are_what_they_are_alone(name: str) -> None:
    model, options = built(name), DecodingOptions(max_new_tokens=12, temperature=0.0)
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10]]
    together = generate_batch(model, prompts, options)
    greedy = list(prompts[1])
    with torch.no_grad():
        for _ in range(
            12
        ):  # without a cache: Phi-3 has outgrown its context of before only with the second token
            greedy.append(int(model(torch.tensor([greedy]))[0, -1].argmax()))
    assert together[0] == generate_batch(model, prompts[:1], options)[0]
    if name == "gemma3":
        assert together[1] == greedy[7:]


@pytest.mark.parametrize("name", CONFIGS)
def test_adapters_stand_in_the_blocks(name: str) -> None:
    model = built(name)
    attach(model, Adapter(rank=2))
    assert len(adapted(model)) == 3 * 7
    assert all(layer.startswith("blocks.") for layer in adapted(model))


def test_a_tokenizer_with_a_token_for_pictures_fits_a_gemma_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As those of the published text-only models; any other token too many is an error."""
    processor: Any = BytesConfig().fit(lambda: iter(()))
    size = processor.vocabulary_size - 1
    with pytest.raises(
        RecipeError, match=f"the tokenizer has {size + 1} tokens, but the model {size}"
    ):
        Gemma3Config(vocabulary_size=size).complete_from(processor)
    monkeypatch.setattr(
        type(processor), "special_id", lambda _, token: {"<image_soft_token>": size}.get(token)
    )
    assert Gemma3Config(vocabulary_size=size).complete_from(processor).vocabulary_size == size
