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
from typing import TYPE_CHECKING, Any

from groundup.core.errors import CheckpointError, MissingExtraError, RecipeError, did_you_mean
from groundup.core.settings import as_path

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "GENERATION",
    "INDEX",
    "SINGLE",
    "Pretrained",
    "fetched_sha256",
    "find_pretrained",
    "index_of",
    "kind_of",
    "labels_in",
    "read_config",
    "read_object",
    "read_tensors",
    "weight_files",
]

GENERATION = "generation_config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER = "adapter_config.json"
GGUF = ".gguf"
# What a recipe is filled in from: how pictures are prepared, how texts become vectors.
DESCRIBED = (
    "config.json",
    "preprocessor_config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "*_Pooling/config.json",
)
FETCHED = (  # and nothing else: no pickle, no code, no copies of the weights in other formats
    *DESCRIBED,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    SINGLE,
    INDEX,
    "model-*-of-*.safetensors",
)
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Keys of config.json that say how many there are of what is built one by one.
_COUNTS = re.compile(r"(^|_)(n_layers?|layers|blocks|experts|hidden_groups|stages|depth)$")
_MANY = 1000  # fewer of anything are built in a moment
_MOST = 10_000  # layers or experts; far more than any model has
_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")
# One of the files that several processes wrote, or what says which tensor is in which of them.
_PART = re.compile(r"^(\w+)(?:-\d{5}-of-\d{5}\.safetensors|\.safetensors\.index\.json)$")
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
    folder = as_path(name)
    if folder.suffix == GGUF and not folder.exists():
        near = did_you_mean(str(folder), [str(path) for path in folder.parent.glob(f"*{GGUF}")])
        raise RecipeError(
            "recipe.init.pretrained",
            f"there is no file {name}; {near}allowed: a GGUF file that exists",
            "Correct the path",
        )
    if folder.is_dir() or folder.suffix == GGUF:
        if revision is not None:
            kind = "folder" if folder.is_dir() else "file"
            raise RecipeError(
                "recipe.init.revision",
                f"has no effect: {name} is a {kind}, but only the hub has revisions",
                "Remove it",
            )
        return Pretrained(name, folder)
    if not _NAME.fullmatch(name):
        nearby = [str(path) for path in folder.parent.glob("*")]
        raise RecipeError(
            "recipe.init.pretrained",
            f"there is no folder {name}; {did_you_mean(str(folder), nearby)}and it is no name of"
            " the hub either",
            "Give a folder, or a name such as owner/model",
        )
    fetched = _fetch_snapshot(name, revision, DESCRIBED)
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
        raise CheckpointError(
            f"{name} (revision {revision or 'newest'})",
            f"no such folder, and the hub does not have it: {reason}",
            f"{first}. Or fetch the model elsewhere and give its folder: pretrained: ./folder",
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
    if not path.is_file() and (folder / ADAPTER).is_file():
        base = read_object(folder / ADAPTER).get("base_model_name_or_path")
        raise CheckpointError(
            str(folder),
            f"holds an adapter ({ADAPTER}) and no model",
            f"Start from its base ({base}), and set adapter: {{path: {folder}}}",
        )
    config = read_object(path)
    quantization = config.get("quantization_config") or config.get("compression_config")
    if quantization:
        named = isinstance(quantization, dict)
        method = quantization.get("quant_method", "?") if named else quantization
        raise CheckpointError(
            str(path),
            f"the weights are quantized ({method}); allowed: fp64, fp32, fp16 and bf16",
            "Use the model that was quantized",
        )
    _check_counts(folder, config)
    return config


def _check_counts(folder: Path, config: dict[str, Any]) -> None:
    """Make sure that config.json claims no more layers or experts than there can be, before they
    are built.

    Raises:
        CheckpointError: If it does.
    """
    for key, value in config.items():
        if isinstance(value, dict):
            _check_counts(folder, value)
        if not _COUNTS.search(key) or type(value) is not int or value <= _MANY:
            continue
        stored = _count_tensors(folder)
        if value > (_MOST if stored is None else stored):
            problem = f"says {key} {value}, but no model has more than {_MOST}"
            if stored is not None:
                problem = f"says {key} {value}, but the files hold {stored} tensors"
            raise CheckpointError(
                str(folder / "config.json"),
                problem,
                "Check that config.json belongs to these weights",
            )


def _count_tensors(folder: Path) -> int | None:
    """Return how many tensors the weights of a folder are, or None where they are not there."""
    if (folder / INDEX).is_file():
        return len(read_object(folder / INDEX).get("weight_map") or ())
    if not (folder / SINGLE).is_file():
        return None
    # Read when weights are: a damaged file is said better then.
    with (folder / SINGLE).open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            return len(json.loads(file.read(min(size, 100 * 2**20))).keys() - {"__metadata__"})
        except (ValueError, AttributeError):
            return None


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
            raise CheckpointError(
                str(path),
                f"places {tensor} in {file!r}; allowed: a .safetensors file of the same folder",
                "Fetch the model again",
            )
        files.setdefault(file, []).append(tensor)
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            str(folder),
            f"{len(missing)} of {len(files)} files that {INDEX} names are missing:"
            f" {', '.join(missing[:3])}",
            "Fetch them too",
        )
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


# --------------------------------------------------------------------- one file, or several
def kind_of(name: str) -> str:
    """Return what a file of a folder would be called if one process had written it."""
    part = _PART.match(name)
    return name if part is None else f"{part[1]}.safetensors"


def index_of(name: str) -> str:
    """Return the name of the file that says which tensors are where; Hugging Face's layout."""
    return f"{name}.index.json"


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """Return the tensors of a file, or of the several files that its index names; none without
    either.

    They are mapped: whoever uses a part of them reads that part.
    """
    # Whoever only looks at names and configurations does without PyTorch.
    from safetensors.torch import load_file

    if (folder / name).exists():
        return load_file(folder / name)
    if not (folder / index_of(name)).exists():
        return {}
    places = json.loads((folder / index_of(name)).read_bytes())["weight_map"]
    found: dict[str, Tensor] = {}
    for file in sorted(set(places.values())):
        found |= load_file(folder / file)
    return {tensor: found[tensor] for tensor in places}
