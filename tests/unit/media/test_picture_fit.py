"""Parts of pictures and their sizes: the crop of ImageNet's evaluation, and the one of training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import PHOTOGRAPHS, save
from PIL import Image

from groundup.contracts.data import DataContext
from groundup.core.errors import RecipeError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.media.augmentation.settings import Augment
from groundup.media.augmentation.views import views_of
from groundup.media.images import read_picture
from groundup.media.picture_fit import CroppedPicture, PictureFit
from groundup.processors.image import ImageConfig, ImageProcessor

NOISE = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)


def reader(tmp_path: Path, picture: Any, **settings: Any) -> ImageProcessor:
    path = save(tmp_path / "fit.png", picture)
    config = validate(ImageConfig, {"normalise": "none", **settings}, "recipe.processor")
    return config.fit(lambda: iter([Example("fit", path)]))


# --------------------------------------------------------------------------------------- evaluation
@pytest.mark.parametrize("shape", [(300, 200), (199, 300), (257, 256), (256, 256), (100, 231)])
@pytest.mark.parametrize("size", [[224, 224], [192, 223]])
def test_the_crop_of_evaluation_is_torchvisions(
    shape: tuple[int, int], size: list[int], tmp_path: Path
) -> None:
    picture = NOISE[: shape[0], : shape[1]]
    processor = reader(tmp_path, picture, size=size, resize="crop", resize_shorter=256)
    found = processor.encode_inputs([save(tmp_path / "a.png", picture)])["inputs"][0]
    # Resize(256) and CenterCrop(size), as torchvision documents and computes them.
    height, width = shape
    short, long = min(shape), max(shape)
    new = {short: 256, long: int(256 * long / short)}
    rows, columns = new[height], new[width]
    if height == width:
        rows = columns = 256
    whole = Image.fromarray(picture).resize((columns, rows), Image.Resampling.BILINEAR)
    top = round((rows - size[0]) / 2.0)
    left = round((columns - size[1]) / 2.0)
    wanted = whole.crop((left, top, left + size[1], top + size[0]))
    np.testing.assert_array_equal(found.permute(1, 2, 0).numpy(), np.asarray(wanted))


@pytest.mark.parametrize("resample", ["linear", "cubic"])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_files_are_resized_as_pillow_does_and_arrays_nearly_so(
    resize: Any, resample: Any, tmp_path: Path
) -> None:
    picture = NOISE[:90, :120]
    settings = {"size": [50, 40], "resize": resize, "resample": resample}
    processor = reader(tmp_path, picture, **settings)
    path = save(tmp_path / "a.png", picture)
    found = processor.encode_inputs([path])["inputs"][0].numpy()
    rows, columns = {"stretch": (50, 40), "crop": (50, 67), "pad": (30, 40)}[resize]
    filters = {"linear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}
    whole = np.asarray(Image.fromarray(picture).resize((columns, rows), filters[resample]))
    wanted = np.zeros((50, 40, 3), np.uint8)
    if resize == "pad":
        wanted[10:40] = whole
    else:
        wanted = whole[:, (columns - 40 + 1) // 2 :][:, :40]
    np.testing.assert_array_equal(found.transpose(1, 2, 0), wanted)
    array = processor.encode_inputs([picture])["inputs"][0].numpy()
    # Of noise a cubic overshoots far, which Pillow cuts off after the rows and again after columns.
    assert np.abs(array - found).max() < {"linear": 1.01, "cubic": 12.0}[resample]
    # A run of before was trained on numbers that are not whole.
    processor.save(tmp_path / "saved")
    text = (tmp_path / "saved" / "processor.json").read_text()
    older = text.replace('"whole_numbers": true', '"whole_numbers": false')
    assert older != text
    (tmp_path / "saved" / "processor.json").write_text(older)
    before = ImageProcessor.load(tmp_path / "saved").encode_inputs([path, picture])["inputs"]
    np.testing.assert_array_equal(before[0].numpy(), before[1].numpy())
    np.testing.assert_array_equal(before[0].numpy(), array)


def test_a_size_that_the_shorter_side_does_not_cover() -> None:
    settings = {"size": [224, 224], "resize": "crop", "resize_shorter": 200}
    with pytest.raises(
        RecipeError, match=r"resize_shorter is 200, less than the size \[224, 224\]"
    ):
        validate(ImageConfig, settings, "recipe.processor")
    with pytest.raises(RecipeError, match="resize_shorter has no effect with resize"):
        validate(ImageConfig, {"size": [9, 9], "resize_shorter": 20}, "recipe.processor")


# ------------------------------------------------------------------------------------------ training
def test_a_drawn_part_is_within_the_shares_and_proportions_asked_for() -> None:
    draws = np.random.default_rng(0).random((500, 40))
    shares, ratios = [], []
    for row in draws:
        left, top, right, bottom = CroppedPicture(None, row, (0.08, 1.0), (0.75, 4 / 3)).region(
            400, 500
        )
        assert 0 <= left < right <= 500
        assert 0 <= top < bottom <= 400
        shares.append((right - left) * (bottom - top) / 200_000)
        ratios.append((right - left) / (bottom - top))
    assert 0.079 < min(shares) < 0.1
    assert max(shares) > 0.95
    assert 0.74 < min(ratios) < 0.77
    assert 1.30 < max(ratios) < 1.35
    # Shares are even between the two, but for those of the largest that do not fit.
    assert 0.46 < np.mean(np.asarray(shares) < 0.5) < 0.62
    assert abs(np.mean(np.log(ratios))) < 0.03


@pytest.mark.parametrize(
    ("shape", "box"),
    [((100, 1000), (433, 0, 566, 100)), ((1000, 100), (0, 433, 100, 566)), ((1, 1), (0, 0, 1, 1))],
)
def test_of_a_panorama_the_middle_is_read(shape: tuple[int, int], box: tuple[int, ...]) -> None:
    every = np.full(40, 0.999)
    every[1::4] = 0.5
    crop = CroppedPicture(None, every, (0.99, 1.0), (0.75, 4 / 3))
    assert crop.region(*shape) == box


def test_a_part_of_a_file_is_cut_out_before_it_is_resized(tmp_path: Path) -> None:
    path = PHOTOGRAPHS / "china.jpg"
    whole = read_picture(path, "china")
    processor = reader(tmp_path, NOISE, size=[32, 48], channels=3)
    drawn = CroppedPicture(path, np.random.default_rng(1).random(40), (0.1, 0.3), (0.75, 4 / 3))
    left, top, right, bottom = drawn.region(*whole.shape[:2])
    part = Image.fromarray(whole[top:bottom, left:right])
    wanted = np.asarray(part.resize((48, 32), Image.Resampling.BILINEAR))
    found, frames = processor.encode_placed([drawn])
    np.testing.assert_array_equal(found[0].permute(1, 2, 0).numpy(), wanted)
    across, down, right_by, down_by = frames[0].tolist()
    assert math.isclose(left * across + right_by, 0.0, abs_tol=1e-3)
    assert math.isclose(bottom * down + down_by, 32.0, abs_tol=1e-3)
    array = processor.encode_inputs([drawn._replace(picture=whole)])["inputs"][0]
    assert (array - found[0]).abs().max() < 1.01
    assert PictureFit(None).place(7, 5).frame == (1.0, 1.0, 0.0, 0.0)


@pytest.mark.slow
def test_each_sample_reads_another_part_whatever_the_micro_batches(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{n}.png", np.roll(NOISE, n, 1)) for n in range(6)]
    processor = reader(tmp_path, NOISE, size=[8, 8])
    settings = Augment(random_resized_crop=(0.2, 0.5))
    examples = [Example(path.name, path) for path in paths]

    def batches(size: int, count: int, ahead: int = 0) -> Any:
        context = DataContext(
            split="train",
            encode=lambda some: processor.encode_inputs([each.inputs for each in some]),
            encode_key="",
            end_id=0,
            sequence_length=0,
            batch_size=4,
            micro_batch_size=size,
            seed=3,
            cache=tmp_path,
            augment=lambda batch, samples, partners: batch | {"other": partners()["inputs"]},
            views=views_of(settings, 3),
        )
        stream = open_indexed_stream(examples, context)
        if ahead:
            stream.load_state_dict({"samples": ahead})
        found = [next(stream) for _ in range(count)]
        stream.close()
        return {key: np.concatenate([each[key] for each in found]) for key in found[0]}

    whole = batches(4, 6)
    for key, values in batches(1, 24).items():
        np.testing.assert_array_equal(values, whole[key])
    for key, values in batches(4, 4, ahead=8).items():
        np.testing.assert_array_equal(values, whole[key][8:])
    # No part comes again in another epoch, and partners' parts are others.
    assert len(np.unique(whole["inputs"].reshape(24, -1), axis=0)) == 24
    both = np.concatenate([whole["inputs"], whole["other"]]).reshape(48, -1)
    assert len(np.unique(both, axis=0)) == 48
    assert views_of(Augment(), 3) is None


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"random_resized_crop": [0.0, 1.0]},
            r"random_resized_crop is \[0\.0, 1\.0\]; allowed: two",
        ),
        ({"random_resized_crop": [0.5, 0.2]}, "two shares of the area above 0 and up to 1"),
        ({"random_resized_crop_ratio": [1.0, 2.0]}, "no effect without random_resized_crop"),
        (
            {"random_resized_crop": [0.1, 1.0], "random_resized_crop_ratio": [2.0, 1.0]},
            "random_resized_crop_ratio is",
        ),
    ],
)
def test_crops_that_cannot_be(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        validate(Augment, settings, "recipe.task.augmentation")
    if "ratio" not in str(settings):
        with pytest.raises(RecipeError, match="does nothing for inputs that are numbers"):
            Augment(random_resized_crop=(0.1, 1.0)).check((7,))
