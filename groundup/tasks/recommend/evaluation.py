"""Evaluating a recommender on all items, next to what recommends without a model.

Legend: U users, N items, K how long a list is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contracts.recommendation import NOBODY
from groundup.contracts.tasks import EvaluationContext
from groundup.core.values import Evaluation, Example, Table
from groundup.metrics.ranking import Ranked, coverage, interval, mean_popularity, rank_chosen
from groundup.processors.interactions import InteractionsProcessor
from groundup.tasks.recommend.baselines import SimpleMethods
from groundup.tasks.recommend.scoring import AT_ONCE, model_scores

__all__ = ["Recommends", "evaluate_lists", "measure_lists", "training_rows"]

Numbers = NDArray[np.int64]
# One is what a user meets, the other what is published most.
_WAYS = (True, False)  # with what was seen left out, and with it


class Recommends(Protocol):
    """The task, as far as it is evaluated."""

    @property
    def k(self) -> int: ...

    @property
    def mask_seen(self) -> bool: ...

    @property
    def transition_share(self) -> float: ...


class _Scored:
    """What one method ranks, with and without what was seen."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts: dict[bool, list[Ranked]] = {way: [] for way in _WAYS}
        self.lists: dict[bool, list[Numbers]] = {way: [] for way in _WAYS}

    def ranked(self, way: bool) -> Ranked:
        """Return what was found for all users."""
        names = ("hit_rate", "ndcg", "recall", "reciprocal")
        parts = [vars(part) for part in self.parts[way]]
        return Ranked(*(np.concatenate([part[name] for part in parts]) for name in names))


def evaluate_lists(task: Recommends, context: EvaluationContext) -> Evaluation:
    """Rank all items for each held-out user, and look for what they chose next.

    Metrics without a suffix are with what a user has seen left out of the ranking, unless the task
    says otherwise; ``..._unmasked`` are with it. Every table says which. Intervals are of 95%, by
    resamples of users. Baselines are computed now, from the training split that the run had.
    """
    processor: InteractionsProcessor = context.processor
    examples = list(context.examples(context.held_out))
    rows = training_rows(context.examples("train"), processor)
    context.progress(f"ranking {len(processor.items):,} items for {len(examples):,} users")
    own = _Scored("this run")
    # The model and every baseline are asked the same.
    histories = [example.inputs for example in examples]
    scores_of_own = model_scores(context.model, histories, processor, task.transition_share)
    _add(own, task, examples, processor, scores_of_own)
    methods = [own]
    baselines = SimpleMethods(rows, len(processor.items))
    # Looked up once, because every baseline reads them.
    known = [processor.item_numbers(example.inputs.items) for example in examples]
    for name, scores in baselines.all():
        context.progress(f"ranking by {name}")
        method = _Scored(name)
        parts = (scores(known[n : n + AT_ONCE]) for n in range(0, len(known), AT_ONCE))
        _add(method, task, examples, processor, parts)
        methods.append(method)
    metrics: dict[str, float] = {"held_out_users": float(len(examples))}
    tables: list[Table] = []
    for way in sorted(_WAYS, key=lambda way: way != task.mask_seen):
        table, found = _compare(task, methods, way, processor, context.seed, baselines.left_out)
        suffix = ""
        if way != task.mask_seen:
            suffix = "_unmasked" if task.mask_seen else "_masked"
        metrics |= {f"{name}{suffix}": value for name, value in found.items()}
        tables.append(table)
    # A mean over all hides that of the few who are new.
    tables.append(_by_newness(task, methods, examples, processor, context.seed))
    return Evaluation(metrics, tables)


def training_rows(examples: Iterable[Example], processor: InteractionsProcessor) -> list[Numbers]:
    """Return of each training user the numbers of their items, in order of time."""
    found: dict[str, list[int]] = {}
    for example in examples:
        own = found.setdefault(example.inputs.user, [])
        own += [processor.item_number(item) for item in example.target.items]
    return [np.array([n for n in own if n != NOBODY], dtype=np.int64) for own in found.values()]


def measure_lists(
    task: Recommends, model: nn.Module, examples: Sequence[Example], processor: Any
) -> dict[str, float]:
    """Return the mean of each measure over held-out users."""
    found = _Scored("")
    histories = [example.inputs for example in examples]
    # One way only: this is done at every validation.
    scores = model_scores(model, histories, processor, task.transition_share)
    _add(found, task, examples, processor, scores, ways=(task.mask_seen,))
    named = found.ranked(task.mask_seen).by_name(task.k)
    return {name: float(values.mean()) for name, values in named.items()}


