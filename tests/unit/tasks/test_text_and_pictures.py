"""Captions and pictures in one row of tokens: what is learned, written and found."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_runs import autoencoder_run, caption_run, captioned_digits, picture_tokens
from pictures import save
from rich.text import Text

import groundup
from groundup import api
from groundup.contracts.tasks import Picture
from groundup.models.gpt import GPTConfig
from groundup.tasks.shared.caption_retrieval import share_found
from groundup.tasks.text_and_pictures.retrieval import caption_scores
from groundup.tasks.text_and_pictures.rows import caption_rows, picture_rows
from groundup.tasks.text_and_pictures.task import TextAndPictures


def test_both_orders_of_a_row() -> None:
    processor = picture_tokens()
    task = TextAndPictures()
    batch = task.encode(captioned_digits(2), processor)
    tokens, targets = picture_rows(batch)
    for row in range(2):
        learned = targets[row][targets[row] >= 0]
        assert torch.equal(learned, batch["codes"][row])
        # The token before the first code begins the picture.
        place = int((targets[row] >= 0).nonzero()[0])
        assert tokens[row, place] == processor.picture_id
        assert tokens[row, 0] == processor.begin_id
    tokens, targets = caption_rows(batch)
    assert torch.equal(tokens[:, 2:6], batch["codes"])
    assert (targets[:, :5] == -100).all()
    for row, example in enumerate(captioned_digits(2)):
        learned = targets[row][targets[row] >= 0]
        assert learned[-1] == processor.end_id
        assert processor.decode(learned.tolist()) == example.target


def test_each_direction_is_a_term_with_its_own_count() -> None:
    processor = picture_tokens()
    model = GPTConfig(
        vocabulary_size=processor.vocabulary_size, layers=1, width=16, heads=2, context_length=48
    ).build()
    for directions, names in (("both", {"picture", "caption"}), ("to_caption", {"caption"})):
        task = TextAndPictures(directions=directions, caption_weight=0.5 if len(names) > 1 else 1.0)  # type: ignore[arg-type]
        batch = task.encode(captioned_digits(3), processor)
        with torch.no_grad():
            loss = task.loss(task.forward(model, batch), batch)
        assert loss.terms.keys() == names
        assert task.counts(batch) == {name: float(t.count) for name, t in loss.terms.items()}
        found = task.summarise(
            {name: (float(t.total), float(t.count)) for name, t in loss.terms.items()}
        )
        expected = sum(t.weight * float(t.total / t.count) for t in loss.terms.values())
        assert found["loss"] == pytest.approx(expected, rel=1e-6)
    assert TextAndPictures(directions="to_picture").counts(batch) == {"picture": 12.0}


def test_captions_that_are_found() -> None:
    scores = np.array([[0.0, -1.0, -1.0], [-1.0, -1.0, -3.0], [0.0, 0.0, 0.0]])
    assert share_found(scores, [0, 1, 2]) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_a_caption_is_scored_by_its_tokens_after_the_picture() -> None:
    processor = picture_tokens()
    torch.manual_seed(0)
    model = GPTConfig(
        vocabulary_size=processor.vocabulary_size, layers=1, width=16, heads=2, context_length=48
    ).build()
    task = TextAndPictures(directions="to_caption")
    examples = captioned_digits(3)
    captions = [str(each.target) for each in examples]
    codes = processor.encode_pictures([each.inputs for each in examples])
    scores = caption_scores(model, codes, captions, processor, 32)
    for row, example in enumerate(examples):
        batch = task.encode([example], processor)
        with torch.no_grad():
            total = float(task.forward(model, batch)["caption"])
        assert scores[row, row] == pytest.approx(-total, rel=1e-4)


def test_pictures_and_captions_are_inspected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    shown = api.inspect_data(caption_run(tmp_path), examples=1)
    lines = [each.plain for each in shown if isinstance(each, Text)]
    assert any(line.strip().endswith(".png") for line in lines)
    assert any(line.startswith("→ a ") and line.endswith("written by hand") for line in lines)


@pytest.mark.slow
def test_a_run_needs_its_autoencoder_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = caption_run(tmp_path)
    copied = tmp_path / "codes"
    shutil.copytree(autoencoder_run(), copied)
    recipe["processor"]["autoencoder"] = str(copied)
    run = groundup.train(recipe, {"training.steps": 4}, runs=tmp_path)
    shutil.rmtree(copied)
    predict = groundup.load(run.folder)
    picture = predict("a nine, written by hand", seed=3)
    assert isinstance(picture, Picture)
    assert picture.pixels.shape == (8, 8)
    assert picture.facts == {"caption": "a nine, written by hand"}
    # The same seed draws the same picture, whatever else is drawn.
    several = predict(["a nine, written by hand", "a six, written by hand"], seed=3)
    assert np.array_equal(several[0].pixels, picture.pixels)
    path = save(Path("nine.png"), picture.pixels)
    caption = predict(str(path))
    assert isinstance(caption, str)
    mixed = predict([path, "a nine, written by hand"])
    assert mixed[0] == caption
    assert isinstance(mixed[1], Picture)
    found = predict.evaluate()
    assert found.metrics["chance"] == 0.25
    assert {"caption_accuracy_at_1", "drawn_accuracy_at_1", "copies"} <= found.metrics.keys()
    assert {"drawn_nearest_accuracy_at_1", "baseline_nearest_accuracy_at_1"} <= found.metrics.keys()
    assert len(found.figures[0].content["items"]) == 4
