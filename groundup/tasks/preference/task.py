"""Preference tuning: the model learns which of two answers people prefer, or which answers are
good.

Sources are at the losses, in ``nn.preference_losses``. Shape legend: B pairs or judged answers, L
tokens of both sequences of a sample together, M tokens fed of a whole micro-batch.

A sample is two sequences, each a prompt with an answer: the chosen and the rejected one; or, for
``kto``, a judged answer, and one that was given to another prompt. They are fed end to end without
padding, each seeing itself alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.core.contracts.data import DataSource
from groundup.core.contracts.processors import TextProcessor
from groundup.core.contracts.tasks import EvaluationContext, Task
from groundup.core.errors import DataError
from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.core.values import (
    IGNORED,
    Batch,
    Conversation,
    Evaluation,
    Loss,
    Message,
    Preference,
    Start,
    Term,
    TokenSequence,
)
from groundup.generation.log_probs import token_log_probs
from groundup.processors.chat.template import ChatTemplate
from groundup.tasks.chat.task import Chat
from groundup.tasks.preference.evaluation import Measured, evaluate_preferences
from groundup.tasks.preference.losses import (
    dpo_loss,
    ipo_loss,
    kto_loss,
    log_odds,
    mismatched_divergence,
    orpo_loss,
    simpo_loss,
)
from groundup.tasks.preference.reference_log_probs import (
    answer_log_probs,
    sums_by_answer,
    with_reference,
)
from groundup.tasks.preference.truncate_prompts import with_short_prompts

__all__ = ["PreferenceTuning"]

_TIE = 1e-3  # nats: margins below it are rounding, and count as half right
_BETA = {"simpo": 2.0}


@task("preference")
class PreferenceTuning(Task):
    """Raise the answers that people prefer above those that they do not, by one of five losses.

    ``dpo``, ``ipo`` and ``kto`` compare with the reference: the weights that the run starts from,
    before any adapter. Its log-probabilities are computed once, before training, and kept in the
    cache. ``orpo`` and ``simpo`` need none.
    """

    unit: ClassVar[str] = "pairs"
    loss_name: ClassVar[str] = "preference"
    objective: Literal["dpo", "ipo", "orpo", "simpo", "kto"] = setting(
        "dpo", "The loss; kto learns from answers with labels, the others from pairs"
    )
    beta: float | None = setting(
        None,
        "How strictly the model is held to the reference, or how steep simpo's loss is; by default"
        " 0.1, simpo 2",
        gt=0,
        applies_when={"objective": ("dpo", "ipo", "simpo", "kto")},
    )
    label_smoothing: float = setting(
        0.0,
        "Share of pairs thought to be the wrong way round",
        ge=0,
        lt=0.5,
        applies_when={"objective": ("dpo",)},
    )
    gamma: float = setting(
        1.0,
        "Margin that simpo aims at, in rewards: beta x nats a token",
        ge=0,
        applies_when={"objective": ("simpo",)},
    )
    odds_weight: float = setting(
        0.1,
        "What orpo's odds ratio weighs beside the chosen answer",
        gt=0,
        applies_when={"objective": ("orpo",)},
    )
    desirable_weight: float = setting(
        1.0, "Weight of good answers", gt=0, applies_when={"objective": ("kto",)}
    )
    undesirable_weight: float = setting(
        1.0, "Weight of bad answers", gt=0, applies_when={"objective": ("kto",)}
    )
    template: str | None = setting(
        None,
        "A built-in chat template or a file with one in Jinja; by default the tokenizer's own, else"
        " groundup",
    )

    @property
    def loss_is_sum(self) -> bool:
        """Kto's divergence is a mean over all samples of a step; an estimate of each micro-batch's
        would be another.

        It cannot be had for each sample alone: it is cut off at 0, and the mean of what was cut off
            is larger.
        """
        return self.objective != "kto"

    @property
    def compares(self) -> bool:
        """Whether the loss compares with the reference."""
        return self.objective in ("dpo", "ipo", "kto")

    @property
    def slope(self) -> float:
        """Beta, given or by default."""
        return self.beta if self.beta is not None else _BETA.get(self.objective, 0.1)

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read; both sequences of a sample stand in one row, end to
        end."""
        tokens = {"tokens": "int32 (B, L)", "next_tokens": "int32 (B, L)"}
        about = {"lengths": "int64 (B,)", "sequence_lengths": "int64 (B, 2)"}
        return {**tokens, **about, "reference": "float32 (B, 2)", "good": "bool (B,)"}

    # ----------------------------------------------------------------------------------------- data
    @property
    def chat(self) -> Chat:
        """The task that answers as this one learns to."""
        return Chat(template=self.template)

    def fit_processor(
        self, processor: TextProcessor, examples: Callable[[], Iterator[Any]]
    ) -> TextProcessor:
        """Return the processor with this task's chat template, so that it is saved in the run.

        Raises:
            DataError: If there is no such template, or it does not fit the tokenizer.
        """
        return self.chat.fit_processor(processor, examples)

    def chat_template(self, processor: TextProcessor) -> ChatTemplate:
        """Return the template by which prompts and answers are written."""
        return self.chat.chat_template(processor)

    def precompute(self, source: DataSource, start: Start) -> DataSource:
        """Return the data with the reference's log-probabilities of all answers, where the loss
        compares with them.

        Prompts that are too long are cut before, where the data says so:
        ``data.too_long: truncate``.
        """
        encode = functools.partial(self.encode, processor=start.processor)
        if source.too_long_policy() == "truncate":

            def lengths(examples: Sequence[Preference]) -> NDArray[np.int64]:
                return encode(examples)["sequence_lengths"].amax(1).numpy()

            source = with_short_prompts(source, lengths, start.sequence_length)
        if not self.compares:
            return source
        score = functools.partial(
            answer_log_probs, encode=encode, inputs=self.inputs, longest=start.sequence_length
        )
        return with_reference(source, start, score)

    def sequences(
        self, examples: Sequence[Preference], processor: TextProcessor
    ) -> list[TokenSequence]:
        """Return the two sequences of each example, 2 N; trained on is the answer alone, with what
        ends it.

        Raises:
            DataError: If an example is no preference, or not of the kind that the loss learns from,
                or an answer has no tokens; or the template fails.
        """
        for example in examples:
            self._check(example)
        conversations = [
            Conversation(each.name, (*each.prompt, *answer), each.origin)
            for each in examples
            for answer in each.answers
        ]
        found = self.chat.encode(conversations, processor)
        turns = [
            sum(turn.role == "assistant" for turn in answer)
            for each in examples
            for answer in each.answers
        ]
        return [_only_last(sequence, runs) for sequence, runs in zip(found, turns, strict=True)]

    def _check(self, example: Any) -> None:
        where = getattr(example, "origin", "") or f"task {self.registered_name}"
        if not isinstance(example, Preference):
            problem = f"got a {type(example).__name__.lower()}; this task learns from preferences"
            raise DataError(where, problem, "Write data: {name: preferences, path: ...}")
        if (example.good is None) == (self.objective == "kto"):
            has, needs = (
                ("pairs", "answers with labels") if example.good is None else ("a label", "pairs")
            )
            remedy = (
                "Set data.unpaired: true, or another objective"
                if example.good is None
                else "Set objective: kto"
            )
            raise DataError(
                where, f"the data has {has}, and objective {self.objective} needs {needs}", remedy
            )

    def encode(self, examples: Sequence[Preference], processor: TextProcessor) -> Batch:
        """Return the tokens that are fed, those that come next (below 0 where not scored), and what
        is thought of them.

        Raises:
            DataError: As ``sequences``.
        """
        both = self.sequences(examples, processor)
        fed = torch.tensor([len(sequence.tokens) - 1 for sequence in both], dtype=torch.int64).view(
            -1, 2
        )
        lengths = fed.sum(1)
        shape = (len(examples), int(lengths.max()))
        tokens, following = np.zeros(shape, np.int32), np.full(shape, IGNORED, np.int32)
        for number, sequence in enumerate(both):
            row, second = divmod(number, 2)
            begin = int(fed[row, 0]) if second else 0
            span = slice(begin, begin + len(sequence.tokens) - 1)
            tokens[row, span] = sequence.tokens[:-1]
            trained = (
                np.ones(len(sequence.tokens), bool)
                if sequence.trained is None
                else sequence.trained
            )
            following[row, span] = np.where(trained[1:], sequence.tokens[1:], IGNORED)
        return {
            "tokens": torch.from_numpy(tokens),
            "next_tokens": torch.from_numpy(following),
            "lengths": lengths,
            "sequence_lengths": fed,
            "reference": torch.tensor(
                [each.reference or (0.0, 0.0) for each in examples], dtype=torch.float32
            ),
            "good": torch.tensor([bool(each.good) for each in examples]),
        }

    # ----------------------------------------------------------------------------------------- loss
    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return both sequences of all samples as one row of M tokens, and which tokens are asked
        about."""
        fed = _is_fed(batch)
        lengths = batch["sequence_lengths"].flatten()
        ends = lengths.cumsum(0)
        within = torch.arange(int(lengths.sum()), device=ends.device) - (
            ends - lengths
        ).repeat_interleave(lengths)
        return {
            "tokens": batch["tokens"][fed][None].long(),
            "positions": within[None],
            "boundaries": torch.cat((ends.new_zeros(1), ends)).int(),
            "scored": batch["next_tokens"][fed],
        }

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return (M,) log p of each token fed, in nats, 0 where not scored."""
        return token_log_probs(model, **self.inputs(batch))

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return the sum of the losses over the pairs or judged answers, their number, and sums to
        watch.

        Args:
            outputs: (M,) log p of each token in nats, 0 where not scored.
            batch: As ``encode`` gives it.
        """
        return self.compare(
            sums_by_answer(outputs, batch), _scored(batch), batch["reference"], batch["good"]
        )

    def compare(self, log_probs: Tensor, tokens: Tensor, reference: Tensor, good: Tensor) -> Loss:
        """Return the loss of answers, from log-probabilities alone.

        Args:
            log_probs: (B, 2) of whole answers, in nats.
            tokens: (B, 2) how many tokens they have.
            reference: (B, 2) as log_probs, under the reference.
            good: (B,) for kto, which answers are good.
        """
        ratios, average = log_probs - reference, log_probs / tokens
        slope = self.slope
        if self.objective == "kto":
            return self._judged(log_probs, ratios, good)
        match self.objective:
            case "dpo":
                losses, rewards = dpo_loss(ratios, slope, self.label_smoothing), slope * ratios
            case "ipo":
                losses, rewards = ipo_loss(ratios / tokens, slope), ratios / tokens
            case "orpo":
                losses, rewards = orpo_loss(average, self.odds_weight), log_odds(average)
            case "simpo":
                losses, rewards = simpo_loss(average, slope, self.gamma), slope * average
        rewards, nats = rewards.detach(), log_probs.detach()
        right = _share_right(rewards[:, 0] - rewards[:, 1])
        watched = {"accuracy": right.sum(), "ranking": _share_right(nats[:, 0] - nats[:, 1]).sum()}
        for column, name in enumerate(("chosen", "rejected")):
            watched |= {
                f"{name}_reward": rewards[:, column].sum(),
                f"{name}_log_prob": nats[:, column].sum(),
            }
        return Loss({self.loss_name: Term(losses.sum(), _number(losses))}, watched)

    def _judged(self, log_probs: Tensor, ratios: Tensor, good: Tensor) -> Loss:
        divergence = mismatched_divergence(ratios[:, 1])
        weights = (self.desirable_weight, self.undesirable_weight)
        losses = kto_loss(ratios[:, 0], divergence, good, self.slope, *weights)
        risen, rewards = ratios[:, 0].detach() - divergence, self.slope * ratios[:, 0].detach()
        right = torch.where(good, _share_right(risen), 1 - _share_right(risen))
        watched = {
            "accuracy": right.sum(),
            "divergence": divergence * len(good),
            "good": good.sum(),
        }
        for name, which in (("chosen", good), ("rejected", ~good)):
            watched |= {f"{name}_reward": rewards[which].sum()}
            watched |= {f"{name}_log_prob": log_probs[which, 0].detach().sum()}
        return Loss({self.loss_name: Term(losses.sum(), _number(losses))}, watched)

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return the mean loss and, over pairs, or over good and over bad answers:

        - ``reward_accuracy``: how often the chosen answer has the larger reward; with labels, how
            often a good one rose
          above the divergence and a bad one fell below. Ties are half right, so the reference
          itself has 0.5;
        - ``reward_margin``: how much larger the chosen answers' mean reward is; 0 for the reference
            itself;
        - ``chosen_reward``, ``rejected_reward``, and ``chosen_log_prob``, ``rejected_log_prob`` in
            nats an answer;
        - ``ranking_accuracy``, of pairs: how often the chosen answer is the likelier one;
        - ``divergence``, of labels: nats an answer, from the reference.

        A reward is what the loss compares: beta x log-ratio (dpo, kto), log-ratio a token (ipo),
            beta x log p a token
        (simpo), log odds a token (orpo).
        """
        total, count = sums[self.loss_name]
        values = {name: each for name, (each, _) in sums.items()}
        count = max(count, 1.0)
        found = {"loss": total / count, "reward_accuracy": values["accuracy"] / count}
        chosen = rejected = count
        if self.objective == "kto":
            chosen, rejected = max(values["good"], 1.0), max(count - values["good"], 1.0)
            found["divergence"] = values["divergence"] / count
        else:
            found["ranking_accuracy"] = values["ranking"] / count
        for kind in ("reward", "log_prob"):
            found |= {f"chosen_{kind}": values[f"chosen_{kind}"] / chosen}
            found |= {f"rejected_{kind}": values[f"rejected_{kind}"] / rejected}
        return {**found, "reward_margin": found["chosen_reward"] - found["rejected_reward"]}

    # ----------------------------------------------------------------------------------- prediction
    def predict(
        self, model: nn.Module, inputs: Any, processor: TextProcessor, **options: Any
    ) -> Any:
        """Return the assistant's answer to a question, a conversation, or each of a list of
        questions; see ``Chat``."""
        return self.chat.predict(model, inputs, processor, **options)

    def stream(
        self, model: nn.Module, prompt: Any, processor: TextProcessor, **options: Any
    ) -> Iterator[str]:
        """Yield the assistant's answer to a question or a conversation, piece by piece."""
        return self.chat.stream(model, prompt, processor, **options)

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Judge held-out preferences, before and after; see ``evaluate_preferences``."""

        def answer(model: nn.Module, processor: Any, prompt: Sequence[Message]) -> str:
            options = {"max_new_tokens": 112, "temperature": 0.0}
            return str(self.chat.predict(model, tuple(prompt), processor, **options))

        return evaluate_preferences(context, functools.partial(self._measure, context), answer)

    def _measure(
        self, context: EvaluationContext, examples: Sequence[Preference], model: Any
    ) -> Measured:
        """Return the metrics of a model, or of the reference itself, on the examples that fit into
        the context."""
        encode = functools.partial(self.encode, processor=context.processor)
        rows = encode(examples)
        fits = rows["sequence_lengths"].amax(1) <= context.sequence_length
        rows = {name: values[fits] for name, values in rows.items()}
        log_probs = reference = rows["reference"].double()
        if model is not None:
            longest, progress = context.sequence_length, context.progress
            found = answer_log_probs(model, examples, encode, self.inputs, longest, progress)
            log_probs = torch.from_numpy(found)[fits]
        loss = self.compare(log_probs, _scored(rows).double(), reference, rows["good"])
        sums = {name: (float(term.total), float(term.count)) for name, term in loss.terms.items()}
        sums |= {name: (float(value), 1.0) for name, value in loss.metrics.items()}
        return self.summarise(sums), len(log_probs)


def _is_fed(batch: Batch) -> Tensor:
    """Return (B, L) which tokens are no padding."""
    return (
        torch.arange(batch["tokens"].shape[1], device=batch["lengths"].device)
        < batch["lengths"][:, None]
    )


def _scored(batch: Batch) -> Tensor:
    """Return (B, 2) how many tokens of each sequence are scored."""
    scored = batch["next_tokens"] >= 0
    first = torch.arange(scored.shape[1], device=scored.device) < batch["sequence_lengths"][:, :1]
    return torch.stack(((scored & first).sum(1), (scored & ~first).sum(1)), 1)


def _only_last(sequence: TokenSequence, runs: int) -> TokenSequence:
    """Return the sequence with only its last runs of trained tokens still trained on: the turns of
    the answer."""
    trained = np.arange(len(sequence.tokens)) > 0 if sequence.trained is None else sequence.trained
    starts = np.flatnonzero(trained & ~np.append(False, trained[:-1]))
    if len(starts) < runs:
        problem = (
            "an answer has no tokens of its own once the chat template has put the conversation"
            " together"
        )
        raise DataError("chat template", problem, "Use another template, or remove the row")
    return dataclasses.replace(
        sequence, trained=trained & (np.arange(len(trained)) >= starts[-runs])
    )


def _share_right(margins: Tensor) -> Tensor:
    """Return 1 where a margin is above 0, 0 where it is below, and 1/2 where nothing but rounding
    tells it from 0."""
    return torch.where(margins.abs() < _TIE, 0.5, (margins > 0).to(margins.dtype))


def _number(values: Tensor) -> Tensor:
    return torch.tensor(len(values), device=values.device)
