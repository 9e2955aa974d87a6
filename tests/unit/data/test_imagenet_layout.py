"""ImageNet as it lies on a disk: folders of classes to train on, and one folder to validate on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captioned import encoded
from pictures import save

import groundup
from groundup.core.errors import DataError
from groundup.data.reading import picture_facts
from groundup.data.sources.images import Images
from groundup.media.images import examine, glance

CLASSES = ("n01440764", "n01443537", "n02102040")


def write_imagenet(root: Path, flat: bool) -> Path:
    """Write 15 pictures to train on and 6 to validate on, of several sizes."""
    draws = np.random.default_rng(0)
    rows = ["ImageId,PredictionString"]
    for number in range(21):
        name = CLASSES[number % 3]
        noise = draws.integers(0, 256, (40 + number, 60, 3)) // 2 + 60 * (number % 3)
        picture = encoded(noise, "JPEG")
        place = root / "train" / name / f"{name}_{number}.JPEG"
        if number >= 15:
            image = f"ILSVRC2012_val_{number:08}"
            rows.append(f"{image},{name} 1 2 30 40 {name} 5 6 7 8")
            place = root / "val" / f"{image}.JPEG"
            if not flat:
                place = root / "val" / name / f"{image}.JPEG"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(picture)
    if flat:
        (root / "LOC_val_solution.csv").write_text("\n".join(rows), encoding="utf-8")
    return root


@pytest.mark.parametrize("flat", [True, False])
def test_classes_in_folders_or_in_the_table(flat: bool, tmp_path: Path) -> None:
    root = write_imagenet(tmp_path / "data", flat)
    source = Images(path=str(root))
    assert source.splits() == ("train", "validation")
    for split, count in (("train", 15), ("validation", 6)):
        found = source.examples(split, tmp_path)  # type: ignore[arg-type]
        assert len(found) == count
        assert {example.target for example in found} == set(CLASSES)
    assert ("data/LOC_val_solution.csv" in source.contents()) == flat


def test_a_table_that_lacks_a_class(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path / "data", flat=True)
    table = root / "LOC_val_solution.csv"
    table.write_text(table.read_text().replace("n01440764 1 2 30 40 n01440764 5 6 7 8", ""))
    with pytest.raises(
        DataError, match=r"LOC_val_solution\.csv row 1 .*: the picture has no class"
    ):
        Images(path=str(root)).examples("train", tmp_path)


@pytest.mark.slow
def test_the_recipe_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = write_imagenet(tmp_path / "data", flat=True)
    recipe = Path(__file__).parents[3] / "recipes" / "vision" / "imagenet.yaml"
    small: dict[str, Any] = {
        "data.path": str(root),
        "processor.size": [32, 32],
        "processor.resize_shorter": 36,
        "model.layers": [1, 1],
        "model.width": 4,
        "optim.warmup_steps": 1,
        "training.batch_size": 6,
        "training.epochs": 2,
        "machine.device": "cpu",
        "machine.threads": 1,
    }
    run = groundup.train(recipe, small)
    model = groundup.load(run.folder)
    picture = next((root / "val").glob("*.JPEG"))
    assert model(str(picture)) in CLASSES


# ------------------------------------------------------------------------------- what is looked at
def test_headers_and_ends_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    for kind, name in (("JPEG", "a.jpg"), ("PNG", "a.png"), ("GIF", "a.gif"), ("WEBP", "a.webp")):
        content = encoded(noise, kind)
        path = tmp_path / name
        path.write_bytes(content)
        assert glance(path) == examine(path)
        path.write_bytes(content + b"\0" * 100)  # as cameras and editors do
        assert glance(path)[0] is None
        path.write_bytes(content[: len(content) // 2])
        assert glance(path) == examine(path)
        if kind != "GIF":  # of which Pillow forgives it
            assert glance(path)[0] is not None
    (tmp_path / "none.jpg").write_bytes(b"nothing")
    assert "no readable picture" in str(glance(tmp_path / "none.jpg")[0])
    assert "no such file" in str(glance(tmp_path / "nowhere.jpg")[0])


def test_many_pictures_are_looked_at_by_their_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_imagenet(tmp_path / "data", flat=False)
    seen: list[str] = []
    monkeypatch.setattr(
        picture_facts, "glance", lambda path: (seen.append("glance"), glance(path))[1]
    )
    monkeypatch.setattr(
        picture_facts, "examine", lambda path: (seen.append("all"), examine(path))[1]
    )
    Images(path=str(root)).examples("train", tmp_path)
    assert seen == ["all"] * 21
    card = Images(path=str(root), check="headers").card(tmp_path)
    assert seen[21:] == ["glance"] * 21
    assert card["looked_at"].startswith("headers and the ends of files")
    monkeypatch.setattr(picture_facts, "MANY", 20)
    seen.clear()
    Images(path=str(root)).examples("train", tmp_path / "other")
    assert seen == ["glance"] * 21


def test_copies_are_found_among_files_of_one_size(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 80))
    other = noise.copy()
    other[0, 0] ^= 1  # of the same size, and the same in the middle
    names = [f"{n}.bmp" for n in range(4)]
    for name, values in zip(names, (noise, noise, other, noise[::-1]), strict=True):
        save(tmp_path / name, values)
    paths = [tmp_path / name for name in names]
    found = picture_facts.read_picture_facts(names, paths, b"", tmp_path / "cache")
    assert sorted(found.digests) == ["0.bmp", "1.bmp"]
