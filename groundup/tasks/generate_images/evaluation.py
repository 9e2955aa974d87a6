"""Pictures that a model made, next to real ones.

Legend: N pictures, D features of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.contracts.classifier_models import Features
from groundup.contracts.tasks import EvaluationContext
from groundup.core import seeding
from groundup.core.errors import RecipeError
from groundup.core.values import Evaluation, Example, Figure, Table
from groundup.media.png import data_uri
from groundup.media.table_values import as_category
from groundup.metrics.frechet import frechet_distance, nearest, same_kind_share
from groundup.tasks.generate_images.sheets import arrange, as_bytes
from groundup.tasks.shared.model_outputs import model_outputs

__all__ = ["Make", "evaluate_generator"]

Make = Callable[[Sequence[Any], int], list[Tensor]]
"""Makes so many pictures (count, C, H, W) for each prompt."""

Floats = NDArray[np.float64]
_SHOWN = 24  # pictures that are looked for in the training split
# A made picture is a copy where it is nearer to a training picture than this share of the held-out
# pictures is to theirs.
_COPY = 0.01


def evaluate_generator(context: EvaluationContext, make: Make, count: int) -> Evaluation:
    """Compare about ``count`` made pictures with as many real ones.

    What is compared are features of the judge, another run's classifier, or pixels where there is
    none. Each distance is next to its floor: that of as many training pictures from the same
    held-out ones. With a judge that knows the classes, also how often it sees the class that was
    asked for, and how often it is right about real pictures.

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
    each = max(1, min(count, len(train), len(held_out)) // len(prompts))
    context.progress(f"making {each * len(prompts):,} pictures")
    rows = make(prompts, each)
    made = as_bytes(torch.cat(rows), processor)
    # As many of each class, as they were asked for: else classes would be compared, not pictures.
    real = _choose(held_out, prompts, each, context.seed)
    known = _choose(train, prompts, each, context.seed)
    look = _Judge(context)
    features = [look.features(part) for part in (made, real, known)]
    metrics = {"made_pictures": float(len(made)), "real_pictures": float(len(real))}
    metrics |= _distances(*features)
    if look.knows(prompts):
        asked = [as_category(prompt) for prompt in prompts for _ in range(each)]
        metrics["class_agreement_accuracy"] = look.accuracy(made, asked)
        right = [as_category(example.target) for example in real]
        metrics["judge_accuracy"] = look.accuracy([one.inputs for one in real], right)
    shown = [row[: max(1, _SHOWN // len(prompts))] for row in rows]
    copies, found, figure = _look_for_copies(context, shown, train, real)
    metrics |= copies
    sheet = Figure(
        "sheet",
        "Pictures that it made",
        {"picture": data_uri(arrange([as_bytes(row[:8], processor) for row in rows[:20]]))},
        f"A row for each of: {', '.join(map(str, prompts[:20]))}" if processor.labels else "",
    )
    table = Table(
        "How far what is made is from real pictures",
        ("measure", "made", "as many training pictures"),
        [
            ("Fréchet distance", metrics["frechet_distance"], metrics["frechet_floor"]),
            (
                "share whose nearest neighbour is of its own kind",
                metrics["same_kind_share"],
                metrics["same_kind_share_floor"],
            ),
        ],
        f"By {look.name}, from {len(real):,} held-out pictures. One half of the share says that"
        " both cannot be told apart.",
    )
    return Evaluation(metrics, [table, found], [sheet, figure])


def _distances(made: Floats, real: Floats, known: Floats) -> dict[str, float]:
    # A class may have fewer held-out examples than were asked for.
    size = min(map(len, (made, real, known)))
    made, real, known = (part[:size] for part in (made, real, known))
    return {
        "frechet_distance": frechet_distance(made, real),
        "frechet_floor": frechet_distance(known, real),
        "same_kind_share": same_kind_share(made, real),
        "same_kind_share_floor": same_kind_share(known, real),
    }


def _choose(
    examples: Sequence[Example], prompts: Sequence[Any], each: int, seed: int
) -> list[Example]:
    """Return up to so many examples of each class, drawn by key."""
    order = torch.randperm(len(examples), generator=seeding.generator(seed, "compared")).tolist()
    drawn = [examples[number] for number in order]
    if list(prompts) == [""]:
        return drawn[:each]
    found = []
    for prompt in prompts:
        name = as_category(prompt)
        found += [example for example in drawn if as_category(example.target) == name][:each]
    return found


class _Judge:
    """What looks at pictures: another run's classifier, or nothing but their pixels."""

    def __init__(self, context: EvaluationContext) -> None:
        self.processor = context.processor
        self.model: Any = None
        self.name = "pixels"
        if context.judge is None:
            return
        self.model, self.processor = context.judge
        self.name = f"features of {type(self.model).__name__}"
        if not isinstance(self.model, Features):
            raise RecipeError(
                "recipe.task.judge",
                f"is a run of {type(self.model).__name__}, which shows no features of pictures",
                "Choose a classifier of pictures, such as resnet, convnext or vit",
            )

    def _inputs(self, pictures: Sequence[Any]) -> list[Any]:
        return [one.inputs if isinstance(one, Example) else one for one in pictures]

    def features(self, pictures: Sequence[Any]) -> Floats:
        """Return (N, D) of examples, or of pixels (H, W) or (H, W, 3)."""
        inputs = self._inputs(pictures)
        if self.model is None:
            values = self.processor.inputs.encode_inputs(inputs)["inputs"]
            return values.flatten(1).double().numpy()  # type: ignore[no-any-return]
        found = model_outputs(self.model, inputs, self.processor, self.model.features)
        return torch.cat(found).double().cpu().numpy()

    def knows(self, prompts: Sequence[Any]) -> bool:
        """Whether it can tell the classes that are asked for."""
        own = {as_category(label) for label in self.processor.labels}
        return self.model is not None and {as_category(prompt) for prompt in prompts} <= own

    def accuracy(self, pictures: Sequence[Any], classes: Sequence[str]) -> float:
        """Return the share of pictures in which it sees these classes."""
        outputs = torch.cat(model_outputs(self.model, self._inputs(pictures), self.processor))
        names = [as_category(label) for label in self.processor.labels]
        seen = [names[number] for number in outputs.argmax(1).tolist()]
        return float(np.mean([one == other for one, other in zip(seen, classes, strict=True)]))


def _look_for_copies(
    context: EvaluationContext,
    rows: Sequence[Tensor],
    train: Sequence[Example],
    real: Sequence[Example],
) -> tuple[dict[str, float], Table, Figure]:
    """Return how many of the shown pictures are copies, and each next to its nearest training
    picture."""
    processor = context.processor
    context.progress(f"looking for {sum(map(len, rows))} pictures in the training split")
    shown = torch.cat(list(rows))
    pixels = [as_bytes(shown, processor), _pixels_of(train, context), _pixels_of(real, context)]
    flat = [np.stack(part).reshape(len(part), -1) / 255.0 for part in pixels]
    places, distances = nearest(flat[0], flat[1])
    _, usual = nearest(flat[2], flat[1])
    limit = float(np.quantile(usual, _COPY))
    # By the data's own measure: held-out pictures are no copies, however near they are.
    copied = distances < limit
    prompts = [str(label) for label in processor.labels] or [""]
    asked = [prompt for prompt, row in zip(prompts, rows, strict=True) for _ in row]
    items = [
        {
            "name": train[place].origin or train[place].name,
            "label": f"{asked[number]}: {distances[number]:.3f}",
            "marked": bool(copied[number]),
            "picture": data_uri(arrange([[pixels[0][number], pixels[1][place]]])),
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
        "shown_pictures": float(len(shown)),
        "copied_pictures": float(copied.sum()),
        "copy_limit": limit,
        "nearest_training_distance": float(np.median(distances)),
        "nearest_training_distance_of_held_out": float(np.median(usual)),
    }
    return metrics, table, figure


def _pixels_of(examples: Sequence[Example], context: EvaluationContext) -> list[NDArray[np.uint8]]:
    encoded = context.processor.encode_inputs([example.inputs for example in examples])
    return as_bytes(encoded["inputs"], context.processor)
