"""A recipe's text is read as people mean it, or the slip is named: line, column, what to write."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.core.errors import RecipeError
from groundup.recipe.raw import parse_overrides
from groundup.recipe.recipe import load_recipe
from groundup.recipe.yaml import dump_yaml, parse_yaml

pytestmark = pytest.mark.xdist_group("hypothesis")  # it reads the whole package once

COLON, COMMA = "\N{FULLWIDTH COLON}", "\N{FULLWIDTH COMMA}"
OPEN, CLOSE = "\N{LEFT DOUBLE QUOTATION MARK}", "\N{RIGHT DOUBLE QUOTATION MARK}"
NBSP, WIDE = "\N{NO-BREAK SPACE}", "\N{IDEOGRAPHIC SPACE}"


def message(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, "r.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", "010"),
        ("08", "08"),
        ("2024_08", "2024_08"),
        ("1_000", 1000),
        ("1_000.5", 1000.5),
        ("10_00", "10_00"),
        ("1e3", 1000.0),
        ("3e-4", 3e-4),
        (".5", 0.5),
        ("+3", 3),
        ("-0", 0),
        ("00.5", "00.5"),
        ("yes", "yes"),
        ("off", "off"),
        ("True", True),
        ("~", None),
        ("", None),
        ("0x10", "0x10"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        (".inf", ".inf"),
        ("<<", "<<"),
        ("=", "="),
        (f"a{COMMA}b", f"a{COMMA}b"),
        (f"{OPEN}a{CLOSE} is b", f"{OPEN}a{CLOSE} is b"),
        ("!!str 12", "12"),
        ("|\n  x\n  \ty\n", "x\n\ty\n"),
    ],
)
def test_values_as_people_mean_them(text: str, value: Any) -> None:
    found = parse_yaml(f"\ufeffa: {text}", "r.yaml")["a"]
    assert (found, type(found)) == (value, type(value))


def test_merge_keys() -> None:
    text = "base: &base {lr: 1, name: sgd}\noptim:\n  <<: *base\n  lr: 2\n"
    assert parse_yaml(text, "r.yaml")["optim"] == {"lr": 2, "name": "sgd"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\n\tb: 1", "line 2: the line is indented by a tab (U+0009) (column 1). Indent it by"),
        (f"name{COLON}r1\nmodel{COLON}gpt", "line 1: U+FF1A (fullwidth colon) follows the key"),
        (f"a: 1\nb{COLON}2\nc: 3", "line 2: U+FF1A (fullwidth colon) follows the key (column 2)"),
        (f"a:\n{NBSP}{NBSP}b: 1", "U+00A0 (no-break space). Write it with the signs of ASCII"),
        (f"a:\n{WIDE}b: 1", "holds U+3000 (ideographic space)"),
        (f"a: 3{NBSP}", "begins or ends with U+00A0 (no-break space). Remove it"),
        ("a\u200b: 3", "holds U+200B (zero width space)"),
        (f"a: {{b{COLON}1{COMMA}c: 2}}", "U+FF1A (fullwidth colon), U+FF0C (fullwidth comma)"),
        (f"a: {OPEN}x{CLOSE}", "U+201C (left double quotation mark)"),
        ("a:1\nb: 2", "line 1: no space follows the key's colon (column 2)"),
        (
            "a:\n  b: 1\n   c: 2",
            "line 3: the line is indented deeper than the one above, which has",
        ),
        ("a:\n  b: 1\n  c = 2", "line 3: there is = behind the key (column 5)"),
        ("a: 1e400", "1e400... is too large for a number"),
        ("a: 1" + 5000 * "0", "is too large for a number"),
        ("a: &a [*a]", "an alias stands for what it is in. Write the value out"),
        ("a: !!set {x}", "has the tag !!set; allowed: plain values"),
        ("a: !!int abc", "has the tag !!int; allowed: plain values"),
        ("a: \x07", "holds the character U+0007, which YAML does not allow"),
        ("a: \udcff", "holds the character U+DCFF, which YAML does not allow"),
        ('a: "C:\\data"', "In double quotes a backslash begins an escape: take single quotes"),
        ("a: *.csv", "Put the value in quotes"),
        ("a: 1\n---\nb: 2", "found another document"),
    ],
)
def test_slips_are_named(text: str, expected: str) -> None:
    assert expected in message(text)


def test_aliases_of_aliases() -> None:
    levels = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "over 100,000 values with its aliases written out" in message("\n".join(levels))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.path=#1.csv", "YAML reads only '' of the value"),
        ("data.path=a.csv #1", "YAML reads only 'a.csv' of the value"),
        ("data.path=*.csv", "on a command line in two pairs"),
    ],
)
def test_an_override_that_yaml_reads_otherwise(override: str, expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_overrides([override])
    assert expected in str(caught.value)
    # what the message says to write
    key, _, value = override.partition("=")
    assert parse_overrides([f'{key}="{value}"']) == {key: value}


def test_an_override_that_undoes_another() -> None:
    for given_ in (["a=1", "a=2"], ["optim.lr=1", "optim={name: sgd}"]):
        with pytest.raises(RecipeError, match="which is given before it"):
            parse_overrides(given_)
    assert parse_overrides(["task=classify", "task.x=1"]) == {"task": "classify", "task.x": 1}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("training.batch_size", "010", "Write 10: a number with a leading zero is a word"),
        ("training.batch_size", "1,000", "Write 1000."),
        ("training.batch_size", 1e3, "got 1000.0; allowed: a valid integer. Write 1000."),
        ("training.batch_size", "0x10", "Write it as a decimal number"),
        ("optim.lr", "1,5", "Write a decimal point: 1.5"),
        ("optim.lr", "\N{FULLWIDTH DIGIT ONE}", "It holds U+FF11 (fullwidth digit one)"),
        ("optim.lr", "12:30", "Write a plain number"),
        ("optim.lr", "3", "Write the number without quotes"),
        ("optim.lr", float("inf"), "allowed: a finite number"),
        ("optim.betas", 0.9, "Write a list: [...]"),
        ("optim", "lr:3", "Write keys with values; a space belongs behind each colon"),
        ("optim.clip_norm", "None", "Write null, or leave it out"),
        ("about", {"a": "b"}, "Put the text in quotes: a colon with a space behind it makes keys"),
        ("name", 2024, 'Put it in quotes: "2024"'),
        (
            "machine.threads",
            "all",
            "recipe.machine.threads: got \"all\"; allowed: a valid integer or 'auto'",
        ),
        ("model.size", [1], "gpt has no size '[1]'"),
    ],
)
def test_what_to_write(recipe: dict[str, Any], key: str, value: Any, expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, {key: value})
    assert expected in str(caught.value)


def test_a_section_without_lines_has_its_defaults(recipe: dict[str, Any]) -> None:
    assert load_recipe({**recipe, "samples": None}) == load_recipe(recipe)


def test_a_file_with_a_mark(recipe: dict[str, Any], tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        path = tmp_path / f"{encoding}.yaml"
        path.write_text(dump_yaml(recipe), encoding=encoding)
        assert load_recipe(path) == load_recipe(recipe)
    path.write_text("seed:3", encoding="utf-8")
    with pytest.raises(RecipeError, match="holds no keys but 'seed:3': a key has a colon and a"):
        load_recipe(path)


_WORDS = st.sampled_from(
    ["name", "model", "gpt", "task", "optim", "lr", "1e-3", "010", "data", "training", "steps"]
)
_SIGNS = st.sampled_from(
    [*": -,#&*!|>'\"%@`[]{}?\n\t~=", ": ", "\n  ", "\n\t", "- ", "<<: ", "*x", "&x "]
)
_TEXTS = st.lists(st.one_of(_WORDS, _SIGNS, st.text(max_size=3)), max_size=30).map("".join)


@pytest.mark.slow
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(_TEXTS)
def test_any_text_is_a_recipe_or_an_error(tmp_path_factory: Any, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    for read in (lambda: load_recipe(path), lambda: parse_overrides([f"a={text}"])):
        with contextlib.suppress(RecipeError):
            read()


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    key=st.sampled_from(
        [
            "name",
            "seed",
            "optim.lr",
            "model",
            "model.size",
            "data",
            "data.path",
            "training",
            "training.steps",
            "task",
            "init",
            "init.run",
            "init.pretrained",
            "adapter",
            "distill",
            "tune.space",
            "uses",
            "samples.prompts",
            "machine.threads",
            "processor",
            "optim",
            "logging.every",
        ]
    ),
    value=st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(allow_nan=False, allow_subnormal=False),
            st.text(max_size=4),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=4,
    ),
)
def test_any_value_is_taken_or_an_error(recipe: dict[str, Any], key: str, value: Any) -> None:
    with contextlib.suppress(RecipeError):
        load_recipe(recipe, {key: value})


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    st.one_of(
        st.text(max_size=8).map(lambda t: t.strip("\x85\u2028\u2029")),
        st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
        st.integers(),
        st.sampled_from(["010", "1e3", f"{OPEN}x{CLOSE}", f"x{NBSP}", "a:b", "yes", "<<"]),
    )
)
def test_what_is_written_is_read_again(value: Any) -> None:
    if isinstance(value, str) and not value.isprintable():
        return
    assert parse_yaml(dump_yaml({"a": value}), "r.yaml") == {"a": value}
