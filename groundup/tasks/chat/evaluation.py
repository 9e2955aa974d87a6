"""How good answers are: the bits they cost after the right and after a wrong question, and how near
generated ones come."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from groundup.contracts.processors import TextProcessor
from groundup.contracts.tasks import EvaluationContext
from groundup.core.seeding import key
from groundup.core.values import Conversation, Evaluation, Message, Table, TokenSequence
from groundup.generation.options import DecodingOptions
from groundup.generation.scoring import sequence_nll, token_nll
from groundup.metrics.compression import bits_per_byte
from groundup.metrics.rouge import rouge_l
from groundup.processors.chat.builtin_templates import TEMPLATES
from groundup.processors.chat.template import ChatTemplate
from groundup.tasks.shared.text_generation import write

__all__ = ["evaluate_answers", "last_run"]

# Scoring costs a forward pass of a whole conversation for each model and each question, right or
# wrong.
_MOST_QUESTIONS = 1000
_SHOWN = 10
# Greedy answers that never end would otherwise be written to the end of the context.
_LONGEST_ANSWER = 112  # tokens


@dataclass(frozen=True)
class _Question:
    """What comes before the last answer of a conversation, and that answer."""

    name: str
    asked: tuple[Message, ...]
    reply: Message
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def answer(self) -> str:
        """What the reply says, without what was thought before."""
        return self.reply.content

    def conversation(self, asked: tuple[Message, ...] | None = None) -> tuple[Message, ...]:
        """Return the messages up to the answer, with this question or another."""
        return (*(asked or self.asked), dataclasses.replace(self.reply, trained=True))


@dataclass(frozen=True)
class _Answerer:
    """A model with the way it is asked."""

    model: nn.Module
    processor: TextProcessor
    template: ChatTemplate
    stop: tuple[str, ...] = ()
    # A run of documents has no words for tools: their calls are spelled out, as its texts would.
    plain: bool = False  # reads calls of tools as text, and receives none

    def read(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """Return messages as they are asked."""
        return tuple(map(_spell_calls, messages)) if self.plain else messages

    def tools(self, question: _Question) -> tuple[dict[str, Any], ...]:
        """Return the tools that the model hears of."""
        return () if self.plain else question.tools

    def encode(
        self, conversations: list[tuple[Message, ...]], questions: list[_Question]
    ) -> list[TokenSequence]:
        """Return the tokens of conversations, each with the tools of a question, of which the last
        answer counts."""
        # The tools go with the question that is asked, also where it is another conversation's.
        tools = [self.tools(question) for question in questions]
        found = self.template.encode_batch([self.read(each) for each in conversations], tools=tools)
        return [last_run(sequence) for sequence in found]


def last_run(sequence: TokenSequence) -> TokenSequence:
    """Return the sequence with only the last run of trained tokens still trained on: the last
    answer and its stop."""
    if sequence.trained is None or not sequence.trained.any():
        return sequence
    trained = sequence.trained.copy()
    end = int(np.flatnonzero(trained)[-1])
    gaps = np.flatnonzero(~trained[:end])
    if len(gaps):
        trained[: gaps[-1] + 1] = False
    return dataclasses.replace(sequence, trained=trained)


def evaluate_answers(context: EvaluationContext, template: ChatTemplate) -> Evaluation:
    """Evaluate a fine-tuned model on the last answer of held-out conversations, and the model it
    came from.

    The run that it came from is asked in plain text (``Question: ... Answer: ...``) and ends an
    answer as it ends a document; pretrained weights are asked as the fine-tuned model is. Figures,
    each for the model and, with ``base_`` before it, for the model before:

    - ``answer_bits_per_byte``: -log2 p of the answer and its stop token, over the answer's UTF-8
      bytes;
    - ``answer_bits_per_byte_without_stop``: the same without the stop token's bits;
    - ``answer_bits_per_byte_other_question``: the same answers after another conversation's
      question (each takes that of the next one in a keyed order);
    - ``rouge_l``: ROUGE-L (F1) of greedy answers to the first ``context.limit`` questions of the
      keyed order.
    """
    held_out = _order_questions(context.examples("validation"), context.seed)[:_MOST_QUESTIONS]
    trained = _order_questions(context.examples("train"), context.seed)
    trained = trained[: min(_SHOWN, context.limit)]
    answerers = {"": _Answerer(context.model, context.processor, template)}
    alike = False
    if context.base is not None:
        model, processor = context.base
        # Pretrained weights come with the run's own processor, and are asked as the run is. A run
        # of documents has never seen the template's tokens: they would count against it.
        alike = processor is context.processor
        if alike:
            answerers["base_"] = _Answerer(model, processor, template)
        else:
            plain = ChatTemplate(TEMPLATES["plain"], processor)
            answerers["base_"] = _Answerer(model, processor, plain, ("\n",), plain=True)
    metrics: dict[str, float] = {"held_out_questions": float(len(held_out))}
    answers: dict[str, list[str]] = {}
    # Writing is slow next to scoring, so only the first questions are answered, in the same keyed
    # order for every run of a comparison.
    asked = held_out[: context.limit]
    for prefix, answerer in answerers.items():
        which = "the model before fine-tuning" if prefix else "the model"
        context.progress(f"scoring {len(held_out)} held-out answers with {which}")
        bits = _measure_bits(answerer, held_out, context.sequence_length)
        metrics |= {prefix + name: value for name, value in bits.items()}
        context.progress(f"letting {which} answer {len(asked) + len(trained)} questions")
        begin = time.perf_counter()
        answers[prefix] = _answer(answerer, [*asked, *trained])
        # Of the model before, only the quality is of interest.
        if not prefix:
            metrics["generation_s"] = time.perf_counter() - begin
        metrics[f"{prefix}rouge_l"] = rouge_l(
            answers[prefix][: len(asked)], [question.answer for question in asked]
        )
    metrics |= _measure_gains(metrics)
    to_held_out = {prefix: texts[: len(asked)] for prefix, texts in answers.items()}
    to_trained = {prefix: texts[len(asked) :] for prefix, texts in answers.items()}
    tables = [
        _bits_table(metrics, alike=alike),
        _answers_table("Held-out questions", asked, to_held_out),
        _answers_table("Trained questions", trained, to_trained),
    ]
    return Evaluation(metrics, tables)


def _order_questions(conversations: Iterable[Conversation], seed: int) -> list[_Question]:
    """Return the questions that have an answer, in an order that depends on the seed and their
    names alone."""
    questions: list[_Question] = []
    for conversation in conversations:
        turns = conversation.messages
        answers = [n for n, m in enumerate(turns) if m.role == "assistant" and m.content]
        last = answers[-1] if answers else 0
        if last:  # an answer at the very beginning has no question
            questions.append(
                _Question(conversation.name, turns[:last], turns[last], conversation.tools)
            )
    # The name after the key: two keys may be the same, and the order must not depend on the files'.
    return sorted(questions, key=lambda each: (key(seed, f"question {each.name}"), each.name))


def _measure_bits(
    answerer: _Answerer, questions: list[_Question], context_length: int
) -> dict[str, float]:
    """Return the bits per byte of all answers together, after their own and another question."""
    # Over bytes, because runs with different tokenizers are compared: a token is not the same
    # length in both.
    size = sum(len(question.reply.text.encode()) for question in questions)
    others = [*questions[1:], *questions[:1]]  # one cycle: nobody keeps the own question
    right = answerer.encode([q.conversation() for q in questions], questions)
    swapped = [q.conversation(other.asked) for q, other in zip(questions, others, strict=True)]
    wrong = answerer.encode(swapped, others)
    nats = token_nll(answerer.model, right, context_length)
    # A run of documents ends an answer with a line break, a chat with a token of its own: how
    # surely each ends is left out of one of the figures.
    of_stops = sum(
        float(each[_stop(sequence)].sum()) for each, sequence in zip(nats, right, strict=True)
    )
    of_answers = sum(float(each.sum()) for each in nats)
    of_others = sum(sequence_nll(answerer.model, wrong, context_length))
    return {
        "answer_bits_per_byte": bits_per_byte(of_answers, size),
        "answer_bits_per_byte_without_stop": bits_per_byte(of_answers - of_stops, size),
        "answer_bits_per_byte_other_question": bits_per_byte(of_others, size),
    }


def _stop(sequence: TokenSequence) -> NDArray[np.intp]:
    """Return where the token is that ends the answer, the last one trained on; empty where there is
    none."""
    if sequence.trained is None:
        return np.empty(0, np.intp)
    return np.flatnonzero(sequence.trained)[-1:]


def _answer(answerer: _Answerer, questions: list[_Question]) -> list[str]:
    options = DecodingOptions(max_new_tokens=_LONGEST_ANSWER, temperature=0, stop=answerer.stop)
    prompts = [
        answerer.template.prompt(answerer.read(q.asked), tools=answerer.tools(q)).tolist()
        for q in questions
    ]
    texts = write(answerer.model, prompts, answerer.processor, options, answerer.template.stop_ids)
    return [text.strip() for text in texts]


def _spell_calls(message: Message) -> Message:
    """Return a message with its calls of tools as text."""
    if not message.tool_calls:
        return message
    calls = [
        json.dumps({"name": c.name, "arguments": c.arguments}, ensure_ascii=False)
        for c in message.tool_calls
    ]
    return Message(message.role, "\n".join([message.content, *calls]).strip())


def _measure_gains(metrics: dict[str, float]) -> dict[str, float]:
    """Return how much lower the bits are, as shares: than before fine-tuning, and than with
    another's question."""
    after = metrics["answer_bits_per_byte"]
    other = metrics["answer_bits_per_byte_other_question"]
    gains = {"below_other_question": 1 - after / other if other else 0.0}
    if metrics.get("base_answer_bits_per_byte"):
        gains["below_base"] = 1 - after / metrics["base_answer_bits_per_byte"]
        before = metrics["base_answer_bits_per_byte_without_stop"]
        gains["below_base_without_stop"] = 1 - metrics["answer_bits_per_byte_without_stop"] / before
    return gains


def _bits_table(metrics: dict[str, float], *, alike: bool) -> Table:
    names = {
        "answer_bits_per_byte": "bits per answer byte, right question",
        "answer_bits_per_byte_without_stop": "the same, without the stop token",
        "answer_bits_per_byte_other_question": "bits per answer byte, another question",
        "rouge_l": "ROUGE-L of greedy answers",
    }
    note = (
        "Before fine-tuning the model is asked in plain text, and its answers end as documents do."
    )
    if alike:
        note = "Before and after, the model is asked with the same template."
    rows: Any = [(title, metrics.get(f"base_{k}"), metrics[k]) for k, title in names.items()]
    columns = ("measure", "before fine-tuning", "after")
    return Table("Answers to held-out questions", columns, rows, note)


def _answers_table(title: str, questions: list[_Question], answers: dict[str, list[str]]) -> Table:
    before: Sequence[str | None] = answers.get("base_") or [None] * len(questions)
    rows: list[tuple[str | float | int | None, ...]] = [
        (question.asked[-1].content, was, now, question.answer)
        for question, was, now in zip(questions, before, answers[""], strict=True)
    ]
    return Table(title, ("question", "before fine-tuning", "after", "true answer"), rows[:_SHOWN])
