"""Job files that start a run on a cluster: for Slurm, Kubernetes and SkyPilot.

Each starts one ``groundup launch`` a machine, which saves when it gets SIGTERM, as it does where a
scheduler takes machines away by a plan, and starts it again afterwards, which goes on from there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import field_validator, model_validator

from groundup.core.errors import Interrupted, RecipeError, did_you_mean
from groundup.core.settings import Settings, setting, validate
from groundup.recipe.yaml import dump_yaml

__all__ = [
    "DESTINATIONS",
    "GRACE_S",
    "Job",
    "KubernetesJob",
    "SkyPilotJob",
    "SlurmJob",
    "write_job",
]

# Seconds between SIGTERM and the end: for the step that is under way, and one checkpoint.
GRACE_S = 120
# PyTorch's agent kills processes that need longer than 30 s, unless it is told otherwise; a little
# is left for the agent itself.
_AGENT = ("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(GRACE_S - 10))
_STOPPED = Interrupted.exit_code
# Kubeflow's operator gives the service of a job's pods this port.
_KUBERNETES_PORT = 23456
_SKYPILOT_PORT = 29400
# As SkyPilot calls them; what is behind a slash is a region.
_CLOUDS = (
    "aws",
    "azure",
    "cudo",
    "do",
    "fluidstack",
    "gcp",
    "hyperbolic",
    "ibm",
    "kubernetes",
    "lambda",
    "mithril",
    "nebius",
    "oci",
    "paperspace",
    "primeintellect",
    "runpod",
    "scp",
    "seeweb",
    "shadeform",
    "slurm",
    "ssh",
    "vast",
    "verda",
    "vsphere",
    "yotta",
)


@dataclass(frozen=True)
class Job:
    """What is started, wherever it is.

    Attributes:
        name: Of the recipe.
        arguments: What ``groundup train`` takes: recipes, in order, and overrides.
        runs: The folder of all runs, which every machine reaches.
        processes: How many on each machine: one a GPU.
        machines: How many machines.
        restarts: How often to start again from the last checkpoint.
        file: What the job file will be called, for its line that says how to hand it in.
    """

    name: str
    arguments: Sequence[str]
    runs: str
    processes: int
    machines: int
    restarts: int
    file: str

    def command(self, machines: str, rendezvous: str, runs: str | None = None) -> list[str]:
        """Return the words that start it on one machine, quoted for a shell; ``machines`` and
        ``rendezvous`` are taken as they are, as a shell may have to fill them in."""
        start = ["groundup", "launch", *map(shlex.quote, self.arguments)]
        start += ["--nproc", str(self.processes), "--nnodes", machines, "--rendezvous", rendezvous]
        return [*start, "--restarts", str(self.restarts), "--runs", shlex.quote(runs or self.runs)]

    @property
    def label(self) -> str:
        """The name as Kubernetes and the clouds take it: small letters, digits and hyphens."""
        # 40 of the 63 that DNS allows: what Kubernetes appends has to have room.
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:40].strip("-") or "run"


# ------------------------------------------------------------------------------------------- Slurm
class SlurmJob(Settings):
    """What ``sbatch`` is told; every other option of its own can be given to it, too, as it
    overrides the script's."""

    time: str = setting(
        "24:00:00",
        "The longest a job takes, D-HH:MM:SS; what is not done by then is queued again",
        pattern=r"^(\d+-)?\d+(:\d\d){0,2}$",
    )
    partition: str | None = setting(None, "Partition; null: the cluster's own", min_length=1)
    account: str | None = setting(None, "Account that pays", min_length=1)
    gpus: str = setting("any", "Type of GPU, such as h100; any, or none", min_length=1)
    cpus: int | None = setting(None, "CPU cores a machine; null: as the cluster says", ge=1)
    memory: str | None = setting(
        None, "Memory a machine, such as 900G; null: as the cluster says", pattern=r"^\d+[KMGT]?$"
    )
    setup: str = setting("", "Shell line that makes groundup available: source venv/bin/activate")


def _slurm(job: Job, options: Mapping[str, Any]) -> str:
    chosen = validate(SlurmJob, dict(options), "--job")
    settings = {"job-name": job.label, "nodes": job.machines, "ntasks-per-node": 1}
    if chosen.gpus != "none":
        kind = "" if chosen.gpus == "any" else f"{chosen.gpus}:"
        settings["gpus-per-node"] = f"{kind}{job.processes}"
    own = {
        "cpus-per-task": chosen.cpus,
        "mem": chosen.memory,
        "partition": chosen.partition,
        "account": chosen.account,
    }
    settings |= {name: value for name, value in own.items() if value is not None}
    # To the steps, which are the processes; the script itself waits for them.
    settings |= {"time": chosen.time, "signal": f"TERM@{GRACE_S}"}
    settings |= {"output": f"{job.label}-%j.out", "open-mode": "append"}
    lines = [f"#SBATCH --{name}={value}" for name, value in settings.items()]
    start = job.command('"$SLURM_NNODES"', '"$head:$port"')
    body = [
        "",
        *filter(None, [chosen.setup]),
        f"export {_AGENT[0]}={_AGENT[1]}",
        'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        "# two jobs on one machine must not meet at one port",
        "port=$((20000 + SLURM_JOB_ID % 10000))",
        f"srun --kill-on-bad-exit=1 {' '.join(start)}",
        "code=$?",
        f"# {_STOPPED}: asked to stop, as the time is nearly over; everything is saved",
        f'if [ "$code" -eq {_STOPPED} ]; then',
        '    scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        'exit "$code"',
    ]
    file = shlex.quote(job.file)
    head = ["#!/bin/bash", f"# sbatch {file}; on fewer machines: sbatch --nodes=1 {file}"]
    return "\n".join([*head, *lines, "#SBATCH --requeue", *body, ""])


