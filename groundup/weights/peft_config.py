"""What adapter_config.json of the library PEFT says of an adapter: each key is honoured, has a
value that changes nothing, or is refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.core.errors import CheckpointError, did_you_mean
from groundup.recipe.adapter import Adapter

__all__ = ["PeftConfig", "read_peft_config"]

Fits = Callable[[Any], bool]


@dataclass(frozen=True)
class PeftConfig:
    """What was read.

    Attributes:
        settings: Of the recipe's section, as far as the file says them; its rank and alpha are
            those of layers that no pattern names.
        rank_pattern: Ranks by regular expressions of modules' names.
        alpha_pattern: Alphas likewise.
        start: ``pissa`` or ``olora``: what was taken off the base when the adapter began; or empty.
        tokens: The trained tokens by module; the one named "" is the embedding.
        tied: Whether what changes the embedding changes the output layer that shares it.
    """

    settings: Adapter
    rank_pattern: dict[str, float]
    alpha_pattern: dict[str, float]
    start: str
    tokens: dict[str, tuple[int, ...]]
    tied: bool

    def rank(self, module: str) -> int:
        """Return the rank that PEFT gives a module."""
        return int(_find_by_pattern(self.rank_pattern, module, self.settings.rank))

    def scale(self, module: str, rank: int) -> float:
        """Return what PEFT multiplies the change of a module with."""
        alpha = _find_by_pattern(self.alpha_pattern, module, self.settings.alpha)
        return self.settings.model_copy(update={"alpha": alpha}).scale(rank)


def read_peft_config(path: Path, values: Mapping[str, Any]) -> PeftConfig:
    """Return what the contents of adapter_config.json say.

    Raises:
        CheckpointError: Naming the key, what is there and what is allowed.
    """
    if values.get("peft_type") != "LORA":
        remedy = "Use another adapter, or merge it in PEFT first"
        # What is put in front of a text is in no weight that it could be merged into.
        if values.get("num_virtual_tokens") is not None:
            remedy = "Use another adapter: one that is put in front of texts cannot be merged"
        problem = f"peft_type is {_shown(values.get('peft_type'))}; allowed: LORA"
        raise CheckpointError(str(path), problem, remedy)
    for key in ("r", "lora_alpha"):
        if key not in values:
            raise CheckpointError(
                str(path), f"has no {key}; allowed: {_HONOURED[key][1]}", "Restore the file"
            )
    for key, value in values.items():
        _check(path, key, value)
    start = _start_of(path, values.get("init_lora_weights"))
    tokens = values.get("trainable_token_indices") or {}
    settings = Adapter(
        name="dora" if values.get("use_dora") else "lora",
        rank=values["r"],
        alpha=float(values["lora_alpha"]),
        rank_stabilized=bool(values.get("use_rslora")),
        dropout=float(values.get("lora_dropout") or 0.0),
        bias=values.get("bias") or "none",
    )
    return PeftConfig(
        settings,
        dict(values.get("rank_pattern") or {}),
        dict(values.get("alpha_pattern") or {}),
        start,
        {name: tuple(each) for name, each in tokens.items()}
        if isinstance(tokens, dict)
        else {"": tuple(tokens)},
        bool(values.get("ensure_weight_tying")),
    )


def _check(path: Path, key: str, value: Any) -> None:
    """Raise an error if a key has a value that is not honoured."""
    if key in _HONOURED:
        fits, allowed = _HONOURED[key]
        if not fits(value):
            raise _wrong(path, key, value, allowed)
        if key in ("rank_pattern", "alpha_pattern"):
            _check_patterns(path, key, value or {})
    # Empty, it says nothing, whatever it means: newer versions of PEFT write keys of their own.
    elif key not in _WITHOUT_EFFECT and value not in (None, False, "", [], {}):
        if key in _REFUSED:
            problem = f"{key} is {_shown(value)}: {_REFUSED[key]}, which is not built here"
            remedy = (
                "Use another adapter, or merge it in PEFT (merge_and_unload) and start from that"
            )
        else:
            near = did_you_mean(key, [*_HONOURED, *_REFUSED])
            problem = f"{key} is {_shown(value)}, a key that is not known here; {near}".rstrip("; ")
            remedy = "Remove it from the file if it changes nothing in what the adapter computes"
        raise CheckpointError(str(path), problem, remedy)


def _start_of(path: Path, value: Any) -> str:
    """Return what an adapter took off its base when it began; empty: nothing."""
    if value in ("pissa", "olora"):
        return str(value)
    kind = str(value).partition("_niter_")[0]
    # Random numbers, data or bits went into what was taken off: it is in no file.
    if kind in _LOST_STARTS:
        raise CheckpointError(
            str(path),
            f"init_lora_weights is {value}: it took {_LOST_STARTS[kind]} off the base, which the"
            " adapter alone does not tell",
            "Save it in PEFT as plain LoRA (save_pretrained with"
            " path_initial_model_for_weight_conversion); or merge it where it was trained"
            " (merge_and_unload) and start from that",
        )
    if value is None or isinstance(value, bool) or value in _PLAIN_STARTS:
        return ""
    raise _wrong(
        path,
        "init_lora_weights",
        value,
        f"true, false, {', '.join((*_PLAIN_STARTS, 'pissa', 'olora'))}",
    )


def _check_patterns(path: Path, key: str, patterns: Mapping[str, Any]) -> None:
    # These are regular expressions of whoever wrote the file, and are searched with later.
    for pattern, value in patterns.items():
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError):
            raise _wrong(path, key, pattern, "regular expressions of modules' names") from None
        fits, allowed = _HONOURED["r" if key == "rank_pattern" else "lora_alpha"]
        if not fits(value):
            raise _wrong(path, f"{key} {pattern}", value, allowed)


def _find_by_pattern(patterns: Mapping[str, float], name: str, otherwise: float) -> float:
    """Return the value of the first pattern that PEFT would find for a module."""
    return next(
        (float(v) for k, v in patterns.items() if re.match(rf"(.*\.)?({k})$", name)), otherwise
    )


def _wrong(path: Path, key: str, found: Any, allowed: str) -> CheckpointError:
    return CheckpointError(
        str(path), f"{key} is {_shown(found)}; allowed: {allowed}", "Restore the file"
    )


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:60]


# --------------------------------------------------------------------------------------------- keys
def _is_positive(value: Any) -> bool:
    # In Python true is a number, and would be an alpha of 1.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < 1e6  # NaN and infinity are neither


def _is_names(value: Any) -> bool:
    several = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return value is None or isinstance(value, str) or several


def _is_mapping(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _is_flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and _is_positive(value)


def _is_share(value: Any) -> bool:
    return value in (None, 0) or (_is_positive(value) and value < 1)


def _is_tokens(value: Any) -> bool:
    lists = value.values() if isinstance(value, dict) else [[] if value is None else value]
    return all(
        isinstance(each, list) and all(type(token) is int and token >= 0 for token in each)
        for each in lists
    )


_HONOURED: dict[str, tuple[Fits, str]] = {  # whether a value will do, and in words which do
    "r": (_is_rank, "a whole number above 0"),
    "lora_alpha": (_is_positive, "a number above 0"),
    "lora_dropout": (_is_share, "a number from 0 to below 1"),
    "bias": (lambda value: value in (None, "none", "lora_only", "all"), "none, lora_only or all"),
    **dict.fromkeys(
        ("use_rslora", "use_dora", "fan_in_fan_out", "lora_bias", "ensure_weight_tying"),
        (_is_flag, "true or false"),
    ),
    **dict.fromkeys(("rank_pattern", "alpha_pattern"), (_is_mapping, "numbers by modules' names")),
    # The tensors themselves say what is adapted and what is saved whole.
    **dict.fromkeys(
        ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern"),
        (_is_names, "names"),
    ),
    "trainable_token_indices": (_is_tokens, "numbers of tokens, or these by modules' names"),
}
# How an adapter began, and nothing more: trained, it is what its tensors say.
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica")
_LOST_STARTS = {
    "pissa": "a random estimate of the largest singular values",
    "corda": "directions that it found in data",
    "loftq": "what few bits lose",
    "lora_ga": "gradients of data",
}
_WITHOUT_EFFECT = (
    "peft_type",
    "peft_version",
    "task_type",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "init_lora_weights",  # looked at apart
    "layers_to_transform",
    "megatron_core",
    "megatron_config",
    "qalora_group_size",
    "runtime_config",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "velora_config",  # how gradients are kept in training
    "unsloth_fixed",
)
_REFUSED = {
    "layer_replication": "layers are repeated",
    "use_qalora": "inputs are pooled in groups",
    "use_bdlora": "matrices are in blocks",
    "arrow_config": "adapters are chosen for each token",
    "kasa_config": "the smallest singular values are taken off the base",
    "monteclora_config": "adapters are drawn at random",
    "alora_invocation_tokens": "the adapter begins at some tokens of a text",
    "target_parameters": "parameters that are no layers are adapted",
    "enable_lora": "only parts of a layer are adapted",
}
