"""Starting the processes of a run on this machine, by PyTorch's own elastic agent.

``torchrun`` does the same from a shell; here what goes wrong becomes one sentence.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime

import psutil
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from groundup.core.errors import Interrupted, TrainingError
from groundup.parallel.failures import first_line
from groundup.parallel.liveness import repeating
from groundup.parallel.meeting import REACHED_S, check_rendezvous

__all__ = ["launch"]

_HERE = "localhost:0"
_LOUD = (
    "torch.distributed.elastic.multiprocessing.api",
    "torch.distributed.elastic.agent.server.api",
)
# How long processes that were asked to stop may take to end a validation and to save. A scheduler
# that waits less ends all of them itself; job files say how long it does.
_SAVING = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
_SAVING_S = 600
# How soon the agent sees that a process has ended.
_WATCH_S = 0.1
_LOOK_S = 0.5
_INTERRUPTED = Interrupted.exit_code


def launch(
    arguments: Sequence[str],
    processes: int,
    machines: int = 1,
    rendezvous: str | None = None,
    restarts: int = 3,
) -> None:
    """Run ``groundup`` with these arguments in several processes, and wait for their end.

    Args:
        arguments: Of the command line.
        processes: How many on this machine.
        machines: How many start this same command.
        rendezvous: ``HOST:PORT`` of one of them, where they find each other.
        restarts: How many times all processes are started again after one has failed. A run goes on
            from its newest intact checkpoint.

    Raises:
        TrainingError: If a process failed once more, or the machines do not find each other.
        Interrupted: If the run was asked to stop, and saved.
    """
    if machines > 1 and rendezvous is None:
        raise TrainingError(
            "groundup launch",
            f"{machines} machines do not know where to find each other",
            "Give each --rendezvous HOST:PORT of the same one of them",
        )
    if rendezvous is not None:
        check_rendezvous(rendezvous)
    endpoint = rendezvous or _HERE
    config = LaunchConfig(
        min_nodes=machines,
        max_nodes=machines,
        nproc_per_node=processes,
        # Of one machine's agents no other must join; of several all must have the same.
        run_id="groundup" if rendezvous else f"groundup-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint=endpoint,
        rdzv_configs={"read_timeout": REACHED_S},
        max_restarts=restarts,
        monitor_interval=_WATCH_S,
        shutdown_timeout=int(os.environ.get(_SAVING, _SAVING_S)),
        start_method="spawn",
    )
    # Its lines about failures repeat what the processes have said themselves.
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with _ending_the_stopped(processes):
            elastic_launch(config, sys.executable)("-m", "groundup", *arguments)
    except SignalException as error:
        # The processes were sent the same signal, and have saved.
        raise Interrupted(
            "groundup launch",
            f"stopped by {signal.Signals(error.sigval).name}",
            "Start the same command again to go on from the last checkpoint",
        ) from error
    except ChildFailedError as error:
        raise _in_words(error) from error
    except (RendezvousError, ConnectionError, OSError, TimeoutError) as error:
        raise TrainingError(
            f"groundup launch: {endpoint}",
            f"the machines did not find each other there ({first_line(error)})",
            "Check that the address is one of theirs, that its port is free and open, and that"
            f" {machines} of them were started",
        ) from error


@contextlib.contextmanager
def _ending_the_stopped(processes: int) -> Iterator[None]:
    """Within, kill a process that stands still once another one of this machine has ended.

    The agent asks it to end and waits half a minute, but a process that was stopped hears nothing.

    Args:
        processes: How many there are.
    """

    def look() -> None:
        with contextlib.suppress(psutil.Error):
            children = psutil.Process().children()
            stopped = [c for c in children if c.status() == psutil.STATUS_STOPPED]
            # As long as all are there, somebody may look at it, and let it go on. Whatever else was
            # started here, such as Python's own tracker of resources, does not count.
            if stopped and sum(map(_trains, children)) < processes:
                for child in stopped:
                    child.kill()

    with repeating(look, _LOOK_S, "the stopped"):
        yield


def _trains(process: psutil.Process) -> bool:
    """Whether it is a living process of the run."""
    return process.status() != psutil.STATUS_ZOMBIE and "groundup" in process.cmdline()


def _in_words(error: ChildFailedError) -> TrainingError | Interrupted:
    """Return what ended a launched run, named by the process that ended first."""
    failures: dict[int, ProcessFailure] = error.failures
    # Whoever waited for another in vain, or was ended by the agent, may be seen to end first.
    followed = (TrainingError.exit_code, -signal.SIGTERM)
    rank, first = min(
        failures.items(), key=lambda each: (each[1].exitcode in followed, each[1].timestamp)
    )
    if all(failure.exitcode == _INTERRUPTED for failure in failures.values()):
        return Interrupted("groundup launch", "stopped; everything is saved", "Start it again")
    if first.exitcode < 0:
        ended = f"was ended by {signal.Signals(-first.exitcode).name}"
    else:
        ended = f"ended with exit code {first.exitcode}"
    time = datetime.fromtimestamp(first.timestamp).strftime("%H:%M:%S")
    return TrainingError(
        "groundup launch",
        f"rank {rank} (process {first.pid} on this machine) {ended} at {time}",
        "What it said is above; start the same command again to go on from the last checkpoint",
    )
