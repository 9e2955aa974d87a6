"""Learn to say a picture in a few codes, and to draw it again from them.

Legend: B pictures, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contracts.pictures import PictureCodes
from groundup.contracts.processors import InputProcessor, LabelProcessor, Pictures, Processor
from groundup.contracts.tasks import EvaluationContext, Picture, Task
from groundup.core.errors import DataError, RecipeError
from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.core.values import Batch, Evaluation, Example, Loss, Term
from groundup.media.augmentation.batch import augment_batch
from groundup.media.augmentation.draws import Draws
from groundup.media.augmentation.settings import Augment
from groundup.processors.labelled import Labelled
from groundup.processors.targets import FixedTargets
from groundup.tasks.autoencode.evaluation import evaluate_codes
from groundup.tasks.autoencode.reconstruction import reconstruct, scores_of

__all__ = ["Autoencode"]

# They blend two pictures, which is for classes: what is learned here would be to draw blends.
_BLENDS = ("mixup", "cutmix")
# What a caller of all tasks sends.
_OF_ALL = {"temperature", "seed", "max_new_tokens"}


@task("autoencode")
class Autoencode(Task):
    """Minimise the distance between pictures and what is drawn from their codes.

    Source:
        van den Oord et al., 2017 (arXiv:1711.00937), equation 3, its first term: codes by finite
        scalar quantisation need no others (Mentzer et al., 2023, arXiv:2309.15505, table 1).
    """

    unit: ClassVar[str] = "images"
    file_source: ClassVar[str] = "images"
    objective: Literal["mse", "mae"] = setting(
        "mse", "Distance of a pixel: squared, which PSNR measures, or absolute"
    )
    measured: int = setting(
        200,
        "Held-out pictures of which each validation measures what is drawn; 0: the loss alone",
        ge=0,
    )
    augmentation: Augment = setting(Augment(), "How training pictures are changed at random")

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read."""
        return {"inputs": "float32 (B, C, H, W)"}

    def fit_processor(
        self, processor: Any, examples: Callable[[], Iterator[Any]]
    ) -> LabelProcessor:
        """Return the processor, which predicts no targets.

        Raises:
            RecipeError: If it makes no pictures, or an augmentation does nothing for them.
        """
        reader: Processor = processor.reader
        if not isinstance(reader, InputProcessor) or not isinstance(reader, Pictures):
            problem = "makes no pictures, which task autoencode learns from"
            raise RecipeError("recipe.processor", problem, "Choose image")
        # What would do nothing is a mistake, as in all tasks.
        self.augmentation.check(reader.input_shape)
        for name in _BLENDS:
            if name in self.augmentation.used:
                problem = "blends two pictures, but task autoencode learns from each by itself"
                raise RecipeError(f"recipe.task.augmentation.{name}", problem, "Remove it")
        return Labelled(reader, FixedTargets(()), 1, notes=reader.notes)

    def check_model(self, model: nn.Module, processor: Any) -> None:
        """Check that a model makes codes.

        Raises:
            RecipeError: If it does not.
        """
        if not isinstance(model, PictureCodes):
            problem = f"{type(model).__name__} makes no codes, which task autoencode learns"
            raise RecipeError("recipe.model", problem, "Use model: fsq_autoencoder")

    def encode(self, examples: Sequence[Example], processor: LabelProcessor) -> Batch:
        """Return all pictures, stacked.

        Raises:
            DataError: If one cannot be read, or has another size.
        """
        return processor.encode_inputs([example.inputs for example in examples])

    @property
    def augments(self) -> bool:
        """Whether pictures are changed at random."""
        return bool(self.augmentation.used)

    def augment(
        self,
        batch: Batch,
        samples: NDArray[Any],
        partners: Callable[[], Batch],
        processor: LabelProcessor,
        seed: int,
    ) -> Batch:
        """Return a micro-batch of changed pictures: these are read, and to be drawn."""
        return augment_batch(
            self.augmentation, batch, Draws(seed, samples), partners, processor.reader
        )

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return what the model reads."""
        return {"inputs": batch["inputs"]}

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return the distance of each picture, the mean over its numbers, summed over pictures."""
        each = self.example_losses(outputs, batch)
        return Loss({"picture": Term(each.sum(), torch.tensor(float(len(each))))})

    def example_losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return (B,) the distance of each picture, in the units that the model reads."""
        # The target is the augmented picture, not the one in the file.
        apart = (outputs.float() - batch["inputs"]).flatten(1)
        return (apart.square() if self.objective == "mse" else apart.abs()).mean(1)

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return the mean distance of a picture."""
        total, count = sums["picture"]
        return {"loss": total / max(count, 1.0)}

    def measure(
        self, model: nn.Module, examples: Sequence[Example], processor: LabelProcessor
    ) -> dict[str, float]:
        """Return PSNR and SSIM of what is drawn of held-out pictures, and how much of the codebook
        they use."""
        return scores_of(reconstruct(model, [each.inputs for each in examples], processor))

    def predict(
        self, model: nn.Module, inputs: Any, processor: LabelProcessor, **options: Any
    ) -> Any:
        """Return what is drawn from the codes of a picture, or of each of a list of pictures; of
        each also the ``codes``, row by row, and its ``psnr``.

        Raises:
            DataError: If a picture cannot be read or has another size, or an option is of texts.
        """
        for name in options.keys() - _OF_ALL:
            problem = "has no effect: a picture is drawn from its own codes"
            raise DataError(f"options.{name}", problem, "Remove it")
        several = isinstance(inputs, list)
        found = reconstruct(model, inputs if several else [inputs], processor)
        pictures = [
            Picture(pixels, {"psnr": round(psnr, 2), "codes": codes})
            for pixels, psnr, codes in zip(
                found.pixels, found.psnr.tolist(), found.codes.tolist(), strict=True
            )
        ]
        return pictures if several else pictures[0]

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Compare what is drawn of held-out pictures with them, next to what as many bits are
        without a model; see ``evaluate_codes``."""
        return evaluate_codes(context)
