"""What a run starts from: another run's weights or pretrained ones, how to recognise them, and how
to read them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from groundup.contracts.models import FromHuggingFace, HasLayers, ModelConfig
from groundup.contracts.tasks import ReadsModelFolder
from groundup.core.errors import CheckpointError, RunError
from groundup.core.storage import sha256_of
from groundup.formats.generation_config import read_decoding, unused_keys
from groundup.formats.huggingface_folder import (
    INDEX,
    SINGLE,
    Pretrained,
    fetched_sha256,
    find_pretrained,
    kind_of,
    labels_in,
    read_config,
    weight_files,
)
from groundup.formats.left_out import notes_on
from groundup.recipe.recipe import Recipe
from groundup.runs.run import Run
from groundup.weights.as_stored import AsStored
from groundup.weights.gguf import read_gguf

__all__ = [
    "base_facts",
    "check_pretrained",
    "pretrained_config",
    "pretrained_labels",
    "pretrained_parts",
    "pretrained_weights",
    "read_pretrained",
    "weights_sha256",
]

log = logging.getLogger("groundup")
_PART = 64 * 2**20  # bytes of weights that are read at a time
_LARGEST = 1e10  # of a weight; a flipped bit of an exponent gives far more


def base_facts(recipe: Recipe) -> dict[str, Any]:
    """Return what environment.json says about the weights that a run starts from.

    ``base_weights_sha256`` is of the one file of weights; of several, it is of the lines
    ``SHA-256  name``.
    """
    init = recipe.init
    if init.pretrained is not None:
        base = find_pretrained(init.pretrained, init.revision)
        files = _checksums(base.folder)
        notes = notes_on(base.folder)
        if isinstance(recipe.task, ReadsModelFolder):
            notes += recipe.task.differences(base.folder)
        for note in notes:
            log.warning("%s", note)
        facts = {"name": base.name, "revision": base.commit, "files": files, "notes": notes}
        return {
            "base_weights_sha256": _together(files),
            "pretrained": facts,
            "decoding": read_decoding(base.folder),
            "decoding_left_out": unused_keys(base.folder),
        }
    if init.run is None:
        return {"base_weights_sha256": None}
    run = Run.open(Path(init.run))
    before = run.read_json("environment.json") or {}
    return {
        "base_weights_sha256": weights_sha256(run, run.pick(init.checkpoint)),
        "decoding": before.get("decoding") or {},
        "decoding_left_out": before.get("decoding_left_out") or "",
    }


def weights_sha256(run: Run, step: int) -> str:
    """Return the SHA-256 of a checkpoint's weights, as its manifest has it."""
    if run.is_pretrained:
        return str((run.read_json("environment.json") or {})["base_weights_sha256"])
    # From the manifest, so that no large file has to be read and hashed for a name.
    path = run.checkpoints.path(step) / "MANIFEST.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if SINGLE in manifest:
        return str(manifest[SINGLE]["sha256"])
    found = [entry["sha256"] for name, entry in manifest.items() if kind_of(name) == SINGLE]
    return hashlib.sha256("".join(sorted(found)).encode()).hexdigest()


def pretrained_weights(run: Run) -> dict[str, Tensor]:
    """Return the weights that a run starts from by the model's own names, or raise before much
    memory is taken.

    Raises:
        RunError: If the folder holds other weights than when the run was begun.
        CheckpointError: If the files are damaged, or are not this model's.
    """
    return read_pretrained(_base_of(run), run.recipe.model)


def pretrained_parts(run: Run, config: ModelConfig | None = None) -> Iterator[dict[str, Tensor]]:
    """Yield the same weights a few layers at a time: as many as make 64 MB, or a single larger one.
    ``config``: for a model of these settings, by default the run's.

    Raises:
        RunError: If the folder holds other weights than when the run was begun.
        CheckpointError: If the files are damaged, or are not this model's.
    """
    base = _base_of(run)
    config = config or run.recipe.model
    if base.is_gguf:
        yield read_pretrained(base, config)
        return
    # Reading the recipe has made sure of it.
    assert isinstance(config, FromHuggingFace)
    stored_as = AsStored(base, config)
    with _named(base):
        headers = _checked_headers(base, stored_as.config)
    for names in _parts(headers):  # every name is given, those of the other parts without content
        with _named(base):
            stored = _read(base.folder, only=names)
            found = stored_as.config.weights_from_huggingface(headers | stored)
        found = {name: tensor for name, tensor in found.items() if not tensor.is_meta}
        _refuse_spoiled(base, found, stored)
        yield stored_as.complete(found)


