"""A model that does not keep its contract is told which one, and what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.models.mlp import MLPConfig
from groundup.testing import ContractError, check_model

INPUTS = {"inputs": torch.randn(8, 6, generator=torch.Generator().manual_seed(0))}


class Classifier(nn.Module):
    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.hidden, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.scale = torch.rand(()) if fault == "plain tensor" else 1.0
        if fault == "unused":
            self.spare = nn.Linear(2, 2)
        if fault == "shared":
            self.also = self.head
        if fault == "own seed":
            weight = torch.rand(8, 6, generator=torch.Generator().manual_seed(len(BUILT)))
            self.hidden.weight = nn.Parameter(weight)
        BUILT.append(fault)

    def forward(self, inputs: Tensor) -> Any:
        if self.fault == "batch":
            inputs = inputs - inputs.mean(0)
        if self.fault == "ignores":
            inputs = torch.ones_like(inputs)
        found = self.head(self.hidden(inputs).tanh()) * self.scale
        return (found, None) if self.fault == "tuple" else found


BUILT: list[str] = []


class ClassifierConfig(ModelConfig):
    fault: str = ""

    def build(self) -> nn.Module:
        return Classifier(self.fault)

    def flops_per_token(self, context: int) -> float:
        return 1.0 if self.fault == "flops" else 6.0 * (6 * 8 + 8 * 3)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("own seed", r"two builds of hidden\.weight differ"),
        ("unused", r"these receive none: spare\.weight, spare\.bias\. Use them in forward"),
        ("batch", r"a row's outputs depend on that row alone: outputs of others differ by"),
        ("ignores", "another input gave the same outputs"),
        (
            "shared",
            "head.weight and also.weight are one tensor, which a file holds once. Give it one",
        ),
        ("plain tensor", "outputs of the model read again differ"),
        ("tuple", "it returned tuple"),
        ("flops", "it states 1, but PyTorch counts"),
    ],
)
def test_a_classifier_with_a_fault(fault: str, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_model(ClassifierConfig(fault=fault), INPUTS)


def test_a_classifier_without_one() -> None:
    state = torch.random.get_rng_state()
    check_model(ClassifierConfig, INPUTS)
    assert torch.equal(torch.random.get_rng_state(), state)


class Language(nn.Module):
    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 20)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        fault = self.config.fault
        states = self.embed(tokens)
        states = states + states.mean(1, keepdim=True) if fault == "looks ahead" else states
        logits = self.head(states)
        if fault == "last":
            logits = logits[:, -1]
        if targets is None:
            return logits  # type: ignore[no-any-return]
        if fault == "mean":
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
        ignored = 0 if fault == "all targets" else -100
        found = F.cross_entropy(
            logits.flatten(0, 1), targets.flatten().clamp(min=ignored), reduction="sum"
        )
        return found.double() if fault == "double" else found


class LanguageConfig(ModelConfig):
    fault: str = ""
    context_length: int = 8
    vocabulary_size: int = 20

    def build(self) -> nn.Module:
        return Language(self)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("looks ahead", "outputs before position 4, whose token was changed, differ by"),
        ("mean", "two halves' sums differ by"),
        ("all targets", "two halves' sums differ by"),
        ("double", r"it returned float64 \(\)"),
    ],
)
def test_a_language_model_with_a_fault(fault: str, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_model(LanguageConfig(fault=fault))


def test_a_language_model_without_one() -> None:
    state = torch.random.get_rng_state()
    check_model(LanguageConfig)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_without_inputs_tokens_must_be_known() -> None:
    with pytest.raises(
        ContractError, match=r"vocabulary_size 0 and context_length 0.*argument inp"
    ):
        check_model(MLPConfig(inputs=6, outputs=3))


def test_rows_must_be_several() -> None:
    with pytest.raises(ContractError, match=r"inputs have 2 rows.*Give three"):
        check_model(MLPConfig(inputs=6, outputs=3), {"inputs": torch.randn(2, 6)})


def test_parts_in_the_wrong_order() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])

        def forward(self, inputs: Tensor) -> Tensor:
            return self.blocks[0](self.blocks[1](inputs))  # type: ignore[no-any-return]

    class BackwardsConfig(ModelConfig):
        def build(self) -> nn.Module:
            return Backwards()

    with pytest.raises(ContractError, match=r"used in the order blocks\.1\.weight, blocks\.0\.we"):
        check_model(BackwardsConfig, INPUTS)
