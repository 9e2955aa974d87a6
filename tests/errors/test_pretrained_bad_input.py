"""Bad pretrained weights, templates and conversations, through the command line, beside a run that
must not change."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pretrained_folders import write_model, write_tokenizer
from safetensors.torch import load_file, save_file

from groundup import api
from groundup.cli import main
from groundup.core.errors import CheckpointError
from groundup.formats.huggingface_folder import fetched_sha256
from groundup.recipe.recipe import load_recipe
from groundup.weights.load import base_facts

pytestmark = [pytest.mark.xdist_group("transformers"), pytest.mark.slow]  # three short trainings

WEIGHTS, CONFIG, TOKENIZER = (
    "base/model.safetensors",
    "base/config.json",
    "base/tokenizer_config.json",
)
ASKED, ANSWERED = (
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yo, so long."},
)
RECIPE: dict[str, Any] = {
    "name": "kept",
    "init": {"pretrained": "base"},
    "adapter": {"name": "lora", "rank": 2},
    "model": {"context_length": 48},
    "task": "chat",
    "data": {"name": "conversations", "path": "talks.jsonl", "validation": "held_out.jsonl"},
    "training": {"batch_size": 2, "steps": 1},
    "machine": {"device": "cpu", "micro_batch_size": 2},
    "logging": {"every": 1},
}


def write_talks(*talks: list[dict[str, str]]) -> None:
    Path("talks.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))


def change_norm(path: str = WEIGHTS) -> None:
    tensors = load_file(path)
    tensors["model.norm.weight"] += 1
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base in one file, one in shards, another base, talks, and a run that was
    trained on them."""
    root, before = tmp_path_factory.mktemp("made"), Path.cwd()
    os.chdir(root)
    try:
        for name, size in (("base", "5GB"), ("shards", "40KB")):
            write_model(root / name, "llama2", shard=size, vocab_size=320, num_hidden_layers=1)
            write_tokenizer(root / name)
        write_talks([ASKED, ANSWERED], [{**ASKED, "content": "Bye"}, ANSWERED])
        Path("held_out.jsonl").write_text(
            json.dumps({"messages": [{**ASKED, "content": "So?"}, ANSWERED]})
        )
        shutil.copytree("base", "other")
        change_norm("other/model.safetensors")
        api.train(RECIPE, runs=root / "runs")
        stopped = api.trainer(RECIPE | {"name": "stopped"}, runs=root / "runs")
        stopped.save()
        stopped.close()
        whole = {key: value for key, value in RECIPE.items() if key != "adapter"}
        api.train(whole | {"name": "other", "init": {"pretrained": "other"}}, runs=root / "runs")
    finally:
        os.chdir(before)
    return root


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str]:
    """Return the exit code of a command and what it wrote."""
    monkeypatch.setattr(sys, "argv", ["groundup", *arguments])
    with pytest.raises(SystemExit) as caught:
        main.main()
    return int(caught.value.code or 0), "".join(capsys.readouterr())


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---------------------------------------------------------------------------------- what goes wrong
def cut() -> None:
    Path(WEIGHTS).write_bytes(Path(WEIGHTS).read_bytes()[:-100])


