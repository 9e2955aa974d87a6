"""Augmentation: what each setting does to pixels, frames and tokens, and that a sample's number
alone decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps

from groundup.core import seeding
from groundup.core.values import Batch, Example
from groundup.data.sources.arrays import Arrays
from groundup.media import pixels as px
from groundup.media.augmentation.batch import augment_batch
from groundup.media.augmentation.draws import Draws
from groundup.media.augmentation.settings import Augment
from groundup.processors.image import ImageConfig, ImageProcessor
from groundup.processors.text.bytes import BytesConfig
from groundup.tasks.classify.task import Classify

B = 64
GREY, COLOUR = (ImageProcessor((c, 12, 10), None, [0.2] * c, [0.5] * c) for c in (1, 3))
EVERYTHING: dict[str, Any] = {
    **{
        "rotate_degrees": 20.0,
        "scale": (0.8, 1.25),
        "shift": 0.1,
        "crop": 0.1,
        "flip": True,
        "vertical_flip": True,
    },
    **{
        "brightness": 0.3,
        "contrast": 0.3,
        "saturation": 0.3,
        "hue": 0.1,
        "randaugment": 2,
        "erase": 0.5,
    },
    **{"noise": 0.1, "mixup": 0.4, "cutmix": 1.0},
}
OF_FRAMES: dict[str, Any] = {"time_mask": 0.4, "frequency_mask": 0.4}


def pictures(channels: int = 3, count: int = B) -> Batch:
    drawn = torch.Generator().manual_seed(1)
    pixels = torch.rand(count, channels, 12, 10, generator=drawn)
    processor = GREY if channels == 1 else COLOUR
    return {"inputs": processor.from_pixels(pixels), "labels": torch.arange(count)}


def change(batch: Batch, samples: Any = None, seed: int = 0, **settings: Any) -> Batch:
    size = len(batch["labels"])
    samples = np.arange(size) if samples is None else samples
    processor = GREY if "inputs" in batch and batch["inputs"].shape[1] == 1 else COLOUR
    partners = {name: values.roll(1, 0) for name, values in batch.items()}
    return augment_batch(
        Augment(**settings), batch, Draws(seed, samples), lambda: partners, processor
    )


def test_every_setting_is_tried() -> None:
    # Cut out where a file is decoded, not here: test_picture_fit tries them.
    of_views = {"random_resized_crop", "random_resized_crop_ratio"}
    others = {"token_dropout", "randaugment_magnitude"}
    assert {*EVERYTHING, *OF_FRAMES} | of_views | others == set(Augment.model_fields)


@pytest.mark.parametrize("name", EVERYTHING)
def test_each_setting_changes_pictures_by_seed_and_number_and_not_in_place(name: str) -> None:
    batch = pictures()
    before = batch["inputs"].clone()
    one = change(batch, **{name: EVERYTHING[name]})["inputs"]
    assert torch.equal(batch["inputs"], before)
    assert not torch.equal(one, before)
    assert torch.equal(one, change(batch, **{name: EVERYTHING[name]})["inputs"])
    assert not torch.equal(one, change(batch, seed=1, **{name: EVERYTHING[name]})["inputs"])
    assert not torch.equal(
        one, change(batch, np.arange(B) + B, **{name: EVERYTHING[name]})["inputs"]
    )
    assert one.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("micro_batch_size", [1, 4, 16])
def test_the_micro_batch_changes_not_one_bit(channels: int, micro_batch_size: int) -> None:
    settings = {
        k: v for k, v in EVERYTHING.items() if channels == 3 or k not in ("saturation", "hue")
    }
    whole = pictures(channels)
    together = change(whole, **settings)
    partners = {name: values.roll(1, 0) for name, values in whole.items()}
    for start in range(0, B, micro_batch_size):
        part = slice(start, start + micro_batch_size)
        alone = augment_batch(
            Augment(**settings),
            {name: values[part] for name, values in whole.items()},
            Draws(0, np.arange(B)[part]),
            lambda part=part: {name: values[part] for name, values in partners.items()},  # type: ignore[misc]
            GREY if channels == 1 else COLOUR,
        )
        for name, values in alone.items():
            assert torch.equal(values, together[name][part]), (name, start)


# ----------------------------------------------------------------------------------------- geometry
def test_a_crop_is_a_shift_by_whole_pixels_and_a_flip_a_mirror() -> None:
    batch = pictures()
    for old, new in zip(batch["inputs"], change(batch, crop=0.2)["inputs"], strict=True):
        padded = F.pad(old, (2, 2, 2, 2))
        places = [(y, x) for y in range(5) for x in range(5)]
        assert any(
            torch.allclose(new, padded[:, y : y + 12, x : x + 10], atol=1e-4) for y, x in places
        )
    mirrored = 0
    for old, new in zip(batch["inputs"], change(batch, flip=True)["inputs"], strict=True):
        mirrored += torch.allclose(new, old.flip(2), atol=1e-4)
        assert torch.allclose(new, old.flip(2), atol=1e-4) or torch.allclose(new, old, atol=1e-4)
    assert 20 < mirrored < 44
    upside_down = change(batch, vertical_flip=True)["inputs"]
    assert any(
        torch.allclose(n, o.flip(1), atol=1e-4)
        for n, o in zip(upside_down, batch["inputs"], strict=True)
    )


def test_turning_and_enlarging_are_as_pillow_does_them() -> None:
    picture = Arrays().examples("train", None)[0].inputs  # type: ignore[arg-type]
    old = torch.from_numpy(picture)[None, None]
    for degrees in (30.0, -75.0, 90.0):
        angle = np.deg2rad(degrees)
        matrix = np.array([[[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]])
        found = px.resample(old, matrix, np.zeros((1, 2)))[0, 0].numpy()
        expected = np.asarray(Image.fromarray(picture).rotate(degrees, Image.Resampling.BILINEAR))
        assert np.abs(found - expected)[1:-1, 1:-1].max() < 0.1
    larger = px.resample(old, np.eye(2)[None] / 2, np.zeros((1, 2)))[0, 0]
    expected = F.interpolate(old, scale_factor=2, mode="bilinear")[0, 0, 4:12, 4:12]
    torch.testing.assert_close(larger, expected)
    wide = torch.zeros(1, 1, 5, 9)
    wide[..., 2, 6] = 1.0
    found = px.resample(wide, np.eye(2)[None], np.array([[2.0, 1.0]]))
    assert found[0, 0, 1, 4] == pytest.approx(1.0, abs=1e-5)  # x in columns, y in rows


def test_erasing_blanks_a_rectangle_of_a_share_of_the_pictures() -> None:
    batch = pictures(1)
    batch["inputs"] = torch.ones_like(batch["inputs"])
    found = change(batch, erase=0.5)["inputs"] == 0
    areas = found.flatten(1).sum(1)
    assert 18 < int((areas > 0).sum()) < 46
    assert areas.max() <= 0.45 * 120
    for mask in found[:, 0]:
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert mask.sum() == rows * columns


# ------------------------------------------------------------------------------------------ colours
def by_pillow(pixels: torch.Tensor, function: Any) -> torch.Tensor:
    image = Image.fromarray((pixels[0].permute(1, 2, 0) * 255).round().byte().numpy())
    return torch.from_numpy(np.asarray(function(image)).astype(np.float32) / 255).permute(2, 0, 1)[
        None
    ]


@pytest.mark.parametrize(
    ("ours", "pillows", "tolerance"),
    [
        (
            lambda p: px.brighten(p, torch.tensor([0.6])),
            lambda i: ImageEnhance.Brightness(i).enhance(0.6),
            0.01,
        ),
        (
            lambda p: px.change_contrast(p, torch.tensor([1.5])),
            lambda i: ImageEnhance.Contrast(i).enhance(1.5),
            0.01,
        ),
        (
            lambda p: px.saturate(p, torch.tensor([0.3])),
            lambda i: ImageEnhance.Color(i).enhance(0.3),
            0.01,
        ),
        (lambda p: px.posterize(p, torch.tensor([4.0])), lambda i: ImageOps.posterize(i, 4), 1e-6),
        (lambda p: px.solarize(p, torch.tensor([0.5])), lambda i: ImageOps.solarize(i, 128), 1e-6),
        (lambda p: px.stretch_contrast(p), ImageOps.autocontrast, 0.01),
    ],
)
def test_colours_change_as_in_pillow(ours: Any, pillows: Any, tolerance: float) -> None:
    pixels = (
        torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(3)) * 150 + 40
    ).round() / 255
    assert (ours(pixels) - by_pillow(pixels, pillows)).abs().max() < tolerance


def test_sharpening_equalising_and_hue() -> None:
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(4)) * 0.5 + 0.2
    torch.testing.assert_close(px.sharpen(pixels, torch.ones(2)), pixels)
    assert (
        px.sharpen(pixels, torch.zeros(2)).std()
        < pixels.std()
        < px.sharpen(pixels, 2 * torch.ones(2)).std()
    )
    equal = px.equalize(pixels)
    assert (equal.amin((2, 3)) == 0).all()
    assert (equal.flatten(2).sort().values - torch.linspace(0, 1, 256)).abs().max() < 0.03
    flat = torch.full((1, 1, 4, 4), 0.3)
    for same in (px.equalize(flat), px.stretch_contrast(flat)):
        torch.testing.assert_close(same, flat)
    torch.testing.assert_close(px.turn_hue(pixels, torch.zeros(2)), pixels)
    there = px.turn_hue(pixels * 0.5 + 0.25, torch.full((2,), 0.1))
    torch.testing.assert_close(px.turn_hue(there, torch.full((2,), -0.1)), pixels * 0.5 + 0.25)
    grey = pixels[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(px.turn_hue(grey, torch.full((2,), 0.4)), grey)


def test_randaugment_draws_every_operation_and_a_stronger_one_changes_more() -> None:
    batch = {
        name: values.repeat(8, *[1] * (values.dim() - 1)) for name, values in pictures().items()
    }
    changed = [
        change(batch, randaugment=2, randaugment_magnitude=m)["inputs"] - batch["inputs"]
        for m in (2.0, 9.0)
    ]
    assert changed[0].abs().mean() < changed[1].abs().mean()
    once = change(batch, randaugment=1)["inputs"] - batch["inputs"]
    same = once.abs().amax((1, 2, 3)) < 1e-4
    assert 10 < same.sum() < 80  # one operation of fourteen does nothing


# ------------------------------------------------------------------------------------ two of a kind
def test_mixup_blends_inputs_and_shares_the_loss() -> None:
    batch = pictures()
    found = change(batch, mixup=0.5)
    mix = found["mix"].view(-1, 1, 1, 1)
    torch.testing.assert_close(
        found["inputs"], mix * batch["inputs"] + (1 - mix) * batch["inputs"].roll(1, 0)
    )
    assert torch.equal(found["labels_2"], batch["labels"].roll(1, 0))
    task, outputs = Classify(label_smoothing=0.1), torch.randn(B, B)
    assert set(task.inputs(found)) == {"inputs"}
    loss = task.loss(outputs, found)
    own, other = (
        F.cross_entropy(outputs, found[n], reduction="none", label_smoothing=0.1)
        for n in ("labels", "labels_2")
    )
    expected = (found["mix"] * own + (1 - found["mix"]) * other).sum()
    torch.testing.assert_close(loss.terms["label"].total, expected)
    right = task.loss(F.one_hot(batch["labels"]).float(), found).metrics["right"]
    torch.testing.assert_close(right, found["mix"].sum())


def test_cutmix_puts_a_box_of_another_picture_and_says_how_much_is_left() -> None:
    batch = pictures(1)
    own = torch.arange(B).float().view(-1, 1, 1, 1).expand(-1, 1, 12, 10)
    found = change({"inputs": own, "labels": torch.arange(B)}, cutmix=1.0)
    kept = (found["inputs"] == own).float().mean((1, 2, 3))
    torch.testing.assert_close(found["mix"], kept)
    assert 0.3 < float(kept.mean()) < 0.8
    both = change(batch, mixup=0.5, cutmix=1.0)
    cut = (
        ((both["inputs"] == batch["inputs"]) | (both["inputs"] == batch["inputs"].roll(1, 0)))
        .flatten(1)
        .all(1)
    )
    assert 16 < int(cut.sum()) < 48


def test_partners_are_augmented_too() -> None:
    batch = {"inputs": torch.zeros(B, 1, 12, 10), "labels": torch.zeros(B, dtype=torch.int64)}
    other = {"inputs": torch.ones(B, 1, 12, 10), "labels": torch.ones(B, dtype=torch.int64)}
    found = augment_batch(
        Augment(mixup=1.0, shift=0.5), batch, Draws(0, np.arange(B)), lambda: other, GREY
    )
    edges = (found["inputs"] == 0).flatten(1).any(1)
    assert edges.sum() > B / 2


@pytest.mark.parametrize("a", [0.2, 1.0, 3.0])
def test_beta_has_its_moments(a: float) -> None:
    drawn = Draws(0, np.arange(40_000)).beta("b", a)
    assert 0 <= drawn.min() < drawn.max() <= 1
    assert drawn.mean() == pytest.approx(0.5, abs=0.01)
    assert drawn.var() == pytest.approx(1 / (4 * (2 * a + 1)), rel=0.03)


def test_uniforms_are_uniform_and_independent() -> None:
    drawn = seeding.uniforms(3, "x", np.arange(20_000), 3)
    assert np.abs(np.histogram(drawn, 20, (0, 1))[0] / 60_000 - 0.05).max() < 0.004
    assert np.abs(np.corrcoef(drawn) - np.eye(3)).max() < 0.02
    assert np.abs(np.corrcoef(drawn[0, 1:], drawn[0, :-1])[0, 1]) < 0.02


# -------------------------------------------------------------------------------- frames and tokens
def test_masks_of_frames_lie_within_the_lengths() -> None:
    lengths = torch.arange(B) % 20 + 5
    inputs = torch.where(torch.arange(24)[None, :, None] < lengths[:, None, None], 1.0, 0.0).repeat(
        1, 1, 16
    )
    batch = {"inputs": inputs, "lengths": lengths, "labels": torch.arange(B)}
    found = change(batch, **OF_FRAMES)["inputs"]
    for length, frames in zip(lengths.tolist(), found, strict=True):
        blank_times = (frames[:length] == 0).all(1).sum()
        blank_bands = (frames[:length] == 0).all(0).sum()
        assert blank_times <= 0.4 * length + 1
        assert blank_bands <= 0.4 * 16 + 1
    assert (found[inputs == 1] == 0).any()
    longer = {**batch, "inputs": F.pad(inputs, (0, 0, 0, 7))}
    for settings in (OF_FRAMES, {"noise": 0.1}):
        noisy = change(longer, **settings)["inputs"]
        torch.testing.assert_close(noisy[:, :24], change(batch, **settings)["inputs"])
        assert (noisy[:, 24:] == 0).all()


def test_tokens_are_removed_and_one_stays() -> None:
    lengths = torch.arange(B) % 20 + 1
    processor = BytesConfig().fit(lambda: iter(()))
    beyond = torch.arange(24) >= lengths[:, None]
    tokens = torch.arange(1, 25).repeat(B, 1).masked_fill(beyond, processor.end_id)
    batch = {"tokens": tokens, "lengths": lengths, "labels": torch.arange(B)}
    found = augment_batch(
        Augment(token_dropout=0.5), batch, Draws(0, np.arange(B)), dict, processor
    )
    shorter = augment_batch(
        Augment(token_dropout=0.5),
        {**batch, "tokens": tokens[:, :20]},
        Draws(0, np.arange(B)),
        dict,
        processor,
    )
    assert torch.equal(found["lengths"], shorter["lengths"])
    assert torch.equal(found["tokens"][:, :20], shorter["tokens"])
    assert found["lengths"].min() == 1
    assert 0.4 < float(found["lengths"].sum() / lengths.sum()) < 0.65
    for row, length in zip(found["tokens"].tolist(), found["lengths"].tolist(), strict=True):
        assert row[:length] == sorted(set(row[:length]))
        assert set(row[length:]) <= {processor.end_id}


def test_validation_is_never_augmented_and_training_is() -> None:
    task = Classify(augmentation=Augment(noise=1.0))
    examples = [Example(str(n), np.full((4, 4), float(n)), n % 2) for n in range(8)]
    processor: Any = task.fit_processor(
        ImageConfig().fit(lambda: iter(examples)), lambda: iter(examples)
    )
    assert task.augments
    assert not Classify().augments
    assert torch.equal(
        task.encode(examples, processor)["inputs"], Classify().encode(examples, processor)["inputs"]
    )
