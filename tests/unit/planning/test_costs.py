"""What a step costs: sizes, memory, traffic and time, each by hand or by the model itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.core.errors import RecipeError
from groundup.machine.meta_device import without_content
from groundup.models.gpt import GPTConfig
from groundup.models.mlp import MLPConfig
from groundup.parallel.layout import AXES, Layout
from groundup.planning.device_table import device_named
from groundup.planning.memory import estimate_memory
from groundup.planning.step_time import estimate_step, sent_bytes
from groundup.planning.workload import DecoderShape, Practice, Workload, shape_of
from groundup.recipe.recipe import load_recipe

ROOT = Path(__file__).parents[3]
SMALL = DecoderShape(8, 1024, 16, 8, 64, 4096, 32000)
BIG = DecoderShape(80, 8192, 64, 8, 128, 28672, 128256)


def work(shape: DecoderShape = SMALL, micro: int = 1, batch: int = 64, **axes: Any) -> Workload:
    practice = axes.pop("practice", Practice())
    return Workload(shape, Layout(**axes), batch, 2048, micro, practice)


@pytest.mark.parametrize("size", ["micro", "smollm2-135m", "llama3.2-1b", "mistral-7b"])
def test_sizes_are_those_of_the_model(size: str) -> None:
    config = GPTConfig.sizes()[size].model_copy(update={"vocabulary_size": 4096})
    shape = shape_of(config)
    with without_content():
        model = config.build()
    assert shape.parameters == sum(each.numel() for each in model.parameters())
    length = config.context_length
    assert shape.flops_per_token(length) == pytest.approx(config.flops_per_token(length))


def test_the_recipe_of_405_billion_parameters() -> None:
    recipe = load_recipe(ROOT / "recipes" / "scale" / "llama_405b_plan.yaml")
    assert shape_of(recipe.model).parameters == 405_853_388_800
    assert recipe.training.batch_size * 8192 == 2**24


def test_what_is_no_decoder_only_model() -> None:
    with pytest.raises(RecipeError, match=r"recipe.model: is no decoder-only language model, but"):
        shape_of(MLPConfig())
    with pytest.raises(RecipeError, match=r"recipe.model.vocabulary_size: is 0, which takes the"):
        shape_of(GPTConfig())
    assert shape_of(GPTConfig(), 512).vocabulary == 512


def saved_bytes(config: GPTConfig) -> int:
    """Return the bytes that a forward pass in bfloat16 keeps for the backward pass."""
    model = config.build()
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(values: torch.Tensor) -> torch.Tensor:
        if values.untyped_storage().data_ptr() not in weights:
            kept[values.untyped_storage().data_ptr()] = values
        return values

    tokens = torch.randint(0, 64, (2, 256))
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda values: values)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16):
        output = model.hidden(tokens)
    del output
    return sum(values.untyped_storage().nbytes() for values in kept.values())


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [{}, {"kv_heads": 2, "mlp_width": 1024, "heads": 8}])
def test_activations_are_those_that_autograd_keeps(sizes: dict[str, int]) -> None:
    settings = {"vocabulary_size": 64, "context_length": 256, "width": 256, "heads": 4} | sizes
    # The difference of two depths, as the embedding and the end keep something, too.
    two, four = (GPTConfig(layers=layers, **settings) for layers in (2, 4))
    shape = shape_of(four)
    found = (saved_bytes(four) - saved_bytes(two)) / 2 - 2 * shape.block_parameters
    step = Workload(shape, Layout(), 2, 256, 2)
    # On a CPU shared keys and values are written out for each head.
    planned = estimate_memory(step)["activations"] / shape.layers
    assert planned == pytest.approx(found, rel=0.08)


def test_weights_and_states_are_shared_out() -> None:
    whole = estimate_memory(work())
    assert whole["weights"] == pytest.approx(4 * SMALL.parameters, rel=1e-3)
    assert whole["optimizer"] == 2 * whole["weights"]
    for axes in ({"shard": 4}, {"tensor": 4}):
        part = estimate_memory(work(**axes))
        for name in ("weights", "gradients", "optimizer"):
            assert part[name] == pytest.approx(whole[name] / 4)
    # Copies share nothing, and other tokens need the same weights.
    for axes in ({"replicate": 4}, {"context": 4}):
        assert estimate_memory(work(**axes))["weights"] == whole["weights"]
    assert estimate_memory(work(context=4))["activations"] == whole["activations"] / 4
    # What is between products is whole on each of the tensor axis, unless it is divided, too.
    divided = work(tensor=4, practice=Practice(divided_stream=True))
    assert estimate_memory(divided)["activations"] == pytest.approx(whole["activations"] / 4)
    undivided = estimate_memory(work(tensor=4))["activations"]
    assert whole["activations"] / 4 < undivided < whole["activations"]
    # One moment instead of two.
    assert estimate_memory(work(), 1)["optimizer"] == whole["weights"]


def test_a_stage_holds_the_micro_batches_that_are_under_way() -> None:
    whole = estimate_memory(work())["activations"]
    assert estimate_memory(work(pipeline=4))["activations"] == pytest.approx(whole)
    few = estimate_memory(work(pipeline=4, batch=2))["activations"]
    assert few == pytest.approx(whole / 2)


def test_computing_again_saves_memory_and_costs_time() -> None:
    device = device_named("A100")
    kinds = ("none", "selective", "full")
    steps = [work(BIG, shard=64, practice=Practice(recompute=kind)) for kind in kinds]
    memory = [estimate_memory(each)["activations"] for each in steps]
    times = [estimate_step(each, device).matmul for each in steps]
    assert memory == sorted(memory, reverse=True)
    assert times == sorted(times)
    # A forward pass once more, of three, without the output layer.
    assert times[2] / times[0] == pytest.approx(4 / 3, rel=0.02)


def test_what_is_sent() -> None:
    weights = work().parameters_here
    # Ring: each device sends (n - 1) / n of all, twice where sums are needed everywhere.
    assert sent_bytes(work(replicate=4))["replicate"] == pytest.approx(2 * 0.75 * 4 * weights)
    # For each micro-batch weights in bfloat16 twice and gradients in float32 once.
    sharded = work(shard=4, micro=4)
    assert sharded.micro_batches == 4
    assert sent_bytes(sharded)["shard"] == pytest.approx(4 * 0.75 * 8 * weights)
    once = replace(sharded, practice=Practice(whole_copies=True))
    assert sent_bytes(once)["shard"] == pytest.approx(0.75 * 6 * weights)
    stream = 2048 * 1024 * 2
    # Four sums of activations a block, each as much as a sum shared out and a gathering.
    tensor = sent_bytes(work(tensor=4))["tensor"]
    assert tensor == pytest.approx(64 * 8 * 8 * 0.75 * stream)
    divided = sent_bytes(work(tensor=4, practice=Practice(divided_stream=True)))["tensor"]
    assert divided == pytest.approx(tensor * 10 / 8)
    keys = 2048 * 2 * 512 * 2
    assert sent_bytes(work(context=4))["context"] == pytest.approx(64 * 8 * 3 * 0.75 * keys)
    assert sent_bytes(work(pipeline=4))["pipeline"] == pytest.approx(64 * 2 * stream)
    assert set(sent_bytes(work()).values()) == {0.0}


def test_the_bubble_of_a_pipeline() -> None:
    assert work().bubble == 0
    # (p - 1) / (m + p - 1)
    assert work(pipeline=4).bubble == pytest.approx(3 / 67)
    taken_in_turn = work(pipeline=4, practice=Practice(stages=2))
    assert taken_in_turn.bubble == pytest.approx(1.5 / 65.5)
    step = estimate_step(work(pipeline=4), device_named("H100"))
    assert step.bubble > 0.04 * step.matmul


def test_time_goes_down_with_devices_and_up_with_slow_links() -> None:
    device = device_named("H100")
    one = estimate_step(work(BIG, micro=8, batch=8), device)
    eight = estimate_step(work(BIG, micro=8, shard=8), device)
    # Eight times the work by as many devices, which exchange weights behind it.
    assert one.matmul == eight.matmul
    assert eight.waiting["shard"] > 0
    assert eight.total == pytest.approx(one.total, rel=0.2)
    # An axis within a machine travels over its links, and across machines over the network.
    slow = replace(device, network_rate=device.network_rate / 10)
    within = work(BIG, tensor=8)
    assert estimate_step(within, slow).total == estimate_step(within, device).total
    across = work(BIG, tensor=8, replicate=8)
    assert estimate_step(across, slow).total > 1.5 * estimate_step(across, device).total
    slow = replace(device, link_rate=device.link_rate / 10)
    waited = estimate_step(within, slow).waiting["tensor"]
    assert waited > 5 * estimate_step(within, device).waiting["tensor"]


def test_parts_of_a_text_see_more_the_later_they_are() -> None:
    device = device_named("H100")
    even = replace(work(context=4), practice=Practice(balance_context=True))
    waited = estimate_step(work(context=4), device).attention
    # The last of four sees 7/8 of the text on average, and all of them 1/2.
    assert waited == pytest.approx(1.75 * estimate_step(even, device).attention)


def test_the_parts_of_a_step_are_all_of_it() -> None:
    step = estimate_step(work(BIG, tensor=4, pipeline=2, shard=4), device_named("H100"))
    assert set(step.waiting) == set(AXES)
    parts = step.matmul + step.attention + step.elementwise + sum(step.waiting.values())
    assert step.total == pytest.approx(parts + step.bubble)
