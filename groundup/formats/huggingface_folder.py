"""Pretrained weights: folders in Hugging Face layout, on the disk or fetched from the hub, and GGUF
files.

Nothing in such a folder is ever run: no pickle is opened, and code that its config names is
ignored.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from groundup.core.errors import CheckpointError, MissingExtraError, RecipeError, did_you_mean

__all__ = [
    "INDEX",
    "Pretrained",
    "fetched_sha256",
    "find_pretrained",
    "labels_in",
    "notes_on",
    "read_config",
    "read_object",
    "weight_files",
]

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
GGUF = ".gguf"
FETCHED = (  # and nothing else: no pickle, no code, no copies of the weights in other formats
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    SINGLE,
    INDEX,
    "model-*-of-*.safetensors",
)
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CONVERT = (
    "Convert it once, where nothing else is at stake, with transformers, which writes safetensors:"
    " AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER), and the tokenizer"
    " likewise"
)


@dataclass(frozen=True)
class Pretrained:
    """A folder of pretrained weights, or a GGUF file.

    Attributes:
        name: As the recipe names it: a folder, a GGUF file, or a name of the hub.
        folder: Where its files are, or the GGUF file.
        commit: The hub's commit, or None for a folder of the user's.
    """

    name: str
    folder: Path
    commit: str | None = None

    @property
    def is_gguf(self) -> bool:
        """Whether it is one GGUF file."""
        return self.folder.suffix == GGUF and self.folder.is_file()


def find_pretrained(name: str, revision: str | None = None, *, weights: bool = True) -> Pretrained:
    """Return a folder or a GGUF file of the user's, or fetch a model of the hub to the cache of
    `huggingface_hub`.

    An existing folder comes before a name of the hub. HF_ENDPOINT, HF_HOME, HF_TOKEN and
    HF_HUB_OFFLINE are respected.

    Args:
        name: A path, or a name such as ``"HuggingFaceTB/SmolLM2-135M"``.
        revision: A branch, tag or commit of the hub's; None for the newest.
        weights: Fetch everything that a run needs, not only config.json.

    Raises:
        RecipeError: If there is no such folder or file, or ``revision`` has no effect.
        CheckpointError: If the hub does not give it.
        MissingExtraError: If `huggingface_hub` is not installed.
    """
    folder = Path(name).expanduser()
    if folder.suffix == GGUF and not folder.exists():
        near = did_you_mean(str(folder), [str(path) for path in folder.parent.glob(f"*{GGUF}")])
        raise RecipeError(
            "recipe.init.pretrained",
            f"there is no file {name}; {near}",
            "Give the path of a GGUF file",
        )
    if folder.is_dir() or folder.suffix == GGUF:
        if revision is not None:
            kind = "folder" if folder.is_dir() else "file"
            problem = f"has no effect: {name} is a {kind}, but only the hub has revisions"
            raise RecipeError("recipe.init.revision", problem, "Remove it")
        return Pretrained(name, folder)
    if not _NAME.fullmatch(name):
        nearby = [str(path) for path in folder.parent.glob("*")]
        problem = (
            f"there is no folder {name}; {did_you_mean(str(folder), nearby)}and it is no name of"
            " the hub either"
        )
        raise RecipeError(
            "recipe.init.pretrained", problem, "Give a folder, or a name such as owner/model"
        )
    fetched = _fetch_snapshot(name, revision, ("config.json", "preprocessor_config.json"))
    # the library's cache names folders by commit; a mirror of one's own may not
    commit = fetched.name if _COMMIT.fullmatch(fetched.name) else None
    if weights:
        # of that very commit, though the branch may have moved since
        fetched = _fetch_snapshot(name, commit or revision, FETCHED)
    return Pretrained(name, fetched, commit)


@lru_cache(maxsize=32)
def _fetch_snapshot(name: str, revision: str | None, files: tuple[str, ...]) -> Path:
    """Return where the hub's library keeps these files; once a process, so that all of a run is of
    one commit."""
    try:
        import huggingface_hub
    except ImportError:
        raise MissingExtraError("huggingface_hub", "pretrained") from None
    try:
        return Path(
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(files))
        )
    except Exception as error:
        # the library lets errors of its HTTP client through
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0].rstrip(".")
        first = _REACH
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            first = "HF_HUB_OFFLINE is set: only what was fetched before is there; unset it"
        remedy = f"{first}. Or fetch the model elsewhere and give its folder: pretrained: ./folder"
        problem = f"no such folder, and the hub does not have it: {reason}"
        raise CheckpointError(
            f"{name} (revision {revision or 'newest'})", problem, remedy
        ) from error


_REACH = "Check the name and the network; HF_ENDPOINT names a mirror, HF_TOKEN opens gated models"


# ------------------------------------------------------------------------------------------- config
def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        CheckpointError: If it is missing or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            str(path), "no such file", "Give a folder in Hugging Face layout"
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(
            str(path), f"cannot be read as JSON: {error}", "Fetch the model again"
        ) from None
    if not isinstance(found, dict):
        raise CheckpointError(str(path), "holds no JSON object", "Fetch the model again")
    return found


def labels_in(folder: Path) -> tuple[str, ...]:
    """Return the names of the classes that the weights in a folder tell apart, by config.json; ()
    without any."""
    names = read_config(folder).get("id2label")
    if not isinstance(names, dict) or not all(str(key).isdecimal() for key in names):
        return ()
    return tuple(str(names[key]) for key in sorted(names, key=int))


def read_config(folder: Path) -> dict[str, Any]:
    """Return the contents of config.json.

    Raises:
        CheckpointError: If it is missing or damaged, or the weights are of a kind that cannot be
            trained.
    """
    path = folder / "config.json"
    config = read_object(path)
    quantization = config.get("quantization_config")
    if quantization:
        named = isinstance(quantization, dict)
        method = quantization.get("quant_method", "?") if named else quantization
        problem = f"the weights are quantized ({method}); allowed: fp64, fp32, fp16 and bf16"
        raise CheckpointError(str(path), problem, "Use the model that was quantized")
    return config


def notes_on(folder: Path) -> list[str]:
    """Return what a reader should know about a folder: code that it names, which is not run."""
    notes = []
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file() and "auto_map" in read_object(path):
            notes.append(f"{path} names code of its own (auto_map), which is not run")
    return notes


# ------------------------------------------------------------------------------------------ weights
def weight_files(folder: Path) -> dict[str, list[str] | None]:
    """Return the weights' files by name, each with the tensors that the index places in it, or None
    without an index.

    Raises:
        CheckpointError: If there are none, or some are missing.
    """
    if (folder / SINGLE).is_file():
        return {SINGLE: None}
    if not (folder / INDEX).is_file():
        raise _no_weights(folder)
    path = folder / INDEX
    files: dict[str, list[str]] = {}
    places = read_object(path).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(str(path), "has no weight_map", "Fetch the model again")
    for tensor, file in places.items():
        # a path would lead out of the folder
        if not isinstance(file, str) or not re.fullmatch(r"[\w\-][\w.\-]*\.safetensors", file):
            problem = (
                f"places {tensor} in {file!r}; allowed: a .safetensors file of the same folder"
            )
            raise CheckpointError(str(path), problem, "Fetch the model again")
        files.setdefault(file, []).append(tensor)
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        problem = (
            f"{len(missing)} of {len(files)} files that {INDEX} names are missing:"
            f" {', '.join(missing[:3])}"
        )
        raise CheckpointError(str(folder), problem, "Fetch them too")
    return {**files}


def fetched_sha256(path: Path) -> str | None:
    """Return a file's SHA-256 as the hub gave it when the file was fetched, or None where that is
    not known.

    The library's cache names files by it; next to files fetched to a folder it keeps notes, which
    count as long as the file is not newer.
    """
    names = []
    if path.is_symlink():
        names.append(path.resolve().name)
    notes = path.parent / ".cache" / "huggingface" / "download" / f"{path.name}.metadata"
    if notes.is_file():
        # commit, digest and time of the download; small files have a Git digest of 40 letters
        lines = notes.read_text(encoding="utf-8", errors="replace").split()
        if len(lines) == 3 and re.fullmatch(r"\d+(\.\d+)?", lines[2]):
            # file systems keep times with different precision
            unchanged = path.stat().st_mtime <= float(lines[2]) + 1
            names += lines[1:2] * unchanged
    return next((name for name in names if re.fullmatch(r"[0-9a-f]{64}", name)), None)


def _no_weights(folder: Path) -> CheckpointError:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    pickled = [name for name in names if name.endswith(PICKLED)]
    other = [name for name in names if name.endswith(".safetensors")]
    if other:
        problem = (
            f"holds {', '.join(other[:3])}, but neither {SINGLE} nor {INDEX}, which says what is in"
            " which file"
        )
        return CheckpointError(str(folder), problem, "Fetch the model again, with its index")
    if pickled:
        problem = (
            f"holds its weights as pickle only ({', '.join(pickled[:3])}), which can run code when"
            " it is opened"
        )
        return CheckpointError(str(folder), problem, _CONVERT)
    remedy = (
        f"Fetch {SINGLE} too. If the model comes as *.bin only: {_CONVERT[0].lower()}{_CONVERT[1:]}"
    )
    return CheckpointError(str(folder), f"holds no weights: neither {SINGLE} nor {INDEX}", remedy)
