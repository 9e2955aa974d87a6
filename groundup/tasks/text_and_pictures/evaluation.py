"""How well captions and pictures belong together: captions found for pictures, and pictures drawn
from captions.

Legend: N held-out examples, M different captions of theirs, P codes of a picture, D numbers of a
    picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contracts.tasks import EvaluationContext, Picture
from groundup.core.values import Evaluation, Example, Figure, Table
from groundup.media.png import data_uri
from groundup.processors.picture_tokens import PictureTokens
from groundup.tasks.shared.caption_retrieval import (
    Look,
    choose_captions,
    distances,
    share_found,
    shared_words,
)
from groundup.tasks.text_and_pictures.retrieval import caption_scores

__all__ = ["DrawsAndCaptions", "evaluate_both"]

_SHOWN = 12
_GAP = 2  # columns of white between two pictures
_COPY = 30.0  # dB from which a drawn picture is called a copy
_TRAINED = 4000  # training pictures that drawn ones are compared with


class DrawsAndCaptions(Protocol):
    """The task, as far as it is evaluated."""

    @property
    def directions(self) -> str: ...

    @property
    def max_caption_tokens(self) -> int: ...

    @property
    def candidates(self) -> int: ...

    def predict(
        self, model: nn.Module, inputs: Any, processor: PictureTokens, **options: Any
    ) -> Any: ...


def evaluate_both(task: DrawsAndCaptions, context: EvaluationContext) -> Evaluation:
    """Look for each held-out picture's caption among the captions of all that are looked at.

    ``candidates`` of the held-out examples are drawn by key, each with another caption. ``chance``
    is what guessing finds. Then, as far as the run has learned both directions:

    - ``caption_accuracy_at_1`` and ``..._at_5``: how often a picture's own caption is the likeliest
      after it, or among the five likeliest;
    - ``baseline_nearest_accuracy_at_1``: what the nearest training picture finds, by the words that
      its caption has in common with each;
    - ``drawn_accuracy_at_1``: how often the caption that a picture was drawn from is the likeliest
      after that picture: evaluated by the model itself;
    - ``drawn_nearest_accuracy_at_1``: how often the real picture of that caption is the nearest, of
      all real pictures, to the drawn one. No model has a say in this;
    - ``copies``: the share of drawn pictures nearer than 30 dB PSNR to a training picture.
    """
    processor: PictureTokens = context.processor
    look = choose_captions(list(context.examples(context.held_out)), task.candidates, context.seed)
    chance = 1 / len(look.captions)
    metrics = {"held_out_pictures": float(len(look.examples)), "chance": chance}
    codes = processor.encode_pictures([example.inputs for example in look.examples])
    real = _pixels(processor.draw(codes))
    trained = list(context.examples("train"))
    rows: list[tuple[Any, ...]] = [("guessing", chance, 1.0)]
    tables: list[Table] = []
    figures: list[Figure] = []

    def found(name: str, words: str, share: float) -> None:
        metrics[name] = share
        rows.append((words, share, share / chance))

    if trained:
        context.progress("looking for captions by the nearest training pictures")
        near = _by_nearest(look, trained, processor)
        found("baseline_nearest_accuracy_at_1", "real: nearest training picture", near)
    if task.directions != "to_picture":
        context.progress(f"scoring {len(look.captions)} captions of {len(codes)} pictures")
        scores = _scores(task, context.model, codes, look, processor)
        found("caption_accuracy_at_1", "real: likeliest caption", share_found(scores, look.wanted))
        metrics["caption_accuracy_at_5"] = _among_best(scores, look.wanted, 5)
        tables.append(_mistakes(task, context.model, look, processor, scores))
    if task.directions != "to_caption":
        context.progress(f"drawing {len(look.captions)} pictures")
        drawn: list[Picture] = task.predict(
            context.model, look.captions, processor, seed=context.seed
        )
        pixels = _pixels(np.stack([each.pixels for each in drawn]))
        # By caption, where the real pictures are by example.
        own = [look.wanted.index(number) for number in range(len(look.captions))]
        near = share_found(-distances(pixels, real[own]), range(len(own)))
        found("drawn_nearest_accuracy_at_1", "drawn: nearest real picture", near)
        if task.directions == "both":
            again = processor.encode_pictures([each.pixels for each in drawn])
            scores = _scores(task, context.model, again, look, processor)
            share = share_found(scores, range(len(look.captions)))
            found("drawn_accuracy_at_1", "drawn: likeliest caption", share)
        if trained:
            chosen = trained[:_TRAINED]
            known = _pixels(processor.draw(processor.encode_pictures([e.inputs for e in chosen])))
            copies, figure = _compare_with_training(look, drawn, pixels, known)
            metrics["copies"] = copies
            figures.append(figure)
    title = "Captions found for pictures"
    note = f"Of {len(look.captions)} different captions of held-out pictures."
    table = Table(title, ("pictures, and how a caption is found", "right", "x chance"), rows, note)
    return Evaluation(metrics, [table, *tables], figures)


def _scores(
    task: DrawsAndCaptions,
    model: nn.Module,
    codes: Tensor,
    look: Look,
    processor: PictureTokens,
) -> NDArray[np.float64]:
    return caption_scores(model, codes, look.captions, processor, task.max_caption_tokens)


def _among_best(scores: NDArray[np.float64], wanted: Sequence[int], count: int) -> float:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return float(np.mean([number in row for number, row in zip(wanted, order, strict=True)]))


# -------------------------------------------------------------------------------- pictures by sight
def _pixels(pictures: NDArray[np.uint8]) -> Tensor:
    """Return (N, C, H, W) of 0 to 1."""
    found = torch.from_numpy(pictures).float() / 255
    return found[:, None] if found.dim() == 3 else found.permute(0, 3, 1, 2)


def _by_nearest(look: Look, trained: Sequence[Example], processor: PictureTokens) -> float:
    """Return how often the words of the nearest training picture's caption find a picture's own."""
    chosen = trained[:_TRAINED]
    known, real = (
        _pixels(processor.draw(processor.encode_pictures([e.inputs for e in each])))
        for each in (chosen, look.examples)
    )
    # As codes draw them: a baseline with sharper pictures than the model's would be another test.
    nearest = distances(real, known).argmin(1)
    scores = np.array(
        [
            [shared_words(str(chosen[place].target), caption) for caption in look.captions]
            for place in nearest.tolist()
        ]
    )
    return share_found(scores, look.wanted)


def _compare_with_training(
    look: Look, drawn: Sequence[Picture], pixels: Tensor, known: Tensor
) -> tuple[float, Figure]:
    """Return the share of drawn pictures that are copies, and drawn pictures each next to its
    nearest training picture."""
    # Pixel by pixel: whoever is near by sight alone is no copy.
    squared = torch.cdist(pixels.flatten(1).double(), known.flatten(1).double()).square()
    best = squared.min(1)
    decibels = -10 * (best.values / pixels[0].numel()).clamp(min=1e-10).log10()
    items = []
    for number in range(min(_SHOWN, len(drawn))):
        picture = drawn[number].pixels
        other = (known[best.indices[number]].permute(1, 2, 0).numpy() * 255).round()
        other = other.astype(np.uint8).reshape(picture.shape)
        gap = np.full((picture.shape[0], _GAP, *picture.shape[2:]), 255, np.uint8)
        copied = bool(decibels[number] > _COPY)
        caption = look.captions[number]
        # Said where it is seen: a copied picture is no drawn one.
        if copied:
            caption = f"{caption} (a copy)"
        items.append(
            {
                "name": look.captions[number],
                "picture": data_uri(np.concatenate([picture, gap, other], 1)),
                "label": caption,
                "marked": copied,
            }
        )
    note = "Each next to the training picture that it is nearest to, both drawn from codes."
    figure = Figure("pairs", "Drawn from held-out captions", {"items": items}, note)
    return float((decibels > _COPY).double().mean()), figure


def _mistakes(
    task: DrawsAndCaptions,
    model: nn.Module,
    look: Look,
    processor: PictureTokens,
    scores: NDArray[np.float64],
) -> Table:
    """Return what is written about the first pictures, and the likeliest of their captions."""
    chosen = look.examples[:_SHOWN]
    # Arrays and files alike are pictures here; a text would be taken for a caption.
    pictures = list(processor.draw(processor.encode_pictures([e.inputs for e in chosen])))
    written = task.predict(model, pictures, processor)
    rows: list[tuple[Any, ...]] = [
        (look.captions[number], look.captions[int(best)], words)
        for number, best, words in zip(
            look.wanted, scores.argmax(1).tolist(), written, strict=False
        )
    ]
    columns = ("caption", "likeliest of all", "written")
    return Table("Captions of held-out pictures", columns, rows[:_SHOWN], printed=False)