def check_pretrained(run: Run, config: ModelConfig | None = None) -> None:
    """Compare names, dtypes and shapes of the weights that a run starts from with its model's, or
    with a model of other settings; no tensor is read.

    Raises:
        CheckpointError: If they are not this model's.
    """
    base, _ = _recorded_base(run)
    if not base.is_gguf:
        with _named(base):
            _checked_headers(base, AsStored(base, config or run.recipe.model).config)


def _parts(headers: dict[str, Tensor]) -> list[set[str]]:
    """Return the names of tensors in groups; those of a layer, which has one number, stay
    together."""
    layers: dict[str, set[str]] = {}
    for name in headers:
        number = re.search(r"\.(\d+)\.", name)
        layers.setdefault(number[1] if number else "", set()).add(name)
    # Whole layers, as one of groundup's tensors may be made of several of a layer's.
    groups: list[set[str]] = []
    room = 0
    for names in layers.values():
        size = sum(headers[name].nbytes for name in names)
        if groups and size <= room:
            groups[-1] |= names
        else:
            groups.append(set(names))
            room = _PART
        room -= size
    return groups


def _base_of(run: Run) -> Pretrained:
    """Return the folder that a run starts from, once it is known to be what it was then."""
    base, recorded = _recorded_base(run)
    before = recorded.get("base_weights_sha256")
    # A folder keeps its name when its files are replaced, and a resume would go on with others.
    if before is not None and _together(_checksums(base.folder)) != before:
        problem = f"was begun with other weights than {base.name} holds now"
        raise RunError(str(run.folder), problem, "Restore them, or choose another name=...")
    return base


def _recorded_base(run: Run) -> tuple[Pretrained, dict[str, Any]]:
    """Return the folder that a run starts from, of the commit that it began with, and what the run
    says of it."""
    init = run.recipe.init
    assert init.pretrained is not None
    recorded = run.read_json("environment.json") or {}
    # The commit that the run began with: a branch, such as main, moves on.
    commit = (recorded.get("pretrained") or {}).get("revision")
    return find_pretrained(init.pretrained, commit or init.revision), recorded


def pretrained_config(run: Run) -> dict[str, Any]:
    """Return the contents of config.json of the weights a run starts from; {} of a GGUF file."""
    base, _ = _recorded_base(run)
    if base.is_gguf:
        return {}
    return read_config(base.folder)


def pretrained_labels(run: Run) -> tuple[str, ...]:
    """Return the names of the classes that the weights a run starts from tell apart, by
    config.json; () without any."""
    return labels_in(_recorded_base(run)[0].folder)


def read_pretrained(base: Pretrained, config: Any) -> dict[str, Tensor]:
    """Return the weights in a folder by the names of a model with ``weights_from_huggingface``, in
    their own dtype.

    Those in a GGUF file come in float32.
    Names, dtypes and shapes are compared with the model's before any tensor is read.

    Raises:
        CheckpointError: If a file is damaged, or a tensor is missing, left over, of another shape
            or no float, or holds numbers that no weights are.
    """
    stored_as = AsStored(base, config)
    if base.is_gguf:
        stored = weights = read_gguf(base.folder)[1]
    else:
        with _named(base):
            _checked_headers(base, stored_as.config)
            stored = _read(base.folder)
            weights = stored_as.config.weights_from_huggingface(stored)
    _refuse_spoiled(base, weights, stored)
    return stored_as.complete(weights)


def _refuse_spoiled(
    base: Pretrained, weights: dict[str, Tensor], stored: dict[str, Tensor]
) -> None:
    """Raise an error that names the first tensor with numbers that no weights are, as a flipped bit
    makes them.

    What the model does not use may hold anything; the tensor is named as the file names it, where
    it is found there.

    Raises:
        CheckpointError: If there is one.
    """
    for name, tensor in weights.items():
        if problem := _spoiled(tensor):
            same = (
                key for key, each in stored.items() if each.is_floating_point() and _spoiled(each)
            )
            remedy = (
                "The file is damaged, or training it went wrong: fetch the model again, or use"
                " another one"
            )
            raise CheckpointError(str(base.folder), f"tensor {next(same, name)} {problem}", remedy)


