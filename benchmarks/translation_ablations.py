"""What each practice for small data is worth in translation from nothing: one table, each row a run
that differs from the first in one thing.

Make the pairs with ``benchmarks/libreoffice_help.py``, then

    python benchmarks/translation_ablations.py PAIRS.jsonl OUT

Of the short pairs as many are drawn as ``--drawn`` says, with those of a page on one side. Every run
has the same ones, the same number of steps and one thread. What counts is measured on the
validation pairs, with the weights after the last step or their average: the loss in bits for each
byte of the references, which runs with other tokens can be compared by, and BLEU and chrF of what is
written greedily.

A row is printed, and added to ``OUT/ablations.jsonl``, when its run is over; runs that are there
already are not made again. ``--only "NAME;NAME"`` makes some of them, ``--seeds 0,1,2`` each with
several seeds.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

import sacrebleu

from groundup import api
from groundup.inference.precision import quick

__all__ = ["main"]

# What differs from the first row, by dotted keys of the recipe.
ABLATIONS: dict[str, dict[str, Any]] = {
    "base": {},
    "beta2 0.999": {"optim.betas": [0.9, 0.999]},
    "final_lr 0": {"optim.final_lr_fraction": 0.0},
    "beta2 0.999, final_lr 0": {
        "optim.betas": [0.9, 0.999],
        "optim.final_lr_fraction": 0.0,
    },
    "dropout 0": {"model.dropout": 0.0},
    "dropout 0.3": {"model.dropout": 0.3},
    "label_smoothing 0.1": {"task.label_smoothing": 0.1},
    "vocab_size 1000": {"processor.vocab_size": 1000},
    "vocab_size 2000": {"processor.vocab_size": 2000},
    "vocab_size 8000": {"processor.vocab_size": 8000},
    "average ema": {"optim.average": "ema"},
    "average swa": {"optim.average": "swa"},
    "bpe_dropout 0.1": {"task.bpe_dropout": 0.1},
    "r_drop 2": {"task.r_drop": 2.0},
    "copying": {"model.copying": True},
    "similar_lengths": {"data.similar_lengths": True},
}
# As recipes here have them.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"lr": 2e-3, "warmup_steps": 50},
    "muon": {"name": "muon", "lr": 1e-2, "warmup_steps": 50},
}
COLUMNS = ("bits_per_byte", "bleu", "chrf", "training_loss", "cpu_s")


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", help="names of rows, between semicolons")
    parser.add_argument("--seeds", default="0", help="numbers, between commas")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--drawn", type=int, default=5500, help="pairs, a tenth of them held out")
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="muon", help="of all rows")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    short = given.out / "short.jsonl"
    if not short.exists():
        draw_short(given.pairs, short, given.drawn)
    found = given.out / "ablations.jsonl"
    done = [json.loads(line) for line in found.read_text().splitlines()] if found.exists() else []
    there = {(row["optimizer"], row["name"], row["seed"]) for row in done}
    names = list(ABLATIONS) if given.only is None else given.only.split(";")
    for seed in map(int, given.seeds.split(",")):
        for name in names:
            if (given.optimizer, name, seed) in there:
                continue
            row = {"optimizer": given.optimizer, "name": name, "seed": seed}
            row |= measure(given, name, seed, short)
            done.append(row)
            with found.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    print_table(done)


def draw_short(pairs: Path, out: Path, count: int) -> None:
    """Write some of the pairs with short texts, each source once."""
    rows = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
    short = [row for row in rows if len(row["source"]) <= 45 and len(row["target"]) <= 55]
    different = list({row["source"]: row for row in short}.values())
    drawn = random.Random(0).sample(different, min(count, len(different)))
    out.write_text("".join(json.dumps(row) + "\n" for row in drawn), encoding="utf-8")
    print(f"{len(drawn):,} of {len(different):,} short pairs of {len(rows):,} rows")


def recipe_of(given: argparse.Namespace, name: str, seed: int, pairs: Path) -> dict[str, Any]:
    """Return the recipe of a row without what it differs in."""
    slug = "".join(each if each.isalnum() else "_" for each in name)
    return {
        "name": f"{given.optimizer}-{slug}-{seed}",
        "seed": seed,
        "model": {
            "name": "encoder_decoder",
            "layers": 2,
            "decoder_layers": 2,
            "width": 128,
            "heads": 4,
            "context_length": 128,
            "dropout": 0.1,
        },
        "task": {
            "name": "text_to_text",
            "max_source_tokens": 96,
            "max_target_tokens": 96,
            "metrics": ["bleu", "chrf"],
            "measured": 0,
        },
        "data": {
            "name": "parallel_text",
            "path": str(pairs),
            "group_column": "page",
            "fraction": 0.1,
        },
        "processor": {"name": "bpe", "vocab_size": 4000},
        "optim": OPTIMIZERS[given.optimizer],
        "training": {"batch_size": given.batch, "steps": given.steps},
        "evaluation": {"every": given.steps, "batches": 1},
        "checkpoints": {"every": given.steps},
        "logging": {"every": given.steps},
        "machine": {"threads": 1, "precision": "fp32", "device": "cpu", "compile": False},
    }


def measure(given: argparse.Namespace, name: str, seed: int, pairs: Path) -> dict[str, Any]:
    """Train one row, and return what it reaches on the validation pairs."""
    recipe = recipe_of(given, name, seed, pairs)
    trainer = api.trainer(recipe, ABLATIONS[name], runs=given.out)
    begin = time.process_time()
    losses = [report.loss for report in trainer.steps()]
    seconds = time.process_time() - begin
    processor = trainer.parts.processor
    held = list(trainer.recipe.data.examples("validation", given.out))
    references = [str(each.target) for each in held]
    found = trainer.evaluate()
    with trainer.averaging.applied():
        model = quick(trainer.model.eval())
        inputs = [each.inputs for each in held]
        written = trainer.task.predict(model, inputs, processor, beams=1)
    trainer.close()
    return {
        "bits_per_byte": found["bits_per_byte"],
        "bleu": float(sacrebleu.corpus_bleu(written, [references]).score),
        "chrf": float(sacrebleu.corpus_chrf(written, [references]).score),
        "loss_a_token": found["loss"],
        "training_loss": statistics.mean(losses[-25:]),
        "cpu_s": seconds,
        "steps": given.steps,
        "batch": given.batch,
        "held_out": len(held),
        "load_average": os.getloadavg()[0],
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the mean of each row over its seeds."""
    kinds = dict.fromkeys((row["optimizer"], row["name"]) for row in rows)
    print(f"{'':30} seeds {' '.join(f'{column:>13}' for column in COLUMNS)}")
    for kind in kinds:
        own = [row for row in rows if (row["optimizer"], row["name"]) == kind]
        means = [statistics.mean(row[column] for row in own) for column in COLUMNS]
        print(f"{': '.join(kind):30} {len(own):5} {' '.join(f'{mean:13.3f}' for mean in means)}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main()
