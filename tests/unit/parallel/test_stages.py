"""A model in stages is the model; what cannot be cut is said."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import tiny_run
from torch import Tensor, nn

from groundup.contracts.data import Refillable, Stream
from groundup.core.errors import RecipeError, RunError
from groundup.core.values import Batch
from groundup.models.bert import BERTConfig
from groundup.models.cnn import CNNConfig
from groundup.models.encoder_decoder import EncoderDecoderConfig
from groundup.models.gpt import GPTConfig
from groundup.models.mlp import MLPConfig
from groundup.models.vit import ViTConfig
from groundup.parallel.divide_layers import (
    check_stages,
    divide_layers,
    note_on_waiting,
    size_for_stages,
)
from groundup.parallel.layout import Layout
from groundup.parallel.stages import (
    cut_model,
    divide_blocks,
    front_of,
    leave_to_others,
    shared_parts,
)
from groundup.parallel.whole_steps import WholeSteps, join_batches, separate_batches
from groundup.parallel.world import World
from groundup.recipe.recipe import Recipe, load_recipe
from groundup.recipe.sections import Distill

TOKENS = torch.arange(24).view(2, 12) % 20
SMALL: dict[str, Any] = {"vocabulary_size": 20, "width": 16, "heads": 2, "context_length": 12}
PICTURES = torch.linspace(0, 1, 2 * 64).view(2, 1, 8, 8)
SHOWN: dict[str, Any] = {"input_shape": (1, 8, 8), "outputs": 3}
CASES: dict[str, tuple[nn.Module, dict[str, Tensor]]] = {
    "gpt": (GPTConfig(**SMALL, layers=3, positions="learned").build(), {"tokens": TOKENS}),
    "untied": (GPTConfig(**SMALL, layers=3, tied_embeddings=False).build(), {"tokens": TOKENS}),
    "masked": (BERTConfig(**SMALL, layers=3, head="masked").build(), {"tokens": TOKENS}),
    "labels": (BERTConfig(**SMALL, layers=3, outputs=2).build(), {"tokens": TOKENS}),
    "vit": (ViTConfig(**SHOWN, patch=2, layers=3, width=12, heads=2).build(), {"inputs": PICTURES}),
    "cnn": (
        CNNConfig(**SHOWN, channels=(3, 4), hidden=(8,), padding=True).build(),
        {"inputs": PICTURES},
    ),
    "mlp": (
        MLPConfig(inputs=64, outputs=3, hidden=(8, 8, 8), category_sizes=(3,)).build(),
        {"inputs": PICTURES, "categories": torch.tensor([[0], [2]])},
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("number", [2, 3])
def test_stages_one_after_the_other_are_the_model(name: str, number: int) -> None:
    """Each on its own copy, as on a process of its own: with what it has, and no more."""
    model, inputs = CASES[name]
    model.eval()
    stages = divide_blocks(3, number, 3)
    state: Any = None
    held: set[str] = set()
    for place in range(number):
        own = copy.deepcopy(model)
        shared = shared_parts(own)
        (stage,) = cut_model(own, stages, [place], shared)
        leave_to_others(own, [stage], shared)
        state = stage.run(lambda part: part(**inputs), state)
        # Whatever is left to others keeps its name and shape.
        tensors = own.state_dict()
        assert {key: each.shape for key, each in tensors.items()} == {
            key: each.shape for key, each in model.state_dict().items()
        }
        here = {key for key, each in tensors.items() if not each.is_meta}
        assert {key for key in here & held if "blocks" in key} == set()
        held |= here
    assert held == model.state_dict().keys()
    assert state.equal(model(**inputs))


def test_an_encoder_in_two_stages_and_its_decoder() -> None:
    """The decoder stays together, and the embedding of both is on the first and the last stage."""
    config = EncoderDecoderConfig(**SMALL, layers=2, decoder_layers=2)
    model = config.build().eval()
    inputs = {"source": TOKENS, "text": TOKENS}
    stages = divide_blocks(4, 3, 2)
    assert [len(blocks) for blocks in stages] == [1, 1, 2]
    state: Any = None
    for place in range(3):
        own = copy.deepcopy(model)
        shared = frozenset(front_of(own))
        (stage,) = cut_model(own, stages, [place], shared)
        leave_to_others(own, [stage], shared)
        state = stage.run(lambda part: part(**inputs), state)
    assert state.equal(model(**inputs))


@pytest.mark.parametrize(
    ("blocks", "stages", "divisible", "sizes"),
    [
        (12, 4, 12, [3, 3, 3, 3]),
        (7, 3, 7, [3, 2, 2]),
        (2, 2, 2, [1, 1]),
        (12, 2, 6, [6, 6]),
        (8, 2, 2, [2, 6]),
        (8, 3, 6, [3, 3, 2]),
    ],
)
def test_stages_have_as_many_blocks(
    blocks: int, stages: int, divisible: int, sizes: list[int]
) -> None:
    found = divide_blocks(blocks, stages, divisible)
    assert [len(each) for each in found] == sizes
    assert [block for each in found for block in each] == list(range(blocks))


@pytest.mark.parametrize(
    ("blocks", "divisible", "said"),
    [
        (3, 3, "needs a block for each of 4 stages, but the model has 3 blocks, which make 3 at"),
        (4, 2, "the model has 2 blocks before the decoder, which make 3 at most"),
    ],
)
def test_too_few_layers(blocks: int, divisible: int, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        divide_blocks(blocks, 4, divisible)


def _recipe(folder: Path, name: str, **sections: Any) -> Recipe:
    recipe = tiny_run(name, folder)
    for section, settings in sections.items():
        recipe[section] = recipe.get(section, {}) | settings
    return load_recipe(recipe)


@pytest.mark.parametrize(
    ("name", "sections", "said"),
    [
        ("resnet", {}, "model 'resnet' cannot be cut into stages; allowed: bert, cnn, encoder_dec"),
        ("cnn", {}, "is 2, but the loss of task 'classify' with this model is no sum over exampl"),
        ("encoder_decoder", {}, "recipe.task.measured: is the number of examples that the whole m"),
        ("encoder_decoder", {"task": {"r_drop": 1.0}}, "has a loss that reads more of the model"),
        ("gpt", {"samples": {"every": 5, "prompts": ["a"]}}, "recipe.samples.every: writes with"),
        ("gpt", {"optim": {"layer_decay": 0.9}}, "recipe.optim.layer_decay: counts the blocks of"),
        (
            "gpt",
            {"parallel": {"interleave": 2}, "machine": {"micro_batch_size": 16}},
            "recipe.parallel.interleave: needs a multiple of pipeline: 2 micro-batches, but a step",
        ),
    ],
)
def test_what_cannot_be_cut(tmp_path: Path, name: str, sections: dict[str, Any], said: str) -> None:
    """A sentence that names the key."""
    with pytest.raises(RecipeError) as raised:
        check_stages(_recipe(tmp_path, name, **sections), Layout(pipeline=2))
    assert said in str(raised.value)


def test_axes_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"parallel\.shard: divides the parameters of the whole"):
        check_stages(_recipe(tmp_path, "gpt"), Layout(pipeline=2, shard=2))


def test_a_teacher_of_rows_that_are_padded_once(tmp_path: Path) -> None:
    """Others are asked where the last stage is."""
    for name, refused in (("encoder_decoder", True), ("gpt", False)):
        sections = {"task": {"measured": 0}} if name == "encoder_decoder" else {}
        recipe = _recipe(tmp_path, name, **sections)
        taught = recipe.model_copy(update={"distill": Distill(teacher="runs/teacher")})
        if not refused:
            check_stages(taught, Layout(pipeline=2))
            continue
        with pytest.raises(RecipeError, match=r"distill: compares whole models, but with pipeline"):
            check_stages(taught, Layout(pipeline=2))


def test_layers_that_are_trained_later(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, "gpt")
    init = recipe.init.model_copy(update={"unfreeze_every": 4})
    recipe = recipe.model_copy(update={"init": init})
    with pytest.raises(RecipeError, match=r"init\.unfreeze_every: counts the blocks of the whole"):
        check_stages(recipe, Layout(pipeline=2))


class _Own(nn.Module):
    """A model of a user's own: ``way`` says how it runs its blocks."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.blocks = nn.ModuleList(_OwnBlock(pair=way == "pairs") for _ in range(2))
        self.head = nn.Linear(2, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs
        for block in self.blocks[1:] if self.way == "skips" else self.blocks:
            x = block(x, scale=2.0)
        return self.head(x)  # type: ignore[no-any-return]


class _OwnBlock(nn.Module):
    def __init__(self, *, pair: bool) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.pair = pair

    def forward(self, x: Tensor, *, scale: float) -> Any:
        found = self.inner(x) * scale
        return (found, found) if self.pair else found


def test_a_model_of_ones_own() -> None:
    """Blocks may be called by names, too."""
    model = _Own("plainly")
    x = torch.ones(3, 2)
    assert shared_parts(model) == frozenset()
    first, last = cut_model(model, divide_blocks(2, 2, 2), [0, 1], frozenset())
    state = first.run(lambda part: part(x), None)
    assert last.run(lambda part: part(x), state).equal(model(x))


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("pairs", r"a block \(_OwnBlock\) gives a tuple, but a stage passes on one tensor"),
        ("skips", r"the forward of _Own ends without block 0, though others come after it"),
    ],
)
def test_blocks_that_are_no_stages(way: str, said: str) -> None:
    (first,) = cut_model(_Own(way), divide_blocks(2, 2, 2), [0], frozenset())
    with pytest.raises(RecipeError, match=said):
        first.run(lambda part: part(torch.ones(3, 2)), None)


