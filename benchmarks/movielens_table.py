"""Ratings of films predicted from a table: ours, scikit-learn's gradient boosting, and baselines,
on one split.

Run ``pip download --no-deps recbole==1.2.1 -d DIR``, then
``python benchmarks/movielens_table.py DIR/recbole*.whl``. The wheel holds MovieLens-100k, whose
terms forbid redistribution: it is read where it lies, and the joined table stays in the cache. The
    last weights are evaluated, not those that were best on the held-out rows.

Prints the root mean squared error of each on the same held-out ratings.

Source:
    Harper and Konstan, 2015, "The MovieLens datasets: history and context".
"""

from __future__ import annotations

import csv
import io
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, TargetEncoder

import groundup
from groundup.recipe.raw import parse_overrides
from groundup.recipe.recipe import load_recipe
from groundup.runs.processor import cache_folder

__all__ = ["main"]

RECIPE = Path(__file__).parent.parent / "recipes" / "classic" / "movielens_table.yaml"
IDS, WORDS = ["user_id", "item_id"], ["gender", "occupation", "region"]


def rows_of(wheel: zipfile.ZipFile, kind: str) -> list[dict[str, str]]:
    """Return the rows of one of the files; its header reads ``name:type``."""
    text = wheel.read(f"recbole/dataset_example/ml-100k/ml-100k.{kind}").decode()
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    return [{name.split(":")[0]: value for name, value in row.items()} for row in rows]


def write_table(path: Path, wheel: Path) -> None:
    """Join ratings with users and films, a column for each genre."""
    with zipfile.ZipFile(wheel) as opened:
        ratings, films, users = (rows_of(opened, kind) for kind in ("inter", "item", "user"))
    genres = sorted({genre for film in films for genre in film["class"].split()})
    film_of = {film["item_id"]: film for film in films}
    user_of = {user["user_id"]: user for user in users}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        person = ["age", "gender", "occupation"]
        named = [f"genre {genre}" for genre in genres]
        writer.writerow(
            ["user_id", "item_id", "rating", "timestamp", *person, "region", "release_year", *named]
        )
        for rating in ratings:
            film, user = film_of[rating["item_id"]], user_of[rating["user_id"]]
            has = film["class"].split()
            year = film["release_year"] if film["release_year"].isdigit() else ""
            cells = [*rating.values(), *(user[name] for name in person), user["zip_code"][:1], year]
            writer.writerow([*cells, *(int(genre in has) for genre in genres)])


def rmse(predicted: Any, true: NDArray[np.float64]) -> float:
    """Return the root mean squared error."""
    return float(np.sqrt(((np.asarray(predicted) - true) ** 2).mean()))


def biases(train: list[Any], held_out: list[Any], damping: float = 5.0) -> NDArray[np.float64]:
    """Return mean + user + film for held-out rows: ridge regression by turns, ten times."""
    ids = {
        name: {value: n for n, value in enumerate({e.inputs[name] for e in train})} for name in IDS
    }
    places = {name: np.array([ids[name][e.inputs[name]] for e in train]) for name in IDS}
    true = np.array([float(e.target) for e in train])
    mean, found = true.mean(), {name: np.zeros(len(ids[name]) + 1) for name in IDS}
    for _ in range(10):
        for name, other in (IDS, IDS[::-1]):
            rest = true - mean - found[other][places[other]]
            sums = np.bincount(places[name], rest) / (np.bincount(places[name]) + damping)
            found[name][:-1] = sums
    of = {
        name: np.array([ids[name].get(e.inputs[name], len(ids[name])) for e in held_out])
        for name in IDS
    }
    return np.asarray(mean + found[IDS[0]][of[IDS[0]]] + found[IDS[1]][of[IDS[1]]])


def matrix(examples: list[Any]) -> tuple[NDArray[Any], list[str]]:
    """Return the columns as scikit-learn reads them: ids and words as text, the rest as numbers."""
    names = list(examples[0].inputs)
    columns = [[e.inputs[name] for e in examples] for name in names]
    return np.array(columns, dtype=object).T, names


def boosting(
    train: list[Any], held_out: list[Any], true: NDArray[np.float64], *, encode: bool
) -> Any:
    """Return predictions of gradient boosting: ids as numbers, or as the cross-fitted mean rating
    of each."""
    (inputs, names), (unseen, _) = matrix(train), matrix(held_out)
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    ids, words = ([names.index(name) for name in group] for group in (IDS, WORDS))
    rest = [n for n in range(len(names)) if n not in (*ids, *words)]
    for side in (inputs, unseen):
        side[:, rest] = np.where(side[:, rest] == "", "nan", side[:, rest]).astype(float)
    steps: list[Any] = [(ordinal, words), ("passthrough", rest)]
    if encode:
        steps.append((TargetEncoder(target_type="continuous", random_state=0), ids))
    else:
        inputs[:, ids], unseen[:, ids] = inputs[:, ids].astype(float), unseen[:, ids].astype(float)
        steps.append(("passthrough", ids))
    trees = HistGradientBoostingRegressor(
        max_iter=1000,
        learning_rate=0.05,
        categorical_features=list(range(len(words))),
        random_state=0,
    )
    return make_pipeline(make_column_transformer(*steps), trees).fit(inputs, true).predict(unseen)


def main(wheel: str, overrides: list[str]) -> None:
    """Train and evaluate all of them."""
    path = cache_folder() / "movielens" / "movielens-100k.csv"
    write_table(path, Path(wheel))
    changes: dict[str, Any] = {
        "data.path": str(path),
        "evaluation.every": 10**6,
        "checkpoints.every": 10**6,
    }
    changes |= parse_overrides(overrides)
    source: Any = load_recipe(RECIPE, changes).data
    begin = time.perf_counter()
    train, held_out = (source.examples(split, cache_folder()) for split in ("train", "validation"))
    print(
        f"{len(train)} ratings to train on and {len(held_out)} held out, read in"
        f" {time.perf_counter() - begin:.1f} s"
    )
    ratings, true = (np.array([float(e.target) for e in side]) for side in (train, held_out))
    show("mean rating", np.full(len(true), ratings.mean()), true, 0.0)
    for name, predict in {
        "user and film biases": lambda: biases(train, held_out),
        "scikit-learn boosting, ids as mean ratings": lambda: boosting(
            train, held_out, ratings, encode=True
        ),
        "ours": lambda: ours(changes, held_out),
        "scikit-learn boosting, ids as numbers": lambda: boosting(
            train, held_out, ratings, encode=False
        ),
    }.items():
        begin = time.perf_counter()
        predicted = predict()
        show(name, predicted, true, time.perf_counter() - begin)


def ours(changes: dict[str, Any], held_out: list[Any]) -> list[float]:
    """Return predictions of the recipe's last weights."""
    with tempfile.TemporaryDirectory() as runs:
        run = groundup.train(RECIPE, changes, runs=runs)
        found: list[float] = groundup.load(run.folder, "last")(
            [example.inputs for example in held_out]
        )
    return found


def show(name: str, predicted: Any, true: NDArray[np.float64], seconds: float) -> None:
    """Print one line."""
    print(f"{name:45} RMSE {rmse(predicted, true):.4f}  {seconds:6.1f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
