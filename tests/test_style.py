"""How the package is written, counted over all of it: a number goes one way."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache

import pytest
from test_architecture import FILES, PACKAGE, nodes_of

pytestmark = pytest.mark.xdist_group("architecture")
# For each 1,000 lines that are neither blank nor comments.
MOST_CONDITIONAL_EXPRESSIONS = 20.0
MOST_PACKED_ASSIGNMENTS = 7.5
LEAST_COMMENTS = 11.5
# In all.
MOST_PROBES = 48  # getattr and hasattr: what is asked of a part is declared in core/contracts
MOST_CASTS = 40
MOST_CORE_LINES = 1780
MOST_NESTED = 30
MOST_UNPACKED = 50


@cache
def counted() -> Counter[str]:
    found: Counter[str] = Counter()
    for path in FILES:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        found["comments"] += sum(line.startswith("#") for line in lines)
        found["code"] += sum(bool(line) and not line.startswith("#") for line in lines)
        if path.relative_to(PACKAGE).parts[0] == "core":
            found["core"] += sum(bool(line) and not line.startswith("#") for line in lines)
        for node in nodes_of(path):
            found["conditional"] += isinstance(node, ast.IfExp)
            found["packed"] += (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Tuple)
                and isinstance(node.targets[0], ast.Tuple)
            )
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found[node.func.id] += node.func.id in ("getattr", "hasattr", "cast")
    return found


def of_a_thousand(name: str) -> float:
    return 1000 * counted()[name] / counted()["code"]


def test_conditional_expressions_are_rare() -> None:
    assert of_a_thousand("conditional") <= MOST_CONDITIONAL_EXPRESSIONS


def test_unrelated_values_are_assigned_apart() -> None:
    assert of_a_thousand("packed") <= MOST_PACKED_ASSIGNMENTS


def test_comments_say_why() -> None:
    assert of_a_thousand("comments") >= LEAST_COMMENTS


def test_parts_are_asked_and_not_probed() -> None:
    assert counted()["getattr"] + counted()["hasattr"] <= MOST_PROBES
    assert counted()["cast"] <= MOST_CASTS


def test_the_core_is_small() -> None:
    assert counted()["core"] <= MOST_CORE_LINES


def test_no_conditional_expression_is_inside_another() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in FILES
        for node in nodes_of(path)
        if isinstance(node, ast.IfExp)
        and any(isinstance(part, ast.IfExp) for part in (node.body, node.orelse, node.test))
    ]
    assert len(found) <= MOST_NESTED, found


def test_no_dictionary_or_tuple_is_unpacked_where_it_is_written() -> None:
    """``**{"a": 1}`` and ``*(a, b)`` only please a formatter."""
    found = []
    for path in FILES:
        for node in nodes_of(path):
            pairs = zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ()
            literal = any(key is None and isinstance(value, ast.Dict) for key, value in pairs)
            literal |= isinstance(node, ast.Call) and any(
                keyword.arg is None and isinstance(keyword.value, ast.Dict)
                for keyword in node.keywords
            )
            literal |= isinstance(node, ast.Starred) and isinstance(node.value, ast.Tuple)
            if literal:
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert len(found) <= MOST_UNPACKED, found