# -------------------------------------------------------------------------------------- Kubernetes
class KubernetesJob(Settings):
    """What Kubernetes and Kubeflow's training operator are told."""

    image: str = setting(..., "Container image that has groundup", min_length=1)
    volume: str = setting(
        ...,
        "CLAIM:PATH, a claim that every pod can write to, and where it is mounted; recipes, data"
        " and runs are there",
    )
    namespace: str | None = setting(None, "Namespace; null: that of kubectl", min_length=1)
    gpus: str = setting(
        "nvidia.com/gpu", "What the cluster calls its GPUs; none: train on CPUs", min_length=1
    )
    node: str | None = setting(
        None, "KEY=VALUE, a label of the nodes to take, such as their type of GPU"
    )
    cpus: int | None = setting(None, "CPU cores a pod; null: not said", ge=1)
    memory: str | None = setting(
        None, "Memory a pod, such as 900Gi; null: not said", pattern=r"^\d+([KMGT]i?)?$"
    )

    @field_validator("volume")
    @classmethod
    def _claim_and_path(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9.-]+:/.*", value):
            raise ValueError(f"{value!r} is not CLAIM:PATH, such as work:/work. Change it")
        return value

    @field_validator("node")
    @classmethod
    def _key_and_value(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[^=\s]+=[^=\s]+", value):
            raise ValueError(f"{value!r} is not KEY=VALUE. Change it")
        return value


def _kubernetes(job: Job, options: Mapping[str, Any]) -> str:
    chosen = validate(KubernetesJob, dict(options), "--job")
    replicas = {"Master": _replica(job, chosen, 1)}
    if job.machines > 1:
        replicas["Worker"] = _replica(job, chosen, job.machines - 1)
    metadata = {"name": job.label}
    if chosen.namespace is not None:
        metadata["namespace"] = chosen.namespace
    resource = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": metadata,
        "spec": {
            # A pod that was taken away is made again, so often.
            "runPolicy": {"backoffLimit": 10, "cleanPodPolicy": "Running"},
            "pytorchReplicaSpecs": replicas,
        },
    }
    return f"# kubectl apply -f {shlex.quote(job.file)}\n{dump_yaml(resource)}"


