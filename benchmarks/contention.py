"""What waiting threads cost on a machine that does other work too: how OpenMP's threads should wait.

Run ``python benchmarks/contention.py [--rounds 5] [--save]``: about seven minutes on two cores.
PyTorch splits each product among threads that wait for each other by spinning. Next to another busy
process a spinning thread holds the core that the thread it waits for needs. The policy is read from the environment when torch is
loaded, so each policy has a process of its own, all open at once, and they take turns: one
optimizer step after the other of the quickstart's pretraining (its model and optimizer, random
tokens, two threads), quiet, next to one process that never sleeps, and next to three.

Every turn is compared with the turn of ``today`` (no variable set) in the same round; a row shows
medians over the rounds. ``groundup`` is what ``import groundup`` chooses
(``groundup/machine/threads.py``).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["main"]

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "quickstart" / "pretrain.yaml"
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
POLICIES: dict[str, dict[str, str]] = {
    "today": {},
    "groundup": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    **{f"spin {count}": {"GOMP_SPINCOUNT": str(count)} for count in (100, 300, 1000, 3000, 10000)},
}
DEFAULT = ("today", "groundup", "passive", "spin 300", "spin 3000")
LOADS = {0: "quiet", 1: "next to one busy process", 3: "next to three busy processes"}
BARS = {0: 0.94, 1: 1.8, 3: 4.0}  # what ``groundup`` has to reach, in rates of ``today``
VOCABULARY = 8192  # of the recipe's tokenizer, which is not trained here


# ------------------------------------------------------------------------- the process of a policy
def serve(threads: int, precision: str, torch_first: bool) -> None:
    """Answer on standard output: for each line with a number of seconds, the steps done in them."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if not torch_first:
        import groundup  # noqa: F401  # before torch, which reads the policy when it is loaded
    import torch

    from groundup.machine import devices
    from groundup.recipe.recipe import load_recipe
    from groundup.training.optimizers import build_optimizers

    recipe = load_recipe(RECIPE)
    length, batch = recipe.model.context_length, recipe.training.batch_size
    machine = recipe.machine.model_copy(
        update={"threads": threads, "precision": precision, "device": "cpu"}
    )
    machine = devices.resolve(machine, batch, 1e12, 1)
    devices.prepare(machine)
    torch.manual_seed(0)
    model = recipe.model.model_copy(update={"vocabulary_size": VOCABULARY}).build().train()
    products = devices.product_dtype(machine)
    optimizer = build_optimizers(recipe.optim, model.named_parameters(), products=products)
    parameters = list(model.parameters())
    source = torch.Generator().manual_seed(0)

    def step() -> None:
        tokens = torch.randint(VOCABULARY, (batch, length + 1), generator=source)
        with devices.autocast(machine):
            total = model(tokens[:, :-1], targets=tokens[:, 1:])
        total.backward()
        torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], 1 / tokens.numel())
        optimizer.set_lr(1e-4)
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(2):  # kernels are built and buffers made
        step()
    policy = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    ready = {"precision": machine.precision, "tokens": batch * length, "policy": policy}
    print(json.dumps(ready), file=replies)
    replies.flush()
    for line in sys.stdin:
        begin, steps = time.perf_counter(), 0
        while steps < 2 or time.perf_counter() - begin < float(line):
            step()
            steps += 1
        print(json.dumps({"steps": steps, "s": time.perf_counter() - begin}), file=replies)
        replies.flush()


