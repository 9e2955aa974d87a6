"""YAML as people mean it: ``3e-4`` is a number, ``no`` is a word, and no key is there twice."""

from __future__ import annotations

import re
from typing import Any, cast

import yaml

from groundup.core.errors import RecipeError

__all__ = ["dump_yaml", "parse_yaml"]


# mappings and lists in one another; the parser in C would run out of stack at some ten thousand
_DEEPEST = 100


# libyaml is ten times as fast
class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """YAML as people mean it: ``3e-4`` is a number, ``no`` is a word, and a key may be there
    only once."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012
    where = ""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                line = key.start_mark.line + 1
                raise RecipeError(
                    f"{self.where} line {line}",
                    f"the key {key.value!r} is there twice",
                    "Remove one",
                )
            seen.add(key.value)
        built: dict[Any, Any] = super().construct_mapping(node, deep)
        return built


# YAML 1.1 has more of these: yes and no are booleans there, 1:30 is 90 and 3e-4 is text. People
# write them as words, times and numbers.
_RESOLVERS: tuple[tuple[str, str, str], ...] = (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9][0-9_]*$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$",
        "-+.0123456789",
    ),
)
for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(
        _tag, re.compile(_pattern), ["" if c == "\0" else c for c in _first]
    )


def parse_yaml(text: str, where: str) -> Any:
    """Return the plain values that a text in YAML means.

    Raises:
        RecipeError: If it is no YAML, nested too deeply, or a key is there twice; the message names
            the line.
    """
    try:
        _check_depth(text, where)
        loader = _Loader(text)
        loader.where = where
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        place = where
        problem = "cannot be read"
        if isinstance(error, yaml.MarkedYAMLError):  # it knows where it is, mostly
            problem = error.problem or problem
            if error.problem_mark is not None:
                # At the end of a text the mark is on the line after the last.
                line = min(error.problem_mark.line, text.count("\n")) + 1
                place = f"{where} line {line}"
        raise RecipeError(
            place, f"not valid YAML: {problem}", "Check indentation, colons and quotes"
        ) from None


def _check_depth(text: str, where: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            # The types say that it may be None, which it is only for events made by hand.
            line = cast(yaml.Mark, event.start_mark).line + 1
            raise RecipeError(
                f"{where} line {line}", f"is nested over {_DEEPEST} levels deep", "Write it flat"
            )


def dump_yaml(values: Any) -> str:
    """Return plain values as YAML, in their own order."""
    # libyaml writes emoji as numbers
    quick = yaml.__with_libyaml__ and max(repr(values)) <= "\uffff"
    dumper = yaml.CSafeDumper if quick else yaml.SafeDumper
    return str(yaml.dump(values, Dumper=dumper, sort_keys=False, allow_unicode=True, width=120))
