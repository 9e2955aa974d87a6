"""Chat templates of strangers, in Jinja's sandbox with limits around it.

``ImmutableSandboxedEnvironment`` refuses attributes of Python's own, and methods that change what a
template is given. It has no limit on how long a template takes or how large its values grow: these
are here. Jinja lets calls and operators be intercepted; loops, ``~`` and literals are put through a
filter each when a template is compiled.
"""

from __future__ import annotations

import datetime
import functools
import inspect
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from types import BuiltinMethodType
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.sandbox
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer

from groundup.core.errors import DataError

__all__ = ["CLOSE_NAME", "OPEN_NAME", "compile_template", "render"]

# Loop turns, calls and filters a rendering may take.
STEPS = 100_000
# Of the processor's time a rendering may take.
SECONDS = 5.0
# Characters that one value may hold, those of the values inside it included.
SIZE = 4_000_000
# Characters that an item of a list or dict counts as.
ITEM = 20
# The largest whole number that a function or filter is given.
WIDTH = 100_000
# Characters of a template.
LENGTH = 1_000_000
# Of a whole number.
BITS = 4_096
EXPONENT = 64
OPEN_NAME = "generation_opens"
CLOSE_NAME = "generation_closes"
# A width or precision of six digits, or one that comes with the values, in either kind of format.
WIDE = re.compile(
    r"%(?:\([^)]*\))?[-#0 +]*(?:\*|\d{6}|\d*\.(?:\*|\d{6}))|\{[^{}]*(?:\d{6}|:[^{}]*\{)"
)
# Methods and filters whose result may be far larger than what goes in: measured before they run.
GROWING_METHODS = frozenset({"expandtabs", "format", "format_map", "join", "replace"})
GROWING_FILTERS = frozenset({"format", "indent", "join", "replace", "wordwrap"})
# Filters that no chat template needs: random ones, and those that make HTML.
LEFT_OUT = ("pprint", "random", "striptags", "urlize", "xmlattr")


class _Budget:
    """What a rendering may still take: steps, and this thread's time on the processor."""

    def __init__(self) -> None:
        self.steps = STEPS
        self.until = time.thread_time() + SECONDS

    def take_step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise SecurityError(f"it takes more than {STEPS:,} steps")
        # Not at every step: reading the clock is a call into the system.
        if self.steps % 16 == 0 and time.thread_time() > self.until:
            raise SecurityError(f"it takes more than {SECONDS:g} s")


