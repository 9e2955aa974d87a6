"""The script for Slurm, run as Slurm runs it: stopped before the end of its time, and queued again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from launched import weights_digest, write_recipe
from tiny_runs import tiny_run

from groundup import api

STEPS = 400
# What the script calls, on this machine alone.
COMMANDS = {
    "srun": 'shift\nexec "$@"',
    "scontrol": '[ "$1" = show ] && echo localhost || echo "$@" >> said.txt',
    "groundup": f'exec {sys.executable} -m groundup "$@"',
}


def _run(folder: Path) -> subprocess.Popen[str]:
    place = folder / "bin"
    place.mkdir(exist_ok=True)
    for name, text in COMMANDS.items():
        (place / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        (place / name).chmod(0o755)
    own = {"SLURM_JOB_NODELIST": "a", "SLURM_NNODES": "1", "SLURM_JOB_ID": str(os.getpid())}
    path = f"{place}:{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", "asked.sbatch"],
        cwd=folder,
        env=os.environ | own | {"PATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_job_at_the_end_of_its_time_goes_on_later(tmp_path: Path) -> None:
    recipe = tiny_run("mlp", tmp_path) | {"name": "asked", "parallel": {"exact": True}}
    recipe |= {"training": {"batch_size": 16, "steps": STEPS}, "checkpoints": {"every": 20}}
    recipe["machine"] = recipe["machine"] | {"micro_batch_size": 4}
    file = write_recipe(tmp_path, recipe)
    written = subprocess.run(
        [sys.executable, "-m", "groundup", "launch", str(file), "--nproc", "2", "--to", "slurm"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert written.stdout == "Wrote asked.sbatch\n", written.stderr
    job = _run(tmp_path)
    saved = tmp_path / "runs" / "asked" / "checkpoints"
    end = time.monotonic() + 120
    while not list(saved.glob("step-*")):
        assert time.monotonic() < end
        assert job.poll() is None, job.communicate()[1]
        time.sleep(0.05)
    # Slurm sends it to every process of the step: to the launcher, who passes it on, and to each.
    for process in psutil.Process(job.pid).children(recursive=True):
        process.send_signal(signal.SIGTERM)
    _, error = job.communicate(timeout=120)
    assert "Traceback" not in error
    assert job.returncode == 130, error
    assert (tmp_path / "said.txt").read_text(encoding="utf-8") == f"requeue {os.getpid()}\n"
    again = _run(tmp_path)
    _, error = again.communicate(timeout=240)
    assert again.returncode == 0, error
    whole = api.train(recipe | {"name": "whole"}, runs=tmp_path / "runs")
    asked = tmp_path / "runs" / "asked"
    assert weights_digest(asked, STEPS) == weights_digest(whole.folder, STEPS)
