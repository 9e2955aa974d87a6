"""Try on purpose, and often, what goes wrong with a run on several processes.

Processes are killed and stopped at random moments, data sets are uneven, runs go on with another
number of processes. Prints a table; the exit code is 1 if anything was not as it has to be. What is
done is kept in a JSON file, and the same command goes on from there.

    make campaign-parallel
    python scripts/campaign_parallel.py --share 0.1
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors.torch import load_file
from torch import Tensor

from groundup.recipe.yaml import dump_yaml

ROOT = Path(__file__).parent.parent
ALONE = (sys.executable, "-m", "groundup", "train")
RUNNING_AGAIN_S = 15.0
TIMEOUT_S = 8.0
NAMED_S = TIMEOUT_S + 5.0
# As long as two dozen failures last, at some hundred steps a second.
STEPS = 4000
FAILURES_A_RUN = 10
KINDS = ("kills", "stops", "uneven", "fewer", "streams")
COUNTS = {"kills": 100, "stops": 50, "uneven": 50, "fewer": 20, "streams": 10}
# Writes down which samples came, in their order: micro-batch k of rank r is number k * size + r.
RECORDING = """
import hashlib
import os

from groundup.core.registry import task
from groundup.tasks.classify.task import Classify

RANK = int(os.environ.get("RANK", "0"))
SIZE = int(os.environ.get("WORLD_SIZE", "1"))
calls = []


@task("recorded")
class Recorded(Classify):
    def forward(self, model, batch):
        if model.training:
            number = len(calls) * SIZE + RANK
            calls.append(number)
            content = b"".join(batch[key].numpy().tobytes() for key in sorted(batch))
            with open(os.environ["SAMPLES"] + f"-{RANK}", "a") as file:
                file.write(f"{number} {hashlib.sha256(content).hexdigest()}\\n")
        return super().forward(model, batch)
"""


class Campaign:
    """What was tried so far, kept in a file.

    Args:
        folder: For runs and their recipes.
        results: The file.
        share: Of the whole numbers, how much.
        seed: Of what is random.
    """

    def __init__(self, folder: Path, results: Path, share: float, seed: int) -> None:
        self.folder = folder
        self._results = results
        self._share = share
        self.random = random.Random(seed)
        self.found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        if results.is_file():
            self.found |= json.loads(results.read_text(encoding="utf-8"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recording.py").write_text(RECORDING, encoding="utf-8")

    def wanted(self, kind: str) -> int:
        """Return how many of a kind are to be tried."""
        return max(1, round(COUNTS[kind] * self._share))

    def left(self, kind: str) -> int:
        """Return how many of a kind are still to be tried."""
        return self.wanted(kind) - len(self.found[kind])

    def add(self, kind: str, **facts: Any) -> None:
        """Take note of one try, and write all down."""
        self.found[kind].append(facts)
        self._results.write_text(json.dumps(self.found, indent=1), encoding="utf-8")
        print(f"{kind} {len(self.found[kind])} of {self.wanted(kind)}: {facts}", flush=True)

    def write_recipe(self, name: str, **sections: Any) -> Path:
        """Write the recipe of a small network on pictures of digits, and remove its last run."""
        recipe = {
            "name": name,
            "model": {"name": "mlp", "hidden": [24]},
            "task": "classify",
            "processor": "image",
            "data": "arrays",
            "optim": {"lr": 0.003, "schedule": "constant"},
            "training": {"batch_size": 12, "steps": 12},
            "machine": {"device": "cpu", "precision": "fp32", "threads": 1, "micro_batch_size": 1},
            "parallel": {"exact": True, "timeout_s": 60},
            "logging": {"every": 1},
            **sections,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(dump_yaml(recipe), encoding="utf-8")
        shutil.rmtree(self.folder / "runs" / name, ignore_errors=True)
        return path

    def run(self, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the campaign's folder, and return what it said."""
        return subprocess.run(
            list(map(str, command)),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=1800,
            env={**os.environ, **environment},
        )

    def weights(self, name: str, step: int) -> str:
        """Return the digest of a run's weights, in however many files they are; of no checkpoint
        the empty text."""
        folder = self.folder / "runs" / name / "checkpoints" / f"step-{step:08d}"
        tensors: dict[str, Tensor] = {}
        for path in folder.glob("model*.safetensors"):
            tensors |= load_file(path)
        digest = hashlib.sha256()
        for key in sorted(tensors):
            digest.update(key.encode() + tensors[key].numpy().tobytes())
        return digest.hexdigest() if tensors else ""


