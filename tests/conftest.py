"""Shared fixtures: a quiet machine, a private cache, and a small real corpus."""

from __future__ import annotations

import gc
import json
import pydoc_data.topics
import re
import sys
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import groundup  # noqa: F401  # before torch: it chooses how torch's threads wait

ALL_SLOW = re.compile(r"^pytestmark = (\[[^]]*)?pytest\.mark\.slow", re.MULTILINE)
GROUP = re.compile(r"pytest\.mark\.xdist_group\(\"(\w+)\"\)")
NUMBERS = count()
ROOT = Path(__file__).parents[1]
FAST = "not slow"
# Among fast tests, imports of 2 s and more count: transformers, by tests or their helpers, and
# torch's compiler, which transformers imports too, to count operations. They go to one worker.
TRANSFORMERS = re.compile(
    r"(import|from) transformers|importorskip\(\"transformers|"
    r"(encoder|pretrained)_folders|tiny_families"
)
COUNT_OPERATIONS = ("tests/contract/", "tests/unit/testing/")


@cache
def prepare() -> None:
    """Import what nearly all tests need. The process that hands tests to workers needs none of it
    (2 s)."""
    # until every file is imported: looking for garbage in what stays would take a fifth of the time
    gc.disable()
    import torch
    import typer.main

    from groundup.recipe.recipe import Optim
    from groundup.training.optimizers import build_optimizers

    # of one program there is one command line, and making it takes as long as most tests
    typer.main.get_command = cache(typer.main.get_command)
    if not torch.cuda.is_available():
        # the same numbers; else each call writes down its whole stack, for a GPU that may come
        torch.manual_seed = torch.default_generator.manual_seed
    # no optimizer after it imports the compiler (3 s)
    build_optimizers(Optim(), torch.nn.Linear(1, 1).named_parameters())


def pytest_collectstart() -> None:
    prepare()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave a file whose tests are all slow unread where slow ones are left out."""
    if config.option.markexpr != FAST or collection_path.suffix != ".py":
        return None
    return bool(ALL_SLOW.search(collection_path.read_text(encoding="utf-8"))) or None


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of one ``xdist_group`` on one worker, which alone imports their library.

    The mark is read from the files, as not every version of pytest tells xdist of it. Fast tests
    go file by file: one by one, xdist would count thousands of them again after each (8 s).
    """
    from xdist.scheduler import LoadScopeScheduling

    by_file = config.option.markexpr == FAST

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.split("::")[0]
            if by_file and imports_transformers(path):
                return "transformers"
            return group_of(nodeid) or (path if by_file else nodeid)

    return ByGroup(config, log)


def group_of(nodeid: str) -> str:
    """Return the group of a test; empty: none."""
    if "[hub" in nodeid:  # a model of that library's, among ours
        return "transformers"
    return _group_in(nodeid.split("::")[0])


@cache
def imports_transformers(path: str) -> bool:
    """Return whether tests of a file import that library, or what it takes longest to import."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return path.startswith(COUNT_OPERATIONS) or TRANSFORMERS.search(text) is not None


@cache
def _group_in(path: str) -> str:
    found = GROUP.search((ROOT / path).read_text(encoding="utf-8"))
    return found[1] if found else ""


def pytest_collection_finish() -> None:
    """Look for garbage among what the tests make only: what was imported stays."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="session")
def _places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tests")


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, _places: Path) -> Path:
    """Return a new folder. pytest's own looks through those of all earlier tests to find a
    number."""
    path = _places / f"{next(NUMBERS)}-{request.function.__name__[:60]}"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def _private_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give every test its own working folder (for ``runs/``) and cache, one thread, and the random
    state it found."""
    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)
    if "torch._inductor.config" in sys.modules:
        torch.use_deterministic_algorithms(False)
    else:  # the same without importing the compiler (3 s)
        torch.set_deterministic_debug_mode("default")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A .jsonl file of forty topics of Python's language reference."""
    path = tmp_path / "topics.jsonl"
    topics = sorted(pydoc_data.topics.topics.items())[:40]
    path.write_text(
        "".join(json.dumps({"text": text[:1500]}) + "\n" for _, text in topics), encoding="utf-8"
    )
    return path


@pytest.fixture
def recipe(corpus: Path) -> dict[str, Any]:
    """A complete recipe that trains for a few steps in well under a second."""
    return {
        "name": "small",
        "model": {
            "name": "gpt",
            "layers": 2,
            "width": 32,
            "heads": 2,
            "context_length": 32,
            "dropout": 0.1,
        },
        "task": "language_modeling",
        "processor": "bytes",
        "data": {"name": "text", "path": str(corpus), "fraction": 0.2},
        "optim": {"lr": 3e-3, "warmup_steps": 2},
        "training": {"batch_size": 4, "steps": 6},
        "logging": {"every": 1},
        "evaluation": {"every": 3, "batches": 2},
        "checkpoints": {"every": 2},
        "machine": {
            "device": "cpu",
            "precision": "fp32",
            "compile": False,
            "threads": 1,
            "micro_batch_size": 4,
        },
    }
