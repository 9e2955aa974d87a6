"""Pictures that a model made, next to real ones.

Legend: N pictures, D features of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.contracts.classifier_models import Features
from groundup.contracts.processors import Pictures
from groundup.contracts.tasks import EvaluationContext
from groundup.core import seeding
from groundup.core.errors import RecipeError
from groundup.core.values import Evaluation, Example, Figure, Table
from groundup.generation.scoring import device_of, evaluating
from groundup.media.png import data_uri
from groundup.media.table_values import as_category
from groundup.metrics.frechet import frechet_distance, nearest, same_kind_share
from groundup.tasks.generate_images.contact_sheet import arrange, as_bytes, pictures_of

__all__ = ["SHOWN", "Make", "evaluate_generator", "look_for_copies", "made_pixels", "read_pixels"]

Make = Callable[[Sequence[Any], int], list[Tensor]]
"""Makes so many pictures (count, C, H, W) for each prompt."""

Floats = NDArray[np.float64]
SHOWN = 24  # pictures that are looked for in the training split
# A made picture is a copy where it is nearer to a training picture than this share of the held-out
# pictures is to theirs.
_COPY = 0.01
_FITTED = 2_000  # training pictures of a class that its normal distribution is of
_AT_ONCE = 512


def evaluate_generator(context: EvaluationContext, make: Make, count: int) -> Evaluation:
    """Compare about ``count`` made pictures with as many real ones.

    What is compared are features of the judge, another run's classifier, or pixels where there is
    none. Next to what is made are as many training pictures, which nothing made can be expected to
    beat, and as many drawn from a normal distribution of each class's pixels, which is what can be
    had without learning anything. With a judge that knows the classes, also how often it sees the
    class that was asked for.

    Args:
        context: What to evaluate.
        make: Makes pictures.
        count: How many.
    """
    processor = context.processor
    prompts: list[Any] = list(processor.labels) or [""]
    train = list(context.examples("train"))
    held_out = list(context.examples(context.held_out))
    # As many made as real ones: distances of unequal numbers do not compare.
    each = max(2, min(count, len(train), len(held_out)) // len(prompts))
    real = _choose(held_out, prompts, each, context.seed)
    known = _choose(train, prompts, each, context.seed)
    # A class may have fewer held-out pictures than that, and then the others as few.
    each = min(len(part) for part in (*real, *known))
    context.progress(f"making {each * len(prompts):,} pictures")
    rows = make(prompts, each)
    look = _Judge(context)
    own = made_pixels(torch.cat(rows), context)
    pixels = {
        "made": own,
        "training": read_pixels([one for part in known for one in part[:each]], context),
        "normal": _draw_normal(train, prompts, each, context),
    }
    true = read_pixels([one for part in real for one in part[:each]], context)
    classes = np.repeat(np.arange(len(prompts)), each)
    metrics, table = _compare(pixels, true, classes, look)
    if look.knows(prompts):
        asked = [as_category(prompt) for prompt in prompts for _ in range(each)]
        metrics["class_agreement_accuracy"] = look.accuracy(own, asked)
        metrics["judge_accuracy"] = look.accuracy(true, asked)
    # A few of each class, as a person would look at them.
    shown = [row[: max(1, SHOWN // len(prompts))] for row in rows]
    asked = [str(prompt) for prompt, row in zip(prompts, shown, strict=True) for _ in row]
    part = torch.cat(shown)
    copies, found, figure = look_for_copies(context, part, asked, true, train)
    sheet = Figure(
        "sheet",
        "Pictures that it made",
        {"picture": data_uri(arrange([as_bytes(row[:8], processor) for row in rows[:20]]))},
        f"A row for each of: {', '.join(map(str, prompts[:20]))}" if processor.labels else "",
    )
    return Evaluation(metrics | copies, [table, found], [sheet, figure])


def _compare(
    pixels: Mapping[str, Tensor], true: Tensor, classes: NDArray[np.int64], look: _Judge
) -> tuple[dict[str, float], Table]:
    """Return how far pictures of each origin are from true ones, as metrics and as a table."""
    real = look.features(true)
    metrics = {"compared_pictures": float(len(real))}
    columns = []
    for origin, part in pixels.items():
        features = look.features(part)
        # What stands for a classifier trained on these: it has nothing to be tuned.
        # The nearest neighbour has no settings that could favour one of the three.
        neighbours, _ = nearest(real, features)
        found = {
            "frechet_distance": frechet_distance(features, real),
            "same_kind_share": same_kind_share(features, real),
            "nearest_neighbour_accuracy": float((classes[neighbours] == classes).mean()),
        }
        columns.append(found)
        prefix = {"made": "", "training": "training_", "normal": "baseline_"}[origin]
        metrics |= {f"{prefix}{name}": value for name, value in found.items()}
    words = {
        "frechet_distance": "Fréchet distance from held-out pictures",
        "same_kind_share": "share whose nearest neighbour is of its own kind",
        "nearest_neighbour_accuracy": "held-out pictures whose class the nearest of these has",
    }
    table = Table(
        "What is made, next to real pictures",
        ("measure", "made", "training pictures", "normal distributions"),
        [(words[name], *(round(each[name], 4) for each in columns)) for name in words],
        f"By {look.name}, of {len(real):,} pictures of each. One half of the share says that two"
        " kinds cannot be told apart. Normal distributions have the mean and covariance of each"
        " class's training pixels.",
    )
    return metrics, table


def _draw_normal(
    train: Sequence[Example], prompts: Sequence[Any], each: int, context: EvaluationContext
) -> Tensor:
    """Return pictures (N, C, H, W) drawn from the normal distribution of each class's pixels."""
    drawn = torch.Generator().manual_seed(seeding.key(context.seed, "normal pictures"))
    found = []
    for part in _choose(train, prompts, _FITTED, context.seed):
        pixels = read_pixels(part, context)
        mean = pixels.mean(0)
        # Sums of examples with normal weights have their covariance, which is never computed.
        weights = torch.randn(each, len(pixels), generator=drawn) / max(len(pixels) - 1, 1) ** 0.5
        found.append(mean + torch.einsum("kn,nchw->kchw", weights, pixels - mean))
    return torch.cat(found).clamp(0, 1)


