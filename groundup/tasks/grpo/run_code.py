"""Programs that a model wrote, run with their tests in a process that may do little: limits of
time, memory, files and processes, an empty folder, no environment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["passes_tests"]

_FILE_BYTES = 1 << 20
# Set inside the process itself, before the program begins: after a fork only what is safe there
# could be called, and Python is not.
_START = """
import resource, sys
memory, seconds, size = map(int, sys.argv[1:4])
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
token = sys.argv.pop()
import runpy
runpy.run_path("program.py", run_name="__main__")
with open("passed", "w") as file:
    file.write(token)
"""


def passes_tests(program: str, tests: str, *, timeout_s: float, memory_mb: int) -> bool:
    """Return whether a program runs to its end with the tests behind it.

    Limits keep an accident from spreading: endless loops, memory without end, files, processes.
    They are no wall against an attack: the network is not closed.

    Args:
        program: Python.
        tests: Python that raises where the program is wrong, such as assertions.
        timeout_s: Seconds until it is killed.
        memory_mb: What it may take.
    """
    # A program that ends itself early, or prints what tests print, has not passed: only what comes
    # after the last test writes this.
    token = os.urandom(16).hex()
    with tempfile.TemporaryDirectory(prefix="groundup-answer-") as folder:
        Path(folder, "program.py").write_text(f"{program}\n\n{tests}\n", encoding="utf-8")
        limits = (memory_mb << 20, int(timeout_s) + 1, _FILE_BYTES)
        # ``-I``: no folder of the user's is looked into for modules, and no variable is read.
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, *map(str, limits), token],
            cwd=folder,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        finally:
            # The whole session: what it may have started must not go on.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        passed = Path(folder, "passed")
        return passed.is_file() and passed.read_text(encoding="utf-8", errors="replace") == token
