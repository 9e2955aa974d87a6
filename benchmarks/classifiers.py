"""The five starting programs against Keras 3 and a hand-written PyTorch loop: test accuracy, and
seconds an epoch.

Run
``python benchmarks/classifiers.py MNIST [--peer tensorflow=PYTHON] [--peer jax=PYTHON] [--peer torch=PYTHON]``, where MNIST is a folder with the four idx files and each PYTHON is an interpreter with Keras 3 and that backend. The
plain loop (``loop``) runs in this interpreter. All get the same training examples (those that ours
trains on) and the same test set; ways take turns, seed by seed. Ours is timed as users run it: the
whole command ``groundup train``, its log and progress included.

``--programs mlp_1024,cnn``, ``--seeds 3``, ``--epochs 3`` (instead of each program's own),
``--no-loop`` (where only accuracy is asked for), ``--save``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers.programs import BATCH, PROGRAMS

from groundup.data.sources.arrays import Arrays
from groundup.machine.devices import describe_machine

__all__ = ["main"]

HERE = Path(__file__).parent
RECIPES = HERE.parent / "recipes" / "classic"


def main() -> None:
    """Run every program in every way and print medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--peer", action="append", default=[], help="backend=python with Keras 3")
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--no-loop", action="store_true", help="leave the plain loop out")
    parser.add_argument("--save", action="store_true", help="write results/<date>-classifiers.json")
    given = parser.parse_args()
    peers = dict(each.split("=", 1) for each in given.peer)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "data.npz"
        steps_per_epoch = _write(given.data, table)
        for program in given.programs.split(","):
            epochs = given.epochs or PROGRAMS[program][3]
            for seed in range(given.seeds):
                for way in ("ours", *([] if given.no_loop else ["loop"]), *peers):
                    ran = _run(
                        way, peers, program, seed, epochs, Path(folder), given.data, steps_per_epoch
                    )
                    found.setdefault(program, {}).setdefault(way, []).append(ran)
                    print(
                        program,
                        way,
                        seed,
                        {k: _short(v) for k, v in ran.items()},
                        file=sys.stderr,
                        flush=True,
                    )
    print(_table(found))
    if given.save:
        path = HERE / "results" / f"{datetime.date.today()}-classifiers.json"
        path.write_text(
            json.dumps({"machine": describe_machine(), "found": found}, indent=1) + "\n",
            encoding="utf-8",
        )


def _write(data: Path, table: Path) -> int:
    """Write the examples that ours trains on, and the test set; return the steps of an epoch."""
    source, arrays = Arrays(path=str(data)), {}
    for split in ("train", "test"):
        examples = source.examples(split, Path())  # type: ignore[arg-type]
        arrays |= {f"x_{split}": np.stack([e.inputs for e in examples]).reshape(len(examples), -1)}
        arrays |= {f"y_{split}": np.array([e.target for e in examples])}
    np.savez(table, **arrays)
    return -(-len(arrays["x_train"]) // BATCH)


def _run(
    way: str,
    peers: dict[str, str],
    program: str,
    seed: int,
    epochs: int,
    folder: Path,
    data: Path,
    steps: int,
) -> dict[str, Any]:
    if way == "ours":
        return _ours(program, seed, epochs, folder, data, steps)
    python, kind = (sys.executable, "torch") if way == "loop" else (peers[way], "keras")
    command = [
        python,
        str(HERE / "peers" / "programs.py"),
        kind,
        str(folder / "data.npz"),
        program,
        str(seed),
        str(epochs),
    ]
    environment = {
        **os.environ,
        "KERAS_BACKEND": way,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": "",
    }
    out = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    ran: dict[str, Any] = json.loads(out.stdout.splitlines()[-1])
    return ran


def _ours(
    program: str, seed: int, epochs: int, folder: Path, data: Path, steps: int
) -> dict[str, Any]:
    name = f"{program}-{seed}"
    keys = [
        f"name={name}",
        f"data.path={data}",
        f"seed={seed}",
        f"training.epochs={epochs}",
        f"logging.every={steps}",
    ]
    keys += ["evaluation.every=1000000", "checkpoints.every=1000000"]
    command = [sys.executable, "-m", "groundup"]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*command, "train", str(RECIPES / f"{program}.yaml"), *keys, "--runs", str(folder)],
        stderr=subprocess.DEVNULL,
    )
    log, first = folder / name / "metrics.jsonl", 0.0
    while process.poll() is None:
        time.sleep(0.05)
        if not first and log.is_file() and f'"step": {steps},' in log.read_text(encoding="utf-8"):
            first = time.perf_counter() - begin
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    at = {row["step"]: row["elapsed_s"] for row in rows if row["kind"] == "train"} | {0: 0.0}
    epochs_s = [
        at[n * steps] - at[(n - 1) * steps] for n in range(1, epochs + 1) if n * steps in at
    ]
    subprocess.run([*command, "evaluate", str(folder / name)], check=True, capture_output=True)
    evaluated = json.loads((folder / name / "evaluation.json").read_text(encoding="utf-8"))
    return {"accuracy": evaluated["metrics"]["accuracy"], "epochs_s": epochs_s, "first_s": first}


def _table(found: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    lines = [
        (
            "| program | way | test accuracy | seconds an epoch | ours / way | start to end of"
            " first epoch |"
        ),
        "|---|---|---|---|---|---|",
    ]
    for program, ways in found.items():
        ours = _epoch(ways["ours"])
        for way, runs in ways.items():
            accuracy = 100 * statistics.mean(run["accuracy"] for run in runs)
            first = statistics.median(run["first_s"] for run in runs)
            ratio = _epoch(runs) / ours
            lines.append(
                f"| {program} | {way} | {accuracy:.2f}% | {_epoch(runs):.2f} | {ratio:.2f}x |"
                f" {first:.1f} s |"
            )
    return "\n".join(lines)


def _epoch(runs: list[dict[str, Any]]) -> float:
    """Return the median seconds of the epochs after the first, or of all where there is one."""
    times = [seconds for run in runs for seconds in run["epochs_s"][1:]] or [
        run["epochs_s"][0] for run in runs
    ]
    return statistics.median(times)


def _short(value: Any) -> Any:
    return [round(v, 2) for v in value] if isinstance(value, list) else round(value, 4)


if __name__ == "__main__":
    main()
