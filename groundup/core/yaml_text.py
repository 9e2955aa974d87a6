"""YAML as people mean it: ``3e-4`` is a number, ``no`` is a word, and a key may not stand twice."""

from __future__ import annotations

import re
from typing import Any

import yaml

from groundup.core.errors import RecipeError

__all__ = ["parse_yaml"]


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: ``3e-4`` is a number, ``no`` is a word, and a key may not stand twice."""

    yaml_implicit_resolvers = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise RecipeError(
                    f"{key.start_mark.name} line {line}", f"the key {key.value!r} stands twice", "Remove one"
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_RESOLVERS: tuple[tuple[str, str, str], ...] = (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9][0-9_]*$", "-+0123456789"),
    ("tag:yaml.org,2002:float", r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
)
for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), ["" if c == "\0" else c for c in _first])


def parse_yaml(text: str, where: str) -> Any:
    """Return the plain values that a text in YAML stands for.

    Raises:
        RecipeError: If it is no YAML, or a key stands twice; the message names the line.
    """
    try:
        loader = _Loader(text)
        loader.name = where
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where} line {mark.line + 1}" if mark else where
        problem = getattr(error, "problem", None) or "cannot be read"
        raise RecipeError(place, f"not valid YAML: {problem}", "Check indentation, colons and quotes") from None
