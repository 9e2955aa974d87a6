"""llama.cpp, through the library ``xllamacpp``, imported only where it is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from groundup.core.errors import CheckpointError, MissingExtraError

__all__ = ["LlamaServer", "require_llama_cpp"]


def require_llama_cpp() -> Any:
    """Return the library.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import xllamacpp
    except ImportError:
        raise MissingExtraError("xllamacpp", "gguf") from None
    return xllamacpp


class LlamaServer:
    """A GGUF file opened by llama.cpp, in this process and on the CPU, its keys and values in float32.

    Args:
        path: The file.
        context: The most tokens of a text, what is written included. Memory for their keys and values is taken at once.
        remedy: What to do about an error.

    Raises:
        MissingExtraError: If the library is not installed.
        CheckpointError: If it does not open the file.
    """

    def __init__(self, path: Path, context: int, remedy: str) -> None:
        library = require_llama_cpp()
        self.name, self.context, self.remedy = f"llama.cpp (xllamacpp {library.__version__})", context, remedy
        settings = library.CommonParams()
        settings.model.path, settings.n_ctx = str(path), context
        settings.n_parallel, settings.n_gpu_layers, settings.verbosity = 1, 0, -1
        settings.warmup = settings.fit_params = settings.enable_chat_template = False
        settings.cache_type_k = settings.cache_type_v = library.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = library.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = torch.get_num_threads()
        try:
            self._server = library.Server(settings)
        except RuntimeError as error:
            raise CheckpointError(self.name, f"does not open {path}: {error}", remedy) from error

    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request for a completion.

        Raises:
            CheckpointError: If there is none.
        """
        found: list[Any] = []
        self._server.handle_completions(json.dumps(request), found.append)
        answer: dict[str, Any] = json.loads(found[0]) if isinstance(found[0], str | bytes) else found[0]
        if "choices" not in answer:
            raise CheckpointError(self.name, f"answers {str(answer)[:200]}", self.remedy)
        return answer
