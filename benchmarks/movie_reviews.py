"""Movie-review sentences: is the mean rating above or below 0? Five folds, ours against TF-IDF +
logistic regression.

Run
``python benchmarks/movie_reviews.py REVIEWS [--folds 5] [--ways random,pretrained] [--threads 1]``,
where REVIEWS is ``movieReviewSnippets_GroundTruth.txt`` of Hutto and Gilbert (2014), which comes
inside the PyPI sources of vaderSentiment 0.5 (MIT): an id, the mean rating and a sentence, between
tabs. ``random`` trains a classifier from random weights; ``pretrained`` first trains a language
model on the training sentences of the fold, without their labels, and starts from it. All ways see
the same sentences in each fold.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import groundup
from groundup.recipe.recipe import load_recipe

__all__ = ["main"]

RECIPES = Path(__file__).parent.parent / "recipes" / "text"


def main() -> None:
    """Judge every way on every fold and print the means."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reviews", type=Path)
    parser.add_argument("--folds", type=int, default=5, help="how many of the five folds to run")
    parser.add_argument("--ways", default="random,pretrained")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores where it is left out")
    given = parser.parse_args()
    machine = {} if given.threads is None else {"machine.threads": given.threads}
    found: dict[str, list[float]] = {}
    with TemporaryDirectory() as folder:
        table = _table(given.reviews, Path(folder) / "reviews.tsv")
        for fold in range(given.folds):
            data = {"data.path": str(table), "data.fold": fold}
            found.setdefault("tf-idf + logistic regression", []).append(_baseline(data))
            for way in given.ways.split(","):
                ran = _ours(way, fold, {"data": data, "machine": machine}, Path(folder))
                found.setdefault(f"ours, {way}", []).append(ran)
            print(
                fold,
                {way: round(100 * all_[-1], 2) for way, all_ in found.items()},
                file=sys.stderr,
                flush=True,
            )
    print("| way | accuracy, mean of folds | folds |\n|---|---|---|")
    for way, all_ in found.items():
        print(
            f"| {way} | {100 * statistics.mean(all_):.2f}% |"
            f" {', '.join(f'{100 * a:.1f}' for a in all_)} |"
        )


def _table(reviews: Path, table: Path) -> Path:
    lines = ["text\tlabel"]
    for line in reviews.read_text(encoding="utf-8", errors="replace").splitlines():
        _, rating, text = line.split("\t", 2)
        if float(rating) != 0:
            lines.append(f"{text.strip()}\t{'positive' if float(rating) > 0 else 'negative'}")
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def _baseline(data: dict[str, Any]) -> float:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    sides = _sides(data)
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=10, max_iter=1000),
    )
    model.fit(*sides["train"])
    return float(model.score(*sides["validation"]))


def _sides(data: dict[str, Any]) -> dict[str, tuple[list[str], list[str]]]:
    source: Any = load_recipe(RECIPES / "movie_reviews.yaml", data).data
    sides = {}
    for split in ("train", "validation"):
        examples = list(source.examples(split, Path()))
        sides[split] = [str(e.inputs) for e in examples], [str(e.target) for e in examples]
    return sides


def _ours(way: str, fold: int, given: dict[str, dict[str, Any]], folder: Path) -> float:
    changes: dict[str, Any] = {"name": f"{way}-{fold}", **given["data"], **given["machine"]}
    recipe = RECIPES / "movie_reviews.yaml"
    if way == "pretrained":
        text = folder / f"train-{fold}.txt"
        text.write_text("\n".join(_sides(given["data"])["train"][0]) + "\n", encoding="utf-8")
        base = groundup.train(
            RECIPES / "movie_reviews_pretrain.yaml",
            {"name": f"language-{fold}", "data.path": str(text), **given["machine"]},
            runs=folder,
        )
        changes["init.run"] = str(base.folder)
        recipe = RECIPES / "movie_reviews_finetune.yaml"
    run = groundup.train(recipe, changes, runs=folder)
    evaluated = groundup.evaluate(run.folder)["runs"][0]["evaluation"]
    return float(evaluated["metrics"]["accuracy"])


if __name__ == "__main__":
    main()
