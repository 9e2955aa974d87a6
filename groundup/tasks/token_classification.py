"""Labels of words: names in a text, parts of speech; read from an encoder's output at the first
piece of each word.

Legend: B sentences, T positions, K labels, W words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contracts.processors import EncodesSpans
from groundup.contracts.tasks import PREDICTION, EvaluationContext, Task
from groundup.core.errors import DataError
from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.core.values import IGNORED, Batch, Evaluation, Example, Loss, Table, Term
from groundup.generation.scoring import device_of, evaluating
from groundup.metrics.spans import are_spans, span_measures, spans_of
from groundup.nn.logits import widen
from groundup.processors.class_targets import SingleLabel
from groundup.processors.labelled import Labelled, require_head, with_targets
from groundup.processors.text.add_special_tokens import Row, frame_of, pad_rows
from groundup.tasks.shared.guess_loss import guess_loss
from groundup.tasks.shared.model_outputs import move_batch

__all__ = ["TokenClassification"]

_AT_ONCE = 64
_SHOWN = 10


@task("token_classification")
class TokenClassification(Task):
    """Minimise the cross-entropy of each word's label, at the first of the pieces that the word is
    split into.

    The other pieces, and the tokens around the sentence, count for nothing.

    Source:
        Devlin et al., BERT, 2018 (arXiv:1810.04805), section 5.3.
    """

    unit: ClassVar[str] = "words"
    file_source: ClassVar[str] = "token_labels"
    max_tokens: int = setting(
        256, "Longer sentences are cut to this number of tokens; words beyond teach nothing", ge=3
    )

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read; labels are -100 where there is nothing to predict, and
        are not cut where a batch of short texts is (L >= T)."""
        labels = {"labels": "int64 (B, L)", "guess": "float32 (B, L)"}
        return {"tokens": "int64 (B, T)", "lengths": "int64 (B,)", **labels}

    def fit_processor(self, processor: Any, examples: Callable[[], Iterator[Any]]) -> Labelled:
        """Return the processor with the training split's labels.

        Raises:
            DataError: If there are fewer than two.
        """

        def fit(targets: Iterable[Any]) -> SingleLabel:
            return SingleLabel.fit(label for target in targets for label in target)

        found = with_targets(processor, examples, fit, self.max_tokens, head="tokens")
        # Made again, because words are a tuple, but not one of two texts that go together.
        return Labelled(
            found.inputs, found.targets, found.max_length, head="tokens", notes=found.notes
        )

    def check_model(self, model: nn.Module, processor: Any) -> None:
        """Check the model's head.

        Raises:
            RecipeError: If it does not give outputs for every token.
        """
        require_head(model, processor)

    def encode(self, examples: Sequence[Example], processor: Labelled) -> Batch:
        """Return sentences as tokens, and labels at the first piece of each word.

        Raises:
            DataError: If a label is not one of the training split's.
        """
        # A label is a word's, a prediction a token's: the word's first piece has it, as in the
        # paper.
        pieces = [_encode_words(example.inputs, processor) for example in examples]
        if processor.cut is not None:
            limit = f"max_tokens {processor.max_length}"
            for _, places in pieces:
                room = int((places >= 0).sum())
                processor.cut.add("sentences", "words", limit, [len(places)], room)
        batch = pad_rows([row for row, _ in pieces], processor.tokenizer)
        labels = torch.full_like(batch["tokens"], IGNORED)
        for own, example, (_, places) in zip(labels, examples, pieces, strict=True):
            numbers = processor.targets.encode(example.target)
            # Words beyond the longest row are not learned from, but predicting reads them in a row
            # of their own.
            kept = places >= 0
            own[torch.from_numpy(places[kept])] = numbers[torch.from_numpy(kept)]
        # Processors of older runs did not count. What is not scored costs nothing.
        counts = processor.targets.counts or (1,) * processor.targets.outputs
        guess = guess_loss(counts)[labels.clamp(min=0)] * (labels != IGNORED)
        return batch | {"labels": labels, "guess": guess}

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return what the model reads."""
        return {name: batch[name] for name in ("tokens", "lengths")}

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return the summed cross-entropy in nats of outputs (B, T, K), and how many words are
        right."""
        # A batch of short sentences is cut to the longest of its own, its labels are not.
        labels = batch["labels"][:, : outputs.shape[1]]
        # Padding, special tokens and all but the first piece of a word.
        scored = labels != IGNORED
        outputs, labels = outputs[scored], labels[scored]
        total = F.cross_entropy(widen(outputs), labels, reduction="sum")
        right = (outputs.argmax(1) == labels).sum()
        watched = {"right": right}
        if not torch.is_grad_enabled():
            watched["guess"] = batch["guess"].sum()
        return Loss({"word": Term(total, torch.tensor(float(len(labels))))}, watched)

    def counts(self, batch: Batch) -> dict[str, float]:
        """Return how many words are scored."""
        return {"word": float((batch["labels"] != IGNORED).sum())}

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return loss in nats a word, and the share of words labelled right; of held-out sentences
        also ``baseline_loss``, that of always answering with the training split's shares."""
        total = sums["word"][0]
        count = max(sums["word"][1], 1.0)
        found = {"loss": total / count, "accuracy": sums["right"][0] / count}
        if "guess" in sums:
            found["baseline_loss"] = sums["guess"][0] / count
        return found

    def predict(self, model: nn.Module, inputs: Any, processor: Labelled, **options: Any) -> Any:
        """Return a sentence's words with their labels, as a list of (word, label); or that of each
        of several.

        Args:
            model: The trained model.
            inputs: A text, which is cut into words at blanks, or a tuple of words; or a list of
                these.
            processor: The run's processor.
            **options: None has an effect here.

        Raises:
            DataError: If a text has no words.
        """
        sentences = [_words(each) for each in (inputs if isinstance(inputs, list) else [inputs])]
        labels = self._label_words(model, sentences, processor)
        found = [list(zip(*each, strict=True)) for each in zip(sentences, labels, strict=True)]
        return found if isinstance(inputs, list) else found[0]

    def tabulate(
        self, model: nn.Module, inputs: Sequence[Any], processor: Labelled, **options: Any
    ) -> list[dict[str, Any]]:
        """Return the label of each word and, where labels are of spans, the names and other spans:
        what each is, its kind, and its first word and the word after its last, from 0."""
        sentences = [_words(each) for each in inputs]
        labels = self._label_words(model, sentences, processor)
        rows: list[dict[str, Any]] = []
        for words, own in zip(sentences, labels, strict=True):
            rows.append({"words": list(words), PREDICTION: own})
            if are_spans(processor.labels):
                rows[-1]["spans"] = [
                    {"text": " ".join(words[a:b]), "kind": kind, "from": a, "to": b}
                    for kind, a, b in spans_of(own)
                ]
        return rows

    def _label_words(
        self, model: nn.Module, sentences: Sequence[tuple[str, ...]], processor: Labelled
    ) -> list[list[str]]:
        """Return the label of every word; what is too long for one row is read in several."""
        parts = [(n, part) for n, words in enumerate(sentences) for part in _cut(words, processor)]
        found: list[list[str]] = [[] for _ in sentences]
        for start in range(0, len(parts), _AT_ONCE):
            chosen = parts[start : start + _AT_ONCE]
            pieces = [_encode_words(words, processor) for _, words in chosen]
            batch = pad_rows([row for row, _ in pieces], processor.tokenizer)
            with evaluating(model):
                best = model(**move_batch(batch, device_of(model))).argmax(2).cpu().numpy()
            for (number, _), own, (_, places) in zip(chosen, best, pieces, strict=True):
                found[number] += [processor.labels[own[place]] for place in places]
        return found

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Evaluate a model on the held-out sentences: words, and where labels are of spans (B-, I-,
        O) whole spans."""
        examples = list(context.examples(context.held_out))
        context.progress(f"labelling the words of {len(examples)} held-out sentences")
        true = [list(example.target) for example in examples]
        words = [example.inputs for example in examples]
        found = self._label_words(context.model, words, context.processor)
        right = np.array([*chain.from_iterable(true)])
        # Of names in texts most words are O: accuracy says little without this.
        commonest = context.processor.labels[int(np.argmax(context.processor.targets.counts))]
        metrics = {
            "held_out_sentences": float(len(examples)),
            "held_out_words": float(len(right)),
            "accuracy": float((right == np.array([*chain.from_iterable(found)])).mean()),
            "baseline_accuracy": float((right == commonest).mean()),
        }
        tables = [_mistake_table(examples, found)]
        # Then whole spans count: half a name is no name.
        if are_spans(context.processor.labels):
            measures, kinds = span_measures(true, found)
            rows = [
                (kind, round(p, 4), round(r, 4), round(f1, 4), spans)
                for kind, (p, r, f1, spans) in kinds.items()
            ]
            columns = ("kind", "precision", "recall", "F1", "spans")
            tables.insert(0, Table("Spans", columns, list(rows)))
            metrics |= measures
        return Evaluation(metrics, tables, [])


def _mistake_table(examples: Sequence[Example], found: Sequence[Sequence[str]]) -> Table:
    rows: list[tuple[str, ...]] = []
    for example, labels in zip(examples, found, strict=True):
        wrong = next((n for n, own in enumerate(example.target) if own != labels[n]), None)
        if wrong is not None and len(rows) < _SHOWN:
            near = " ".join(example.inputs[max(0, wrong - 5) : wrong + 6])
            rows.append((near, example.inputs[wrong], example.target[wrong], labels[wrong]))
    return Table(
        "Labelled wrong", ("words", "word", "true label", "predicted"), list(rows), printed=False
    )


def _words(inputs: Any) -> tuple[str, ...]:
    words = tuple(inputs.split()) if isinstance(inputs, str) else tuple(inputs)
    # An empty word has no piece that could have a label.
    if not words or not all(isinstance(word, str) and word.strip() for word in words):
        raise DataError(
            "inputs",
            f"{inputs!r:.60} has no words, or an empty one",
            "Give a text, or a tuple of words",
        )
    return words


def _tokenize_words(words: Sequence[str], tokenizer: Any) -> list[NDArray[np.int64]]:
    """Return the pieces of each word as they are in the text of all words with blanks between; at
    least one a word.

    A word of which nothing is left, such as a control character, is read as the end token.
    """
    ends = np.cumsum([len(word) + 1 for word in words])
    # Read as one text, because byte-level tokenizers give a word after a blank other tokens.
    if isinstance(tokenizer, EncodesSpans):
        tokens, spans = tokenizer.encode_spans([" ".join(words)])[0]
        # A token is of the word in which its last character is: blanks before a word belong to it.
        owners = np.searchsorted(ends, np.maximum(spans[:, 1] - 1, 0), side="right")
        found = [tokens[owners == n].astype(np.int64) for n in range(len(words))]
    else:
        found = [np.asarray(own, np.int64) for own in tokenizer.encode_batch(list(words))]
    return [own if len(own) else np.array([tokenizer.end_id], np.int64) for own in found]


def _encode_words(words: Sequence[str], processor: Labelled) -> tuple[Row, NDArray[np.int64]]:
    """Return a sentence's tokens between those that an encoder expects, and (W,) where each word's
    first piece is.

    It is -1 for words that have no room.
    """
    start, end = frame_of(processor.tokenizer)
    pieces = _tokenize_words(words, processor.tokenizer)
    places = len(start) + np.cumsum([0, *map(len, pieces[:-1])])
    # What does not fit is cut from the end, never the frame.
    room = processor.max_length - len(start) - len(end)
    tokens = np.concatenate((start, np.concatenate(pieces)[:room], end)).astype(np.int64)
    return (tokens, None), np.where(places < len(start) + room, places, -1).astype(np.int64)


def _cut(words: tuple[str, ...], processor: Labelled) -> Iterator[tuple[str, ...]]:
    """Yield words in as few parts as have room for the first piece of every word."""
    while words:
        _, places = _encode_words(words, processor)
        # At least one, or a word longer than a row would be read for ever.
        kept = max(1, int((places >= 0).sum()))
        yield words[:kept]
        words = words[kept:]
