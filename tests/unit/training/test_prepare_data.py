"""A corpus that many jobs prepare: the same files as one process makes, and what is missing is
said."""

from __future__ import annotations

import json
import os
import pydoc_data.topics
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from groundup import api
from groundup.cli.main import app
from groundup.contracts.data import Part
from groundup.core.errors import DataError, GroundupError, RecipeError
from groundup.data.cleaning import document_parts
from groundup.media.text_sample import TextSample
from groundup.processors.text.bpe import BPEConfig
from groundup.recipe.recipe import load_recipe
from groundup.runs.processor import cache_folder
from groundup.training.prepare_data import parse_part

TOPICS = [text[:700] for _, text in sorted(pydoc_data.topics.topics.items()) if len(text) > 900]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Files of real texts with copies and near copies, some of them across files."""
    monkeypatch.setattr(document_parts, "BLOCK", 7)
    monkeypatch.setattr(document_parts, "_MOST_ROWS", 5)
    folder = tmp_path / "corpus"
    (folder / "validation").mkdir(parents=True)
    altered = [text.replace(" the ", " some ", 1) for text in TOPICS]
    files = {
        "a.jsonl": TOPICS[:30],
        "b.jsonl": ["", *altered[10:40], "bell\x07 twice", TOPICS[3]],
        "c.jsonl": TOPICS[20:50],
        "d.jsonl": altered[40:],
        "validation/held.jsonl": [TOPICS[-1], altered[5], TOPICS[-1]],
    }
    for name, texts in files.items():
        lines = "\n\n".join(json.dumps({"text": text}) for text in texts)
        (folder / name).write_text(lines + "\n", encoding="utf-8")
    return {
        "name": "corpus",
        "model": {"name": "gpt", "layers": 1, "width": 16, "heads": 2, "context_length": 64},
        "task": "language_modeling",
        "processor": {"name": "bpe", "vocab_size": 400},
        "data": {"name": "text", "path": str(folder)},
        "training": {"batch_size": 2, "steps": 1},
        "machine": {"precision": "fp32", "threads": 1, "compile": False, "device": "cpu"},
    }


def files_of(cache: Path) -> dict[str, bytes]:
    """All files of a cache by their names, but those that only parts have."""
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file()
    }


def prepare(recipe: dict[str, Any], cache: Path, parts: int | None) -> dict[str, bytes]:
    """Prepare in a cache of its own, in the reverse order of the parts."""
    os.environ["GROUNDUP_CACHE"] = str(cache)
    if parts is None:
        api.prepare_data(recipe)
        return files_of(cache)
    for _ in range(2):
        for number in range(parts, 0, -1):
            api.prepare_data(recipe, part=f"{number}/{parts}")
        said = api.prepare_data(recipe, join=parts)
    assert "tokens" in said
    return files_of(cache)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 33])
def test_any_number_of_parts_makes_the_files_of_one_process(
    recipe: dict[str, Any], tmp_path: Path, limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe["data"] |= {"limit": limit, "test": 0.3}
    if limit is None:  # a part of the texts teaches the tokenizer
        monkeypatch.setattr(BPEConfig, "sample_bytes", 9_000)
    wanted = prepare(recipe, tmp_path / "alone", None)
    names = {Path(name).name for name in wanted}
    assert {"sides.bin", "card.json", "tokens-00000.bin", "processor.json"} <= names
    assert sum(name.endswith("tokens-00000.bin") for name in wanted) == 3
    card = json.loads(next(each for name, each in wanted.items() if name.endswith("card.json")))
    removed = set(card["cleaning"]["removed"])
    assert "exact_duplicate" in removed
    assert ("near_duplicate_of_validation" in removed) == (limit is None)
    assert card["met_in_files"]["empty lines"] > 10
    for parts in (1, 3, 8):
        found = prepare(recipe, tmp_path / f"of-{parts}", parts)
        assert found.keys() == wanted.keys()
        assert [name for name in found if found[name] != wanted[name]] == []


def test_whole_files_are_handed_out_where_they_are_of_like_sizes(recipe: dict[str, Any]) -> None:
    from groundup.data.reading.location import Origin
    from groundup.data.sources.text import TextSource

    source = TextSource(path=recipe["data"]["path"])
    found = [document_parts.files_of_part(Origin(source), Part(n, 3)) for n in (1, 2, 3)]
    assert all(found)
    names = [file.relative for files in found for file in files or []]
    assert names == ["validation/held.jsonl", "a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl"]
    # of 64 parts most would have nothing
    assert document_parts.files_of_part(Origin(source), Part(1, 64)) is None


@pytest.mark.parametrize(("most", "kept"), [(9_000, True), (1_000_000, True), (30, False)])
def test_the_tokenizer_is_learned_from_what_parts_have_drawn(
    recipe: dict[str, Any], most: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very pieces that one process draws from all documents; if not, all are read."""
    source = load_recipe(recipe).data
    cache = cache_folder()
    for number in (1, 2, 3):
        source.examine_part(Part(number, 3), cache, most)
    source.join_examined(3, cache, most)
    assert source.drawn_texts(cache, most + 1) is None
    drawn = source.drawn_texts(cache, most)
    texts = [document.text for document in source.examples("train", cache)]
    wanted = sorted(TextSample.of(texts, most))
    if drawn is None:
        assert not kept
        return
    assert sorted(drawn()) == wanted
    assert sorted(TextSample.of(drawn(), most)) == wanted
    assert (len(wanted) < len(texts)) == (most < 1_000_000)
    # and no document is read once more
    monkeypatch.setattr(type(source), "examples", None)
    assert source.drawn_texts(cache, most) is not None