def _choose(
    examples: Sequence[Example], prompts: Sequence[Any], each: int, seed: int
) -> list[list[Example]]:
    """Return up to so many examples of each class, drawn by key."""
    order = torch.randperm(len(examples), generator=seeding.generator(seed, "compared")).tolist()
    drawn = [examples[number] for number in order]
    if list(prompts) == [""]:
        return [drawn[:each]]
    found = []
    for prompt in prompts:
        name = as_category(prompt)
        found.append([example for example in drawn if as_category(example.target) == name][:each])
    return found


class _Judge:
    """What looks at pictures: another run's classifier, or nothing but their pixels."""

    def __init__(self, context: EvaluationContext) -> None:
        self.model: Any = None
        self.name = "pixels"
        if context.judge is None:
            return
        self.model, self.processor = context.judge
        self.name = f"features of {type(self.model).__name__}"
        fits = isinstance(self.model, Features) and isinstance(self.processor.inputs, Pictures)
        if not fits or self.processor.input_shape != context.processor.input_shape:
            shape = list(context.processor.input_shape)
            raise RecipeError(
                "recipe.task.judge",
                f"is a run of {type(self.model).__name__}, but a classifier of pictures of shape"
                f" {shape} is needed, which shows its features",
                "Choose one, such as a run of resnet, convnext or vit on the same data",
            )

    def features(self, pixels: Tensor) -> Floats:
        """Return (N, D) of pictures (N, C, H, W) between 0 and 1."""
        if self.model is None:
            return pixels.flatten(1).double().numpy()
        return self._ask(pixels, self.model.features)

    def _ask(self, pixels: Tensor, call: Callable[..., Tensor]) -> Floats:
        inputs = self.processor.inputs.from_pixels(pixels)
        device = device_of(self.model)
        with evaluating(self.model):
            found = [call(part.to(device)) for part in inputs.split(_AT_ONCE)]
        return torch.cat(found).double().cpu().numpy()

    def knows(self, prompts: Sequence[Any]) -> bool:
        """Whether it can tell the classes that are asked for."""
        if self.model is None:
            return False
        own = {as_category(label) for label in self.processor.labels}
        return {as_category(prompt) for prompt in prompts} <= own

    def accuracy(self, pixels: Tensor, classes: Sequence[str]) -> float:
        """Return the share of pictures in which it sees these classes."""
        # By name: the judge may number the classes in another order.
        outputs = self._ask(pixels, self.model)
        names = [as_category(label) for label in self.processor.labels]
        seen = [names[number] for number in outputs.argmax(1).tolist()]
        return float(np.mean([one == other for one, other in zip(seen, classes, strict=True)]))


