"""YAML as people mean it: ``3e-4`` is a number, ``no`` is a word, and no key is there twice."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, cast

import yaml

from groundup.core.errors import RecipeError
from groundup.core.settings import name_lookalikes

__all__ = ["dump_yaml", "parse_override", "parse_yaml"]

# mappings and lists in one another; the parser in C would run out of stack at some ten thousand
_DEEPEST = 100
# Values of a recipe once its aliases are written out: ten lines of them can mean billions.
_LARGEST = 100_000
_PLAIN_SIGNS = "Write it with the signs of ASCII, and indent by spaces"
_STRING = "tag:yaml.org,2002:str"
_WHERE_TO_LOOK = "Check indentation, colons and quotes"
# What the indentation of a line is made of, where it is not spaces alone.
_ODD_INDENT = re.compile(r"(?m)^ *([^\S \r\n]|[\u200b\u2060\ufeff])(?=[^\r\n]*\S)")
_ODD_EDGE = re.compile(r"^[^\S \t\n]|^[\u200b\u2060\ufeff]|[^\S \t\n]$|[\u200b\u2060\ufeff]$")
_KEY = r"(?m)^ *(?:- )?[a-zA-Z_][\w.\-]*"
_SLIPS = (
    (_ODD_INDENT, "the line is indented by {}", "Indent it by spaces"),
    (
        re.compile(_KEY + r"\s*(\uff1a)"),
        "{} follows the key",
        "Write a colon, and a space behind it",
    ),
    (
        re.compile(_KEY + r"(:)(?=[^\s:/\\])"),
        "no space follows the key's colon",
        "Write one: key: value",
    ),
    (
        re.compile(_KEY + r" *(=) *[^\s=]"),
        "there is = behind the key",
        "Write a colon, and a space behind it",
    ),
    (
        re.compile("([\uff0c\u201c\u201d\u2018\u2019\uff3b\uff3d\uff5b\uff5d\uff1a])"),
        "there is {}",
        "Write what YAML knows: : , \" ' [ ] { }",
    ),
)
_UNCLEAR = re.compile(r"[\uff1a]|\w:\S")  # what would look like a key in a text of several lines
_QUOTED = re.compile("^[\u201c\u2018\u300c\uff02].*[\u201d\u2019\u300d\uff02]$", re.DOTALL)


# libyaml is ten times as fast
class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """YAML with the scalars below."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


# YAML 1.1 has more of these: yes and no are booleans there, 1:30 is 90, 010 is 8 and 3e-4 is text.
# People write them as words, times and numbers; of 010 nobody knows, so it is a word.
_DIGITS = r"(?:0|[1-9][0-9]{0,2}(?:_[0-9]{3})+|[1-9][0-9]*)"
_RESOLVERS: tuple[tuple[str, str, str], ...] = (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("tag:yaml.org,2002:merge", r"^<<$", "<"),  # as a key; elsewhere a word
    ("tag:yaml.org,2002:int", rf"^[-+]?{_DIGITS}$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        rf"^[-+]?(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$",
        "-+.0123456789",
    ),
)


class _Dumper(yaml.CSafeDumper if yaml.__with_libyaml__ else yaml.SafeDumper):  # type: ignore[misc]
    """Quotes what the loader would read as something else, too."""


class _EmojiDumper(yaml.SafeDumper):
    """The same; libyaml writes emoji as numbers."""


_KINDS: tuple[Any, ...] = (_Loader, _Dumper, _EmojiDumper)
for _tag, _pattern, _first in _RESOLVERS:
    for _kind in _KINDS:
        _kind.add_implicit_resolver(
            _tag, re.compile(_pattern), ["" if c == "\0" else c for c in _first]
        )
_Loader.add_constructor("tag:yaml.org,2002:merge", lambda loader, node: node.value)
_Loader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(node.value.replace("_", ""))
)
_Loader.add_constructor(
    "tag:yaml.org,2002:float", lambda loader, node: float(node.value.replace("_", ""))
)


