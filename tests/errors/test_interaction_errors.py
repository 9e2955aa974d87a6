"""What is wrong with interactions is said with its file and row, and what to do."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from recommendations import write_interactions, write_rows

from groundup import api
from groundup.core.errors import CheckpointError, DataError, RecipeError
from groundup.core.registry import lookup
from groundup.core.settings import validate
from groundup.data.sources.interactions import Interactions
from groundup.export.export_run import export_run
from groundup.processors.interactions import InteractionsConfig, InteractionsProcessor
from groundup.tasks.recommend.task import Recommend

HEADER = ("user", "item", "rating", "time")
ROWS = [(f"u{n % 4}", f"i{n}", 1 + n % 5, n) for n in range(24)]


def read(folder: Path, rows: list[tuple[Any, ...]], **settings: Any) -> Interactions:
    source = Interactions(path=write_rows(folder / "log.csv", HEADER, rows), **settings)
    source.examples("train", folder)
    return source


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        (
            ("u", "i", "good", 1),
            {},
            "log.csv row 25 (ends on line 26): rating 'good' is not a number",
        ),
        (("u", "i", 9, 1), {"rating_range": (1, 5)}, "rating 9 is out of range; allowed: 1 to 5"),
        (("u", "i", 1, "yesterday"), {}, "26): time 'yesterday' is written otherwise than most"),
        (("u", "i", 1, "2024-01-31"), {}, "otherwise than most, which are numbers"),
        (("u", "i", 1, ""), {}, "log.csv row 25 (ends on line 26): time '' is none"),
        (("", "i", 1, 1), {}, "log.csv row 25 (ends on line 26): has no user: 'user' is empty"),
        (("u", "", 1, 1), {}, "log.csv row 25 (ends on line 26): has no item: 'item' is empty"),
    ],
)
def test_rows_are_named_or_counted(
    row: tuple[Any, ...], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, [*ROWS, row], **settings)
    assert message in str(caught.value)
    assert "log.csv" in str(caught.value)
    assert "on_unreadable: skip" in str(caught.value)
    source = read(tmp_path, [*ROWS, row], on_unreadable="skip", **settings)
    assert sum(source.card(tmp_path)["left_out"].values()) == 1


def test_other_mistakes_are_counted_in_the_message(tmp_path: Path) -> None:
    bad = [("u", "i", "x", 1), ("u", "", 1, 1), ("u", "k", "y", 1)]
    with pytest.raises(DataError, match="there are others: 1 rows without item, 1 ratings"):
        read(tmp_path, [*ROWS, *bad])


def test_a_user_twice_in_the_file_of_users(tmp_path: Path) -> None:
    users = write_rows(tmp_path / "users.csv", ("user", "age"), [("u0", 1), ("u1", 2), ("u0", 3)])
    with pytest.raises(DataError, match=r"row 3 .*: 'u0' is there again, after .* row 1"):
        read(tmp_path, ROWS, users=users)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"user": "who"}, "there is no column 'who'"),
        ({"time": "", "hold_out": "time"}, "is time, but there is no column of times"),
        ({"rating": "", "min_rating": 3.0}, "has no effect: there is no column of ratings"),
        ({"min_user_interactions": 99}, "its filters leave no interaction"),
        ({"repeats": "stop"}, "has item 'i0' twice"),
    ],
)
def test_settings_that_do_not_fit_the_file(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, [*ROWS, ("u0", "i0", 1, 99)], **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fold": 5, "folds": 5, "hold_out": "random"}, "fold is 5, of 5"),
        ({"folds": 5}, "folds has no effect with hold_out"),
        ({"fraction": 0.5, "test": 0.5, "hold_out": "time"}, "less than 1 - fraction = 0.5"),
        ({"fraction": 0.2}, "fraction has no effect with hold_out: last. Remove fraction"),
        ({"seed": 1, "hold_out": "time"}, "seed has no effect with hold_out: time"),
        ({"validation": "b.csv"}, "validation names a file; interactions are held out of path"),
        ({"dataset": "ml-100k", "path": None}, "data interactions reads files"),
        ({"fraction": 0.0, "hold_out": "time"}, "nothing chooses the best weights"),
        ({"rating_range": [5, 1]}, "Write the lower one first"),
        ({"test": 0.2, "folds": 4, "hold_out": "random"}, "test has no effect with folds"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate(Interactions, {"path": "log.csv", **settings}, "recipe.data")


def test_a_header_without_types(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text("user\titem\n1\t2\n", encoding="utf-8")
    with pytest.raises(DataError, match="column 'user' has no type"):
        Interactions(path=str(tmp_path / "x.inter")).examples("train", tmp_path)


def recipe_of(folder: Path, **task: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "model": {"name": "matrix_factorization", "width": 4},
        "task": {"name": "recommend", **task},
        "data": write_interactions(folder, 20),
        "processor": "interactions",
        "training": {"batch_size": 8, "steps": 2},
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        ("matrix_factorization", {"horizon": 3}, "task.horizon: has no effect"),
        ("matrix_factorization", {"shuffle_ties": True}, "task.shuffle_ties: has no effect"),
        ("matrix_factorization", {"hidden_share": 0.2}, "predicts what is next"),
        ("two_tower", {"l2": 0.1}, "task.l2: has no effect"),
        ("mlp", {}, "makes|scores no items|numbers"),
    ],
)
def test_settings_without_effect_for_a_model(
    model: str, task: dict[str, Any], message: str, tmp_path: Path
) -> None:
    recipe = recipe_of(tmp_path, **task) | {"model": {"name": model}}
    with pytest.raises(RecipeError, match=message):
        api.trainer(recipe, runs=tmp_path / "runs")


@pytest.mark.slow
def test_there_are_no_ratings_to_predict(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, objective="ratings")
    recipe["data"] |= {"rating": ""}
    with pytest.raises(RecipeError, match="is ratings, but the data has none"):
        api.trainer(recipe, runs=tmp_path / "runs")


def test_there_are_no_times_to_weigh_by(tmp_path: Path) -> None:
    source = Interactions(path=write_rows(tmp_path / "log.csv", HEADER, ROWS), time="")
    examples = source.examples("train", tmp_path)
    processor = InteractionsConfig().fit(lambda: iter(examples))
    with pytest.raises(RecipeError, match="half_life: is 20 days, but the data has no times"):
        Recommend(half_life=20.0).fit_processor(processor, lambda: iter(examples))


def test_too_many_items_to_count_their_pairs(
    processor: InteractionsProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.tasks.recommend.task.MOST_ITEMS", 9)
    with pytest.raises(RecipeError, match=r"counts all pairs of .* items; allowed: 9"):
        Recommend(transition_share=0.5).fit_processor(processor, lambda: iter(()))


@pytest.mark.slow
def test_vectors_that_would_give_other_lists(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, transition_share=0.5)
    run = api.train(recipe, {"machine.device": "cpu"}, runs=tmp_path / "runs").folder
    with pytest.raises(CheckpointError, match="adds to the scores what no vector holds"):
        export_run(run, "vectors")


def test_a_processor_of_other_things(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="knows no users and items"):
        Recommend().fit_processor(lookup("processor", "bytes")().fit(lambda: iter(())), iter)
    with pytest.raises(RecipeError, match="knows no users and items"):
        lookup("model", "two_tower")().complete_from(
            lookup("processor", "bytes")().fit(lambda: iter(()))
        )


# --------------------------------------------------------------------------------- predictions
@pytest.fixture
def processor(tmp_path: Path) -> InteractionsProcessor:
    source = validate(Interactions, _settings(write_interactions(tmp_path, 20)), "data")
    found = InteractionsConfig().fit(lambda: iter(source.examples("train", tmp_path)))
    return found.with_max_history(8)


def _settings(section: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "name"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("nobody", "'nobody': is not one of the 20 users of the data"),
        ({"user": "nobody"}, "is not one of the 20 users of the data"),
        ({"user": "x", "history": ["no"]}, "no item of the history is known, such as 'no'"),
        ({"user": "x", "history": "p1"}, "allowed: a list of items"),
    ],
)
def test_an_unknown_user_says_what_to_do(
    asked: Any, message: str, processor: InteractionsProcessor
) -> None:
    with pytest.raises(DataError) as caught:
        processor.as_history(asked)
    assert message in str(caught.value)


def test_unknown_items_of_a_history_are_counted(processor: InteractionsProcessor) -> None:
    known = processor.items[0]
    asked = processor.as_history({"user": "new", "history": [known, "gone"]})
    assert processor.item_numbers(asked.items).tolist() == [1]
    assert "1 items of histories are not known" in processor.cut.filled()[0]


def test_warnings_are_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        source = read(tmp_path, [*ROWS, ("only", "i1", 1, 5)])
        source.examples("test", tmp_path)
    told = [record for record in caplog.records if "fewer than 3" in record.getMessage()]
    assert len(told) == 1