def _replica(job: Job, chosen: KubernetesJob, count: int) -> dict[str, Any]:
    claim, _, path = chosen.volume.partition(":")
    limits: dict[str, str] = {}
    if chosen.gpus != "none":
        limits[chosen.gpus] = str(job.processes)
    if chosen.cpus is not None:
        limits["cpu"] = str(chosen.cpus)
    if chosen.memory is not None:
        limits["memory"] = chosen.memory
    # The operator gives its pods these names, and each a service of its name.
    meeting = f"{job.label}-master-0:{_KUBERNETES_PORT}"
    container: dict[str, Any] = {
        "name": "pytorch",
        "image": chosen.image,
        "workingDir": path,
        # No shell, which would keep SIGTERM to itself.
        "command": shlex.split(" ".join(job.command(str(job.machines), meeting))),
        "env": [{"name": _AGENT[0], "value": _AGENT[1]}],
        "ports": [{"name": "pytorchjob-port", "containerPort": _KUBERNETES_PORT}],
        "volumeMounts": [
            {"name": "work", "mountPath": path},
            # A container has 64 MB of shared memory, and NCCL and workers need more.
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    if limits:
        container["resources"] = {"limits": limits}
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": GRACE_S,
        "containers": [container],
        "volumes": [
            {"name": "work", "persistentVolumeClaim": {"claimName": claim}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }
    if chosen.node is not None:
        key, _, value = chosen.node.partition("=")
        pod["nodeSelector"] = {key: value}
    return {"replicas": count, "restartPolicy": "OnFailure", "template": {"spec": pod}}


# ---------------------------------------------------------------------------------------- SkyPilot
class SkyPilotJob(Settings):
    """What SkyPilot is told: which cloud, which machines, and where the runs are kept."""

    infra: str = setting(..., "Cloud, and region if it matters: aws, gcp/us-central1, kubernetes")
    gpus: str = setting(..., "Type of GPU as SkyPilot names it, such as H100; none: CPUs")
    bucket: str | None = setting(
        None,
        "Bucket that the runs are kept in, such as s3://mine/runs; for one machine",
        pattern=r"^[a-z0-9]+://.+",
    )
    volume: str | None = setting(
        None, "SkyPilot volume that the runs are kept in, which every machine mounts", min_length=1
    )
    spot: bool = setting(False, "Take machines that are cheaper, and may be taken away")
    image: str | None = setting(
        None, "Container image or image of the cloud, such as docker:mine/groundup", min_length=1
    )
    disk: int | None = setting(None, "Disk of a machine, in GB; null: SkyPilot's", ge=1)
    setup: str = setting("", "Shell line that installs groundup where the image lacks it")

    @field_validator("infra")
    @classmethod
    def _known_cloud(cls, value: str) -> str:
        cloud = value.partition("/")[0].lower()
        if cloud not in (*_CLOUDS, "k8s", "*"):
            raise ValueError(
                f"cloud {cloud!r} is unknown; {did_you_mean(cloud, _CLOUDS)}allowed:"
                f" {', '.join(_CLOUDS)}. Choose one"
            )
        return value

    @model_validator(mode="after")
    def _one_place_for_runs(self) -> SkyPilotJob:
        if (self.bucket is None) == (self.volume is None):
            raise ValueError("takes bucket or volume, where the runs are kept. Give one of the two")
        if not self.setup and self.image is None:
            raise ValueError(
                "has neither setup nor image, and its machines come without groundup. Give"
                " setup='pip install ...', or an image that has it"
            )
        return self


def _skypilot(job: Job, options: Mapping[str, Any]) -> str:
    chosen = validate(SkyPilotJob, dict(options), "--job")
    if job.machines > 1 and chosen.bucket is not None:
        raise RecipeError(
            "--job.bucket",
            f"is for one machine, but --nnodes is {job.machines}: of a bucket the others see late"
            " what one has written",
            "Give volume=NAME, a SkyPilot volume that all of them mount",
        )
    resources: dict[str, Any] = {"infra": chosen.infra}
    if chosen.gpus != "none":
        resources["accelerators"] = f"{chosen.gpus}:{job.processes}"
    resources["use_spot"] = chosen.spot
    if chosen.image is not None:
        resources["image_id"] = chosen.image
    if chosen.disk is not None:
        resources["disk_size"] = chosen.disk
    # A run that fails by its own fault would fail again; a stopped one goes on.
    resources["job_recovery"] = {"recover_on_exit_codes": [_STOPPED]}
    start = job.command('"$SKYPILOT_NUM_NODES"', f'"$head:{_SKYPILOT_PORT}"', "/runs")
    task: dict[str, Any] = {
        "name": job.label,
        "num_nodes": job.machines,
        # Recipes, and data that is next to them, are copied to every machine.
        "workdir": ".",
        "resources": resources,
        "envs": {_AGENT[0]: _AGENT[1]},
    }
    if chosen.bucket is not None:
        # Cached, as plain mounts of buckets cannot append, which logs do.
        task["file_mounts"] = {"/runs": {"source": chosen.bucket, "mode": "MOUNT_CACHED"}}
    else:
        task["volumes"] = {"/runs": chosen.volume}
    if chosen.setup:
        task["setup"] = chosen.setup
    run = [
        "run: |",
        '  head=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)',
        # In place of the shell, which would keep SIGTERM to itself.
        f"  exec {' '.join(start)}",
    ]
    lines = [f"# sky jobs launch {shlex.quote(job.file)}", dump_yaml(task).rstrip(), *run, ""]
    return "\n".join(lines)


# -------------------------------------------------------------------------------------- all of them
_WRITERS: dict[str, Callable[[Job, Mapping[str, Any]], str]] = {
    "slurm": _slurm,
    "kubernetes": _kubernetes,
    "skypilot": _skypilot,
}
# The last two not as the recipe's own file, which often has the name of its run.
DESTINATIONS = {
    "slurm": ".sbatch",
    "kubernetes": "-kubernetes.yaml",
    "skypilot": "-skypilot.yaml",
}
"""Where a job can go, and how the name of its file ends."""


def write_job(destination: str, job: Job, options: Mapping[str, Any]) -> str:
    """Return the text of a job file.

    Args:
        destination: ``slurm``, ``kubernetes`` or ``skypilot``.
        job: What is started.
        options: Those of the destination, as ``--job`` gives them: ``{"time": "12:00:00"}``.

    Raises:
        RecipeError: If the destination is unknown, or an option is unknown, missing or wrong.
    """
    if destination not in _WRITERS:
        raise RecipeError(
            "--to",
            f"{destination!r} is unknown; {did_you_mean(destination, _WRITERS)}allowed:"
            f" {', '.join(_WRITERS)}",
            "Choose one",
        )
    return _WRITERS[destination](job, options)
