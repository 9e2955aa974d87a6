"""A model on held-out preferences, next to the weights that it started from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from groundup.contracts.tasks import EvaluationContext
from groundup.core.seeding import key
from groundup.core.values import Evaluation, Message, Preference, Table

__all__ = ["Measured", "evaluate_preferences"]

Measured = tuple[dict[str, float], int]  # metrics, and over how many examples
_SHOWN = 5
# Prompts may hold whole documents; the end of a prompt is what is answered.
_CHARACTERS = 600
_TITLES = {
    "reward_margin": "reward margin",
    "reward_accuracy": "reward accuracy",
    "ranking_accuracy": "the chosen answer is the likelier one",
    "chosen_log_prob": "log p of a chosen or good answer, nats",
    "rejected_log_prob": "log p of a rejected or bad answer, nats",
    "loss": "loss",
}


def evaluate_preferences(
    context: EvaluationContext,
    measure: Callable[[Sequence[Preference], nn.Module | None], Measured],
    answer: Callable[[nn.Module, Any, Sequence[Message]], str],
) -> Evaluation:
    """Measure the model on the held-out preferences; with ``base_`` before a figure, the weights it
    started from.

    These are the reference, whose log-probabilities are known; or, for losses without one, the run
    started from.

    Args:
        context: What to evaluate.
        measure: Gives the metrics of a model on examples, or those of the reference itself for
            None.
        answer: Gives a model's greedy answer to a prompt.
    """
    held_out: list[Preference] = list(context.examples(context.held_out))
    context.progress(f"scoring the answers to {len(held_out)} held-out prompts")
    after, number = measure(held_out, context.model)
    before: dict[str, float] = {}
    # What the reference says is known without its weights, which no longer need to be there.
    if any(each.reference is not None for each in held_out):
        before = measure(held_out, None)[0]
    elif context.base is not None:
        context.progress("scoring them with the weights before")
        before = measure(held_out, context.base[0])[0]
    metrics = {"held_out_pairs": float(number), **after}
    metrics |= {f"base_{name}": value for name, value in before.items()}
    rows: Any = [
        (title, before.get(name), after[name]) for name, title in _TITLES.items() if name in after
    ]
    note = (
        f"{number} of {len(held_out)} held-out rows fit into the context of"
        f" {context.sequence_length} tokens."
    )
    compared = Table("Held-out preferences", ("measure", "before", "after"), rows, note)
    return Evaluation(metrics, [compared, _answer_table(context, held_out, answer)])


def _answer_table(
    context: EvaluationContext,
    examples: list[Preference],
    answer: Callable[[nn.Module, Any, Sequence[Message]], str],
) -> Table:
    """Return what the model answers to a few held-out prompts, before and after, next to the
    answers in the data."""
    # By key, so that every run over the same data shows the same prompts.
    order = sorted(examples, key=lambda each: key(context.seed, f"sample {each.name}"))
    chosen = order[: min(_SHOWN, context.limit)]
    context.progress(f"answering {len(chosen)} held-out prompts")
    rows: list[tuple[str | float | int | None, ...]] = []
    for example in chosen:
        was = None
        if context.base is not None:
            was = answer(*context.base, example.prompt)
        now = answer(context.model, context.processor, example.prompt)
        texts = [turns[-1].content[:_CHARACTERS] for turns in example.answers]
        other = texts[1]
        if example.good is not None:
            other = "good" if example.good else "bad"
        rows.append((example.prompt[-1].content[-_CHARACTERS:], was, now, texts[0], other))
    columns = ("prompt", "before", "after", "chosen, or labelled", "rejected, or the label")
    return Table("Answers to held-out prompts", columns, rows, printed=False)
