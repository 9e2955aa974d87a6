"""Tokens in a folder or at an address: fetched when they are read, checked, and the same as made
here."""

from __future__ import annotations

import http.server
import json
import multiprocessing
import pickle
import pydoc_data.topics
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from groundup import api
from groundup.core.errors import DataError, GroundupError, MissingExtraError, RecipeError
from groundup.data.reading import remote
from groundup.data.reading.remote import RemoteFile, RemoteFiles, read_remote
from groundup.data.stream.published import open_published
from groundup.data.stream.shards import Shards

TOPICS = [text[:900] for _, text in sorted(pydoc_data.topics.topics.items())][:40]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    lines = "\n".join(json.dumps({"text": text}) for text in TOPICS)
    (tmp_path / "corpus.jsonl").write_text(lines + "\n", encoding="utf-8")
    return {
        "name": "corpus",
        "model": {"name": "gpt", "layers": 1, "width": 16, "heads": 2, "context_length": 64},
        "task": "language_modeling",
        "processor": {"name": "bpe", "vocab_size": 400},
        "data": {"name": "text", "path": str(tmp_path / "corpus.jsonl"), "fraction": 0.2},
        "training": {"batch_size": 2, "steps": 3},
        "samples": {"prompts": []},
        "machine": {"precision": "fp32", "threads": 1, "compile": False, "device": "cpu"},
    }


def elsewhere(recipe: dict[str, Any], address: str) -> dict[str, Any]:
    """The recipe of a machine that has the tokens alone."""
    return recipe | {"name": "elsewhere", "data": {"name": "shards", "path": address}}


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "memory", "file"])
def test_training_elsewhere_is_training_here(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    address = {
        "folder": str(tmp_path / "there"),
        "memory": f"memory://bucket{tmp_path.name}/corpus",
        "file": f"file://{tmp_path}/there",
    }[kind]
    said = api.prepare_data(recipe, to=address)
    assert said.endswith(f"data: {{name: shards, path: {address}}}")
    here = api.train(recipe, runs=tmp_path / "runs")
    # another machine: neither the texts nor the cache
    (tmp_path / "corpus.jsonl").unlink()
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "other-cache"))
    there = api.train(elsewhere(recipe, address), runs=tmp_path / "runs")
    assert losses(there.folder) == losses(here.folder)
    assert len(losses(here.folder)) >= 2
    card = there.read_json("data_card.json") or {}
    assert card["tokens_from"] == address
    assert card["cleaning"]["documents"] == len(TOPICS)
    fingerprint = there.read_json("data_fingerprint.json") or {}
    assert fingerprint["manifest"]["version"] == open_published(address).digest


def published(recipe: dict[str, Any], address: str, cache: Path) -> RemoteFiles:
    api.prepare_data(recipe, to=address)
    return open_published(address).remote(address, cache)


def test_files_are_fetched_when_they_are_read(recipe: dict[str, Any], tmp_path: Path) -> None:
    files = published(recipe, str(tmp_path / "there"), tmp_path / "copies")
    shards = Shards.load_remote("train", files)
    copies = {path.name for path in (tmp_path / "copies").rglob("*") if path.suffix != ".lock"}
    assert files.files["train/tokens-00000.bin"].sha256 not in copies
    # a worker gets no maps and no copies, and reads the same
    again = pickle.loads(pickle.dumps(shards))
    here = Shards.load(
        next(
            path
            for path in (tmp_path / "cache" / "tokens").iterdir()
            if _is_train(path, len(shards))
        )
    )
    for number, length in enumerate(shards.lengths.tolist()):
        for other in (again, here):
            assert np.array_equal(
                shards.read(number, 0, length)[0], other.read(number, 0, length)[0]
            )
    # equal files are fetched once, and a second opening fetches nothing
    (tmp_path / "there" / "train" / "tokens-00000.bin").unlink()
    assert Shards.load_remote("train", files).read(0, 0, 3)[0].tolist()


def _is_train(folder: Path, documents: int) -> bool:
    return json.loads((folder / "index.json").read_text())["documents"] == documents


def test_the_documents_are_spelt_by_their_tokens(recipe: dict[str, Any], tmp_path: Path) -> None:
    from groundup.data.sources.shards import ShardsSource

    api.prepare_data(recipe, to=str(tmp_path / "there"))
    source = ShardsSource(path=str(tmp_path / "there"))
    assert source.splits() == ("train", "validation")
    found = [each.text for split in source.splits() for each in source.examples(split, tmp_path)]
    assert sorted(found) == sorted(set(TOPICS))


