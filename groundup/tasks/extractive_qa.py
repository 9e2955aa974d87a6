"""Answers that are pieces of a text: an encoder reads question and text, and marks where the answer
begins and ends.

Legend: B questions, W windows of a text, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor, nn

from groundup.contracts.processors import EncodesSpans, TextProcessor
from groundup.contracts.tasks import PREDICTION, EvaluationContext, Task
from groundup.core.errors import DataError, RecipeError
from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.core.values import Batch, CutInputs, Evaluation, Example, Loss, Table, Term
from groundup.generation.scoring import device_of, evaluating
from groundup.metrics.answers import answer_scores
from groundup.nn.logits import widen
from groundup.processors.labelled import Labelled, require_head
from groundup.processors.targets import FixedTargets
from groundup.processors.text.add_special_tokens import Row, pad_rows
from groundup.tasks.shared.model_outputs import move_batch

__all__ = ["ExtractiveQA", "Window"]

_AT_ONCE = 16
# As in the authors' code (n_best_size).
_BEST = 20
_SHOWN = 10


class Window(NamedTuple):
    """A question with a part of the text.

    Attributes:
        row: Its tokens and their kinds.
        first: Where the first token of the text is in the row.
        spans: (n, 2) where the text's tokens of the window begin and end in the text, in
            characters.
    """

    row: Row
    first: int
    spans: NDArray[np.int64]


@task("extractive_qa")
class ExtractiveQA(Task):
    """Minimise the cross-entropy of the answer's first and last token, among all tokens of question
    and text.

    A text that is too long is read in windows that overlap. Where a window does not hold the whole
    answer, or there is none, the first token ([CLS]) is the right one.

    Source:
        Devlin et al., BERT, 2018 (arXiv:1810.04805), sections 4.2 and 4.3; questions without an
        answer: Rajpurkar et al., 2018 (arXiv:1806.03822).
    """

    unit: ClassVar[str] = "windows"
    file_source: ClassVar[str] = "question_answers"
    max_tokens: int = setting(
        384, "Question and text together; a longer text is read in several windows", ge=8
    )
    stride: int = setting(128, "Tokens of the text that a window shares with the next", ge=0)
    max_question_tokens: int = setting(64, "Longer questions are cut", ge=1)
    max_answer_tokens: int = setting(30, "No longer answer is given in predicting", ge=1)
    no_answer_above: float = setting(
        0.0,
        "In predicting there is no answer if that scores higher than the best answer by more than"
        " this, in nats",
    )

    @model_validator(mode="after")
    def _room_for_text(self) -> ExtractiveQA:
        # Four tokens frame the two texts at most: RoBERTa puts two between them, BERT one.
        room = self.max_tokens - self.max_question_tokens - 4
        if self.stride >= room:
            raise ValueError(
                f"stride {self.stride} leaves nothing new in a window: next to a question of"
                f" {self.max_question_tokens} tokens there is room for {room} of max_tokens"
                f" {self.max_tokens}. Use a smaller stride or question, or more tokens"
            )
        return self

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read; an empty window has the answer -1."""
        # A question is one example, however many windows it takes: batches stay of equal numbers.
        shape = "int64 (B, W, T)"
        return {
            "windows": shape,
            "window_types": shape,
            "window_lengths": "int64 (B, W)",
            "answers": "int64 (B, W, 2)",
        }

    def fit_processor(self, processor: Any, examples: Callable[[], Iterator[Any]]) -> Labelled:
        """Return the processor with the two outputs.

        Raises:
            RecipeError: If the tokenizer is not an encoder's, or does not say where tokens are in a
                text.
        """
        inputs = processor.reader
        if (
            not isinstance(inputs, TextProcessor)
            or inputs.frame is None
            or not isinstance(inputs, EncodesSpans)
        ):
            raise RecipeError(
                "recipe.processor",
                "has no tokens that an encoder expects around a question and a text",
                "Use an encoder's tokenizer.json, or bpe with encoder: true",
            )
        return Labelled(inputs, FixedTargets(("start", "end")), self.max_tokens, head="tokens")

    def check_model(self, model: nn.Module, processor: Any) -> None:
        """Check the model's head.

        Raises:
            RecipeError: If it does not give outputs for every token.
        """
        require_head(model, processor)

    def encode(self, examples: Sequence[Example], processor: Labelled) -> Batch:
        """Return the windows of each question, padded to as many and as long ones, and where the
        answers are."""
        found = [
            self.windows(example.inputs[0], example.inputs[1], processor.tokenizer, processor.cut)
            for example in examples
        ]
        # Questions with fewer windows get empty ones, of length 0, which are left out of
        # everything.
        most = max(map(len, found))
        batch = pad_rows(
            [window.row for windows in found for window in windows], processor.tokenizer
        )
        shape = (len(examples), most, batch["tokens"].shape[1])
        windows = torch.zeros(shape, dtype=torch.int64)
        types = torch.zeros(shape, dtype=torch.int64)
        lengths = torch.zeros(shape[:2], dtype=torch.int64)
        answers = torch.full((*shape[:2], 2), -1)
        rows = count()
        for n, (example, own) in enumerate(zip(examples, found, strict=True)):
            for w, window in enumerate(own):
                row = next(rows)
                windows[n, w] = batch["tokens"][row]
                lengths[n, w] = batch["lengths"][row]
                if "token_types" in batch:
                    types[n, w] = batch["token_types"][row]
                answers[n, w] = torch.tensor(_locate_answer(window, example.target))
        return {
            "windows": windows,
            "window_types": types,
            "window_lengths": lengths,
            "answers": answers,
        }

    def windows(
        self, question: str, context: str, tokenizer: Any, cut: CutInputs | None = None
    ) -> list[Window]:
        """Return a question with each part of the text, ``[CLS] question [SEP] part [SEP]``.

        What is cut off the question is counted in ``cut``.
        """
        (asked, _), (tokens, spans) = tokenizer.encode_spans([question, context])
        if cut is not None:
            limit = self.max_question_tokens
            cut.add("questions", "tokens", f"max_question_tokens {limit}", [len(asked)], limit)
        middle, kind = tokenizer.between
        head = np.concatenate(([tokenizer.frame[0]], asked[: self.max_question_tokens], middle))
        room = self.max_tokens - len(head) - 1
        found = []
        # An empty text still has one window, which says that there is no answer.
        for start in range(0, max(1, len(tokens) - self.stride), room - self.stride):
            part = tokens[start : start + room]
            row = np.concatenate((head, part, [tokenizer.frame[1]])).astype(np.int64)
            types = None
            if kind:
                types = np.where(np.arange(len(row)) < len(head), 0, kind).astype(np.int64)
            found.append(Window((row, types), len(head), spans[start : start + room]))
        return found

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return the windows that are there as rows, cut to the longest."""
        # Empty windows would be attended to nowhere, which is not a number.
        there = batch["window_lengths"] > 0
        lengths = batch["window_lengths"][there]
        longest = int(lengths.max())
        found = {"tokens": batch["windows"][there][:, :longest], "lengths": lengths}
        return found | {"token_types": batch["window_types"][there][:, :longest]}

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return the sum over windows of the mean cross-entropy of first and last token, in nats.

        Args:
            outputs: (windows, T, 2) of the windows that are there.
            batch: What ``encode`` gave.
        """
        there = batch["window_lengths"] > 0
        scores = _rule_out_padding(outputs, batch["window_lengths"][there])
        answers = batch["answers"][there]
        # Halves of a window's loss: it stays comparable with one choice among its tokens.
        first = F.cross_entropy(scores[..., 0], answers[:, 0], reduction="sum")
        last = F.cross_entropy(scores[..., 1], answers[:, 1], reduction="sum")
        right = (scores.argmax(1) == answers).all(1).sum()
        number = torch.tensor(float(len(answers)))
        return Loss({"window": Term((first + last) / 2, number)}, {"right": right})

    def counts(self, batch: Batch) -> dict[str, float]:
        """Return how many windows there are."""
        return {"window": float((batch["window_lengths"] > 0).sum())}

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return loss in nats a window, and the share of windows whose first and last token are
        both right."""
        total, count = sums["window"]
        return {
            "loss": total / max(count, 1.0),
            "exact_windows": sums["right"][0] / max(count, 1.0),
        }

    def predict(self, model: nn.Module, inputs: Any, processor: Labelled, **options: Any) -> Any:
        """Return the answer to a question about a text, as a piece of the text, and its score; or
        several.

        The score is how much more the answer scores than no answer, in nats; the answer is ""
        where there is none.

        Args:
            model: The trained model.
            inputs: (question, text), or one text with a tab between; or a list of these.
            processor: The run's processor.
            **options: None has an effect here.

        Raises:
            DataError: If an input is not two texts.
        """
        if isinstance(inputs, list):
            return [self.predict(model, one, processor) for one in inputs]
        return self._answer(model, *_two_texts(inputs), processor)

    def tabulate(
        self, model: nn.Module, inputs: Sequence[Any], processor: Labelled, **options: Any
    ) -> list[dict[str, Any]]:
        """Return the answer to each question, and its score."""
        found = [self.predict(model, each, processor) for each in inputs]
        return [{PREDICTION: answer, "score": float(score)} for answer, score in found]

    def _answer(
        self, model: nn.Module, question: str, context: str, processor: Labelled
    ) -> tuple[str, float]:
        windows = self.windows(question, context, processor.tokenizer)
        answer = ""
        best = -np.inf
        nothing = np.inf
        for start in range(0, len(windows), _AT_ONCE):
            chosen = windows[start : start + _AT_ONCE]
            batch = pad_rows([window.row for window in chosen], processor.tokenizer)
            batch = move_batch(batch, device_of(model))
            with evaluating(model):
                scores = _rule_out_padding(model(**batch), batch["lengths"])
            for window, own in zip(chosen, scores.double().cpu().numpy(), strict=True):
                # A window without the answer should say that there is none: the one that is least
                # sure of it decides, as in the authors' code.
                nothing = min(nothing, float(own[0].sum()))
                span, score = self._best(window, own)
                if score > best:
                    best = score
                    answer = context[slice(*span)]
        margin = best - nothing
        return ("" if -margin > self.no_answer_above else answer), margin

    def _best(self, window: Window, scores: NDArray[np.float64]) -> tuple[tuple[int, int], float]:
        """Return the best answer of a window, as its place in the text, with its score."""
        of_text = scores[window.first : window.first + len(window.spans)]
        starts, ends = of_text[:, 0], of_text[:, 1]
        best: tuple[tuple[int, int], float] = ((0, 0), -np.inf)
        # The best end of each of the best starts, instead of all pairs.
        for first in np.argsort(-starts, kind="stable")[:_BEST]:
            # Only ends at or after the start, and not too far: others are no answers.
            reach = ends[first : first + self.max_answer_tokens]
            last = int(first + reach.argmax())
            if starts[first] + ends[last] > best[1]:
                span = (int(window.spans[first, 0]), int(window.spans[last, 1]))
                best = (span, float(starts[first] + ends[last]))
        return best

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Answer the held-out questions: exact match and F1 of words, of those with and without an
        answer apart."""
        examples = list(context.examples(context.held_out))
        context.progress(f"answering {len(examples)} held-out questions")
        asked = [example.inputs for example in examples]
        given = [self._answer(context.model, q, text, context.processor)[0] for q, text in asked]
        right = [[text for text, _ in example.target] for example in examples]
        pairs = zip(given, right, strict=True)
        scores = np.array([answer_scores(answer, own) for answer, own in pairs])
        # The two kinds are counted apart as well: a model that always says no is right for one.
        answered = np.array([bool(own) for own in right])
        metrics = {"held_out_questions": float(len(examples)), **_means(scores, "")}
        if answered.any() and not answered.all():
            metrics |= _means(scores[answered], "_with_answer")
            metrics |= _means(scores[~answered], "_without_answer")
        worst = np.argsort(scores[:, 1], kind="stable")[:_SHOWN].tolist()
        rows: list[Any] = [
            (examples[n].inputs[0], (right[n] or [""])[0], given[n])
            for n in worst
            if scores[n, 1] < 1
        ]
        columns = ("question", "answer", "given")
        return Evaluation(metrics, [Table("Answered wrong", columns, rows, printed=False)])


