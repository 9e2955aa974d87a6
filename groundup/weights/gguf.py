"""Models in GGUF files, the format of llama.cpp: read and written by what each model declares.

One file holds the weights, the shape of the model, its tokenizer and its chat template.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from groundup.contracts.models import FromGGUF, ModelConfig
from groundup.contracts.processors import Processor, ReadsGGUF, TextProcessor, WritesGGUF
from groundup.core.errors import CheckpointError, GroundupError, did_you_mean
from groundup.core.registry import lookup
from groundup.core.registry import names as registered_names
from groundup.core.settings import validate
from groundup.core.storage import Storage
from groundup.formats.gguf import GGUFFile, open_gguf
from groundup.formats.gguf_blocks import KINDS, dequantize
from groundup.formats.gguf_writer import WRITABLE, quantize, write_gguf
from groundup.formats.model_types import as_gguf, gguf_model_of

__all__ = [
    "model_in",
    "read_gguf",
    "read_gguf_processor",
    "rounded",
    "save_gguf",
]

_OTHER = "Download it again, or use another model"
_FILE_TYPES = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q8_0": 7,
    "BF16": 32,
}  # llama.cpp's number of each, for display


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], Processor]:
    """Return a model: its settings, its weights by groundup's names in float32, and its tokenizer.

    Names and shapes are checked before any weight is read, and weights are read one at a time.

    Raises:
        CheckpointError: If the file is damaged, of an architecture or tokenizer that is not built
            here, or lacks a tensor, has one too many, or one of another shape than its metadata
            says.

    Example:
        >>> path = Path("SmolLM2-135M-Instruct.Q4_1.gguf")
        >>> settings, weights, processor = read_gguf(path)  # doctest: +SKIP
        >>> model = GPTConfig(**settings).build()  # doctest: +SKIP
        >>> model.load_state_dict(weights)  # doctest: +SKIP
    """
    return _read_all(path)[1:]


def _read_all(path: Path) -> tuple[ModelConfig, dict[str, Any], dict[str, Tensor], Processor]:
    file = open_gguf(path)
    try:
        cls = lookup("model", gguf_model_of(file))
        settings = cls.from_gguf(file)
        processor = _processor_of(file.metadata)
        config = validate(cls, settings, "metadata")
        _check_tensors(file, config.gguf_shapes())
        rows = config.embedding_rows
        # More rows than tokens are usual, since embeddings are padded. A token without a row would
        # fail only in the text that first has it.
        if processor.vocabulary_size > rows:
            raise CheckpointError(
                "tokenizer.ggml.tokens",
                f"has {processor.vocabulary_size} tokens, but the embedding {rows} rows",
                _OTHER,
            )
        architecture = str(file.metadata["general.architecture"])
        weights = config.weights_from_gguf(_Weights(file), architecture)
    # Whatever failed knows the key or tensor; which file it is in is known only here.
    except GroundupError as error:
        raise CheckpointError(str(path), f"{error.where} {error.problem}", error.remedy) from None
    return config, settings, weights, processor


def model_in(path: Path) -> nn.Module:
    """Return the model in a file, from the file alone, its weights in float32.

    Raises:
        CheckpointError: If the file cannot be read.
    """
    config, _, weights, _ = _read_all(path)
    model = config.build()
    model.load_state_dict(weights)
    return model.eval()


def read_gguf_processor(path: Path, end_token: str | None = None) -> Processor:
    """Return the tokenizer in a file, with its chat template.

    Args:
        path: The file.
        end_token: The token that ends a text, where it is another one than the file says.

    Raises:
        CheckpointError: If the file is damaged, or its tokenizer is none that is read here.
        DataError: If there is no such token.
    """
    metadata = open_gguf(path).metadata
    try:
        return _processor_of(metadata, end_token)
    except CheckpointError as error:
        raise CheckpointError(str(path), f"{error.where} {error.problem}", error.remedy) from None


def _processor_of(metadata: Mapping[str, Any], end_token: str | None = None) -> TextProcessor:
    """Return the tokenizer in a file, read by the first registered processor that knows its
    kind."""
    kind = metadata.get("tokenizer.ggml.model")
    known: dict[str, str] = {}
    # By the registry, so that a processor of the user's own may read a kind of its own.
    for name in registered_names("processor"):
        settings = lookup("processor", name)
        if isinstance(settings, ReadsGGUF):
            if kind in settings.gguf_models:
                return settings.from_gguf(metadata, end_token)
            known |= settings.gguf_models
    read = ", ".join(f"{value!r} ({meaning})" for value, meaning in known.items())
    raise CheckpointError(
        "tokenizer.ggml.model",
        f"is {kind!r}; read are {read}",
        "Use another file of this model, or give its tokenizer apart",
    )


def rounded(config: FromGGUF, weights: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Return weights as they come back from a file that stores matrices as ``kind``."""
    # By way of the file's layout: how a tensor is stored depends on its name and shape there.
    metadata, tensors = config.to_gguf(weights)
    there: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stored = KINDS[_kind(name, tensor, kind)]
        numbers = dequantize(quantize(tensor.detach().cpu().float().numpy(), stored), stored)
        there[name] = torch.from_numpy(numbers).view(tensor.shape)
    return config.weights_from_gguf(there, metadata["general.architecture"])


