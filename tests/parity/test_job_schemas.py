"""Job files for Kubernetes and SkyPilot hold by the schemas of these schedulers' own packages.

The packages need other versions of libraries than groundup does: ``make schedulers`` installs them
apart, and without that these tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from groundup.parallel.job_files import Job, write_job

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("GROUNDUP_SCHEDULERS", ROOT / ".schedulers" / "bin" / "python"))
pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="needs make schedulers")
POD = {"image": "mine/groundup:1", "volume": "work:/work"}
TASK = {"infra": "aws", "gpus": "H100", "volume": "work", "image": "docker:mine/groundup"}
CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("kubernetes", 1, POD | {"gpus": "none"}),
    ("kubernetes", 4, POD | {"namespace": "ml", "node": "a.b/c=d", "cpus": 8, "memory": "9Gi"}),
    ("skypilot", 4, TASK | {"infra": "gcp/us-central1", "spot": True, "disk": 500}),
    ("skypilot", 2, TASK | {"infra": "kubernetes", "gpus": "none"}),
    (
        "skypilot",
        1,
        {
            "infra": "azure",
            "gpus": "A100-80GB",
            "bucket": "s3://mine/runs",
            "setup": "pip install x",
        },
    ),
]


def check(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [str(PYTHON), str(ROOT / "scripts" / "check_job_files.py"), *map(str, paths)]
    # Of this environment, its own libraries would be found instead.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_every_file_is_valid(tmp_path: Path) -> None:
    paths = []
    for number, (destination, machines, options) in enumerate(CASES):
        job = Job("digits", ["a.yaml", "optim.lr=1"], "runs", 8, machines, 3, "job.yaml")
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(write_job(destination, job, options), encoding="utf-8")
    done = check(*paths)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": valid") == len(CASES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("destination", "options", "whole", "broken"),
    [
        ("kubernetes", POD, "terminationGracePeriod", "gracePeriod"),
        ("kubernetes", POD, "restartPolicy", "restart"),
        ("skypilot", TASK, "use_spot", "spot"),
        ("skypilot", TASK, "infra: aws", "infra: asw"),
    ],
)
def test_a_broken_file_would_be_noticed(
    tmp_path: Path, destination: str, options: dict[str, Any], whole: str, broken: str
) -> None:
    text = write_job(destination, Job("d", ["a.yaml"], "runs", 8, 2, 3, "job.yaml"), options)
    assert whole in text
    path = tmp_path / "job.yaml"
    path.write_text(text.replace(whole, broken), encoding="utf-8")
    assert check(path).returncode != 0