_budget: ContextVar[_Budget] = ContextVar("budget")


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The sandbox, in which a call is a step and what calls and operators return is bounded."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        given = (*args, *kwargs.values())
        _budget.get().take_step()
        _refuse_wide(given)
        # Jinja wraps str.format and str.format_map.
        method = inspect.unwrap(obj)
        if isinstance(method, BuiltinMethodType) and isinstance(method.__self__, str):
            # Its table may map a character to any text.
            if method.__name__ == "translate":
                raise SecurityError("it calls translate")
            if method.__name__ in GROWING_METHODS:
                _refuse_growth(method.__name__, method.__self__, given)
        return _bound(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            _refuse_growth("format", left, (right,))
        if operator == "**" and isinstance(right, int) and right > EXPONENT:
            raise SecurityError(f"an exponent is above {EXPONENT}")
        if operator == "*":
            _refuse_repeats(left, right)
            _refuse_repeats(right, left)
        return _bound(super().call_binop(context, operator, left, right))


class _Limits(NodeTransformer):
    """Puts what the sandbox cannot intercept through filters of ``_environment``."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = _through("groundup_turns", node.iter)
        return node

    def visit_Concat(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        return _through("groundup_bound", node)

    visit_List = visit_Dict = visit_Concat

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        # The names that a loop or a set assigns to are a tuple as well.
        return self.visit_Concat(node) if node.ctx == "load" else node


def _through(filter_: str, node: nodes.Node) -> nodes.Filter:
    found = nodes.Filter(node, filter_, [], [], None, None)
    found.set_lineno(node.lineno)
    if node.environment is not None:
        found.set_environment(node.environment)
    return found


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


@functools.lru_cache(16)  # runs, and tests of them, read the same few again and again
def compile_template(source: str) -> tuple[jinja2.Template, bool, frozenset[str]]:
    """Return the compiled template, whether it marks what the assistant wrote, and the names that
    it reads: variables, attributes and keys.

    Raises:
        DataError: If the source is not valid Jinja, or is larger or nested more deeply than a
            template is; the message names the line.
    """
    environment = _environment()
    if len(source) > LENGTH:
        raise DataError(
            "chat template",
            f"has {len(source):,} characters; allowed: {LENGTH:,}",
            "Check that this is a template",
        )
    token = _budget.set(_Budget())
    try:
        tree = environment.parse(source)
        marked = any(_is_mark(call) for call in tree.find_all(nodes.CallBlock))
        reads = jinja2.meta.find_undeclared_variables(environment.parse(source))
        reads |= {node.attr for node in tree.find_all(nodes.Getattr)}
        constants = (node.value for node in tree.find_all(nodes.Const))
        reads |= {value for value in constants if isinstance(value, str)}
        return environment.from_string(_Limits().visit(tree)), marked, frozenset(reads)
    except jinja2.TemplateSyntaxError as error:
        raise DataError(
            f"chat template line {error.lineno}",
            f"is not valid Jinja: {error.message}",
            "Correct the template",
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
        pieces = []
        size = 0
        # A template may well write each message several times over, however long it is.
        limit = SIZE + 8 * len(str(variables))
        for piece in template.generate(**variables):
            size += len(piece)
            if size > limit:
                raise SecurityError(f"it writes more than {limit:,} characters")
            pieces.append(piece)
        return "".join(pieces)
    except SecurityError as error:
        raise DataError(
            "chat template",
            f"does what a template may not: {str(error).rstrip('.')}",
            "Use a template from a source you trust",
        ) from None
    except Exception as error:  # a template can fail in any way that Python can
        raise DataError(
            "chat template",
            f"does not render: {str(error) or type(error).__name__}",
            "Correct the template, or the conversation it refuses",
        ) from None
    finally:
        _budget.reset(token)


def _environment() -> _Environment:
    extensions = [_Generation, "jinja2.ext.loopcontrols"]
    # Blanks as transformers sets them: templates are written for that.
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    filters = {**environment.filters, "tojson": _to_json}
    environment.filters = {
        name: _limit(name, filter_) for name, filter_ in filters.items() if name not in LEFT_OUT
    }
    environment.filters |= {"groundup_turns": _count_turns, "groundup_bound": _bound}
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
    # It writes random texts.
    environment.globals.pop("lipsum", None)
    return environment


def _is_mark(block: nodes.CallBlock) -> bool:
    call = block.call.node
    return isinstance(call, nodes.ExtensionAttribute) and call.name == "_mark"


def _count_turns(items: Any) -> Any:
    """Return the items of a loop, counted as they are taken; what is no collection stays as it is,
    so that Jinja says what is wrong with it."""
    if isinstance(items, jinja2.Undefined) or not isinstance(items, Iterable):
        return items
    return _counted(items)


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    budget = _budget.get()
    for item in items:
        budget.take_step()
        yield item


def _limit(name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that counts as a step, and refuses what would be large beyond all reason."""
    # Jinja marks filters that it passes a context first; the value comes after it.
    place = 1 if hasattr(filter_, "jinja_pass_arg") else 0

    @functools.wraps(filter_)
    def limited(*args: Any, **kwargs: Any) -> Any:
        value = args[place]
        given = args[place + 1 :]
        _budget.get().take_step()
        _refuse_wide((*given, *kwargs.values()))
        # It may be an iterator, which can be gone through only once.
        if name == "join":
            value = list(value)
            _refuse_growth(name, str(given[0]) if given else "", (value,))
        elif name in GROWING_FILTERS and isinstance(value, str):
            _refuse_growth(name, value, (*given, *kwargs.values()))
        return _bound(filter_(*args[:place], value, *given, **kwargs))

    return limited


def _refuse_wide(given: Iterable[Any]) -> None:
    if any(isinstance(value, int) and abs(value) > WIDTH for value in given):
        raise SecurityError(f"a number above {WIDTH:,} is given to a function or filter")


def _refuse_repeats(sequence: Any, count: Any) -> None:
    repeats = isinstance(sequence, str | list | tuple) and isinstance(count, int)
    if repeats and len(sequence) * count > SIZE:
        raise SecurityError(f"it repeats a value to more than {SIZE:,} items")


def _refuse_growth(name: str, text: str, given: tuple[Any, ...]) -> None:
    """Refuse a method or filter whose result would be a giant text, from the sizes of what goes
    into it: how many stretches it adds at most, and how long each is at most."""
    numbers = [value for value in given if isinstance(value, int)]
    largest = max([1, *(_weight(value) for value in given if not isinstance(value, int))])
    match name:
        case "join":
            times = max((len(each) for each in given if isinstance(each, list | tuple)), default=0)
            largest = len(text)
        case "replace":
            times = text.count(str(given[0])) if given else 0
        case "format" | "format_map":
            if WIDE.search(text):
                raise SecurityError("a format asks for a giant width")
            times = text.count("%") + text.count("{")
        case "expandtabs":
            times = 1 + text.count("\n") + text.count("\t")
            largest = max(largest, *numbers, 8)
        case "wordwrap":  # its string may come between any two characters
            times = 1 + len(text)
        case _:  # indent
            times = 1 + text.count("\n")
            largest = max(largest, *numbers, 4)
    if times * largest > SIZE:
        raise SecurityError(f"it makes a text of more than {SIZE:,} characters")


def _bound(value: Any) -> Any:
    """Return a value, or refuse one that is too large."""
    if isinstance(value, str | list | tuple | dict) and _weight(value) > SIZE:
        raise SecurityError(
            f"a value holds more than {SIZE:,} characters, or {SIZE // ITEM:,} items"
        )
    if isinstance(value, int) and value.bit_length() > BITS:
        raise SecurityError(f"a number has more than {BITS:,} bits")
    return value


def _weight(value: Any) -> int:
    """Return the characters in a value, and ``ITEM`` for each item, counted as often as it is
    there: a list may hold itself many times over. Counting ends where there are too many."""
    if isinstance(value, str):
        return len(value)
    total = 0
    waiting = [value]
    while waiting and total <= SIZE:
        each = waiting.pop()
        if isinstance(each, str):
            total += len(each)
        elif isinstance(each, list | tuple | dict):
            total += ITEM * len(each)
            if total <= SIZE:
                waiting += each
                if isinstance(each, dict):
                    waiting += each.values()
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


# Templates written for Hugging Face call these two by the names above.
def _raise(message: str) -> str:
    raise jinja2.TemplateError(message)


def _now(format_: str) -> str:
    # A long format would make a long text.
    return datetime.datetime.now().strftime(str(format_)[:100])
