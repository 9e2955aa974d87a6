"""What every model that reads one text and writes another keeps: the contract of models, and that
neither padding nor later tokens matter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from encoder_decoders import ENCODER_DECODERS, SHAPE, texts
from torch.nn import functional as F
from writers import check_cached_and_double, check_order_and_sums

from groundup.contracts.models import EncoderDecoder, Generates, blocks_of
from groundup.core.errors import DataError
from groundup.core.registry import lookup
from groundup.core.settings import validate
from groundup.testing import check_model

CASES = [(name, n) for name, cases in ENCODER_DECODERS.items() for n in range(len(cases))]


def tiny(name: str, index: int) -> tuple[Any, Any]:
    torch.manual_seed(0)
    config = validate(lookup("model", name), ENCODER_DECODERS[name][index], "recipe.model")
    return config, config.build()


@pytest.mark.parametrize(("name", "index"), CASES)
def test_it_keeps_the_contract_of_models(name: str, index: int) -> None:
    config, model = tiny(name, index)
    check_model(config, texts(), untrained=("key.bias",))
    assert isinstance(model, EncoderDecoder)
    assert isinstance(model, Generates)
    assert len(blocks_of(model)) == config.layers + (config.decoder_layers or config.layers)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_an_example_alone_gives_what_it_gives_in_a_batch(name: str, index: int) -> None:
    _, model = tiny(name, index)
    given = texts()
    together = model.eval()(**given)
    for row, length in enumerate((7, 2, 5)):
        source = given["source"][row : row + 1, :length]
        alone = model(source=source, text=given["text"][row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-5)
        # Padded on the left it is the same input.
        left = F.pad(source, (3, 0), value=4)
        mask = F.pad(torch.ones_like(source, dtype=torch.bool), (3, 0))
        padded = model(source=left, source_mask=mask, text=given["text"][row : row + 1])
        torch.testing.assert_close(padded[0], together[row], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_nothing_looks_ahead_and_losses_are_sums(name: str, index: int) -> None:
    config, model = tiny(name, index)
    given = texts()
    check_order_and_sums(model, given)
    tokens = F.pad(given["text"][:, :-1], (1, 0), value=config.first_token)
    whole = {key: values for key, values in given.items() if key != "text"}
    assert torch.equal(model(tokens, **whole), model(**given))


@pytest.mark.parametrize(("name", "index"), CASES)
def test_cached_and_in_double_precision(name: str, index: int) -> None:
    check_cached_and_double(tiny(name, index)[1], texts())


def test_positions_end_where_their_table_does() -> None:
    _, model = tiny("encoder_decoder", 2)
    problem = (
        "a sequence of 13 tokens, but positions end at 12. Cut the texts to 12 tokens .task.max"
    )
    with pytest.raises(DataError, match=problem):
        model(source=torch.zeros(1, 13, dtype=torch.int64), text=torch.zeros(1, 2).long())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 15}, "width 15 is not a multiple of heads 2"),
        ({"head_dim": 5}, "head_dim 5 is odd, but rotary positions turn channels in pairs"),
        (
            {"positions": "sinusoidal", "width": 15, "heads": 3},
            "width 15 is odd, but sinusoidal positions are sines and as many cosines",
        ),
        (
            {"positions": "relative", "relative_distance": 16},
            "relative_distance 16 leaves no range for the larger half of relative_buckets 32",
        ),
        ({"start_id": 30}, "start_id 30 is no token of a vocabulary of 30. Use at most 29"),
        ({"padding_id": 31}, "padding_id 31 is no token of a vocabulary of 30"),
    ],
)
def test_impossible_shapes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        validate(lookup("model", "encoder_decoder"), SHAPE | changes, "recipe.model")
