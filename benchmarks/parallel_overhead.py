"""What training on several processes costs next to plain PyTorch that does the same, and next to one
process alone.

Run ``torchrun --standalone --nproc-per-node 2 benchmarks/parallel_overhead.py [--rounds 7] [--steps 4]``
with ``OMP_NUM_THREADS=1``. The quickstart's model and optimizer, eight rows a process, one thread each.
These take turns, a few steps at a time:

- one process alone with eight rows, a plain loop, while the others wait;
- DistributedDataParallel and FSDP2 in the same plain loop, on all processes;
- groundup with ``parallel.replicate`` and with ``parallel.shard`` of all processes.

A plain loop has its batches in memory, the same optimizer, and clips with ``clip_grad_norm_``. Each
turn is compared with the other one of the same round; medians over the rounds are printed.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from groundup.api import start
from groundup.parallel.world import World, join
from groundup.recipe.recipe import load_recipe
from groundup.training import build
from groundup.training.accumulation import TaskObjective
from groundup.training.optimizers import build_optimizers
from groundup.training.trainer import Trainer

__all__ = ["main"]

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "quickstart" / "pretrain.yaml"
ROWS = 8  # of a process


def open_trainer(world: World, axis: str, optimizer: str, runs: Path) -> Trainer:
    """Return the trainer of a run whose work is divided along one axis."""
    changes = {
        "name": f"{axis}-{world.size}",
        "training.batch_size": ROWS * world.size,
        "machine.micro_batch_size": ROWS,
        "machine.precision": "fp32",
        "machine.threads": 1,
        "machine.device": "cpu",
        "optim.name": optimizer,
        "optim.lr": 1e-3,
        f"parallel.{axis}": world.size,
    }
    recipe = load_recipe(RECIPE, changes)
    run = build.open_run(world, lambda: start(recipe, runs), runs / recipe.name)
    world.arrange(recipe.parallel)
    settled = build.open_run(world, lambda: build.freeze(run, world), run.folder)
    return build.build_trainer(settled, world)


def plain_loop(trainer: Trainer, wrap: Callable[[nn.Module], nn.Module]) -> Callable[[], None]:
    """Return a step of PyTorch's own, on a copy of a trainer's model."""
    model = wrap(copy.deepcopy(trainer.model))
    named = [(name.removeprefix("module."), each) for name, each in model.named_parameters()]
    optimizer = build_optimizers(trainer.recipe.optim, named)
    objective = TaskObjective(trainer.task, trainer.model, trainer.parts.processor)
    batch = next(trainer.stream)
    parameters = [each for _, each in named]
    clip = trainer.recipe.optim.clip_norm
    assert clip is not None

    def step() -> None:
        optimizer.zero_grad()
        loss = objective(objective.forward(model, batch), batch)
        (term,) = loss.terms.values()
        (term.total / term.count).backward()
        torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()

    return step


def sharded(model: nn.Module) -> nn.Module:
    """Return a model divided by FSDP2 as its documentation does it: each block, and the rest."""
    for block in model.get_submodule("blocks").children():
        fully_shard(block)
    return fully_shard(model)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--optimizer", default="adamw", help="of the recipe; shard takes no muon")
    given = parser.parse_args()
    torch.set_num_threads(1)
    world = join(600.0, "cpu")
    folder = world.gather(tempfile.mkdtemp(), "a folder is made")[0]
    # Plain loops first: dividing a model changes it.
    replicas = open_trainer(world, "replicate", given.optimizer, Path(folder))
    ways = {
        "one process": plain_loop(replicas, lambda model: model),
        "DDP": plain_loop(replicas, DistributedDataParallel),
        "FSDP2": plain_loop(replicas, sharded),
    }
    for axis, trainer in (
        ("replicate", replicas),
        ("shard", open_trainer(world, "shard", given.optimizer, Path(folder))),
    ):
        steps = trainer.steps()
        ways[f"groundup {axis}"] = lambda steps=steps: next(steps)  # type: ignore[misc]
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(given.rounds + 1):
        for name, step in ways.items():
            dist.barrier()
            begin = time.perf_counter()
            if name != "one process" or world.is_first:
                for _ in range(given.steps):
                    step()
            dist.barrier()
            if turn:  # the first round warms up
                found[name].append((time.perf_counter() - begin) / given.steps)
    if world.is_first:
        report(found, world.size)


def report(found: dict[str, list[float]], size: int) -> None:
    """Print medians of seconds a step and of ratios within a round."""
    for name, seconds in found.items():
        print(f"{name:20} {statistics.median(seconds) * 1e3:8.1f} ms a step")

    def ratio(one: str, other: str) -> float:
        pairs = zip(found[one], found[other], strict=True)
        return statistics.median(a / b for a, b in pairs)

    for ours, plain in (("replicate", "DDP"), ("shard", "FSDP2")):
        print(f"groundup {ours} / {plain}: {ratio(f'groundup {ours}', plain):.3f}")
    print(f"weak scaling on {size} processes: {ratio('one process', 'groundup replicate'):.3f}")


if __name__ == "__main__":
    main()
