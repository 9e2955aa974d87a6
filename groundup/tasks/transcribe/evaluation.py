"""Transcripts of held-out sounds, next to the references and to those without a model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Protocol

from torch import nn

from groundup.contracts.speech import ReadsSpeech
from groundup.contracts.tasks import EvaluationContext
from groundup.core.values import Evaluation, Example, Table
from groundup.metrics.error_rates import (
    ErrorRate,
    Errors,
    Normaliser,
    count_errors,
    score_transcripts,
)
from groundup.metrics.generated_text import TextScore
from groundup.tasks.shared.scored_texts import BASE, MODEL, compare_ways, name_scores, shorten
from groundup.tasks.transcribe.baselines import SpeechBaseline, most_frequent, nearest_sounds
from groundup.tasks.transcribe.by_frames import Transcript
from groundup.tasks.transcribe.checks import name_unlearned

__all__ = ["TranscribesSounds", "evaluate_transcripts"]

_WORST = 10
_PAIRS = 15


class TranscribesSounds(Protocol):
    """A task whose transcripts are evaluated, with the settings that say how."""

    # Properties: settings are frozen, and a plain attribute would ask for one that can be set.
    @property
    def metrics(self) -> tuple[ErrorRate, ...]: ...

    @property
    def normaliser(self) -> Normaliser: ...

    @property
    def evaluated(self) -> int: ...

    @property
    def baselines(self) -> tuple[SpeechBaseline, ...]: ...

    def transcribe(
        self,
        model: nn.Module,
        sources: Sequence[Any],
        processor: ReadsSpeech,
        options: dict[str, Any],
    ) -> list[Transcript]:
        """Return the transcript of each sound."""


def evaluate_transcripts(task: TranscribesSounds, context: EvaluationContext) -> Evaluation:
    """Score the transcripts of held-out sounds, made as they are in predicting.

    - ``NAME``, ``NAME_low_95``, ``NAME_high_95`` for each of the task's metrics: the rate over all
      sounds, and its interval over resamples of them;
    - ``baseline_WAY_NAME`` for each baseline on the same sounds, and ``base_NAME`` for the weights
      that the run began with;
    - tables of these, of the ten worst transcripts, of what is taken for what, and of the rates by
      the length of the references.

    References are read after everything was transcribed.
    """
    examples: list[Example] = list(islice(context.examples(context.held_out), task.evaluated))
    sounds = [example.inputs for example in examples]
    outputs = {MODEL: _transcribe(task, context.model, context, sounds)}
    # With a processor of its own the base reads other frames, and is a model of its own run.
    if context.base is not None and context.base[1] is context.processor:
        outputs[BASE] = _transcribe(task, context.base[0], context, sounds)
    if task.metrics:
        outputs |= _without_model(task, context, sounds)
    # Only now: what was written cannot depend on them.
    references = [str(example.target) for example in examples]
    if unlearned := name_unlearned(references, context.processor):
        context.progress(unlearned)
    context.progress(f"scoring {len(outputs)} ways to transcribe")
    # How many there were comes first: a rate of ten sounds says little.
    metrics: dict[str, float] = {"held_out_examples": float(len(examples))}
    scores: dict[str, dict[str, TextScore]] = {}
    for way, texts in outputs.items():
        scores[way] = score_transcripts(
            task.metrics, texts, references, normaliser=task.normaliser, seed=context.seed
        )
        metrics |= name_scores(way, scores[way])
    tables = []
    if task.metrics:
        # By the first metric, which also is the one that a recipe chooses by.
        first = task.metrics[0]
        title = "Transcripts next to those without a model"
        note = "; ".join(scores[MODEL][name].signature for name in task.metrics)
        errors = count_errors(first, outputs[MODEL], references, task.normaliser)
        tables = [
            compare_ways(title, "who transcribes", task.metrics, scores, note),
            _worst(first, errors, examples, outputs[MODEL], references),
            _confusions(first, errors),
            _by_length(first, errors),
        ]
    return Evaluation(metrics, tables)


def _transcribe(
    task: TranscribesSounds, model: nn.Module, context: EvaluationContext, sounds: Sequence[Any]
) -> list[str]:
    context.progress(f"transcribing {len(sounds)} held-out sounds")
    return [found.text for found in task.transcribe(model, sounds, context.processor, {})]


def _without_model(
    task: TranscribesSounds, context: EvaluationContext, sounds: Sequence[Any]
) -> dict[str, list[str]]:
    if not task.baselines:
        return {}
    context.progress(f"transcribing without a model: {', '.join(task.baselines)}")
    train = [each for each in context.examples("train") if isinstance(each, Example)]
    transcripts = [str(each.target) for each in train]
    found: dict[str, list[str]] = {}
    for name in task.baselines:
        # The rate of writing nothing is 1, unless something is written where nothing was said.
        if name == "empty":
            found[name] = [""] * len(sounds)
        # Of pretrained weights nobody has the training sounds.
        elif name == "most_frequent" and train:
            found[name] = [most_frequent(transcripts)] * len(sounds)
        elif train:
            places = nearest_sounds(sounds, [each.inputs for each in train], context.processor)
            found[name] = [transcripts[place] for place in places]
    return found


def _worst(
    name: str,
    errors: Errors,
    examples: Sequence[Example],
    outputs: Sequence[str],
    references: Sequence[str],
) -> Table:
    wrong = errors.counts[:, :3].sum(1)
    # Where nothing was said, one word too many is an error rate of 1, not of infinity.
    rates = wrong / errors.counts[:, 3].clip(min=1)
    # Stable: of equal ones the first examples.
    worst = sorted(range(len(rates)), key=lambda number: -rates[number])[:_WORST]
    rows: list[tuple[Any, ...]] = [
        (
            shorten(examples[number].name),
            shorten(references[number]),
            shorten(outputs[number]),
            float(f"{rates[number]:.4g}"),
        )
        for number in worst
    ]
    columns = ("sound", "reference", "transcript", name)
    return Table(f"The transcripts with the highest {name}", columns, rows, printed=False)


def _confusions(name: str, errors: Errors) -> Table:
    rows: list[tuple[Any, ...]] = [
        (expected or "(nothing)", got or "(nothing)", count)
        for (expected, got), count in errors.pairs.most_common(_PAIRS)
    ]
    substituted, inserted, deleted, units = errors.counts.sum(0).tolist()
    note = (
        f"of {units:,} in the references {substituted:,} are replaced and {deleted:,} missing;"
        f" {inserted:,} are added"
    )
    what = {"wer": "words", "cer": "characters"}[name]
    columns = ("said", "written", "times")
    return Table(f"What is wrong most often, in {what}", columns, rows, note, printed=False)


def _by_length(name: str, errors: Errors) -> Table:
    """Return the rate of references by how long they are, in four parts of equal size."""
    lengths = errors.counts[:, 3]
    order = lengths.argsort(kind="stable")
    rows: list[tuple[Any, ...]] = []
    # By rank and not by length, so that each part has as many sounds to average over.
    for quarter in range(4):
        own = order[len(order) * quarter // 4 : len(order) * (quarter + 1) // 4]
        if not len(own):
            continue
        sums = errors.counts[own].sum(0)
        shortest = int(lengths[own].min())
        rows.append(
            (
                f"{shortest} to {int(lengths[own].max())}",
                len(own),
                float(f"{sums[:3].sum() / max(int(sums[3]), 1):.4g}"),
            )
        )
    what = {"wer": "words", "cer": "characters"}[name]
    columns = (f"{what} of the reference", "sounds", name)
    return Table(f"{name} by length", columns, rows, printed=False)
