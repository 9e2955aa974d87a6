"""Group-relative policy optimisation: a chat model writes several answers to each prompt, rewards
score them, and those that are better than the others of their group become likelier.

Source: Shao et al. 2024, "DeepSeekMath", arXiv:2402.03300, section 4. Variants, each a setting
named by what it changes: Yu et al. 2025, "DAPO", arXiv:2503.14476 (``clip_high``,
``average: tokens``, ``draws``, ``overlong_buffer``); Liu et al. 2025, "Understanding R1-Zero-like
training", arXiv:2503.20783, Dr. GRPO (``scale_by_spread: false``, ``average: constant``).

Departs from the papers: answers are drawn at temperature 1, as the loss assumes.

Shape legend: B prompts, G answers of each, L tokens of all answers of a prompt with it, R rewards,
M tokens fed of a micro-batch.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import field_validator, model_validator
from torch import Tensor, nn

from groundup.contracts.data import DataSource
from groundup.contracts.processors import TextProcessor
from groundup.contracts.prompts import Prompt
from groundup.contracts.tasks import EvaluationContext, Start
from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.core.values import Batch, Conversation, Evaluation, Loss, Term
from groundup.generation.log_probs import token_log_probs
from groundup.nn.lora.switched_off import only_adapters_trained, without_adapters
from groundup.tasks.chat.answering_task import AnsweringTask
from groundup.tasks.grpo.answers import AnsweredSource, AnswerRules
from groundup.tasks.grpo.evaluation import evaluate_rewards
from groundup.tasks.grpo.losses import overlong_penalty, policy_tokens
from groundup.tasks.grpo.rewards import Reward, score_answers
from groundup.tasks.grpo.shared_prompts import (
    branch_log_probs,
    shares_prompts,
    spread_rows,
    teaching_rows,
)
from groundup.tasks.shared.sequence_rows import join_rows

__all__ = ["Grpo"]


@task("grpo")
class Grpo(AnsweringTask):
    """Make answers likelier that have more reward than others to the same prompt."""

    file_source: ClassVar[str] = "prompts"
    rewards: tuple[Reward, ...] = setting(
        (Reward(name="exact_number"),),
        "What answers are scored for; the weighted sum is an answer's reward",
        min_length=1,
    )
    group_size: int = setting(8, "Answers to each prompt, which are compared with each other")
    max_new_tokens: int = setting(128, "The most tokens of an answer", ge=1)
    updates: int = setting(1, "Steps that learn from the same answers", ge=1)
    passes: int = setting(
        1, "How often each answer is learned from; updates is a multiple of it", ge=1
    )
    clip: float = setting(
        0.2, "How far below 1 the ratio of probabilities moves with a gradient", gt=0, le=1
    )
    clip_high: float | None = setting(
        None, "How far above 1 it moves; null: as far as below. DAPO: 0.28", gt=0
    )
    average: Literal["answers", "tokens", "constant"] = setting(
        "answers",
        "The loss is the mean over answers of their tokens' mean; or over all tokens of a step"
        " (DAPO); or each answer's sum over max_new_tokens (Dr. GRPO)",
    )
    scale_by_spread: bool = setting(
        True, "Divide rewards of a group by their standard deviation; false: Dr. GRPO"
    )
    draws: int = setting(
        1,
        "Prompts whose answers have equal rewards are replaced by others until they were drawn this"
        " often (DAPO's dynamic sampling); 1: they stay, and teach nothing",
        ge=1,
    )
    overlong_buffer: int = setting(
        0,
        "Answers that reach into the last tokens of max_new_tokens lose up to 1 of their reward"
        " (DAPO's overlong shaping); 0: none does",
        ge=0,
    )
    kl_weight: float = setting(
        0.04, "How expensive it is to leave the weights that training starts from", ge=0
    )
    held_out: int = setting(64, "Held-out prompts that a validation asks", ge=1)

    @field_validator("group_size")
    @classmethod
    def _is_compared(cls, size: int) -> int:
        if size < 2:
            raise ValueError(
                f"a group of {size} has no other answer to be compared with; allowed: 2 and more."
                " Use 4 to 16"
            )
        return size

    @model_validator(mode="after")
    def _fits_together(self) -> Grpo:
        if self.updates % self.passes:
            raise ValueError(
                f"updates {self.updates} is no multiple of passes {self.passes}. Change one of them"
            )
        if self.overlong_buffer > self.max_new_tokens:
            raise ValueError(
                f"overlong_buffer {self.overlong_buffer} is longer than max_new_tokens"
                f" {self.max_new_tokens}. Lower it"
            )
        names = [each.name for each in self.rewards]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None and twice not in ("regex", "json"):
            raise ValueError(f"rewards name {twice!r} twice. Add up their weights")
        return self

    @property
    def unit(self) -> str:  # type: ignore[override]
        """What the loss counts."""
        return "tokens" if self.average == "tokens" else "answers"

    @property
    def compares_with_pretrained(self) -> bool:
        """Answers before and after are shown next to each other."""
        return True

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read; all answers to a prompt are in one row, end to end."""
        spec = {
            "tokens": "int32 (B, L)",
            "next_tokens": "int32 (B, L)",
            "lengths": "int64 (B,)",
            "sequence_lengths": "int64 (B, G)",
            "advantages": "float32 (B, G)",
            "rewards": "float32 (B, G, R)",
            "ended": "bool (B, G)",
            "silent": "float32 (B,)",
        }
        if self.updates > 1:
            spec["before"] = "float32 (B, L)"
        if self.kl_weight:
            spec["reference"] = "float32 (B, L)"
        return spec

    @property
    def reward_names(self) -> list[str]:
        """A name for each reward, in their order."""
        names = [each.name for each in self.rewards]
        return [
            f"{name}_{n + 1}" if names.count(name) > 1 else name for n, name in enumerate(names)
        ]

    # ----------------------------------------------------------------------------------------- data
    def encode(self, examples: Sequence[Prompt], processor: TextProcessor) -> Batch:
        """Return the tokens of prompts, which are not learned; ``precompute`` has them answered."""
        template = self.chat_template(processor)
        tokens = [template.prompt(each.messages, tools=each.tools) for each in examples]
        lengths = torch.tensor([len(each) for each in tokens])
        rows = torch.zeros(len(tokens), int(lengths.max()), dtype=torch.int32)
        for row, each in zip(rows, tokens, strict=True):
            row[: len(each)] = torch.from_numpy(each)
        return {"tokens": rows, "lengths": lengths}

    def precompute(self, source: DataSource, start: Start) -> DataSource:
        """Return the data with answers in place of prompts: the weights of each step write them."""
        processor = start.processor
        template = self.chat_template(processor)
        # Built at most once, and not at all where the model without its adapter is the same.
        first = functools.cache(start.model)

        def encode(prompt: Prompt) -> list[int]:
            return [int(n) for n in template.prompt(prompt.messages, tools=prompt.tools)]

        def refer(model: nn.Module, batch: Batch) -> Tensor:
            # No second model is kept in memory, where the one that is trained can tell.
            if only_adapters_trained(model):
                with without_adapters(model):
                    return self.forward(model, batch)
            return self.forward(first(), batch)

        rules = AnswerRules(
            encode=encode,
            stop_ids=template.stop_ids,
            score=functools.partial(self.score, processor),
            log_probs=self.forward,
            group=self.group_size,
            updates=self.updates,
            passes=self.passes,
            longest=self.max_new_tokens,
            scaled=self.scale_by_spread,
            draws=self.draws,
            held_out=self.held_out,
            before=self.updates > 1,
            reference=refer if self.kl_weight else None,
        )
        return AnsweredSource.of(source, rules)

    def score(
        self, processor: TextProcessor, answers: Sequence[list[int]], prompts: Sequence[Prompt]
    ) -> Tensor:
        """Return (N, R) the weighted rewards of answers, the last one of their length where too
        long ones lose some.

        Raises:
            TrainingError: If a reward fails.
        """
        stops = self.chat_template(processor).stop_ids
        # What a user would read: without the tokens that end an answer.
        texts = [
            processor.decode([token for token in each if token not in stops]).strip()
            for each in answers
        ]
        found = torch.tensor(score_answers(self.rewards, texts, prompts), dtype=torch.float64)
        found = found * torch.tensor([each.weight for each in self.rewards], dtype=torch.float64)
        if not self.overlong_buffer:
            return found
        lengths = torch.tensor([float(len(each)) for each in answers], dtype=torch.float64)
        # As a reward of its own, so that the log says what it costs.
        lost = overlong_penalty(lengths, self.max_new_tokens, self.overlong_buffer)
        return torch.cat((found, lost[:, None]), 1)

    # ----------------------------------------------------------------------------------------- loss
    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return all answers as one row of M tokens, and which tokens are asked about."""
        return join_rows(batch)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return (M,) log p of each token fed, in nats, 0 where not scored and in rows that teach
        nothing."""
        chosen = self._fed_rows(batch)
        if not chosen.all():
            part = {name: values[chosen] for name, values in batch.items()}
            return spread_rows(self._log_probs(model, part), chosen, batch)
        return self._log_probs(model, batch)

    def _log_probs(self, model: nn.Module, batch: Batch) -> Tensor:
        if shares_prompts(model, int(batch["sequence_lengths"].max())):
            return branch_log_probs(model, batch)
        return token_log_probs(model, **self.inputs(batch))

    def _fed_rows(self, batch: Batch) -> Tensor:
        """Return (B,) which rows the model is given: not those without a gradient. A validation's
        answers are one each, of which all are watched."""
        if self.kl_weight or batch["advantages"].shape[1] == 1:
            return torch.ones_like(batch["lengths"], dtype=torch.bool)
        return teaching_rows(batch)

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return the sum of the loss over answers or tokens, what it counts, and sums to watch.

        Args:
            outputs: (M,) log p of each token in nats, 0 where not scored.
            batch: As the stream of answers gives it.
        """
        lengths = batch["sequence_lengths"].flatten()
        places = torch.arange(batch["tokens"].shape[1], device=lengths.device)
        fed = places < batch["lengths"][:, None]
        scored = batch["next_tokens"][fed] >= 0
        answer = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
        answer = answer[scored]
        log_probs = outputs[scored]
        # With one update the weights that wrote are those that learn: the ratio is 1, and has the
        # gradient of the log-probability.
        before = batch["before"][fed][scored] if "before" in batch else log_probs.detach()
        reference = batch["reference"][fed][scored] if "reference" in batch else None
        found = policy_tokens(
            log_probs,
            before,
            batch["advantages"].flatten()[answer],
            (self.clip, self.clip_high or self.clip),
            reference,
            self.kl_weight,
        )
        # (B G,) by sums, which are exact: counted by place, their order would be chance on a GPU.
        before_each = F.pad(scored.cumsum(0), (1, 0))
        ends = lengths.cumsum(0)
        tokens = (before_each[ends] - before_each[ends - lengths]).to(log_probs.dtype)
        # A sum and its count in each case, so that micro-batches do not matter.
        count = torch.tensor(float(len(lengths)))
        each = found.loss
        if self.average == "answers":
            each = each / tokens[answer]
        elif self.average == "tokens":
            count = tokens.sum()
        else:
            each = each / self.max_new_tokens
        watched = {
            "answers": torch.tensor(float(len(lengths))),
            "tokens": tokens.sum(),
            "prompts": torch.tensor(float(len(batch["lengths"]))),
            "reward": batch["rewards"].sum(),
            "ended": batch["ended"].sum(),
            "surprise": -log_probs.detach().sum(),
            "asked": (tokens.view_as(batch["advantages"]).sum(1) * self._fed_rows(batch)).sum(),
            "divergence": found.divergence.sum(),
            "clipped_low": found.clipped_low.sum(),
            "clipped_high": found.clipped_high.sum(),
            "silent": batch["silent"].sum(),
        }
        for number, name in enumerate(self.reward_names):
            watched[f"reward_{name}"] = batch["rewards"][..., number].sum()
        return Loss({"policy": Term(each.sum(), count)}, watched)

    def watched(self, means: Mapping[str, float]) -> dict[str, float]:
        """Return what a step's answers were like, next to its loss."""
        found = self._describe(means)
        found["no_signal"] = means["silent"] / means["prompts"]
        return found

    def _describe(self, sums: Mapping[str, float]) -> dict[str, float]:
        answers = sums["answers"]
        tokens = sums["tokens"]
        found = {"reward": sums["reward"] / answers}
        if len(self.rewards) > 1:
            found |= {f"reward_{n}": sums[f"reward_{n}"] / answers for n in self.reward_names}
        found |= {
            "answer_tokens": tokens / answers,
            "ended": sums["ended"] / answers,
            "entropy": sums["surprise"] / sums["asked"],
        }
        if self.kl_weight:
            found["kl"] = sums["divergence"] / tokens
        if self.updates > 1:
            found |= {side: sums[side] / tokens for side in ("clipped_low", "clipped_high")}
        return found

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return, of the likeliest answers to held-out prompts, one each:

        - ``loss``: less the mean reward, and more the weighted divergence, as the mean is taken;
        - ``reward``, and ``reward_NAME`` of several;
        - ``answer_tokens``, and ``ended``: the share that came to an end;
        - ``entropy``: nats a token, estimated as -log p of the tokens written: of tokens that were
          drawn, as in training, it is the model's (of groups with a signal, without a divergence);
          of the likeliest ones it is less;
        - ``kl``: nats a token from the start, by the estimator of the loss.
        """
        total, count = sums["policy"]
        values = {name: each for name, (each, _) in sums.items()}
        found = self._describe(values)
        # Nothing is clipped by the weights that wrote the answers.
        found = {name: value for name, value in found.items() if "clipped" not in name}
        return {"loss": total / max(count, 1.0), **found}

    # ----------------------------------------------------------------------------------- prediction
    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Evaluate the likeliest answers to held-out prompts, before and after; see
        ``evaluate_rewards``."""

        def answer(model: nn.Module, prompts: Sequence[Prompt]) -> list[str]:
            asked = [Conversation(e.name, e.messages, e.origin, "", e.tools) for e in prompts]
            options = {"max_new_tokens": self.max_new_tokens, "temperature": 0.0}
            found = self.chat.predict(model, asked, context.processor, **options)
            return list(found)

        return evaluate_rewards(context, self.rewards, self.reward_names, self.held_out, answer)