def launch(processes: int, restarts: int = 0) -> tuple[str, ...]:
    """Return the beginning of a command that trains on so many processes."""
    start = ("launch", "--nproc", str(processes), "--restarts", str(restarts))
    return (sys.executable, "-m", "groundup", *start)


# ------------------------------------------------------------------------------ killed and stopped
class Launched:
    """A run that is being trained by processes which are hurt.

    Args:
        campaign: Whose.
        name: Of the run.
        timeout_s: After which a process is named.
    """

    def __init__(self, campaign: Campaign, name: str, timeout_s: float) -> None:
        sections = {
            "training": {"batch_size": 16, "steps": STEPS},
            "machine": {
                "device": "cpu",
                "precision": "fp32",
                "threads": 1,
                "micro_batch_size": 4,
            },
            "checkpoints": {"every": 50},
            "evaluation": {"every": 500},
            "logging": {"every": 5},
        }
        parallel = {"exact": True, "timeout_s": timeout_s}
        recipe = campaign.write_recipe(name, **sections, parallel=parallel)
        self._metrics = campaign.folder / "runs" / name / "metrics.jsonl"
        self._process = subprocess.Popen(
            [*launch(2, restarts=1000), str(recipe)],
            cwd=campaign.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[tuple[float, str]] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said.append((time.monotonic(), line))

    @property
    def ended(self) -> bool:
        """Whether all of it has ended."""
        return self._process.poll() is not None

    def ranks(self) -> dict[int, psutil.Process]:
        """Return the processes that train now."""
        found: dict[int, psutil.Process] = {}
        # The launcher, or one of them, may end just now.
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._process.pid).children():
                with contextlib.suppress(psutil.Error):
                    environment = child.environ()
                    if "RANK" in environment and "train" in child.cmdline():
                        found[int(environment["RANK"])] = child
        return found

    def wait_for_steps(self, known: dict[int, psutil.Process]) -> bool:
        """Wait until two processes that are not known log a step; False if all ends before."""
        size = None
        while not self.ended:
            now = self.ranks()
            other = not {each.pid for each in now.values()} & {each.pid for each in known.values()}
            if len(now) == 2 and other:
                # What those before have logged does not count.
                size = self._size() if size is None else size
                if self._size() > size:
                    return True
            time.sleep(0.05)
        return False

    def cpu_s(self) -> float:
        """Return the time that the processes which train now have computed since they began."""
        used = 0.0
        for process in self.ranks().values():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                used += times.user + times.system
        return used

    def _size(self) -> int:
        return self._metrics.stat().st_size if self._metrics.exists() else 0

    def end(self) -> int:
        """Wait for its end, and return the exit code."""
        return self._process.wait()


def hurt(campaign: Campaign, kind: str, undisturbed: str) -> None:
    """Kill or stop a random process at random moments, over runs of their own, until there were
    as many as wanted.

    Args:
        campaign: Takes note.
        kind: ``kills`` or ``stops``.
        undisturbed: The digest of the weights at the end of a run that nothing happened to.
    """
    number = 0
    while (left := campaign.left(kind)) > 0:
        number += 1
        name = f"{kind}-{number}"
        # A stopped process has to be waited for; of a killed one all know at once.
        run = Launched(campaign, name, TIMEOUT_S if kind == "stops" else 60.0)
        tries = []
        going = run.wait_for_steps({})
        while going and len(tries) < min(left, FAILURES_A_RUN):
            time.sleep(campaign.random.uniform(0.0, 2.0))
            ranks = run.ranks()
            if len(ranks) < 2:
                break
            rank = campaign.random.choice(sorted(ranks))
            begin = time.monotonic()
            facts: dict[str, Any] = {"rank": rank}
            if kind == "kills":
                ranks[rank].kill()
            else:
                ranks[rank].suspend()
                named = _wait_until_named(run, rank, ranks[rank].pid, begin)
                facts["named_s"] = None if named is None else round(named - begin, 2)
                begin = time.monotonic() if named is None else named
            going = run.wait_for_steps(ranks)
            facts["again_s"] = round(time.monotonic() - begin, 2) if going else None
            # What a machine with nothing else to do would need, all on one core.
            facts["again_cpu_s"] = round(run.cpu_s(), 2)
            tries.append(facts)
        code = run.end()
        same = code == 0 and campaign.weights(name, STEPS) == undisturbed
        for facts in tries:
            campaign.add(kind, **facts, same_weights=same)
        if not tries:
            raise SystemExit(f"{name} ended with code {code} before anything could be tried")


