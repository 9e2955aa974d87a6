"""Every way of fine-tuning on real instructions: the loss of held-out answers before and after,
memory, and time.

Run ``python benchmarks/finetuning_methods.py MODEL --data NAME=FILE [--data ...]``, where MODEL is
a folder or a GGUF file of a language model with a chat template, such as SmolLM2-135M-Instruct, and
each FILE holds conversations. Questions about Python (``python_questions``) need no file and are
always there. Each run is a process of its own.

``--methods lora,dora,nf4,int8,full``, ``--steps 12``, ``--rows 4``, ``--length 192``,
``--threads 1``, ``--save``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import groundup
from groundup.machine.devices import describe_machine

__all__ = ["main"]

METHODS: dict[
    str, tuple[dict[str, Any] | None, float]
] = {  # the adapter's section, and a learning rate
    "lora": ({"name": "lora"}, 2e-3),
    "dora": ({"name": "dora"}, 2e-3),
    "nf4": ({"name": "lora", "base": "nf4"}, 2e-3),
    "int8": ({"name": "lora", "base": "int8"}, 2e-3),
    "full": (None, 1e-4),
}


def main() -> None:
    """Run every method on every data set and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--data", action="append", default=[], help="name=file of conversations")
    parser.add_argument("--methods", default="lora,dora,nf4,full")
    for name, default in {
        "steps": 12,
        "rows": 4,
        "length": 192,
        "threads": 1,
        "judged": 24,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument(
        "--save", action="store_true", help="write results/<date>-finetuning-methods.json"
    )
    given = parser.parse_args()
    if given.one:
        print(json.dumps(_run(given, *given.one.split("\t"))))
        return
    sources = {**dict(each.split("=", 1) for each in given.data), "python_questions": ""}
    found = [
        _apart(name, file, way)
        for name, file in sources.items()
        for way in given.methods.split(",")
    ]
    if given.save:
        path = (
            Path(__file__).parent / "results" / f"{datetime.date.today()}-finetuning-methods.json"
        )
        settings = {
            key: value
            for key, value in vars(given).items()
            if key not in ("model", "data", "one", "save")
        }
        path.write_text(
            json.dumps({"machine": describe_machine(), **settings, "runs": found}, indent=1) + "\n"
        )


def _apart(name: str, file: str, way: str) -> dict[str, Any]:
    command = [sys.executable, *sys.argv, "--one", "\t".join((name, file, way))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{name:18} {way:5} held-out loss {result['before']:.3f} -> {result['after']:.3f}   "
        f"peak {result['peak_mb']:.0f} MB   {result['cpu_s_per_update']:.2f} CPU s an update",
        flush=True,
    )
    return result


def _run(given: argparse.Namespace, name: str, file: str, way: str) -> dict[str, Any]:
    adapter, rate = METHODS[way]
    source: dict[str, Any] = {"name": "conversations", "path": file} if file else {"name": name}
    source["packing"] = {"too_long": "drop"}
    recipe = {
        **{
            "name": f"{name}-{way}",
            "init": {"pretrained": given.model},
            "model": {"context_length": given.length},
        },
        **{"task": "chat", "data": {**source, "fraction": 0.1}},
        "optim": {"lr": rate, "warmup_steps": 3, "schedule": "linear", "weight_decay": 0.0},
        "training": {"batch_size": given.rows, "steps": given.steps},
        "logging": {"every": given.steps},
        "evaluation": {"every": 10**6},
        "checkpoints": {"every": 10**6},
        "machine": {
            "device": "cpu",
            "precision": "fp32",
            "compile": False,
            "threads": given.threads,
        },
    }
    if adapter is not None:
        recipe["adapter"] = adapter
    with tempfile.TemporaryDirectory() as folder:
        trainer = groundup.trainer(recipe, runs=Path(folder))
        before = trainer.evaluate(given.judged)["loss"]
        start = time.process_time()
        for _ in trainer.steps():
            pass
        spent = (time.process_time() - start) / given.steps
        after = trainer.evaluate(given.judged)["loss"]
        trainer.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        **{"data": name, "method": way, "before": before, "after": after},
        **{"peak_mb": peak, "cpu_s_per_update": spent, "learning_rate": rate},
    }


if __name__ == "__main__":
    main()