def test_a_damaged_file_is_fetched_again_once(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = published(recipe, str(tmp_path / "there"), tmp_path / "copies")
    name = "train/tokens-00000.bin"
    content = (tmp_path / "there" / name).read_bytes()
    download, fetched = remote._download, []

    def torn(address: str, file: str, to: Path) -> str:
        fetched.append(file)
        if len(fetched) == 1:
            to.write_bytes(content[:-1])
            return "0" * 64
        return download(address, file, to)

    monkeypatch.setattr(remote, "_download", torn)
    assert files.fetch(name).read_bytes() == content
    assert fetched == [name, name]
    # what is damaged there stays damaged
    (tmp_path / "there" / name).write_bytes(content[:-1] + b"?")
    other = RemoteFiles(files.address, files.files, tmp_path / "others")
    sentence = (
        r"tokens-00000\.bin: arrived 2 times with another content than its index says: sha256"
    )
    with pytest.raises(DataError, match=sentence):
        other.fetch(name)
    assert len(fetched) == 4
    left = [path for path in (tmp_path / "others").rglob("*") if path.is_file()]
    assert all(path.suffix == ".lock" for path in left)


class _Handler(http.server.SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server of a folder."""
    pytest.importorskip("aiohttp")
    (tmp_path / "there").mkdir()
    _Handler.asked = []
    handler = partial(_Handler, directory=str(tmp_path / "there"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


@pytest.mark.slow
def test_a_web_server_is_read_too(recipe: dict[str, Any], tmp_path: Path, server: str) -> None:
    api.prepare_data(recipe, to=str(tmp_path / "there"))
    files = open_published(server).remote(server, tmp_path / "copies")
    shards = Shards.load_remote("train", files)
    assert shards.read(0, 0, 5)[0].tolist()
    with pytest.raises(DataError, match=r"http://.*/nothing: is not there"):
        read_remote(server, "nothing")


def _fetch(files: RemoteFiles, name: str) -> None:
    files.fetch(name)


@pytest.mark.slow
def test_processes_of_one_machine_fetch_a_file_once(tmp_path: Path) -> None:
    """Without knowing of each other, and whoever is first."""
    content = b"x" * 3_000_000
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(content)
    import hashlib

    wanted = RemoteFile(len(content), hashlib.sha256(content).hexdigest())
    files = RemoteFiles(str(tmp_path / "there"), {"file": wanted}, tmp_path / "copies")
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_fetch, args=(files, "file")) for _ in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(120)
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    assert files.fetch("file").read_bytes() == content


def test_what_is_not_there_or_cannot_be_opened_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        DataError, match=r"nowhere/manifest\.json: is not there\. Check the address"
    ):
        open_published(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"nosuch://.*cannot be read: Protocol not known"):
        open_published("nosuch://bucket")
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(DataError, match="is no list of tokens"):
        open_published(str(tmp_path))
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingExtraError, match=r"s3://.*s3fs.*groundup\[storage\]"):
        open_published("s3://bucket/corpus")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtraError, match=r"fsspec: is not installed.*groundup\[storage\]"):
        open_published("memory://bucket/other")


def test_another_task_or_processor_is_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    address = str(tmp_path / "there")
    api.prepare_data(recipe, to=address)
    with pytest.raises(RecipeError, match=r"recipe\.processor: is bytes, but .* made by bpe"):
        api.prepare_data(elsewhere(recipe, address) | {"processor": "bytes"})
    masked = {"model": {"name": "bert", "layers": 1, "width": 16, "heads": 2, "context_length": 64}}
    masked |= {"task": "masked_language_modeling"}
    with pytest.raises(GroundupError):
        api.prepare_data(elsewhere(recipe, address) | masked)
    manifest = json.loads((tmp_path / "there" / "manifest.json").read_text())
    for change, sentence in (
        ({"encode_key": "0"}, "holds tokens of key 0, but this task"),
        ({"format": 99}, "is of format 99; this version reads"),
    ):
        (tmp_path / "there" / "manifest.json").write_text(json.dumps(manifest | change))
        with pytest.raises(DataError, match=sentence):
            api.prepare_data(elsewhere(recipe, address))


def test_where_tokens_are_not_written(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(GroundupError, match=r"--to: has no effect with --join"):
        api.prepare_data(recipe, join=2, to="there")
    with pytest.raises(RecipeError, match="'python_docs' has no tokens to write elsewhere"):
        api.prepare_data(recipe | {"data": "python_docs"}, to=str(tmp_path / "there"))
