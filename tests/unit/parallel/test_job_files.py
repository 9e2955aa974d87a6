"""Job files: what is in them, and what is said where something is missing or wrong."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from groundup.core.errors import RecipeError
from groundup.parallel.job_files import DESTINATIONS, Job, write_job

# Long options of sbatch that take a value (sbatch's manual page, "Options"); Slurm publishes no
# schema of its scripts.
SBATCH = {
    "account",
    "cpus-per-task",
    "gpus-per-node",
    "job-name",
    "mem",
    "nodes",
    "ntasks-per-node",
    "open-mode",
    "output",
    "partition",
    "signal",
    "time",
}
NEEDED: dict[str, dict[str, Any]] = {
    "slurm": {},
    "kubernetes": {"image": "mine/groundup:1", "volume": "work:/work"},
    "skypilot": {"infra": "aws", "gpus": "H100", "volume": "work", "image": "docker:mine/groundup"},
}


def job(**changes: Any) -> Job:
    values: dict[str, Any] = {
        "name": "My_run.2",
        "arguments": ["my recipe.yaml", "optim.lr=3e-4"],
        "runs": "runs",
        "processes": 8,
        "machines": 4,
        "restarts": 3,
        "file": "my run.job",
    }
    return Job(**values | changes)


def sbatch(text: str) -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.MULTILINE)
    assert len(found) == len(dict(found))
    return dict(found)


def test_a_script_for_slurm(tmp_path: Path) -> None:
    options = {"time": "12:00:00", "partition": "gpu", "account": "me", "gpus": "h100", "cpus": 64}
    text = write_job("slurm", job(), options | {"memory": "900G", "setup": "source v/bin/activate"})
    path = tmp_path / "job.sbatch"
    path.write_text(text, encoding="utf-8")
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert text.startswith("#!/bin/bash\n")
    told = sbatch(text)
    assert set(told) == SBATCH
    assert told["signal"] == "TERM@120"
    assert (told["nodes"], told["ntasks-per-node"], told["gpus-per-node"]) == ("4", "1", "h100:8")
    assert (told["time"], told["mem"], told["job-name"]) == ("12:00:00", "900G", "my-run-2")
    assert re.search(r"^#SBATCH --requeue$", text, re.MULTILINE)
    # Options count only before the first command.
    assert text.rindex("#SBATCH") < text.index("source v/bin/activate")
    (start,) = [line for line in text.splitlines() if line.startswith("srun ")]
    words = shlex.split(start)
    assert words[2:6] == ["groundup", "launch", "my recipe.yaml", "optim.lr=3e-4"]
    assert words[6:10] == ["--nproc", "8", "--nnodes", "$SLURM_NNODES"]


def test_a_script_for_slurm_says_only_what_was_asked() -> None:
    told = sbatch(write_job("slurm", job(), {"gpus": "none"}))
    assert not {"partition", "account", "mem", "cpus-per-task", "gpus-per-node"} & set(told)
    assert sbatch(write_job("slurm", job(), {}))["gpus-per-node"] == "8"


def test_a_job_for_kubernetes() -> None:
    options = {"namespace": "ml", "node": "gpu=h100", "cpus": 8, "memory": "9Gi"}
    resource = yaml.safe_load(write_job("kubernetes", job(), NEEDED["kubernetes"] | options))
    assert (resource["apiVersion"], resource["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    assert resource["metadata"] == {"name": "my-run-2", "namespace": "ml"}
    replicas = resource["spec"]["pytorchReplicaSpecs"]
    assert {name: each["replicas"] for name, each in replicas.items()} == {"Master": 1, "Worker": 3}
    assert {each["restartPolicy"] for each in replicas.values()} == {"OnFailure"}
    pods = [each["template"]["spec"] for each in replicas.values()]
    assert pods[0] == pods[1]
    assert pods[0]["terminationGracePeriodSeconds"] == 120
    assert pods[0]["nodeSelector"] == {"gpu": "h100"}
    (container,) = pods[0]["containers"]
    assert container["name"] == "pytorch"  # the operator looks for one of this name
    limits = {"nvidia.com/gpu": "8", "cpu": "8", "memory": "9Gi"}
    assert container["resources"]["limits"] == limits
    meeting = "my-run-2-master-0:23456"
    start = ["groundup", "launch", "my recipe.yaml", "optim.lr=3e-4", "--nproc", "8"]
    start += ["--nnodes", "4", "--rendezvous", meeting, "--restarts", "3", "--runs", "runs"]
    assert container["command"] == start
    mounted = {each["name"] for each in container["volumeMounts"]}
    assert mounted == {each["name"] for each in pods[0]["volumes"]}


def test_one_machine_of_kubernetes_without_gpus() -> None:
    options = NEEDED["kubernetes"] | {"gpus": "none"}
    resource = yaml.safe_load(write_job("kubernetes", job(machines=1), options))
    replicas = resource["spec"]["pytorchReplicaSpecs"]
    assert list(replicas) == ["Master"]
    assert "resources" not in replicas["Master"]["template"]["spec"]["containers"][0]


def test_a_task_for_skypilot() -> None:
    options = NEEDED["skypilot"] | {"infra": "gcp/us-central1", "spot": True, "disk": 500}
    task = yaml.safe_load(write_job("skypilot", job(), options))
    assert (task["name"], task["num_nodes"], task["workdir"]) == ("my-run-2", 4, ".")
    assert task["volumes"] == {"/runs": "work"}
    resources = task["resources"]
    assert resources["accelerators"] == "H100:8"
    assert (resources["infra"], resources["use_spot"]) == ("gcp/us-central1", True)
    assert (resources["disk_size"], resources["image_id"]) == (500, "docker:mine/groundup")
    assert resources["job_recovery"] == {"recover_on_exit_codes": [130]}
    subprocess.run(["bash", "-n"], input=task["run"], text=True, check=True)
    words = shlex.split(task["run"].splitlines()[-1])
    assert words[:3] == ["exec", "groundup", "launch"]
    assert words[-2:] == ["--runs", "/runs"]


def test_runs_on_a_bucket() -> None:
    options = {"infra": "aws", "gpus": "none", "bucket": "s3://mine/runs", "setup": "pip install x"}
    task = yaml.safe_load(write_job("skypilot", job(machines=1), options))
    assert task["file_mounts"] == {"/runs": {"source": "s3://mine/runs", "mode": "MOUNT_CACHED"}}
    assert task["setup"] == "pip install x"
    assert "accelerators" not in task["resources"]
    with pytest.raises(
        RecipeError, match=r"--job.bucket: is for one machine, but --nnodes is 4: .*"
    ):
        write_job("skypilot", job(), options)


@pytest.mark.parametrize(
    ("name", "label"), [("a.b", "a-b"), ("_", "run"), ("x" * 60, "x" * 40), ("Größe_1", "gr-e-1")]
)
def test_names_that_clouds_take(name: str, label: str) -> None:
    assert job(name=name).label == label


@pytest.mark.parametrize(
    ("destination", "options", "said"),
    [
        ("slrum", {}, r"--to: 'slrum' is unknown; did you mean 'slurm'\? allowed: slurm, kub"),
        ("slurm", {"tim": "1"}, r"--job.tim: unknown key; did you mean 'time'\? allowed: time,"),
        ("slurm", {"time": "soon"}, r'--job.time: got "soon"; allowed: .*pattern'),
        ("kubernetes", {"volume": "w:/w"}, r"--job.image: is required and missing. Add it"),
        ("kubernetes", {"image": "i"}, r"--job.volume: is required and missing. Add it"),
        (
            "kubernetes",
            {"image": "i", "volume": "work"},
            r"--job.volume: 'work' is not CLAIM:PATH, such as work:/work. Change it",
        ),
        (
            "kubernetes",
            NEEDED["kubernetes"] | {"node": "h100"},
            r"--job.node: 'h100' is not KEY=VALUE. Change it",
        ),
        ("skypilot", {"gpus": "H100", "volume": "w"}, r"--job.infra: is required and missing"),
        (
            "skypilot",
            NEEDED["skypilot"] | {"infra": "asw/us-east-1"},
            r"--job.infra: cloud 'asw' is unknown; did you mean 'aws'\? allowed: aws, azure, .*",
        ),
        (
            "skypilot",
            {"infra": "aws", "gpus": "H100", "setup": "x"},
            r"--job: takes bucket or volume, where the runs are kept. Give one of the two",
        ),
        (
            "skypilot",
            {"infra": "aws", "gpus": "H100", "volume": "w"},
            r"--job: has neither setup nor image, and its machines come without groundup. Give",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(
    destination: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        write_job(destination, job(), options)


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_a_file_says_how_it_is_handed_in(destination: str) -> None:
    text = write_job(destination, job(), NEEDED[destination])
    verb = {"slurm": "sbatch", "kubernetes": "kubectl apply -f", "skypilot": "sky jobs launch"}
    assert f"\n# {verb[destination]} 'my run.job'" in f"\n{text}"
