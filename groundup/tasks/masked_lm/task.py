"""Predicting hidden tokens from the text on both sides of them: the task an encoder is pretrained
with.

Legend: B rows, T positions, M hidden tokens, N boundaries, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor, nn

from groundup.contracts.tasks import EvaluationContext, Task
from groundup.core.errors import DataError
from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.core.values import (
    IGNORED,
    Batch,
    Document,
    Evaluation,
    Loss,
    Table,
    Term,
    TokenSequence,
)
from groundup.generation.scoring import device_of, evaluating
from groundup.metrics.compression import perplexity
from groundup.nn.logits import widen
from groundup.tasks.masked_lm.masking import Masking, hide_tokens, require_mask
from groundup.tasks.shared.first_documents import first_documents
from groundup.tasks.shared.next_token_task import PACKED_ROWS

__all__ = ["MaskedLanguageModeling"]

# An encoder predicts 15% of the tokens, so a megabyte gives some 40,000 predictions.
_EVALUATED_BYTES = 1_000_000  # of held-out text
_COUNTED_BYTES = 32_000_000  # of training text, which the unigram is counted in
_AT_ONCE = 16
_SHOWN = 8
# Otherwise the loss of two runs would differ by what each had to predict.
_HELD_OUT_SEED = -1  # hides the same tokens whatever the run's seed


@task("masked_language_modeling")
class MaskedLanguageModeling(Task):
    """Minimise -log p of tokens that were hidden; each sample hides others every time it is read.

    The model reads ``[CLS] text [SEP]`` and predicts the chosen tokens only. In validation the same
    tokens are hidden each time, so losses can be compared. Special tokens are never hidden.

    Source:
        Devlin et al., BERT, 2018 (arXiv:1810.04805), section 3.1, task 1. Departs from it as
        RoBERTa does (Liu et al., 2019, arXiv:1907.11692, sections 4.1 and 4.2): hidden again each
        time, and no prediction of the next sentence.
    """

    unit: ClassVar[str] = "hidden_tokens"
    file_source: ClassVar[str] = "text"
    share: float = setting(0.15, "Share of the tokens that are predicted", gt=0, lt=1)
    masked: float = setting(0.8, "Share of those that [MASK] stands for", ge=0, le=1)
    replaced: float = setting(
        0.1, "Share of those that another token stands for; the others stay", ge=0, le=1
    )
    whole_words: bool = setting(
        False,
        "Hide all tokens of a word: those that begin with ## (WordPiece), have no leading space"
        " (SentencePiece), or begin with a letter or digit (byte-level BPE) go on with the word"
        " before them",
    )

    @model_validator(mode="after")
    def _at_most_all(self) -> MaskedLanguageModeling:
        if self.masked + self.replaced > 1:
            raise ValueError(
                f"masked {self.masked} and replaced {self.replaced} are more than 1. Lower one of"
                " them"
            )
        return self

    @property
    def _masking(self) -> Masking:
        return Masking(self.share, self.masked, self.replaced, self.whole_words)

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read; targets are -100 where nothing is hidden."""
        return PACKED_ROWS

    def fit_processor(self, processor: Any, examples: Callable[[], Iterator[Any]]) -> Any:
        """Return the processor as it is.

        Raises:
            RecipeError: If it has no mask token.
        """
        # Before training: a tokenizer without a mask token is found out in the first batch
        # otherwise.
        require_mask(processor)
        return processor

    def encode(self, examples: Sequence[Document], processor: Any) -> list[TokenSequence]:
        """Return ``[CLS] tokens [SEP]`` of each document, and one more token that is never fed."""
        # The last token twice: streams of tokens feed all but the last of each sequence.
        first, last = processor.frame
        texts = processor.encode_batch([example.text for example in examples])
        return [
            TokenSequence(np.concatenate(([first], tokens, [last, last])).astype(np.int32))
            for tokens in texts
        ]

    @property
    def augments(self) -> bool:
        """Tokens are hidden whenever a sample is read."""
        return True

    @property
    def augments_held_out(self) -> bool:
        """In validation too, by numbers that do not depend on the run."""
        return True

    def augment(
        self,
        batch: Batch,
        samples: NDArray[np.int64],
        partners: Callable[[], Batch],
        processor: Any,
        seed: int,
    ) -> Batch:
        """Return a micro-batch with tokens hidden, and these as targets, by the samples' numbers
        alone."""
        # Targets say where text is; padding and the added last token have none.
        wanted = batch["targets"] != IGNORED
        tokens, targets = hide_tokens(
            batch["tokens"], wanted, samples, processor, self._masking, seed
        )
        return batch | {"tokens": tokens, "targets": targets}

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return the batch, and which positions the model is asked about."""
        return {
            **{name: batch[name] for name in ("tokens", "positions", "boundaries")},
            "scored": batch["targets"] != IGNORED,
        }

    def example_losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return (B,) the sum of -log p in nats of each row's hidden tokens, by logits (M, V)."""
        hidden = batch["targets"] != IGNORED
        each = F.cross_entropy(widen(outputs), batch["targets"][hidden], reduction="none")
        # Logits come in the order of the hidden tokens, row after row.
        rows = hidden.nonzero()[:, 0]
        return each.new_zeros(len(hidden)).index_add(0, rows, each)

    def target_tokens(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return (M,) the tokens that are hidden."""
        return batch["targets"][batch["targets"] != IGNORED]

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return the sum of -log p in nats by logits (M, V), and the number of hidden tokens."""
        targets = self.target_tokens(batch)
        total = F.cross_entropy(widen(outputs), targets, reduction="sum")
        count = torch.tensor(float(len(targets)))
        terms = {"hidden_token": Term(total, count)}
        # Of a training step only the loss is logged; to find the likeliest of a large vocabulary
        # takes a good part of it.
        if torch.is_grad_enabled():
            return Loss(terms)
        return Loss(terms, {"right": (outputs.argmax(1) == targets).sum()})

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return loss in nats a hidden token, perplexity, and the share of hidden tokens predicted
        first; of held-out texts also ``baseline_loss``, that of guessing tokens by frequency."""
        total, count = sums["hidden_token"]
        mean = total / max(count, 1.0)
        found = {
            "loss": mean,
            "perplexity": perplexity(mean),
            "masked_accuracy": sums["right"][0] / max(count, 1.0),
        }
        if "guess" in sums:
            found["baseline_loss"] = sums["guess"][0] / max(count, 1.0)
        return found

    # -------------------------------------------------------------------------------------- predict
    def predict(
        self, model: nn.Module, inputs: str | list[str], processor: Any, **options: Any
    ) -> Any:
        """Return a text with its mask tokens filled in, or each of several.

        Args:
            model: The trained model.
            inputs: A text with at least one mask token, such as
                ``"The capital of France is [MASK]."``, or a list.
            processor: The run's processor.
            **options: ``top=5`` gives for each mask token the five likeliest as (token,
                probability) instead.

        Raises:
            DataError: If a text has no mask token.
        """
        if not isinstance(inputs, str):
            return [self.predict(model, text, processor, **options) for text in inputs]
        tokens = torch.tensor([_encode_with_masks(inputs, processor)], device=device_of(model))
        hidden = tokens == processor.mask_id
        with evaluating(model):
            chances = model(tokens, scored=hidden).double().softmax(1).cpu()
        if top := int(options.get("top", 0)):
            return [_likeliest(row, top, processor) for row in chances]
        filled = tokens.masked_scatter(hidden, chances.argmax(1).to(tokens.device))
        return processor.decode(filled[0, 1:-1].tolist()).strip()

    # ------------------------------------------------------------------------------------- evaluate
    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Measure loss and accuracy on hidden tokens of the held-out documents, next to the unigram
        on the same ones.

        The unigram gives each token its share of the training text, with one added to every count.
        """
        processor = context.processor
        held_out = first_documents(context.examples("validation"), _EVALUATED_BYTES)
        context.progress(f"hiding tokens of {len(held_out)} held-out documents")
        windows = _windows(self.encode(held_out, processor), context.sequence_length)
        counts = _count_tokens(context)
        unigram = torch.from_numpy(np.log(np.maximum(counts, 1) / counts.sum()))
        nats = right = unigram_nats = unigram_right = total = 0.0
        shown: list[tuple[str | float | int | None, ...]] = []
        # The number of the first window keys the draws: the same tokens are hidden in every
        # evaluation.
        for start in range(0, len(windows), _AT_ONCE):
            batch, logits = self._predict_hidden(context, windows[start : start + _AT_ONCE], start)
            targets = batch["targets"][batch["targets"] != IGNORED]
            nats += float(F.cross_entropy(logits, targets, reduction="sum"))
            right += float((logits.argmax(1) == targets).sum())
            unigram_nats -= float(unigram[targets].sum())
            unigram_right += float((targets == int(counts.argmax())).sum())
            total += len(targets)
            if len(shown) < _SHOWN and len(targets):
                shown.append(_show_example(batch, logits, processor))
        total = max(total, 1.0)
        metrics = {
            "loss": nats / total,
            "perplexity": perplexity(nats / total),
            "masked_accuracy": right / total,
            "unigram_loss": unigram_nats / total,
            "unigram_accuracy": unigram_right / total,
            "hidden_tokens": total,
            "held_out_documents": float(len(held_out)),
        }
        by_unigram = (metrics["unigram_accuracy"], metrics["unigram_loss"])
        rows: list[tuple[str | float | int | None, ...]] = [
            ("the commonest token, or each by its share", *by_unigram),
            ("this model", metrics["masked_accuracy"], metrics["loss"]),
        ]
        note = f"{int(total)} hidden tokens, the same ones for both."
        table = Table(
            "Hidden tokens of held-out text",
            ("predicted by", "accuracy", "nats a token"),
            rows,
            note,
        )
        columns = ("text", "hidden", "predicted (probability)")
        return Evaluation(
            metrics, [table, Table("Held-out texts with a hidden token", columns, shown)]
        )

    def _predict_hidden(
        self, context: EvaluationContext, windows: list[NDArray[np.int64]], first: int
    ) -> tuple[Batch, Tensor]:
        """Return windows as a batch with tokens hidden, and the model's logits (M, V) in
        float64."""
        model, processor = context.model, context.processor
        lengths = torch.tensor([len(window) for window in windows])
        shape = (len(windows), int(lengths.max()))
        rows = np.full(shape, processor.padding_id, dtype=np.int64)
        for row, window in zip(rows, windows, strict=True):
            row[: len(window)] = window
        wanted = torch.arange(shape[1]) < lengths[:, None]
        found, targets = hide_tokens(
            torch.from_numpy(rows),
            wanted,
            np.arange(first, first + len(windows)),
            processor,
            self._masking,
            _HELD_OUT_SEED,
        )
        device = device_of(model)
        scored = (targets != IGNORED).to(device)
        with evaluating(model):
            logits = model(found.to(device), lengths.to(device), scored=scored)
        return {"tokens": found, "targets": targets}, logits.double().cpu()


def _encode_with_masks(text: str, processor: Any) -> list[int]:
    """Return the tokens of a text between an encoder's first and last, mask tokens spelled out in
    it recognised."""
    mask = processor.encoder.mask
    parts = text.split(mask)
    if len(parts) < 2:
        raise DataError(
            "prompt",
            f"has no {mask}: {text[:60]!r}",
            f"Put {mask} where a token is to be filled in, such as: It was {mask} good.",
        )
    # As in training, where a mask token takes the place of a word with the blank before it.
    parts = [*(part.rstrip(" ") for part in parts[:-1]), parts[-1]]
    encoded = processor.encode_batch(parts)
    first, last = processor.frame
    tokens = [first, *encoded[0].tolist()]
    for part in encoded[1:]:
        tokens += [processor.mask_id, *part.tolist()]
    return [*tokens, last]


def _count_tokens(context: EvaluationContext) -> NDArray[np.int64]:
    """Return (V,) how often each token occurs in training text, one added to every count but the
    special tokens', which are never hidden."""
    processor = context.processor
    counts = np.ones(processor.vocabulary_size, dtype=np.int64)
    counts[list(processor.special_tokens.values())] = 0
    texts = [d.text for d in first_documents(context.examples("train"), _COUNTED_BYTES)]
    for tokens in processor.encode_batch(texts):
        counts += np.bincount(tokens, minlength=len(counts))
    return counts


def _likeliest(chances: Tensor, top: int, processor: Any) -> list[tuple[str, float]]:
    best = chances.topk(min(top, len(chances)))
    pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [(processor.decode([index]).strip(), value) for value, index in pairs]


def _windows(sequences: Sequence[TokenSequence], length: int) -> list[NDArray[np.int64]]:
    """Return what is fed of each sequence, cut where it is longer than the context."""
    # Windows do not overlap: an encoder sees both sides, and each token is fed once.
    fed = [sequence.tokens[:-1].astype(np.int64) for sequence in sequences]
    return [
        tokens[start : start + length] for tokens in fed for start in range(0, len(tokens), length)
    ]


def _show_example(batch: Batch, logits: Tensor, processor: Any) -> tuple[str, str, str]:
    """Return the surroundings of the first hidden token of a batch, the token, and what is
    predicted."""
    row, place = (batch["targets"] != IGNORED).nonzero()[0].tolist()
    near = slice(max(0, place - 20), place + 20)
    text = processor.decode(batch["tokens"][row, near].tolist(), keep_special=True)
    guesses = _likeliest(logits[0].softmax(0), 3, processor)
    hidden = processor.decode([int(batch["targets"][row, place])]).strip()
    return text, hidden, ", ".join(f"{token} ({chance:.2f})" for token, chance in guesses)
