"""A linear model and boosted trees from scikit-learn, fitted to the training split that a run had,
as something to compare its score with.

Legend: N examples, F features, R numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from groundup.contracts.processors import LabelProcessor
from groundup.contracts.tasks import EvaluationContext, Task
from groundup.core.errors import RecipeError
from groundup.core.values import Evaluation, Example, Table
from groundup.metrics.regression import regression_metrics
from groundup.metrics.scikit_learn import scikit_learn

__all__ = ["Baseline", "add_baselines", "check_baselines"]

Baseline = Literal["linear", "boosting"]
_NAMES = {"rmse": "RMSE", "mae": "MAE", "r2": "R²"}
_WHERE = "recipe.evaluation.baselines"
# features of a picture or an array; with more, fitting takes longer than the run did
_MOST_FEATURES = 4096
# share of letters that are Chinese, Japanese or Korean, from which on words have no blanks between
_WITHOUT_BLANKS = 0.3


def add_baselines(
    found: Evaluation, task: Task, context: EvaluationContext, names: Sequence[Baseline]
) -> None:
    """Add to an evaluation what each baseline reaches on the same held-out examples.

    It is fitted to all of the training split, and has seen neither validation nor test. Of texts it
    reads TF-IDF of words and pairs of words; of tables what the run's processor makes of them,
    categories one by one; of pictures and arrays their numbers.

    Raises:
        RecipeError: If the task, or the kind of inputs, has no such baseline.
        MissingExtraError: If scikit-learn is not installed.
    """
    check_baselines(context.processor)
    splits = (list(context.examples("train")), list(context.examples(context.held_out)))
    batches = [task.encode(split, context.processor) for split in splits]
    rows: list[tuple[str | float | int | None, ...]] = []
    measures: list[str] = []
    for name in names:
        context.progress(f"fitting the {name} baseline to {len(splits[0])} training examples")
        inputs, tested, words = _features(name, splits, batches)
        scores = _score(name, context, inputs, tested, batches)
        found.metrics.update({f"{name}_{measure}": value for measure, value in scores.items()})
        rows.append((f"{name}: {words}", *map(_short, scores.values())))
        measures = list(scores)
    own = [_short(found.metrics.get(measure)) for measure in measures]
    guessing = [_short(found.metrics.get(f"baseline_{measure}")) for measure in measures]
    rows = [("this run", *own), *rows, ("without looking at inputs", *guessing)]
    note = "Fitted to the same training split with scikit-learn's settings; none was tuned."
    columns = ("method", *(_NAMES.get(measure, measure) for measure in measures))
    found.tables.insert(
        0, Table("Next to other methods, on the same examples", columns, rows, note)
    )


def check_baselines(processor: Any) -> None:
    """Raise an error where a run predicts nothing that there are baselines for.

    Raises:
        RecipeError: If it does not predict labels.
    """
    if not isinstance(processor, LabelProcessor):
        raise _no_effect("there are baselines for one class or for numbers to predict")


def _no_effect(why: str) -> RecipeError:
    return RecipeError(_WHERE, f"has no effect: {why}", "Remove it")


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _features(
    name: Baseline, splits: Sequence[list[Example]], batches: Sequence[Any]
) -> tuple[Any, Any, str]:
    """Return (N, F) of both splits, and in words what they are."""
    if isinstance(splits[0][0].inputs, str | tuple) and "tokens" in batches[0]:
        if name == "boosting":
            raise RecipeError(
                _WHERE, "names boosting, and trees do not read texts", "Write [linear]"
            )
        return _tf_idf(*splits)
    if any("lengths" in batch or "inputs" not in batch for batch in batches):
        raise _no_effect("inputs differ in length")
    numbers = [batch["inputs"].reshape(len(batch["inputs"]), -1).numpy() for batch in batches]
    if numbers[0].shape[1] > _MOST_FEATURES:
        size = f"{numbers[0].shape[1]:,} numbers each; allowed: {_MOST_FEATURES:,}"
        raise _no_effect(f"inputs have {size}")
    if "categories" not in batches[0]:
        return numbers[0], numbers[1], "numbers"
    categories = [batch["categories"].numpy() for batch in batches]
    encoder = scikit_learn("preprocessing").OneHotEncoder(
        handle_unknown="ignore", sparse_output=False
    )
    single = [encoder.fit_transform(categories[0]), encoder.transform(categories[1])]
    joined = [np.hstack(pair) for pair in zip(numbers, single, strict=True)]
    return joined[0], joined[1], "numbers and categories"


def _tf_idf(train: list[Example], held_out: list[Example]) -> tuple[Any, Any, str]:
    texts = [
        [" ".join(e.inputs) if isinstance(e.inputs, tuple) else e.inputs for e in split]
        for split in (train, held_out)
    ]
    letters = [letter for text in texts[0][:200] for letter in text[:500] if letter.isalpha()]
    share = sum("\u3040" <= letter <= "\u9fff" for letter in letters) / max(1, len(letters))
    options: dict[str, Any] = {"ngram_range": (1, 2)}
    if share > _WITHOUT_BLANKS:
        options = {"analyzer": "char", "ngram_range": (1, 3)}
    reader = scikit_learn("feature_extraction.text").TfidfVectorizer(sublinear_tf=True, **options)
    return reader.fit_transform(texts[0]), reader.transform(texts[1]), "TF-IDF of words and pairs"


def _score(
    name: Baseline, context: EvaluationContext, inputs: Any, tested: Any, batches: Sequence[Any]
) -> dict[str, float]:
    """Return the measures of a model fitted to the first batch, on the second."""
    wanted, true = (batch.get("labels", batch.get("targets")) for batch in batches)
    if wanted is None or ("labels" in batches[0] and wanted.is_floating_point()):
        raise _no_effect("there are baselines for one class or for numbers to predict")
    if "labels" in batches[0]:
        model = _classifier(name, inputs, context.seed)
        _fit(model, inputs, wanted.numpy())
        return {"accuracy": float((model.predict(tested) == true.numpy()).mean())}
    # in the data's own units, of each number apart
    names = context.processor.labels or tuple(f"target_{n}" for n in range(1, wanted.shape[1] + 1))
    scores: dict[str, float] = {}
    for n, label in enumerate(names):
        model = _regressor(name, inputs, context.seed)
        _fit(model, inputs, wanted[:, n].numpy())
        scale = batches[1]["scale"][:, n].double().numpy()
        found = regression_metrics(model.predict(tested) * scale, true[:, n].numpy() * scale)
        prefix = f"{label}_" if len(names) > 1 else ""
        scores |= {f"{prefix}{measure}": value for measure, value in found.items()}
    return scores


def _classifier(name: Baseline, inputs: Any, seed: int) -> Any:
    if name == "boosting":
        return scikit_learn("ensemble").HistGradientBoostingClassifier(random_state=seed)
    if not isinstance(inputs, np.ndarray):  # sparse, as TF-IDF is
        return scikit_learn("svm").LinearSVC(random_state=seed)
    return _scaled(scikit_learn("linear_model").LogisticRegression(max_iter=1000))


def _regressor(name: Baseline, inputs: Any, seed: int) -> Any:
    if name == "boosting":
        return scikit_learn("ensemble").HistGradientBoostingRegressor(random_state=seed)
    model = scikit_learn("linear_model").RidgeCV(alphas=np.logspace(-3, 3, 13))
    return _scaled(model) if isinstance(inputs, np.ndarray) else model


def _scaled(model: Any) -> Any:
    scaler = scikit_learn("preprocessing").StandardScaler()
    return scikit_learn("pipeline").make_pipeline(scaler, model)


def _fit(model: Any, inputs: Any, wanted: Any) -> None:
    with warnings.catch_warnings():
        # a fit that has not quite converged is a baseline all the same
        warnings.simplefilter("ignore")
        model.fit(inputs, wanted)
