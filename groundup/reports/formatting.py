"""Numbers and names as a person reads them: shared by the report, the tables of runs and the
printed summary."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, TypeGuard

from groundup.metrics.directions import lower_is_better

__all__ = [
    "Change",
    "baselines",
    "beside_guessing",
    "changes",
    "compact",
    "duration",
    "guess",
    "is_number",
    "label",
    "memory",
    "number",
    "value",
]

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_GUESSES = {"mean_absolute_error": "always guessing the middle class"}
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
    return (
        isinstance(candidate, int | float)
        and not isinstance(candidate, bool)
        and math.isfinite(candidate)
    )


def label(name: str) -> str:
    """Return the name of a metric or a key in words: ``rouge_l`` is ``ROUGE-L``."""
    if name.startswith("baseline_") and name.endswith("_bits_per_byte"):
        short = name.removeprefix("baseline_").removesuffix("_bits_per_byte")
        return f"bits per byte, {_BASELINES.get(short, short.replace('_', ' '))}"
    words = name.removesuffix("_s") if name.endswith("_s") and not name.endswith("_per_s") else name
    ending = ""
    if words.startswith("base_"):
        words, ending = words.removeprefix("base_"), ", before"
    if words.endswith("_other_question"):
        words, ending = words.removesuffix("_other_question"), f", another question{ending}"
    if found := re.fullmatch(r"(.+)_(low|high)_95", words):
        words, ending = found[1], f", {found[2]} end of the 95% interval"
    words = re.sub(r" per s$", "/s", words.replace("_", " ").strip())
    for short, name in (
        ("rouge l", "ROUGE-L"),
        ("auroc", "AUROC"),
        ("macro f1", "macro F1"),
        ("micro f1", "micro F1"),
    ):
        words = words.replace(short, name)
    return words + ending


def number(amount: float) -> str:
    """Return a number with about four significant digits: ``12,345``, ``1.832``, ``3.0e-04``."""
    if not math.isfinite(amount):
        return str(amount)
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


def compact(amount: float, unit: str = "") -> str:
    """Return a large number with an SI prefix: ``compact(3.1e11, "FLOP/s")`` is ``310 GFLOP/s``."""
    for size, prefix in _PREFIXES:
        if abs(amount) >= size:
            scaled = amount / size
            return (
                f"{scaled:.{2 if abs(scaled) < 10 else 1 if abs(scaled) < 100 else 0}f}"
                f" {prefix}{unit}".strip()
            )
    return f"{amount:.4g} {unit}".strip()


def duration(seconds: float) -> str:
    """Return seconds as ``42 s``, ``5 min 03 s`` or ``2 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def memory(size_bytes: float) -> str:
    """Return bytes as ``640 MiB`` or ``1.25 GiB``."""
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(size_bytes) >= size:
            scaled = size_bytes / size
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {unit}"
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
    if name.endswith(("_share", "_fraction")) and 0 <= amount <= 10:
        return f"{100 * amount:.1f}%"
    if name.endswith("_bytes") or name in {"memory", "bytes"}:
        return memory(amount)
    if name.endswith("_s") and not name.endswith("_per_s"):
        return duration(amount)
    if name.endswith("flops_per_s"):
        return compact(amount, "FLOP/s")
    return number(amount)


def baselines(metrics: dict[str, Any]) -> list[tuple[str, float, bool]]:
    """Return (label, bits per byte, is the model) of model and baselines, best first; empty without
    both."""
    found = [
        (_BASELINES.get(short, short.replace("_", " ")), float(amount), False)
        for name, amount in metrics.items()
        if name.startswith("baseline_") and name.endswith("_bits_per_byte") and is_number(amount)
        for short in [name.removeprefix("baseline_").removesuffix("_bits_per_byte")]
    ]
    own = metrics.get("bits_per_byte")
    if not found or not is_number(own):
        return []
    return sorted([("this model", float(own or 0), True), *found], key=lambda row: row[1])


def changes(metrics: dict[str, Any]) -> list[Change]:
    """Return every metric that has a ``base_`` twin (before), and every one that has an
    ``_other_question`` twin."""
    found = []
    for name, after in metrics.items():
        if name.endswith("_other_question"):
            continue
        for twin, words in (
            (f"base_{name}", label(name)),
            (f"{name}_other_question", _against_other(name)),
        ):
            before = metrics.get(twin)
            if is_number(after) and is_number(before) and before:
                percent = 100 * (after - before) / abs(before)
                found.append(
                    Change(words, before, after, percent, (percent < 0) == lower_is_better(name))
                )
    return found


def beside_guessing(name: str, metrics: dict[str, Any]) -> str:
    """Return a measure's 95% interval and what always guessing one class reaches, where they are
    known."""
    low, high = (metrics.get(f"{name}_{end}_95") for end in ("low", "high"))
    guessing = metrics.get(f"baseline_{name}")
    parts = [f"95%: {number(low)} to {number(high)}"] if is_number(low) and is_number(high) else []
    parts += [f"{guess(name)}: {number(guessing)}"] if is_number(guessing) else []
    return "; ".join(parts)


def guess(name: str) -> str:
    """Return in words what the baseline of a classifier's measure is."""
    return _GUESSES.get(name, "always guessing the commonest class")


def _against_other(name: str) -> str:
    return f"{label(name)}: another question → the right one"
