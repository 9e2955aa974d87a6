"""A run that is killed leaves no process behind, neither its data workers nor what started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_leaves_no_processes(recipe: dict[str, Any], tmp_path: Path, sent: signal.Signals) -> None:
    recipe["budget"]["steps"], recipe["machine"]["workers"] = 1_000_000, 2
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "groundup", "train", str(tmp_path / "recipe.yaml"), "--runs", str(tmp_path / "r")]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 120
    while len(children) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
        children = psutil.Process(process.pid).children(recursive=True)
    time.sleep(1)
    assert len(children) >= 2, "the workers never started"
    process.send_signal(sent)
    process.wait(30)
    _, alive = psutil.wait_procs(children, timeout=4)  # torch's own watch takes five seconds, and more
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
