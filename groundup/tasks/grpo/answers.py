"""Groups of answers that the current weights write, scored: the examples of the next steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from groundup.contracts.data import DataContext, DataSource, Stream
from groundup.contracts.derived_source import DerivedSource
from groundup.contracts.experience import ExperienceStream
from groundup.contracts.prompts import Prompt
from groundup.core.errors import DataError
from groundup.core.seeding import generator, key
from groundup.core.values import Batch, HasOrigin, TokenSequence
from groundup.generation.decoding import Decodable, generate_batch
from groundup.generation.options import DecodingOptions
from groundup.generation.scoring import device_of
from groundup.nn.lora.switched_off import merged
from groundup.tasks.grpo.losses import group_advantages
from groundup.tasks.shared.sequence_rows import encode_rows

__all__ = ["AnswerRules", "AnsweredSource", "Answers", "write_answers"]

_log = logging.getLogger("groundup")
_AT_ONCE = 64  # answers that are written together: their caches are in memory


@dataclass(frozen=True)
class AnswerRules:
    """What the task says of how answers are made and scored.

    Attributes:
        encode: Gives the tokens of a prompt, up to where the answer begins.
        stop_ids: Tokens that end an answer.
        score: Gives rewards (N, R), weighted, of answers as lists of tokens; their sum is the
            reward.
        log_probs: Gives the log-probabilities (M,) of the tokens fed of a batch, by the weights or
            by the reference.
        group: G, answers to a prompt.
        updates: Steps that learn from the same answers.
        passes: How often each of them is learned from.
        longest: The most tokens of an answer.
        scaled: Whether advantages are divided by the group's standard deviation.
        draws: How often prompts whose answers are all equally good are replaced by others.
        held_out: Prompts that a validation asks.
        before: Whether log-probabilities of the weights that wrote the answers are kept.
        reference: Gives the log-probabilities of the reference; None: none are needed.
    """

    encode: Callable[[Prompt], list[int]]
    stop_ids: Collection[int]
    score: Callable[[Sequence[list[int]], Sequence[Prompt]], Tensor]
    log_probs: Callable[[nn.Module, Batch], Tensor]
    group: int
    updates: int
    passes: int
    longest: int
    scaled: bool
    draws: int
    held_out: int
    before: bool
    reference: Callable[[nn.Module, Batch], Tensor] | None


@dataclass
class _Groups:
    """Prompts with their groups of answers.

    Attributes:
        answers: G of each prompt, as tokens.
        rewards: (N, G, R), weighted.
    """

    prompts: list[Prompt]
    answers: list[list[list[int]]]
    rewards: Tensor

    @property
    def signal(self) -> Tensor:
        """(N,) whether the answers to a prompt differ in what they are worth."""
        sums = self.rewards.sum(2)
        return (sums.amax(1) - sums.amin(1)) > 0

    def take(self, chosen: Tensor) -> _Groups:
        """Return some of them."""
        # Texts and numbers are kept apart: only rewards are compared, all at once.
        places = chosen.tolist()
        return _Groups(
            [self.prompts[n] for n in places],
            [self.answers[n] for n in places],
            self.rewards[chosen],
        )

    def __add__(self, other: _Groups) -> _Groups:
        rewards = torch.cat((self.rewards, other.rewards))
        return _Groups(self.prompts + other.prompts, self.answers + other.answers, rewards)


def write_answers(
    model: nn.Module,
    prompts: Sequence[list[int]],
    stop_ids: Collection[int],
    longest: int,
    seed: int | None,
) -> list[list[int]]:
    """Return the tokens of an answer to each prompt, with the one that ends it, if it ends.

    Args:
        model: In evaluation mode.
        prompts: As tokens.
        stop_ids: What ends an answer.
        longest: The most tokens.
        seed: Each token is drawn as the model says, at temperature 1; None takes the likeliest.
    """
    stops = frozenset(stop_ids)
    # In several goes, each with draws of its own: a cache for all answers at once may be larger
    # than the model.
    written: list[list[int]] = []
    # Each token passes every layer: one product in place of three is felt there, unlike in
    # training, where the weight that is merged would have to be computed at each step.
    with merged(model):
        for first in range(0, len(prompts), _AT_ONCE):
            drawn: dict[str, Any] = {"temperature": 0.0}
            if seed is not None:
                drawn = {"temperature": 1.0, "seed": key(seed, "answers", first)}
            options = DecodingOptions(max_new_tokens=longest, overflow="stop", **drawn)
            # Looked for here, and not by ``stop_ids``: the token that ends an answer is learned.
            written += generate_batch(
                cast(Decodable, model),
                prompts[first : first + _AT_ONCE],
                options,
                finished=lambda row, tokens: tokens[-1] in stops,
            )
    return written


class AnsweredSource(DerivedSource):
    """Another source, whose prompts are answered. It is made by a task and named in no recipe."""

    _rules: AnswerRules = PrivateAttr()

    @classmethod
    def of(cls, source: DataSource, rules: AnswerRules) -> AnsweredSource:
        """Return the source with answers."""
        made = cls()
        made._source = source
        made._rules = rules
        return made

    def open(self, context: DataContext) -> Stream:
        """Return a stream of groups of answers.

        Raises:
            DataError: If an example is no prompt, or leaves no room for an answer.
        """
        # The source's own stream would encode them: here they are asked again and again.
        examples = list(self._source.examples(context.split, context.cache))
        return Answers(examples, context, self._rules)


class Answers(ExperienceStream):
    """Groups of answers: a sample is a prompt with G answers, end to end in a row."""

    def __init__(self, prompts: list[Any], context: DataContext, rules: AnswerRules) -> None:
        rows = context.batch_size * rules.updates // rules.passes
        super().__init__(context, rules.updates, rows)
        self._prompts = prompts if self.training else prompts[: rules.held_out]
        self._rules = rules
        self._tokens = [rules.encode(_check(each)) for each in self._prompts]
        self._count = rows if self.training else len(self._prompts)
        self._rows_at_once = context.micro_batch_size
        self._step = -1
        self._unlearned = 0  # refills in which no group had a signal
        self._check_lengths(context.sequence_length)

    def _check_lengths(self, context_length: int) -> None:
        # Before anything is written: an answer that is cut by the context looks like a bad one.
        for prompt, tokens in zip(self._prompts, self._tokens, strict=True):
            if len(tokens) + self._rules.longest > context_length:
                raise DataError(
                    prompt.origin or prompt.name,
                    f"the prompt has {len(tokens)} tokens and an answer up to"
                    f" {self._rules.longest}; the context has {context_length}",
                    "Raise model.context_length, lower task.max_new_tokens, or shorten the prompt",
                )

    @property
    def samples_per_epoch(self) -> int:
        """Prompts in one pass."""
        return len(self._prompts)

    def make(self, model: nn.Module, step: int) -> Batch:
        """Return groups of answers by these weights, scored."""
        self._step = step
        if not self.training:
            # One answer, as a user gets it; compared with nothing, its worth is its reward.
            found = self._answer(model, list(range(self._count)), 1, None)
            return self._rows(model, found, found.rewards.sum(2), [self._count])
        found = self._answer(model, self._next(self._count), self._rules.group, 0)
        asked = [self._count, int((~found.signal).sum())]
        for turn in range(1, self._rules.draws):
            silent = (~found.signal).nonzero()[:, 0]
            if not len(silent):
                break
            # In the place of groups that teach nothing, until there is nothing left to replace.
            more = self._answer(model, self._next(len(silent)), self._rules.group, turn)
            asked = [asked[0] + len(silent), asked[1] + int((~more.signal).sum())]
            kept = found.signal.nonzero()[:, 0]
            found = found.take(kept) + more
        self._tell(found)
        # Here and not in the loss: micro-batches hold whole groups, but not all of a step.
        advantages = group_advantages(found.rewards.sum(2), scaled=self._rules.scaled)
        return self._rows(model, found, advantages, asked)

    def _tell(self, found: _Groups) -> None:
        if found.signal.any():
            self._unlearned = 0
            return
        # Some steps without a signal are usual where rewards are rare; many in a row are a mistake.
        self._unlearned += 1
        # At the first time and at 2, 4, 8 in a row: said, and not in every line.
        if self._unlearned & (self._unlearned - 1) == 0:
            sums = found.rewards.sum(2)
            _log.warning(
                "step %d: the %d answers to each of %d prompts have equal rewards (%g on average):"
                " there is nothing to learn from them%s. Use easier or harder prompts, a reward"
                " with more steps, or a larger task.group_size",
                self._step,
                sums.shape[1],
                len(sums),
                float(sums.mean()),
                f", the {self._unlearned}th time in a row" if self._unlearned > 1 else "",
            )

    def _next(self, count: int) -> list[int]:
        """Return the prompts that come next: each pass over all of them is a keyed permutation."""
        size = len(self._prompts)
        # Counted, not a function of the step: how many are replaced depends on what was answered.
        first = self.cursor.get("prompts", 0)
        self.cursor["prompts"] = first + count
        found: list[int] = []
        for number in range(first, first + count):
            turn, place = divmod(number, size)
            draws = generator(self.seed, "prompts", turn)
            found.append(int(torch.randperm(size, generator=draws)[place]))
        return found

    def _answer(
        self, model: nn.Module, chosen: Sequence[int], group: int, turn: int | None
    ) -> _Groups:
        rules = self._rules
        prompts = [self._tokens[n] for n in chosen for _ in range(group)]
        seed = None if turn is None else key(self.seed, "groups", self._step, turn)
        written = write_answers(model, prompts, rules.stop_ids, rules.longest, seed)
        asked = [self._prompts[n] for n in chosen]
        rewards = rules.score(written, [each for each in asked for _ in range(group)])
        answers = [written[first : first + group] for first in range(0, len(written), group)]
        return _Groups(asked, answers, rewards.view(len(asked), group, -1))

    def _rows(
        self, model: nn.Module, found: _Groups, advantages: Tensor, asked: Sequence[int]
    ) -> Batch:
        rules = self._rules
        group = found.rewards.shape[1]
        sequences = []
        for prompt, answers in zip(found.prompts, found.answers, strict=True):
            begin = rules.encode(prompt)
            for answer in answers:
                # A prompt is read and never learned: only what the model wrote has a reward.
                tokens = np.array([*begin, *answer], np.int32)
                sequences.append(TokenSequence(tokens, np.arange(len(tokens)) >= len(begin)))
        rows = encode_rows(sequences, group)
        ends = [[answer[-1] in rules.stop_ids for answer in each] for each in found.answers]
        rows["advantages"] = advantages.float()
        rows["rewards"] = found.rewards.float()
        rows["ended"] = torch.tensor(ends)
        # Of all groups that were asked for, also of those that were replaced, shared by the rows.
        silent = asked[1] if len(asked) > 1 else 0
        rows["silent"] = torch.full((len(found.prompts),), silent / asked[0])
        # By the same operations as in training: what decoding computed is rounded otherwise, and
        # the ratio of the two would not begin at 1.
        if rules.before:
            rows["before"] = self._log_probs(rules.log_probs, model, rows)
        if rules.reference is not None:
            rows["reference"] = self._log_probs(rules.reference, model, rows)
        return rows

    def _log_probs(
        self, compute: Callable[[nn.Module, Batch], Tensor], model: nn.Module, rows: Batch
    ) -> Tensor:
        """Return (B, L) log-probabilities of the tokens fed, 0 where none is scored."""
        # In parts of a micro-batch's size: what fits into memory in training fits here.
        device = device_of(model)
        found = torch.zeros(rows["tokens"].shape)
        places = torch.arange(found.shape[1])
        for first in range(0, len(found), self._rows_at_once):
            some = slice(first, first + self._rows_at_once)
            part = {name: values[some].to(device) for name, values in rows.items()}
            fed = places < rows["lengths"][some, None]
            found[some][fed] = compute(model, part).float().cpu()
        return found


def _check(example: Any) -> Prompt:
    if isinstance(example, Prompt):
        return example
    where = example.origin if isinstance(example, HasOrigin) else ""
    raise DataError(
        where or "task grpo",
        f"got a {type(example).__name__.lower()}; this task learns from prompts",
        "Write data: {name: prompts, path: ...}",
    )
