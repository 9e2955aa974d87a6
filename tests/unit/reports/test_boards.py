"""Positions of a game in a report."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from groundup.reports.boards import show_boards


def _move(name: str, **values: float) -> dict[str, Any]:
    return {"name": name, "prior": 0.25, "share": 0.75, "gain": 0.5, "visits": 40.0, **values}


def _item(rows: list[str], moves: list[dict[str, Any]]) -> dict[str, Any]:
    return {"rows": rows, "played": "a<1", "value": -0.25, "moves": moves}


def _parse(drawn: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawn)


def test_stones_are_drawn_and_moves_have_bars() -> None:
    moves = [_move("a<1"), _move("b1", prior=0.5, share=0.0, gain=-1.0, visits=0.0)]
    page = _parse(show_boards({"items": [_item(["x.o", "...", ".x."], moves)]}, "A game, lost"))
    assert page.get("aria-label") == "A game, lost"
    assert page.findtext("div/p") == "1. plays a<1, expects -0.25"
    circles = page.findall(".//circle")
    assert [circle.get("class") for circle in circles].count("cell line-0") == 2
    assert [circle.get("class") for circle in circles].count("cell line-1") == 1
    # Read from the upper left place on, row by row.
    assert circles[2].get("class") == "cell line-1"
    assert (circles[2].get("cx"), circles[2].get("cy")) == ("55", "11")
    assert len(circles) == 9
    texts = [text.text for text in page.findall(".//text")]
    # What a move brings is known only of those that were tried.
    assert texts == ["a<1", "25% to 75%, 40 tries, +0.50", "b1", "50% to 0%, 0 tries"]
    widths = [bar.get("width") for bar in page.findall(".//rect")]
    assert widths == ["58.0", "20.0", "1.0", "39.0"]


def test_boards_of_other_libraries_are_shown_as_they_print_themselves() -> None:
    page = _parse(show_boards({"items": [_item(["8 |r n & b", "7"], [])]}, "Chess"))
    assert [text.text for text in page.findall(".//text")] == ["8 |r n & b", "7"]
    assert not page.findall(".//circle")


def test_of_many_moves_the_likeliest_are_shown() -> None:
    moves = [_move(f"move number {number}") for number in range(300)]
    page = _parse(show_boards({"items": [_item(["."], moves)] * 2}, "Go"))
    names = [text.text for text in page.findall("div[2]//text")][::2]
    assert names == ["move nu"] * 8
    assert show_boards({"items": []}, "None") == ""
