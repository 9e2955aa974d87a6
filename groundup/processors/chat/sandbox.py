"""Jinja for chat templates of strangers: no attribute access, no endless loops, no giant values, no
random ones."""

from __future__ import annotations

import datetime
import functools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, cast

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.sandbox
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.runtime import Context

from groundup.core.errors import DataError

__all__ = ["CLOSE_NAME", "OPEN_NAME", "compile_template", "render"]

STEPS = 100_000  # loop turns, calls and filters a rendering may take
SECONDS = 5.0  # of the processor's time a rendering may take
SIZE = 4_000_000  # characters that one value may hold, those of the values inside it included
WIDTH = 100_000  # the largest whole number a function or filter is given
LENGTH = 1_000_000  # characters of a template
BITS = 4_096  # of a whole number
OPEN_NAME, CLOSE_NAME = "generation_opens", "generation_closes"
WIDE = re.compile(
    r"%(?:\([^)]*\))?[-#0 +]*(?:\*|\d{6}|\d*\.(?:\*|\d{6}))|\{[^{}]*(?:\d{6}|:[^{}]*\{)"
)
GROWING = frozenset(
    {"expandtabs", "format", "format_map", "join", "replace"}
)  # methods of text that are measured first
REFUSED = frozenset({"translate"})
# Filters that no chat template needs: random ones, and those that make HTML.
LEFT_OUT = ("pprint", "random", "striptags", "urlize", "xmlattr")


class _Budget:
    """What a rendering may still take: steps, and this thread's time on the processor."""

    def __init__(self) -> None:
        self.steps, self.until = STEPS, time.thread_time() + SECONDS


_budget: ContextVar[_Budget] = ContextVar("budget")


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The sandbox with budgets: each call and each turn of a loop is a step; values may not grow
    without limit."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        _take_step()
        _check_numbers((*args, *kwargs.values()))
        owner = getattr(getattr(obj, "__wrapped__", obj), "__self__", None)
        name = getattr(obj, "__name__", "")
        if isinstance(owner, str):
            if name in REFUSED:
                raise jinja2.exceptions.SecurityError(f"it calls {name}")
            if name in GROWING:
                _check_text(name, owner, (*args, *kwargs.values()))
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


def compile_template(source: str) -> tuple[jinja2.Template, bool, bool]:
    """Return the compiled template, whether it marks what the assistant wrote, and whether it reads
    the tools.

    Raises:
        DataError: If the source is not valid Jinja, or is larger or nested more deeply than a
            template is; the message names the line.
    """
    environment = _environment()
    if len(source) > LENGTH:
        problem = f"has {len(source):,} characters; allowed: {LENGTH:,}"
        raise DataError("chat template", problem, "Check that this is a template")
    token = _budget.set(_Budget())
    try:
        tree = environment.parse(source)
        marked = any(_is_mark(call) for call in tree.find_all(nodes.CallBlock))
        tools = "tools" in jinja2.meta.find_undeclared_variables(environment.parse(source))
        _limit(tree)
        return environment.from_string(tree), marked, tools
    except jinja2.TemplateSyntaxError as error:
        problem = f"is not valid Jinja: {error.message}"
        raise DataError(
            f"chat template line {error.lineno}", problem, "Correct the template"
        ) from None
    except (RecursionError, MemoryError, SyntaxError):
        raise DataError(
            "chat template", "is nested too deeply", "Use a template from a source you trust"
        ) from None
    finally:
        _budget.reset(token)


def render(template: jinja2.Template, variables: dict[str, Any]) -> str:
    """Return what the template makes of the variables.

    Raises:
        DataError: If the template fails, refuses the conversation, or oversteps its limits.
    """
    token = _budget.set(_Budget())
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
        raise DataError(
            "chat template", problem, "Use a template from a source you trust"
        ) from None
    except Exception as error:  # a template can fail in any way that Python can
        problem = f"does not render: {str(error) or type(error).__name__}"
        raise DataError(
            "chat template", problem, "Correct the template, or the conversation it refuses"
        ) from None
    finally:
        _budget.reset(token)


def _environment() -> _Environment:
    extensions = [_Generation, "jinja2.ext.loopcontrols"]
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    kept = {name: filter_ for name, filter_ in environment.filters.items() if name not in LEFT_OUT}
    environment.filters = {name: _guarded(name, filter_) for name, filter_ in kept.items()}
    environment.filters["tojson"] = _guarded("tojson", _to_json)
    environment.filters |= {"groundup_turns": _turns, "groundup_bounded": _bounded_filter}
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
    environment.globals.pop("lipsum", None)
    return environment


