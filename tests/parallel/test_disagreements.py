"""What is said where processes do not have the same, or do not get as much: always one sentence,
never a hang."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from launched import command, launch, said_by_ranks, weights_digest, write_recipe
from tiny_runs import tiny_run

import groundup
from groundup import api

pytestmark = pytest.mark.slow
# Compares, one after the other, what the second process of two has otherwise.
COMPARING = """
import os, sys
from pathlib import Path

rank = int(os.environ["RANK"])
if rank:
    sys.path.insert(0, sys.argv[2])

import json, torch
from groundup import api
from groundup.core.errors import TrainingError
from groundup.parallel.world import join
from groundup.recipe.recipe import load_recipe
from groundup.training import build

world = join(60, "cpu")
recipe = load_recipe(json.loads(sys.argv[1]), {"optim.lr": 0.1 * (1 + rank)})
world.arrange(recipe.parallel)
long = "x" * (3000 * rank)
assert world.gather(long, "long texts") == ["", "x" * 3000]
gradients = "gradients are added up"
cases = [
    lambda: world.add_up(torch.ones(4 + rank), gradients),
    lambda: world.gather_tensors(torch.ones(2, dtype=(torch.float32, torch.float64)[rank]), "rows"),
    lambda: world.add_up(torch.ones(4), gradients) if rank else world.gather(1, "losses"),
    lambda: build.refuse_differences(world, recipe),
    lambda: world.refuse_differences("recipe", f"{recipe.optim.lr}"),
]


def validate():
    folder = Path("runs") / recipe.name
    begun = build.open_run(world, lambda: build.freeze(api.start(recipe), world), folder)
    build.build_trainer(begun, world).evaluate(1)


cases.append(validate)
said = []
for case in cases:
    try:
        case()
    except TrainingError as error:
        said.append(str(error))
total = torch.ones(2) * (1 + rank)
world.add_up(total, gradients)
words = json.dumps({"rank": rank, "said": said, "total": total.tolist()})
# In one write: the other process says something at the same time.
os.write(1, (words + os.linesep).encode())
"""
# Registers a source whose stream is of another length, or ends, on the second process.
UNEVEN = '''
import os

from groundup.core.registry import data
from groundup.data.sources.arrays import Arrays

SECOND = os.environ.get("RANK") == "1"


class Ending:
    """A stream that a user wrote as an iterator over rows."""

    def __init__(self, stream):
        self._stream = stream
        self._left = 5

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def __iter__(self):
        return self

    def __next__(self):
        self._left -= SECOND
        if self._left < 0:
            raise StopIteration
        return next(self._stream)


@data("ending")
class EndingArrays(Arrays):
    def open(self, context):
        stream = super().open(context)
        return Ending(stream) if context.split == "train" else stream


@data("shorter")
class ShorterArrays(Arrays):
    def contents(self):
        return {}

    def examples(self, split, cache):
        found = list(super().examples(split, cache))
        return found[: 100 - SECOND * (split == "validation")]
'''
SLOW = """
import os
import time

from groundup.core.registry import task
from groundup.tasks.classify.task import Classify


@task("slow_there")
class SlowThere(Classify):
    def forward(self, model, batch):
        calls.append(1)
        if os.environ.get("RANK") == "1" and len(calls) > 6:
            time.sleep(1000)
        return super().forward(model, batch)


calls = []
"""
# The first process dies half-way through the optimizer's file of its second checkpoint.
DYING = """
import os
import signal

from groundup.core.storage import Storage

FIRST = os.environ.get("RANK") == "0" and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0"
write_bytes = Storage.write_bytes


