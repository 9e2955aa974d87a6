"""The verbs on the command line, each as a user types it."""

from __future__ import annotations

import errno
import json
import logging
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from groundup.cli import main
from groundup.core.errors import GroundupError, RecipeError
from groundup.machine import devices
from groundup.recipe.recipe import dump_recipe, load_recipe


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty folder, on a wide terminal, with the logging that was there before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    root, level = logging.getLogger(), logging.getLogger().level
    handlers = list(root.handlers)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def groundup(*arguments: str, given: str | None = None) -> str:
    """Return what a command prints; errors come as exceptions."""
    done = CliRunner().invoke(
        main.app, list(arguments), input=given, catch_exceptions=False, standalone_mode=False
    )
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.fixture
def small(recipe: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(dump_recipe(load_recipe(recipe)), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["text", "chat"])
def test_new_writes_a_recipe_to_start_from(kind: str) -> None:
    said = groundup("new", "mine/poems.yaml", "--kind", kind)
    assert "groundup data inspect mine/poems.yaml && groundup train mine/poems.yaml" in said
    written = yaml.safe_load(Path("mine/poems.yaml").read_text(encoding="utf-8"))
    assert written["name"] == "poems"
    assert written["task"] == {"text": "language_modeling", "chat": "chat"}[kind]
    with pytest.raises(RecipeError, match=r"mine/poems.yaml: exists already and was not touched"):
        groundup("new", "mine/poems.yaml", "--kind", kind)


@pytest.mark.parametrize("kind", ["model", "language_model", "task", "data", "processor"])
def test_new_writes_a_part_of_ones_own(kind: str) -> None:
    said = groundup("new", "mine/own.py", "--kind", kind)
    assert "Wrote mine/own.py. Next: edit it; the recipe at its top tries it." in said
    written = Path("mine/own.py").read_text(encoding="utf-8")
    assert '("own")' in written
    assert "NAME" not in written


def test_new_looks_at_data() -> None:
    rows = [{"text": f"Number {n} has some words to it", "label": n % 2} for n in range(20)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = groundup("new", "mine.yaml", "--data", "rows.jsonl")
    assert "groundup data inspect mine.yaml && groundup train mine.yaml" in said
    written = yaml.safe_load(Path("mine.yaml").read_text(encoding="utf-8"))
    assert (written["name"], written["data"]["path"]) == ("mine", "rows.jsonl")
    with pytest.raises(RecipeError, match=r"mine\.yaml: exists already and was not touched"):
        groundup("new", "mine.yaml", "--data", "rows.jsonl", "--label", "label")
    with pytest.raises(
        RecipeError, match=r"mine\.py: ends in '\.py', but a recipe ends in '\.yaml'"
    ):
        groundup("new", "mine.py", "--data", "rows.jsonl")
    with pytest.raises(GroundupError, match="--label: has no effect without --data"):
        groundup("new", "other.yaml", "--label", "label")


def test_new_knows_its_kinds() -> None:
    with pytest.raises(RecipeError, match="--kind: 'txt' is unknown; did you mean 'text'"):
        groundup("new", "a.yaml", "--kind", "txt")
    assert not Path("a.yaml").exists()


def test_the_text_template_is_a_recipe(recipe: dict[str, Any]) -> None:
    groundup("new", "poems.yaml")
    loaded = load_recipe("poems.yaml", {"data.path": recipe["data"]["path"]})
    assert loaded.name == "poems"
    assert loaded.optim.lr == 1e-3


def test_a_dry_run_shows_the_whole_recipe_and_writes_nothing(small: Path) -> None:
    said = groundup("train", str(small), "optim.lr=3e-4", "--dry-run")
    text, _, facts = said.partition("\n{")
    assert yaml.safe_load(text)["optim"]["lr"] == 3e-4
    assert json.loads("{" + facts)["name"] == "small"
    assert not Path("runs").exists()


@pytest.mark.slow
def test_from_training_to_the_report(small: Path) -> None:
    groundup("train", str(small), "optim.lr=1e-2", "--runs", "here")
    assert (
        json.loads(Path("here/small/requested.json").read_text(encoding="utf-8"))["optim"]["lr"]
        == 0.01
    )
    groundup("train", "--resume", "here/small")  # finished: nothing is done again
    assert "finished already at step 6; re-used" in Path("here/small/metrics.jsonl").read_text(
        encoding="utf-8"
    )
    said = groundup("evaluate", "here/small", "--limit", "2", "--checkpoint", "last")
    assert "bits per byte" in said.lower()
    assert Path("here/small/summary.json").is_file()
    assert Path("here/small/report.html").is_file()
    assert "small" in groundup("runs", "list", "--runs", "here")
    groundup("train", str(small), "name=other", "--runs", "here")
    compared = groundup("runs", "compare", "here/small", "here/other")
    assert "optim.lr" in compared
    assert "0.003" in compared
    assert "training.steps" not in compared


@pytest.mark.slow
def test_predict_takes_prompts_or_standard_input(small: Path) -> None:
    groundup("train", str(small))
    options = (
        "--max-new-tokens",
        "6",
        "--checkpoint",
        "last",
        "--temperature",
        "0.8",
        "--top-k",
        "20",
    )
    said = groundup("predict", "runs/small", "The ", *options)
    assert said == groundup("predict", "runs/small", *options, given="The \n")
    assert said.strip("\n")
    several = groundup(
        "predict", "runs/small", "--max-new-tokens", "2", "--stop", "e", given="A\nB\nC\n"
    )
    assert several.count("\n") >= 3


@pytest.mark.slow
def test_chat_talks_until_an_empty_line(small: Path) -> None:
    groundup("train", str(small))
    options = (
        "--max-new-tokens",
        "4",
        "--temperature",
        "0.5",
        "--seed",
        "3",
        "--checkpoint",
        "last",
    )
    said = groundup("chat", "runs/small", *options, given="Hello\n/new\nHello\n\nnever read\n")
    assert "runs/small at step 6. /new starts again, an empty line ends." in said
    assert said.count("you  ") == 4
    answers = [part.partition("you  ")[0] for part in said.split("run  ")[1:]]
    assert len(answers) == 2
    assert answers[0] == answers[1]  # the seed decides, and /new forgot the first turn
    ended = groundup("chat", "runs/small", *options, given="")
    assert "run  " not in ended


@pytest.mark.slow
def test_schema_is_json_for_editors() -> None:
    schema = json.loads(groundup("schema"))
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "optim" in schema["properties"]


def test_env_describes_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "matmul_flops_per_s", lambda device, precision: 5e9)
    facts = json.loads(groundup("env"))
    assert facts["matmul_gflops_per_s"] == {"fp32": 5, "bf16": 5}
    assert facts["cores"] >= 1


@pytest.mark.slow
def test_data_inspect_shows_examples(small: Path) -> None:
    said = groundup("data", "inspect", str(small), "data.fraction=0.25", "--examples", "1")
    assert "train" in said
    assert "validation" in said
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["data", "--help"], ["runs", "--help"]]
)
def test_help_is_there(arguments: list[str]) -> None:
    assert "Usage:" in groundup(*arguments)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["train", "no.yaml"], 2, "no.yaml: no such recipe; recipes there: none."),
        (["evaluate", "runs/none"], 4, "runs/none: is not a run (it has no recipe.yaml)"),
        (["predict", "runs/none", "x"], 4, "runs/none: is not a run"),
        (["chat", "runs/none"], 4, "runs/none: is not a run"),
        (["trian"], 2, "No such command 'trian'"),
        (["evaluate"], 2, "Missing argument"),
    ],
)
def test_user_errors_end_with_a_message_and_a_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    expected: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["groundup", *arguments])
    monkeypatch.setattr(sys, "stdin", StringIO(""))
    with pytest.raises(SystemExit) as left:
        main.main()
    assert left.value.code == code
    err = capsys.readouterr().err
    assert expected in err
    assert "Traceback" not in err


def test_an_error_of_the_system_names_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/small/metrics.jsonl")

    monkeypatch.setattr(type(main.app), "__call__", fail)
    with pytest.raises(SystemExit) as left:
        main.main()
    assert left.value.code == 1
    expected = "runs/small/metrics.jsonl: No space left on device. Saved checkpoints are untouched"
    assert expected in capsys.readouterr().err


def test_broken_pipes_and_a_second_ctrl_c_end_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, code in ((KeyboardInterrupt(), 130), (BrokenPipeError(), 0)):

        def fail(_: Any, error: BaseException = error, **options: Any) -> None:
            raise error

        monkeypatch.setattr(type(main.app), "__call__", fail)
        with pytest.raises(SystemExit) as left:
            main.main()
        assert left.value.code == code
