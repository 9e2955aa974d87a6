"""Boxes that are moved with the pixels they are around."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.core.settings import validate
from groundup.core.values import IGNORED, Batch
from groundup.media.augmentation.detection import BoxAugment, augment_detection
from groundup.media.augmentation.draws import Draws
from groundup.processors.image import ImageProcessor

pytestmark = pytest.mark.xdist_group("hypothesis")  # it reads the whole package once

HEIGHT, WIDTH = 40, 56
READER = ImageProcessor((3, HEIGHT, WIDTH), None, [0.0] * 3, [1.0] * 3)


def batch_of(*pictures: list[tuple[float, float, float, float]], first: int = 0) -> Batch:
    """Return pictures with boxes filled with white, each with as many labels."""
    most = max(1, *map(len, pictures))
    inputs = torch.zeros(len(pictures), 3, HEIGHT, WIDTH)
    boxes = torch.zeros(len(pictures), most, 4)
    labels = torch.full((len(pictures), most), IGNORED)
    for row, own in enumerate(pictures):
        for column, (left, top, right, bottom) in enumerate(own):
            inputs[row, :, int(top) : int(bottom), int(left) : int(right)] = 1.0
            boxes[row, column] = torch.tensor([left, top, right, bottom])
            labels[row, column] = first + column
    frame = torch.tensor([1.0, 1.0, 0.0, 0.0]).repeat(len(pictures), 1)
    crowd = torch.zeros(labels.shape, dtype=torch.bool)
    return {"inputs": inputs, "boxes": boxes, "labels": labels, "crowd": crowd, "frame": frame}


def no_partners(which: int = 0) -> Batch:
    raise AssertionError("asked for partners")


def augment(given: BoxAugment, batch: Batch, first: int = 0, **more: Any) -> Batch:
    samples = np.arange(first, first + len(batch["inputs"]))
    partners = more.get("partners", no_partners)
    return augment_detection(given, batch, Draws(3, samples), partners, READER)


def around_pixels(picture: torch.Tensor) -> torch.Tensor:
    """Return the box around all that is at least half white."""
    rows, columns = (picture.mean(0) >= 0.5).nonzero().unbind(1)
    return torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()


@pytest.mark.parametrize(
    ("changes", "slack"),
    [
        ({"flip": True}, 0.0),
        ({"vertical_flip": True}, 0.0),
        ({"crop": 0.2}, 0.0),
        ({"shift": 0.1}, 0.51),
        ({"scale": (0.7, 1.3)}, 0.51),
        # Of a turned box the corners are thin: less than a pixel of each is half white.
        ({"rotate_degrees": 30}, 1.5),
        ({"rotate_degrees": 8, "scale": (0.8, 1.2), "flip": True, "shift": 0.05}, 1.5),
    ],
)
@settings(deadline=None, max_examples=30)
@given(number=st.integers(0, 10_000), left=st.integers(14, 26), top=st.integers(10, 18))
def test_a_moved_box_is_around_the_moved_pixels(
    changes: dict[str, Any], slack: float, number: int, left: int, top: int
) -> None:
    batch = batch_of([(left, top, left + 15, top + 11)])
    found = augment(BoxAugment(min_visible=0.0, **changes), batch, number)
    assert int(found["labels"][0, 0]) == 0
    there = around_pixels(found["inputs"][0])
    assert float((found["boxes"][0, 0] - there).abs().max()) <= slack + 1e-4


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(number=st.integers(0, 10_000))
def test_boxes_of_a_mosaic_are_around_their_pixels(number: int) -> None:
    mosaic = BoxAugment(mosaic=1.0, min_visible=0.01)

    def partners(which: int = 0) -> Batch:
        return batch_of([(16, 12, 36, 28)], first=which + 1) | {}

    own = batch_of([(16, 12, 36, 28)])
    found = augment(mosaic, own, number, partners=partners)
    labels = [int(label) for label in found["labels"][0] if label != IGNORED]
    assert sorted(labels) == sorted(set(labels))
    covered = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    for left, top, right, bottom in found["boxes"][0].tolist():
        assert 0 <= left <= right <= WIDTH
        assert 0 <= top <= bottom <= HEIGHT
        inside = found["inputs"][0, 0, round(top + 0.6) : round(bottom - 0.6)]
        inside = inside[:, round(left + 0.6) : round(right - 0.6)]
        assert inside.numel() == 0 or float(inside.min()) > 0.5
        covered[max(0, int(top) - 1) : int(bottom) + 2, max(0, int(left) - 1) : int(right) + 2] = (
            True
        )
    # Less than a hundredth of a box may be left without one.
    assert float(found["inputs"][0, 0][~covered].sum()) <= 0.01 * 20 * 16 + 8


def test_each_sample_is_changed_by_its_number_alone() -> None:
    rng = np.random.default_rng(0)
    pictures = [
        [(4.0 + 6 * n, 5.0, 9.0 + 6 * n, 5.0 + int(rng.integers(4, 30))) for n in range(count)]
        for count in (3, 0, 1, 5)
    ]
    others = [batch_of(*pictures[1:], pictures[0], first=10 * which) for which in range(3)]
    several = BoxAugment(
        flip=True, rotate_degrees=20, scale=(0.6, 1.4), crop=0.1, hue=0.1, mosaic=0.5, erase=0.5
    )

    def take(first: int, count: int) -> Batch:
        rows = slice(first, first + count)

        def partners(which: int = 0) -> Batch:
            return {name: values[rows] for name, values in others[which].items()}

        own = {name: values[rows] for name, values in batch_of(*pictures).items()}
        return augment(several, own, first, partners=partners)

    together = take(0, 4)
    assert len(set(together["labels"].flatten().tolist())) > 5  # some are mosaics
    for row in range(4):
        alone = take(row, 1)
        assert torch.equal(alone["inputs"][0], together["inputs"][row])
        count = int((together["labels"][row] != IGNORED).sum())
        for name in ("boxes", "labels", "crowd"):
            assert torch.equal(alone[name][0, :count], together[name][row, :count])
        assert bool((alone["labels"][0, count:] == IGNORED).all())
    again = take(0, 4)
    assert all(torch.equal(again[name], together[name]) for name in together)


def test_boxes_of_which_little_is_left_are_dropped_and_regions_stay_regions() -> None:
    batch = batch_of([(0, 0, 20, 20), (30, 20, 50, 38)])
    batch["crowd"][0, 1] = True
    before = {name: values.clone() for name, values in batch.items()}
    kept = {}
    for share in (0.0, 0.25, 1.0):
        found = augment(BoxAugment(scale=(1.6, 1.6), min_visible=share), batch)
        kept[share] = found["labels"][0][found["labels"][0] != IGNORED].tolist()
    assert kept[0.0] == [0, 1]
    assert kept[1.0] == []
    # (0, 0) to (20, 20) enlarged from the middle is left (-16.8, -12) to (15.2, 20): 29 percent.
    assert kept[0.25] == [0, 1]
    assert augment(BoxAugment(scale=(1.6, 1.6), min_visible=0.3), batch)["labels"].tolist() == [[1]]
    assert augment(BoxAugment(flip=True), batch)["crowd"].tolist() == [[False, True]]
    assert all(torch.equal(before[name], batch[name]) for name in batch)  # left as it was
    found = augment(BoxAugment(brightness=0.5), batch)
    assert torch.equal(found["boxes"], batch["boxes"])
    assert augment(BoxAugment(), batch) is batch


def test_settings_that_do_nothing() -> None:
    with pytest.raises(Exception, match="min_visible has no effect where no picture is moved"):
        validate(BoxAugment, {"min_visible": 0.5, "hue": 0.1}, "recipe.task.augmentation")
    assert BoxAugment(min_visible=0.5, flip=True).used == ("flip",)


def test_what_is_of_a_picture_moves_with_it() -> None:
    """As a box around all of it does."""
    area = [(8, 4, 46, 33)] * 12
    batch = batch_of(*([each] for each in area))
    batch["picture"] = torch.tensor(area).float()
    moves = BoxAugment(min_visible=0.0, flip=True, scale=(0.7, 1.3), shift=0.2, rotate_degrees=8)
    found = augment(moves, batch)
    kept = found["labels"][:, 0] == 0
    assert kept.all()
    torch.testing.assert_close(found["picture"], found["boxes"][:, 0])
    assert not torch.equal(found["picture"], batch["picture"])
    mosaics = augment(BoxAugment(mosaic=0.5), batch, partners=lambda which=0: batch)
    whole = torch.tensor([0.0, 0.0, WIDTH, HEIGHT])
    filled = (mosaics["picture"] == whole).all(1)
    assert 0 < int(filled.sum()) < 12
    torch.testing.assert_close(mosaics["picture"][~filled], batch["picture"][~filled])
