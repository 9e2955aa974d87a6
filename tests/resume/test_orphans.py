"""A run that is killed leaves no data workers behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from typing import Any

import psutil
import pytest
import torch

from groundup.core.values import Batch
from groundup.data.stream.sample_stream import Layout, MicroBatches, SampleStream


class Ones(MicroBatches):
    """Micro-batches of ones; as many as are asked for."""

    def __getitem__(self, number: int) -> Batch:
        return {"inputs": torch.ones(1)}

    def samples_per_epoch(self, sample: int) -> int:
        return 1_000_000


def read_and_wait(sender: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stream = SampleStream(Ones(), Layout("train", 0, 1, 1, 0, 0, 1), workers=2)
    next(stream)
    sender.send([child.pid for child in psutil.Process(os.getpid()).children(recursive=True)])
    time.sleep(600)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_process_that_started_them(sent: signal.Signals) -> None:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=read_and_wait, args=(sender,))
    process.start()
    assert receiver.poll(60), "the workers never started"
    workers = [psutil.Process(pid) for pid in receiver.recv()]
    os.kill(process.pid or 0, sent)
    process.join(30)
    assert len(workers) == 2
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE]
