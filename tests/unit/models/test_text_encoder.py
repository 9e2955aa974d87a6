"""The text encoder inside a generator: empty texts, padding, and which models can be one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from groundup.models.text_encoder import TextEncoder, complete_text, text_flops
from groundup.processors.captioned_pictures import CaptionedPictures
from groundup.processors.image import ImageProcessor
from groundup.processors.labelled import Labelled
from groundup.processors.targets import FixedTargets
from groundup.processors.text.bytes import BytesConfig

ENCODERS: list[dict[str, Any]] = [
    {"name": "transformer_classifier", "layers": 1, "width": 8, "heads": 2},
    {"name": "bert", "layers": 1, "width": 8, "heads": 2, "context_length": 12},
    {"name": "rnn", "width": 6, "cell": "gru", "bidirectional": True},
]
PROCESSOR = CaptionedPictures(
    ImageProcessor((1, 4, 4), None, [0.5], [0.5]),
    Labelled(BytesConfig().fit(lambda: iter([])), FixedTargets(()), 12, head="none"),
    range(256),
)


def encoder_of(section: dict[str, Any]) -> TextEncoder:
    torch.manual_seed(0)
    completed = complete_text(section, PROCESSOR, "unet")
    assert completed is not None
    # What a run's recipe holds is completed again when it is read.
    assert complete_text(completed, PROCESSOR, "unet") == completed
    assert text_flops(completed) > 0
    return TextEncoder(completed, 10).eval()


@pytest.mark.parametrize("section", ENCODERS)
def test_padding_changes_nothing_and_an_empty_text_is_nothing(section: dict[str, Any]) -> None:
    encoder = encoder_of(section)
    read = PROCESSOR.encode_captions(["a red hat", "", "a cat"])
    assert read["text_lengths"].tolist() == [9, 0, 5]
    with torch.no_grad():
        told = encoder(read["text"], read["text_lengths"])
        alone = PROCESSOR.encode_captions(["a cat"])
        short = encoder(alone["text"], alone["text_lengths"])
        other = read["text"].clone()
        other[1] = 65
        again = encoder(other, read["text_lengths"])
    assert told.vector.shape == (3, 10)
    assert told.states is not None
    assert told.states.shape == (3, 10, encoder.state_width)
    assert told.padding is not None
    assert (~told.padding).sum(-1).flatten().tolist() == [10, 1, 6]
    torch.testing.assert_close(told.vector[2], short.vector[0])
    assert short.states is not None
    torch.testing.assert_close(told.states[2, :6], short.states[0])
    # Whatever tokens are hidden behind it.
    assert torch.equal(again.vector[1], told.vector[1])
    assert not torch.allclose(told.vector[0], told.vector[2])


def test_heads_are_left_out() -> None:
    names = [name for name, _ in encoder_of(ENCODERS[0]).named_parameters()]
    assert not any("head" in name for name in names)
    assert "encoder.embed.weight" in names
