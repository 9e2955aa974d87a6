"""llama.cpp, through the library ``xllamacpp``, in a process of its own.

It shares its threads' library with PyTorch, and where both have threads in one process each takes
them from the other: llama.cpp then writes at two thirds of its speed, and PyTorch computes at half
of its own. Nor does a fault in it end the program. The process reads a line of JSON for each
request and writes one for each answer; it ends with its input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

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
    """A GGUF file opened by llama.cpp on the CPU.

    Args:
        path: The file.
        context: The most tokens of a text, what is written included. Memory for their keys and
            values is taken at once.
        threads: How many it computes with.
        remedy: What to do about an error.
        exact: Keep keys and values in float32 and compute attention without its fused kernel, which
            rounds; otherwise both are llama.cpp's defaults, which are faster.

    Raises:
        MissingExtraError: If the library is not installed.
        CheckpointError: If it does not open the file.
    """

    def __init__(
        self, path: Path, context: int, threads: int, remedy: str, *, exact: bool = True
    ) -> None:
        library = require_llama_cpp()
        self.name = f"llama.cpp (xllamacpp {library.__version__})"
        self.context = context
        self.remedy = remedy
        # of the last request
        self._number = 0
        self._process = subprocess.Popen(
            # -P: no code from the working folder
            [sys.executable, "-P", "-m", __name__],
            # the modules that are imported here, wherever they were found
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # the library logs each request
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            # Ctrl-C is the program's business: it ends this process when it is done with it
            start_new_session=True,
        )
        weakref.finalize(self, _end_process, self._process)
        opened = self._ask(
            {"path": str(path), "context": context, "threads": threads, "exact": exact}
        )
        if "error" in opened:
            raise CheckpointError(self.name, f"does not open {path}: {opened['error']}", remedy)

    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request for a completion.

        Raises:
            CheckpointError: If there is none.
        """
        answer = self._ask(request)
        if "choices" not in answer:
            raise CheckpointError(self.name, f"answers {str(answer)[:200]}", self.remedy)
        return answer

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to this request, and not to one before it that was interrupted."""
        self._number += 1
        to = self._process.stdin
        answers = self._process.stdout
        assert to is not None
        assert answers is not None
        try:
            to.write(json.dumps([self._number, request]) + "\n")
            to.flush()
            # what answers a request that Ctrl-C interrupted comes first
            for line in answers:
                number, answer = json.loads(line)
                if number == self._number:
                    return dict(answer)
        except BrokenPipeError:
            pass
        raise CheckpointError(
            self.name, f"ended with exit code {self._process.wait()}", self.remedy
        )


def _end_process(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
    # its input has ended, so it ends by itself, unless a computation in it hangs
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# ------------------------------------------------------------------------------------------------
# in the process itself
def _make_settings(library: Any, path: str, context: int, threads: int, exact: bool) -> Any:
    settings = library.CommonParams()
    settings.model.path = path
    settings.n_ctx = context
    settings.n_parallel = 1
    settings.n_gpu_layers = 0
    settings.verbosity = -1
    # a pass to warm up, and a trial of how much memory there is: seconds at each start
    settings.warmup = settings.fit_params = settings.enable_chat_template = False
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    if exact:
        # both round: the cache to 16 bits, the fused kernel what it adds up
        settings.cache_type_k = settings.cache_type_v = library.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = library.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return settings


def _serve() -> None:
    """Answer every request of standard input; the first one says what to open."""
    library = require_llama_cpp()
    server = None
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # what the library prints is no answer
    os.dup2(2, 1)
    for line in sys.stdin:
        number, request = json.loads(line)
        found: list[Any] = []
        if server is None:
            try:
                server = library.Server(_make_settings(library, **request))
                found.append({})
            except RuntimeError as error:
                found.append({"error": str(error)})
        else:
            server.handle_completions(json.dumps(request), found.append)
        # some versions of the library give JSON
        answer = json.loads(found[0]) if isinstance(found[0], str | bytes) else found[0]
        answers.write(json.dumps([number, answer]) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
