"""Write one text from another: translation, summaries, questions answered in words, correction.

Legend: B examples, N and M tokens of all inputs and outputs, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.contracts.models import EncoderDecoder
from groundup.contracts.processors import Processor, TextProcessor
from groundup.contracts.ragged import offsets_of, ragged_rows
from groundup.contracts.tasks import EvaluationContext, Objective
from groundup.contracts.two_tokenizers import tokenizers_of
from groundup.core.errors import DataError, RecipeError
from groundup.core.registry import task
from groundup.core.values import Batch, Evaluation, Example, Loss, Term
from groundup.formats.generation_config import NAME as GENERATION
from groundup.formats.generation_config import read_first_token
from groundup.generation.options import DecodingOptions
from groundup.metrics.compression import bits_per_byte, perplexity
from groundup.metrics.generated_text import quick_scores, require_metrics
from groundup.nn.logits import widen
from groundup.processors.text.bpe_dropout import bpe_dropout
from groundup.tasks.text_to_text.evaluation import evaluate_outputs
from groundup.tasks.text_to_text.frames import (
    Frame,
    end_ids,
    first_token,
    source_frame,
    target_frame,
)
from groundup.tasks.text_to_text.like_lengths import run_in_parts
from groundup.tasks.text_to_text.r_drop import r_drop_objective
from groundup.tasks.text_to_text.rows import (
    byte_sizes,
    continued,
    cut_again,
    encode_texts,
    pack,
    pad_source,
    pad_target,
)
from groundup.tasks.text_to_text.settings import TextToTextSettings
from groundup.tasks.text_to_text.writing import check_language_model, write_about

__all__ = ["TextToText"]


@task("text_to_text")
class TextToText(TextToTextSettings):
    """Minimise -log p of every token of the output, its end included.

    Source:
        Sutskever et al., 2014 (arXiv:1409.3215), section 2; label smoothing: Szegedy et al., 2015
        (arXiv:1512.00567), section 7.
    """

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read: the rows of both sides one after the other, and where
        each begins."""
        return {
            "source": "int64 (N,)",
            offsets_of("source"): "int64 (O,)",
            "target": "int64 (M,)",
            offsets_of("target"): "int64 (O,)",
        }

    def check_model(self, model: nn.Module, processor: Any) -> None:
        """Check that the model reads inputs and writes outputs, as long as the task has them.

        Raises:
            RecipeError: If it does not, or the tokenizer has no merges to leave out, or lacks a
                token or a template.
            MissingExtraError: If a library for the metrics is missing.
        """
        require_metrics(self.metrics)
        for side, tokenizer in zip(("source", "target"), tokenizers_of(processor), strict=True):
            self._frame(tokenizer, side)  # which it may lack a token for
        for tokenizer in tokenizers_of(processor) if self.bpe_dropout else ():
            bpe_dropout(tokenizer, self.bpe_dropout, 0)
        if self.decoder_only:
            check_language_model(model, self.max_source_tokens, self.max_target_tokens)
        elif not isinstance(model, EncoderDecoder):
            raise RecipeError(
                "recipe.model",
                f"{type(model).__name__} has no encoder, but task text_to_text writes about inputs",
                "Use model: encoder_decoder; or task.decoder_only: true, by which a language model"
                " reads the inputs as prompts",
            )

    def encode(self, examples: Sequence[Example], processor: Processor) -> Batch:
        """Return the tokens of inputs and outputs.

        Raises:
            DataError: If a text is empty.
        """
        reader, writer = tokenizers_of(processor)
        source = self._encode_inputs([example.inputs for example in examples], reader)
        outputs = [str(example.target) for example in examples]
        frame = self._frame(writer, "target")
        longest = self.max_target_tokens
        return pack(source, encode_texts(outputs, writer, longest, "target", frame))

    def _encode_inputs(self, inputs: Sequence[Any], reader: TextProcessor) -> list[Tensor]:
        for each in inputs:
            if not isinstance(each, str):
                problem = f"{each!r:.60} is no text"
                raise DataError("inputs", problem, "Give a text, or a list of texts")
        texts = [self.prefix + each if each.strip() else each for each in inputs]
        frame = self._frame(reader, "source")
        return encode_texts(texts, reader, self.max_source_tokens, "source", frame)

    def _frame(self, tokenizer: TextProcessor, side: str) -> Frame:
        if side == "target":
            return target_frame(self, tokenizer)
        return source_frame(self, tokenizer)

    @property
    def augments(self) -> bool:
        """Whether texts are cut into other tokens in training."""
        return self.bpe_dropout > 0

    def augment(
        self,
        batch: Batch,
        samples: NDArray[np.int64],
        partners: Callable[[], Batch],
        processor: Processor,
        seed: int,
    ) -> Batch:
        """Return a micro-batch with its texts in other tokens, by BPE-dropout of both sides."""
        limits = {"source": self.max_source_tokens, "target": self.max_target_tokens}
        found = {}
        for (side, longest), tokenizer in zip(
            limits.items(), tokenizers_of(processor), strict=True
        ):
            dropout = bpe_dropout(tokenizer, self.bpe_dropout, seed)
            rows = ragged_rows(batch, side)
            frame = self._frame(tokenizer, side)
            found[side] = cut_again(rows, samples, tokenizer, dropout, longest, side, frame)
        return pack(found["source"], found["target"])

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return inputs and targets, padded: with targets, the model returns sums of losses."""
        if self._by_logits:
            return self.prediction_inputs(batch)
        if self.decoder_only:
            tokens, targets = continued(batch)
            return {"tokens": tokens, "targets": targets}
        return self.prediction_inputs(batch) | {"targets": pad_target(batch)}

    @property
    def _by_logits(self) -> bool:
        # Two passes are compared by all that they predict, not by a sum; and the sum that a
        # language model returns has no share for all other tokens.
        return self.r_drop > 0 or (self.decoder_only and self.label_smoothing > 0)

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Run the model, where it returns sums on rows of like lengths at a time."""
        return run_in_parts(model, batch, self.inputs, sums=not self._by_logits)

    def prediction_inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the batch without its targets, but with the text: the model then returns logits
        (B, T, V)."""
        if self.decoder_only:
            return {"tokens": continued(batch)[0]}
        return {**pad_source(ragged_rows(batch, "source")), "text": pad_target(batch).clamp(min=0)}

    def build_objective(self, model: nn.Module, processor: Any) -> Objective:
        """Return ``loss``, or with ``r_drop`` that of two passes."""
        if not self.r_drop:
            return self.loss
        return r_drop_objective(self, model, self.r_drop)

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return the sum of -log p in nats and the number of target tokens.

        Args:
            outputs: (2,) the sums of -log p of the targets, and of the mean of -log p of all
                tokens of the vocabulary; of a language model the first of them alone, a scalar; or
                logits (B, T, V).
            batch: What ``encode`` gave.
        """
        if outputs.dim() > 1:
            return self.prediction_loss(outputs, batch)
        if self.decoder_only and not outputs.dim():
            outputs = torch.stack((outputs, outputs))
        # Rows are ragged, so there is no padding to leave out of the count.
        count = torch.tensor(float(len(batch["target"])))
        total, uniform = outputs
        smooth = self.label_smoothing
        smoothed = total if not smooth else (1 - smooth) * total + smooth * uniform
        return Loss({"target": Term(smoothed, count)}, {"plain": total.detach()})

    def counts(self, batch: Batch) -> dict[str, float]:
        """Return how many target tokens there are, for each term of the loss."""
        count = float(len(batch["target"]))
        return {"target": count, "consistency": count} if self.r_drop else {"target": count}

    def count_bytes(self, batch: Batch, processor: Processor) -> float:
        """Return how many UTF-8 bytes the targets stand for, 0 where their tokens stand for none in
        particular."""
        writer: Any = tokenizers_of(processor)[1]  # for the cache: told apart by identity
        sizes = byte_sizes(writer)
        return 0.0 if sizes is None else float(sizes[batch["target"].cpu()].sum())

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return loss in nats a token, not smoothed, and perplexity; and, where bytes were counted,
        bits for each of them, by which runs with other tokens compare."""
        total = sums["plain"][0]
        mean = total / max(sums["target"][1], 1.0)
        found = {"loss": mean, "perplexity": perplexity(mean)}
        if "bytes" in sums:
            found["bits_per_byte"] = bits_per_byte(total, int(sums["bytes"][0]))
        return found

    # ------------------------------------------------------- by logits: for teachers and privacy
    @property
    def distils(self) -> str:
        """What a teacher must predict; nothing next to smoothed targets or another pass."""
        return "" if self.label_smoothing or self.r_drop else "output tokens"

    def predicted(self, batch: Batch) -> Tensor:
        """Return (B, T) which logits are trained."""
        return self._targets(batch) >= 0

    def _targets(self, batch: Batch) -> Tensor:
        """Return (B, T) what logits predict, -100 where they are not trained."""
        return continued(batch)[1] if self.decoder_only else pad_target(batch)

    def prediction_loss(self, logits: Tensor, batch: Batch) -> Loss:
        """Return what ``loss`` does, by logits."""
        total, uniform = self._losses_by_logits(logits, batch)
        return self.loss(torch.stack((total.sum(), uniform.sum())), batch)

    def example_losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return (B,) the loss of each example, by logits."""
        total, uniform = self._losses_by_logits(outputs, batch)
        return (1 - self.label_smoothing) * total + self.label_smoothing * uniform

    def _losses_by_logits(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        targets = self._targets(batch)
        wide = widen(logits)
        total = F.cross_entropy(wide.transpose(1, 2), targets, reduction="none").sum(1)
        uniform = -(wide.log_softmax(-1).mean(-1) * (targets >= 0)).sum(1)
        return total, uniform

    # ------------------------------------------------------------------------------------ writing
    def predict(self, model: nn.Module, inputs: Any, processor: Processor, **options: Any) -> Any:
        """Return what the model writes about an input, or about each of several.

        Args:
            model: The trained model.
            inputs: A text, or a list of texts.
            processor: The run's tokenizer, or both.
            **options: ``DecodingOptions``; what is not given is as the task's settings say, and the
                likeliest token is taken. With ``n_best`` above 1 an input has a list of
                ``{"text": ..., "score": ...}``, the best first.

        Raises:
            DataError: If an input is empty, or is no text.
        """
        several = isinstance(inputs, list | tuple)
        texts = list(inputs) if several else [inputs]
        chosen = self.decoding(options)
        found = self.write(model, texts, processor, chosen)
        if chosen.n_best == 1:
            plain = [each[0][0] for each in found]
            return plain if several else plain[0]
        named = [[{"text": text, "score": score} for text, score in each] for each in found]
        return named if several else named[0]

    def write(
        self,
        model: nn.Module,
        texts: Sequence[str],
        processor: Processor,
        options: DecodingOptions,
    ) -> list[list[tuple[str, float]]]:
        """Return the best outputs about each input, each with its score, which is 0 with one
        beam."""
        reader, writer = tokenizers_of(processor)
        if options.first_token is None:
            options = options.model_copy(update={"first_token": first_token(self, writer)})
        inputs = self._encode_inputs(texts, reader)
        return write_about(model, inputs, writer, options, end_ids(self, writer))

    # --------------------------------------------------------------------- a folder of weights
    @classmethod
    def settings_in(cls, folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the token that a folder's files say every output begins with."""
        if "target_token" in given or given.get("decoder_only"):
            return {}
        found = read_first_token(folder)
        return {} if found is None else {"target_token": found}

    def differences(self, folder: Path) -> list[str]:
        """Return in words where outputs begin otherwise than a folder's files say."""
        found = read_first_token(folder)
        if self.decoder_only or found in (None, self.target_token):
            return []
        said = f"{folder}: outputs begin with {found} by its files"
        return [f"{said}, but task.target_token is {self.target_token}"]

    def model_files(self, config: Mapping[str, Any], processor: Processor) -> dict[str, Any]:
        """Return how other tools begin outputs, as generation_config.json has it."""
        first = first_token(self, tokenizers_of(processor)[1])
        return {} if first is None else {GENERATION: {"forced_bos_token_id": first}}

    def measure(
        self, model: nn.Module, examples: Sequence[Example], processor: Processor
    ) -> dict[str, float]:
        """Return the metrics of what the model writes about held-out inputs, token by token."""
        # One beam whatever the settings: a validation is to take seconds.
        options = self.decoding({"beams": 1})
        found = self.write(model, [example.inputs for example in examples], processor, options)
        outputs = [each[0][0] for each in found]
        references = [str(example.target) for example in examples]
        return quick_scores(self.metrics, outputs, references, bleu_tokenizer=self.bleu_tokenizer)

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Write about held-out inputs, and compare with references and baselines; see
        ``evaluate_outputs``."""
        return evaluate_outputs(self, context)
