"""How the package is written, counted over all of it: a number goes one way."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache

import pytest
from syntax import nodes_of
from test_architecture import FILES, MODULES, PACKAGE, ROOT, own_imports

pytestmark = pytest.mark.xdist_group("architecture")
# For each 1,000 lines that are neither blank nor comments.
MOST_CONDITIONAL_EXPRESSIONS = 18.0
MOST_PACKED_ASSIGNMENTS = 2.5
LEAST_COMMENTS = 40.0
# In all.
MOST_PROBES = 20  # getattr and hasattr: what is asked of a part is declared in contracts
MOST_CASTS = 30
MOST_CORE_LINES = 1500
MOST_LINES_OF_A_FILE = 400
MOST_TRAINER_FILES = 45  # what is read to follow the loop to its end


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
    assert found == []


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
    assert found == []


def test_files_are_short() -> None:
    files = [*FILES, *(ROOT / "tests").rglob("*.py")]
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: n for path, n in lines.items() if n > MOST_LINES_OF_A_FILE} == {}


def test_the_loop_is_followed_through_few_files() -> None:
    """All that the trainer imports, and what that imports, lazily or not."""
    seen: set[str] = set()
    waiting = ["training.trainer"]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += own_imports(MODULES[f"groundup.{module}".rstrip(".")])
    assert len(seen) <= MOST_TRAINER_FILES, sorted(seen)


def test_tests_take_their_helpers_by_bare_names() -> None:
    # `python -m pytest` puts the repository on the path and `pytest` does not: `tests.support`
    # would be found by one of them only.
    found = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if re.search(r"^\s*(from|import) tests\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert found == []
