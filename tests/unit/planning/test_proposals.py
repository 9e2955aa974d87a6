"""Which layout is proposed, what a plan says, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from groundup.core.errors import GroundupError, RecipeError
from groundup.parallel.layout import Layout
from groundup.planning.device_table import Devices, device_named, known_devices, parse_devices
from groundup.planning.paper import plan_on_paper
from groundup.planning.propose import propose
from groundup.planning.workload import DecoderShape, Practice
from groundup.recipe.recipe import Recipe, load_recipe

SMALL = DecoderShape(12, 768, 12, 12, 64, 3072, 50304)
HUGE = DecoderShape(126, 16384, 128, 8, 128, 53248, 128256)
RECIPE: dict[str, Any] = {
    "name": "planned",
    "model": {"name": "gpt", "layers": 12, "width": 768, "heads": 12, "context_length": 1024},
    "task": "language_modeling",
    "processor": {"name": "bpe", "vocab_size": 8192},
    "data": {"name": "text", "path": "texts"},
    "training": {"batch_size": 64, "steps": 1000},
}


MICRO = {"micro_batch_size": 4}


def recipe(**sections: Any) -> Recipe:
    return load_recipe(RECIPE | sections)


def practice(layout: Layout) -> Practice:
    return Practice(fused=True, whole_copies=layout.pipeline > 1)


@pytest.mark.slow
def test_a_small_model_is_copied_and_a_huge_one_divided() -> None:
    eight = Devices(8, device_named("H100"))
    choice = propose(SMALL, 512, 1024, eight, practice)
    assert choice.best.axes in ({"replicate": 8}, {"shard": 8})
    assert len(choice.reasons) == 1
    many = Devices(4096, device_named("H100"))
    choice = propose(HUGE, 2048, 8192, many, practice)
    assert choice.best.work.layout.size == 4096
    assert choice.best.memory_bytes < many.device.memory_bytes
    assert choice.best.axes["tensor"] > 1
    reasons = dict(zip(choice.best.axes, choice.reasons, strict=True))
    assert all(reason.startswith(f"{axis} ") for axis, reason in reasons.items())
    assert "without it nothing fits;" in reasons["tensor"]
    assert "longer, with" in reasons["pipeline"]


def test_one_device_needs_no_reason() -> None:
    choice = propose(SMALL, 8, 1024, Devices(1, device_named("A100")), practice)
    assert choice.best.name == "one device"
    assert choice.reasons == []


def test_what_cannot_be_proposed() -> None:
    with pytest.raises(RecipeError, match=r"no layout fits: the least, .* needs \d+ GB a device"):
        propose(HUGE, 64, 8192, Devices(8, device_named("H100")), practice)
    with pytest.raises(RecipeError, match=r"is 3, which 7 devices cannot share in any layout"):
        propose(SMALL, 3, 1024, Devices(7, device_named("H100")), practice, micro=2)


def test_a_plan_of_a_recipe_that_leaves_the_layout_open() -> None:
    plan = plan_on_paper(recipe(), "8xH100")
    assert plan["devices"] == "8 x H100"
    assert {axis: size for axis, size in plan["layout"].items() if size > 1} == (
        plan["proposal"]["layout"]
    )
    memory = plan["memory_gb"]
    assert list(memory) == ["weights", "gradients", "optimizer", "activations", "temporary"]
    assert plan["memory_gb_in_all"] == pytest.approx(sum(memory.values()), abs=0.03)
    tokens = 64 * 1024
    assert plan["tokens_per_s"] == pytest.approx(tokens / plan["step_s"], rel=0.05)
    assert plan["days"] == pytest.approx(1000 * plan["step_s"] / 86400, abs=1e-3)
    assert 0 < plan["mfu"] < 0.76
    assert plan["tflops_per_device"] == pytest.approx(989 * plan["mfu"], rel=0.01)


def test_a_plan_of_a_layout_that_the_recipe_gives() -> None:
    given = recipe(parallel={"tensor": 2, "pipeline": 2}, optim={"average": "ema"})
    plan = plan_on_paper(given, "16xA100")
    assert plan["layout"] == {
        "pipeline": 2,
        "replicate": 4,
        "shard": 1,
        "context": 1,
        "tensor": 2,
    }
    assert set(plan["sent_gb_per_step"]) == {"pipeline", "replicate", "tensor"}
    assert plan["bubble"] > 0
    assert "average" in plan["memory_gb"]
    assert plan["proposal"]["step_s"] <= plan["step_s"]


def test_stages_in_turn_make_the_bubble_smaller() -> None:
    plans = [
        plan_on_paper(
            recipe(parallel={"pipeline": 4, "interleave": count}, machine=MICRO), "4xH100"
        )
        for count in (1, 3)
    ]
    bubbles = [plan["bubble"] for plan in plans]
    # (p - 1) / v of the time of m micro-batches: 3 and 1 of 16.
    assert bubbles == [pytest.approx(3 / 19, abs=1e-4), pytest.approx(1 / 17, abs=1e-4)]


def test_what_training_refuses_is_not_proposed() -> None:
    muon = plan_on_paper(recipe(optim={"name": "muon"}), "8xA100")
    assert "refused" not in muon
    assert not {"tensor", "shard"} & set(muon["proposal"]["layout"])
    told = plan_on_paper(recipe(optim={"name": "muon"}, parallel={"tensor": 2}), "2xA100")
    assert "is muon, which needs whole matrices, but tensor 2 divides them" in told["refused"]
    sampled = recipe(samples={"every": 10, "prompts": ["a"]}, parallel={"pipeline": 2})
    plan = plan_on_paper(sampled, "2xA100")
    assert "recipe.samples.every" in plan["refused"]
    assert "pipeline" not in plan["proposal"]["layout"]


def test_what_does_not_fit_is_planned_where_the_recipe_asks_for_it() -> None:
    model = RECIPE["model"] | {"layers": 96, "width": 12288, "heads": 96}
    plan = plan_on_paper(recipe(model=model, parallel={"tensor": 4}), "4xRTX4090")
    assert plan["memory_gb_in_all"] > plan["memory_gb_of_device"]
    assert "no layout fits" in plan["proposal"]["reasons"][0]
    with pytest.raises(RecipeError, match="no layout fits"):
        plan_on_paper(recipe(model=model), "4xRTX4090")


def test_micro_batches_are_those_of_the_recipe() -> None:
    plan = plan_on_paper(recipe(machine={"micro_batch_size": 2}), "4xH100")
    assert (plan["micro_batch_size"], plan["micro_batches"]) == (2, 8)
    told = plan_on_paper(recipe(machine={"precision": "fp32"}), "4xH100")["assumptions"]
    assert "machine.precision is fp32, but rates are those of bf16" in told


@pytest.mark.parametrize(
    ("sections", "devices", "said"),
    [
        ({}, "8xH10", r"--devices: 'H10' is unknown; did you mean 'H100'\? allowed: A100, H100"),
        ({}, "many", r"--devices: 'many' is unknown; allowed: .*, here. Choose one, such as"),
        ({}, "8 of H100", r"--devices: '8 of H100' is not of the form COUNTxNAME. Write for"),
        ({}, "0xH100", r"--devices: '0xH100' is not of the form COUNTxNAME"),
        ({"parallel": {"tensor": 3}}, "8xH100", r"recipe.parallel: asks for a multiple of 3"),
        (
            {"parallel": {"tensor": 8}},
            "8xH100",
            r"recipe.parallel.tensor: is 8, which does not divide the 12 of model.heads. Use a div",
        ),
        (
            {"parallel": {"context": 3}},
            "3xH100",
            r"recipe.parallel.context: is 3, which does not divide the 1024 of model.context_length",
        ),
        (
            {"parallel": {"pipeline": 16}},
            "16xH100",
            r"recipe.parallel.pipeline: is 16, which with interleave 1 is 16 stages, but model.layers",
        ),
        (
            {"parallel": {"shard": 8}, "training": {"batch_size": 12, "steps": 1}},
            "8xH100",
            r"recipe.training.batch_size: is 12, which 8 parts \(replicate 1 x shard 8\) cannot share",
        ),
        ({"processor": "bytes"}, "H100", r"recipe.model.vocabulary_size: is 0, which takes the"),
        (
            {
                "model": {"name": "mlp"},
                "task": "classify",
                "processor": "image",
                "data": "arrays",
            },
            "H100",
            r"recipe.model: is no decoder-only language model",
        ),
    ],
)
def test_what_cannot_be_planned(sections: dict[str, Any], devices: str, said: str) -> None:
    with pytest.raises(GroundupError, match=said):
        plan_on_paper(recipe(**sections), devices)


@pytest.mark.parametrize("name", known_devices())
def test_every_device_has_its_sources(name: str) -> None:
    device = parse_devices(f"2x{name.lower()}").device
    assert device.name == name
    assert len(device.sources) >= 2
    assert 0.3 < device.matmul <= 1
    assert all(0.1 < share < device.matmul for share in device.attention.values())
    assert device.memory_rate > device.link_rate > device.network_rate


@pytest.mark.slow
def test_this_machine_is_measured() -> None:
    one, two = (parse_devices(each) for each in ("here", "2xhere"))
    assert one.device.peak_flops > 1e9
    assert one.device.memory_rate > 1e8
    assert two.count == 2
    assert "measured on this machine" in one.device.sources[0]
