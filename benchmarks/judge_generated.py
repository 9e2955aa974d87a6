"""Pictures that a run of generate_images made, before a classifier of real ones and as the data of another.

Run ``python benchmarks/judge_generated.py RUN JUDGE [--count 1000] [--steps 50] [--sampler euler] [--guidance G]
[--interval FIRST LAST] [--bf16] [--student RECIPE]``. It makes ``count`` pictures of each class and prints

- the share in which JUDGE, a run of ``classify`` on the same data, sees the class that was asked for, next to how often
  it is right about the test split;
- the Fréchet distance in what its last layer reads, from as many held-out pictures, next to the floor: that of as many
  training pictures;
- with ``--student``, what a classifier of that recipe that is trained on the made pictures alone reads of the test
  split.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from groundup import api
from groundup.inference.predictor import Predictor
from groundup.metrics.frechet import frechet_distance
from groundup.runs.processor import cache_folder
from groundup.tasks.generate_images.contact_sheet import as_bytes

__all__ = ["main"]


def outputs(judge: Predictor, pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return what the judge's last layer reads, and what it sees."""
    features, seen = [], []
    with torch.no_grad():
        for start in range(0, len(pictures), 500):
            inputs = judge.processor.encode_inputs(pictures[start : start + 500])["inputs"]
            features.append(judge.model.features(inputs))
            seen.append(judge.model.head(features[-1]).argmax(1))
    return torch.cat(features).double().numpy(), torch.cat(seen).numpy()


def main() -> None:
    """Make pictures, judge them, and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("judge", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sampler", choices=("heun", "euler"))
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--interval", type=float, nargs=2, dest="guidance_interval", metavar="TIME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--checkpoint", default="best")
    parser.add_argument("--student", type=Path)
    parser.add_argument("--out", type=Path, default=Path("generated.npz"))
    arguments = parser.parse_args()
    predictor, judge = api.load(arguments.run, arguments.checkpoint), api.load(arguments.judge)
    labels = list(predictor.processor.labels)
    names = ("steps", "sampler", "guidance", "guidance_interval", "seed")
    options = {name: vars(arguments)[name] for name in names if vars(arguments)[name] is not None}
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
        rows = predictor.task.make(
            predictor.model, labels, predictor.processor, arguments.count, options
        )
    print(
        f"step {predictor.step}, {options}: {len(labels) * arguments.count} pictures in {time.process_time() - start:.0f} CPU s"
    )
    made = as_bytes(torch.cat(rows), predictor.processor)
    asked = np.repeat([judge.processor.labels.index(label) for label in labels], arguments.count)
    np.savez(arguments.out, x=np.stack(made), y=np.repeat(labels, arguments.count))
    source = predictor.run.recipe.data
    real = {split: source.examples(split, cache_folder()) for split in ("test", "train")}
    drawn = np.random.default_rng(0)
    looked = {"made": outputs(judge, made)}
    for split, examples in real.items():
        # As many, and drawn from all: the Fréchet distance depends on how many there are.
        chosen = drawn.permutation(len(examples))[: len(made)]
        found = outputs(judge, [np.asarray(examples[n].inputs) for n in chosen])
        true = np.array([judge.processor.labels.index(str(examples[n].target)) for n in chosen])
        looked[split] = found
        print(f"judge on {split}: {(found[1] == true).mean():.4f} of {len(true)} right")
    print(f"class asked for seen in {(looked['made'][1] == asked).mean():.4f} of the pictures made")
    size = min(len(found[0]) for found in looked.values())
    distance, floor = (
        frechet_distance(looked[name][0][:size], looked["test"][0][:size])
        for name in ("made", "train")
    )
    if size < len(made):  # classes lie next to each other
        order = drawn.permutation(len(made))[:size]
        distance = frechet_distance(looked["made"][0][order], looked["test"][0][:size])
    print(
        f"Fréchet distance of {size}: {distance:.3f}, floor {floor:.3f}, ratio {distance / floor:.2f}"
    )
    if arguments.student is not None:
        data = {"name": "arrays", "path": str(arguments.out), "fraction": 0.02}
        run = api.train(
            arguments.student, {"data": data, "evaluation.test": False, "name": "student"}
        )
        student = api.load(run.folder)
        test = list(real["test"])
        inputs = [np.asarray(each.inputs) for each in test]
        right = [str(a) == str(b.target) for a, b in zip(student(inputs), test, strict=True)]
        print(
            f"a classifier of {len(made)} made pictures reads {np.mean(right):.4f} of {len(test)} test pictures"
        )


if __name__ == "__main__":
    main()
