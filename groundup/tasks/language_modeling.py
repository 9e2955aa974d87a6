"""Next-token prediction over documents: the task a language model is pretrained with.

Source: Bengio et al. 2003, "A neural probabilistic language model"; Radford et al. 2019, "Language
models are unsupervised multitask learners". A document is stored as start token, text, end token,
so that the model learns to begin and to end; where the tokenizer puts no start token, the end token
is there too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from groundup.contracts.processors import TextProcessor
from groundup.contracts.tasks import EvaluationContext
from groundup.core.registry import task
from groundup.core.seeding import key
from groundup.core.values import Batch, Document, Evaluation, Table, TokenSequence
from groundup.generation.options import DecodingOptions
from groundup.generation.scoring import sequence_nll
from groundup.metrics.compression import (
    bits_per_byte,
    ngram_bits_per_byte,
    perplexity,
    unigram_bits_per_byte,
    xz_bits_per_byte,
)
from groundup.processors.text.add_special_tokens import documents, prompts
from groundup.tasks.shared.first_documents import first_documents
from groundup.tasks.shared.next_token_task import NextTokenTask
from groundup.tasks.shared.text_generation import decoding_options, write, write_stream

__all__ = ["LanguageModeling"]

_EVALUATED_BYTES = 8_000_000  # of held-out text
_BASELINE_BYTES = 32_000_000  # of training text, which the baselines count n-grams in and compress
_SHOWN = 5


@task("language_modeling")
class LanguageModeling(NextTokenTask):
    """Minimise -log p of every next token, the end of each document included."""

    term: ClassVar[str] = "next_token"
    file_source: ClassVar[str] = "text"

    def encode(self, examples: Sequence[Document], processor: TextProcessor) -> list[TokenSequence]:
        """Return ``[start] + tokens + [end]`` of each document; every token but the first is
        trained on."""
        return [
            TokenSequence(tokens)
            for tokens in documents([example.text for example in examples], processor)
        ]

    def count_bytes(self, batch: Batch, processor: TextProcessor) -> float:
        """Return how many UTF-8 bytes of text the targets stand for; ``summarise`` takes it as
        ``sums["bytes"]``."""
        targets = batch["targets"]
        # Special tokens have no bytes: bits per byte are of text alone, whatever frames it.
        sizes = torch.from_numpy(processor.token_bytes()).to(targets.device)
        return float(sizes[targets[targets >= 0]].sum())

    def predict(
        self, model: nn.Module, inputs: str | list[str], processor: TextProcessor, **options: Any
    ) -> Any:
        """Return what the model writes on from a prompt, or from each of several; options are
        ``DecodingOptions``."""
        # A prompt begins with the start token, as every document did in training, and has no end.
        starts = prompts([inputs] if isinstance(inputs, str) else list(inputs), processor)
        texts = write(model, starts, processor, decoding_options(options), processor.end_ids)
        return texts[0] if isinstance(inputs, str) else texts

    def stream(
        self, model: nn.Module, prompt: str, processor: TextProcessor, **options: Any
    ) -> Iterator[str]:
        """Yield what the model writes on from a prompt, piece by piece."""
        (tokens,) = prompts([prompt], processor)
        return write_stream(model, tokens, processor, decoding_options(options), processor.end_ids)

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Measure exact bits per byte on the held-out documents, next to baselines on the same
        documents.

        Every token of a document and its end are counted once; long documents are read in windows
        that overlap by half.
        """
        held_out = first_documents(context.examples("validation"), _EVALUATED_BYTES)
        context.progress(f"scoring {len(held_out)} held-out documents")
        begin = time.perf_counter()
        sequences = self.encode(held_out, context.processor)
        nats = sequence_nll(context.model, sequences, context.sequence_length)
        tokens = sum(len(sequence.tokens) - 1 for sequence in sequences)
        size = sum(_bytes(document) for document in held_out)
        metrics = {
            "bits_per_byte": bits_per_byte(sum(nats), size),
            "loss": sum(nats) / max(tokens, 1),
            "perplexity": perplexity(sum(nats) / max(tokens, 1)),
            "bytes_per_token": size / max(tokens, 1),
            "held_out_documents": float(len(held_out)),
            "held_out_bytes": float(size),
            "scoring_s": time.perf_counter() - begin,
        }
        # With another tokenizer the bits per byte of the two could be compared, but not the runs:
        # only the pretrained weights that this run began with come with its own processor.
        if context.base is not None and context.base[1] is context.processor:
            before = sequence_nll(context.base[0], sequences, context.sequence_length)
            metrics["base_bits_per_byte"] = bits_per_byte(sum(before), size)
        context.progress("coding the same documents by frequency, 5-gram and xz")
        training = first_documents(context.examples("train"), _BASELINE_BYTES)
        baselines = _measure_baselines([d.text for d in training], [d.text for d in held_out])
        context.progress("writing on from held-out openings")
        tables = [
            _baseline_table(metrics["bits_per_byte"], baselines),
            _extremes_table(held_out, nats),
            _sample_table(held_out, context),
        ]
        return Evaluation({**metrics, **baselines}, tables)


