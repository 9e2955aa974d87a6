"""Preference tuning: the model learns which of two answers people prefer, or which answers are
good.

Sources are at the losses, in ``preference.losses``. Shape legend: B pairs or labelled answers, L
tokens of both sequences of a sample together, M tokens fed of a whole micro-batch.

A sample is two sequences, each a prompt with an answer: the chosen and the rejected one; or, for
``kto``, an answer with a label, and one that was given to another prompt. They are fed end to end
without padding, each seeing itself alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contracts.data import DataSource
from groundup.contracts.processors import TextProcessor
from groundup.contracts.tasks import EvaluationContext, Start
from groundup.core.errors import DataError
from groundup.core.passes import may_split_rows
from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.core.values import (
    Batch,
    Conversation,
    Document,
    Evaluation,
    Example,
    Loss,
    Message,
    Preference,
    Term,
    TokenSequence,
)
from groundup.generation.log_probs import token_log_probs
from groundup.tasks.chat.answering_task import AnsweringTask
from groundup.tasks.preference import losses as formulas
from groundup.tasks.preference.evaluation import Measured, evaluate_preferences
from groundup.tasks.preference.losses import log_odds, mismatched_divergence, share_right
from groundup.tasks.preference.reference_log_probs import (
    add_reference,
    answer_log_probs,
    sums_by_answer,
)
from groundup.tasks.preference.truncate_prompts import truncate_prompts
from groundup.tasks.shared.sequence_rows import (
    count_scored,
    encode_rows,
    join_rows,
    keep_last_runs,
    split_samples,
)

__all__ = ["PreferenceTuning"]

_BETA = {"simpo": 2.0}  # its rewards are nats a token, so far smaller than those of whole answers


@task("preference")
class PreferenceTuning(AnsweringTask):
    """Raise the answers that people prefer above those that they do not, by one of five losses.

    ``dpo``, ``ipo`` and ``kto`` compare with the reference: the weights that the run starts from,
    before any adapter. Its log-probabilities are computed once, before training, and kept in the
    cache. ``orpo`` and ``simpo`` need none.
    """

    unit: ClassVar[str] = "pairs"
    file_source: ClassVar[str] = "preferences"
    loss_name: ClassVar[str] = "preference"
    objective: Literal["dpo", "ipo", "orpo", "simpo", "kto"] = setting(
        "dpo", "The loss; kto learns from answers with labels, the others from pairs"
    )
    beta: float | None = setting(
        None,
        "How strictly the model is kept near the reference, or how steep simpo's loss is; by"
        " default 0.1, simpo 2",
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
        "What orpo's odds ratio weighs next to the chosen answer",
        gt=0,
        applies_when={"objective": ("orpo",)},
    )
    desirable_weight: float = setting(
        1.0, "Weight of good answers", gt=0, applies_when={"objective": ("kto",)}
    )
    undesirable_weight: float = setting(
        1.0, "Weight of bad answers", gt=0, applies_when={"objective": ("kto",)}
    )

    @property
    def loss_is_sum(self) -> bool:
        """Kto's divergence is a mean over all samples of a step; an estimate of each micro-batch's
        would be another.

        It cannot be had for each sample alone: it is cut off at 0, and the mean of what was cut off
        is larger.
        """
        # Said here, so that several micro-batches are refused before a step is taken.
        return self.objective != "kto"

    @property
    def compares(self) -> bool:
        """Whether the loss compares with the reference."""
        return self.objective in ("dpo", "ipo", "kto")

    @property
    def slope(self) -> float:
        """Beta, given or by default."""
        return self.beta or _BETA.get(self.objective, 0.1)

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read; both sequences of a sample are in one row, end to
        end."""
        return {
            "tokens": "int32 (B, L)",
            "next_tokens": "int32 (B, L)",
            "lengths": "int64 (B,)",
            "sequence_lengths": "int64 (B, 2)",
            "reference": "float32 (B, 2)",
            "good": "bool (B,)",
        }

    # ----------------------------------------------------------------------------------------- data
    def precompute(self, source: DataSource, start: Start) -> DataSource:
        """Return the data with the reference's log-probabilities of all answers, where the loss
        compares with them.

        Prompts that are too long are cut before, where the data says so:
        ``data.too_long: truncate``.
        """
        # Before the reference is asked: it must see the prompts that training sees.
        encode = partial(self.encode, processor=start.processor)
        if source.too_long_policy() == "truncate":

            def lengths(examples: Sequence[Preference]) -> NDArray[np.int64]:
                return encode(examples)["sequence_lengths"].amax(1).numpy()

            source = truncate_prompts(source, lengths, start.sequence_length)
        if not self.compares:
            return source
        # Once for the whole data: in training it would cost a second forward pass a step.
        longest = start.sequence_length
        score = partial(answer_log_probs, encode=encode, forward=self.forward, longest=longest)
        return add_reference(source, start, score)

    def sequences(
        self, examples: Sequence[Preference], processor: TextProcessor
    ) -> list[TokenSequence]:
        """Return the two sequences of each example, 2 N; trained on is the answer alone, with what
        ends it.

        Raises:
            DataError: If an example is no preference, or not of the kind that the loss learns from,
                or an answer has no tokens; or the template fails.
        """
        conversations = []
        turns = []
        for each in examples:
            self._check(each)
            for answer in each.answers:
                said = (*each.prompt, *answer)
                conversations.append(Conversation(each.name, said, each.origin, "", each.tools))
                turns.append(sum(turn.role == "assistant" for turn in answer))
        found = self.chat.encode(conversations, processor)
        # A chat trains on every answer; here earlier ones belong to the prompt.
        return [keep_last_runs(sequence, runs) for sequence, runs in zip(found, turns, strict=True)]

    def _check(self, example: Any) -> None:
        known = isinstance(example, Preference | Conversation | Document | Example)
        where = (known and example.origin) or f"task {self.registered_name}"
        if not isinstance(example, Preference):
            problem = f"got a {type(example).__name__.lower()}; this task learns from preferences"
            raise DataError(where, problem, "Write data: {name: preferences, path: ...}")
        if example.good is None and self.objective == "kto":
            problem = "the data has pairs, but objective kto needs answers with labels"
            remedy = "Set data.unpaired: true, or another objective"
            raise DataError(where, problem, remedy)
        if example.good is not None and self.objective != "kto":
            problem = f"the data has a label, but objective {self.objective} needs pairs"
            raise DataError(where, problem, "Set objective: kto")

    def encode(self, examples: Sequence[Preference], processor: TextProcessor) -> Batch:
        """Return the tokens that are fed, those that come next (below 0 where not scored), and what
        is thought of them.

        Raises:
            DataError: As ``sequences``.
        """
        batch = encode_rows(self.sequences(examples, processor))
        references = [each.reference or (0.0, 0.0) for each in examples]
        batch["reference"] = torch.tensor(references, dtype=torch.float32)
        batch["good"] = torch.tensor([bool(each.good) for each in examples])
        return batch

    # ----------------------------------------------------------------------------------------- loss
    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return both sequences of all samples as one row of M tokens, and which tokens are asked
        about."""
        return join_rows(batch)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return (M,) log p of each token fed, in nats, 0 where not scored."""
        parts = [batch]
        if self.compares and may_split_rows():
            parts = list(split_samples(batch))
        return torch.cat([token_log_probs(model, **self.inputs(part)) for part in parts])

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return the sum of the losses over the pairs or labelled answers, their number, and sums
        to watch.

        Args:
            outputs: (M,) log p of each token in nats, 0 where not scored.
            batch: As ``encode`` gives it.
        """
        return self.compare(
            sums_by_answer(outputs, batch), count_scored(batch), batch["reference"], batch["good"]
        )

    def compare(self, log_probs: Tensor, tokens: Tensor, reference: Tensor, good: Tensor) -> Loss:
        """Return the loss of answers, from log-probabilities alone.

        Args:
            log_probs: (B, 2) of whole answers, in nats.
            tokens: (B, 2) how many tokens they have.
            reference: (B, 2) as log_probs, under the reference.
            good: (B,) for kto, which answers are good.
        """
        ratios = log_probs - reference
        average = log_probs / tokens
        slope = self.slope
        match self.objective:
            case "kto":
                return self._compare_labelled(log_probs, ratios, good)
            case "dpo":
                losses = formulas.dpo_loss(ratios, slope, self.label_smoothing)
                rewards = slope * ratios
            case "ipo":
                losses = formulas.ipo_loss(ratios / tokens, slope)
                rewards = ratios / tokens
            case "orpo":
                losses = formulas.orpo_loss(average, self.odds_weight)
                rewards = log_odds(average)
            case "simpo":
                losses = formulas.simpo_loss(average, slope, self.gamma)
                rewards = slope * average
        # What is watched must not keep the graph of the step alive.
        rewards = rewards.detach()
        nats = log_probs.detach()
        right = share_right(rewards[:, 0] - rewards[:, 1])
        watched = {"accuracy": right.sum(), "ranking": share_right(nats[:, 0] - nats[:, 1]).sum()}
        for column, name in enumerate(("chosen", "rejected")):
            watched |= {
                f"{name}_reward": rewards[:, column].sum(),
                f"{name}_log_prob": nats[:, column].sum(),
            }
        return Loss({self.loss_name: Term(losses.sum(), torch.tensor(len(losses)))}, watched)

    def _compare_labelled(self, log_probs: Tensor, ratios: Tensor, good: Tensor) -> Loss:
        # From answers to other prompts, which the model has no reason to make likelier.
        divergence = mismatched_divergence(ratios[:, 1])
        weights = (self.desirable_weight, self.undesirable_weight)
        losses = formulas.kto_loss(ratios[:, 0], divergence, good, self.slope, *weights)
        risen = ratios[:, 0].detach() - divergence
        rewards = self.slope * ratios[:, 0].detach()
        right = torch.where(good, share_right(risen), 1 - share_right(risen))
        watched = {
            "accuracy": right.sum(),
            "divergence": divergence * len(good),
            "good": good.sum(),
        }
        for name, which in (("chosen", good), ("rejected", ~good)):
            watched |= {f"{name}_reward": rewards[which].sum()}
            watched |= {f"{name}_log_prob": log_probs[which, 0].detach().sum()}
        return Loss({self.loss_name: Term(losses.sum(), torch.tensor(len(losses)))}, watched)

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return the mean loss and, over pairs, or over good and over bad answers:

        - ``reward_accuracy``: how often the chosen answer has the larger reward; with labels, how
          often a good one rose above the divergence and a bad one fell below. Ties are half right,
          so the reference itself has 0.5;
        - ``reward_margin``: how much larger the chosen answers' mean reward is; 0 for the reference
          itself;
        - ``chosen_reward``, ``rejected_reward``, and ``chosen_log_prob``, ``rejected_log_prob`` in
          nats an answer;
        - ``ranking_accuracy``, of pairs: how often the chosen answer is the likelier one;
        - ``divergence``, of labels: nats an answer, from the reference.

        A reward is what the loss compares: beta x log-ratio (dpo, kto), log-ratio a token (ipo),
        beta x log p a token (simpo), log odds a token (orpo).
        """
        # Means over pairs; with labels, good and bad answers are counted apart.
        total, count = sums[self.loss_name]
        values = {name: each for name, (each, _) in sums.items()}
        count = max(count, 1.0)
        found = {"loss": total / count, "reward_accuracy": values["accuracy"] / count}
        chosen = rejected = count
        if self.objective == "kto":
            chosen = max(values["good"], 1.0)
            rejected = max(count - values["good"], 1.0)
            found["divergence"] = values["divergence"] / count
        else:
            found["ranking_accuracy"] = values["ranking"] / count
        for kind in ("reward", "log_prob"):
            found |= {f"chosen_{kind}": values[f"chosen_{kind}"] / chosen}
            found |= {f"rejected_{kind}": values[f"rejected_{kind}"] / rejected}
        return {**found, "reward_margin": found["chosen_reward"] - found["rejected_reward"]}

    # ----------------------------------------------------------------------------------- prediction
    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Evaluate on held-out preferences, before and after; see ``evaluate_preferences``."""

        def answer(model: nn.Module, processor: Any, prompt: Sequence[Message]) -> str:
            # Greedy, or two evaluations of the same weights would show other answers.
            options = {"max_new_tokens": 112, "temperature": 0.0}
            return str(self.chat.predict(model, tuple(prompt), processor, **options))

        return evaluate_preferences(context, partial(self._measure, context), answer)

    def _measure(
        self, context: EvaluationContext, examples: Sequence[Preference], model: Any
    ) -> Measured:
        """Return the metrics of a model, or of the reference, on the examples that fit."""
        encode = partial(self.encode, processor=context.processor)
        rows = encode(examples)
        fits = rows["sequence_lengths"].amax(1) <= context.sequence_length
        rows = {name: values[fits] for name, values in rows.items()}
        log_probs = reference = rows["reference"].double()
        if model is not None:
            longest, progress = context.sequence_length, context.progress
            found = answer_log_probs(model, examples, encode, self.forward, longest, progress)
            log_probs = torch.from_numpy(found)[fits]
        loss = self.compare(log_probs, count_scored(rows).double(), reference, rows["good"])
        sums = {name: (float(term.total), float(term.count)) for name, term in loss.terms.items()}
        sums |= {name: (float(value), 1.0) for name, value in loss.metrics.items()}
        return self.summarise(sums), len(log_probs)
