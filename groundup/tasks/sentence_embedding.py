"""Sentence embeddings: one vector a text, near those of texts that belong to it.

Legend: B pairs, K texts of each (2 or 3), T positions, C width, N texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contracts.tasks import EvaluationContext, Task
from groundup.core.errors import CheckpointError, RecipeError
from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.core.values import Batch, Evaluation, Example, Loss, Table, Term
from groundup.formats.sentence_transformers import (
    describe_modules,
    read_left_out,
    read_max_tokens,
    read_pooling,
)
from groundup.generation.scoring import device_of, evaluating
from groundup.metrics.retrieval import ranks, retrieval_measures
from groundup.nn.logits import widen
from groundup.nn.pooling import (
    first_state,
    greatest_state,
    last_state,
    mean_state,
    weighted_mean_state,
    within,
)
from groundup.processors.labelled import Labelled, require_head
from groundup.processors.targets import FixedTargets
from groundup.processors.text.add_special_tokens import frame_texts, pad_rows
from groundup.tasks.shared.model_outputs import move_batch

__all__ = ["SentenceEmbedding"]

# Texts of similar length, so that little is padding.
_AT_ONCE = 128
_POOL = {
    "mean": mean_state,
    "first": first_state,
    "max": greatest_state,
    "last": last_state,
    "weighted_mean": weighted_mean_state,
}
_SHOWN = 10


@task("sentence_embedding")
class SentenceEmbedding(Task):
    """Let the vector of a text be nearer to that of its partner than to those of all other partners
    of the batch.

    Each pair's loss is the cross-entropy of its own second text among all second texts of the batch
    (and all third texts, that are not to be found), by cosines over a temperature. So it depends on
    what else is in the batch: it is no sum over examples, and cannot be cut into micro-batches.

    Source:
        The loss: van den Oord et al., InfoNCE, 2018 (arXiv:1807.03748), equation 4; among the batch
        as in Henderson et al., 2017 (arXiv:1705.00652), section 4.4. Mean of the states: Reimers
        and Gurevych, Sentence-BERT, 2019 (arXiv:1908.10084), section 3.
        Departs from them: a text that is the same as the right one is no wrong answer.
    """

    unit: ClassVar[str] = "pairs"
    file_source: ClassVar[str] = "text_pairs"
    max_tokens: int = setting(128, "Longer texts are cut to this number of tokens", ge=3)
    pooling: Literal["mean", "first", "max", "last", "weighted_mean"] = setting(
        "mean", "A text's vector, made of its states; where init's weights say how, so by default"
    )
    temperature: float = setting(
        0.05, "Cosines are divided by this: small, and only the nearest count", gt=0
    )
    symmetric: bool = setting(
        False, "Look for the first text of a pair by the second as well; the loss is the mean"
    )

    @property
    def loss_is_sum(self) -> bool:
        """The loss is no sum over examples: all others of the batch are in each one's."""
        # In-batch negatives: what an example is compared with is in other rows.
        return False

    @property
    def compares_with_pretrained(self) -> bool:
        """Vectors need no head: pretrained weights have them."""
        return True

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read."""
        return {"texts": "int64 (B, K, T)", "text_lengths": "int64 (B, K)"}

    @classmethod
    def settings_in(cls, folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return how a folder of `sentence-transformers` makes a vector of states, and where it
        cuts texts."""
        found: dict[str, Any] = {}
        if "pooling" not in given:
            found["pooling"] = read_pooling(folder)
        if "max_tokens" not in given:
            found["max_tokens"] = read_max_tokens(folder)
        return {key: value for key, value in found.items() if value is not None}

    def differences(self, folder: Path) -> list[str]:
        """Return what a folder of `sentence-transformers` does otherwise."""
        notes = read_left_out(folder)
        try:
            found = read_pooling(folder)
        except CheckpointError as error:
            return [*notes, f"{error.where} {error.problem}; task.pooling is {self.pooling}"]
        if found not in (None, self.pooling):
            notes.append(f"task.pooling is {self.pooling}, and {folder} was trained with {found}")
        return notes

    def model_files(self, config: Mapping[str, Any], processor: Any) -> dict[str, Any]:
        """Return the files by which `sentence-transformers` makes the same vectors."""
        width = int(config.get("hidden_size") or config.get("d_model") or 0)
        return describe_modules(self.pooling, width, self.max_tokens)

    def fit_processor(self, processor: Any, examples: Callable[[], Iterator[Any]]) -> Labelled:
        """Return the processor with how texts are cut."""
        inputs = processor.reader
        # No targets: which texts belong together is all that the data says.
        return Labelled(inputs, FixedTargets(()), self.max_tokens, head="none")

    def check_model(self, model: nn.Module, processor: Any) -> None:
        """Check the model's head.

        Raises:
            RecipeError: If it does not give the states of all tokens.
        """
        require_head(model, processor)

    def encode(self, examples: Sequence[Example], processor: Labelled) -> Batch:
        """Return the tokens of all texts of each pair."""
        texts = [text for example in examples for text in example.inputs]
        tokenizer = processor.tokenizer
        rows = frame_texts(texts, tokenizer, processor.max_length, processor.cut)
        batch = pad_rows(rows, tokenizer)
        count = len(examples)
        return {
            "texts": batch["tokens"].view(count, -1, batch["tokens"].shape[1]),
            "text_lengths": batch["lengths"].view(count, -1),
        }

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return all texts as rows, (B * K, T), cut to the longest."""
        # All texts of a pair go through the same model, side by side in one batch.
        lengths = batch["text_lengths"].flatten()
        return {"tokens": batch["texts"].flatten(0, 1)[:, : int(lengths.max())], "lengths": lengths}

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return the summed cross-entropy in nats of states (B * K, T, C), and how many are found
        first.

        Raises:
            RecipeError: If a training batch has nothing to tell apart.
        """
        vectors = self.vectors(outputs, batch["text_lengths"].flatten())
        sides = vectors.view(*batch["texts"].shape[:2], -1).unbind(1)
        scores = sides[0] @ torch.cat(sides[1:]).T / self.temperature
        # Only in training: a last validation batch may hold a single pair.
        if torch.is_grad_enabled() and scores.shape[1] < 2:
            raise RecipeError(
                "recipe.training.batch_size",
                "is 1, but a pair is told apart from the others of its batch",
                "Set 16 or more: the more, the better",
            )
        # The partner of row n is in column n; third texts, which are wrong for all, follow after
        # them.
        right = torch.arange(len(scores), device=scores.device)
        texts = batch["texts"].transpose(0, 1)
        # The same text may be the partner of several: it must not count as a wrong answer.
        scores = scores.masked_fill(_same(texts[1], texts[1:].flatten(0, 1)), -torch.inf)
        total = F.cross_entropy(scores, right, reduction="sum")
        if self.symmetric:
            back = sides[1] @ sides[0].T / self.temperature
            back = back.masked_fill(_same(texts[0], texts[0]), -torch.inf)
            total = (total + F.cross_entropy(back, right, reduction="sum")) / 2
        found = (scores.argmax(1) == right).sum()
        return Loss({"pair": Term(total, torch.tensor(float(len(scores))))}, {"found": found})

    def vectors(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Return vectors of length 1 (N, C) of texts by their states (N, T, C)."""
        states = widen(states)
        return F.normalize(_POOL[self.pooling](states, within(lengths, states)), dim=1)

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return loss in nats a pair, and the share found first among those of their batch."""
        total, count = sums["pair"]
        return {
            "loss": total / max(count, 1.0),
            "batch_accuracy": sums["found"][0] / max(count, 1.0),
        }

    def predict(
        self, model: nn.Module, inputs: str | list[str], processor: Labelled, **options: Any
    ) -> Any:
        """Return the vector of a text, as a list of numbers with length 1; or of each of a list of
        texts."""
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        found: list[list[float]] = self._embed(model, texts, processor).tolist()
        return found[0] if isinstance(inputs, str) else found

    def _embed(
        self, model: nn.Module, texts: Sequence[str], processor: Labelled
    ) -> NDArray[np.float64]:
        """Return (N, C); texts of about the same length go together."""
        rows = frame_texts(texts, processor.tokenizer, processor.max_length, processor.cut)
        # Padding costs as much as text, so texts are sorted by length and put back at the end.
        order = sorted(range(len(rows)), key=lambda n: len(rows[n][0]))
        found: dict[int, NDArray[np.float64]] = {}
        for start in range(0, len(order), _AT_ONCE):
            chosen = order[start : start + _AT_ONCE]
            batch = pad_rows([rows[n] for n in chosen], processor.tokenizer)
            batch = move_batch(batch, device_of(model))
            with evaluating(model):
                vectors = self.vectors(model(**batch), batch["lengths"])
            found |= dict(zip(chosen, vectors.double().cpu().numpy(), strict=True))
        return np.stack([found[n] for n in range(len(rows))])

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Look for each held-out pair's second text among all held-out second and third texts, by
        the first one.

        Where the run was fine-tuned, what it began with is evaluated in the same way.
        """
        pairs = [example.inputs for example in context.examples(context.held_out)]
        context.progress(f"embedding {len(pairs)} held-out pairs")
        metrics, places = self._evaluate_model(context.model, context.processor, pairs)
        tables = []
        if context.base is not None:
            before, _ = self._evaluate_model(context.base[0], context.processor, pairs)
            rows = [(name, round(before[name], 4), round(metrics[name], 4)) for name in before]
            tables.append(
                Table("Before and after fine-tuning", ("measure", "before", "after"), list(rows))
            )
            own = {name: value for name, value in before.items() if "baseline" not in name}
            metrics |= {f"{name}_before": value for name, value in own.items()}
        # What was missed by most says more than an average.
        worst = np.argsort(-places, kind="stable")[:_SHOWN].tolist()
        lost: list[Any] = [
            (pairs[n][0][:200], pairs[n][1][:200], int(places[n])) for n in worst if places[n] > 1
        ]
        columns = ("looked for with", "to be found", "place")
        tables.append(Table("Found last", columns, lost, printed=False))
        return Evaluation({"held_out_pairs": float(len(pairs)), **metrics}, tables, [])

    def _evaluate_model(
        self, model: nn.Module, processor: Labelled, pairs: Sequence[tuple[str, ...]]
    ) -> tuple[dict[str, float], NDArray[np.int64]]:
        # Each text once: the same candidate twice could not both be first.
        others = dict.fromkeys(text for pair in pairs for text in pair[1:])
        numbers = {text: n for n, text in enumerate(others)}
        right = np.array([numbers[pair[1]] for pair in pairs])
        anchors = self._embed(model, [pair[0] for pair in pairs], processor)
        candidates = self._embed(model, list(numbers), processor)
        places = ranks(anchors, candidates, right)
        cosine = float((anchors * candidates[right]).sum(1).mean())
        return {**retrieval_measures(places, len(numbers)), "mean_cosine_of_pairs": cosine}, places


def _same(own: Tensor, others: Tensor) -> Tensor:
    """Return (B, N) which of other texts (N, T) are the same as each row's own (B, T), its own
    place excepted."""
    # By tokens: texts that the tokenizer reads alike are the same to the model.
    same = (own[:, None] == others[None]).all(-1)
    same.fill_diagonal_(False)
    return same
