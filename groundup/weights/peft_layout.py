"""How the library PEFT lays out an adapter: its files, the names in them, and which tensors of a
model each of its tensors is.

Where ``transformers`` knows the model, its modules have the names they have there. Several of
groundup's layers may be one of these, as GPT-2's query, key and value are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.contracts.shared_weights import SharesTensors
from groundup.core.errors import CheckpointError
from groundup.formats.huggingface_folder import read_object
from groundup.machine.meta_device import without_content
from groundup.nn.lora.adapters import LOW_RANK
from groundup.nn.part_names import TASK_WEIGHTS

__all__ = [
    "CONFIG",
    "EMBEDDING",
    "HEAD",
    "PREFIX",
    "WEIGHTS",
    "PeftTensor",
    "SharedOutput",
    "find_adapter",
    "joined_ranks",
    "peft_tensors",
    "read_files",
    "shared_output",
    "sort_tensors",
]

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
PREFIX = "base_model.model."
EMBEDDING = "embed.weight"
HEAD = "head.weight"
OUTPUT = "lm_head"
"""What the output layer of a language model is called in PEFT."""
# Must be more than the layers that one module joins: by it a transposed probe is recognised.
_PROBE = 64  # columns of the tensors that tables of names are asked about

# A magnitude is a parameter of its own, without .weight, unlike the two matrices; and older
# versions wrote the adapter's name into these names.
_KEY = re.compile(
    r"(.+)\.(?:lora_(?P<kind>A|B|magnitude_vector|embedding_A|embedding_B)(?:\.default)?"
    r"(?:\.(?P<what>weight|bias))?|token_adapter\.(?P<rows>trainable_tokens_delta))$"
)
_PARTS = {"magnitude_vector": "magnitude", "A": "lora_A", "B": "lora_B"}


@dataclass(frozen=True)
class PeftTensor:
    """A tensor of a model of ``transformers``, and the one or several of groundup's that it holds,
    one below the other."""

    name: str
    own: tuple[str, ...]
    transposed: bool = False

    @property
    def module(self) -> str:
        """The name of the module whose weight it is."""
        return self.name.removesuffix(".weight")

    @property
    def layers(self) -> tuple[str, ...]:
        """Groundup's layers whose weights it holds."""
        return tuple(name.removesuffix(".weight") for name in self.own)


def peft_tensors(
    config: ModelConfig, weights: Mapping[str, Tensor]
) -> tuple[list[PeftTensor], str | None]:
    """Return where each matrix and vector of a model is there, and the kind of model that PEFT
    knows it as.

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
        values, renamed = config.to_modules(probes)
    # PEFT needs no model of transformers: then groundup's names are the modules'.
    except CheckpointError:
        return [PeftTensor(name, (name,)) for name in plain if weights[name].ndim in (1, 2)], None
    found = []
    for name, probe in renamed.items():
        if probe.ndim not in (1, 2):
            continue
        transposed = probe.ndim == 2 and probe.shape[0] == _PROBE
        numbers = (probe.T if transposed else probe).reshape(-1, _PROBE if probe.ndim == 2 else 1)
        own = tuple(plain[number] for number in numbers[:, 0].tolist())
        found.append(PeftTensor(name, own, transposed))
    causal = any("CausalLM" in name or "LMHead" in name for name in values.get("architectures", ()))
    return found, "CAUSAL_LM" if causal else None


@dataclass(frozen=True)
class SharedOutput:
    """An output layer of a language model that is the embedding.

    Attributes:
        embedding: Groundup's name of the tensor.
        module: The output layer's name there.
    """

    embedding: str
    module: str


def shared_output(
    config: ModelConfig, weights: Collection[str], task: str | None
) -> SharedOutput | None:
    """Return the output layer that is the embedding; None where it has a matrix of its own.

    Args:
        config: The model's settings.
        weights: The names of its tensors.
        task: As ``peft_tensors`` returns it.
    """
    if task != "CAUSAL_LM":
        return None
    if EMBEDDING in weights:
        return None if HEAD in weights else SharedOutput(EMBEDDING, OUTPUT)
    with without_content():
        model = config.build()
    if not isinstance(model, SharesTensors):
        return None
    # Other tables may be shared, too, such as an encoder's with its decoder.
    for second, own in model.tied.items():
        layer = model.get_submodule(own.rpartition(".")[0])
        if isinstance(layer, nn.Embedding) and second.endswith(".weight"):
            return SharedOutput(own, second.removesuffix(".weight"))
    return None


# ---------------------------------------------------------------------------------------- the files
def find_adapter(folder: Path) -> Path:
    """Return a folder in PEFT's layout: this one, or the one that a run has within its own."""
    within = folder / "adapter"
    return within if not (folder / CONFIG).is_file() and (within / CONFIG).is_file() else folder


def read_files(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str]]:
    """Return what adapter_config.json says, the tensors, and what their header says.

    Raises:
        CheckpointError: If there is no adapter, or a file is damaged.
    """
    where = str(folder)
    if not (folder / WEIGHTS).is_file() and (folder / _PICKLED).is_file():
        raise CheckpointError(
            where,
            f"holds its adapter as pickle only ({_PICKLED}), which can run code when it is opened",
            "Convert it once, where nothing else is at stake, with PEFT, which writes safetensors:"
            " AutoPeftModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)",
        )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(
                where,
                f"holds no adapter (it has no {name})",
                "Give a folder in PEFT's layout, such as runs/NAME/adapter",
            )
    values = read_object(folder / CONFIG)
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            where, f"cannot be read: {type(error).__name__}: {error}", "Restore it"
        ) from None
    if not tensors:
        raise CheckpointError(where, "holds no tensors", "Use another adapter")
    return values, tensors, metadata


def joined_ranks(folder: Path, metadata: Mapping[str, str]) -> dict[str, list[int]]:
    """Return how adapters of several layers were joined when they were written here."""
    try:
        stacked = json.loads(metadata.get("stacked", "{}"))
        joined = all(
            isinstance(part, int) and part >= 0 for parts in stacked.values() for part in parts
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        joined = False
    if not joined:
        raise CheckpointError(
            str(folder / WEIGHTS),
            f"stacked in its header is {str(metadata.get('stacked'))[:60]}; allowed: ranks by"
            " module",
            "Restore the file",
        )
    return dict(stacked)


def sort_tensors(
    stored: Mapping[str, Tensor],
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor], dict[str, Tensor]]:
    """Return the adapters' tensors by module and kind, whole tensors by name, and the base's own
    that lie next to adapters by name."""
    parts: dict[str, dict[str, Tensor]] = {}
    saved: dict[str, Tensor] = {}
    bases: dict[str, Tensor] = {}
    for key, value in stored.items():
        name = key.removeprefix(PREFIX)
        found = _KEY.match(name)
        if found is None:
            place = name.replace(".modules_to_save", "").replace(".base_layer", "")
            # A bias next to an adapter was trained; a weight there was not.
            kept = ".base_layer." in name and not name.endswith(".bias")
            (bases if kept else saved)[place] = value
            continue
        part = parts.setdefault(found[1], {})
        if found["rows"]:
            part["rows"] = value
        elif found["kind"].startswith("embedding"):
            # There an embedding's matrices are the other way round: A has a column for each token.
            part["lora_B" if found["kind"] == "embedding_A" else "lora_A"] = value.T
            part["embedding"] = value
        elif found["what"] == "bias":
            part["bias"] = value
        else:
            part[_PARTS[found["kind"]]] = value
    return parts, saved, bases