def look_for_copies(
    context: EvaluationContext,
    made: Tensor,
    asked: Sequence[str],
    real: Tensor,
    examples: Sequence[Example],
) -> tuple[dict[str, float], Table, Figure]:
    """Return how many of the shown pictures are copies, and each next to its nearest training
    picture.

    Args:
        context: What is evaluated.
        made: (N, C, H, W), as the model makes them.
        asked: What each was asked for.
        real: (M, C, H, W) held-out pictures, between 0 and 1.
        examples: The training split.
    """
    processor = context.processor
    context.progress(f"looking for {len(made)} pictures in the training split")
    train = read_pixels(examples, context)
    flat = [part.flatten(1).numpy() for part in (made_pixels(made, context), train)]
    places, distances = nearest(flat[0], flat[1])
    _, usual = nearest(real.flatten(1).numpy(), flat[1])
    limit = float(np.quantile(usual, _COPY))
    # By the data's own measure: held-out pictures are no copies, however near they are.
    copied = distances < limit
    shown = as_bytes(made, processor)
    known = as_bytes(processor.inputs.from_pixels(train[places]), processor)
    items = [
        {
            "name": examples[place].origin or examples[place].name,
            "label": f"{asked[number]} {distances[number]:.3f}",
            "marked": bool(copied[number]),
            "picture": data_uri(arrange([[shown[number], known[number]]])),
        }
        for number, place in enumerate(places.tolist())
    ]
    note = (
        f"A copy is nearer to a training picture than {limit:.3f}, as {_COPY:.0%} of the held-out"
        " pictures are: the root of the mean squared difference of pixels between 0 and 1."
    )
    table = Table(
        "Nearest training pictures",
        ("asked for", "nearest", "distance", "copy"),
        [
            (asked[n], item["name"], round(float(distances[n]), 4), "copy" if copied[n] else "")
            for n, item in enumerate(items)
        ],
        note,
        printed=False,
    )
    figure = Figure("pairs", "Made, and the nearest training picture", {"items": items}, note)
    metrics = {
        "shown_pictures": float(len(asked)),
        "copied_pictures": float(copied.sum()),
        "copy_limit": limit,
        "nearest_training_distance": float(np.median(distances)),
        "nearest_training_distance_of_held_out": float(np.median(usual)),
    }
    return metrics, table, figure


def read_pixels(examples: Sequence[Example], context: EvaluationContext) -> Tensor:
    """Return pictures (N, C, H, W) between 0 and 1, as the run reads them."""
    encoded = context.processor.encode_inputs([example.inputs for example in examples])
    return made_pixels(encoded["inputs"], context)


def made_pixels(pictures: Tensor, context: EvaluationContext) -> Tensor:
    """Return pictures (N, C, H, W) between 0 and 1, of what a model made."""
    reader = pictures_of(context.processor)
    return reader.to_pixels(pictures.float().cpu()).clamp(0, 1)