def write_and_die(self, path, content):
    if FIRST and "step-00000040" in str(path) and path.name.startswith("optimizer"):
        path.write_bytes(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    write_bytes(self, path, content)


Storage.write_bytes = write_and_die
"""


def _torchrun(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = folder / "script.py"
    path.write_text(script, encoding="utf-8")
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [command(1)[0], *start, str(path), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_each_difference_is_named_by_both(tmp_path: Path) -> None:
    """Shapes, kinds, operations, a line of the code, a setting; afterwards both are in step."""
    copy = tmp_path / "copy"
    package = Path(groundup.__file__).parent
    shutil.copytree(package, copy / "groundup", ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "groundup" / "nn" / "attention.py").open("a", encoding="utf-8") as file:
        file.write("# changed by hand\n")
    recipe = _uneven(tmp_path, "shorter")
    done = _torchrun(tmp_path, COMPARING, json.dumps(recipe), str(copy))
    assert done.returncode == 0, done.stderr
    found = {row["rank"]: row for row in map(json.loads, done.stdout.splitlines())}
    for rank in (0, 1):
        assert found[rank]["total"] == [3.0, 3.0]
        shapes, kinds, operations, code, settings, rows = found[rank]["said"]
        start = rf"rank {rank} \(process \d+ on \S+\), the start: the processes exchange different"
        zero, one = (rf"rank {number} \(process \d+ on \S+\)" for number in (0, 1))
        added = r"gradients are added up \(float32 of shape"
        assert re.match(rf"{start} things: {zero}: {added} \(4,\)\); {one}: {added} \(5,\)", shapes)
        assert re.search(rf"{zero}: rows \(float32.*; {one}: rows \(float64 of shape", kinds)
        assert re.search(rf"{zero}: losses; {one}: gradients are added up", operations)
        assert re.match(rf"the code of groundup: {one} has another than {zero}: \w+ and", code)
        assert re.match(rf"recipe: {one} has another than {zero}: 0.2 and 0.1\.", settings)
        held_out = rf"the number of validation samples: {one} has another than {zero}: 99 and 100"
        assert re.match(held_out, rows), rows


def _uneven(folder: Path, source: str) -> dict[str, Any]:
    (folder / "uneven.py").write_text(UNEVEN, encoding="utf-8")
    recipe = tiny_run("mlp", folder) | {"name": source, "uses": ["uneven.py"]}
    recipe["machine"] = recipe["machine"] | {"micro_batch_size": 4}
    return recipe | {"data": {"name": source}}


def test_data_that_ends_on_one_process(tmp_path: Path) -> None:
    done = launch(tmp_path, 2, write_recipe(tmp_path, _uneven(tmp_path, "ending")))
    assert done.returncode == 6, done.stderr
    assert "Traceback" not in done.stderr
    other, own = sorted(said_by_ranks(done.stderr))
    ended = "training data: ended after 40 samples, but has to begin again"
    assert re.match(rf"rank 1 \(.*\), step 2, samples from 32: {ended}", own), own
    assert re.match(rf"rank 0 \(.*\), step 2, samples from 32: rank 1 \(.* ended \({ended}", other)
    # Where the process was, for whoever reads the sentence of the other one.
    folder = tmp_path / "runs" / "ending" / "failures"
    assert f"stacks are in {folder.relative_to(tmp_path)}" in other
    assert "take_batch" in (folder / "rank-1-attempt-0.txt").read_text(encoding="utf-8")


def test_data_of_another_content_on_one_machine(tmp_path: Path) -> None:
    """Each process has a working folder of its own, as two machines have."""
    recipe = tiny_run("gpt", tmp_path) | {"name": "data"}
    text = Path(recipe["data"]["path"]).read_text(encoding="utf-8")
    for rank in (0, 1):
        folder = tmp_path / f"machine-{rank}"
        folder.mkdir()
        # One letter, so that nothing but the content differs.
        (folder / "texts.jsonl").write_text(text.replace("O", "QO"[rank], 1), encoding="utf-8")
    recipe["data"] = recipe["data"] | {"path": "texts.jsonl"}
    code = (
        "import os, json, sys\n"
        "os.chdir('machine-' + os.environ['RANK'])\n"
        "from groundup import api\n"
        "api.train(json.loads(sys.argv[1]), runs=sys.argv[2])\n"
    )
    done = _torchrun(tmp_path, code, json.dumps(recipe), str(tmp_path / "runs"))
    assert done.returncode != 0
    # PyTorch's launcher may print the error once more.
    assert re.search(
        r"DataError: rank 1 \(.*\), the start: .*data: the data has changed since this run began:"
        r" train/texts.jsonl has other content",
        done.stderr,
    ), done.stderr
    assert not (tmp_path / "runs" / "data" / "checkpoints").exists()


def test_a_slow_process_is_named_with_what_it_does(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    recipe = tiny_run("mlp", tmp_path) | {"name": "slow", "uses": ["slow.py"]}
    recipe |= {"task": {"name": "slow_there"}, "parallel": {"timeout_s": 5}}
    # Without an answer in time the whole would take as long as the sleep, more than is waited for.
    done = launch(tmp_path, 2, write_recipe(tmp_path, recipe | {"machine": {}}))
    assert done.returncode == 6, done.stderr
    first, second = said_by_ranks(done.stderr)
    assert re.match(r"rank 0 \(.*\), step \d+, samples from \d+: rank 1 \(.*\) did not", first)
    # It would sleep on, and the agent would wait for it.
    assert re.match(r"rank 1 \(.*\), step \d+, .*: rank 0 \(.*\) is gone, and what", second)
    stacks = tmp_path / "runs" / "slow" / "failures" / "rank-1-attempt-0.txt"
    assert re.search(r'File ".*slow.py", line \d+ in forward', stacks.read_text(encoding="utf-8"))


def test_a_process_that_dies_while_it_writes_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(DYING, encoding="utf-8")
    recipe = tiny_run("mlp", tmp_path) | {"training": {"batch_size": 16, "steps": 60}}
    recipe |= {"parallel": {"exact": True}, "checkpoints": {"every": 20}}
    # Killed in the thread that writes, while the steps go on.
    recipe["checkpoints"] |= {"asynchronous": True}
    recipe["machine"] = recipe["machine"] | {"micro_batch_size": 4}
    whole = api.train(recipe | {"name": "whole"}, runs=tmp_path / "runs")
    path = write_recipe(tmp_path, recipe | {"name": "dies", "uses": ["dying.py"]})
    done = launch(tmp_path, 2, path, restarts=1)
    assert done.returncode == 0, done.stderr
    # Whoever did not notice would wait until the agent ends it, without a word.
    (said,) = said_by_ranks(done.stderr)
    assert re.match(r"rank 1 \(.*\), step \d+, .*: rank 0 \(.*\) did not answer while", said), said
    assert "dies: resumed from the checkpoint of step 20" in done.stderr
    dies = tmp_path / "runs" / "dies"
    assert weights_digest(dies, 60) == weights_digest(whole.folder, 60)
    assert not list((dies / "checkpoints").glob(".step-*"))
