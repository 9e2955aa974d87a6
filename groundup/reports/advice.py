"""Which settings of a recipe to change, by their names, and to what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.reports.curves import Curves
from groundup.reports.formatting import is_number
from groundup.reports.run_reader import RunRecord

__all__ = [
    "advise_against_overfitting",
    "advise_against_underfitting",
    "is_held_back",
    "name_length",
    "name_width",
    "rate_is_high",
    "rate_is_low",
    "suggest_rate",
]

# What a model of a thousand to a hundred million weights is usually trained with.
_USUAL_RATES = {"adamw": 1e-3, "adam": 1e-3, "sgd": 0.1, "muon": 0.02}
_NARROW = 2
# of a model whose width is that of vectors, such as a transformer's
_NARROW_VECTORS = 4
_STRONG_DECAY = 1.0
# Settings of the size of a model, the first one suggested first.
_SIZES = ("hidden", "channels", "width", "layers")
# What holds a model back, by section and name.
_USUAL_RESTRAINTS = {"dropout": 0.2, "weight_decay": 0.1, "label_smoothing": 0.1}
_RESTRAINTS = (("model", "dropout"), ("optim", "weight_decay"), ("task", "label_smoothing"))


def suggest_rate(record: RunRecord, *, lower: bool) -> str:
    """Return a learning rate to try instead of the recipe's: the usual one of its optimizer where
    that is in this direction, or a third or three times as much."""
    optim = record.section("optim")
    rate = optim.get("lr", 1e-3)
    if not is_number(rate):
        return f"a {'lower' if lower else 'higher'} optim.lr"
    usual = _usual_rate(record)
    if optim.get("name") == "sgd":
        usual *= 1 - optim.get("momentum", 0.0)
    wanted = rate / 3
    if lower and rate > 3 * usual:
        wanted = usual
    elif not lower:
        wanted = usual if rate < usual / 3 else 3 * rate
    how = "lower" if lower else "higher"
    return f"a {how} optim.lr, such as {float(f'{wanted:.1g}'):g} instead of {rate:g}"


def rate_is_low(record: RunRecord) -> bool:
    """Return whether the rate is far below what is usual for the optimizer."""
    rate = _effective_rate(record)
    # Trained weights are moved with a twentieth of what random ones are.
    trained = any(record.section("init").get(name) for name in ("run", "pretrained"))
    return rate is not None and rate < _usual_rate(record) * (0.01 if trained else 0.2)


def rate_is_high(record: RunRecord) -> bool:
    """Return whether the rate is far above what is usual for the optimizer."""
    rate = _effective_rate(record)
    return rate is not None and rate > 10 * _usual_rate(record)


def _usual_rate(record: RunRecord) -> float:
    return _USUAL_RATES.get(str(record.section("optim").get("name")), 1e-3)


def _effective_rate(record: RunRecord) -> float | None:
    """Return the rate; of SGD with momentum, by which each gradient counts several times, that of
    SGD without."""
    optim = record.section("optim")
    rate = optim.get("lr")
    momentum = optim.get("momentum", 0.0)
    if not is_number(rate):
        return None
    if optim.get("name") == "sgd" and is_number(momentum) and momentum < 1:
        return float(rate / (1 - momentum))
    return float(rate)


def advise_against_overfitting(record: RunRecord, curves: Curves) -> str:
    """Return what keeps a model from learning its examples by heart."""
    advice = []
    for section, name in (*_RESTRAINTS[:2], ("task", "augmentation"), *_RESTRAINTS[2:]):
        # a setting that the recipe's model or task does not have is no advice
        if name in record.section(section):
            amount = "more" if _is_on(record, section, name) else "some"
            advice.append(f"{amount} {section}.{name}{_suggest_restraint(record, section, name)}")
    smaller = _name_smaller_model(record)
    if smaller:
        advice.append(smaller)
    # where the last validation is the best, fewer steps would only be worse
    if curves.best[1] < curves.last:
        if record.section("training").get("patience") is None:
            advice.append("training.patience, to stop by itself")
        else:
            advice.append(f"fewer {name_length(record, 0.5)}")
    return ", ".join([*advice, "or, best, more training data"])


def is_held_back(record: RunRecord) -> bool:
    """Return whether a layer of the model is very narrow, or its restraints are very strong."""
    model = record.section("model")
    hidden = model.get("hidden")
    units = hidden if isinstance(hidden, list) else [hidden]
    narrow = any(is_number(each) and each <= _NARROW for each in units)
    width = model.get("width")
    narrow = narrow or (is_number(width) and width <= _NARROW_VECTORS)
    dropout = model.get("dropout")
    decay = record.section("optim").get("weight_decay")
    return (
        narrow
        or (is_number(dropout) and dropout >= 0.7)
        or (is_number(decay) and decay >= _STRONG_DECAY)
    )


def advise_against_underfitting(record: RunRecord) -> str:
    """Return what lets a model learn more of its examples."""
    less = " or ".join(
        f"{section}.{name}, such as {record.section(section)[name] / 4:g}"
        for section, name in _RESTRAINTS
        if _is_on(record, section, name)
    )
    advice = f"a larger {name_width(record, 4)}"
    if less:
        advice += f", less {less}"
    return f"{advice}, or inputs that say more about what is to be predicted"


def _name_smaller_model(record: RunRecord) -> str:
    """Return how to make the model smaller; empty where it is as small as can be."""
    # Trained weights fix the sizes: only other weights are of a smaller model.
    if any(record.section("init").get(name) for name in ("run", "pretrained")):
        return "a smaller model to start from"
    model = record.section("model")
    sizes = [name for name in _SIZES if model.get(name)]
    if sizes and not any(_suggest(model[name], 0.5) for name in sizes):
        return ""
    return f"a smaller {name_width(record, 0.5)}"


def name_length(record: RunRecord, factor: float = 2) -> str:
    """Return the setting that says how long the run is, with a value some times as large."""
    names = [n for n in ("epochs", "steps", "samples") if _is_on(record, "training", n)]
    if not names:
        return "training"
    return f"training.{names[0]}{_suggest(record.section('training')[names[0]], factor)}"


def name_width(record: RunRecord, factor: float) -> str:
    """Return the setting that makes the recipe's model larger, with a value some times as large."""
    model = record.section("model")
    sizes = [name for name in _SIZES if model.get(name)]
    for name in sizes:
        # Half of one layer is none: the next setting may still be changed.
        if suggestion := _suggest(model[name], factor):
            return f"model.{name}{suggestion}"
    return f"model.{sizes[0]}" if sizes else "model"


