"""What a model of sounds and texts keeps: the contract of models, and that neither padding nor later
tokens matter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from writers import check_cached_and_double, check_order_and_sums

from groundup.contracts.models import EncoderDecoder, Generates, blocks_of
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.models.whisper import WhisperConfig
from groundup.testing import check_model
from groundup.testing.flops import FlopTotal
from groundup.training.layer_freezing import freeze_all_but

SHAPE: dict[str, Any] = {
    "vocabulary_size": 30,
    "mel_bands": 5,
    "width": 16,
    "heads": 2,
    "layers": 2,
    "context_length": 12,
    "source_positions": 10,
}
CASES = [
    {**SHAPE, "start_id": 3},
    {**SHAPE, "decoder_layers": 1, "mlp_width": 24, "window_frames": 14, "dropout": 0.1},
]


WHISPER = {"whisper": CASES}


def tiny(settings: dict[str, Any]) -> tuple[WhisperConfig, Any]:
    torch.manual_seed(0)
    config = validate(WhisperConfig, settings, "recipe.model")
    return config, config.build()


def sounds() -> dict[str, Tensor]:
    """Return sounds of three lengths, filled up with zeros, and texts about them."""
    torch.manual_seed(1)
    lengths = torch.tensor([13, 3, 8])
    frames = torch.randn(3, 13, 5)
    frames[torch.arange(13) >= lengths[:, None]] = 0
    return {"inputs": frames, "lengths": lengths, "text": torch.randint(30, (3, 6))}


@pytest.mark.parametrize("settings", CASES)
def test_it_keeps_the_contract_of_models(settings: dict[str, Any]) -> None:
    config, model = tiny(settings)
    # FLOPs are stated for a text as long as the first input is.
    frames = torch.randn(3, config.window, 5)
    text = torch.randint(30, (3, 6))
    check_model(config, {"text": text, "inputs": frames, "lengths": torch.tensor([14, 3, 8])})
    assert isinstance(model, EncoderDecoder)
    assert isinstance(model, Generates)
    assert len(blocks_of(model)) == config.layers + (config.decoder_layers or config.layers)
    assert not any(name.endswith("attention.key.bias") for name in model.state_dict())


@pytest.mark.parametrize("settings", CASES)
def test_a_sound_alone_gives_what_it_gives_in_a_batch(settings: dict[str, Any]) -> None:
    _, model = tiny(settings)
    given = sounds()
    together = model.eval()(**given)
    for row, length in enumerate(given["lengths"].tolist()):
        alone = model(
            inputs=given["inputs"][row : row + 1, :length], text=given["text"][row : row + 1]
        )
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-5)


def test_nothing_looks_ahead_and_losses_are_sums() -> None:
    check_order_and_sums(tiny(CASES[0])[1], sounds())


def test_cached_and_in_double_precision() -> None:
    check_cached_and_double(tiny(CASES[1])[1], sounds())


def test_what_does_not_fit_is_refused() -> None:
    _, model = tiny(CASES[1])
    given = sounds()
    with pytest.raises(DataError, match="a sound has 15 frames, but the model's window 14"):
        model(inputs=torch.randn(1, 15, 5), text=given["text"][:1])
    # What is cut off there is no part of the sound.
    model(inputs=torch.randn(1, 20, 5), lengths=torch.tensor([13]), text=given["text"][:1])
    with pytest.raises(DataError, match="a sequence of 13 tokens, but positions end at 12"):
        model(inputs=given["inputs"][:1], text=torch.zeros(1, 13, dtype=torch.int64))
    for changed, message in (
        ({"window_frames": 22}, "window_frames 22 is more than the encoder has positions for"),
        ({"window_frames": 5}, "multiple of 2"),
        ({"start_id": 30}, "start_id 30 is no token of a vocabulary of 30"),
        ({"heads": 3}, "width 16 is not a multiple of heads 3"),
    ):
        with pytest.raises(RecipeError, match=message):
            validate(WhisperConfig, {**SHAPE, **changed}, "recipe.model")
    with pytest.raises(RecipeError, match="mel_bands: is 0, but no processor has filled it in"):
        WhisperConfig(vocabulary_size=3).build()


# What PyTorch says when oneDNN is switched off.
@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("trained", [None, 3, 2, 1])
def test_flops_are_those_that_pytorch_counts(trained: int | None) -> None:
    config, model = tiny({**CASES[0], "width": 64})
    if trained is not None:
        freeze_all_but(model, trained)
    given = {"inputs": torch.randn(1, config.window, 5), "text": torch.randint(30, (1, 12))}
    counter = FlopTotal()
    with counter, sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False):
        model(**given, targets=given["text"]).sum().backward()
    expected = config.trained_flops_per_token(12, trained) * 12
    # What reads numbers passes no gradient to them, and a causal mask leaves out pairs of tokens.
    assert expected == pytest.approx(counter.flops, rel=0.05)
