"""How the processes of a run find each other."""

from __future__ import annotations

import os
import platform
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from groundup.core.errors import TrainingError
from groundup.parallel.failures import first_line

__all__ = ["meet"]


def meet(rank: int, size: int, timeout_s: float, device: str) -> tuple[Store, str]:
    """Return what all processes reach, once they have found each other, and from where they
    exchange tensors: ``cpu`` or ``cuda``.

    Args:
        rank: This process's number.
        size: How many there are.
        timeout_s: How long to wait for the others, and later for each of their answers.
        device: Of the recipe: ``cpu``, ``cuda`` or ``auto``.

    Raises:
        TrainingError: If they do not find each other.
    """
    # Before the recipe is settled: each process of a machine has a GPU of its own.
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    timeout = timedelta(seconds=timeout_s)
    try:
        found, _, _ = next(rendezvous("env://", rank, size, timeout=timeout))
        # A restart has names of its own, as the store may be the one of before.
        store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), found)
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"process {rank} of {size} on {platform.node()}",
            f"did not find the others at {where} within {timeout_s:g} s ({first_line(error)})",
            "Check that every machine is started and reaches that address",
        ) from error
    return store, "cuda" if on_gpu else "cpu"
