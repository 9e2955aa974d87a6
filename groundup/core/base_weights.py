"""What a run starts from: another run's weights or pretrained ones, how to recognise them, and how to read them."""

from __future__ import annotations

import hashlib
import json
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from groundup.core.errors import CheckpointError, RunError
from groundup.core.gguf import read_gguf
from groundup.core.pretrained import INDEX, Pretrained, find_pretrained, notes_on, weight_files
from groundup.core.recipe import Recipe
from groundup.core.run import Run
from groundup.core.storage import sha256_of

__all__ = ["base_facts", "pretrained_weights", "read_pretrained", "weights_sha256"]

log = logging.getLogger("groundup")
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def base_facts(recipe: Recipe) -> dict[str, Any]:
    """Return what environment.json says about the weights that a run starts from.

    ``base_weights_sha256`` is of the one file of weights; of several, it is of the lines ``SHA-256  name``.
    """
    init = recipe.init
    if init.pretrained is not None:
        base = find_pretrained(init.pretrained, init.revision)
        files, notes = _checksums(base.folder), notes_on(base.folder)
        for note in notes:
            log.warning("%s", note)
        facts = {"name": base.name, "revision": base.commit, "files": files, "notes": notes}
        return {"base_weights_sha256": _together(files), "pretrained": facts}
    if init.run is None:
        return {"base_weights_sha256": None}
    run = Run.open(Path(init.run))
    return {"base_weights_sha256": weights_sha256(run, run.pick(init.checkpoint))}


def weights_sha256(run: Run, step: int) -> str:
    """Return the SHA-256 of a checkpoint's weights, as its manifest has it."""
    manifest = run.checkpoints.path(step) / "MANIFEST.json"
    return str(json.loads(manifest.read_text(encoding="utf-8"))["model.safetensors"]["sha256"])


def pretrained_weights(run: Run) -> dict[str, Tensor]:
    """Return the weights that a run starts from by the model's own names, or raise before much memory is taken.

    Raises:
        RunError: If the folder holds other weights than when the run was begun.
        CheckpointError: If the files are damaged, or are not this model's.
    """
    init = run.recipe.init
    assert init.pretrained is not None
    recorded = run.read_json("environment.json") or {}
    commit = (recorded.get("pretrained") or {}).get("revision")
    base = find_pretrained(init.pretrained, commit or init.revision)
    before = recorded.get("base_weights_sha256")
    if before is not None and _together(_checksums(base.folder)) != before:
        problem = f"was begun with other weights than {init.pretrained} holds now"
        raise RunError(str(run.folder), problem, "Restore them, or choose another name=...")
    return read_pretrained(base, cast(Any, run.recipe.model))


def read_pretrained(base: Pretrained, config: Any) -> dict[str, Tensor]:
    """Return the weights in a folder by the names of a model with ``weights_from_huggingface``, in their own dtype.

    Those in a GGUF file come in float32.
    Names, dtypes and shapes are compared with the model's before any tensor is read.

    Raises:
        CheckpointError: If a file is damaged, or a tensor is missing, left over, of another shape or no float.
    """
    if base.is_gguf:
        return read_gguf(base.folder)[1]
    try:
        headers = _read(base.folder, shapes_only=True)
        if int(getattr(config, "layers", 0)) > len(headers):
            problem = f"config.json says {config.layers} layers, and the files hold {len(headers)} tensors"
            raise CheckpointError(str(base.folder), problem, "Check that config.json belongs to these weights")
        for name, tensor in config.weights_from_huggingface(headers).items():
            if tensor.dtype not in _DTYPES:
                found = f"{str(tensor.dtype).removeprefix('torch.')}; allowed: float64, float32, float16, bfloat16"
                raise CheckpointError(str(base.folder), f"the tensor for {name} is {found}", "Use another model")
        weights: dict[str, Tensor] = config.weights_from_huggingface(_read(base.folder))
    except CheckpointError as error:
        where = str(base.folder) if error.where == "weights" else error.where
        raise CheckpointError(where, error.problem, error.remedy) from error
    except (OverflowError, RuntimeError, TypeError) as error:
        problem = f"config.json says sizes that no model has: {str(error).splitlines()[0]}"
        raise CheckpointError(str(base.folder), problem, "Fetch the model again") from error
    return weights


def _read(folder: Path, *, shapes_only: bool = False) -> dict[str, Tensor]:
    """Return all tensors of a folder, or tensors without content in their place, of the same dtypes and shapes."""
    found: dict[str, Tensor] = {}
    for name, listed in weight_files(folder).items():
        path = folder / name
        try:
            with safe_open(path, "pt") as file:
                names = file.keys()
                here = {key: _shape_of(file, key) if shapes_only else file.get_tensor(key) for key in names}
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            problem = f"is damaged, or no safetensors file: {str(error).splitlines()[0]}"
            raise CheckpointError(str(path), problem, "Fetch it again") from error
        odd = sorted(set(listed) ^ set(here)) if listed is not None else []
        if odd:
            side = "is in it and not" if odd[0] in here else "is not in it but"
            raise CheckpointError(str(path), f"tensor {odd[0]} {side} in {INDEX}", "Fetch the model again")
        found |= here
    return found


_CODES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8},
    **{"U8": torch.uint8, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2},
}


def _shape_of(file: Any, key: str) -> Tensor:
    part = file.get_slice(key)
    code = part.get_dtype()
    if code not in _CODES:
        raise ValueError(f"tensor {key} is of the unknown dtype {code}")
    return torch.empty(part.get_shape(), dtype=_CODES[code], device="meta")


def _checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of weights."""
    if folder.is_file():
        return {folder.name: _checksum(folder, *_stamp(folder))}
    return {name: _checksum(folder / name, *_stamp(folder / name)) for name in sorted(weight_files(folder))}


@lru_cache(maxsize=256)
def _checksum(path: Path, size: int, changed: int) -> str:
    return sha256_of(path)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _together(files: dict[str, str]) -> str:
    if len(files) == 1:
        return next(iter(files.values()))
    return hashlib.sha256("".join(f"{sha}  {name}\n" for name, sha in files.items()).encode()).hexdigest()
