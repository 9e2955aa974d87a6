"""Which values of a metric are the better ones, by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

__all__ = ["best_of", "direction", "lower_is_better"]

_HIGHER_ENDINGS = (
    "accuracy",
    "accuracy_at_1",
    "accuracy_at_5",
    "auroc",
    "average_precision",
    "bleu",
    "chrf",
    "codes_used",
    "effective_codes",
    "exact_match",
    "exact_windows",
    "f1",
    "hr",
    "kappa",
    "map",
    "map_50",
    "map_75",
    "mrr",
    "ndcg",
    "per_s",
    "psnr",
    "r2",
    "recall_at_10",
    "reward_margin",
    "rouge_1",
    "rouge_2",
    "rouge_l",
    "ssim",
)
# Of several rewards each has its own after this.
_REWARD = re.compile(r"^(base_)?reward(_|$)")
_LOWER_WORDS = {
    "loss",
    "losses",
    "wer",
    "cer",
    "bits",
    "perplexity",
    "error",
    "errors",
    "mae",
    "mse",
    "rmse",
}
# What is said of a metric after its name: the ends of an interval, another way to measure it.
_ADDITIONS = re.compile(r"(_low_95|_high_95|_bootstrap|_other_question|_unmasked|_masked)+$")
_LENGTH = re.compile(r"(hr|ndcg)_at_\d+$")  # of lists: however long they are


def direction(name: str) -> Literal["lower", "higher"] | None:
    """Return which values of a metric are the better ones, or None where its name does not say.

    Of ``task/metric`` only the metric's own name counts, and its end before its words:
    ``error_code_r2`` is an R2.
    """
    own = _LENGTH.sub(r"\1", _ADDITIONS.sub("", name.rpartition("/")[2]))
    higher = any(own == end or own.endswith(f"_{end}") for end in _HIGHER_ENDINGS)
    if higher or _REWARD.match(own):
        return "higher"
    return "lower" if _LOWER_WORDS & set(own.split("_")) else None


def lower_is_better(name: str) -> bool:
    """Return whether a smaller value of this metric is the better one; where nothing is known, a
    larger one is."""
    return direction(name) == "lower"


def best_of(name: str, values: Iterable[float]) -> float | None:
    """Return the best of a metric's values; None where neither direction is the better one."""
    choose = {"lower": min, "higher": max}.get(direction(name) or "")
    return None if choose is None else choose(values)