def _wait_until_named(run: Launched, rank: int, number: int, begin: float) -> float | None:
    """Return when a process was named, or None after a minute."""
    sentence = re.compile(rf"^rank \d+ .*rank {rank} \(process {number} on \S+\) did not answer")
    while time.monotonic() - begin < 60:
        for moment, line in list(run.said):
            if moment > begin and sentence.match(line):
                return moment
        time.sleep(0.02)
    return None


# ---------------------------------------------------------------------------------- uneven data
def try_uneven(campaign: Campaign) -> None:
    """Train on data sets whose rows no number of processes shares evenly, many in one launch; the
    metrics have to be those of one process."""
    while (left := campaign.left("uneven")) > 0:
        done = len(campaign.found["uneven"])
        recipes = []
        for place in range(min(left, 10)):
            rows = campaign.random.randint(9, 60)
            held_out = campaign.random.randint(1, 9)
            path = campaign.folder / f"uneven-{done + place}.npz"
            noise = np.random.default_rng(done + place)
            count = rows + held_out
            pictures = noise.integers(0, 16, (count, 8, 8)).astype(np.uint8)
            # Each class is there from the first rows on.
            np.savez(path, x=pictures, y=np.arange(count) % 3)
            data = {"name": "arrays", "path": str(path), "fraction": held_out / count}
            sections = {"data": data, "training": {"batch_size": 6, "epochs": 2}}
            recipes.append(campaign.write_recipe(path.stem, **sections))
        processes = campaign.random.choice((2, 3))
        together = campaign.run(*launch(processes), *recipes)
        kept = {each: _metrics_of(campaign, each.stem) for each in recipes}
        for each in recipes:
            shutil.rmtree(campaign.folder / "runs" / each.stem, ignore_errors=True)
        campaign.run(*ALONE, *recipes)
        for each in recipes:
            alone = _metrics_of(campaign, each.stem)
            same = bool(alone) and np.allclose(kept[each], alone, rtol=1e-5, atol=0.0)
            campaign.add("uneven", processes=processes, code=together.returncode, same=same)


def _metrics_of(campaign: Campaign, name: str) -> list[float]:
    path = campaign.folder / "runs" / name / "metrics.jsonl"
    if not path.is_file():
        return []
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [row["loss"] for row in rows if row["kind"] in ("train", "evaluate")]


