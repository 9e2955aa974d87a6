"""Interactions: how they are read, filtered, put in order and held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recommendations import write_interactions, write_rows

from groundup.core.values import Example, Split
from groundup.data.cleaning.interaction_filters import find_core, find_repeats
from groundup.data.sources.interactions import Interactions
from groundup.testing import check_data

HEADER = ("user_id", "item_id", "rating", "timestamp")


def source_of(folder: Path, log: list[tuple[Any, ...]], **settings: Any) -> Interactions:
    return Interactions(path=write_rows(folder / "log.csv", HEADER, log), **settings)


def taken(source: Interactions, split: Split) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return what each user did before, and what they chose."""
    found: list[Example] = source.examples(split, Path())
    return {each.inputs.user: (each.inputs.items, each.target.items) for each in found}


def test_the_last_two_of_each_user_are_held_out(tmp_path: Path) -> None:
    rows = [("u", f"i{n}", 1, n) for n in (3, 1, 2, 4)]
    source = source_of(tmp_path, rows)
    assert taken(source, "train") == {"u": ((), ("i1", "i2"))}
    assert taken(source, "validation") == {"u": (("i1", "i2"), ("i3",))}
    assert taken(source, "test") == {"u": (("i1", "i2", "i3"), ("i4",))}


def test_of_one_time_the_row_that_comes_later_is_the_later_one(tmp_path: Path) -> None:
    rows = [("u", item, 1, time) for item, time in (("z", 5), ("b", 7), ("a", 7), ("c", 7))]
    source = source_of(tmp_path, rows)
    assert taken(source, "test") == {"u": (("z", "b", "a"), ("c",))}
    card = source.card(tmp_path)
    assert card["users_whose_last_two_are_at_one_time"] == 1
    assert "1 of 1 users have two last interactions of the same time" in card["warnings"][0]


def test_users_with_few_interactions_are_trained_on_and_counted(tmp_path: Path) -> None:
    rows = [("one", "a", 1, 1), *(("more", item, 1, n) for n, item in enumerate("abcd"))]
    source = source_of(tmp_path, rows)
    assert set(taken(source, "train")) == {"one", "more"}
    assert set(taken(source, "test")) == {"more"}
    assert "1 of 2 users have fewer than 3 interactions" in source.card(tmp_path)["warnings"][0]


def test_by_time_all_that_happened_in_the_second_of_the_cut_is_later(tmp_path: Path) -> None:
    rows = [(f"u{n}", "a", 1, min(n, 8)) for n in range(10)]
    source = source_of(tmp_path, rows, hold_out="time", fraction=0.1, test=0.1)
    # the last tenth begins within the second 8, of which there are two
    assert set(taken(source, "test")) == {"u8", "u9"}
    assert "u7" in taken(source, "train")


def test_held_out_users_are_asked_for_their_last_item(tmp_path: Path) -> None:
    rows = [(f"u{n}", item, 1, place) for n in range(20) for place, item in enumerate("abc")]
    source = source_of(tmp_path, rows, hold_out="users", fraction=0.2, test=0.2)
    tested = taken(source, "test")
    assert len(tested) == 4
    assert set(tested.values()) == {(("a", "b"), ("c",))}
    assert not set(tested) & set(taken(source, "train"))


def test_folds_cover_all_interactions_once(tmp_path: Path) -> None:
    rows = [(f"u{n % 7}", f"i{n}", 1 + n % 5, n) for n in range(50)]
    seen: list[str] = []
    for fold in range(5):
        source = source_of(tmp_path, rows, hold_out="random", folds=5, fold=fold)
        seen += [item for _, chosen in taken(source, "test").values() for item in chosen]
    assert sorted(seen) == sorted(item for _, item, *_ in rows)


def test_rows_may_be_interactions(tmp_path: Path) -> None:
    rows = [("u", f"i{n}", n + 1, n) for n in range(5)]
    source = source_of(tmp_path, rows, rows="interactions")
    found = source.examples("train", tmp_path)
    assert [example.target.items for example in found] == [("i0",), ("i1",), ("i2",)]
    assert [example.target.ratings for example in found] == [(1.0,), (2.0,), (3.0,)]
    assert "row 2 (" in found[1].origin