def _suggest(value: Any, factor: float) -> str:
    """Return a value to try instead of a number or a list of them, a whole number at least 1; empty
    where that is the value itself."""
    if isinstance(value, list) and value and all(is_number(each) for each in value):
        several = [max(1, round(factor * each)) for each in value]
        return f", such as {several} instead of {value}" if several != value else ""
    if not is_number(value):
        return ""
    wanted = max(1, round(factor * value))
    return f", such as {wanted} instead of {value:g}" if wanted != value else ""


def _suggest_restraint(record: RunRecord, section: str, name: str) -> str:
    """Return how strong a restraint to try: a usual one, or where it is set already more of it."""
    value = record.section(section)[name]
    if name not in _USUAL_RESTRAINTS:
        return ""
    if not is_number(value) or value == 0:
        return f", such as {_USUAL_RESTRAINTS[name]}"
    wanted = min(2 * value, 0.5) if name == "dropout" else 2 * value
    return f", such as {wanted:g} instead of {value:g}" if wanted > value else ""


def _is_on(record: RunRecord, section: str, name: str) -> bool:
    return _is_set(record.section(section).get(name))


def _is_set(value: Any) -> bool:
    if isinstance(value, Mapping):  # of augmentation, scale is 1 to 1 where it changes nothing
        used = {key: each for key, each in value.items() if each != [1.0, 1.0]}
        own = {key: each for key, each in used.items() if not key.endswith("_magnitude")}
        return any(_is_set(each) for each in own.values())
    return value not in (None, 0, 0.0, "none", False)
