"""Pictures from captions and captions from pictures, by one language model.

Legend: B examples, P codes of a picture, N tokens of all captions, O = B + 1.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from groundup.contracts.models import EncoderDecoder
from groundup.contracts.ragged import offsets_of, pack_ragged
from groundup.contracts.tasks import EvaluationContext, Picture, Task
from groundup.core.errors import DataError, RecipeError
from groundup.core.registry import task
from groundup.core.settings import as_path, setting
from groundup.core.values import Batch, Evaluation, Example, Loss, Term
from groundup.media.images import SUFFIXES, is_picture
from groundup.processors.picture_tokens import PictureTokens
from groundup.tasks.shared.caption_retrieval import share_found
from groundup.tasks.text_and_pictures.evaluation import evaluate_both
from groundup.tasks.text_and_pictures.retrieval import caption_scores
from groundup.tasks.text_and_pictures.rows import (
    caption_rows,
    encode_captions,
    picture_rows,
    prompt_of_caption,
    prompt_of_picture,
)
from groundup.tasks.text_and_pictures.writing import draw_pictures, write_captions

__all__ = ["TextAndPictures"]

_LEARNED = {"to_picture": "pictures from captions", "to_caption": "captions from pictures"}


@task("text_and_pictures")
class TextAndPictures(Task):
    """Minimise -log p of a picture's codes after its caption, and of the caption after the codes.

    Source:
        Ramesh et al., 2021 (arXiv:2102.12092), section 2.2.
        Departs from it: captions are also learned from pictures, in rows of their own, and not from
        what comes before in the caption alone.
    """

    unit: ClassVar[str] = "images"
    file_source: ClassVar[str] = "captioned_images"
    # Of a picture the likeliest codes, one by one, are a flat ground; of a caption they are best.
    default_temperature: ClassVar[float | None] = None

    directions: Literal["both", "to_picture", "to_caption"] = setting(
        "both", "What is learned: pictures from captions, captions from pictures, or both"
    )
    caption_weight: float = setting(
        1.0,
        "Weight of the mean loss of a caption's token; that of a picture's token counts 1",
        gt=0,
        applies_when={"directions": ("both",)},
    )
    max_caption_tokens: int = setting(
        32, "The most tokens of a caption; a longer one is cut at its end", ge=1
    )
    measured: int = setting(
        20,
        "Held-out pictures for which each validation looks for their captions among them all; 0:"
        " the loss alone",
        ge=0,
    )
    candidates: int = setting(
        50, "Held-out pictures, and as many captions, that are evaluated together", ge=2
    )

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read."""
        return {
            "codes": "int64 (B, P)",
            "picture_prompt": "int64 (B, Q)",
            "caption": "int64 (N,)",
            offsets_of("caption"): "int64 (O,)",
            "caption_prompt": "int64 (M,)",
            offsets_of("caption_prompt"): "int64 (O,)",
        }

    def fit_processor(self, processor: Any, examples: Any) -> PictureTokens:
        """Return the processor.

        Raises:
            RecipeError: If it makes no tokens of pictures.
        """
        if not isinstance(processor, PictureTokens):
            problem = "makes no tokens of pictures and texts, which task text_and_pictures reads"
            raise RecipeError("recipe.processor", problem, "Choose picture_tokens")
        return processor

    def check_model(self, model: nn.Module, processor: Any) -> None:
        """Check that a model predicts tokens, and reads as many as a caption and a picture have.

        Raises:
            RecipeError: If it does not.
        """
        takes = inspect.signature(model.forward).parameters
        if isinstance(model, EncoderDecoder) or not {"tokens", "targets"} <= takes.keys():
            problem = f"{type(model).__name__} is no language model"
            raise RecipeError("recipe.model", problem, "Use model: gpt")
        decoder: Any = model  # with a config, as whatever takes a text's tokens and targets
        context: int = decoder.config.context_length
        # The begin, the caption, what begins a picture, and its codes; the last is never read.
        needed = self.max_caption_tokens + 1 + processor.picture_length + 1
        if needed > context:
            problem = (
                f"is {context}, but {self.max_caption_tokens} tokens of a caption and"
                f" {processor.picture_length} of a picture need {needed}"
            )
            remedy = f"Set it to {needed}, or use a smaller task.max_caption_tokens"
            raise RecipeError("recipe.model.context_length", problem, remedy)

    def encode(self, examples: Sequence[Example], processor: PictureTokens) -> Batch:
        """Return the codes of pictures and the tokens of captions, and what each goes on from.

        Raises:
            DataError: If a picture cannot be read or has another size, or has no caption.
        """
        targets = [example.target for example in examples]
        captions = encode_captions(targets, processor, self.max_caption_tokens)
        codes = processor.encode_pictures([example.inputs for example in examples])
        end = torch.tensor([processor.end_id])
        prompts = [prompt_of_caption(each, processor) for each in captions]
        return {
            "codes": codes,
            "picture_prompt": torch.stack([prompt_of_picture(each, processor) for each in codes]),
            **pack_ragged("caption", [torch.cat([each, end]) for each in captions]),
            **pack_ragged("caption_prompt", prompts),
        }

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return the rows of one direction: of pictures, where both are learned."""
        rows = caption_rows if self.directions == "to_caption" else picture_rows
        tokens, targets = rows(batch)
        return {"tokens": tokens, "targets": targets}

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the sum of -log p of each direction."""
        if self.directions != "both":
            return {self.directions.removeprefix("to_"): model(**self.inputs(batch))}
        tokens, targets = caption_rows(batch)
        # Rows of pictures and of captions are of different lengths, and have a count each.
        return {
            "picture": model(**self.inputs(batch)),
            "caption": model(tokens=tokens, targets=targets),
        }

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Loss:
        """Return the sums of -log p in nats, and the numbers of tokens."""
        counts = self.counts(batch)
        weights = {"picture": 1.0, "caption": self.caption_weight}
        return Loss(
            {
                name: Term(total, torch.tensor(counts[name]), weights[name])
                for name, total in outputs.items()
            }
        )

    def counts(self, batch: Batch) -> dict[str, float]:
        """Return how many tokens each term of the loss counts."""
        every = {"picture": float(batch["codes"].numel()), "caption": float(len(batch["caption"]))}
        if self.directions == "both":
            return every
        name = self.directions.removeprefix("to_")
        return {name: every[name]}

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return the losses in nats a token: ``picture_loss`` and ``caption_loss``, and ``loss``,
        which is what is minimised."""
        means = {
            name: sums[name][0] / max(sums[name][1], 1.0)
            for name in ("picture", "caption")
            if name in sums
        }
        loss = means.get("picture", 0.0) + self.caption_weight * means.get("caption", 0.0)
        return {"loss": loss, **{f"{name}_loss": mean for name, mean in means.items()}}

    # ------------------------------------------------------------------------------------ writing
    def predict(
        self, model: nn.Module, inputs: Any, processor: PictureTokens, **options: Any
    ) -> Any:
        """Return a picture for a caption, and a caption for a picture; a list of them for a list.

        Args:
            model: The trained model.
            inputs: A text, which is a caption unless it names a picture file; or a picture: a path,
                a file's bytes, a Pillow image, or an array.
            processor: The run's.
            **options: ``DecodingOptions``. Of pictures codes are drawn at temperature 1 unless
                another is given; of captions the likeliest token is taken.

        Raises:
            DataError: If a text names a picture file that is not there, or the run has not learned
                what is asked for.
        """
        several = isinstance(inputs, list | tuple)
        given = list(inputs) if several else [inputs]
        pictures = [_is_picture(each) for each in given]
        found: dict[int, Any] = {}
        # Each kind at once: generation is quicker for many rows.
        for of_pictures in (False, True):
            chosen = [n for n, each in enumerate(pictures) if each == of_pictures]
            if chosen:
                own = [given[n] for n in chosen]
                write = self._write_captions if of_pictures else self._draw_pictures
                found |= dict(zip(chosen, write(model, own, processor, options), strict=True))
        answers = [found[number] for number in range(len(given))]
        return answers if several else answers[0]

    def _draw_pictures(
        self,
        model: nn.Module,
        captions: list[str],
        processor: PictureTokens,
        options: dict[str, Any],
    ) -> list[Picture]:
        self._require("to_picture", "a picture file")
        tokens = encode_captions(captions, processor, self.max_caption_tokens)
        prompts = [prompt_of_caption(each, processor).tolist() for each in tokens]
        pixels = processor.draw(draw_pictures(model, prompts, processor, options))
        return [
            Picture(picture, {"caption": caption})
            for caption, picture in zip(captions, pixels, strict=True)
        ]

    def _write_captions(
        self,
        model: nn.Module,
        pictures: list[Any],
        processor: PictureTokens,
        options: dict[str, Any],
    ) -> list[str]:
        self._require("to_caption", "a caption")
        codes = processor.encode_pictures(pictures)
        prompts = [prompt_of_picture(each, processor).tolist() for each in codes]
        return write_captions(model, prompts, processor, options, self.max_caption_tokens + 1)

    def _require(self, direction: str, instead: str) -> None:
        if self.directions not in ("both", direction):
            problem = f"this run has learned {_LEARNED[self.directions]} alone"
            raise DataError("inputs", problem, f"Give {instead}, or train with directions: both")

    def measure(
        self, model: nn.Module, examples: Sequence[Example], processor: PictureTokens
    ) -> dict[str, float]:
        """Return ``caption_accuracy_at_1``: how often a picture's own caption is the likeliest of
        the different captions of the examples."""
        if self.directions == "to_picture" or len(examples) < 2:
            return {}
        captions = sorted({str(example.target) for example in examples})
        codes = processor.encode_pictures([example.inputs for example in examples])
        scores = caption_scores(model, codes, captions, processor, self.max_caption_tokens)
        wanted = [captions.index(str(example.target)) for example in examples]
        return {"caption_accuracy_at_1": share_found(scores, wanted)}

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Look for the captions of pictures, and of pictures that are drawn from captions; see
        ``evaluate_both``."""
        return evaluate_both(self, context)


def _is_picture(given: Any) -> bool:
    """Return whether an input is a picture, and no caption."""
    if not isinstance(given, str):
        return True
    path = as_path(given)
    if "\n" in given or path.suffix.lower() not in SUFFIXES:
        return False
    if not path.is_file():
        problem = "there is no such picture; a caption ends otherwise"
        raise DataError(given, problem, "Correct the path, or the caption")
    return is_picture(Path(given))