def test_repeats_are_counted(tmp_path: Path) -> None:
    rows = [("u", item, 1, n) for n, item in enumerate("abacd")]
    last = source_of(tmp_path, rows)
    assert taken(last, "train") == {"u": ((), ("b", "a"))}
    assert last.card(tmp_path)["left_out"] == {"repeats of a user's item (the last is kept)": 1}
    first = source_of(tmp_path, rows, repeats="first")
    assert taken(first, "train") == {"u": ((), ("a", "b"))}
    assert taken(source_of(tmp_path, rows, repeats="keep"), "train") == {"u": ((), ("a", "b", "a"))}


def test_repeats_and_the_core_by_hand() -> None:
    users = np.array([0, 0, 0, 1, 1, 2])
    items = np.array([5, 6, 5, 5, 6, 7])
    assert find_repeats(users, items, "first").tolist() == [2]
    assert find_repeats(users, items, "last").tolist() == [0]
    kept, passes = find_core(users, items, 2, 2)
    # user 2 has one interaction, and with it item 7 goes
    assert kept.tolist() == [True] * 5 + [False]
    assert passes == 2


def test_the_core_is_counted(tmp_path: Path) -> None:
    rows = [(f"u{n}", item, 1, place) for n in range(3) for place, item in enumerate("abc")]
    source = source_of(tmp_path, [*rows, ("u9", "z", 1, 0)], min_item_interactions=2)
    assert "u9" not in taken(source, "train")
    assert source.card(tmp_path)["left_out"] == {"of users or items with too few, in 2 passes": 1}


def test_recbole_files_say_what_their_columns_hold(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        + "".join(f"7\t{n}\t{n}.0\t{n}\n" for n in range(1, 5)),
        encoding="utf-8",
    )
    (tmp_path / "x.item").write_text(
        "item_id:token\tmovie_title:token_seq\tclass:token_seq\tv:float_seq\n"
        '1\tThe "One"\tDrama War\t0 1\n2\tTwo\tWar\t1 2\n3\tThree\tWar\t1 2\n4\tFour\tWar\t1 2\n',
        encoding="utf-8",
    )
    source = Interactions(path=str(tmp_path))
    example = source.examples("test", tmp_path)[0]
    assert example.target.items == ("4",)
    catalogue = example.inputs.catalogue
    assert catalogue.titles["1"] == 'The "One"'
    assert catalogue.items["1"] == {"class": ["Drama", "War"]}


def test_dates_and_lines_of_json_are_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [
        {"user": "u", "item": item, "time": f"2024-01-0{day}"}
        for day, item in ((3, "c"), (1, "a"), (2, "b"))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert taken(Interactions(path=str(path)), "test") == {"u": (("a", "b"), ("c",))}


def test_items_without_columns_are_counted_and_named(tmp_path: Path) -> None:
    items = write_rows(tmp_path / "items.csv", ("item_id", "title"), [("a", "An A")])
    rows = [("u", item, 1, n) for n, item in enumerate("abca")]
    source = source_of(tmp_path, rows, items=items, repeats="keep")
    warning = source.card(tmp_path)["warnings"][0]
    assert warning.startswith("2 items of the interactions are not in the file of items: 'b' (1)")


@pytest.mark.slow
@pytest.mark.parametrize("hold_out", ["last", "time", "users", "random"])
def test_contract(hold_out: str, tmp_path: Path) -> None:
    recipe = {
        "name": "tiny",
        "model": {"name": "sequence_recommender", "width": 8, "layers": 1},
        "task": {"name": "recommend", "max_history": 6, "measured": 0},
        "data": {**write_interactions(tmp_path), "hold_out": hold_out},
        "processor": "interactions",
        "training": {"batch_size": 8, "steps": 4},
    }
    check_data(recipe)


def test_limit_is_of_the_users_of_each_split(tmp_path: Path) -> None:
    rows = [(user, item, 1, item) for user in range(6) for item in range(4)]
    source = source_of(tmp_path, rows, limit=2)
    for split in source.splits():
        assert len(source.examples(split, tmp_path)) == 2
