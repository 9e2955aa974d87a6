"""What each of several processes holds of a model that is divided between them, next to one process
that holds it alone: parameters, gradients and the optimizer's state.

Run ``torchrun --standalone --nproc-per-node 4 benchmarks/parallel_memory.py``; and with
``--nproc-per-node 1`` for one process. Each counts the bytes of its tensors after two steps of AdamW
on a GPT, right before the gradients are forgotten, and its resident memory. The first prints all.
"""

from __future__ import annotations

import argparse

import psutil
import torch
from torch import Tensor

from groundup.models.gpt import GPTConfig
from groundup.parallel.shard import ShardedModel
from groundup.parallel.world import join
from groundup.recipe.sections import Optim, Parallel
from groundup.training.optimizers import build_optimizers

__all__ = ["main"]

TOKENS = 64


def main() -> None:
    """Train two steps, and print what each process holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="micro", help="a named size of gpt")
    parser.add_argument("--vocabulary", type=int, default=8192, help="rows of the embedding")
    given = parser.parse_args()
    world = join(600.0, "cpu")
    world.arrange(Parallel(shard=world.size))
    torch.manual_seed(0)
    sizes = GPTConfig.sizes()[given.size].model_dump() | {"vocabulary_size": given.vocabulary}
    model = GPTConfig(**sizes).build()
    whole = sum(parameter.numel() for parameter in model.parameters())
    sharded: ShardedModel | None = None
    trained = [(name, parameter) for name, parameter in model.named_parameters()]
    if world.size > 1:
        assert world.layout.mesh is not None
        sharded = ShardedModel(model, world.layout.mesh["shard"])
        trained = sharded.trained
    optimizer = build_optimizers(Optim(), trained)
    for step in range(2):
        torch.manual_seed(step * world.size + world.rank)
        tokens = torch.randint(given.vocabulary, (1, TOKENS))

        def loss(tokens: Tensor = tokens) -> Tensor:
            return model(tokens, targets=tokens.roll(-1, 1))

        (loss() if sharded is None else sharded.run(loss)).backward()
        if sharded is not None:
            sharded.take_gradients()
        optimizer.step()
        held = {
            "parameters": sum(each.nbytes for _, each in trained),
            "gradients": sum(each.grad.nbytes for _, each in trained if each.grad is not None),
            "optimizer": sum(each.nbytes for each in optimizer.state_dict().values()),
        }
        optimizer.zero_grad()
    held["resident"] = psutil.Process().memory_info().rss
    everybody = world.gather(held, "memory is compared")
    if world.is_first:
        print(f"{whole:,} parameters, {world.size} processes; MiB of each process")
        for name in held:
            print(f"{name:>12}", *(f"{each[name] / 2**20:9.1f}" for each in everybody))
        state = max(sum(each[name] for name in list(held)[:3]) for each in everybody)
        # In fp32, with two moments; what AdamW counts is left out.
        print(f"share of one process's: {state / (whole * 4 * 4):.3f}")


if __name__ == "__main__":
    main()
