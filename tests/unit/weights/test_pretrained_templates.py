"""Runs that start from pretrained weights: templates, end tokens, the hub, and memory."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pretrained_folders import CHATML, write_model, write_tokenizer

import groundup
from groundup.recipe.recipe import load_recipe
from groundup.runs.run import Run

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A random Llama with a tokenizer and a chat template."""
    write_model(tmp_path / "base", "llama3", vocab_size=320)
    write_tokenizer(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def tuning(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A recipe of three steps that starts from the folder."""
    parts = {
        key: recipe[key]
        for key in ("name", "task", "data", "logging", "evaluation", "checkpoints", "machine")
    }
    model = {"context_length": 32, "dropout": 0.1}
    return parts | {
        "model": model,
        "init": {"pretrained": str(folder)},
        "training": {"batch_size": 4, "steps": 3},
    }


@pytest.fixture
def chatting(tuning: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "talk.jsonl"
    talks = [
        [
            {"role": "user", "content": f"Is {n} even?"},
            {"role": "assistant", "content": "Yes." if n % 2 else "No."},
        ]
        for n in range(30)
    ]
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    data = {"name": "conversations", "path": str(path), "fraction": 0.2}
    return tuning | {"task": "chat", "data": data, "model": {"context_length": 48}}


@pytest.mark.slow
def test_a_template_beside_the_tokenizer_comes_first(
    chatting: dict[str, Any], tmp_path: Path, folder: Path
) -> None:
    beside = CHATML.replace("\n", " ")
    write_tokenizer(folder, template=beside, jinja=True)
    trainer = groundup.trainer(chatting, runs=tmp_path / "runs")
    trainer.close()
    assert trainer.parts.processor.chat_template == beside  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["generation_config.json", "config.json"])
def test_the_end_token_is_found_where_the_tokenizer_does_not_say(
    tuning: dict[str, Any], tmp_path: Path, folder: Path, where: str
) -> None:
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "generation_config.json").unlink()
    values = json.loads((folder / "config.json").read_text()) | {
        "eos_token_id": None,
        "bos_token_id": None,
    }
    (folder / "config.json").write_text(json.dumps(values))
    found = json.loads((folder / where).read_text()) if (folder / where).exists() else {}
    (folder / where).write_text(json.dumps(found | {"eos_token_id": [3, 1], "bos_token_id": 2}))
    trainer = groundup.trainer(tuning, runs=tmp_path / "runs")
    trainer.close()
    processor: Any = trainer.parts.processor
    assert (processor.end_token, processor.start_token) == ("<|im_end|>", "<|im_start|>")


def test_the_recipe_may_say_what_the_config_says(tuning: dict[str, Any], folder: Path) -> None:
    tuning["model"] = {
        "name": "gpt",
        "layers": 2,
        "width": 32,
        "rope_theta": 500.0,
        "context_length": 16,
    }
    recipe = load_recipe(tuning)
    alone = {key: value for key, value in tuning.items() if key != "model"}
    assert load_recipe(alone).model == recipe.model.model_copy(update={"context_length": 64})
    assert load_recipe(tuning | {"model": "gpt"}).model == load_recipe(alone).model
    assert load_recipe(tuning | {"processor": {"end_token": "<s>"}}).processor.model_dump() == {
        "path": str(folder),
        "end_token": "<s>",
    }


@pytest.mark.slow
def test_the_frozen_recipe_starts_another_run(tuning: dict[str, Any], tmp_path: Path) -> None:
    run = groundup.train(tuning, runs=tmp_path / "runs")
    again = groundup.train(run.folder / "recipe.yaml", {"name": "again"}, runs=tmp_path / "runs")
    first, second = (each.checkpoints.load(3).model for each in (run, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["bytes", {"name": "bpe", "vocab_size": 300}])
def test_the_model_of_a_run_is_such_a_folder(
    recipe: dict[str, Any], tmp_path: Path, processor: Any
) -> None:
    first = groundup.train(recipe | {"processor": processor}, runs=tmp_path / "runs")
    parts = {key: recipe[key] for key in ("task", "data", "training", "machine")}
    init = {"pretrained": str(first.folder / "model")}
    trainer = groundup.trainer(parts | {"name": "second", "init": init}, runs=tmp_path / "runs")
    trainer.close()
    before = first.checkpoints.load(first.pick("best")).model
    assert all(
        torch.equal(before[name], value) for name, value in trainer.model.state_dict().items()
    )
    text = ["The if statement 好"]
    expected = groundup.load(first.folder).processor.encode_batch(text)[0].tolist()
    found: Any = trainer.parts.processor
    assert found.encode_batch(text)[0].tolist() == expected


@pytest.mark.slow
def test_code_that_a_folder_names_is_not_run(
    tuning: dict[str, Any], tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mark = tmp_path / "ran"
    (folder / "modeling_evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    for name in ("config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text())
        values["auto_map"] = {
            "AutoConfig": "modeling_evil.Evil",
            "AutoModelForCausalLM": "modeling_evil.Evil",
        }
        (folder / name).write_text(json.dumps(values | {"trust_remote_code": True}))
    with caplog.at_level(logging.WARNING, "groundup"):
        run = groundup.train(tuning, runs=tmp_path / "runs")
    assert not mark.exists()
    notes = run.read_json("environment.json")["pretrained"]["notes"]
    expected = [
        f"{folder / n} names code of its own (auto_map), which is not run"
        for n in ("config.json", "tokenizer_config.json")
    ]
    assert notes == expected
    assert [record.message for record in caplog.records if "auto_map" in record.message] == expected


# ------------------------------------------------------------------------------------------ the hub
class _Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as fetching a model's files needs."""

    asked: list[str]

    def __init__(self, *args: Any, root: Path, asked: list[str]) -> None:
        self.root, self.asked = root, asked
        super().__init__(*args)

    def log_message(self, *args: Any) -> None: ...

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        files = sorted(each.name for each in self.root.iterdir())
        if path.startswith("/api/models/me/tiny/tree/"):
            rows = [
                {"type": "file", "path": n, "size": (self.root / n).stat().st_size, "oid": n}
                for n in files
            ]
            return self._send(json.dumps(rows).encode(), body)
        if path.startswith("/api/models/me/tiny"):
            siblings = [{"rfilename": name} for name in files]
            return self._send(
                json.dumps({"id": "me/tiny", "sha": COMMIT, "siblings": siblings}).encode(), body
            )
        name = path.rpartition("/")[2]
        if path.startswith("/me/tiny/resolve/") and name in files:
            self.asked.append(name)
            return self._send((self.root / name).read_bytes(), body, name)
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _send(self, content: bytes, body: bool, name: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        if name:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)


@contextmanager
def hub(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder as the model me/tiny on this machine; give the address and a list of the files
    asked for."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Hub, root=root, asked=asked))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def python(
    *words: str, endpoint: str, cache: Path, offline: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run Python where the hub is at ``endpoint``: its library reads the environment once, when it
    is imported."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))
    }
    environment |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": str(int(offline)),
    }
    environment |= {
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    root = Path(groundup.__file__).parent.parent
    return subprocess.run(
        (sys.executable, *words), env=environment, cwd=root, capture_output=True, text=True
    )


FIND = (
    "import sys; from groundup.formats.huggingface_folder import find_pretrained as f;"
    " print(f(*sys.argv[1:]).folder)"
)


@pytest.mark.slow
def test_a_name_of_the_hub(tuning: dict[str, Any], tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("huggingface_hub")
    for name in (
        "pytorch_model.bin",
        "modeling_evil.py",
        "consolidated.safetensors",
        "flax_model.msgpack",
    ):
        (folder / name).write_bytes(b"never to be fetched")
    tuning["init"] = {"pretrained": "me/tiny", "revision": "main"}
    file, cache = tmp_path / "recipe.yaml", tmp_path / "hub"
    file.write_text(yaml.safe_dump(tuning))
    with hub(folder) as (endpoint, asked):
        words = ("-m", "groundup", "train", str(file), "--runs", str(tmp_path / "runs"))
        done = python(*words, endpoint=endpoint, cache=cache)
        assert done.returncode == 0, done.stdout + done.stderr
        fetched = {
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        }
        assert set(asked) == fetched | {"model.safetensors"}
        done = python("-c", FIND, "me/none", endpoint=endpoint, cache=cache)
        assert (
            "CheckpointError: me/none (revision newest): no such folder, and the hub does not"
            " have it:" in done.stderr
        )
    run = Run.open(tmp_path / "runs" / "small")
    recorded = run.read_json("environment.json")
    assert (recorded["pretrained"]["name"], recorded["pretrained"]["revision"]) == (
        "me/tiny",
        COMMIT,
    )
    card = (run.folder / "model" / "README.md").read_text()
    assert f"the pretrained weights `me/tiny` at revision `{COMMIT}` (SHA-256" in card
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "me/tiny"

    done = python("-c", FIND, "me/tiny", "main", endpoint=endpoint, cache=cache, offline=True)
    assert (Path(done.stdout.strip()) / "model.safetensors").is_file()
    done = python("-c", FIND, "me/tiny", "other", endpoint=endpoint, cache=cache, offline=True)
    assert (
        "HF_HUB_OFFLINE is set: only what was fetched before is there; unset it. Or fetch"
        in done.stderr
    )
    done = python(
        "-c", FIND, "me/tiny", endpoint=endpoint, cache=tmp_path / "empty"
    )  # nobody answers any more
    assert (
        "Check the name and the network; HF_ENDPOINT names a mirror, HF_TOKEN opens gated models"
        in done.stderr
    )
