"""Recommend items to users by what all of them did, or predict how they would rate them.

Shape legend: B examples, T positions, N items, M candidates, K drawn items.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contracts.data import Partners, Views
from groundup.contracts.recommendation import HasSquaredNorms, ReadsCatalogue, Recommender
from groundup.contracts.tasks import EvaluationContext, Objective, Task
from groundup.core.errors import RecipeError
from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.core.values import IGNORED, Batch, Evaluation, Example, Loss, Term
from groundup.processors.interactions import InteractionsProcessor
from groundup.tasks.recommend.evaluation import evaluate_lists, measure_lists, training_rows
from groundup.tasks.recommend.losses import (
    bpr_losses,
    rating_errors,
    sampled_softmax_losses,
    softmax_losses,
)
from groundup.tasks.recommend.prediction import as_columns, in_lines, recommend
from groundup.tasks.recommend.ratings import evaluate_ratings
from groundup.tasks.recommend.rows import draw_items, draw_window, encode_examples, hide_items
from groundup.tasks.recommend.transitions import MOST_ITEMS

__all__ = ["Recommend"]

Samples = NDArray[np.int64]
_DRAWS = {"objective": ("sampled_softmax", "bpr")}
_LISTS = {"objective": ("softmax", "sampled_softmax", "bpr")}


@task("recommend")
class Recommend(Task):
    """Learn what users choose, among all items or next to drawn ones; or how they rate it."""

    unit: ClassVar[str] = "interactions"
    file_source: ClassVar[str] = "interactions"
    list_options: ClassVar[tuple[str, ...]] = ("k",)
    default_settings: ClassVar[Mapping[str, Any]] = {"optim.weight_decay": 0.0}

    objective: Literal["softmax", "sampled_softmax", "bpr", "ratings"] = setting(
        "softmax",
        "softmax over all items; over drawn ones, corrected for how they are drawn; bpr: what was"
        " chosen before a drawn one; ratings: squared error of the rating",
    )
    drawn_items: int = setting(
        100,
        "Items drawn for each example, with which what was chosen is compared",
        ge=1,
        applies_when=_DRAWS,
    )
    popularity_power: float = setting(
        0.0,
        "Of how often items were chosen, by which they are drawn: 0 all alike, 1 as often",
        ge=0.0,
        applies_when=_DRAWS,
    )
    horizon: int = setting(
        1,
        "Of histories: how many of the next items are predicted at each position, the nearer ones"
        " counting more",
        ge=1,
        applies_when={"objective": ("softmax",), "hidden_share": (0.0,)},
    )
    hidden_share: float = setting(
        0.0,
        "Share of a history's items that is hidden and predicted, as in BERT4Rec; 0: the next item"
        " is predicted",
        ge=0.0,
        lt=1.0,
        applies_when=_LISTS,
    )
    max_history: int = setting(
        50, "Items of a history, or of a user's row, that are read at most: the latest", ge=1
    )
    windows: Literal["last", "random"] = setting(
        "last",
        "Of longer histories training reads the last max_history items, or any part, another each"
        " time",
    )
    shuffle_ties: bool = setting(
        False,
        "Of histories: what happened at one time is read in another order each time in training",
    )
    half_life: float | None = setting(
        None,
        "In training, an interaction counts half as much for each so many days before the last one"
        " of training; null: all count alike",
        gt=0.0,
    )
    l2: float = setting(
        0.0,
        "Of matrix_factorization: weight of the squared vectors and biases of each example",
        ge=0.0,
    )
    transition_share: float = setting(
        0.0,
        "How much of the logarithm of an item's probability is that of what followed such a history"
        " in training, by counts, and not the model's; 0: the model alone",
        ge=0.0,
        lt=1.0,
        applies_when=_LISTS,
    )
    mask_seen: bool = setting(
        True, "Leave out what a user has seen from lists, where they are evaluated and predicted"
    )
    k: int = setting(10, "How long lists are", ge=1)
    measured: int = setting(
        1000, "Held-out users on whose lists each validation is measured; 0: the loss alone", ge=0
    )

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read."""
        spec = {
            "users": "int64 (B)",
            "numbers": "float32 (B, I)",
            "categories": "int64 (B, K)",
            "tokens": "int64 (B, T)",
            "next_tokens": "int64 (B, T)",
            "lengths": "int64 (B)",
            "trained_items": "int64 (B)",
        }
        if self.objective == "ratings":
            spec["ratings"] = "float32 (B, T)"
        if self.half_life is not None:
            spec["weights"] = "float32 (B, T)"
        if self.augments_held_out:
            spec |= {"drawn": "int64 (B, M)", "log_expected": "float32 (B, M)"}
        return spec

    def fit_processor(
        self, processor: Any, examples: Callable[[], Iterator[Example]]
    ) -> InteractionsProcessor:
        """Return the processor, which reads histories as long as this task says.

        Raises:
            RecipeError: If it knows no users and items, or there are no ratings to predict, or no
                times to weigh by, or too many items to count what follows what.
        """
        if not isinstance(processor, InteractionsProcessor):
            raise RecipeError(
                "recipe.processor",
                "knows no users and items, which are recommended",
                "Set processor: interactions",
            )
        if self.objective == "ratings" and processor.ratings is None:
            raise RecipeError(
                "recipe.task.objective",
                "is ratings, but the data has none",
                "Name their column: data.rating, or set softmax",
            )
        if self.half_life is not None and processor.latest is None:
            raise RecipeError(
                "recipe.task.half_life",
                f"is {self.half_life:g} days, but the data has no times",
                "Name their column: data.time, or remove it",
            )
        found = processor.with_max_history(self.max_history)
        if not self.transition_share:
            return found
        if len(processor.items) > MOST_ITEMS:
            raise RecipeError(
                "recipe.task.transition_share",
                f"counts all pairs of {len(processor.items):,} items; allowed: {MOST_ITEMS:,}",
                "Remove it, or set data.min_item_interactions",
            )
        return found.with_rows(training_rows(examples(), processor))

    def check_model(self, model: nn.Module, processor: InteractionsProcessor) -> None:
        """Check that the model scores items, in the way that this task learns.

        Raises:
            RecipeError: If it does not, or a setting is for models of another kind.
        """
        if not isinstance(model, Recommender):
            raise RecipeError(
                "recipe.model",
                f"{type(model).__name__} scores no items, as task recommend needs it",
                "Use matrix_factorization, two_tower or sequence_recommender",
            )
        name = type(model).__name__
        if model.hides_items != bool(self.hidden_share):
            remedy = "Set 0.2" if model.hides_items else "Remove it, or set model.attention: masked"
            problem = f"is {self.hidden_share:g}, but {name} predicts what is"
            raise RecipeError(
                "recipe.task.hidden_share",
                f"{problem} {'hidden' if model.hides_items else 'next'}",
                remedy,
            )
        # Elsewhere nothing would show that they do nothing.
        for key in ("horizon", "shuffle_ties"):
            if dict(self)[key] != type(self).model_fields[key].default and not model.reads_order:
                problem = f"has no effect: {name} reads no order"
                raise RecipeError(f"recipe.task.{key}", problem, "Remove it")
        if self.l2 and not isinstance(model, HasSquaredNorms):
            problem = f"has no effect: {name} is no matrix factorization"
            raise RecipeError("recipe.task.l2", problem, "Set optim.weight_decay")

    def add_parameters(self, model: nn.Module, processor: InteractionsProcessor) -> None:
        """Let the model read the columns of all items; nothing is added."""
        if isinstance(model, ReadsCatalogue):
            # Not in forward: they are the same in every step.
            columns = processor.item_columns()
            model.read_catalogue(columns["numbers"], columns["categories"])

    # ------------------------------------------------------------------------------------ training
    def encode(self, examples: Sequence[Example], processor: InteractionsProcessor) -> Batch:
        """Return what is read and predicted of each example; see ``encode_examples``."""
        return encode_examples(
            examples,
            processor,
            hides=self.hidden_share > 0,
            rated=self.objective == "ratings",
            half_life=self.half_life,
        )

    def views(self, seed: int) -> Views | None:
        """Return what takes another part of a long history, or in another order, each time."""
        # Encoded once and kept, where each example is the same every time.
        if self.windows == "last" and not self.shuffle_ties:
            return None
        # The encoding cuts what is beyond, from the front.
        longest = self.max_history if self.windows == "random" else sys.maxsize
        return _Windows(seed, longest, shuffle_ties=self.shuffle_ties)

    @property
    def augments(self) -> bool:
        """Whether items are hidden or drawn."""
        return self.hidden_share > 0 or self.objective in _DRAWS["objective"]

    @property
    def augments_held_out(self) -> bool:
        """Items are drawn for held-out examples too; what is hidden of them is the last one."""
        return self.objective in _DRAWS["objective"]

    def augment(
        self,
        batch: Batch,
        samples: Samples,
        partners: Partners,
        processor: InteractionsProcessor,
        seed: int,
    ) -> Batch:
        """Return the batch with items hidden or drawn, by the samples' numbers."""
        if self.hidden_share and seed >= 0:
            hidden = len(processor.items) + 1
            batch = hide_items(batch, samples, seed, self.hidden_share, hidden)
        if self.objective in _DRAWS["objective"]:
            # Keyed by the sample: the same however a step is cut into micro-batches.
            power = self.popularity_power
            batch = batch | draw_items(processor, samples, seed, self.drawn_items, power)
        return batch

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return what the model reads, and the items to score where these are not all."""
        names = ("users", "tokens", "lengths", "numbers", "categories")
        found = {name: batch[name] for name in names}
        if self.objective == "ratings":
            found["candidates"] = batch["next_tokens"].clamp(min=0)
        elif "drawn" in batch:
            found["candidates"] = torch.cat([batch["next_tokens"].clamp(min=0), batch["drawn"]], 1)
        return found

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return the sum of what each choice costs."""
        there = batch["next_tokens"] != IGNORED
        if self.objective == "ratings":
            # In the units of ratings, from their mean.
            errors = rating_errors(outputs, batch)
            losses = errors**2
            watched = {"absolute": errors.detach().abs().sum()}
        else:
            watched = {}
            if self.objective == "softmax":
                losses = softmax_losses(outputs, batch, self.horizon)
            elif self.objective == "bpr":
                losses = bpr_losses(outputs, batch)
            else:
                losses = sampled_softmax_losses(outputs, batch)
        # An item that training has not seen costs infinitely much: it is left out and counted.
        finite = there & losses.isfinite()
        counted = finite.float()
        # Validations count all alike: they are of the time that is predicted.
        if "weights" in batch and torch.is_grad_enabled():
            counted = counted * batch["weights"]
        total = (torch.where(finite, losses, 0.0) * counted).sum()
        if not torch.is_grad_enabled():
            watched["without_score"] = (there & ~finite).sum().float()
        return Loss({"choice": Term(total, counted.sum())}, watched)

    def build_objective(self, model: nn.Module, processor: Any) -> Objective:
        """Return the loss, with the squares of what it is about where ``l2`` is set."""
        if not self.l2:
            return self.loss
        own = cast(HasSquaredNorms, model)

        def objective(outputs: Tensor, batch: Batch) -> Loss:
            found = self.loss(outputs, batch)
            # Validations compare what is predicted, not how large vectors are.
            if not torch.is_grad_enabled():
                return found
            squares = own.squared_norms(batch["users"], batch["next_tokens"].clamp(min=0))
            term = found.terms["choice"]
            total = term.total + self.l2 * squares
            return Loss({"choice": Term(total, term.count)}, found.metrics)

        return objective

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return the mean loss of a choice; of ratings the errors in stars."""
        total, count = sums["choice"]
        count = max(count, 1.0)
        found = {"loss": total / count}
        if "absolute" in sums:
            found |= {"rmse": math.sqrt(total / count), "mae": sums["absolute"][0] / count}
        if sums.get("without_score", (0.0, 0.0))[0]:
            found["choices_without_score"] = sums["without_score"][0]
        return found

    # --------------------------------------------------------------------------------- predictions
    def predict(
        self, model: nn.Module, inputs: Any, processor: InteractionsProcessor, **options: Any
    ) -> Any:
        """Return the items with the highest scores for a user, or for each of a list of users: a
        list of ``{"item", "title", "score", "because"}``, the best first.

        What the user has seen is left out unless the task says otherwise. ``because`` names what
        they did that is nearest to the item. A question with ``item`` is answered by the rating.

        Args:
            model: The trained model.
            inputs: A user's id; or a dictionary, or its JSON, with ``user``, ``history`` and
                columns; or a list of them.
            processor: The run's.
            **options: ``k``, how many items, in place of the task's.

        Raises:
            DataError: If nothing is known of a user.
        """
        several = isinstance(inputs, list | tuple)
        asked = list(inputs) if several else [inputs]
        found = recommend(self, model, asked, processor, int(options.get("k", self.k)))
        return found if several else found[0]

    def tabulate(
        self, model: nn.Module, inputs: Sequence[Any], processor: Any, **options: Any
    ) -> list[dict[str, Any]]:
        """Return the items of each user, their titles and scores, the best first; or the rating."""
        found = self.predict(model, list(inputs), processor, **options)
        return [as_columns(each) for each in found]

    def in_lines(self, predicted: Any) -> list[str]:
        """Return a prediction in lines for people."""
        return in_lines(predicted)

    def measure(
        self, model: nn.Module, examples: Sequence[Example], processor: Any
    ) -> dict[str, float]:
        """Return the measures of lists on held-out users; of ratings nothing more than the loss."""
        # Of ratings the loss says all.
        if self.objective == "ratings":
            return {}
        return measure_lists(self, model, examples, processor)

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Evaluate a model on the held-out users; see ``evaluate_lists`` and
        ``evaluate_ratings``."""
        if self.objective == "ratings":
            return evaluate_ratings(context)
        return evaluate_lists(self, context)


class _Windows:
    """Another part of each user's history for each sample."""

    def __init__(self, seed: int, longest: int, *, shuffle_ties: bool) -> None:
        self._seed = seed
        self._longest = longest
        self._shuffle_ties = shuffle_ties

    def __call__(self, examples: Sequence[Any], samples: Samples, role: str) -> Sequence[Example]:
        return [
            draw_window(e, n, self._longest, self._seed, shuffle_ties=self._shuffle_ties)
            for e, n in zip(examples, samples.tolist(), strict=True)
        ]
