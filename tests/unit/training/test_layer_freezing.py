"""Which layers are trained when, at which rate, and what is said of old data and new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import groundup
from groundup.data.sources.arrays import Arrays
from groundup.models.cnn import CNNConfig
from groundup.models.gpt import GPTConfig
from groundup.models.mlp import MLPConfig
from groundup.recipe.recipe import Optim
from groundup.recipe.sections import Init
from groundup.training.layer_freezing import TrainedLayers, freeze_all_but
from groundup.training.muon import Muon
from groundup.training.optimizers import build_optimizers, depths
from groundup.training.trainer import Trainer

OPTIMS = {
    "adamw": Optim(name="adamw", layer_decay=0.5, weight_decay=0.2),
    "adam": Optim(name="adam", layer_decay=0.5, weight_decay=0.2),
    "sgd": Optim(name="sgd", layer_decay=0.5, weight_decay=0.2),
    "momentum": Optim(name="sgd", momentum=0.9, layer_decay=0.5, weight_decay=0.2),
    "muon": Optim(name="muon", layer_decay=0.5, weight_decay=0.2),
}


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return MLPConfig(
        hidden=(8, 8, 6), inputs=64, outputs=3, norm="batch", category_sizes=(4,)
    ).build()


def gpt(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return GPTConfig(
        vocabulary_size=11, layers=3, width=8, heads=2, context_length=8, **settings
    ).build()


def trained(model: nn.Module) -> set[str]:
    """Return the parts that are trained: blocks by their number, everything else by its first
    name."""
    names = [name.split(".") for name, p in model.named_parameters() if p.requires_grad]
    return {name[1] if name[0] == "blocks" else name[0] for name in names}


# --------------------------------------------------------------------------------------- the layers
def test_depth_is_read_from_names() -> None:
    names = [
        "token",
        "stem.weight",
        "blocks.0.a",
        "blocks.2.a",
        "blocks.2.b",
        "norm.weight",
        "head.weight",
    ]
    assert list(depths(names).values()) == [3, 3, 2, 1, 1, 0, 0]
    assert depths(["head.weight", "embed.weight", "blocks.0.a"]) == {
        **{"head.weight": 0, "embed.weight": 2},
        **{"blocks.0.a": 1},
    }
    assert depths(["blocks.10.a", "blocks.9.a", "positions"]) == {
        "blocks.10.a": 1,
        "blocks.9.a": 2,
        "positions": 3,
    }


@pytest.mark.parametrize(
    ("layers", "expected"), [(0, {"head"}), (1, {"2", "head"}), (3, {"0", "1", "2", "head"})]
)
def test_only_the_last_layers_are_trained(layers: int, expected: set[str]) -> None:
    model = perceptron()
    freeze_all_but(model, layers)
    assert trained(model) == expected


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_the_last_layers_of_a_gpt(positions: Any) -> None:
    model = gpt(tied_embeddings=False, positions=positions)
    freeze_all_but(model, 0)
    assert trained(model) == {"norm", "head"}
    model = gpt(positions=positions)
    freeze_all_but(model, 2)
    assert trained(model) == {"1", "2", "norm"}


def layers_of(
    model: nn.Module, total_steps: int = 20, **init: Any
) -> tuple[TrainedLayers, list[str]]:
    said: list[str] = []
    if (layers := init.get("train_layers")) is not None:
        freeze_all_but(model, layers)
    return (
        TrainedLayers(model, Init(**init), total_steps, lambda step, line: said.append(line)),
        said,
    )


def test_blocks_are_released_from_the_top() -> None:
    model = perceptron()
    layers, said = layers_of(model, unfreeze_every=4)
    found = []
    for step in (0, 3, 4, 8, 12, 16, 19):
        layers.release(step)
        found.append(trained(model))
    assert found[0] == found[1] == {"head"}
    assert found[2:5] == [{"2", "head"}, {"1", "2", "head"}, {"0", "1", "2", "head"}]
    assert found[5] == found[6] == {"embed", "0", "1", "2", "head"}
    assert said[0] == "step 0: training the head only"
    assert said[1] == "step 4: training the head and the last 1 of 3 blocks"
    assert said[-1] == "step 16: training every layer"
    assert len(said) == 5


def test_a_share_of_the_run_and_where_to_stop() -> None:
    model = perceptron()
    layers, _ = layers_of(model, unfreeze_every=0.1, train_layers=2)
    assert [layers.depth(step) for step in (0, 1, 2, 4, 19)] == [0, 0, 1, 2, 2]
    layers.release(19)
    assert trained(model) == {"1", "2", "head"}


def test_a_head_that_is_the_embedding_begins_with_the_last_block() -> None:
    layers, _ = layers_of(gpt(), unfreeze_every=5)
    assert [layers.depth(step) for step in (0, 5, 10, 15)] == [1, 2, 3, 4]
    layers, _ = layers_of(gpt(tied_embeddings=False), unfreeze_every=5)
    assert layers.depth(0) == 0


def test_batch_norms_of_frozen_blocks_keep_their_statistics() -> None:
    for model, inputs in (
        (perceptron(), (torch.randn(16, 64), torch.zeros(16, 1, dtype=torch.int64))),
        (
            CNNConfig(
                channels=(3, 4), hidden=(5,), batch_norm=True, input_shape=(1, 12, 12), outputs=3
            ).build(),
            (),
        ),
    ):
        layers, _ = layers_of(model, train_layers=2)
        model.train()
        layers.release(0)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        model(*(inputs or (torch.randn(16, 1, 12, 12),)))
        moved = {
            name[:8] for name, value in model.state_dict().items() if not value.equal(before[name])
        }
        assert moved == (
            {"blocks.1", "blocks.2"} if inputs else {"blocks.1"}
        )  # no norm in the dense block 2


def test_batch_norms_of_released_blocks_follow_the_data() -> None:
    model, inputs = perceptron(), (torch.randn(16, 64), torch.zeros(16, 1, dtype=torch.int64))
    layers, _ = layers_of(model, unfreeze_every=1)
    model.train()
    for step, expected in ((0, set()), (1, {"2"}), (2, {"1", "2"}), (1, {"2"})):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        layers.release(step)
        model(*inputs)
        assert {
            name.split(".")[1]
            for name, value in model.state_dict().items()
            if not value.equal(before[name])
        } == expected


# ----------------------------------------------------------------------------------- the optimizers
@pytest.mark.parametrize("name", OPTIMS)
def test_one_step_at_layer_wise_rates_is_that_of_hand_written_groups(name: str) -> None:
    optim, one, other = OPTIMS[name], gpt(positions="learned"), gpt(positions="learned")
    optimizer = build_optimizers(optim, one.named_parameters())
    optimizer.set_lr(0.02)
    drawn = torch.Generator().manual_seed(0)
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        p.grad = torch.randn(p.shape, generator=drawn)
        q.grad = p.grad.clone()
    optimizer.step()
    for part, factor in (
        ("norm", 1.0),
        ("2", 0.5),
        ("1", 0.25),
        ("0", 0.125),
        ("embed", 0.0625),
        ("positions", 0.0625),
    ):
        names = [
            n for n, _ in other.named_parameters() if part in (n.split(".")[0], n.split(".")[1])
        ]
        assert names
        by_hand(optim, 0.02 * factor, {n: p for n, p in other.named_parameters() if n in names})
    for (label, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(
            p, q, rtol=1e-5, atol=2e-3 * 0.02 if name == "muon" else 1e-7, msg=label
        )


def by_hand(optim: Optim, lr: float, parameters: dict[str, nn.Parameter]) -> None:
    matrices = [p for p in parameters.values() if p.ndim > 1]
    vectors = [p for p in parameters.values() if p.ndim < 2]
    if optim.name == "muon" and not {"embed.weight", "positions.weight"} & set(parameters):
        if matrices:
            Muon(matrices, lr, 0.2).step()
        matrices = []
    kinds: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    for some, decay in ((matrices, 0.2), (vectors, 0.0)):
        if some and optim.name == "sgd":
            kinds["sgd"](some, lr=lr, momentum=optim.momentum, weight_decay=decay).step()
        elif some:
            kinds.get(optim.name, torch.optim.AdamW)(
                some, lr=lr, betas=optim.betas, weight_decay=decay
            ).step()


def test_the_learning_rate_of_every_group_is_scaled() -> None:
    for optim in OPTIMS.values():
        optimizer = build_optimizers(optim, gpt(tied_embeddings=False).named_parameters())
        for lr in (0.1, 0.3):
            optimizer.set_lr(lr)
            rates = {group["lr"] for part in optimizer.parts for group in part.param_groups}
            assert rates == {lr * 0.5**depth for depth in range(5)}


def test_muon_without_hidden_matrices_is_adamw() -> None:
    model = gpt(tied_embeddings=False)
    freeze_all_but(model, 0)
    (part,) = build_optimizers(Optim(name="muon"), model.named_parameters()).parts
    assert isinstance(part, torch.optim.AdamW)


# ----------------------------------------------------------------------------------------- training
def recipe(**changes: Any) -> dict[str, Any]:
    return {
        **{
            "name": "digits",
            "model": {"name": "mlp", "hidden": [12, 10, 8], "norm": "batch"},
            "task": "classify",
        },
        **{"processor": "image", "data": "arrays", "optim": {"lr": 1e-2, "weight_decay": 0.5}},
        **{
            "training": {"batch_size": 16, "steps": 12},
            "evaluation": {"every": 5},
            "checkpoints": {"every": 100},
        },
        **{"machine": {"device": "cpu", "precision": "fp32", "threads": 1, "compile": False}},
        **changes,
    }


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "muon"])
def test_what_is_frozen_is_neither_moved_nor_decayed_and_has_no_state(
    name: str, tmp_path: Path
) -> None:
    trainer = groundup.trainer(
        recipe(optim={"name": name, "lr": 1e-2, "weight_decay": 0.5}, init={"unfreeze_every": 4}),
        runs=tmp_path,
    )
    start, moved = weights(trainer), []
    for report in trainer.steps():
        if report.step == 4:
            trainer.evaluate(1)  # puts the whole model into training mode afterwards
        moved.append(
            {
                key.split(".")[1]
                for key, value in weights(trainer).items()
                if not value.equal(start[key])
            }
        )
        states = {
            key.split(".")[1] for key in trainer.optimizer.state_dict() if key.startswith("blocks")
        }
        assert states <= moved[-1]
    trainer.close()
    names = {"weight", "bias"}  # of the head
    assert moved[0] == moved[3] == names
    assert moved[4] == moved[7] == names | {"2"}
    assert moved[8] == moved[-1] == names | {"1", "2"}


@pytest.mark.slow
def test_the_released_layers_are_written_to_the_runs_events(tmp_path: Path) -> None:
    run = groundup.train(recipe(init={"unfreeze_every": 0.25, "train_layers": 1}), runs=tmp_path)
    text = (run.folder / "metrics.jsonl").read_text(encoding="utf-8")
    assert "step 0: training the head only" in text
    assert "step 3: training the head and the last 1 of 3 blocks" in text
    assert "last 2" not in text


# -------------------------------------------------------------------------------------- old and new
def test_some_labels_only(tmp_path: Path) -> None:
    every = Arrays().examples("train", tmp_path)
    some = Arrays(labels=(3, "7")).examples("train", tmp_path)
    assert [e.name for e in some] == [e.name for e in every if str(e.target) in "37"]


def test_what_was_held_out_is_split_again(tmp_path: Path) -> None:
    held_out = {e.name for e in Arrays().examples("validation", tmp_path)}
    again = Arrays(only_held_out=True, final_fraction=0.3)
    train, final = (
        {e.name for e in again.examples(split, tmp_path)} for split in ("train", "validation")
    )
    assert train | final == held_out
    assert not train & final
    assert 0.15 < len(final) / len(held_out) < 0.45


def judged(tmp_path: Path, base: dict[str, Any], tuned: dict[str, Any]) -> dict[str, Any]:
    groundup.train(
        {**recipe(), "optim": {"lr": 1e-2}, "training": {"batch_size": 32, "steps": 100}, **base},
        runs=tmp_path,
    )
    second = {key: value for key, value in recipe().items() if key not in ("model", "processor")}
    second |= {"name": "tuned", "init": {"run": str(tmp_path / "digits")}, **tuned}
    run = groundup.train(second, runs=tmp_path)
    tables = groundup.evaluate(run.folder)["runs"][0]["evaluation"]["tables"]
    (table,) = [table for table in tables if table["title"] == "Before and after"]
    return dict(table)


@pytest.mark.slow
def test_forgetting_is_seen_where_the_head_is_kept(tmp_path: Path) -> None:
    table = judged(
        tmp_path,
        {},
        {
            "data": {"name": "arrays", "labels": [7, 8, 9]},
            "optim": {"lr": 1e-2},
            "training": {"batch_size": 16, "steps": 60},
        },
    )
    old, new = table["rows"]
    assert tuple(old[:3]) == ("old", "accuracy", 322)
    assert old[3] > 0.7
    assert old[4] < old[3] - 0.3
    assert new[4] >= new[3]
    assert old[5] == pytest.approx(old[4] - old[3], abs=1e-3)
    assert "On old data the accuracy went from" in table["note"]


@pytest.mark.slow
def test_with_a_new_head_features_are_compared(tmp_path: Path) -> None:
    table = judged(
        tmp_path,
        {"data": {"name": "arrays", "labels": [0, 1, 2, 3, 4]}},
        {
            "data": {"name": "arrays", "labels": [5, 6, 7, 8, 9]},
            "init": {"run": str(tmp_path / "digits"), "train_layers": 0},
        },
    )
    old, new, old_features, new_features = table["rows"]
    assert old[3] > 0.9
    assert old[4] is None
    assert new[3] is None
    assert new[4] is not None
    assert old_features[3] == old_features[4] > 0.9  # nothing below the head has changed
    assert new_features[3] == new_features[4] > 0.5
    assert "The head is not the base's" in table["note"]


@pytest.mark.slow
def test_examples_that_a_run_was_trained_on_are_left_out(tmp_path: Path) -> None:
    digits = Arrays().examples("train", tmp_path)[:1000]
    path = tmp_path / "digits.npz"
    np.savez(path, x=np.stack([e.inputs for e in digits]), y=np.array([e.target for e in digits]))
    data = {"name": "arrays", "path": str(path)}
    table = judged(tmp_path, {"data": data}, {"data": {**data, "only_held_out": True}})
    old, new = table["rows"]
    assert old[2:] == new[2:]
    whole = len(Arrays(path=str(path)).examples("validation", tmp_path))
    held_out = len(Arrays(path=str(path), only_held_out=True).examples("validation", tmp_path))
    assert old[2] == held_out
    assert f"Left out: {whole - held_out} held-out examples" in table["note"]
