"""Pictures made from held-out captions, looked for among the real pictures of all of them.

Legend: M captions, each of one held-out picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.contracts.models import context_length_of
from groundup.contracts.tasks import EvaluationContext
from groundup.core.errors import RecipeError
from groundup.core.values import Evaluation, Example, Figure, Table
from groundup.media.png import data_uri
from groundup.metrics.frechet import frechet_distance, same_kind_share
from groundup.processors.picture_tokens import PictureTokens
from groundup.tasks.generate_images.contact_sheet import arrange, as_bytes
from groundup.tasks.generate_images.evaluation import (
    SHOWN,
    Make,
    look_for_copies,
    made_pixels,
    read_pixels,
)
from groundup.tasks.shared.caption_retrieval import (
    Look,
    choose_captions,
    distances,
    share_found,
    shared_words,
    small,
)
from groundup.tasks.text_and_pictures.retrieval import caption_scores

__all__ = ["evaluate_by_caption"]


def evaluate_by_caption(context: EvaluationContext, make: Make, count: int) -> Evaluation:
    """Make a picture from each of up to ``count`` held-out captions, and look for the caption.

    - ``nearest_accuracy_at_1``: how often the real picture of the caption is the nearest of all M
      real ones to the made one. No model has a say in this; ``chance`` is what guessing finds;
    - ``baseline_nearest_accuracy_at_1``: the same of the training picture whose caption shares the
      most words with it, which is had without learning anything;
    - ``nearest_shared_words``: how many words the found caption shares with the one asked for;
    - with a ``judge`` that has learned to say what pictures show, a run of text_and_pictures,
      ``judge_accuracy_at_1`` of made pictures, and ``judge_real_accuracy_at_1`` of real ones.

    Args:
        context: What to evaluate.
        make: Makes pictures.
        count: Of how many captions, at most.
    """
    train = list(context.examples("train"))
    look = choose_captions(list(context.examples(context.held_out)), count, context.seed)
    captions = look.captions
    context.progress(f"making pictures from {len(captions):,} captions")
    made = torch.cat(make(captions, 1))
    pixels = made_pixels(made, context)
    real = read_pixels(look.examples, context)
    # Every caption has one real picture, so guessing finds one of so many.
    chance = 1 / len(captions)
    scores = -distances(pixels, real)
    found = [captions[place] for place in scores.argmax(1).tolist()]
    metrics = {
        "captions": float(len(captions)),
        "chance": chance,
        "nearest_accuracy_at_1": share_found(scores, look.wanted),
        "nearest_shared_words": float(np.mean(list(map(shared_words, captions, found)))),
    }
    rows: list[tuple[str | float | int | None, ...]] = [("guessing", chance, 1.0)]

    def add(words: str, name: str, share: float) -> None:
        metrics[name] = share
        rows.append((words, round(share, 4), round(share / chance, 1)))

    # What a user could do without a model: take the most similar picture that is there already.
    near = read_pixels([_nearest_by_words(caption, train) for caption in captions], context)
    baseline = share_found(-distances(near, real), look.wanted)
    add(
        "training picture whose caption shares the most words: nearest real picture",
        "baseline_nearest_accuracy_at_1",
        baseline,
    )
    nearest = metrics["nearest_accuracy_at_1"]
    add("made: nearest real picture", "nearest_accuracy_at_1", nearest)
    for words, name, part in (
        ("made: the judge's likeliest caption", "judge_accuracy_at_1", pixels),
        ("real: the judge's likeliest caption", "judge_real_accuracy_at_1", real),
    ):
        if context.judge is not None:
            add(words, name, share_found(_judge(context, part, captions), look.wanted))
    table = Table(
        "Captions found for what was made from them",
        ("pictures, and how the caption is found", "right", "x chance"),
        rows,
        f"Of {len(captions):,} different captions of held-out pictures.",
    )
    # As many of each: distances of unequal numbers do not compare.
    known = read_pixels(train[: len(captions)], context)
    metrics |= _compare(pixels, known, real)
    # A person looks at a few.
    shown = slice(0, SHOWN)
    copies, nearby, figure = look_for_copies(context, made[shown], captions[shown], real, train)
    tables = [table, _list(captions, found), nearby]
    return Evaluation(metrics | copies, tables, [_show(context, made[shown], look), figure])


def _nearest_by_words(caption: str, train: Sequence[Example]) -> Example:
    """Return the training example whose caption shares the most words with one."""
    return max(train, key=lambda example: shared_words(caption, str(example.target)))


def _judge(
    context: EvaluationContext, pixels: Tensor, captions: Sequence[str]
) -> NDArray[np.float64]:
    """Return how likely another run finds each caption after each picture.

    Raises:
        RecipeError: If it has not learned to say what pictures show.
    """
    assert context.judge is not None
    model, processor = context.judge
    if not isinstance(processor, PictureTokens):
        raise RecipeError(
            "recipe.task.judge",
            f"is a run of {type(model).__name__}, but with condition: text one is needed that says"
            " what a picture shows",
            "Choose a run of task text_and_pictures on the same data, or none",
        )
    context.progress("asking the judge for captions")
    # The judge reads pictures by a processor of its own, which may want another size.
    whole = (pixels * 255).round().byte().permute(0, 2, 3, 1).numpy()
    pictures: list[Any] = [each[:, :, 0] if each.shape[2] == 1 else each for each in whole]
    codes = processor.encode_pictures(pictures)
    decoder: Any = model
    # What begins both and the codes take their part of its context.
    room = context_length_of(decoder.config) - processor.picture_length - 2
    return caption_scores(model, codes, captions, processor, room)


def _compare(made: Tensor, known: Tensor, real: Tensor) -> dict[str, float]:
    """Return how far made pictures, and training pictures, are from as many held-out ones."""
    count = min(len(made), len(known))
    metrics = {}
    if count > 1:
        held_out = small(real[:count]).numpy()
        for prefix, part in (("", made), ("training_", known)):
            features = small(part[:count]).numpy()
            metrics[f"{prefix}frechet_distance"] = frechet_distance(features, held_out)
            metrics[f"{prefix}same_kind_share"] = same_kind_share(features, held_out)
    return metrics


def _list(captions: Sequence[str], found: Sequence[str]) -> Table:
    rows: list[tuple[str | float | int | None, ...]] = [
        (caption, other, "" if caption == other else "another")
        for caption, other in zip(captions, found, strict=True)
    ]
    columns = ("asked for", "caption of the nearest real picture", "found")
    return Table("What was asked for and what was made", columns, rows, printed=False)


def _show(context: EvaluationContext, made: Tensor, look: Look) -> Figure:
    """Return made pictures, each next to the real one of its caption."""
    processor = context.processor
    own = as_bytes(made, processor)
    real = as_bytes(
        processor.encode_inputs([e.inputs for e in look.examples[: len(own)]])["inputs"], processor
    )
    items = [
        {
            "name": caption,
            "label": caption,
            "marked": False,
            "picture": data_uri(arrange([[one, other]])),
        }
        for caption, one, other in zip(look.captions, own, real, strict=False)
    ]
    note = "From captions that no training picture has, as far as splits keep them apart."
    return Figure("pairs", "Made, and the real picture of the caption", {"items": items}, note)