def save_gguf(
    path: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    processor: Processor,
    kind: str = "F16",
    name: str = "",
    storage: Storage | None = None,
) -> None:
    """Write a model to a GGUF file that llama.cpp and its like open.

    Args:
        path: Where to; the folder exists.
        config: Of a model that GGUF files have a place for.
        weights: By groundup's names.
        processor: Its tokenizer, a byte-level BPE or SentencePiece's.
        kind: How matrices are stored: F32, F16, BF16, Q8_0 or Q4_0. Norms and biases stay F32,
            matrices whose rows do not divide into blocks become F16, and the embedding and the
            output layer have at least 8 bits, as llama.cpp does it.
        name: The model's name, for display.
        storage: The file system.

    Raises:
        CheckpointError: If no GGUF architecture has the model's parts, its tokenizer has no place
            in such a file, or the file could not be written.
    """
    if kind not in WRITABLE:
        raise CheckpointError(
            "kind",
            f"{kind!r} cannot be written; {did_you_mean(kind, WRITABLE)}allowed:"
            f" {', '.join(WRITABLE)}",
            "Choose one of these",
        )
    model = as_gguf(config)
    metadata, tensors = model.to_gguf(weights)
    metadata |= {"general.file_type": _FILE_TYPES[kind], "general.quantization_version": 2}
    if not isinstance(processor, WritesGGUF):
        raise CheckpointError(
            "processor",
            f"{type(processor).__name__} has no place in a GGUF file; a BPE tokenizer has",
            "Keep it in the project's own layout",
        )
    metadata |= processor.to_gguf(model.embedding_rows, name)
    write_gguf(
        path,
        metadata,
        tensors,
        {n: _kind(n, tensor, kind) for n, tensor in tensors.items()},
        storage,
    )


def _kind(name: str, tensor: Tensor, kind: str) -> str:
    if tensor.ndim == 1:
        return "F32"
    if kind == "Q4_0" and name in ("token_embd.weight", "output.weight"):
        kind = "Q8_0"
    return "F16" if tensor.shape[-1] % KINDS[kind].values else kind


def _check_tensors(file: GGUFFile, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if name not in file.tensors:
            raise CheckpointError("tensors", f"lack {name!r}, with shape {list(shape)}", _OTHER)
        found = file.tensors[name].shape
        if found != shape:
            raise CheckpointError(
                f"tensor {name!r}",
                f"has shape {list(found)}; the metadata says {list(shape)}",
                _OTHER,
            )
    # One tensor too many means a part that is not built here: without it the model would write
    # something else.
    left = sorted(set(file.tensors) - set(shapes))
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        raise CheckpointError(
            "tensors", f"hold {', '.join(left[:3])}{more}, which such a model has not", _OTHER
        )


class _Weights(Mapping[str, Tensor]):
    """The file's tensors, each read when it is asked for."""

    def __init__(self, file: GGUFFile) -> None:
        self._file = file

    def __getitem__(self, name: str) -> Tensor:
        numbers = self._file.read(name)
        # Numbers of a quantized block share a scale: one flipped bit of it spoils them all.
        if not np.isfinite(numbers).all():
            raise CheckpointError(f"tensor {name!r}", "holds numbers that are not finite", _OTHER)
        return torch.from_numpy(numbers)

    def __contains__(self, name: object) -> bool:
        return name in self._file.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.tensors)

    def __len__(self) -> int:
        return len(self._file.tensors)
