"""Every message of pictures in folders, of reading pictures, and of augmentation."""

from __future__ import annotations

import builtins
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import PHOTOGRAPHS, digit_folders, save
from PIL import Image

from groundup.core.errors import DataError, MissingExtraError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.data.sources.images import Images
from groundup.media.augmentation.settings import Augment
from groundup.media.images import LARGEST, examine, read_picture
from groundup.processors.class_targets import SingleLabel
from groundup.processors.image import ImageConfig, ImageProcessor
from groundup.processors.labelled import Labelled
from groundup.processors.text.bytes import BytesConfig
from groundup.tasks.classify.task import Classify


def read(root: Path, cache: Path, **settings: Any) -> list[Example]:
    return Images(path=str(root), **settings).examples("train", cache)


def test_folders_that_hold_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        read(tmp_path / "nowhere", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file; allowed: a folder"):
        read(tmp_path / "file", tmp_path)
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(DataError, match=r"no file to read in this folder; it has no files"):
        read(root, tmp_path)
    save(root / "a.png", np.zeros((2, 2)))
    with pytest.raises(DataError, match="there are no class folders, and 1 files without one"):
        read(root, tmp_path)
    for number in range(9):
        save(root / "cat" / f"{number}.png", np.zeros((2, 2)))
    with pytest.raises(
        DataError,
        match="every readable training picture has the class 'cat'; a classifier needs two",
    ):
        read(root, tmp_path)
    (root / "狗").mkdir()
    with pytest.raises(
        DataError, match=r"the class folder '狗' holds no file of the kinds \.apng, .*or remove it"
    ):
        read(root, tmp_path)


def test_splits_that_cannot_be_used(tmp_path: Path) -> None:
    for number, path in enumerate(("train/cat/1", "train/dog/2", "val/cat/3", "val/wolf/4")):
        save(tmp_path / f"{path}.png", np.full((2, 2), number))
    with pytest.raises(DataError, match="class 'wolf' is only in the validation split"):
        read(tmp_path, tmp_path)
    for name in ({"fraction": 0.5}, {"seed": 1}):
        with pytest.raises(
            RecipeError, match=r"has no effect: .* has a folder of its own for validation"
        ):
            read(tmp_path, tmp_path, **name)
    few = tmp_path / "few"
    for path in ("cat/1", "dog/2"):
        save(few / f"{path}.png", np.zeros((2, 2)))
    with pytest.raises(DataError, match="of 2 pictures none is in the validation split"):
        read(few, tmp_path, fraction=1e-6)


def test_unreadable_pictures_stop(tmp_path: Path) -> None:
    root = digit_folders(tmp_path / "root", 40)
    photograph = (PHOTOGRAPHS / "flower.jpg").read_bytes()
    (root / "1" / "cut.jpg").write_bytes(photograph[: len(photograph) // 2])
    with pytest.raises(
        DataError, match=r"1/cut.jpg: is no readable picture: .*truncated.*on_unreadable: skip"
    ):
        read(root, tmp_path)
    (root / "1" / "text.png").write_text("no picture")
    with pytest.raises(
        DataError, match=r"cut.jpg: is no readable picture: .* \(1 other pictures too\)"
    ):
        read(root, tmp_path)
    for path in root.rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no picture can be read; a classifier needs two classes"):
        read(root, tmp_path, on_unreadable="skip")


def test_a_wrong_checksum_is_found(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.arange(64).reshape(8, 8))
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 6] ^= 255
    path.write_bytes(content)
    problem, _ = examine(path)
    assert problem is not None
    assert problem.startswith("is no readable picture: ")
    assert examine(save(path, np.zeros((3, 4)))) == (None, "3 x 4 L")


@pytest.mark.parametrize("side", [9_000, 40_000])
def test_a_small_file_of_very_many_pixels(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            len(content).to_bytes(4, "big")
            + kind
            + content
            + zlib.crc32(kind + content).to_bytes(4, "big")
        )

    head = side.to_bytes(4, "big") * 2 + bytes((8, 0, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    with pytest.raises(
        DataError, match=rf"bomb.png: has {side**2:,} pixels; allowed: at most {LARGEST:,}"
    ):
        read_picture(path, str(path))
    assert examine(path)[0] == f"has {side**2:,} pixels; allowed: at most {LARGEST:,}"


def test_pictures_that_cannot_be_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"gone.png: is no readable picture: no such file; allowed"):
        read_picture(tmp_path / "gone.png", "gone.png")
    with pytest.raises(
        DataError, match="its pixels are floating-point numbers; allowed: 8 or 16 bits"
    ):
        read_picture(Image.fromarray(np.zeros((2, 2), np.float32)), "a.tif")
    real = builtins.__import__

    def without(name: str, *given: Any) -> Any:
        if name.startswith("PIL"):
            raise ImportError(name)
        return real(name, *given)

    path = save(tmp_path / "a.png", np.zeros((2, 2)))
    monkeypatch.setattr(builtins, "__import__", without)
    for name in [name for name in sys.modules if name.startswith("PIL")]:
        monkeypatch.delitem(sys.modules, name)
    for function in (lambda: read_picture(path, "a"), lambda: examine(path)):
        with pytest.raises(MissingExtraError, match=r"groundup\[classic\]"):
            function()


def test_pictures_of_other_sizes(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{n}.png", np.zeros((4 + n, 4))) for n in range(2)]
    examples = [Example(str(n), path, n) for n, path in enumerate(paths)]
    with pytest.raises(
        DataError,
        match=r"1.png: has 5 x 4 pixels and 1 channels, but the others 4 x 4 and 1. Set proc",
    ):
        ImageConfig().fit(lambda: iter(examples))
    fitted = ImageConfig().fit(lambda: iter(examples[:1]))
    with pytest.raises(
        DataError, match=r"1.png: has 5 x 4 pixels and 1 channels, but the others 4 x 4 and 1"
    ):
        fitted.encode_inputs(paths)
    with pytest.raises(RecipeError, match="resize has no effect without size"):
        validate(ImageConfig, {"resize": "crop"}, "recipe.processor")


# ------------------------------------------------------------------------------------- augmentation
@pytest.mark.parametrize(
    ("section", "problem"),
    [
        (
            {"scale": [1.2, 0.8]},
            r"scale is \[1.2, 0.8\]; allowed: two factors above 0, the smaller one first",
        ),
        ({"scale": [0.0, 0.8]}, r"scale is \[0.0, 0.8\]"),
        ({"randaugment_magnitude": 5.0}, "randaugment_magnitude has no effect with randaugment: 0"),
        ({"rotate": 5.0}, "rotate: unknown key; did you mean 'rotate_degrees'"),
    ],
)
def test_augmentation_that_means_nothing(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        validate(Augment, section, "recipe.task.augmentation")


@pytest.mark.parametrize(
    ("settings", "shape", "problem"),
    [
        (
            {"flip": True},
            (0,),
            r"augmentation.flip: does nothing for inputs that are tokens.*here: token_dropout",
        ),
        (
            {"mixup": 0.2},
            (0, 40),
            "mixup: does nothing for inputs that are frames of varying length",
        ),
        (
            {"token_dropout": 0.1},
            (1, 8, 8),
            "token_dropout: does nothing for inputs that are pictures",
        ),
        (
            {"erase": 0.1},
            (7,),
            r"erase: does nothing for inputs that are numbers.*here: noise, mixup",
        ),
        (
            {"saturation": 0.1},
            (1, 8, 8),
            "saturation: needs three channels, but the pictures have 1",
        ),
        ({"hue": 0.1}, (4, 8, 8), "hue: needs three channels, but the pictures have 4"),
    ],
)
def test_augmentation_that_does_nothing_for_the_data(
    settings: dict[str, Any], shape: Any, problem: str
) -> None:
    with pytest.raises(RecipeError, match=problem):
        Augment(**settings).check(shape)


def test_it_is_found_before_training() -> None:
    task = Classify(augmentation=Augment(flip=True))
    texts = [Example("a", "one", 0), Example("b", "two", 1)]
    with pytest.raises(RecipeError, match="flip: does nothing for inputs that are tokens"):
        task.fit_processor(BytesConfig().fit(lambda: iter(())), lambda: iter(texts))
    with pytest.raises(RecipeError, match="mixup: cannot blend categorical columns"):
        Augment(mixup=0.1).check((7,), categories=True)
    Augment(mixup=0.1).check((7,))
    fitted = Labelled(ImageProcessor((1, 8, 8), None, [0.0], [1.0]), SingleLabel(["0", "1"]), 0)
    Augment(flip=True).check(fitted.input_shape)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"resample": "cubic"},
            "resample has no effect without size. Give size, or remove resample",
        ),
        ({"mean": [0.5]}, "mean has no effect with normalise"),
        (
            {"normalise": "given", "mean": [0.5, 0.5]},
            "normalise: given needs mean and std, one number each for each chan",
        ),
        (
            {"normalise": "given", "mean": [0.5], "std": [0.0]},
            "std holds 0.0. Give numbers above 0",
        ),
    ],
)
def test_impossible_scaling(section: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        validate(ImageConfig, section, "recipe.processor")
    assert message in str(caught.value)


def test_a_mean_for_other_channels_than_the_pictures_have() -> None:
    config = ImageConfig(normalise="given", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    message = (
        r"processor.mean: has 3 numbers, but the pictures 1 channels. Give one for each channel, or"
        r" set channels"
    )
    with pytest.raises(DataError, match=message):
        config.fit(lambda: iter([Example("one", np.ones((4, 4)), 0)]))