def _write_text(dumper: Any, text: str) -> yaml.ScalarNode:
    odd = _ODD_EDGE.search(text) or _QUOTED.match(text) or _UNCLEAR.search(text)
    node: yaml.ScalarNode = dumper.represent_scalar(_STRING, text, style="'" if odd else None)
    return node


for _kind in _KINDS[1:]:
    _kind.add_representer(str, _write_text)


def parse_yaml(text: str, where: str) -> Any:
    """Return the plain values that a text in YAML means.

    Raises:
        RecipeError: If it is no YAML, nested too deeply, a key is there twice, or a sign was typed
            that only looks like one of YAML's; the message names the line.
    """
    # an editor's mark at the beginning of a file, which is no part of the text
    text = text.removeprefix("\ufeff")
    _check_characters(text, where)
    try:
        _check_events(text, where)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _Check(text, where).tree(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _explain(error, text, where) from None


def parse_override(value: str, override: str) -> Any:
    """Return what the value of ``key=value`` means.

    Raises:
        RecipeError: As ``parse_yaml``, and where YAML would take a part of it for a comment.
    """
    found = parse_yaml(value, override)
    node = yaml.compose(value, Loader=_Loader)
    read = "" if node is None else value[node.start_mark.index : node.end_mark.index]
    rest = "" if node is None else value[node.end_mark.index :]
    if value.strip() and (not read or rest.strip()):
        raise RecipeError(
            override,
            f"YAML reads only {read!r} of the value",
            "Put the value in two pairs of quotes: KEY='\"...\"'",
        )
    return found


def _check_characters(text: str, where: str) -> None:
    """Refuse what no YAML may hold, by its name and line."""
    for number, line in enumerate(text.split("\n"), 1):
        odd = next((c for c in line if c != "\t" and not c.isprintable() and not c.isspace()), "")
        # what the file system or a terminal could not decode, and what controls a terminal
        if odd and ("\ud800" <= odd <= "\udfff" or ord(odd) < 0x20 or 0x7F <= ord(odd) < 0xA0):
            raise RecipeError(
                f"{where} line {number}".encode(errors="replace").decode(),
                f"holds the character U+{ord(odd):04X}, which YAML does not allow",
                "Remove it, or save the file as UTF-8",
            )


def _check_events(text: str, where: str) -> None:
    """Refuse what is nested too deeply, or has tags."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        tag = None
        if isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent):
            tag = event.tag
        if depth <= _DEEPEST and tag in (None, _STRING):
            continue
        # The types say that it may be None, which it is only for events made by hand.
        line = f"{where} line {cast(yaml.Mark, event.start_mark).line + 1}"
        if depth > _DEEPEST:
            raise RecipeError(line, f"is nested over {_DEEPEST} levels deep", "Write it flat")
        named = str(tag).replace("tag:yaml.org,2002:", "!!")
        raise RecipeError(line, f"has the tag {named}; allowed: plain values", "Remove the tag")


class _Check:
    """Looks for what YAML reads in another way than people mean it."""

    def __init__(self, text: str, where: str) -> None:
        self._lines = text.split("\n")
        self._where = where
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def tree(self, node: yaml.Node) -> int:
        """Return how many values a node holds, its aliases written out."""
        known = self._sizes.get(id(node))
        if known is not None:
            return known
        if id(node) in self._open:
            raise self._error(node, "an alias stands for what it is in", "Write the value out")
        self._open.add(id(node))
        size = 1
        if isinstance(node, yaml.ScalarNode):
            self._scalar(node)
        elif isinstance(node, yaml.MappingNode):
            self._keys(node)
            size += sum(self.tree(key) + self.tree(value) for key, value in node.value)
        else:
            size += sum(map(self.tree, node.value))
        if size > _LARGEST:
            raise self._error(
                node, f"holds over {_LARGEST:,} values with its aliases written out", "Shorten it"
            )
        self._open.discard(id(node))
        self._sizes[id(node)] = size
        return size

    def _keys(self, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key, "a key is a list or a mapping", "Write a word")
            if key.value in seen:
                raise self._error(key, f"the key {key.value!r} is there twice", "Remove one")
            seen.add(key.value)
            if not key.style and (odd := name_lookalikes(key.value)):
                raise self._error(key, f"the key {key.value!r} holds {odd}", _PLAIN_SIGNS)

    def _scalar(self, node: yaml.ScalarNode) -> None:
        if node.style:  # in quotes, or a text below a bar
            return
        value = node.value
        if (edge := _ODD_EDGE.search(value)) and value.strip():
            raise self._error(node, f"{value!r} begins or ends with {_name(edge[0])}", "Remove it")
        if _QUOTED.match(value):
            marks = name_lookalikes(value)
            raise self._error(
                node,
                f"the value is in quotation marks that YAML does not know: {marks}",
                "Write \"...\", or '\u201c...\u201d' where the marks are meant",
            )
        if node.tag.endswith((":int", ":float")):
            # Python itself reads no whole number of more digits
            large = len(value) > 300 or not math.isfinite(float(value.replace("_", "")))
            if large:
                raise self._error(node, f"{value[:20]}... is too large for a number", "Change it")
        # A value of several lines: mostly keys whose colons are something else.
        if node.start_mark.line < node.end_mark.line:
            slip = next(
                (each for each in _slips(self._lines) if each[0] >= node.start_mark.line), None
            )
            if slip is not None and slip[0] <= node.end_mark.line:
                raise RecipeError(f"{self._where} line {slip[0] + 1}", *slip[1:])

    def _error(self, node: yaml.Node, problem: str, remedy: str) -> RecipeError:
        return RecipeError(f"{self._where} line {node.start_mark.line + 1}", problem, remedy)


def _slips(lines: list[str]) -> Iterator[tuple[int, str, str]]:
    """Yield the lines, from 0, with what is wrong with them and what to write."""
    for number, line in enumerate(lines):
        text = re.sub(r"(?:^|\s)#.*", "", line)
        for pattern, problem, remedy in _SLIPS:
            if found := pattern.search(text):
                named = _name(found[1])
                column = f" (column {found.start(1) + 1})"
                yield number, problem.format(named) + column, remedy
                break


def _name(character: str) -> str:
    if character == "\t":
        return "a tab (U+0009)"
    return name_lookalikes(character) or f"U+{ord(character):04X}"


def _explain(error: yaml.YAMLError, text: str, where: str) -> RecipeError:
    problem = "cannot be read"
    place = where
    remedy = _WHERE_TO_LOOK
    lines = text.split("\n")
    last = len(lines)
    if isinstance(error, yaml.MarkedYAMLError):  # it knows where it is, mostly
        problem = error.problem or problem
        if error.problem_mark is not None:
            # At the end of a text the mark is on the line after the last.
            last = min(error.problem_mark.line, text.count("\n")) + 1
            place = f"{where} line {last}"
    # What is wrong comes before the line where nothing else was possible, mostly just before it.
    found = [slip for slip in _slips(lines) if slip[0] < last]
    # a sign that stands in a text may well be meant
    found = [slip for slip in found if not slip[1].startswith("there is") or slip[0] >= last - 2]
    if found:
        number, problem, remedy = found[-1]
        return RecipeError(f"{where} line {number + 1}", problem, remedy)
    above = lines[last - 2] if last > 1 else ""
    deeper = len(lines[last - 1]) - len(lines[last - 1].lstrip())
    if "mapping values" in problem and 0 < len(above) - len(above.lstrip()) < deeper:
        problem = "the line is indented deeper than the one above, which has a value"
        return RecipeError(place, problem, "Indent both by the same number of spaces")
    if "escape" in problem or "hexdecimal" in problem:
        remedy = "In double quotes a backslash begins an escape: take single quotes, or /"
    elif "alias" in problem or "any token" in problem or "alphabetic" in problem:
        remedy = "Put the value in quotes; on a command line in two pairs: KEY='\"...\"'"
    return RecipeError(place, f"not valid YAML: {problem}", remedy)


def dump_yaml(values: Any) -> str:
    """Return plain values as YAML, in their own order."""
    dumper = _Dumper if max(repr(values)) <= "\uffff" else _EmojiDumper
    return str(yaml.dump(values, Dumper=dumper, sort_keys=False, allow_unicode=True, width=120))
