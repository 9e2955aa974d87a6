"""What a model of frames keeps: gradients, FLOPs, padding and other rows that do not matter, and
what torch's own modules compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from groundup.contracts.models import blocks_of
from groundup.contracts.speech import EmitsFrames
from groundup.models.ctc import CTC, CTCConfig
from groundup.testing import check_model

SIZES: dict[str, Any] = {"layers": 2, "width": 16, "frame_width": 5, "vocabulary_size": 7}
BLOCKS: dict[str, dict[str, Any]] = {
    "bilstm": {},
    "transformer": {"heads": 2},
    "conformer": {"heads": 2, "kernel": 7},
}
SPEECH = {"ctc": [{**SIZES, "blocks": name, **own} for name, own in BLOCKS.items()]}
LENGTHS = torch.tensor([37, 20, 9, 1])


def made(blocks: str, **settings: Any) -> CTC:
    torch.manual_seed(0)
    return CTCConfig(blocks=blocks, **SIZES, **BLOCKS[blocks], **settings).build().eval()


@pytest.mark.parametrize("subsampling", [1, 2, 4, 8])
@pytest.mark.parametrize("blocks", BLOCKS)
def test_it_keeps_the_contract_of_models(blocks: str, subsampling: int) -> None:
    config = CTCConfig(blocks=blocks, **SIZES, **BLOCKS[blocks], subsampling=subsampling)
    inputs = {"inputs": torch.randn(4, 37, 5), "lengths": LENGTHS}
    # A key's bias shifts all scores of a query alike: its gradient is rounding.
    check_model(config, inputs, untrained=("key.bias",))


@pytest.mark.parametrize("subsampling", [1, 2, 4, 8])
@pytest.mark.parametrize("blocks", BLOCKS)
def test_padding_changes_nothing(blocks: str, subsampling: int) -> None:
    model = made(blocks, subsampling=subsampling)
    frames = torch.randn(4, 37, 5)
    other = frames.clone()
    for row, length in enumerate(LENGTHS.tolist()):
        other[row, length:] = 99.0
    kept = model.output_lengths(LENGTHS).tolist()
    with torch.no_grad():
        together = model(frames, LENGTHS)
        changed = model(other, LENGTHS)
        for row, length in enumerate(LENGTHS.tolist()):
            alone = model(frames[row : row + 1, :length])[0]
            assert len(alone) == kept[row] == -(-length // subsampling)
            torch.testing.assert_close(together[row, : kept[row]], alone, atol=1e-5, rtol=1e-5)
            assert torch.equal(changed[row, : kept[row]], together[row, : kept[row]])


@pytest.mark.slow
@pytest.mark.parametrize("blocks", BLOCKS)
def test_sounds_of_like_lengths_are_computed_together(blocks: str) -> None:
    model = made(blocks).double()
    # Two long ones and many short: two groups, in which the rows are not in their order.
    lengths = torch.tensor([20, 900, 24, 16, 20, 880, 12, 20])
    frames = torch.randn(8, 900, 5, dtype=torch.float64)
    groups = model._groups(lengths)
    assert [sorted(group.tolist()) for group in groups] == [[1, 5], [0, 2, 3, 4, 6, 7]]
    inside = torch.arange(225) < model.output_lengths(lengths)[:, None]
    found = {}
    for name, run in {"groups": model, "whole": model._logits}.items():
        model.zero_grad()
        logits = run(frames, lengths)
        assert logits.shape == (8, 225, 8)
        logits[inside].pow(2).sum().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found[name] = [logits[inside].detach(), *gradients]
    torch.testing.assert_close(found["groups"], found["whole"], rtol=1e-9, atol=1e-9)


def test_it_says_what_it_emits() -> None:
    model = made("bilstm")
    assert isinstance(model, EmitsFrames)
    assert model.blank_id == 7
    assert model.reach == 4
    assert model(torch.randn(2, 8, 5)).shape == (2, 2, 8)
    assert len(blocks_of(model)) == 2


def test_lstms_are_those_of_torch() -> None:
    model = made("bilstm", subsampling=1, subsampling_kernel=3)
    frames = torch.randn(3, 20, 5)
    lengths = torch.tensor([20, 11, 4])
    stack = nn.LSTM(16, 8, num_layers=2, bidirectional=True, batch_first=True)
    weights = {}
    for layer, block in enumerate(model.blocks):
        for name, value in block.state_dict().items():
            weights[name.replace("_l0", f"_l{layer}")] = value
    stack.load_state_dict(weights)
    convolution = model.embed.layers[0]
    with torch.no_grad():
        for row, length in enumerate(lengths.tolist()):
            # One after the other, without any padding.
            own = frames[row, :length].T[None]
            read = F.gelu(convolution(own)).transpose(1, 2)
            wanted = model.head(model.norm(stack(read)[0]))[0]
            found = model(frames, lengths)[row, :length]
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_attention_is_that_of_torch_where_nothing_turns() -> None:
    """A frame alone sees itself: attention is then the value's projection, whatever the
    position."""
    model = made("transformer", subsampling=1)
    block = model.blocks[0]
    frame = torch.randn(1, 1, 5)
    with torch.no_grad():
        x, _ = model.embed(frame, torch.tensor([1]))
        attended = block.attention.output(block.attention.value(block.attention_norm(x)))
        x = x + attended
        x = x + block.mlp.down(F.silu(block.mlp.up(block.mlp_norm(x))))
        other = model.blocks[1]
        x = x + other.attention.output(other.attention.value(other.attention_norm(x)))
        x = x + other.mlp.down(F.silu(other.mlp.up(other.mlp_norm(x))))
        wanted = model.head(model.norm(x))
        torch.testing.assert_close(model(frame), wanted, atol=1e-6, rtol=1e-5)


def test_a_wide_model_is_computed_in_float64() -> None:
    model = made("conformer")
    frames = torch.randn(2, 30, 5)
    with torch.no_grad():
        narrow = model(frames)
        wide = model.double()(frames.double())
    assert wide.dtype == torch.float64
    torch.testing.assert_close(narrow.double(), wide, atol=1e-5, rtol=1e-5)