def _limit(tree: nodes.Template) -> None:
    """Count the turns of every loop, and check the size of every ``~`` and of every list, tuple and
    dict."""
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
            built = (
                isinstance(child, nodes.List | nodes.Tuple | nodes.Dict)
                and getattr(child, "ctx", "load") == "load"
            )
            if built or isinstance(child, nodes.Concat):
                children[index] = _filtered(cast(nodes.Expr, child), "groundup_bounded")
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
    budget = _budget.get()
    budget.steps -= 1
    if budget.steps < 0:
        raise jinja2.exceptions.SecurityError(f"it takes more than {STEPS:,} steps")
    if budget.steps % 16 == 0 and time.thread_time() > budget.until:
        raise jinja2.exceptions.SecurityError(f"it takes more than {SECONDS:g} s")


@jinja2.pass_context
def _turns(context: Context, items: Any) -> Any:
    """Return the items of a loop, counted as they are taken; what is undefined or no collection
    stays as it is."""
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


def _guarded(name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that counts as a step, and refuses what would be large beyond all reason."""
    first = (
        1 if hasattr(filter_, "jinja_pass_arg") else 0
    )  # the value comes after what Jinja passes

    @functools.wraps(filter_)
    def limited(*args: Any, **kwargs: Any) -> Any:
        _take_step()
        value, given = args[first], (*args[first + 1 :], *kwargs.values())
        _check_numbers(given)
        if name == "join":
            value = list(value)
            args = (*args[:first], value, *args[first + 1 :])
            _check_text("join", str(given[0]) if given else "", (value,))
        elif isinstance(value, str) and name in ("format", "indent", "replace", "wordwrap"):
            _check_text(name, value, given)
        return _bounded(filter_(*args, **kwargs))

    return limited


def _check_numbers(given: Iterable[Any]) -> None:
    if any(isinstance(value, int) and abs(value) > WIDTH for value in given):
        raise jinja2.exceptions.SecurityError(
            f"a number above {WIDTH:,} is given to a function or filter"
        )


def _check_text(name: str, text: str, given: tuple[Any, ...]) -> None:
    """Refuse a method or filter whose result would be a giant text, from the sizes of what goes
    into it."""
    sizes = [_weight(value) for value in given if not isinstance(value, int)]
    largest = max([*sizes, 1])
    match name:
        case "join":
            times, each = (
                max((len(value) for value in given if isinstance(value, list | tuple)), default=0),
                len(text),
            )
        case "replace":
            times, each = text.count(str(given[0])) if given else 0, largest
        case "format" | "format_map":
            _check_format(text)
            times, each = text.count("%") + text.count("{"), largest
        case _:  # indent, wordwrap and expandtabs
            each = max([largest, *(value for value in given if isinstance(value, int))])
            times = 1 + text.count("\n") + (text.count("\t") if name == "expandtabs" else 0)
            times += len(text) if name == "wordwrap" and sizes else 0
    if times * each > SIZE:
        raise jinja2.exceptions.SecurityError(f"it makes a text of more than {SIZE:,} characters")


def _check_growth(operator: str, left: Any, right: Any) -> None:
    if operator == "%" and isinstance(left, str):
        _check_text("format", left, (right,))
    for sequence, count in ((left, right), (right, left)):
        repeats = (
            operator == "*" and isinstance(sequence, str | list | tuple) and isinstance(count, int)
        )
        if repeats and len(sequence) * count > SIZE:
            raise jinja2.exceptions.SecurityError(f"it repeats a value to more than {SIZE:,} items")
    if operator == "**" and isinstance(right, int) and right > 64:
        raise jinja2.exceptions.SecurityError("an exponent is above 64")


def _check_format(text: str) -> None:
    if WIDE.search(text):
        raise jinja2.exceptions.SecurityError("a format asks for a giant width")


def _bounded(value: Any) -> Any:
    if isinstance(value, str | list | tuple | dict) and _weight(value) > SIZE:
        raise jinja2.exceptions.SecurityError(
            f"a value holds more than {SIZE:,} characters, or {SIZE // 20:,} items"
        )
    if isinstance(value, int) and value.bit_length() > BITS:
        raise jinja2.exceptions.SecurityError(f"a number has more than {BITS:,} bits")
    return value


def _weight(value: Any) -> int:
    """Return the characters in a value, and 20 for each item, as often as it is there; until there
    are too many."""
    if isinstance(value, str):
        return len(value)
    total, waiting = 0, [value]
    while waiting and total <= SIZE:
        each = waiting.pop()
        if isinstance(each, str):
            total += len(each)
        elif isinstance(each, list | tuple | dict):
            total += 20 * len(each)
            if total <= SIZE:
                waiting += [*each, *each.values()] if isinstance(each, dict) else each
    return total


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML; templates written for Hugging Face expect plain JSON."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> str:
    raise jinja2.TemplateError(message)


def _now(format_: str) -> str:
    return datetime.datetime.now().strftime(str(format_)[:100])