class _OwnConfig(MLPConfig):
    """Settings that are not the house's."""


def test_own_models_need_a_list_of_blocks(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, "mlp").model_copy(update={"model": _OwnConfig()})
    check_stages(recipe, Layout(pipeline=2))
    world = World()
    world.layout = Layout(pipeline=2)
    with pytest.raises(RecipeError, match="is 2, but Linear does not list its layers as 'blocks'"):
        divide_layers(nn.Linear(2, 2), world, recipe)


def test_micro_batches_for_stages(tmp_path: Path) -> None:
    """Left open, there are four for each stage; fewer than stages are spoken of."""
    assert size_for_stages(64, 2) == 8
    assert size_for_stages(16, 8) == 1
    assert size_for_stages(30, 2) == 3
    few = _recipe(tmp_path, "gpt", machine={"micro_batch_size": 16})
    note = note_on_waiting(few, Layout(pipeline=2))
    assert note.startswith("a step has 1 micro-batches for 2 processes in a row: each waits 50% of")
    assert note_on_waiting(few, Layout()) == ""
    many = _recipe(tmp_path, "gpt", machine={"micro_batch_size": 2})
    assert note_on_waiting(many, Layout(pipeline=2)) == ""


def test_micro_batches_as_one_batch() -> None:
    batches = [{"tokens": torch.full((2,), n), "part/inputs": torch.zeros(n)} for n in range(3)]
    separated = separate_batches(join_batches(batches))
    for one, two in zip(batches, separated, strict=True):
        assert one.keys() == two.keys()
        assert all(np.array_equal(one[name], two[name]) for name in one)
    assert separate_batches(batches[0]) == [batches[0]]