@pytest.mark.slow
def test_training_finds_what_was_prepared(
    recipe: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = prepare(recipe, tmp_path / "cache", 2)
    # An earlier test of the same process may have let preparing be logged, too.
    caplog.clear()
    caplog.set_level("INFO", logger="groundup")
    api.train(recipe, runs=tmp_path / "runs")
    assert caplog.text.count("Reusing") >= 2
    assert "Made" not in caplog.text
    after = files_of(tmp_path / "cache")
    assert {name: after[name] for name in before} == before
    assert not list((tmp_path / "cache" / "parts").iterdir())


def test_a_part_is_made_once_and_joined_when_all_are_there(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    arguments = ["data", "prepare", str(tmp_path / "recipe.json")]
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    run = CliRunner()
    first = run.invoke(app, [*arguments, "--part", "2/3"])
    assert first.output.startswith("Part 2/3 is cleaned. Once all parts are:")
    again = run.invoke(app, [*arguments, "--part", "2/3"])
    assert again.output.startswith("Part 2/3 was cleaned before")
    with pytest.raises(DataError, match=r"2 of 3 parts are missing: 1/3, 3/3\. .*--part 1/3"):
        api.prepare_data(recipe, join=3)
    for number in (1, 3):
        api.prepare_data(recipe, part=f"{number}/3")
    assert "Now once more for tokens: --part 1/3" in api.prepare_data(recipe, join=3)
    assert "has its tokens" in api.prepare_data(recipe, part="2/3")
    assert "had its tokens before" in api.prepare_data(recipe, part="2/3")
    with pytest.raises(DataError, match=r"the tokens \(train\) of 1/3, 3/3 are missing"):
        api.prepare_data(recipe, join=3)


def test_a_part_of_another_recipe_or_other_data_is_named(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    other = {"data.cleaning.min_characters": 9}
    api.prepare_data(recipe, other, part="1/2")
    api.prepare_data(recipe, part="2/2")
    sentence = r"1 of 2 parts are missing: 1/2; part 1 was made with other settings"
    with pytest.raises(DataError, match=sentence + r"|min_characters was 9, and is 1"):
        api.prepare_data(recipe, join=2)
    api.prepare_data(recipe, part="1/4")
    with pytest.raises(DataError, match=r"1/2; part 1 was made (with other|as one of 4)"):
        api.prepare_data(recipe, join=2)
    (tmp_path / "corpus" / "a.jsonl").write_text('{"text": "quite another text"}\n')
    with pytest.raises(DataError, match=r"part 1 was made with other"):
        api.prepare_data(recipe, join=2)


def test_a_job_that_is_killed_leaves_no_part_and_is_started_again(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, added = document_parts.FactsWriter.add, []

    def killed(writer: Any, split: Any, document: Any) -> None:
        added.append(document)
        if len(added) == 20:
            raise KeyboardInterrupt
        add(writer, split, document)

    with monkeypatch.context() as patch:
        patch.setattr(document_parts.FactsWriter, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            api.prepare_data(recipe, part="1/2")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert "Part 1/2 is cleaned" in api.prepare_data(recipe, part="1/2")


def test_files_that_change_while_a_part_reads_them_are_refused(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from groundup.data.sources import text

    write = text.write_part

    def late(*arguments: Any) -> None:
        write(*arguments)
        (tmp_path / "corpus" / "a.jsonl").write_text('{"text": "new"}\n')

    monkeypatch.setattr(text, "write_part", late)
    with pytest.raises(DataError, match="the files changed while part 1/2 read them"):
        api.prepare_data(recipe, part="1/2")
    assert not list((tmp_path / "cache").rglob("part.json"))


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "1/20000"])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(GroundupError, match=r"--part: is .*allowed: a part and how many"):
        parse_part(text)
    assert parse_part(" 3/64 ") == Part(3, 64)


def test_what_cannot_be_in_parts_is_refused(recipe: dict[str, Any]) -> None:
    with pytest.raises(GroundupError, match="--join: has no effect with --part"):
        api.prepare_data(recipe, part="1/2", join=2)
    docs = recipe | {"data": "python_docs"}
    with pytest.raises(RecipeError, match=r"'python_docs' cannot be prepared in parts"):
        api.prepare_data(docs, part="1/2")
    grouped = {"data.group_column": "author"}
    with pytest.raises(RecipeError, match=r"recipe\.data\.group_column: has all groups"):
        api.prepare_data(recipe, grouped, part="1/2")
    pictures = recipe | {"data": "arrays", "task": "classify", "processor": "image"}
    pictures["model"] = {"name": "mlp", "hidden": [4]}
    with pytest.raises(RecipeError, match="has no tokens that could be prepared"):
        api.prepare_data(pictures)