def flip(bit: int, value: float) -> Callable[[], None]:
    """Flip a bit of the first stored number that has this value in the file's last tensor, after
    writing it there."""

    def change() -> None:
        tensors = load_file(WEIGHTS)
        tensors["model.norm.weight"][3] = value
        save_file(tensors, WEIGHTS, metadata={"format": "pt"})
        content = bytearray(Path(WEIGHTS).read_bytes())
        place = content.rindex(struct.pack("<f", value))
        content[place + bit // 8] ^= 1 << bit % 8
        Path(WEIGHTS).write_bytes(content)

    return change


def set_json(path: str, **values: Any) -> Callable[[], None]:
    return lambda: (
        Path(path).write_text(json.dumps(json.loads(Path(path).read_text()) | values)) and None
    )


def template(source: str) -> Callable[[], None]:
    return set_json(TOKENIZER, chat_template=source)


def small_vocabulary() -> None:
    shutil.rmtree("base")
    write_model(Path("base"), "llama2", vocab_size=300, num_hidden_layers=1)
    write_tokenizer(Path("base"))


TRAIN = ("train", "recipe.yaml", "name=new")
BAD: dict[str, tuple[Callable[[], Any], tuple[str, ...], tuple[str, ...]]] = {
    "truncated": (cut, TRAIN, (WEIGHTS, "is damaged, or no safetensors file", "Fetch it again")),
    "flipped to nan": (
        flip(22, float("inf")),
        TRAIN,
        ("tensor model.norm.weight holds numbers that are not finite",),
    ),
    "flipped to inf": (flip(23, 2.0**127 * 1.0), TRAIN, ("tensor model.norm.weight holds ",)),
    "flipped exponent": (
        flip(30, 0.75),
        TRAIN,
        (
            (
                "base: tensor model.norm.weight holds 2.55e+38, but no weights are larger than"
                " 1e+10. The file is damaged"
            ),
        ),
    ),
    "pickle": (
        lambda: Path(WEIGHTS).rename("base/pytorch_model.bin"),
        TRAIN,
        (
            "base: holds its weights as pickle only (pytorch_model.bin)",
            "save_pretrained(NEW_FOLDER)",
        ),
    ),
    "missing shard": (
        lambda: sorted(Path("shards").glob("model-*"))[1].unlink(),
        (*TRAIN, "init.pretrained=shards"),
        ("shards: 1 of ", "are missing: model-00002-of-", "Fetch them too"),
    ),
    "unknown architecture": (
        set_json(CONFIG, model_type="mambo", architectures=["Mambo"]),
        TRAIN,
        (
            CONFIG,
            "model_type mambo (architecture: Mambo) is built neither here nor by transformers",
        ),
    ),
    "tokenizer that does not fit": (
        small_vocabulary,
        TRAIN,
        ("the tokenizer has 320 tokens, but the model 300",),
    ),
    "template that fails": (
        template("{{ raise_exception('no such turn') }}"),
        TRAIN,
        ("chat template: does not render: no such turn",),
    ),
    "template that loops": (
        template("{% for n in range(99999) %}{% for m in range(99999) %}{% endfor %}{% endfor %}"),
        TRAIN,
        ("chat template: does what a template may not: ",),
    ),
    "template that grows": (
        template(
            "{% set ns = namespace(x='ab') %}{% for n in range(60) %}{% set ns.x = ns.x ~ ns.x %}{%"
            " endfor %}"
        ),
        TRAIN,
        ("chat template: does what a template may not: ",),
    ),
    "template that recurses": (
        template("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}"),
        TRAIN,
        ("chat template: does",),
    ),
    "hostile template": (
        template("{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        TRAIN,
        ("chat template: does what a template may not: ",),
    ),
    "weights of another base": (
        change_norm,
        ("predict", "runs/kept", "Hi"),
        ("runs/kept", "was begun with other weights than base holds now"),
    ),
    "going on with another base": (
        change_norm,
        ("train", "--resume", "runs/stopped"),
        ("runs/stopped: was begun with other weights than base holds now",),
    ),
    "adapter of another base": (
        lambda: None,
        ("predict", "runs/other", "Hi", "--adapter", "runs/kept"),
        ("other weights",),
    ),
    "two user turns in a row": (
        lambda: write_talks([ASKED, ANSWERED], [ASKED, ASKED, ANSWERED]),
        TRAIN,
        ("talks.jsonl line 2: turns 1 and 2 are both the user's; allowed after user: assistant",),
    ),
    "nothing left of the answers": (
        lambda: write_talks([{**ASKED, "content": "Hi " * 99}, ANSWERED]),
        (*TRAIN, "data.packing.too_long=truncate"),
        ("1 examples dropped as too long, the first of them talks.jsonl line 1 (example 0)",),
    ),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_it_is_said_and_nothing_is_lost(
    kind: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change, arguments, messages = BAD[kind]
    Path("recipe.yaml").write_text(json.dumps(RECIPE))
    before = contents(here / "runs")
    change()
    code, said = run(capsys, monkeypatch, *arguments)
    assert code not in (0, 130)
    assert "Traceback" not in said
    for message in messages:
        assert message in said
    after = contents(here / "runs")
    assert {name: after.get(name) for name in before} == before


def test_code_of_a_folder_is_never_run(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, key in ((CONFIG, "AutoModelForCausalLM"), (TOKENIZER, "AutoTokenizer")):
        set_json(
            name, auto_map={"AutoConfig": "evil.Evil", key: "evil.Evil"}, trust_remote_code=True
        )()
    Path("base/evil.py").write_text(
        "from pathlib import Path\n\nPath('ran').touch()\n\n\nclass Evil:\n    pass\n"
    )
    Path("recipe.yaml").write_text(json.dumps(RECIPE))
    code, said = run(capsys, monkeypatch, *TRAIN, "--dry-run")
    assert code == 0
    assert not list(here.rglob("ran"))
    notes = base_facts(load_recipe(RECIPE))["pretrained"]["notes"]
    assert notes == [
        f"base/{name}.json names code of its own (auto_map), which is not run"
        for name in ("config", "tokenizer_config")
    ]
    set_json(CONFIG, model_type="mambo")()
    code, said = run(capsys, monkeypatch, *TRAIN)
    assert code != 0
    assert "model_type mambo" in said
    assert not list(here.rglob("ran"))


def test_weights_are_held_to_what_the_hub_said(here: Path) -> None:
    path, right, wrong = (
        here / WEIGHTS,
        hashlib.sha256(Path(WEIGHTS).read_bytes()).hexdigest(),
        "0" * 64,
    )
    notes = here / "base" / ".cache" / "huggingface" / "download" / "model.safetensors.metadata"
    notes.parent.mkdir(parents=True)
    recipe = load_recipe(RECIPE)
    for sha256, known in ((right, right), (wrong, wrong), ("etag", None)):
        notes.write_text(f"{'a' * 40}\n{sha256}\n{time.time()}\n")
        assert fetched_sha256(path) == known
    notes.write_text(f"{'a' * 40}\n{wrong}\n{time.time()}\n")
    with pytest.raises(
        CheckpointError,
        match=f"is damaged: its SHA-256 is {right[:12]}..., but the hub's is 000000000000",
    ):
        base_facts(recipe)
    notes.write_text(
        f"{'a' * 40}\n{wrong}\n{time.time() - 99}\n"
    )  # the user changed the file afterwards
    assert base_facts(recipe)["base_weights_sha256"] == right
    path.rename(here / right)
    path.symlink_to(here / right)
    assert fetched_sha256(path) == right
    (here / right).rename(here / wrong)
    path.unlink()
    path.symlink_to(here / wrong)
    with pytest.raises(
        CheckpointError, match=r"model.safetensors: is damaged: .* Remove it and fetch it again"
    ):
        base_facts(recipe)