class _Numbers(Stream):
    """Batches of one number each, rising."""

    def __init__(self) -> None:
        self.next = 0

    def __next__(self) -> Batch:
        self.next += 1
        return {"tokens": torch.tensor([self.next])}

    @property
    def samples_per_epoch(self) -> int:
        return 8

    def state_dict(self) -> dict[str, Any]:
        return {"samples": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.next = state["samples"]

    def close(self) -> None:
        self.next = -1


class _Refilled(_Numbers):
    """One whose examples the weights make."""

    def refill(self, model: nn.Module, step: int) -> None:
        raise AssertionError("is refused before")

    def buffer(self) -> dict[str, Tensor]:
        return {}

    def load_buffer(self, tensors: dict[str, Tensor]) -> None:
        raise AssertionError("is refused before")


def test_examples_made_by_the_weights_are_refused() -> None:
    assert isinstance(_Refilled(), Refillable)
    with pytest.raises(RunError, match=r"pipeline: needs data that is there before the run, but"):
        WholeSteps(_Refilled(), 2)


def test_whole_steps_go_on_where_they_were() -> None:
    steps = WholeSteps(_Numbers(), 3)
    found = [[int(each["tokens"]) for each in separate_batches(next(steps))] for _ in range(2)]
    assert found == [[1, 2, 3], [4, 5, 6]]
    assert steps.state_dict() == {"samples": 6}
    other = WholeSteps(_Numbers(), 2)
    other.load_state_dict(steps.state_dict())
    assert [int(each["tokens"]) for each in separate_batches(next(other))] == [7, 8]
