"""Numbers and names as a person reads them: shared by the report, the tables of runs and the
printed summary."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from groundup.metrics.directions import lower_is_better

__all__ = [
    "Change",
    "compact",
    "compare_with_guessing",
    "duration",
    "interval_95",
    "is_number",
    "label",
    "list_baselines",
    "list_changes",
    "memory",
    "name_guess",
    "number",
    "shorten",
    "value",
]

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_OWN_SPELLING = {
    "rouge l": "ROUGE-L",
    "auroc": "AUROC",
    "macro f1": "macro F1",
    "micro f1": "micro F1",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
}
_GUESSES = {
    "mean_absolute_error": "always guessing the middle class",
    "rmse": "always predicting the mean",
    "mae": "always predicting the mean",
}
_BASELINES = {
    "unigram": "byte frequencies alone",
    "5gram": "byte 5-gram",
    "xz": "xz -9 of the text alone",
    "xz_given_train": "xz -9 given the training text",
}


@dataclass(frozen=True)
class Change:
    """One metric before and after; ``percent`` is the relative change of ``after`` and ``better``
    whether it helped."""

    label: str
    before: float
    after: float
    percent: float
    better: bool


def is_number(candidate: object) -> TypeGuard[float]:
    """Return whether a value is a finite number (a boolean is not)."""
    # bool is a subclass of int
    return (
        isinstance(candidate, int | float)
        and not isinstance(candidate, bool)
        and math.isfinite(candidate)
    )


def label(name: str) -> str:
    """Return the name of a metric or a key in words: ``rouge_l`` is ``ROUGE-L``."""
    if name.startswith("baseline_") and name.endswith("_bits_per_byte"):
        return f"bits per byte, {_name_baseline(name)}"
    words = name
    ending = ""
    if words.endswith("_s") and not words.endswith("_per_s"):
        # the value says its unit
        words = words.removesuffix("_s")
    if words.startswith("base_"):
        words = words.removeprefix("base_")
        ending = ", before"
    if words.endswith("_other_question"):
        words = words.removesuffix("_other_question")
        ending = f", another question{ending}"
    if found := re.fullmatch(r"(.+)_(low|high)_95", words):
        words = found[1]
        ending = f", {found[2]} end of the 95% interval"
    words = re.sub(r" per s$", "/s", words.replace("_", " ").strip())
    for plain, own in _OWN_SPELLING.items():
        words = re.sub(rf"\b{plain}\b", own, words)
    return words + ending


def number(amount: float) -> str:
    """Return a number with about four significant digits: ``12,345``, ``1.832``, ``3.0e-04``."""
    if not math.isfinite(amount):
        return str(amount)
    # from 1e15 on floats are whole anyway, and their digits say more than there is
    if float(amount).is_integer() and abs(amount) < 1e15:
        return f"{int(amount):,}"
    size = abs(amount)
    if size >= 1000:
        return f"{amount:,.0f}"
    if size < 1e-3:
        return f"{amount:.1e}"
    if size < 0.1:
        return f"{amount:.3g}"
    return f"{amount:.{min(3, 3 - math.floor(math.log10(size)))}f}"


def shorten(amount: float) -> str:
    """Return a number in few characters of a width that hardly changes, for a live display."""
    return f"{amount:.3f}" if amount == 0 or 0.01 <= abs(amount) < 1000 else f"{amount:.2e}"


def compact(amount: float, unit: str = "") -> str:
    """Return a large number with an SI prefix: ``compact(3.1e11, "FLOP/s")`` is ``310 GFLOP/s``."""
    for size, prefix in _PREFIXES:
        if abs(amount) >= size:
            return f"{_three_digits(amount / size)} {prefix}{unit}".strip()
    return f"{amount:.4g} {unit}".strip()


def _three_digits(amount: float) -> str:
    """Return a number below 1000 with three significant digits."""
    if abs(amount) < 10:
        return f"{amount:.2f}"
    return f"{amount:.1f}" if abs(amount) < 100 else f"{amount:.0f}"


def duration(seconds: float) -> str:
    """Return seconds as ``4.2 s``, ``42 s``, ``5 min 03 s`` or ``2 h 07 min``."""
    whole = round(seconds)
    if seconds < 10 and whole < 60:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def memory(size_bytes: float) -> str:
    """Return bytes as ``640 MiB`` or ``1.25 GiB``."""
    for size, unit in _UNITS:
        if abs(size_bytes) >= size:
            return f"{_three_digits(size_bytes / size)} {unit}"
    return f"{size_bytes:.0f} B"


def value(name: str, amount: Any) -> str:
    """Return any value as text, with the unit its name carries (``_bytes``, ``_s``, ``_share``,
    ``flops_per_s``)."""
    if amount is None:
        return "–"
    if isinstance(amount, bool):
        return "yes" if amount else "no"
    if not is_number(amount):
        return str(amount)
    # a share over 10 is no share: a user's own metric may be called so
    if name.endswith(("_share", "_fraction")) and 0 <= amount <= 10:
        return f"{100 * amount:.1f}%"
    if name.endswith("_bytes") or name in {"memory", "bytes"}:
        return memory(amount)
    if name.endswith("_s") and not name.endswith("_per_s"):
        return duration(amount)
    return compact(amount, "FLOP/s") if name.endswith("flops_per_s") else number(amount)


def list_baselines(metrics: Mapping[str, Any]) -> list[tuple[str, float, bool]]:
    """Return (label, bits per byte, is the model) of model and baselines, best first; empty without
    both."""
    own = metrics.get("bits_per_byte")
    found = [
        (_name_baseline(name), float(amount), False)
        for name, amount in metrics.items()
        if name.startswith("baseline_") and name.endswith("_bits_per_byte") and is_number(amount)
    ]
    if not found or not is_number(own):
        return []
    return sorted([("this model", float(own), True), *found], key=lambda row: row[1])


def _name_baseline(metric: str) -> str:
    short = metric.removeprefix("baseline_").removesuffix("_bits_per_byte")
    return _BASELINES.get(short, short.replace("_", " "))


def list_changes(metrics: Mapping[str, Any]) -> list[Change]:
    """Return every metric that has a ``base_`` twin (before), and every one that has an
    ``_other_question`` twin."""
    found = []
    for name, after in metrics.items():
        if name.endswith("_other_question"):
            continue
        for twin, words in (
            (f"base_{name}", label(name)),
            (f"{name}_other_question", f"{label(name)}: another question → the right one"),
        ):
            before = metrics.get(twin)
            # of a zero nothing can be a percentage
            if is_number(after) and is_number(before) and before:
                percent = 100 * (after - before) / abs(before)
                better = (percent < 0) == lower_is_better(name)
                found.append(Change(words, before, after, percent, better))
    return found


def compare_with_guessing(name: str, metrics: Mapping[str, Any]) -> str:
    """Return a measure's 95% interval and what always guessing one class reaches, where they are
    known."""
    parts = [f"95%: {interval}"] if (interval := interval_95(name, metrics)) else []
    guessing = metrics.get(f"baseline_{name}")
    if is_number(guessing):
        parts.append(f"{name_guess(name)}: {number(guessing)}")
    return "; ".join(parts)


def interval_95(name: str, metrics: Mapping[str, Any]) -> str:
    """Return the 95% interval of a measure, such as ``0.912 to 0.940``; empty where unknown."""
    low = metrics.get(f"{name}_low_95")
    high = metrics.get(f"{name}_high_95")
    if not (is_number(low) and is_number(high)):
        return ""
    return f"{number(low)} to {number(high)}"


def name_guess(name: str) -> str:
    """Return in words what the baseline of a classifier's measure is."""
    return _GUESSES.get(name, "always guessing the commonest class")