def _add(
    method: _Scored,
    task: Recommends,
    examples: Sequence[Example],
    processor: InteractionsProcessor,
    parts: Iterable[Any],
    ways: Sequence[bool] = _WAYS,
) -> None:
    """Rank by the scores (U, N + 1) of some users at a time."""
    begin = 0
    for part in parts:
        whole = part.cpu().numpy() if isinstance(part, Tensor) else part
        scores = whole.astype(np.float64)
        # It stands for no item, whatever a baseline counted for it.
        scores[:, NOBODY] = -np.inf
        some = examples[begin : begin + len(scores)]
        begin += len(scores)
        chosen = [_numbers(example.target.items, processor) for example in some]
        for way in sorted(ways):  # first with all, because hiding what was seen cannot be undone
            if way:
                for n, example in enumerate(some):
                    scores[n, _numbers(example.inputs.items, processor)] = -np.inf
            method.parts[way].append(rank_chosen(scores, chosen, task.k))
            method.lists[way].append(_best(scores, task.k))


def _numbers(items: Sequence[str], processor: InteractionsProcessor) -> Numbers:
    return np.array([processor.item_number(item) for item in items], dtype=np.int64)


def _best(scores: NDArray[np.float64], length: int) -> Numbers:
    length = min(length, scores.shape[1] - 1)
    # Which they are, not in what order: lists are only counted.
    near = np.argpartition(-scores, length - 1, axis=1)[:, :length]
    values = np.take_along_axis(scores, near, 1)
    return np.where(np.isneginf(values), NOBODY, near)


def _compare(
    task: Recommends,
    methods: Sequence[_Scored],
    way: bool,
    processor: InteractionsProcessor,
    seed: int,
    left_out: str,
) -> tuple[Table, dict[str, float]]:
    """Return the table of all methods, and the numbers of this run and of the baselines."""
    k = task.k
    found: dict[str, float] = {}
    rows: list[tuple[Any, ...]] = []
    for method in methods:
        named = method.ranked(way).by_name(k)
        lists = np.concatenate(method.lists[way])
        # High scores may come from always the same few items: these two show it.
        covered = coverage(lists, len(processor.items))
        popular = mean_popularity(lists, processor.popularity)
        cells: list[Any] = [method.name]
        for name, values in named.items():
            mean = float(values.mean())
            low, high = interval(values, seed)
            cells.append(f"{mean:.4f} ({low:.4f} to {high:.4f})")
            if method is methods[0]:
                found |= {name: mean, f"{name}_low_95": low, f"{name}_high_95": high}
            else:
                # As names of metrics are written.
                short = method.name.lower().replace("-", "_").replace(" ", "_")
                found[f"baseline_{short}_{name}"] = mean
        if method is methods[0]:
            found |= {f"coverage_at_{k}": covered, f"popularity_at_{k}": popular}
        rows.append((*cells, f"{covered:.1%}", f"{popular:.2f}"))
    seen = "left out" if way else "ranked too"
    columns = ("method", f"HR@{k}", f"NDCG@{k}", f"recall@{k}", "MRR", "coverage", "popularity")
    note = (
        f"Of all {len(processor.items):,} items; what a user has seen is {seen}. In brackets: 95%"
        " of resamples of users. Coverage: the share of all items that is on any list. Popularity:"
        " how often what is on the lists was chosen in training, next to an average item. Baselines"
        " were computed from the same training split, with settings once chosen on MovieLens-100k."
    )
    if left_out:
        note += f" {left_out[0].upper()}{left_out[1:]}."
    return Table(f"All items ranked, what was seen {seen}", columns, rows, note), found


def _by_newness(
    task: Recommends,
    methods: Sequence[_Scored],
    examples: Sequence[Example],
    processor: InteractionsProcessor,
    seed: int,
) -> Table:
    """Return what is found for users and for items that training has seen, and for others."""
    new_user = np.array([processor.user_number(e.inputs.user) == NOBODY for e in examples])
    new_item = np.array([_is_new(e.target.items, processor) for e in examples])
    groups = {
        "known users": ~new_user,
        "new users": new_user,
        "items seen in training": ~new_item,
        "items not seen in training": new_item,
    }
    rows: list[tuple[Any, ...]] = []
    for words, chosen in groups.items():
        # A group that nobody is in has no line.
        places = np.flatnonzero(chosen)
        for method in methods if len(places) else ():
            own = method.ranked(task.mask_seen).take(places)
            low, high = interval(own.ndcg, seed)
            spread = f"{own.ndcg.mean():.4f} ({low:.4f} to {high:.4f})"
            rows.append((words, len(places), method.name, f"{own.hit_rate.mean():.4f}", spread))
    seen = "left out" if task.mask_seen else "ranked too"
    columns = ("held out", "users", "method", f"HR@{task.k}", f"NDCG@{task.k}")
    note = f"What a user has seen is {seen}. A new user or item has no training interaction."
    return Table(f"New users and items apart, what was seen {seen}", columns, rows, note)


def _is_new(items: Sequence[str], processor: InteractionsProcessor) -> bool:
    """Whether none of the chosen items was seen in training."""
    numbers = [processor.item_number(item) for item in items]
    return all(n == NOBODY or n > processor.trained_items for n in numbers)
