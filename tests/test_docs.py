"""What the documentation shows is so: code runs, commands parse, links hold, both languages
agree."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from own_parts import forget_own_parts
from typer.testing import CliRunner

import groundup
from groundup.cli.main import app
from groundup.core import registry
from groundup.recipe.recipe import load_recipe

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PAIRS = [
    ("README.md", "README.zh.md"),
    ("docs/start.md", "docs/start.zh.md"),
    ("docs/text_to_text.md", "docs/text_to_text.zh.md"),
    ("docs/transcribe.md", "docs/transcribe.zh.md"),
    ("docs/whisper.md", "docs/whisper.zh.md"),
    ("docs/translate.md", "docs/translate.zh.md"),
    ("docs/summarize.md", "docs/summarize.zh.md"),
    ("docs/digit_strings.md", "docs/digit_strings.zh.md"),
    ("docs/autoencode.md", "docs/autoencode.zh.md"),
    ("docs/games.md", "docs/games.zh.md"),
    ("docs/detect.md", "docs/detect.zh.md"),
    ("docs/rewards.md", "docs/rewards.zh.md"),
    ("docs/recommend.md", "docs/recommend.zh.md"),
    ("docs/outgrowing.md", "docs/outgrowing.zh.md"),
]
STEPS = ("Initialise", "Forward", "Loss", "Backward", "Update", "Repeat")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^# (\w+\.(?:py|yaml))\n")  # the first line of a block that is a file
LINK = re.compile(r"\]\(([^)\s#]*)(?:#L(\d+))?\)")
TINY: dict[str, Any] = {
    "name": "my_model",
    "model": {"name": "gpt", "layers": 1, "width": 16, "heads": 2, "context_length": 32},
    "task": "language_modeling",
    "processor": "bytes",
    "data": {"name": "text", "path": "my_texts", "split_on": "line", "fraction": 0.3},
    "training": {"batch_size": 4, "epochs": 3},
    "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
}


def blocks(page: Path, language: str) -> list[str]:
    return [
        code for name, code in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language
    ]


def write_files(page: Path, folder: Path) -> None:
    """Write the blocks of a page that are files."""
    for _, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        if named := FILE.match(code):
            (folder / named[1]).write_text(code, encoding="utf-8")


def links(page: Path) -> list[tuple[str, str]]:
    return LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8")))


def name_of(value: object) -> str:
    return value.relative_to(ROOT).as_posix() if isinstance(value, Path) else "code"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with my_texts, my_model.yaml, and its run after one epoch."""
    folder = tmp_path_factory.mktemp("docs")
    texts = folder / "my_texts" / "texts.txt"
    texts.parent.mkdir()
    colours, things = (
        ("red", "green", "blue", "white"),
        ("river", "stone", "lamp", "garden", "letter"),
    )
    lines = [
        f"The {colour} {thing} lies by the {place}."
        for colour in colours
        for thing in things
        for place in things
    ]
    texts.write_text("\n".join(lines), encoding="utf-8")
    (folder / "my_model.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    (folder / "all-MiniLM-L6-v2").mkdir()
    (folder / "all-MiniLM-L6-v2" / "config.json").write_text(
        '{"model_type": "bert"}', encoding="utf-8"
    )
    (folder / "SmolLM2-135M-Instruct").mkdir()
    (folder / "SmolLM2-135M-Instruct" / "config.json").write_text(
        '{"model_type": "llama"}', encoding="utf-8"
    )
    (folder / "whisper-tiny.en").mkdir()
    for name, content in (("config", '{"model_type": "whisper"}'), ("preprocessor_config", "{}")):
        path = folder / "whisper-tiny.en" / f"{name}.json"
        path.write_text(content, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        groundup.train("my_model.yaml", {"training.epochs": 1})
    return folder


@pytest.fixture
def workplace(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in the folder of the trained run; what a user's file registers is forgotten
    afterwards."""
    monkeypatch.chdir(trained)
    with forget_own_parts():
        yield trained


# --------------------------------------------------------------------------------------------- code
EXTENDING = ROOT / "docs" / "extending.md"  # run as a whole, below
CODE = [
    (page, code)
    for page in PAGES
    if ".zh" not in page.name and page != EXTENDING
    for code in blocks(page, "python")
]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "code"), CODE, ids=name_of)
def test_python_runs(page: Path, code: str, workplace: Path) -> None:
    exec(compile(code, str(page), "exec"), {"__name__": f"block_{page.stem}"})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_recipes_in_the_documentation_are_valid(page: Path, workplace: Path) -> None:
    write_files(page, workplace)
    for block in blocks(page, "yaml"):
        (workplace / "block.yaml").write_text(block, encoding="utf-8")
        assert load_recipe("block.yaml").name == yaml.safe_load(block)["name"]


EXTENSIONS = re.split(r"^## ", EXTENDING.read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "section", [each for each in EXTENSIONS if "```" in each], ids=lambda each: each.split("\n")[0]
)
def test_an_extension_works_by_the_page(
    section: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Do what a section says, in its order: write the files, give the commands, run the rest."""
    shutil.copytree(workplace / "my_texts", tmp_path / "my_texts")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    imported = set(sys.modules)
    for language, code in BLOCK.findall(section):
        if named := FILE.match(code):
            (tmp_path / named[1]).write_text(code, encoding="utf-8")
            if language == "python":
                registry.load_file(tmp_path / named[1])
        elif language == "python":
            exec(compile(code, "extending.md", "exec"), {"__name__": "block"})
        for line in code.splitlines() if language == "bash" else ():
            done = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
            assert done.exit_code == 0, done.output
    for module in set(sys.modules) - imported:
        if module.startswith("my_"):
            del sys.modules[module]


def test_the_first_models_are_the_recipes() -> None:
    shown = {
        yaml.safe_load(block)["name"]: block
        for block in blocks(ROOT / "docs" / "first_models.md", "yaml")
    }
    files = {
        f"classic-{path.stem.replace('_', '-')}": path
        for path in (ROOT / "recipes" / "classic").glob("*.yaml")
    }
    assert len(shown) == 5
    for name, block in shown.items():
        lines = files[name].read_text(encoding="utf-8").splitlines()
        assert block.splitlines() == [line for line in lines if not line.startswith("#")]


@cache
def whole_command() -> Any:
    return typer.main.get_command(app)


def parse_command(words: list[str]) -> None:
    """Parse a command line as typer would, down to the verb, without running it."""
    command = whole_command()
    name, context = words[0], None
    arguments = words[1:]
    while True:
        context = command.make_context(name, list(arguments), parent=context)
        if not hasattr(command, "resolve_command"):
            return
        name, command, arguments = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )


COMMANDS = sorted(
    {
        line
        for page in PAGES
        for block in blocks(page, "bash")
        for line in block.splitlines()
        if line
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_exist(line: str) -> None:
    words = shlex.split(line)
    if words[0] == "groundup":
        parse_command(words)
    elif words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    else:
        assert words[0] in {"pip", "source"} or line.startswith(
            "GROUNDUP_REWRITE_GOLDEN=1 python -m pytest tests/"
        )


def test_a_wrong_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse_command(["groundup", "train", "--no-such-option"])


# ----------------------------------------------------------------------------------------- examples
def run_example(name: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.slow
def test_train_from_python(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    text = tmp_path / "lines.jsonl"
    rows = [
        {"text": f"Number {i} is {i * i} steps from the {'river' if i % 3 else 'garden'}."}
        for i in range(60)
    ]
    text.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run_example("train_from_python.py", str(text), monkeypatch=monkeypatch)
    shown = capsys.readouterr().out
    assert [shown.count(f"step {step}: loss") for step in (0, 10, 20, 30)] == [1, 1, 1, 1]
    assert "bits_per_byte" in shown


@pytest.mark.slow
def test_generate(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("generate.py", "runs/my_model", "The red", monkeypatch=monkeypatch)
    assert capsys.readouterr().out.startswith("The red")
    with pytest.raises(SystemExit, match="usage"):
        run_example("generate.py", monkeypatch=monkeypatch)


@pytest.mark.slow
def test_one_file_extensions(workplace: Path) -> None:
    (workplace / "docs").mkdir()
    pages = [f"A paragraph about number {i}, caf\u00e9 {i * i} and \u732b.\n" for i in range(40)]
    (workplace / "docs" / "page.md").write_text("\n".join(pages), encoding="utf-8")
    changes = {"training.steps": 4, "data.fraction": 0.3, "machine.threads": 1}
    run = groundup.train(EXAMPLES / "custom.yaml", changes)
    assert run.recipe.task.registered_name == "smoothed"
    assert run.recipe.processor.registered_name == "ascii"
    made = registry.lookup("processor", "ascii").load(run.folder / "processor")
    assert made.decode(made.encode_batch(["caf\u00e9 \u732b"])[0].tolist()) == "cafe ?"


@pytest.mark.slow
def test_multitask_digits(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    pytest.importorskip("sklearn")
    run_example("multitask_digits.py", str(tmp_path), monkeypatch=monkeypatch)
    shown = capsys.readouterr().out
    assert all(
        f"{task}: accuracy 0.9" in shown or f"{task}: accuracy 1.0" in shown
        for task in ("digit", "even")
    )
    assert "{'digit': '0', 'even': 'even', 'loop': '1'}" in shown


def test_every_example_is_covered() -> None:
    known = {
        "train_from_python.py",
        "generate.py",
        "custom_processor.py",
        "custom_task.py",
        "custom.yaml",
    }
    known |= {"multitask_digits.py"}
    # Needs an exported graph, and is run where one is made.
    known |= {"serve_detector.py", "make_pictures.py"}
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == known


# -------------------------------------------------------------------------------------------------
# links, languages
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_hold(page: Path) -> None:
    for target, line in links(page):
        if target.startswith(("http://", "https://")):
            continue
        path = page.parent / target
        assert path.exists(), f"{page.name} links to {target}"
        if line:
            assert int(line) <= len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("name", [name for pair in PAIRS[:2] for name in pair])
def test_the_six_steps_are_linked_to_their_lines(name: str) -> None:
    lines = (ROOT / "groundup/training/trainer.py").read_text(encoding="utf-8").splitlines()
    linked = [
        int(line)
        for target, line in links(ROOT / name)
        if target.endswith("training/trainer.py") and line
    ]
    found = [lines[number - 1].strip() for number in linked]
    assert len(found) == len(STEPS)
    for number, (step, text) in enumerate(zip(STEPS, found, strict=True), 1):
        where = next(
            (
                i
                for i, line in enumerate(lines, 1)
                if line.strip().startswith(f"# {number}. {step}")
            ),
            None,
        )
        assert text.startswith(f"# {number}. {step}"), (
            f"{name}: step {number} is on line {where} now"
        )


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0])
def test_both_languages_say_the_same(pair: tuple[str, str]) -> None:
    pair_of = one, other = [ROOT / name for name in pair]
    assert BLOCK.findall(one.read_text(encoding="utf-8")) == BLOCK.findall(
        other.read_text(encoding="utf-8")
    )
    # A page in Chinese leads to pages in Chinese, where there are such.
    sides = [{(to.replace(".zh.md", ".md"), line) for to, line in links(page)} for page in pair_of]
    assert sides[0] == sides[1]


MOST_LINES = 2000  # thirty-three a minute, docstrings and comments among them


def test_the_reading_path_can_be_read_in_an_hour() -> None:
    """README's promise is of these files alone; what they import is printed, to be seen by -s."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## One hour of reading")[1]
    files = re.findall(r"^\d+\. \[(.*?)\]", section.split("\n## ")[0], re.MULTILINE)
    assert len(files) == 8
    total = 0
    for name in files:
        text = (ROOT / name).read_text(encoding="utf-8")
        total += text.count("\n")
        imported = sorted(set(re.findall(r"^ *from (groundup\.\S+) import", text, re.MULTILINE)))
        print(f"{name}: {text.count(chr(10))} lines; imports {', '.join(imported) or 'nothing'}")
    assert total <= MOST_LINES


@pytest.mark.parametrize("page", ["docs/games.md", "docs/games.zh.md"])
def test_the_recipe_of_connect_four_is_the_one_that_was_measured(page: str) -> None:
    recipe = (ROOT / "recipes" / "games" / "connect_four.yaml").read_text(encoding="utf-8")
    shown = blocks(ROOT / page, "yaml")[0]
    assert shown == "".join(re.findall(r"^(?!#).*\n", recipe, re.MULTILINE))