# -------------------------------------------------------------------- other numbers of processes
def try_fewer(campaign: Campaign) -> None:
    """Stop runs on several processes in mid-run, and go on with them on fewer."""
    pairs = [(4, 3), (4, 2), (4, 1), (3, 2), (3, 1), (2, 1)]
    models: dict[str, dict[str, Any]] = {
        "mlp": {"name": "mlp", "hidden": [24]},
        "cnn": {"name": "cnn", "channels": [4], "hidden": [8], "batch_norm": False},
        "vit": {"name": "vit", "patch": 2, "layers": 1, "width": 12, "heads": 2, "dropout": 0.1},
        "narrow": {"name": "mlp", "hidden": [8, 8], "dropout": 0.2},
    }
    whole = {name: campaign.write_recipe(f"whole-{name}", model=models[name]) for name in models}
    if campaign.left("fewer") > 0:
        campaign.run(*ALONE, *whole.values())
    while (left := campaign.left("fewer")) > 0:
        done = len(campaign.found["fewer"])
        before, after = pairs[done // len(models) % len(pairs)]
        chosen = list(models)[: min(left, len(models))]
        recipes = [
            campaign.write_recipe(f"fewer-{done}-{name}", model=models[name]) for name in chosen
        ]
        campaign.run(*launch(before), *recipes, "training.steps=5")
        second = ALONE if after == 1 else launch(after)
        code = campaign.run(*second, *recipes).returncode
        for name, recipe in zip(chosen, recipes, strict=True):
            expected = campaign.weights(whole[name].stem, 12)
            same = code == 0 and campaign.weights(recipe.stem, 12) == expected != ""
            campaign.add("fewer", before=before, after=after, model=name, same_weights=same)


def try_streams(campaign: Campaign) -> None:
    """Change the number of processes in mid-run, more or fewer: samples and weights have to be
    those of one process."""
    pairs = [(one, other) for one in (1, 2, 4) for other in (1, 2, 4)] + [(3, 5)]
    for before, after in pairs[len(campaign.found["streams"]) : campaign.wanted("streams")]:
        batch = 15 if (before, after) == (3, 5) else 12
        sections = {
            "task": {"name": "recorded"},
            "uses": ["recording.py"],
            "training": {"batch_size": batch, "steps": 10},
        }
        whole = campaign.write_recipe(f"stream-whole-{batch}", **sections)
        changed = campaign.write_recipe(f"stream-{before}-{after}", **sections)
        for old in campaign.folder.glob("samples-*"):
            old.unlink()
        campaign.run(*ALONE, whole, SAMPLES="samples-whole")
        for processes, steps, part in ((before, 4, "first"), (after, 10, "second")):
            start = ALONE if processes == 1 else launch(processes)
            campaign.run(*start, changed, f"training.steps={steps}", SAMPLES=f"samples-{part}")
        expected = list(_samples(campaign, "whole"))
        found = [*_samples(campaign, "first"), *_samples(campaign, "second")]
        weights = campaign.weights(changed.stem, 10)
        campaign.add(
            "streams",
            before=before,
            after=after,
            same_samples=found == expected and len(found) == 10 * batch,
            same_weights=weights == campaign.weights(whole.stem, 10) != "",
        )


def _samples(campaign: Campaign, part: str) -> Iterator[str]:
    """Yield the digests of what came in one part of a run, in the order of the samples."""
    numbered = []
    for path in campaign.folder.glob(f"samples-{part}-*"):
        for line in path.read_text(encoding="utf-8").splitlines():
            number, digest = line.split()
            numbered.append((int(number), digest))
    yield from (digest for _, digest in sorted(numbered))


# ------------------------------------------------------------------------------------- the table
def _slowest(tries: list[dict[str, Any]], key: str) -> float:
    return max((each[key] if each[key] is not None else np.inf for each in tries), default=np.inf)


def print_table(campaign: Campaign) -> bool:
    """Print what was found next to what has to be; return whether all of it is so."""
    rows: list[tuple[str, str, str, bool]] = []

    def count(kind: str, said: str, holds: Callable[[dict[str, Any]], bool]) -> None:
        tries = campaign.found[kind]
        good = sum(map(holds, tries))
        rows.append((said, f"{good} of {len(tries)}", "all", good == len(tries) > 0))

    again, named = _slowest(campaign.found["kills"], "again_s"), 0.0
    count("kills", "kills: the same weights at the end", lambda each: each["same_weights"])
    rows.append(
        (
            "kills: running again after at most",
            f"{again:.1f} s",
            f"{RUNNING_AGAIN_S:g} s",
            again <= RUNNING_AGAIN_S,
        )
    )
    named = _slowest(campaign.found["stops"], "named_s")
    limit = f"{NAMED_S:g} s"
    rows.append(("stops: named after at most", f"{named:.1f} s", limit, named <= NAMED_S))
    count("stops", "stops: the same weights at the end", lambda each: each["same_weights"])
    count("uneven", "uneven data: no hang, as one process", lambda e: e["same"] and not e["code"])
    count("fewer", "on fewer processes: the same weights", lambda each: each["same_weights"])
    count("streams", "another number: the same samples", lambda each: each["same_samples"])
    count("streams", "another number: the same weights", lambda each: each["same_weights"])
    for said, found, limit, good in rows:
        print(f"{said:44} {found:>12}   {limit:>6}   {'good' if good else 'NOT GOOD'}")
    return all(good for *_, good in rows)


def main() -> int:
    """Try what is left, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the whole numbers")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "campaign-parallel")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = given.folder.resolve()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    campaign = Campaign(folder, folder / "results.json", given.share, given.seed)
    if campaign.left("kills") > 0 or campaign.left("stops") > 0:
        calm = Launched(campaign, "undisturbed", 60.0)
        if calm.end():
            raise SystemExit(
                "the undisturbed run failed: " + "".join(line for _, line in calm.said)
            )
        for kind in ("kills", "stops"):
            hurt(campaign, kind, campaign.weights("undisturbed", STEPS))
    try_uneven(campaign)
    try_fewer(campaign)
    try_streams(campaign)
    return 0 if print_table(campaign) else 1


if __name__ == "__main__":
    sys.exit(main())