def _bytes(document: Document) -> int:
    return len(document.text.encode())


def _measure_baselines(training: list[str], held_out: list[str]) -> dict[str, float]:
    return {
        "baseline_unigram_bits_per_byte": unigram_bits_per_byte(training, held_out),
        "baseline_5gram_bits_per_byte": ngram_bits_per_byte(training, held_out),
        "baseline_xz_bits_per_byte": xz_bits_per_byte(held_out),
        "baseline_xz_given_train_bits_per_byte": xz_bits_per_byte(held_out, training),
    }


def _baseline_table(model: float, baselines: dict[str, float]) -> Table:
    titles = (
        "single bytes",
        "byte 5-gram (Kneser-Ney)",
        "xz -9, held-out text alone",
        "xz -9, given the training text",
    )
    rows = list(zip(titles, baselines.values(), strict=True))
    rows.append(("this model", model))
    return Table(
        "Bits per byte of held-out text",
        ("coder", "bits per byte", "model / coder"),
        [(title, value, model / value if value else None) for title, value in rows],
        "The end of every document is coded too; only bytes of text are divided by.",
    )


def _extremes_table(documents: list[Document], nats: list[float]) -> Table:
    scored = [
        (d.name, _bytes(d), bits_per_byte(n, _bytes(d)))
        for d, n in zip(documents, nats, strict=True)
    ]
    # By bits per byte, or long documents would be the hardest of all.
    scored.sort(key=lambda row: row[2])
    # Of few documents none is both easy and hard.
    rows: list[tuple[str | float | int | None, ...]] = [
        *scored[:_SHOWN],
        *scored[_SHOWN:][-_SHOWN:],
    ]
    return Table(
        "Easiest and hardest held-out documents", ("document", "bytes", "bits per byte"), rows
    )


def _sample_table(documents: list[Document], context: EvaluationContext) -> Table:
    order = sorted(documents, key=lambda document: key(context.seed, f"sample {document.name}"))
    chosen = order[:_SHOWN]
    # At most half of a short document, so that there is something to compare with.
    openings = [document.text[: min(160, len(document.text) // 2)] for document in chosen]
    options = DecodingOptions(max_new_tokens=80, seed=context.seed)
    starts = prompts(openings, context.processor)
    texts = write(context.model, starts, context.processor, options, context.processor.end_ids)
    rows: list[tuple[str | float | int | None, ...]] = [
        (document.name, opening, text, document.text[len(opening) : len(opening) + 240])
        for document, opening, text in zip(chosen, openings, texts, strict=True)
    ]
    return Table(
        "Held-out openings written on", ("document", "opening", "model", "as it goes on"), rows
    )
