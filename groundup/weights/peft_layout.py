"""How the library PEFT lays out an adapter: its files, the names in them, and which layers of a
model each of its modules is.

Where ``transformers`` knows the model, its modules have the names they have there. Several of
groundup's layers may be one of these, as GPT-2's query, key and value are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.contracts.models import ModelConfig
from groundup.core.errors import CheckpointError
from groundup.nn.lora.adapters import LOW_RANK
from groundup.nn.part_names import TASK_WEIGHTS

__all__ = ["CONFIG", "PREFIX", "WEIGHTS", "PeftModule", "module_name", "peft_modules"]

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
# Must be more than the layers that one module joins: by it a transposed probe is recognised.
_PROBE = 64  # columns of the tensors that tables of names are asked about


@dataclass(frozen=True)
class PeftModule:
    """A module of ``transformers``, and the one or several layers of groundup's model that it
    holds, one below the other."""

    name: str
    own: tuple[str, ...]
    transposed: bool


def peft_modules(
    config: ModelConfig, weights: Mapping[str, Tensor]
) -> tuple[list[PeftModule], str | None]:
    """Return where each matrix of a model is there, and the kind of model that PEFT knows it as.

    The model's own way to Hugging Face's layout is asked with numbered tensors instead of weights.
    """
    plain = [name for name in weights if name.rpartition(".")[2] not in LOW_RANK]
    plain = [name for name in plain if not name.startswith(TASK_WEIGHTS)]
    # A matrix that comes back with its number in the other direction is transposed there; one with
    # several numbers is several of groundup's, one below the other.
    # One row each is enough, because a model's way there only renames, joins and transposes.
    probes = {
        name: torch.full(
            (1, _PROBE) if weights[name].ndim == 2 else (1,) * weights[name].ndim,
            number,
            dtype=torch.int,
        )
        for number, name in enumerate(plain)
    }
    try:
        values, renamed = config.to_huggingface(probes)
    # PEFT needs no model of transformers: then groundup's names are the modules'.
    except CheckpointError:
        return [
            PeftModule(module_name(n), (module_name(n),), False)
            for n in plain
            if weights[n].ndim == 2
        ], None
    found = []
    for name, probe in renamed.items():
        if probe.ndim == 2:
            transposed = probe.shape[0] == _PROBE
            numbers = (probe.T if transposed else probe)[:, 0].tolist()
            found.append(
                PeftModule(
                    module_name(name),
                    tuple(module_name(plain[number]) for number in numbers),
                    transposed,
                )
            )
    causal = any("CausalLM" in name or "LMHead" in name for name in values.get("architectures", ()))
    return found, "CAUSAL_LM" if causal else None


def module_name(name: str) -> str:
    """Return the name of the module that a weight is of."""
    return name.removesuffix(".weight")