class Policy:
    """A process with one policy, which works only while it is asked to."""

    def __init__(self, name: str, threads: int, precision: str) -> None:
        self.name = name
        environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
        command = [sys.executable, str(Path(__file__).resolve()), "--serve", str(threads)]
        command += ["--precision", precision]
        if name == "today":
            command.append("--torch-first")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, **POLICIES[name]},
        )
        ready = self._answer()
        self.precision = str(ready["precision"])
        self.tokens = int(ready["tokens"])
        # not at the top: there it would choose a policy in the process of "today" too
        from groundup.machine.threads import SPIN_COUNT

        chosen = {"GOMP_SPINCOUNT": str(SPIN_COUNT)}
        wanted = chosen if name == "groundup" else POLICIES[name]
        if ready["policy"] != wanted:
            raise SystemExit(f"{name!r} runs with {ready['policy']}, but should with {wanted}")

    def rate(self, seconds: float) -> float:
        """Return tokens per second over at least ``seconds`` and two steps."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        done = self._answer()
        return float(done["steps"] * self.tokens / done["s"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self.name!r} ended early; its message is above")
        return dict(json.loads(line))

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Run processes that never sleep."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(
    names: list[str], loads: list[int], rounds: int, seconds: float, threads: int
) -> tuple[str, dict[int, dict[str, list[float]]]]:
    """Return the precision, and by load and policy the rate of each round."""
    policies = [Policy("today", threads, "auto")]
    precision = policies[0].precision
    try:
        policies += [Policy(name, threads, precision) for name in names if name != "today"]
        rates = {load: {policy.name: [0.0] * 0 for policy in policies} for load in loads}
        for turn in range(rounds):
            for load in loads:
                with busy(load):
                    first = turn % len(policies)  # nobody always follows the same one
                    for policy in policies[first:] + policies[:first]:
                        time.sleep(0.3)  # the one before has gone to sleep
                        rates[load][policy.name].append(policy.rate(seconds))
            print(f"round {turn + 1} of {rounds} done", file=sys.stderr)
    finally:
        for policy in policies:
            policy.close()
    return precision, rates


def summarise(rates: dict[int, dict[str, list[float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return by load and policy the median rate, and the median of its ratios to ``today``."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for load, found in rates.items():
        rows[LOADS[load]] = {
            name: {
                "tokens_per_s": statistics.median(values),
                "ratio": statistics.median(
                    value / today for value, today in zip(values, found["today"], strict=True)
                ),
            }
            for name, values in found.items()
        }
    return rows


def show(rows: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print the table: tokens per second, and times today's."""
    names = list(next(iter(rows.values())))
    print(f"{'':12}" + "".join(f"{title:>30}" for title in rows))
    for name in names:
        cells = (
            f"{row[name]['tokens_per_s']:,.0f} ({row[name]['ratio']:.2f})" for row in rows.values()
        )
        print(f"{name:12}" + "".join(f"{cell:>30}" for cell in cells))


def save(content: dict[str, Any]) -> Path:
    """Write what was measured to ``results/<date>-contention-<precision>.json`` next to this file."""
    name = f"{content['date']}-contention-{content['settings']['precision']}.json"
    path = Path(__file__).resolve().parent / "results" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def main() -> None:
    """Read the command line, measure, print, compare with the bars and perhaps save."""
    parser = argparse.ArgumentParser(description="How OpenMP's threads should wait.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="the least time of a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(DEFAULT))
    parser.add_argument("--loads", nargs="+", type=int, choices=LOADS, default=list(LOADS))
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="auto", help=argparse.SUPPRESS)
    parser.add_argument("--torch-first", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.precision, given.torch_first)
        return
    load_before = os.getloadavg()[0]
    precision, rates = measure(
        given.policies, given.loads, given.rounds, given.seconds, given.threads
    )
    rows = summarise(rates)
    print(f"tokens/s (times today's), {given.threads} threads, {precision}, {given.rounds} rounds")
    show(rows)
    reached = {
        LOADS[load]: rows[LOADS[load]]["groundup"]["ratio"] >= bar
        for load, bar in BARS.items()
        if load in given.loads and "groundup" in given.policies
    }
    for title, good in reached.items():
        print(f"{title}: {'reached' if good else 'MISSED'}")
    if given.save:
        content = {
            "date": datetime.date.today().isoformat(),
            "cores": len(os.sched_getaffinity(0)),
            "load_before": load_before,
            "settings": {
                "threads": given.threads,
                "seconds": given.seconds,
                "precision": precision,
            },
            "summary": rows,
            "rates": {LOADS[load]: found for load, found in rates.items()},
            "bars": {LOADS[load]: bar for load, bar in BARS.items()},
            "reached": reached,
        }
        print("saved", save(content))


if __name__ == "__main__":
    main()
