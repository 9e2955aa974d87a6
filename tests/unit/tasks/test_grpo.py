"""Groups of answers: what they are worth, how they are learned from, and what is said of them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from rewarded import adapted_rewarded_run, rewarded_run

from groundup import api
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.tasks.grpo.losses import group_advantages, policy_tokens
from groundup.tasks.grpo.task import Grpo
from groundup.training.components import refill
from groundup.training.trainer import Trainer

GIVEN: dict[str, Any] = {"rewards": [{"name": "length"}]}


def opened(folder: Path, changes: dict[str, Any] | None = None, **task: Any) -> Trainer:
    return api.trainer(rewarded_run(folder, **task), changes, runs=folder / "runs")


def test_an_answer_is_compared_with_its_group() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    plain = group_advantages(rewards, scaled=False)
    assert plain.tolist() == [[0.5, -0.5, -0.5, 0.5], [0.0] * 4]
    scaled = group_advantages(rewards, scaled=True)
    torch.testing.assert_close(scaled, plain / (rewards.std(1, keepdim=True) + 1e-4))


def test_what_is_clipped_has_no_gradient() -> None:
    log_probs = torch.tensor([0.5, 0.5, -0.5, -0.5, 0.1], requires_grad=True)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    found = policy_tokens(log_probs, torch.zeros(5), advantages, (0.2, 0.3))
    (gradient,) = torch.autograd.grad(found.loss.sum(), log_probs)
    # Beyond the range a gradient is left only where it leads back.
    assert (gradient != 0).tolist() == [False, True, True, False, True]
    assert found.clipped_high.tolist() == [True, False, False, False, False]
    assert found.clipped_low.tolist() == [False, False, False, True, False]
    apart = policy_tokens(log_probs, torch.zeros(5), advantages, (0.2, 0.3), torch.zeros(5), 2.0)
    torch.testing.assert_close(apart.loss - found.loss, 2.0 * apart.divergence)
    assert bool((apart.divergence > 0).all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_size": 1}, r"a group of 1 has no other answer to be compared with; allowed: 2"),
        ({"updates": 3, "passes": 2}, r"updates 3 is no multiple of passes 2"),
        ({"overlong_buffer": 9, "max_new_tokens": 8}, r"overlong_buffer 9 is longer than max_new"),
        ({"rewards": [{"name": "length"}] * 2}, r"rewards name 'length' twice"),
        ({"rewards": []}, r"task.rewards"),
    ],
)
def test_settings_that_contradict_themselves(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate(Grpo, {**GIVEN, **settings}, "task")


@pytest.mark.slow
def test_equal_rewards_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    silent = [{"name": "length", "characters": 500}]
    trainer = opened(tmp_path, rewards=silent, kl_weight=0.0)
    with caplog.at_level(logging.WARNING, logger="groundup"):
        reports = list(trainer.steps())
    trainer.close()
    said = [each.message for each in caplog.records if "equal rewards" in each.message]
    assert len(said) == 3  # at the 1st, 2nd and 4th time of six
    assert "step 0: the 4 answers to each of 8 prompts have equal rewards (0 on average)" in said[0]
    assert "the 4th time in a row" in said[2]
    assert trainer.task.watched(reports[-1].losses)["no_signal"] == 1.0
    assert all(report.loss == 0.0 for report in reports)


@pytest.mark.slow
def test_an_adapter_is_held_to_the_model_without_it(tmp_path: Path) -> None:
    recipe = adapted_rewarded_run(tmp_path, tmp_path / "runs", kl_weight=0.5)
    recipe["optim"]["lr"] = 0.1
    start = api.trainer({**recipe, "name": "untrained"}, runs=tmp_path / "runs").model.eval()
    trainer = api.trainer(recipe, runs=tmp_path / "runs")
    divergence = []
    for report in trainer.steps():
        divergence.append(trainer.task.watched(report.losses)["kl"])
        rows = trainer.stream.buffer()
        fed = torch.arange(rows["tokens"].shape[1]) < rows["lengths"][:, None]
        with torch.no_grad():
            wanted = trainer.task.forward(start, rows)
        # Written by the weights as they have become, and asked of those that they began as.
        torch.testing.assert_close(rows["reference"][fed], wanted)
    trainer.close()
    assert divergence[0] == pytest.approx(0, abs=1e-9)
    assert divergence[-1] > 1e-3


@pytest.mark.slow
def test_groups_without_signal_are_replaced(tmp_path: Path) -> None:
    # Of the first characters few are digits, so most groups of two have none.
    few = [{"name": "regex", "pattern": r"[ -?].*"}]
    shares = {}
    for draws in (1, 4):
        folder = tmp_path / str(draws)
        folder.mkdir()
        trainer = opened(folder, rewards=few, group_size=2, draws=draws)
        refill(trainer.stream, trainer.model, 0, trainer.recipe.machine)
        batch = next(trainer.stream)
        rewards = batch["rewards"].sum(2)
        shares[draws] = float((rewards.amax(1) == rewards.amin(1)).float().mean())
        # What the log says is of all groups that were drawn.
        assert float(batch["silent"][0]) > 0
        asked = trainer.stream.state_dict()["cursor"]["prompts"]
        assert asked == 8 if draws == 1 else asked > 8
        trainer.close()
    assert shares[4] < shares[1]


@pytest.mark.slow
def test_no_room_for_an_answer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"prompts.jsonl.*the prompt has \d+ tokens and an answer"):
        opened(tmp_path, max_new_tokens=60)


@pytest.mark.slow
def test_other_examples_are_refused(tmp_path: Path) -> None:
    recipe = rewarded_run(tmp_path)
    recipe["data"] |= {"name": "conversations"}
    lines = [f'{{"prompt": "{n}?", "completion": "b"}}\n' for n in range(60)]
    (tmp_path / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"got a conversation; this task learns from prompts"):
        api.trainer(recipe, runs=tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.parametrize("average", ["answers", "tokens", "constant"])
def test_the_loss_does_not_depend_on_micro_batches(tmp_path: Path, average: str) -> None:
    losses = []
    for size in (8, 2):
        folder = tmp_path / str(size)
        folder.mkdir()
        changes = {"machine.micro_batch_size": size, "machine.precision": "fp64"}
        trainer = opened(folder, changes, average=average, updates=2, kl_weight=0.5)
        losses.append([report.loss for report in trainer.steps()])
        trainer.close()
    assert losses[1] == pytest.approx(losses[0], rel=1e-6, abs=1e-9)
    assert abs(losses[0][-1]) > 1e-6
