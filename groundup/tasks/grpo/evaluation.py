"""How much reward a model's likeliest answers to held-out prompts have, before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from torch import nn

from groundup.contracts.prompts import Prompt
from groundup.contracts.tasks import EvaluationContext
from groundup.core.values import Evaluation, Table
from groundup.metrics.standard_error import standard_error
from groundup.tasks.grpo.rewards import Reward, score_answers

__all__ = ["evaluate_rewards"]

_SHOWN = 10
_TIMES = 1.96  # standard errors to either side of a mean: 95%
Answer = Callable[[nn.Module, Sequence[Prompt]], list[str]]


def evaluate_rewards(
    context: EvaluationContext,
    rewards: Sequence[Reward],
    names: Sequence[str],
    number: int,
    answer: Answer,
) -> Evaluation:
    """Evaluate a model, and the one that it came from where that is known, on the same prompts.

    Figures, each for the model and, with ``base_`` before it, for the model before: ``reward``, the
    weighted sum; ``reward_NAME`` of each without its weight; with 95% intervals in the table.

    Args:
        context: What to evaluate with.
        rewards: What answers are scored for.
        names: Of each.
        number: Held-out prompts that are asked.
        answer: Lets a model answer.
    """
    examples = (each for each in context.examples(context.held_out) if isinstance(each, Prompt))
    prompts = list(islice(examples, max(number, context.limit)))
    models: dict[str, nn.Module] = {"": context.model}
    if context.base is not None:
        models["base_"] = context.base[0]
    metrics: dict[str, float] = {"prompts": float(len(prompts))}
    answers: dict[str, list[str]] = {}
    sums: dict[str, list[float]] = {}
    spreads: dict[str, dict[str, str]] = {}
    for prefix, model in models.items():
        which = "the model before" if prefix else "the model"
        context.progress(f"letting {which} answer {len(prompts)} prompts")
        # The likeliest tokens, not drawn ones: two evaluations of the same weights agree.
        answers[prefix] = answer(model, prompts)
        found = score_answers(rewards, answers[prefix], prompts)
        sums[prefix] = [
            sum(value * each.weight for value, each in zip(row, rewards, strict=True))
            for row in found
        ]
        columns = {"reward": sums[prefix]}
        for place, name in enumerate(names):
            columns[f"reward_{name}"] = [row[place] for row in found]
        spreads[prefix] = {}
        for name, values in columns.items():
            total = sum(values)
            error = standard_error(total, sum(v * v for v in values), len(values))
            mean = metrics[prefix + name] = total / max(len(values), 1)
            low = mean - _TIMES * error
            spreads[prefix][name] = f"{mean:.3f} ({low:.3f} to {mean + _TIMES * error:.3f})"
    tables = [_rewards_table(spreads), _answers_table(prompts, answers, sums)]
    return Evaluation(metrics, tables)


def _rewards_table(spreads: dict[str, dict[str, str]]) -> Table:
    rows: list[tuple[Any, ...]] = [
        (name, spreads.get("base_", {}).get(name), said) for name, said in spreads[""].items()
    ]
    note = "Means over the same prompts, each answered with the likeliest tokens; 95% intervals."
    return Table("Rewards", ("reward", "before", "after"), rows, note)


def _answers_table(
    prompts: Sequence[Prompt], answers: dict[str, list[str]], sums: dict[str, list[float]]
) -> Table:
    rows: list[tuple[Any, ...]] = []
    for number, prompt in enumerate(prompts[:_SHOWN]):
        before = answers["base_"][number] if "base_" in answers else None
        lost = sums["base_"][number] if "base_" in sums else None
        asked = prompt.messages[-1].content
        rows.append((asked, before, lost, answers[""][number], sums[""][number]))
    columns = ("prompt", "before", "reward before", "after", "reward after")
    return Table("Answers to held-out prompts", columns, rows)