def _spoiled(tensor: Tensor) -> str:
    """Return what is wrong with a tensor's numbers, or an empty text."""
    if not tensor.numel():
        return ""
    # One pass: a comparison with isfinite would take memory of the tensor's size.
    least, most = (
        float(value) for value in tensor.aminmax()
    )  # not a number where one of them is none
    if not math.isfinite(least + most):
        return "holds numbers that are not finite"
    far = max(-least, most)
    if far > _LARGEST:
        return f"holds {far:.3g}, but no weights are larger than {_LARGEST:.0e}"
    return ""


def _checked_headers(base: Pretrained, config: Any) -> dict[str, Tensor]:
    """Return tensors without content in place of a folder's, once they are known to be such a
    model's."""
    headers = _read(base.folder, shapes_only=True)
    # Before names are mapped, which may go through as many layers as config.json claims to have.
    if isinstance(config, HasLayers) and config.layers > len(headers):
        problem = (
            f"config.json says {config.layers} layers, but the files hold {len(headers)} tensors"
        )
        raise CheckpointError(
            str(base.folder), problem, "Check that config.json belongs to these weights"
        )
    config.weights_from_huggingface(headers)
    return headers


@contextlib.contextmanager
def _named(base: Pretrained) -> Iterator[None]:
    """Say of errors which folder they are about."""
    try:
        yield
    except CheckpointError as error:
        where = str(base.folder) if error.where == "weights" else error.where
        raise CheckpointError(where, error.problem, error.remedy) from error
    # How torch fails with sizes from a damaged config.json, in words that name no file.
    except (OverflowError, RuntimeError, TypeError) as error:
        problem = f"config.json says sizes that no model has: {str(error).splitlines()[0]}"
        raise CheckpointError(str(base.folder), problem, "Fetch the model again") from error


def _read(
    folder: Path, *, shapes_only: bool = False, only: set[str] | None = None
) -> dict[str, Tensor]:
    """Return all tensors of a folder, or tensors without content in their place, of the same dtypes
    and shapes.

    With ``only`` those of these names alone.
    """
    found: dict[str, Tensor] = {}
    for name, listed in weight_files(folder).items():
        path = folder / name
        try:
            with safe_open(path, "pt") as file:
                names = file.keys()
                here = {
                    key: _shape_of(file, key) if shapes_only else file.get_tensor(key)
                    for key in names
                    if only is None or key in only
                }
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            problem = f"is damaged, or no safetensors file: {str(error).splitlines()[0]}"
            raise CheckpointError(str(path), problem, "Fetch it again") from error
        odd: list[str] = []
        # Some of the names say nothing about the index; all are compared when the headers are read.
        if listed is not None and only is None:
            odd = sorted(set(listed) ^ set(here))
        if odd:
            side = "is in it and not" if odd[0] in here else "is not in it but"
            raise CheckpointError(
                str(path), f"tensor {odd[0]} {side} in {INDEX}", "Fetch the model again"
            )
        found |= here
    return found


# Integers too: a file may hold tensors that the model does not use, such as masks, and these are
# refused only where a weight has such a type.
_CODES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def _shape_of(file: Any, key: str) -> Tensor:
    part = file.get_slice(key)
    code = part.get_dtype()
    if code not in _CODES:
        raise ValueError(f"tensor {key} is of the unknown dtype {code}")
    # Without content, so that the headers of any model fit in memory.
    return torch.empty(part.get_shape(), dtype=_CODES[code], device="meta")


def _checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of weights.

    Raises:
        CheckpointError: If the hub's library kept another one when it fetched the file.
    """
    if folder.is_file():
        return {folder.name: sha256_of(folder)}
    found = {name: sha256_of(folder / name) for name in sorted(weight_files(folder))}
    for name, sha256 in found.items():
        known = fetched_sha256(folder / name)
        if known not in (None, sha256):
            problem = (
                f"is damaged: its SHA-256 is {sha256[:12]}..., but the hub's is {known[:12]}..."
            )
            raise CheckpointError(str(folder / name), problem, "Remove it and fetch it again")
    return found


def _together(files: dict[str, str]) -> str:
    if len(files) == 1:
        return next(iter(files.values()))
    # As sha256sum prints them, so that anybody can check it with that tool.
    return hashlib.sha256(
        "".join(f"{sha}  {name}\n" for name, sha in files.items()).encode()
    ).hexdigest()
