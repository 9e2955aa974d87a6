"""Which values of a metric are the better ones."""

from __future__ import annotations

import pytest

from groundup.core.registry import lookup, names
from groundup.metrics.directions import best_of, direction, lower_is_better
from groundup.tasks.classify.task import Classify
from groundup.tasks.multitask.task import Multitask

REWARDS = (
    "chosen_reward",
    "rejected_reward",
    "chosen_log_prob",
    "rejected_log_prob",
    "answer_tokens",
    "ended",
    "entropy",
    "kl",
)  # neither way is better


def test_every_metric_of_every_task_has_a_direction() -> None:
    """What trials, checkpoints and comparisons are judged by; a metric with a new name belongs into
    the list."""
    sums = dict.fromkeys(
        ("picture", "class", "box", "giou", "next_token", "answer", "label", "target", "plain"),
        (1.0, 2.0),
    )
    sums |= dict.fromkeys(
        ("right", "off", "examples", "positions", "squared", "absolute", "bytes"), (1.0, 1.0)
    )
    sums |= dict.fromkeys(
        (
            "picture",
            "caption",
            "hidden_token",
            "word",
            "pair",
            "found",
            "window",
            "preference",
            "token",
            "choice",
            "policy",
            "value",
        ),
        (1.0, 2.0),
    )
    sums |= dict.fromkeys(("answers", "tokens", "reward", "ended", "surprise", "asked"), (1.0, 1.0))
    sums |= dict.fromkeys(
        ("accuracy", "ranking", "good", "divergence", "best", *REWARDS), (1.0, 1.0)
    )
    made = {name: [lookup("task", name)()] for name in names("task") if name != "multitask"}
    made["classify"] += [Classify(labels="ordinal"), Classify(labels="multi_label")]
    several = Multitask(tasks={"loss_of_life": {"name": "classify"}, "b": {"name": "regression"}})
    parts = {f"{task}/{key}": value for task in several.tasks for key, value in sums.items()}
    found = {metric for tasks in made.values() for task in tasks for metric in task.summarise(sums)}
    found |= set(several.summarise(parts | {"loss_of_life": (1.0, 1.0), "b": (1.0, 1.0)}))
    higher = {
        "accuracy",
        "subset_accuracy",
        "loss_of_life/accuracy",
        "masked_accuracy",
        "batch_accuracy",
        "move_accuracy",
    }
    higher |= {"reward", "exact_windows", "reward_accuracy", "ranking_accuracy", "reward_margin"}
    assert {name for name in found if direction(name) == "higher"} == higher
    assert {name for name in found if direction(name) == "lower"} == found - higher - set(REWARDS)
    assert {"rmse", "mae", "perplexity", "bits_per_byte", "mean_absolute_error", "b/rmse"} < found
    judged = {
        "quadratic_weighted_kappa",
        "r2",
        "price_r2",
        "error_code_r2",
        "macro_f1_low_95",
        "rouge_l",
        "auroc",
    }
    assert {direction(name) for name in judged} == {"higher"}
    assert {direction(name) for name in ("price_mae", "log_loss", "rmse_low_95", "mse")} == {
        "lower"
    }
    assert {direction(name) for name in ("step", "held_out_examples", "temperature", "tokens")} == {
        None
    }


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("loss", 1.0),
        ("bits_per_byte", 1.0),
        ("accuracy", 3.0),
        ("digit/macro_f1", 3.0),
        ("step", None),
    ],
)
def test_the_best_of_several_values(name: str, best: float | None) -> None:
    assert best_of(name, [2.0, 3.0, 1.0]) == best
    assert lower_is_better(name) == (best == 1.0)
