"""Decoding rows of an encoder-decoder that are at one position: what the model's forward computes,
in floats and with few bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from encoder_decoders import ENCODER_DECODERS, texts
from torch import Tensor

from groundup.generation.beam_search import _find_best, beam_search
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.generation.products import join_products, linear_product
from groundup.generation.two_stack_decoder import TwoStackDecoder
from groundup.inference.precision import quick, set_weights
from groundup.models.encoder_decoder import EncoderDecoderConfig
from groundup.nn.kv_cache import KeyValueCache

CASES = range(len(ENCODER_DECODERS["encoder_decoder"]))


def tiny(index: int = 0, **changes: Any) -> Any:
    torch.manual_seed(0)
    settings = {**ENCODER_DECODERS["encoder_decoder"][index], "init_std": 0.3, **changes}
    model = EncoderDecoderConfig(**settings).build().eval()
    if model.output_bias is not None:
        model.output_bias.normal_()
    return model


def inputs(rows: int = 3) -> dict[str, Tensor]:
    given = texts()
    return {name: given[name][:rows] for name in ("source", "source_mask")}


@torch.no_grad()
def token_by_token(model: Any, rows: int, steps: int) -> Tensor:
    """Return the logits (rows, steps, V) of fixed tokens, one position at a time."""
    torch.manual_seed(2)
    tokens = torch.randint(30, (rows, steps))
    cache = model.new_cache(rows, steps)
    model.encode(cache, **inputs(rows))
    found = []
    for place in range(steps):
        positions = torch.full((rows, 1), place)
        found.append(model(tokens[:, place : place + 1], positions, cache=cache, last_only=True))
    return torch.cat(found, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("index", CASES)
def test_it_computes_what_the_model_computes(index: int, dtype: torch.dtype) -> None:
    model = tiny(index).to(dtype)
    for rows in (1, 3):
        expected = token_by_token(model, rows, 10)
        decoder = model.decoder()
        assert isinstance(decoder, TwoStackDecoder)
        found = token_by_token(decoder, rows, 10)
        assert found.dtype == dtype
        assert (found - expected).abs().max() < 1e-4
        assert (token_by_token(model, rows, 10) - expected).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("index", CASES)
@pytest.mark.parametrize("beams", [1, 3])
def test_the_same_texts(index: int, beams: int) -> None:
    model = tiny(index, context_length=80)
    decoder = model.decoder()
    options = DecodingOptions(temperature=0, max_new_tokens=70, beams=beams)
    # Rows end at different times, and one prompt is longer: its row is not level with the others.
    for prompts in ([[3], [3], [3]], [[3], [3, 4, 5], [3]]):
        wanted = write(model, prompts, options)
        assert write(decoder, prompts, options) == wanted
        if (index, beams) == (0, 1):
            assert len({len(text) for text in wanted}) > 1


def write(model: Any, prompts: list[list[int]], options: DecodingOptions) -> list[list[int]]:
    if options.beams == 1:
        return generate_batch(model, prompts, options, {7, 8}, inputs=inputs())
    found = beam_search(model, prompts, options, {7, 8}, inputs())
    return [each.tokens for texts in found for each in texts]


def test_a_text_beyond_the_context_goes_on() -> None:
    model = tiny(3)
    options = DecodingOptions(temperature=0, max_new_tokens=30)
    prompts = [[3], [4], [5]]
    wanted = generate_batch(model, prompts, options, inputs=inputs())
    assert [len(text) for text in wanted] == [30, 30, 30]
    assert generate_batch(model.decoder(), prompts, options, inputs=inputs()) == wanted


def test_it_keeps_no_copy_of_the_weights() -> None:
    model = tiny()
    decoder = model.decoder()
    before = token_by_token(decoder, 3, 4)
    block = model.blocks[-1]
    with torch.no_grad():
        block.attention.query.weight.mul_(-1)
        block.cross_attention.query.weight.mul_(2)
    after = token_by_token(decoder, 3, 4)
    assert (after - before).abs().max() > 1e-3
    assert (after - token_by_token(model, 3, 4)).abs().max() < 1e-4
    assert dict(model.named_parameters()).keys() == dict(tiny().named_parameters()).keys()


def test_inputs_without_padding_have_no_mask() -> None:
    decoder = tiny().decoder()
    assert decoder.start_id == 3
    given = inputs(1)
    cache = decoder.new_cache(1, 4)
    decoder.encode(cache, **given)
    assert {"mask", "hidden"}.isdisjoint(cache.encoded)
    cache = decoder.new_cache(3, 4)
    decoder.encode(cache, **inputs())
    assert cache.encoded["hidden"].shape == (3, 1, 1, 7)
    assert (cache.encoded["hidden"] == 0).sum() == given["source_mask"].sum() + 2 + 5


@pytest.mark.parametrize("index", CASES)
def test_inputs_of_like_lengths_are_read_together(index: int) -> None:
    model = tiny(index, context_length=200)
    torch.manual_seed(3)
    lengths = torch.tensor([[150], [3], [4], [149], [3]])
    mask = torch.arange(150) < lengths
    given = {"source": torch.randint(30, (5, 150)), "source_mask": mask}
    decoder = model.decoder()
    widths = []
    model.blocks[0].register_forward_hook(lambda *call: widths.append(call[2].shape[:2]))
    found = decoder.new_cache(5, 4)
    decoder.encode(found, **given)
    assert sorted(widths) == [(2, 150), (3, 4)]
    wanted = model.new_cache(5, 4)
    model.encode(wanted, **given)
    assert found.encoded.keys() - {"hidden"} == wanted.encoded.keys()
    assert torch.equal(found.encoded["mask"], wanted.encoded["mask"])
    for name in ("keys 0", "values 0"):
        # What is padding may be anything.
        real = mask[:, None, :, None]
        one, two = (cache.encoded[name].where(real, 0) for cache in (found, wanted))
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
    # Padded on the left, they are read as they are.
    widths.clear()
    decoder.encode(decoder.new_cache(5, 4), source=given["source"], source_mask=mask.flip(1))
    assert widths == [(5, 150)]


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("index", CASES)
def test_weights_of_few_bits(weights: str, index: int) -> None:
    changes = {"width": 64, "heads": 2, "head_dim": None, "mlp_width": 96, "init_std": 0.1}
    model = tiny(index, **changes)
    wanted = token_by_token(model, 3, 6)
    set_weights(model, weights, "runs/x")
    decoder = quick(model)
    assert isinstance(decoder, TwoStackDecoder)
    found = token_by_token(decoder, 3, 6)
    assert (found - token_by_token(model, 3, 6)).abs().max() < 0.05 * wanted.abs().max()
    limit = {"bf16": 0.1, "int8": 0.1, "int4": 0.5}[weights]
    assert (found - wanted).abs().mean() < limit * wanted.abs().mean()


# -------------------------------------------------------------------------------------- the parts
@pytest.mark.parametrize("kinds", [30, 640, 1000])
def test_the_best_are_found_by_groups_as_among_all(kinds: int) -> None:
    torch.manual_seed(0)
    log_probs = torch.randn(8, kinds).log_softmax(-1)
    log_probs[3, -1] = 0.0
    scores = torch.randn(2, 4)
    best, beams, tokens = _find_best(log_probs, scores, 9)
    totals = (log_probs.view(2, 4, kinds) + scores[..., None]).flatten(1)
    wanted = totals.topk(9)
    assert torch.equal(best, wanted.values)
    assert torch.equal(beams * kinds + tokens, wanted.indices)
    assert (3, kinds - 1) in zip(beams[0].tolist(), tokens[0].tolist(), strict=True)


@pytest.mark.parametrize("rows", [1, 2, 8, 9, 40])
@pytest.mark.parametrize("shape", [(6, 4), (1050, 1000)])
def test_products_are_the_layers_whatever_the_number_of_rows(
    rows: int, shape: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape)
    x = torch.randn(rows, shape[1])
    for bias in (None, torch.randn(shape[0])):
        found = linear_product(weight, bias)(x)
        assert found.is_contiguous()
        torch.testing.assert_close(
            found, torch.nn.functional.linear(x, weight, bias), rtol=1e-4, atol=1e-3
        )
    assert linear_product(weight, None)(x[None]).shape == (1, rows, shape[0])


def test_layers_of_which_one_has_no_bias() -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(4, 3), torch.nn.Linear(4, 3, bias=False), torch.nn.Linear(4, 2)]
    x = torch.randn(5, 4)
    wanted = torch.cat([layer(x) for layer in layers], -1)
    torch.testing.assert_close(join_products(layers)(x), wanted)


def test_a_cache_grows_as_far_as_it_may() -> None:
    cache = KeyValueCache(2, (2, 1, 100, 4), torch.float32, torch.device("cpu"))
    assert cache.layers[0].keys.shape == (2, 1, 33, 4)
    for place in range(100):
        with torch.inference_mode():
            cache.reserve(torch.full((2, 1), place))
        value = torch.tensor([1.0, -1.0])[:, None, None, None] * (place + 1)
        for layer in cache.layers:
            layer.store(torch.full((2, 1), place), value, value, cache.used)
        if place in (40, 41, 90):
            cache.keep_beams([1, 0], [0])
    # Rows changed places three times.
    wanted = torch.arange(1.0, 101.0)
    wanted[:41] *= -1
    wanted[42:91] *= -1
    for layer in cache.layers:
        assert layer.keys.shape == (2, 1, 101, 4)
        assert torch.equal(layer.keys[0, 0, :100, 0], wanted)
        assert torch.equal(layer.values[1, 0, :100, 0], -wanted)
        # Slots that nothing was written to are read with weight 0.
        assert layer.keys.isfinite().all()
        assert layer.values.isfinite().all()
    with pytest.raises(ValueError, match="position 100 is beyond the cache's 100 slots"):
        cache.reserve(torch.tensor([[100]]))
    cache.keep([1])
    assert torch.equal(cache.layers[1].values[0, 0, :100, 0], -wanted)
