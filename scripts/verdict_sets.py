"""The sets of curves that scripts/verdict_curves.py trains: each has data, models, sizes and seeds
of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sklearn import datasets
from verdict_problems import (
    Recipe,
    bars,
    bent,
    change,
    digits,
    diverge,
    docstrings,
    echoes,
    few,
    few_list,
    flip,
    gratings,
    heavy_tails,
    labelled,
    leak,
    mark,
    motifs,
    named,
    pictures,
    prose,
    recover,
    scale_rate,
    shapes,
    short,
    shuffle,
    shuffle_list,
    smooth_target,
    source_lines,
    source_text,
    table,
    tones,
    unrelated,
    waves,
)

__all__ = ["SETS", "Curve"]


@dataclass(frozen=True)
class Curve:
    """A recipe, and what is the matter with it."""

    cause: str
    recipe: Recipe


def number_curves(curves: Mapping[str, list[Recipe]]) -> dict[str, Curve]:
    """Return the curves by name: the cause and a number."""
    return {
        f"{cause}-{number}": Curve(cause, recipe)
        for cause, recipes in curves.items()
        for number, recipe in enumerate(recipes)
    }


def development() -> dict[str, Curve]:
    """Return the curves on which the rules were settled."""
    classes = named(
        datasets.make_classification(
            1500, 12, n_informative=6, n_classes=3, flip_y=0.1, class_sep=1.3, random_state=2
        )
    )
    breast = named(datasets.load_breast_cancer(return_X_y=True))
    friedman = datasets.make_friedman1(1200, noise=1.0, random_state=0)
    smooth = smooth_target(1000, 0.3, seed=1)
    diabetes = datasets.load_diabetes(return_X_y=True)
    modules = ["argparse", "tarfile", "decimal", "ast"]
    lines = source_lines(["argparse", "tarfile", "typing"], 500)
    mixed = list(zip((t for t, _ in lines), shuffle_list([c for _, c in lines]), strict=True))
    sgd = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.0}
    cnn = {
        "model": {"name": "cnn", "channels": [8, 16], "hidden": [32]},
        "processor": {"name": "image", "pad_to": [16, 16]},
    }
    a = table("classes", classes, "classify")
    b = table("breast", breast, "classify", **{"model.hidden": [16]})
    c = table("friedman", friedman, "regression", **{"optim.lr": 5e-3, "optim.schedule": "cosine"})
    d = table("smooth", smooth, "regression", **{"optim": sgd, "model.hidden": [24]})
    e = pictures("digits", digits())
    f = pictures("digits2", digits(), **cnn, **{"optim.schedule": "cosine", "optim.lr": 2e-3})
    g = waves("tones", tones(900, 0.3), **{"training.epochs": 25, "optim.schedule": "cosine"})
    h = labelled("lines", lines)
    i = prose("source", source_text(modules)[:120000])
    j = pictures("bars", bars(1200, 0.5), **{"optim": sgd, "model.hidden": [32]})
    long = {"training.epochs": 80, "logging.every": 20}
    narrow = {"model.hidden": [1], "training.epochs": 40}
    curves = {
        "fine": [
            a, b, c, d, e, f, g, h, i, j,
            table("diabetes", diabetes, "regression", **{"model.hidden": [8]}),
            change(a, {"optim": {"name": "sgd", "lr": 0.05}, "training.epochs": 40}),
            change(e, {"model.dropout": 0.3, "training.epochs": 25}),
        ],
        "rate_too_high": [
            scale_rate(a, 300), scale_rate(c, 100), scale_rate(d, 40), scale_rate(e, 100),
            scale_rate(f, 100), scale_rate(g, 100), scale_rate(i, 60), scale_rate(j, 60),
            scale_rate(h, 300), scale_rate(b, 500),
        ],
        "rate_too_low": [
            scale_rate(a, 0.01), scale_rate(c, 0.01), scale_rate(d, 0.003), scale_rate(e, 0.01),
            scale_rate(g, 0.01), scale_rate(h, 0.01), scale_rate(i, 0.01), scale_rate(f, 0.01),
        ],
        "diverged": [
            diverge(a, 3.0, 800), diverge(d, 30.0, 500), diverge(e, 3.0, 550),
            diverge(i, 1.0, 380), diverge(j, 30.0, 400),
        ],
        "recovered": [
            recover(e, 0.3, 250), recover(a, 0.6, 500), recover(f, 0.15, 250),
            recover(i, 0.15, 200), recover(j, 3.0, 150),
        ],
        "underfitting": [
            change(a, narrow), change(c, {**narrow, "optim.lr": 0.01}),
            change(e, {"model.hidden": [2], "training.epochs": 40, "optim.lr": 5e-3}),
            change(a, {"model.dropout": 0.9}), change(d, {"optim.weight_decay": 3.0}),
            change(j, {"model.hidden": [1], "training.epochs": 30}),
            change(i, {"model": {"name": "gpt", "layers": 1, "width": 4, "heads": 1,
                                 "context_length": 64}, "training.steps": 800}),
        ],
        "overfitting": [
            table("classes_few", few(classes, 200), "classify",
                  **{"model.hidden": [256, 256], **long}),
            table("friedman_few", few(friedman, 120), "regression",
                  **{"model.hidden": [256, 256], **long}),
            table("diabetes_big", diabetes, "regression", **{"model.hidden": [256], **long}),
            pictures("digits_few", few(digits(), 150), **{"model.hidden": [256], **long}),
            pictures("bars_few", few(bars(1200, 0.6), 200), **{"model.hidden": [256], **long}),
            change(i, {"data.path": "short", "data.fraction": 0.3, "training.steps": 700,
                       "model.width": 96, "optim.schedule": "constant"}),
            labelled("lines_few", few_list(lines, 160), **{"training.epochs": 40}),
            waves("tones_few", few(tones(900, 0.6), 120), **{"training.epochs": 80}),
        ],
        "too_short": [
            short(a, 25, 4), short(c, 40, 5), short(e, 50, 8), short(f, 40, 5), short(g, 60, 8),
            short(i, 60, 10), short(j, 25, 4), short(h, 60, 8), change(e, {"training.epochs": 3}),
        ],
        "noisy_validation": [
            change(a, {"data.fraction": 0.012, "optim.lr": 0.01}),
            change(c, {"data.fraction": 0.012, "optim.lr": 0.01, "optim.schedule": "constant"}),
            change(e, {"data.fraction": 0.008, "optim.lr": 0.005}),
            change(d, {"data.fraction": 0.012}),
            change(j, {"data.fraction": 0.01}),
            change(h, {"data.fraction": 0.01}),
        ],
        "labels_shuffled": [
            table("a_mixed", shuffle(classes), "classify"),
            pictures("e_mixed", shuffle(digits()), **{"model.hidden": [128]}),
            pictures("f_mixed", shuffle(digits()), **cnn),
            waves("g_mixed", shuffle(tones(900, 0.3))),
            labelled("h_mixed", mixed),
            table("c_mixed", shuffle(friedman), "regression"),
        ],
        "no_better_than_mean": [
            table("a_random", unrelated(classes), "regression"),
            table("d_random", unrelated(smooth), "regression", **{"optim": sgd}),
            table("b_random", unrelated(breast), "regression", **{"training.epochs": 60}),
        ],
        "leakage": [
            table("a_leak", leak(classes), "classify"),
            table("c_leak", leak(friedman), "regression", **{"training.epochs": 60}),
            table("a_leak2", leak(classes, 0.05), "classify", **{"optim.lr": 5e-3}),
            table("c_leak2", leak(friedman, 0.03), "regression", **{"optim.lr": 5e-3}),
            pictures("e_leak", mark(bars(1200, 1.5))),
        ],
    }  # fmt: skip
    part = docstrings(["argparse", "json"])[:6000]
    prose("short", part)
    return number_curves(curves)


def held_out() -> dict[str, Curve]:
    """Return curves of other data, models, sizes and seeds."""
    rings = named(
        flip(
            datasets.make_gaussian_quantiles(
                n_samples=1800, n_features=4, n_classes=3, random_state=11
            ),
            0.1,
            11,
        )
    )
    moons = named(datasets.make_moons(1500, noise=0.3, random_state=11))
    breast = named(datasets.load_breast_cancer(return_X_y=True))
    circles = named(datasets.make_circles(1500, noise=0.18, factor=0.4, random_state=11))
    line = datasets.make_regression(1200, 6, noise=40.0, random_state=11)
    line = (line[0], line[1].round(4))
    roll, turn = datasets.make_swiss_roll(1200, noise=0.4, random_state=11)
    roll = (roll, turn.round(5))
    cubic = bent(1500, 0.4, 11)
    lines = source_lines(["turtle", "smtplib", "fractions", "pprint"], 330)
    drawn = shuffle_list([label for _, label in lines], 11)
    mixed = [(text, label) for (text, _), label in zip(lines, drawn, strict=True)]
    text = docstrings(["torch.nn.functional", "torch"])
    cnn = {
        "model": {"name": "cnn", "channels": [8, 16], "hidden": [24]},
        "processor": {"name": "image", "pad_to": [12, 12]},
    }
    sgd = {"name": "sgd", "lr": 0.03, "momentum": 0.9}
    long = {"training.epochs": 100, "logging.every": 10}
    steady = {"optim.schedule": "constant"}
    a = table("rings", rings, "classify", **{"optim.lr": 4e-3, "training.epochs": 35})
    b = table(
        "moons11",
        moons,
        "classify",
        **{"optim": {**sgd, "schedule": "cosine"}, "training.epochs": 30},
    )
    c = table(
        "breast11",
        breast,
        "classify",
        **{"model.hidden": [16], "optim.weight_decay": 0.1, "training.epochs": 20},
    )
    d = table(
        "circles11",
        circles,
        "classify",
        **{"model.hidden": [16], "optim.lr": 5e-3, "training.epochs": 30},
    )
    e = table("line", line, "regression", **{"model.hidden": [], "optim.lr": 0.01})
    f = table(
        "roll",
        roll,
        "regression",
        **{
            "model.hidden": [32, 32],
            "optim.lr": 4e-3,
            "optim.schedule": "cosine",
            "training.epochs": 50,
        },
    )
    g = table(
        "cubic",
        cubic,
        "regression",
        **{"model.hidden": [24], "optim.lr": 5e-3, "training.epochs": 35},
    )
    h = pictures(
        "gratings", gratings(2400, 1.2, seed=11), **cnn, **{"optim.lr": 2e-3, "training.epochs": 10}
    )
    i = pictures(
        "digits11",
        digits(),
        **{
            "model": {"name": "mlp", "hidden": [48], "dropout": 0.2},
            "training.epochs": 25,
            "optim": {"name": "sgd", "lr": 0.15},
        },
    )
    j = waves(
        "motifs",
        motifs(1800, 0.5, seed=11),
        **{"model.width": 20, "training.epochs": 14, "optim.schedule": "cosine"},
    )
    k = labelled(
        "lines11",
        lines,
        **{
            "model": {"name": "bag_of_ngrams", "width": 12, "ngrams": 1},
            "training.epochs": 14,
            "optim.lr": 5e-3,
        },
    )
    m = prose("torch", text[:140000], **{"training.steps": 550, "evaluation.every": 25})
    curves = {
        "fine": [
            a, b, c, d, e, f, g, h, i, j, k, m,
            change(g, {"optim": {"name": "adam", "lr": 3e-3, "schedule": "linear"},
                       "training.epochs": 30}),
            change(a, {"training.batch_size": 64, "model.dropout": 0.1, "training.epochs": 50}),
        ],
        "rate_too_high": [change(scale_rate(g, 100), steady), change(scale_rate(h, 100), steady),
                          change(scale_rate(m, 60), steady)],
        "rate_too_low": [scale_rate(a, 0.01), scale_rate(j, 0.01), scale_rate(i, 0.01)],
        "diverged": [diverge(h, 3.0, 500), diverge(g, 4.0, 1000)],
        "recovered": [recover(i, 6.0, 300), recover(h, 0.2, 200)],
        "underfitting": [change(a, {"model.hidden": [1]}), change(g, {"model.hidden": [1]}),
                         change(i, {"model.hidden": [2], "optim": {"lr": 3e-3}})],
        "overfitting": [
            table("rings_few", few(rings, 200), "classify", **{"model.hidden": [256, 256], **long}),
            table("cubic_few", few(cubic, 130), "regression",
                  **{"model.hidden": [256, 256], **long}),
            pictures("gratings_few", few(gratings(2400, 1.2, seed=11), 250), **cnn, **long)],
        "too_short": [short(h, 45, 6), short(g, 50, 6), short(m, 80, 10)],
        "noisy_validation": [change(g, {"data.fraction": 0.01}),
                             change(a, {"data.fraction": 0.008})],
        "labels_shuffled": [
            table("rings_mixed", shuffle(rings, 11), "classify"),
            pictures("gratings_mixed", shuffle(gratings(2400, 1.2, seed=11), 11), **cnn),
            labelled("lines_mixed11", mixed, **{"training.epochs": 12})],
        "no_better_than_mean": [
            table("cubic_random", unrelated(cubic, 11), "regression", **{"training.epochs": 40}),
            table("roll_random", unrelated(roll, 11), "regression",
                  **{"optim": {"name": "sgd", "lr": 0.02}})],
        "leakage": [
            table("rings_leak", leak(rings), "classify", **{"optim.lr": 4e-3}),
            table("cubic_leak", leak(cubic), "regression", **{"optim.lr": 5e-3,
                                                              "training.epochs": 50})],
    }  # fmt: skip
    return number_curves(curves)


def second_held_out() -> dict[str, Curve]:
    """Return curves of other data again."""
    cube = named(
        datasets.make_classification(
            1800,
            10,
            n_informative=5,
            n_redundant=2,
            n_classes=3,
            flip_y=0.08,
            class_sep=1.5,
            n_clusters_per_class=1,
            random_state=21,
        )
    )
    images, numbers = digits()
    flat = named((images.reshape(len(images), -1), numbers))
    friedman = datasets.make_friedman3(1500, noise=0.15, random_state=21)
    friedman = (friedman[0], friedman[1].round(5))
    tails = heavy_tails(1600, 21)
    breast = datasets.load_breast_cancer(return_X_y=True)
    breast = named((breast[0][:, :6], breast[1]))
    lines = source_lines(["imaplib", "mailbox", "optparse"], 420)
    drawn = shuffle_list([label for _, label in lines], 21)
    mixed = [(text, label) for (text, _), label in zip(lines, drawn, strict=True)]
    text = docstrings(["sklearn.linear_model", "sklearn.ensemble", "sklearn.cluster"])
    cnn = {
        "model": {"name": "cnn", "channels": [6, 12], "hidden": [24]},
        "processor": {"name": "image", "pad_to": [16, 16]},
    }
    sgd = {"name": "sgd", "lr": 0.02, "momentum": 0.9}
    long = {"training.epochs": 100, "logging.every": 10}
    steady = {"optim.schedule": "constant"}
    a = table("cube", cube, "classify", **{"model.hidden": [16], "training.epochs": 25})
    b = table(
        "flat",
        flat,
        "classify",
        **{"model.hidden": [32], "optim.weight_decay": 0.1, "training.epochs": 20},
    )
    c = table(
        "friedman21",
        friedman,
        "regression",
        **{"model.hidden": [16], "optim.lr": 5e-3, "optim.schedule": "cosine"},
    )
    d = table("tails21", tails, "regression", **{"model.hidden": [12], "training.epochs": 25})
    d = change(d, {"task": {"name": "regression", "objective": "mae"}})
    e = table("breast21", breast, "classify", **{"model.hidden": [8], "optim": sgd})
    f = pictures(
        "shapes21", shapes(3000, 0.3, seed=21), **cnn, **{"optim.lr": 3e-3, "training.epochs": 12}
    )
    g = pictures(
        "bars21",
        bars(2600, 0.4, size=14, seed=21),
        **cnn,
        **{"optim": {**sgd, "schedule": "cosine"}, "training.epochs": 12},
    )
    h = waves(
        "echoes21",
        echoes(1800, length=32, seed=21),
        **{
            "model.cell": "lstm",
            "model.width": 14,
            "optim.schedule": "cosine",
            "optim.lr": 5e-3,
            "training.epochs": 14,
        },
    )
    i = labelled(
        "lines21",
        lines,
        **{
            "model": {"name": "bag_of_ngrams", "width": 8, "ngrams": 1},
            "optim": {"lr": 6e-3, "schedule": "linear"},
            "training.epochs": 8,
            "evaluation.every": 30,
        },
    )
    j = prose("sklearn", text[:140000], **{"training.steps": 500, "optim.lr": 4e-3})
    curves = {
        "fine": [a, b, c, d, e, f, g, h, i, j],
        "rate_too_high": [change(scale_rate(a, 200), steady), change(scale_rate(c, 100), steady),
                          change(scale_rate(j, 50), steady)],
        "rate_too_low": [scale_rate(b, 0.01), scale_rate(d, 0.01)],
        "diverged": [diverge(f, 3.0, 1500), diverge(b, 4.0, 1200)],
        "recovered": [recover(b, 0.5, 200), recover(f, 0.12, 250)],
        "underfitting": [change(b, {"model.hidden": [1], "training.epochs": 40}),
                         change(c, {"model.hidden": [1]})],
        "overfitting": [
            table("friedman_few21", few(friedman, 110), "regression",
                  **{"model.hidden": [256, 256], **long}),
            pictures("shapes_few21", few(shapes(3000, 0.6, seed=21), 260), **cnn, **long)],
        "too_short": [short(f, 60, 8), short(b, 30, 4)],
        "noisy_validation": [change(c, {"data.fraction": 0.009})],
        "labels_shuffled": [
            pictures("shapes_mixed", shuffle(shapes(3000, 0.3, seed=21), 21), **cnn),
            labelled("lines_mixed21", mixed, **{"training.epochs": 12})],
        "no_better_than_mean": [
            table("friedman_random21", unrelated(friedman, 21), "regression",
                  **{"model.hidden": [16]})],
        "leakage": [
            table("cube_leak", leak(cube), "classify", **{"optim.lr": 4e-3})],
    }  # fmt: skip
    return number_curves(curves)


def last() -> dict[str, Curve]:
    """Return curves of other data once more."""
    quantiles = named(
        flip(
            datasets.make_gaussian_quantiles(
                n_samples=2200, n_features=6, n_classes=2, random_state=41
            ),
            0.05,
            41,
        )
    )
    moons = named(datasets.make_moons(900, noise=0.25, random_state=41))
    wine = datasets.load_wine(return_X_y=True)
    wine = named((wine[0][:, 4:], wine[1]))
    friedman = datasets.make_friedman1(1500, n_features=7, noise=2.0, random_state=41)
    friedman = (friedman[0], friedman[1].round(4))
    cubic = bent(2200, 0.25, 41)
    lines = source_lines(["ftplib", "gettext", "shelve", "string", "textwrap"], 260)
    drawn = shuffle_list([label for _, label in lines], 41)
    mixed = [(text, label) for (text, _), label in zip(lines, drawn, strict=True)]
    text = docstrings(["numpy.ma", "numpy.random", "numpy.fft", "numpy.polynomial"])
    cnn = {
        "model": {"name": "cnn", "channels": [10, 20], "hidden": [20]},
        "processor": {"name": "image", "pad_to": [12, 12]},
    }
    sgd = {"name": "sgd", "lr": 0.01, "momentum": 0.9}
    long = {"training.epochs": 90, "logging.every": 10}
    steady = {"optim.schedule": "constant"}
    a = table(
        "quantiles41",
        quantiles,
        "classify",
        **{"model.hidden": [24], "optim.lr": 4e-3, "training.epochs": 35},
    )
    b = table(
        "moons41",
        moons,
        "classify",
        **{"model.hidden": [16], "optim.lr": 8e-3, "training.epochs": 35},
    )
    c = table(
        "wine41",
        wine,
        "classify",
        **{
            "model.hidden": [12],
            "optim.lr": 4e-3,
            "training.batch_size": 16,
            "training.epochs": 40,
        },
    )
    d = table(
        "friedman41",
        friedman,
        "regression",
        **{"model.hidden": [16], "optim.lr": 4e-3, "optim.schedule": "linear"},
    )
    e = table("cubic41", cubic, "regression", **{"optim": sgd, "model.hidden": [24]})
    f = pictures(
        "digits41",
        digits(),
        **{"model": {"name": "mlp", "hidden": [96], "dropout": 0.4}, "training.epochs": 22},
    )
    g = pictures(
        "gratings41",
        gratings(2200, 0.9, seed=41),
        **cnn,
        **{"training.epochs": 9, "optim.lr": 2e-3, "training.batch_size": 24},
    )
    h = waves(
        "tones41",
        tones(1700, 0.35, length=28, seed=41),
        **{"model.width": 16, "optim.schedule": "cosine", "training.epochs": 22},
    )
    i = labelled(
        "lines41",
        lines,
        **{
            "model": {"name": "bag_of_ngrams", "width": 10, "ngrams": 1},
            "optim": {"lr": 6e-3, "schedule": "cosine"},
            "training.epochs": 9,
            "evaluation.every": 30,
        },
    )
    j = prose("masked", text[:130000], **{"training.steps": 450, "evaluation.every": 18})
    curves = {
        "fine": [a, b, c, d, e, f, g, h, i, j],
        "rate_too_high": [change(scale_rate(a, 100), steady), change(scale_rate(d, 150), steady),
                          change(scale_rate(h, 80), steady)],
        "rate_too_low": [scale_rate(a, 0.01), scale_rate(g, 0.01)],
        "diverged": [diverge(g, 2.5, 1000), diverge(e, 12.0, 1200)],
        "recovered": [recover(g, 0.15, 250), recover(f, 0.15, 350)],
        "underfitting": [change(a, {"model.hidden": [1]}), change(f, {
            "model": {"name": "mlp", "hidden": [2]}, "optim.lr": 5e-3, "training.epochs": 45})],
        "overfitting": [
            table("quantiles_few", few(quantiles, 220), "classify",
                  **{"model.hidden": [256, 256], **long}),
            table("friedman_few41", few(friedman, 140), "regression",
                  **{"model.hidden": [256], **long})],
        "too_short": [short(g, 50, 7), short(d, 35, 5)],
        "noisy_validation": [change(a, {"data.fraction": 0.008})],
        "labels_shuffled": [
            table("quantiles_mixed", shuffle(quantiles, 41), "classify"),
            labelled("lines_mixed41", mixed, **{"training.epochs": 12})],
        "no_better_than_mean": [
            table("cubic_random41", unrelated(cubic, 41), "regression", **{"optim": sgd})],
        "leakage": [table("cubic_leak41", leak(cubic), "regression", **{"optim.lr": 5e-3})],
    }  # fmt: skip
    return number_curves(curves)


SETS: dict[str, Callable[[], dict[str, Curve]]] = {
    "development": development,
    "held_out": held_out,
    "second_held_out": second_held_out,
    "last": last,
}
