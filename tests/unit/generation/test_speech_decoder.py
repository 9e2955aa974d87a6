"""Quick steps of a Whisper compute what its own forward does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from groundup.contracts.models import EncoderDecoder, Generates
from groundup.contracts.speech import ListensOnce
from groundup.generation.beam_search import beam_search
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.inference.precision import quick, set_weights
from groundup.models.whisper import WhisperConfig

SETTINGS: dict[str, Any] = {
    "vocabulary_size": 30,
    "mel_bands": 5,
    "width": 32,
    "heads": 2,
    "layers": 2,
    "context_length": 12,
    "source_positions": 10,
    "start_id": 27,
    "prompt_ids": (29,),
    "suppress_tokens": (4, 27, 28, 29),
    "begin_suppress_tokens": (5,),
    "no_timestamps_id": 29,
    "init_std": 0.4,
}


def whisper() -> Any:
    torch.manual_seed(0)
    return WhisperConfig(**SETTINGS).build().eval()


def test_every_step() -> None:
    model = whisper()
    decoder: Any = quick(model)
    assert decoder is not model
    for kind in (Generates, EncoderDecoder, ListensOnce):
        assert isinstance(decoder, kind)
    assert decoder.suppressed == model.suppressed == ((4, 27, 28, 29), (5,))
    assert (decoder.start_id, decoder.prompt_ids, decoder.no_speech_id) == (27, (29,), 28)
    frames = torch.randn(3, 16, 5)
    lengths = torch.tensor([16, 9, 3])
    tokens = torch.randint(30, (3, 7))
    with torch.no_grad():
        wanted = model(tokens, inputs=frames, lengths=lengths)
        assert torch.equal(decoder.in_window(frames, lengths), model.in_window(frames, lengths))
        cache = decoder.new_cache(3, 7)
        decoder.encode(cache, inputs=frames, lengths=lengths)
        # The first two tokens at once, as prompts are.
        found = [decoder(tokens[:, :2], cache=cache)]
        for place in range(2, 7):
            places = torch.full((3, 1), place)
            found.append(decoder(tokens[:, place : place + 1], places, cache=cache, last_only=True))
        attention = decoder.attention_to_sound(tokens, cache.encoded)
        assert torch.equal(attention, model.attention_to_sound(tokens, cache.encoded))
    assert (torch.cat(found, 1) - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("beams", [1, 3])
def test_same_texts(beams: int) -> None:
    model = whisper()
    never, first = model.suppressed
    options = DecodingOptions(
        temperature=0,
        beams=beams,
        max_new_tokens=8,
        suppress_tokens=never,
        begin_suppress_tokens=first,
    )
    inputs = {"inputs": torch.randn(9, 20, 5)}
    prompts = [[27, 29]] * 9
    texts = []
    for writer in (model, quick(model)):
        if beams == 1:
            texts.append(generate_batch(writer, prompts, options, {3}, inputs=inputs))
        else:
            found = beam_search(writer, prompts, options, {3}, inputs)
            texts.append([each[0].tokens for each in found])
    assert texts[0] == texts[1]
    assert len({tuple(row) for row in texts[0]}) > 1


def test_weights_in_fewer_bits() -> None:
    model = whisper()
    inputs = {"inputs": torch.randn(2, 20, 5)}
    tokens = torch.randint(30, (2, 5))
    with torch.no_grad():
        wanted = model(tokens, **inputs)
        set_weights(model, "int8", "run")
        decoder: Any = quick(model)
        cache = decoder.new_cache(2, 6)
        decoder.encode(cache, **inputs)
        found = decoder(tokens, cache=cache)
        step = decoder(tokens[:, :1], torch.full((2, 1), 5), cache=cache)
    # Rounded, and not something else.
    assert 0 < (found - wanted).abs().max() < 0.1 * wanted.abs().max()
    assert step.shape == (2, 1, 30)
