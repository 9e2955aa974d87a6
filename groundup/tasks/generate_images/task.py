"""Making pictures: a model learns what noise becomes, and makes pictures of other noise.

Legend: B pictures of a batch, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from groundup.contracts.data import DataSource, Partners
from groundup.contracts.generators import PictureGenerator
from groundup.contracts.processors import LabelProcessor
from groundup.contracts.tasks import EvaluationContext, Start, Task
from groundup.core.errors import RecipeError
from groundup.core.registry import task
from groundup.core.seeding import keyed_noise
from groundup.core.settings import setting
from groundup.core.values import Batch, Evaluation, Example, Loss, Term
from groundup.media.augmentation.draws import Draws
from groundup.tasks.generate_images.caption_evaluation import evaluate_by_caption
from groundup.tasks.generate_images.conditions import ByCaption, ByClass, ByNothing, Condition
from groundup.tasks.generate_images.contact_sheet import check_around_zero, png_sheet, sheets
from groundup.tasks.generate_images.evaluation import evaluate_generator
from groundup.tasks.generate_images.flow import (
    draw_times,
    interpolate,
    mean_quarters,
    sum_quarters,
    velocity_weight,
)
from groundup.tasks.generate_images.mean_flow import (
    MeanFlowOutputs,
    adaptive_weight,
    draw_spans,
    mean_flow_outputs,
)
from groundup.tasks.generate_images.sampling import (
    check_guidance,
    check_steps,
    make_pictures,
    sampler_options,
)
from groundup.tasks.generate_images.taught_steps import draw_pieces, learned_steps, teach

__all__ = ["GenerateImages"]

_Time = Annotated[float, Field(ge=0, le=1)]
_DRAWING = ("count", "guidance", "guidance_interval", "sampler", "steps")


@task("generate_images")
class GenerateImages(Task):
    """Flow matching: from pictures with noise at any time of the way, the model says the picture.

    A picture's loss is the mean over its numbers (pixels and channels) of the squared error, and
    the loss of a step the mean over its pictures.

    Source:
        Lipman et al., 2022 (arXiv:2210.02747); Liu et al., 2022 (arXiv:2209.03003); that the
        network says pictures and not noise: Li and He, 2025, "Back to basics: let denoising
        generative models denoise".
    """

    unit: ClassVar[str] = "pictures"
    file_source: ClassVar[str] = "images"
    default_settings: ClassVar[Mapping[str, Any]] = {
        # Weights of single steps make noisy pictures; decay and a falling rate are not needed with
        # an average.
        "optim.average": "ema",
        "optim.weight_decay": 0.0,
        "optim.schedule": "constant",
        "optim.betas": (0.9, 0.99),
    }
    drawing_options: ClassVar[tuple[str, ...]] = ("count", "guidance", "sampler", "steps")

    condition: Literal["class", "text", "none"] = setting(
        "class", "What pictures are asked for by: their class, their caption, or nothing"
    )
    class_dropout: float = setting(
        0.1,
        "Share of training pictures whose class is not told: guidance compares with that",
        ge=0,
        lt=1,
        applies_when={"condition": ("class",)},
    )
    caption_dropout: float = setting(
        0.1,
        "Share of training pictures whose caption is not told: guidance compares with that",
        ge=0,
        lt=1,
        applies_when={"condition": ("text",)},
    )
    weighting: Literal["velocity", "picture"] = setting(
        "velocity",
        "velocity: the picture's error over what is left of the way, squared; picture: its error",
    )
    times: Literal["logit_normal", "uniform"] = setting(
        "logit_normal", "How times on the way are drawn, from 0 (noise) to 1 (picture)"
    )
    time_mean: float = setting(
        0.0, "Of the times' logits; lower: more noise", applies_when={"times": ("logit_normal",)}
    )
    time_std: float = setting(
        1.0, "Standard deviation of the logits", gt=0, applies_when={"times": ("logit_normal",)}
    )
    mean_flow: bool = setting(
        False, "Learn steps of any length, so that one makes a picture (MeanFlow)"
    )
    step_targets: Literal["derivative", "teacher"] = setting(
        "derivative",
        "derivative: steps learn from pictures; teacher: from where the run's first weights go",
        applies_when={"mean_flow": (True,)},
    )
    teacher_steps: int = setting(
        8,
        "Steps in which the teacher goes; pictures are then made in so many or fewer",
        ge=2,
        applies_when={"mean_flow": (True,), "step_targets": ("teacher",)},
    )
    teacher_repeats: int = setting(
        1,
        "How often each way of the teacher is learned from: fewer of its calls, less variety",
        ge=1,
        applies_when={"mean_flow": (True,), "step_targets": ("teacher",)},
    )
    whole_share: float = setting(
        1.0,
        "Share of samples whose step goes all the way; others: for pictures in several steps",
        ge=0,
        le=1,
        applies_when={"mean_flow": (True,), "step_targets": ("teacher",)},
    )
    span_share: float = setting(
        0.5,
        "Share of the samples with a step; the others learn directions",
        gt=0,
        le=1,
        applies_when={"mean_flow": (True,), "step_targets": ("derivative",)},
    )
    step_guidance: float = setting(
        1.0,
        "Guidance that steps learn: a guided picture then asks once a step, with guidance 1",
        ge=0,
        applies_when={"mean_flow": (True,), "condition": ("class", "text")},
    )
    error_power: float = setting(
        1.0,
        "Errors are divided by themselves to this power: 0 leaves them, 1 lets all count alike",
        ge=0,
        applies_when={"mean_flow": (True,), "step_targets": ("derivative",)},
    )
    steps: int = setting(50, "Steps from noise to a picture", ge=1)
    sampler: Literal["heun", "euler"] = setting(
        "heun",
        "heun asks twice a step, euler once",
        applies_when={"mean_flow": (False,)},
    )
    guidance: float = setting(
        1.0,
        "How much more of what is asked for; 1: as it was learned, and in half the time",
        ge=0,
        applies_when={"condition": ("class", "text")},
    )
    guidance_interval: tuple[_Time, _Time] = setting(
        (0.0, 1.0),
        "First and last time with guidance: at others half the time is saved",
        applies_when={"condition": ("class", "text")},
    )
    shown: int = setting(4, "Pictures of each prompt in samples while training", ge=1)
    evaluated: int = setting(1000, "Pictures that groundup evaluate makes", ge=2)
    judge: str = setting(
        "", "A run folder: its classifier evaluates what is made; empty: pixels are compared"
    )

    @model_validator(mode="after")
    def _guidance_is_possible(self) -> GenerateImages:
        check_guidance(self.guidance, self.guidance_interval, self.step_guidance, self.asked_by)
        check_steps(self.steps, self.learned_steps)
        return self

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read."""
        spec = {
            "inputs": "float32 (B, C, H, W)",
            "noise": "float32 (B, C, H, W)",
            "times": "float32 (B,)",
        }
        spans = {"spans": "float32 (B,)"} if self.mean_flow else {}
        return spec | self.asked_by.spec | spans

    @property
    def taught(self) -> bool:
        """Whether steps learn from the weights that the run starts from."""
        return self.mean_flow and self.step_targets == "teacher"

    @property
    def learned_steps(self) -> tuple[int, ...]:
        """In how many steps pictures can be made; empty: in any."""
        return learned_steps(self.teacher_steps, self.whole_share) if self.taught else ()

    @property
    def asked_by(self) -> Condition:
        """What pictures are asked for by."""
        if self.condition == "text":
            return ByCaption(self.caption_dropout)
        return ByClass(self.class_dropout) if self.condition == "class" else ByNothing(0.0)

    def fit_processor(
        self, processor: Any, examples: Callable[[], Iterator[Any]]
    ) -> LabelProcessor:
        """Return the processor with the training split's classes; a base run's, where it knows them
        all.

        Raises:
            DataError: If pictures are asked for by class, and one has none.
            RecipeError: If the processor makes no pictures around 0, as noise is, or reads no
                captions where pictures are asked for by them.
        """
        found = self.asked_by.fit(processor, examples)
        check_around_zero(found)
        return found

    def precompute(self, source: DataSource, start: Start) -> DataSource:
        """Return the data; with the starting weights' pictures, where steps learn from them."""
        if not self.taught:
            return source
        guided = (self.step_guidance, self.guidance_interval)
        steps, repeats = self.teacher_steps, self.teacher_repeats
        return teach(source, start, steps, repeats, guided, self.inputs, self.asked_by)

    def encode(self, examples: Sequence[Example], processor: LabelProcessor) -> Batch:
        """Return all examples' pictures, and their class numbers or captions.

        Raises:
            DataError: If a picture has another shape or no caption, or a class was not in the
                training split.
        """
        encoded = processor.encode_inputs([example.inputs for example in examples])
        return encoded | self.asked_by.encode(examples, processor)

    def check_model(self, model: nn.Module, processor: Any) -> None:
        """Check that the model makes pictures, of texts where it is asked by them.

        Raises:
            RecipeError: If it does not.
        """
        if not isinstance(model, PictureGenerator):
            problem = f"{type(model).__name__} makes no pictures"
            raise RecipeError("recipe.model.name", problem, "Use unet or dit")
        if model.reads_text != (self.condition == "text"):
            problem = f"{type(model).__name__} reads no captions, by which pictures are asked for"
            if model.reads_text:
                problem = f"{type(model).__name__} reads captions, which nothing gives"
            remedy = "Set task.condition: text for models with an encoder of texts, and no others"
            raise RecipeError("recipe.model.text", problem, remedy)

    @property
    def augments(self) -> bool:
        """Noise and times are always drawn."""
        return True

    @property
    def augments_held_out(self) -> bool:
        """For held-out pictures too, the same at each validation."""
        return True

    def augment(
        self,
        batch: Batch,
        samples: NDArray[np.int64],
        partners: Partners,
        processor: LabelProcessor,
        seed: int,
    ) -> Batch:
        """Return the batch with noise, times and spans; some pictures are asked for by nothing.

        Held-out pictures keep theirs, and are asked about at fixed times.
        """
        # All is keyed by the sample's number: a resumed run, and any micro-batch, draws the same.
        draws = Draws(seed, samples)
        held_out = seed < 0
        kind = "fixed" if held_out else self.times
        times = draw_times(draws, kind, self.time_mean, self.time_std)
        noise = keyed_noise(seed, "noise", samples, batch["inputs"].shape[1:])
        found = {**batch, "noise": noise, "times": times}
        if self.taught:
            # Held-out noise goes all the way: one step is what is validated.
            whole = 1.0 if held_out else self.whole_share
            found |= draw_pieces(draws, self.teacher_steps, whole)
        elif self.mean_flow:
            other = draw_times(Draws(seed, samples, "end "), kind, self.time_mean, self.time_std)
            # Held-out pictures are asked for directions, so that runs with and without compare.
            found |= draw_spans(draws, times, other, 0.0 if held_out else self.span_share)
        asked_by = self.asked_by
        if held_out or not asked_by.word:
            return found
        dropped = torch.from_numpy(draws(asked_by.word)[0] < asked_by.dropout)
        return asked_by.take_away(found, dropped, processor)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return pictures on their way, the times, and what is asked for."""
        told = [name for name in ("times", "spans", *self.asked_by.spec) if name in batch]
        found = {"inputs": interpolate(batch), **{name: batch[name] for name in told}}
        if "text" in found:
            # Padded to the longest of all examples; at least one, which encoders need.
            longest = max(1, int(found["text_lengths"].max()))
            found["text"] = batch.get("text_states", batch["text"])[:, :longest]
        return found

    def forward(self, model: nn.Module, batch: Batch) -> Tensor | MeanFlowOutputs:
        """Return the pictures that the model says; to learn steps also those that it should say."""
        if self.mean_flow and not self.taught and torch.is_grad_enabled():
            return mean_flow_outputs(model, self.inputs(batch), batch, self.step_guidance)
        return model(**self.inputs(batch))  # type: ignore[no-any-return]

    def loss(self, outputs: Tensor | MeanFlowOutputs, batch: Batch) -> Loss:
        """Return the summed loss of the pictures, and their number.

        A validation of a run that learns steps tells the error of directions, as of any other.
        """
        derived = isinstance(outputs, MeanFlowOutputs)
        said, wanted = outputs if isinstance(outputs, tuple) else (outputs, batch["inputs"])
        errors = (said.float() - wanted.float()).square().mean((1, 2, 3))
        by_velocity = self.weighting == "velocity"
        weighted = errors * velocity_weight(batch["times"]) if by_velocity else errors
        if derived:
            weighted = weighted * adaptive_weight(weighted, self.error_power)
        metrics = {} if torch.is_grad_enabled() else sum_quarters(errors, batch["times"])
        return Loss({"picture": Term(weighted.sum(), torch.tensor(float(len(errors))))}, metrics)

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return the loss, and the pictures' mean squared error in each quarter of the way."""
        total, count = sums["picture"]
        return {"loss": total / count, **mean_quarters(sums)}

    # --------------------------------------------------------------------------------- what is made
    def predict(
        self, model: nn.Module, inputs: Any, processor: LabelProcessor, **options: Any
    ) -> Any:
        """Return a ``Picture`` for each prompt: the name of a class, a text, or an empty text for
        nothing.

        Args:
            model: Makes them.
            inputs: A prompt, or a list of them.
            processor: The run's.
            **options: ``seed`` (0), ``count`` pictures of each prompt on one sheet (1), and in
                place of the settings of the same names ``steps``, ``sampler`` and ``guidance``.
                Picture n of a prompt begins with noise that is a function of seed and n alone.

        Raises:
            DataError: If there is no such class, a text is too long, or an option is out of range.
        """
        prompts = inputs if isinstance(inputs, list) else [inputs]
        rows = self.make(model, prompts, processor, int(options.get("count") or 1), options)
        found = sheets(prompts, rows, processor)
        return found if isinstance(inputs, list) else found[0]

    def make(
        self,
        model: nn.Module,
        prompts: Sequence[Any],
        processor: LabelProcessor,
        count: int,
        options: Mapping[str, Any] | None = None,
    ) -> list[Tensor]:
        """Return (count, C, H, W) for each prompt, as the model reads pictures; see ``predict``."""
        given = {name: value for name, value in self if name in _DRAWING} | dict(options or {})
        how = sampler_options(given, self.asked_by, self.learned_steps, spans=self.mean_flow)
        asked = self.asked_by.ask(prompts, processor)
        seed = int(given.get("seed") or 0)
        return make_pictures(model, len(prompts), asked, processor.input_shape, count, seed, how)

    def draw_sheet(
        self, model: nn.Module, prompts: Sequence[str], processor: LabelProcessor, seed: int
    ) -> bytes:
        """Return a PNG with a row of pictures for each prompt."""
        return png_sheet(
            self.make(model, prompts, processor, self.shown, {"seed": seed}), processor
        )

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Compare what is made with held-out pictures."""

        def make(prompts: Sequence[Any], count: int) -> list[Tensor]:
            given = {"seed": context.seed}
            return self.make(context.model, prompts, context.processor, count, given)

        if self.condition == "text":
            return evaluate_by_caption(context, make, self.evaluated)
        return evaluate_generator(context, make, self.evaluated)
