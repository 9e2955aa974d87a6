"""Jinja for chat templates of strangers: no attribute access, no endless loops, no giant strings."""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, cast

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.runtime import Context

from groundup.core.errors import DataError

__all__ = ["CLOSE_NAME", "OPEN_NAME", "compile_template", "render"]

STEPS = 100_000  # loop turns and calls a rendering may take
SIZE = 4_000_000  # characters or items that one value may hold
BITS = 4_096  # of a whole number
OPEN_NAME, CLOSE_NAME = "generation_opens", "generation_closes"
WIDE = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(?:\*|\d{6}|\d*\.(?:\*|\d{6}))|\{[^{}]*(?:\d{6}|:[^{}]*\{)")
_steps_left: ContextVar[int] = ContextVar("steps_left", default=STEPS)


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The sandbox with budgets: each call and each turn of a loop is a step; values may not grow without limit."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        _take_step()
        if any(isinstance(value, int) and abs(value) > SIZE for value in (*args, *kwargs.values())):
            raise jinja2.exceptions.SecurityError(f"a number above {SIZE:,} is given to a function")
        owner = getattr(getattr(obj, "__wrapped__", obj), "__self__", None)
        if isinstance(owner, str) and getattr(obj, "__name__", "") in {"format", "format_map"}:
            _check_format(owner)
        return _bounded(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator in {"*", "**", "%"}:
            _check_growth(operator, left, right)
        return _bounded(super().call_binop(context, operator, left, right))


class _Generation(jinja2.ext.Extension):
    """``{% generation %}...{% endgeneration %}``: marks what the assistant wrote."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        marks: list[nodes.Expr] = [nodes.Name(OPEN_NAME, "load"), nodes.Name(CLOSE_NAME, "load")]
        return nodes.CallBlock(self.call_method("_mark", marks), [], [], body).set_lineno(line)

    def _mark(self, opens: str, closes: str, caller: Callable[[], str]) -> str:
        return f"{opens}{caller()}{closes}"


def compile_template(source: str) -> tuple[jinja2.Template, bool]:
    """Return the compiled template, and whether it marks what the assistant wrote.

    Raises:
        DataError: If the source is not valid Jinja; the message names the line.
    """
    environment = _environment()
    try:
        tree = environment.parse(source)
        marked = any(_is_mark(call) for call in tree.find_all(nodes.CallBlock))
        _limit(tree)
        return environment.from_string(tree), marked
    except jinja2.TemplateSyntaxError as error:
        problem = f"is not valid Jinja: {error.message}"
        raise DataError(f"chat template line {error.lineno}", problem, "Correct the template") from None


def render(template: jinja2.Template, variables: dict[str, Any]) -> str:
    """Return what the template makes of the variables.

    Raises:
        DataError: If the template fails, refuses the conversation, or oversteps its limits.
    """
    token = _steps_left.set(STEPS)
    try:
        pieces, size = [], 0
        limit = SIZE + 8 * len(str(variables))
        for piece in template.generate(**variables):
            size += len(piece)
            if size > limit:
                raise jinja2.exceptions.SecurityError(f"it writes more than {limit:,} characters")
            pieces.append(piece)
        return "".join(pieces)
    except jinja2.exceptions.SecurityError as error:
        problem = f"does what a template may not: {str(error).rstrip('.')}"
        raise DataError("chat template", problem, "Use a template from a source you trust") from None
    except Exception as error:  # a template can fail in any way that Python can
        problem = f"does not render: {str(error) or type(error).__name__}"
        raise DataError("chat template", problem, "Correct the template, or the conversation it refuses") from None
    finally:
        _steps_left.reset(token)


def _environment() -> _Environment:
    extensions = [_Generation, "jinja2.ext.loopcontrols"]
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    for name in ("center", "format", "indent", "wordwrap"):
        environment.filters[name] = _guarded(environment.filters[name])
    environment.filters |= {"tojson": _to_json, "groundup_turns": _turns, "groundup_bounded": _bounded_filter}
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
    environment.globals.pop("lipsum", None)
    return environment


def _limit(tree: nodes.Template) -> None:
    """Count the turns of every loop, and check the size of every ``~``."""
    for loop in list(tree.find_all(nodes.For)):
        loop.iter = _filtered(cast(nodes.Expr, loop.iter), "groundup_turns")
    _bound_concatenations(tree)


def _bound_concatenations(node: nodes.Node) -> None:
    for field, value in list(node.iter_fields()):
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if not isinstance(child, nodes.Node):
                continue
            _bound_concatenations(child)
            if isinstance(child, nodes.Concat):
                children[index] = _filtered(child, "groundup_bounded")
        setattr(node, field, children if isinstance(value, list) else children[0])


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    found = nodes.Filter(node, name, [], [], None, None)
    found.set_lineno(node.lineno)
    if node.environment is not None:
        found.set_environment(node.environment)
    return found


def _is_mark(block: nodes.CallBlock) -> bool:
    call = block.call.node
    return isinstance(call, nodes.ExtensionAttribute) and call.name == "_mark"


def _take_step() -> None:
    left = _steps_left.get() - 1
    _steps_left.set(left)
    if left < 0:
        raise jinja2.exceptions.SecurityError(f"it takes more than {STEPS:,} steps")


@jinja2.pass_context
def _turns(context: Context, items: Any) -> Any:
    """Return the items of a loop, counted as they are taken; what is undefined or no collection stays as it is."""
    if isinstance(items, jinja2.Undefined) or not isinstance(items, Iterable):
        return items
    return _counted(items)


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _take_step()
        yield item


@jinja2.pass_context
def _bounded_filter(context: Context, value: Any) -> Any:
    return _bounded(value)


def _guarded(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that refuses numbers, and texts that ask for widths, beyond all reason."""

    @functools.wraps(filter_)
    def limited(value: Any, *args: Any, **kwargs: Any) -> Any:
        for argument in (*args, *kwargs.values()):
            if isinstance(argument, int) and abs(argument) > SIZE:
                raise jinja2.exceptions.SecurityError(f"a number above {SIZE:,} is given to a filter")
        if args and isinstance(value, str):
            _check_format(value)
        return _bounded(filter_(value, *args, **kwargs))

    return limited


def _check_growth(operator: str, left: Any, right: Any) -> None:
    if operator == "%" and isinstance(left, str):
        _check_format(left)
    for sequence, count in ((left, right), (right, left)):
        repeats = operator == "*" and isinstance(sequence, str | list | tuple) and isinstance(count, int)
        if repeats and len(sequence) * count > SIZE:
            raise jinja2.exceptions.SecurityError(f"it repeats a value to more than {SIZE:,} items")
    if operator == "**" and isinstance(right, int) and right > 64:
        raise jinja2.exceptions.SecurityError("an exponent is above 64")


def _check_format(text: str) -> None:
    if WIDE.search(text):
        raise jinja2.exceptions.SecurityError("a format asks for a giant width")


def _bounded(value: Any) -> Any:
    if isinstance(value, str | list | tuple | dict) and len(value) > SIZE:
        raise jinja2.exceptions.SecurityError(f"a value holds more than {SIZE:,} items")
    if isinstance(value, int) and value.bit_length() > BITS:
        raise jinja2.exceptions.SecurityError(f"a number has more than {BITS:,} bits")
    return value


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML; templates written for Hugging Face expect plain JSON."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> str:
    raise jinja2.TemplateError(message)


def _now(format_: str) -> str:
    return datetime.datetime.now().strftime(format_)