def _two_texts(inputs: Any) -> tuple[str, str]:
    parts = inputs.split("\t", 1) if isinstance(inputs, str) else inputs
    fits = isinstance(parts, list | tuple) and len(parts) == 2
    if not fits or not all(isinstance(part, str) and part.strip() for part in parts):
        raise DataError(
            "inputs",
            f"{inputs!r:.60} is not a question and a text",
            "Give (question, text), or one text with a tab between the two",
        )
    return parts[0], parts[1]


def _rule_out_padding(outputs: Tensor, lengths: Tensor) -> Tensor:
    """Return outputs (windows, T, 2) with the padding ruled out."""
    outputs = widen(outputs)
    # Minus infinity and not a large number: the softmax must give padding exactly nothing.
    beyond = torch.arange(outputs.shape[1], device=outputs.device) >= lengths[:, None]
    return outputs.masked_fill(beyond[..., None], -torch.inf)


def _locate_answer(window: Window, answers: Sequence[tuple[str, int]]) -> tuple[int, int]:
    """Return the first and the last token of the first answer, or the row's first token where it is
    not whole there."""
    if not answers:
        return 0, 0
    text, start = answers[0]
    begins, ends = window.spans[:, 0], window.spans[:, 1]
    inside = np.flatnonzero((ends > start) & (begins < start + len(text)))
    if not len(inside):
        return 0, 0
    first, last = int(inside[0]), int(inside[-1])
    # Cut off by the window's edge, an answer is none: the model would learn to give pieces.
    if begins[first] > start or ends[last] < start + len(text.rstrip()):
        return 0, 0
    return window.first + first, window.first + last


def _means(scores: NDArray[np.float64], suffix: str) -> dict[str, float]:
    return {
        f"exact_match{suffix}": float(scores[:, 0].mean()),
        f"f1{suffix}": float(scores[:, 1].mean()),
    }
