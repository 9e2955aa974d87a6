"""How long ``groundup --help`` takes, and that it does not load torch; how long a first step takes.

Run ``python benchmarks/startup.py``. Starts the command installed next to this Python seven times
after one uncounted start, and prints the median wall time. Another start records every import;
torch among them is an error.

With ``--first-step`` it starts the quickstart's pretraining instead, in a new folder of runs, and
takes the time until the first step is in its metrics: once with an empty cache, where the text is
cleaned, tokenized and written to shards, then with what that left.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["main"]

STARTS = 7
FIRST_STEPS = 3
QUICKSTART = Path(__file__).parents[1] / "recipes" / "quickstart" / "pretrain.yaml"


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


def seconds_to_first_step(folder: Path, name: str) -> tuple[float, float]:
    """Return the wall time, and the time on the processor, from the command to the first row of
    metrics of a new run."""
    command = [sys.executable, "-m", "groundup", "train", str(QUICKSTART), "--runs", str(folder)]
    command += [f"name={name}", "logging.every=1"]
    metrics = folder / name / "metrics.jsonl"
    environment = {**os.environ, "GROUNDUP_CACHE": str(folder / "cache")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not metrics.is_file() or not metrics.stat().st_size:
            if process.poll() is not None:
                raise SystemExit(f"it ended before its first step: {' '.join(command)}")
            time.sleep(0.01)
        wall = time.perf_counter() - begin
    finally:
        process.kill()
        process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_first_steps() -> None:
    """Print how long a first step takes."""
    with tempfile.TemporaryDirectory() as folder:
        times = [seconds_to_first_step(Path(folder), f"run-{n}") for n in range(FIRST_STEPS + 1)]
    for what, place in (("wall time", 0), ("time on the processor", 1)):
        cold, *warm = (each[place] for each in times)
        figures = f"then median {statistics.median(warm):.1f} s, {min(warm):.1f} to {max(warm):.1f}"
        print(
            f"first step of {QUICKSTART.name}, {what}: {cold:.1f} s with an empty cache, {figures}"
        )


def main() -> None:
    """Measure, print and check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first-step", action="store_true", help="time the first step instead")
    if parser.parse_args().first_step:
        measure_first_steps()
        return
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
