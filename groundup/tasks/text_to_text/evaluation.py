"""What a model writes about held-out inputs, next to the references and to answers without a
model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Protocol

from torch import nn

from groundup.contracts.tasks import EvaluationContext
from groundup.core.values import Evaluation, Example, Table
from groundup.generation.options import DecodingOptions
from groundup.metrics.generated_text import (
    BleuTokenizer,
    TextMetric,
    TextScore,
    doubt_bleu,
    example_scores,
    score_texts,
)
from groundup.metrics.text_baselines import TextBaseline, baseline_outputs
from groundup.tasks.shared.scored_texts import BASE, MODEL, compare_ways, name_scores, shorten

__all__ = ["WritesAboutInputs", "evaluate_outputs"]

_WORST = 10


class WritesAboutInputs(Protocol):
    """A task whose outputs are evaluated, with the settings that say how."""

    # Properties: settings are frozen, and a plain attribute would ask for one that can be set.
    @property
    def metrics(self) -> tuple[TextMetric, ...]: ...

    @property
    def bleu_tokenizer(self) -> BleuTokenizer: ...

    @property
    def evaluated(self) -> int: ...

    @property
    def baselines(self) -> tuple[TextBaseline, ...]: ...

    def decoding(self, options: dict[str, Any]) -> DecodingOptions:
        """Return how outputs are chosen where nothing else is asked for."""

    def write(
        self, model: nn.Module, texts: Sequence[str], processor: Any, options: DecodingOptions
    ) -> list[list[tuple[str, float]]]:
        """Return the best outputs about each input, each with its score."""


def evaluate_outputs(task: WritesAboutInputs, context: EvaluationContext) -> Evaluation:
    """Score what a model writes about held-out inputs, as it predicts.

    - ``NAME``, ``NAME_low_95``, ``NAME_high_95`` for each of the task's metrics: the value over all
      outputs, and its interval over resamples of the examples;
    - ``baseline_WAY_NAME`` for what each baseline writes about the same inputs, and
      ``base_NAME`` for the weights that the run began with, where they write with the same tokens;
    - tables of all of these, and of the ten outputs that the first metric finds worst.

    References are read after everything was written.
    """
    examples = list(islice(context.examples(context.held_out), task.evaluated))
    inputs = [example.inputs for example in examples]
    outputs: dict[str, list[str]] = {MODEL: _write(task, context.model, context, inputs)}
    # With a tokenizer of its own the base has other words, and is a model of its own run.
    if context.base is not None and context.base[1] is context.processor:
        outputs[BASE] = _write(task, context.base[0], context, inputs)
    if task.baselines and task.metrics:
        context.progress(f"answering without a model: {', '.join(task.baselines)}")
        train = [each for each in context.examples("train") if isinstance(each, Example)]
        known = ([each.inputs for each in train], [str(each.target) for each in train])
        for name in task.baselines:
            # Without training examples, as of pretrained weights, none is the nearest.
            if known[0] or name != "nearest":
                outputs[name] = baseline_outputs(name, inputs, *known)
    # Only now: what was written cannot depend on them.
    references = [str(example.target) for example in examples]
    if doubt := doubt_bleu(task.metrics, references, task.bleu_tokenizer):
        context.progress(doubt)
    context.progress(f"scoring {len(outputs)} ways to answer")
    metrics: dict[str, float] = {"held_out_examples": float(len(examples))}
    scores: dict[str, dict[str, TextScore]] = {}
    for way, texts in outputs.items():
        scores[way] = score_texts(
            task.metrics,
            texts,
            references,
            bleu_tokenizer=task.bleu_tokenizer,
            seed=context.seed,
        )
        metrics |= name_scores(way, scores[way])
    # Outputs that are too short or too long explain a low score better than the score does.
    written = [len(text) for text in outputs[MODEL]]
    metrics["mean_output_characters"] = sum(written) / max(len(written), 1)
    metrics["mean_reference_characters"] = sum(map(len, references)) / max(len(references), 1)
    tables = []
    if task.metrics:
        title = "Outputs next to answers without a model"
        note = "; ".join(f"{name}: {scores[MODEL][name].signature}" for name in task.metrics)
        tables = [
            compare_ways(title, "who answers", task.metrics, scores, note),
            _worst_outputs(task, examples, outputs[MODEL], references),
        ]
    return Evaluation(metrics, tables)


def _write(
    task: WritesAboutInputs, model: nn.Module, context: EvaluationContext, inputs: Sequence[str]
) -> list[str]:
    context.progress(f"writing about {len(inputs)} held-out inputs")
    found = task.write(model, inputs, context.processor, task.decoding({}))
    return [texts[0][0] for texts in found]


def _worst_outputs(
    task: WritesAboutInputs,
    examples: Sequence[Example],
    outputs: Sequence[str],
    references: list[str],
) -> Table:
    name = task.metrics[0]
    scores = example_scores(name, outputs, references, bleu_tokenizer=task.bleu_tokenizer)
    # Stable: of equal ones the first examples.
    worst = sorted(range(len(scores)), key=lambda number: scores[number])[:_WORST]
    rows: list[tuple[Any, ...]] = [
        (
            shorten(examples[number].inputs),
            shorten(references[number]),
            shorten(outputs[number]),
            float(f"{scores[number]:.4g}"),
        )
        for number in worst
    ]
    columns = ("input", "reference", "output", name)
    return Table(f"The outputs with the lowest {name}", columns, rows, printed=False)
