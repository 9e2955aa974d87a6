"""The gate of exports: which differences pass, which are refused, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from groundup.core.errors import CheckpointError
from groundup.export.verify import (
    Comparison,
    Limit,
    Model,
    Reader,
    Sample,
    check_tensors,
    compare,
    compare_continuations,
    first_difference,
    layer_of,
    parts_of,
)

TEXT = Sample({"tokens": torch.tensor([[5, 6, 7, 1, 2]])}, prompt=3)
ROWS = Sample({"inputs": torch.zeros(2, 3)})
PLAIN = torch.tensor([[2.0, 1.0, -4.0], [0.0, 3.0, 1.0]])


class Given(Reader):
    """A reader whose outputs are given."""

    def __init__(self, name: str, outputs: Tensor, layers: dict[str, Tensor] | None = None) -> None:
        self.name = name
        self.given = outputs
        self.seen = layers or {}

    def outputs(self, sample: Sample, positions: Sequence[int]) -> Tensor:
        return self.given[list(positions)] if sample.prompt else self.given

    def layers(self, sample: Sample) -> dict[str, Tensor]:
        return self.seen


def compared(other: Tensor, limit: Limit) -> Comparison:
    return compare(Given("the trained model", PLAIN), Given("another", other), [ROWS], limit)


def test_equal_outputs_pass_the_strictest_limit() -> None:
    found = compared(PLAIN.clone(), Limit(0.0, 0.0))
    assert found.problem() is None
    assert (found.samples, found.positions, found.scale) == (1, 2, 4.0)
    assert found.agreement == 1.0


def test_a_difference_is_relative_to_the_largest_output() -> None:
    found = compared(PLAIN + torch.tensor([0.0, 0.1, 0.0]), Limit(0.02))
    assert found.relative == pytest.approx(0.1 / 4)
    assert found.problem() == (
        "differs from the trained model by 0.1, 0.025 of the largest output 4 (allowed: 0.02)"
    )
    assert compared(PLAIN + 0.1, Limit(0.03)).problem() is None


def test_a_number_that_is_none_differs() -> None:
    broken = PLAIN.clone()
    broken[1, 2] = float("nan")
    assert "differs from the trained model by inf" in str(compared(broken, Limit(1e9)).problem())


def test_another_choice_is_refused_but_where_two_are_near() -> None:
    other = torch.tensor([[1.0, 2.0, -4.0], [0.0, 3.0, 1.0]])
    assert compared(other, Limit()).problem() == (
        "differs from the trained model in the likeliest output at 1 of 2 positions"
    )
    found = compared(other, Limit(near=1.5))
    assert (found.problem(), found.near_ties, found.same_choices) == (None, 1, 2)
    assert compared(other, Limit(choices=False)).problem() is None


def test_divergence_in_nats() -> None:
    one = Given("one", torch.log(torch.tensor([[0.5, 0.5]])))
    two = Given("two", torch.log(torch.tensor([[0.25, 0.75]])))
    found = compare(one, two, [ROWS], Limit(nats=0.1, choices=False))
    expected = 0.5 * float(torch.log(torch.tensor(0.5 / 0.25) * torch.tensor(0.5 / 0.75)))
    assert found.kl_nats == pytest.approx(expected)
    assert found.problem() == "differs from one by 0.144 nats of KL divergence (allowed: 0.1)"


def test_outputs_of_another_shape_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"gives outputs of shape \[2, 1\], but the trained"):
        compared(PLAIN[:, :1], Limit())


def test_padded_rows_of_the_embedding_may_not_win() -> None:
    assert compared(torch.cat((PLAIN, torch.full((2, 1), -9.0)), 1), Limit(0.0)).problem() is None
    with pytest.raises(CheckpointError, match="would write tokens from 3 on"):
        compared(torch.cat((PLAIN, torch.full((2, 1), 9.0)), 1), Limit())


def test_positions_of_a_text() -> None:
    assert TEXT.positions() == [0, 1, 2, 3, 4]
    assert TEXT.positions(few=True) == [2, 3, 4]
    long = Sample({"tokens": torch.zeros(1, 40, dtype=torch.int64)}, prompt=9)
    assert long.positions(few=True) == [8, 16, 24, 32]


def test_continuations_count_where_they_are_the_same_or_nearly_chosen() -> None:
    logits = torch.zeros(5, 9)
    logits[2, 1], logits[2, 4] = 3.0, 1.0  # after the prompt
    logits[3, 2], logits[3, 8] = 1.0, 0.9995
    reader = Given("the trained model", logits)
    for text, same in (([1, 2], 1), ([1], 0), ([4, 2], 0), ([1, 8], 1)):
        found = Comparison("the trained model", "another", Limit())
        compare_continuations(reader, [text], [TEXT], found)
        assert found.same_continuations == same, text


def test_the_first_layer_that_differs_is_named() -> None:
    ones = {"embed": torch.ones(2), "blocks.0": torch.ones(2), "blocks.1": torch.ones(2)}
    reference = Given("one", PLAIN, ones)
    other = Given("two", PLAIN, ones | {"blocks.1": torch.tensor([1.0, 1.2])})
    assert first_difference(reference, other, [ROWS], 0.1) == (
        "the first layer that differs is blocks.1"
    )
    assert first_difference(reference, other, [ROWS], 0.3).startswith("all layers agree")
    del other.seen["blocks.0"]
    assert first_difference(reference, other, [ROWS], 0.1).endswith(
        "blocks.1, or blocks.0 before it, which cannot be seen there"
    )
    unseen = Given("two", PLAIN)
    assert first_difference(reference, unseen, [ROWS], 0.1).startswith("no layer's output can be")


def test_tensors_are_what_was_written() -> None:
    wanted = {"blocks.1.mlp.up.weight": torch.tensor([1.0, 2.0])}
    check_tensors("x", wanted, {name: tensor.clone() for name, tensor in wanted.items()})
    for found, words in (
        ({}, "but no tensor of that name"),
        ({"blocks.1.mlp.up.weight": torch.ones(3)}, r"but \[3\]"),
        ({"blocks.1.mlp.up.weight": torch.tensor([1.0, 2.5])}, "by up to 0.5"),
    ):
        with pytest.raises(CheckpointError, match=rf"blocks\.1.*{words}"):
            check_tensors("x", wanted, found)


def test_parts_and_layers_of_a_model() -> None:
    model = nn.Module()
    model.embed = nn.Embedding(3, 2)
    model.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    model.dropout = nn.Dropout(0.1)
    assert list(parts_of(model)) == ["embed", "blocks.0", "blocks.1"]
    assert layer_of("blocks.1.mlp.up.weight") == "blocks.1"
    assert layer_of("head.weight") == "head"
    chain = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    seen = Model("one", chain).layers(Sample({"input": torch.ones(1, 3)}))
    assert list(seen) == ["0", "1"]
    assert seen["0"].shape == (1, 2)
