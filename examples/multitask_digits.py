"""Train one model for three tasks at once on handwritten digits: which digit, even or odd, with a
loop or not.

    python examples/multitask_digits.py [FOLDER]

Nine in ten examples have no label of the third task: the trunk that all share learns from the other
two. Give tasks numbers to predict with ``{"name": "regression"}``, and let their weights be learned
with ``"weighting": "uncertainty"``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import groundup


def write_targets(path: Path) -> None:
    """Write the digits that scikit-learn carries to an .npz with an array for each target; NaN is
    no label."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    loop = np.isin(digits.target, (0, 6, 8, 9)).astype(float)
    loop[np.arange(len(loop)) % 10 != 0] = np.nan
    path.parent.mkdir(parents=True, exist_ok=True)
    even = np.where(digits.target % 2, "odd", "even")
    np.savez(path, x=digits.images, digit=digits.target, even=even, loop=loop)


def main() -> None:
    """Train for a few seconds, evaluate each task, and show how their gradients agree."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs")
    write_targets(folder / "digits.npz")
    recipe = {
        "name": "multitask-digits",
        "model": {"name": "mlp", "hidden": [128, 128]},
        "task": {
            "name": "multitask",
            "tasks": {
                "digit": "classify",
                "even": "classify",
                "loop": {"name": "classify", "label_smoothing": 0.1},
            },
            "weights": {"loop": 0.5},
        },
        "processor": "image",
        "data": {
            "name": "arrays",
            "path": str(folder / "digits.npz"),
            "labels_keys": {"digit": "digit", "even": "even", "loop": "loop"},
        },
        "optim": {"lr": 3e-3},
        "training": {"batch_size": 64, "epochs": 20},
        "machine": {"precision": "fp32", "compile": False, "threads": 1},
    }
    run = groundup.train(recipe, runs=folder)
    found = groundup.evaluate(run.folder)["runs"][0]["evaluation"]
    for task in ("digit", "even", "loop"):
        print(f"{task}: accuracy {found['metrics'][f'{task}/accuracy']:.3f}")
    for table in found["tables"][-2:]:
        print(table["title"], *map(tuple, table["rows"]), sep="\n  ")
    with np.load(folder / "digits.npz") as arrays:
        print(groundup.predict(run.folder, arrays["x"][0]))


if __name__ == "__main__":
    main()
