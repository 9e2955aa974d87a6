"""Consoles of every encoding, and readers that go away."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import groundup
from groundup.cli import main
from groundup.cli.streams import check_arguments, flush_output, prepare_output, read_lines
from groundup.core.errors import DataError, GroundupError

ROOT = Path(__file__).parents[3]
TEXT = "床前明月光 ‹x› “quoted” — 😀 \ud800"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, level = logging.getLogger(), logging.getLogger().level
    handlers = list(root.handlers)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def stream_of(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")


@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "cp1252", "ascii"])
def test_what_a_console_has_no_character_for_is_escaped(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    streams = [stream_of(encoding), stream_of(encoding)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    prepare_output()
    for stream in streams:
        print(TEXT, file=stream, flush=True)
        assert stream.buffer.getvalue() == f"{TEXT}\n".encode(encoding, "backslashreplace")  # type: ignore[attr-defined]


@pytest.mark.parametrize(("given", "left"), [("0", None), (" 0 ", None), ("80", "80"), ("", "")])
def test_no_width_of_a_console_is_none(
    monkeypatch: pytest.MonkeyPatch, given: str, left: str | None
) -> None:
    monkeypatch.setenv("COLUMNS", given)
    prepare_output()
    assert os.environ.get("COLUMNS") == left


def test_a_standard_output_that_is_closed_takes_what_is_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        prepare_output()
        with sys.stdout:
            print(TEXT)
            flush_output()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["COLUMNS=0", ">&-"])
def test_a_verb_without_a_width_or_an_output(end: str) -> None:
    command = f"{sys.executable} -m groundup --help"
    command = f"{command} >&-" if end == ">&-" else f"{end} {command}"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=env, check=True
    )
    assert done.stderr == ""
    assert ("evaluate" in done.stdout) == (end != ">&-")


def test_standard_input_of_another_encoding_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    given = io.TextIOWrapper(io.BytesIO("你好\n".encode("gbk")), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", given)
    with pytest.raises(DataError, match=r"standard input: is not utf-8: .* PYTHONIOENCODING=gbk"):
        list(read_lines())
    given = io.TextIOWrapper(io.BytesIO("你 好 \n\n".encode("gbk")), encoding="gbk")
    monkeypatch.setattr(sys, "stdin", given)
    assert list(read_lines()) == ["你 好 ", ""]


def test_a_reader_that_has_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        stream.write("nobody reads this")
        flush_output()
        # Python's own flush at the end finds a file that takes it
        stream.flush()


def run_main(monkeypatch: pytest.MonkeyPatch, encoding: str, *arguments: str) -> str:
    out, err = stream_of(encoding), stream_of(encoding)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["groundup", *arguments])
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setattr(sys, "stdin", io.StringIO("你好 😀\n\n"))
        with pytest.raises(SystemExit) as left:
            main.main()
        err.flush()
    assert left.value.code == 0, (arguments, err.buffer.getvalue())  # type: ignore[attr-defined]
    return out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["gbk", "cp1252", "ascii"])
def test_every_verb_prints_on_every_console(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.chdir(tmp_path)
    turns = [{"role": "user", "content": "Hi 😀"}, {"role": "assistant", "content": "“Yo” 床"}]
    rows = "".join(
        json.dumps({"messages": [{**turns[0], "content": f"Hi 😀 {n}"}, turns[1]]}) + "\n"
        for n in range(20)
    )
    Path("chats.jsonl").write_text(rows, encoding="utf-8")
    recipe: dict[str, Any] = {
        "name": "small",
        "about": "An emoji 😀, “quotes” and 床",
        "model": {"name": "gpt", "layers": 1, "width": 8, "heads": 2, "context_length": 64},
        "task": "chat",
        "processor": "bytes",
        "data": {"name": "conversations", "path": "chats.jsonl", "fraction": 0.2},
        "training": {"batch_size": 2, "steps": 2},
        "samples": {"every": 1, "prompts": ["Hi 😀"]},
        "machine": {"threads": 1, "micro_batch_size": 2, "compile": False, "precision": "fp32"},
        "tune": {"space": {"optim.lr": {"choices": [1e-3, 1e-2]}}, "trials": 1},
    }
    Path("small.yaml").write_text(json.dumps(recipe, ensure_ascii=False), encoding="utf-8")
    short = ("--max-new-tokens", "4")
    said = {
        " ".join(arguments): run_main(monkeypatch, encoding, *arguments)
        for arguments in (
            ("train", "small.yaml"),
            ("train", "small.yaml", "--dry-run"),
            ("train", "small.yaml", "name=other", "about=Plain 👍"),
            ("data", "inspect", "small.yaml"),
            ("evaluate", "runs/small", "--limit", "2"),
            ("predict", "runs/small", "Hi 😀", *short),
            ("predict", "runs/small", *short),
            ("chat", "runs/small", *short),
            ("runs", "list"),
            ("runs", "compare", "runs/small", "runs/other"),
            ("tune", "small.yaml"),
            ("new", "mine.yaml"),
            ("schema",),
            ("--help",),
        )
    }
    # the marks around trained text, where the console has no such character
    marks = "‹“Yo” 床".encode(encoding, "backslashreplace").decode(encoding)
    assert marks in said["data inspect small.yaml"]
    emoji = "Plain \\U0001f44d"
    assert emoji in "".join(said["runs compare runs/small runs/other"].split("\n"))


@pytest.mark.slow
def test_a_pipe_that_is_closed_ends_without_a_traceback() -> None:
    command = f"{sys.executable} -m groundup schema | true"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=env, check=True
    )
    assert done.stderr == ""


def test_the_version_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_main(monkeypatch, "ascii", "--version") == f"groundup {groundup.__version__}\n"


def test_help_lines_are_whole() -> None:
    group = typer.main.get_command(main.app)

    def check(command: Any, name: str) -> None:
        context = command.make_context(name, [], resilient_parsing=True)
        context.terminal_width = context.max_content_width = 80
        lines = command.get_help(context).splitlines()
        assert not [line for line in lines[1:] if line.endswith("...")], name
        for inner, each in getattr(command, "commands", {}).items():
            check(each, inner)

    check(group, "groundup")


def test_arguments_of_another_encoding_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["groundup", "train", "data.path=\udce5\udcba"])
    with pytest.raises(GroundupError, match=r"data\.path=.*: is not .* Set PYTHONUTF8=1"):
        check_arguments()
