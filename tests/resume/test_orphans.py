"""A run that is killed leaves no data workers behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from typing import Any

import killing
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


def read_and_wait(sender: Any, start_method: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    multiprocessing.set_start_method(start_method, force=True)
    stream = SampleStream(Ones(), Layout("train", 0, 1, 1, 0, 0, 1), workers=2)
    next(stream)
    sender.send([worker.pid for worker in multiprocessing.active_children()])
    time.sleep(600)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "sent"),
    [("fork", signal.SIGKILL), ("fork", signal.SIGTERM), ("forkserver", signal.SIGKILL)],
)
def test_workers_end_with_the_process_that_reads_their_batches(
    how: str, sent: signal.Signals
) -> None:
    # The fork server of killing has imported what is needed, and starts the workers, too.
    start: Any = killing.context if how == "forkserver" else multiprocessing.get_context(how)
    receiver, sender = start.Pipe(duplex=False)
    process = start.Process(target=read_and_wait, args=(sender, how))
    process.start()
    assert receiver.poll(120), "the workers never started"
    started = [psutil.Process(pid) for pid in receiver.recv()]
    os.kill(process.pid or 0, sent)
    process.join(30)
    assert len(started) == 2
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE]
