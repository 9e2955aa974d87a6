"""Check job files by the schemas of the schedulers' own packages.

These packages need other versions of what groundup needs, so this file imports nothing of it and
runs in an environment of its own, which ``make schedulers`` makes:

    .schedulers/bin/python scripts/check_job_files.py JOB.yaml ...
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import kubeflow.training
import kubernetes_validate
import yaml
from sky.utils import common_utils, schemas


def check_kubeflow(value: Any, kind: str, path: str) -> None:
    """Compare a value with a type of Kubeflow's API, key by key."""
    if kind.startswith("dict("):
        for key, part in value.items():
            check_kubeflow(part, kind[:-1].split(", ", 1)[1], f"{path}.{key}")
    elif kind.startswith("list["):
        for number, part in enumerate(value):
            check_kubeflow(part, kind[5:-1], f"{path}[{number}]")
    elif kind.startswith("KubeflowOrgV1"):
        model = getattr(kubeflow.training, kind)
        names = {there: here for here, there in model.attribute_map.items()}
        for key, part in value.items():
            if key not in names:
                raise ValueError(f"{path}.{key}: unknown; allowed: {', '.join(names)}")
            check_kubeflow(part, model.openapi_types[names[key]], f"{path}.{key}")
        # Its constructor knows what is required.
        model(**{names[key]: part for key, part in value.items()})
    elif kind == "V1PodTemplateSpec":
        check_pods(value, path)
    elif kind == "V1ObjectMeta":
        check_pods({"metadata": value, "spec": {"containers": [{"name": "any"}]}}, path)
    elif type(value).__name__ != kind:
        raise ValueError(f"{path}: {value!r} is no {kind}")


def check_pods(template: dict[str, Any], path: str) -> None:
    """Compare a template of pods with the strict schema of Kubernetes."""
    resource = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
    resource["metadata"] = {"name": "any"}
    try:
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        raise ValueError(f"{path}: {error}") from error


def check_skypilot(task: dict[str, Any]) -> None:
    """Compare a task with SkyPilot's own schemas, which it keeps apart for each section."""
    common_utils.validate_schema(task, schemas.get_task_schema(), "task: ")
    common_utils.validate_schema(task["resources"], schemas.get_resources_schema(), "resources: ")
    for mount in task.get("file_mounts", {}).values():
        common_utils.validate_schema(mount, schemas.get_storage_schema(), "file_mounts: ")


def main() -> None:
    for name in sys.argv[1:]:
        content = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
        if content.get("kind") == "PyTorchJob":
            if content["apiVersion"] != "kubeflow.org/v1":
                raise ValueError(f"{name}: apiVersion {content['apiVersion']} is unknown")
            check_kubeflow(content, "KubeflowOrgV1PyTorchJob", name)
        else:
            check_skypilot(content)
        print(f"{name}: valid")


if __name__ == "__main__":
    main()
