"""How long ``groundup --help`` takes, and that it does not load torch.

Run ``python benchmarks/startup.py``. Starts the command installed next to this Python seven times
after one uncounted start, and prints the median wall time. Another start records every import;
torch among them is an error.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["main"]

STARTS = 7


def console_script() -> Path:
    """Return the ``groundup`` command next to this Python."""
    script = Path(sys.executable).with_name("groundup")
    if not script.is_file():
        raise SystemExit(
            f"{script} is missing; install the project with: {sys.executable} -m pip install -e ."
        )
    return script


def seconds(script: Path) -> float:
    """Return the wall time of one start."""
    begin = time.perf_counter()
    subprocess.run([str(script), "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def imported(script: Path) -> set[str]:
    """Return the names of all modules that ``groundup --help`` imports."""
    command = [sys.executable, "-X", "importtime", str(script), "--help"]
    log = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    return {
        line.rpartition("|")[2].strip()
        for line in log.splitlines()
        if line.startswith("import time:")
    }


def main() -> None:
    """Measure, print and check."""
    script = console_script()
    times = [seconds(script) for _ in range(STARTS + 1)][1:]
    figures = f"median {statistics.median(times):.3f} s, {min(times):.3f} to {max(times):.3f}"
    print(f"groundup --help: {figures} ({STARTS} starts)")
    modules = imported(script)
    if "groundup.cli.main" not in modules:
        raise SystemExit("the record of imports lacks groundup.cli.main, so it proves nothing")
    if "torch" in modules:
        raise SystemExit("groundup --help imports torch; find out where with: python -X importtime")
    print(f"{len(modules)} modules imported, torch not among them")


if __name__ == "__main__":
    main()
