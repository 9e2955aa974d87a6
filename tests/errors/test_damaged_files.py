"""Damaged files and bad examples through the command line: one message, its exit code, no
traceback."""

from __future__ import annotations

import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image

from groundup.cli import main
from groundup.core.error_location import encode_located
from groundup.core.errors import DataError, GroundupError, MissingExtraError, TrainingError
from groundup.core.values import Example
from groundup.data.reading.idx import read_idx
from groundup.data.reading.npz import read_arrays
from groundup.data.sources.arrays import Arrays
from groundup.data.sources.audio import Audio
from groundup.data.sources.images import Images
from groundup.data.sources.table import TableSource
from groundup.media.audio import read_sound
from groundup.processors.table import TableConfig

TABLE = {"model": {"name": "mlp", "hidden": [4]}, "processor": "table"}
PICTURES = {"model": {"name": "mlp", "hidden": [4]}, "processor": "image"}


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    """Return the exit code of a command, and what it wrote to standard error."""
    monkeypatch.setattr(sys, "argv", ["groundup", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code, capsys.readouterr().err


def recipe(folder: Path, data: dict[str, Any], task: Any = "classify", **parts: Any) -> str:
    path = folder / "配方.yaml"
    machine = {
        "device": "cpu",
        "precision": "fp32",
        "compile": False,
        "threads": 1,
        "micro_batch_size": 4,
    }
    training = {"batch_size": 4, "steps": 2}
    sections = {
        "data": data,
        "training": training,
        "logging": {"every": 1},
        "evaluation": {"every": 2},
        "checkpoints": {"every": 2},
        "machine": machine | parts.pop("machine", {}),
    }
    path.write_text(
        yaml.safe_dump({"name": "运行", "task": task, **sections, **parts}, allow_unicode=True),
        "utf-8",
    )
    return str(path)


def rows(folder: Path, bad: str, header: str = "x,y", count: int = 40) -> dict[str, Any]:
    lines = [header, *(f"{n},{'ab'[n % 2]}" for n in range(count))]
    lines[8] = bad
    (folder / "表.csv").write_text("\n".join(lines), encoding="utf-8")
    return {"name": "table", "path": str(folder / "表.csv"), "target": header.split(",")[-1]}


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("abc,a", "row 8: column 'x' holds 'abc'; the column's other values are of kind numeric"),
        ("1e300,a", "row 8: column 'x' holds '1e300'; allowed: numbers up to 1e+30 in size"),
        ("1", "row 8 (ends on line 9): the row has 1 cells and the header 2"),
        ("7,", "row 8: an example has no label, as 1 of 15 have none. Give it one, or remove it"),
        (
            '"7,a',
            "line 9: a quote is opened in the row that begins here, and never closed. Close it",
        ),
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_bad_row_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, bad: str, problem: str, seed: int
) -> None:
    data = rows(tmp_path, bad) | {
        "seed": seed,
        "fraction": 0.5,
    }  # on one side, then on the other
    code, said = command(monkeypatch, capsys, "data", "inspect", recipe(tmp_path, data, **TABLE))
    assert code == 3
    assert f"表.csv {problem}" in said
    assert "Traceback" not in said


def test_a_class_of_held_out_rows_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    data = rows(tmp_path, "7,a")
    (tmp_path / "v.csv").write_text("x,y\n1,a\n2,c\n")
    data |= {"validation": str(tmp_path / "v.csv")}
    for verb in (["data", "inspect"], ["train"]):
        code, said = command(monkeypatch, capsys, *verb, recipe(tmp_path, data, **TABLE))
        assert (
            code,
            "v.csv row 2: label 'c' is none of the training split's; known: a, b" in said,
        ) == (3, True)


def test_a_class_of_the_test_split_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    inputs = np.zeros((40, 2, 2), np.float32)
    path = tmp_path / "数组.npz"
    np.savez(
        path, x_train=inputs, y_train=np.arange(40) % 2, x_test=inputs[:2], y_test=np.array([0, 5])
    )
    code, said = command(
        monkeypatch,
        capsys,
        "train",
        recipe(tmp_path, {"name": "arrays", "path": str(path)}, **PICTURES),
    )
    assert (code, "数组.npz row 2: label '5' is none of the training split's" in said) == (3, True)


def test_columns_without_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    lines = ["e,c,y", *(f",{'uv'[n % 3 % 2]},{'ab'[n % 2]}" for n in range(40))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    source = {
        "name": "table",
        "path": str(tmp_path / "t.csv"),
        "target": "y",
        "fraction": 0.3,
    }
    monkeypatch.setattr(
        sys, "argv", ["groundup", "data", "inspect", recipe(tmp_path, source, **TABLE)]
    )
    with pytest.raises(SystemExit, match="0"):
        main.main()
    assert "Traceback" not in capsys.readouterr().err
    examples = TableSource(path=str(tmp_path / "t.csv"), target="y").examples("train", tmp_path)
    assert TableConfig().fit(lambda: iter(examples)).dropped == {"e": "is empty"}
    (tmp_path / "u.csv").write_text(
        "\n".join(["x,y", *(f"{'inf' if n < 4 else n},a" for n in range(40))])
    )
    card = TableSource(path=str(tmp_path / "u.csv"), target="y", fraction=0.3)
    assert card.card(tmp_path)["columns"]["x"]["missing"] > 0


# ------------------------------------------------------------------------------------------- arrays
GOOD = {"x": np.ones((8, 2, 2), np.float32), "y": np.arange(8) % 2}


def not_finite(value: float) -> np.ndarray[Any, Any]:
    inputs = GOOD["x"].copy()
    inputs[6, 1, 0] = value
    return inputs


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            {"x": not_finite(np.nan)},
            r"a.npz row 7: the number at \[1, 0\], counted from 0, is nan; allowed: finite",
        ),
        (
            {"x": not_finite(-np.inf)},
            r"a.npz row 7: the number at \[1, 0\], counted from 0, is -inf",
        ),
        (
            {"x": GOOD["x"].astype(str)},
            r"the inputs have shape \(8, 2, 2\) and type <U32; allowed: numbers, one row",
        ),
        ({"x": GOOD["x"].astype(complex)}, "and type complex128; allowed"),
        ({"x": np.float32(3)}, r"have shape \(\) and type float32"),
        ({"x": GOOD["x"][:, :0]}, r"have shape \(8, 0, 2\)"),
        ({"y": np.int64(3)}, r"8 inputs and labels of shape \(\); allowed: one label an input"),
        (
            {"x": np.array([[1], [2, 3]], object)},
            "array 'x' holds Python objects.* which only pickle can read; allowed",
        ),
        ({"y": np.array(["a", None] * 4, object)}, "array 'y' holds Python objects"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path: Path, changed: dict[str, Any], problem: str) -> None:
    np.savez(tmp_path / "a.npz", **(GOOD | changed))
    with pytest.raises(DataError, match=problem):
        Arrays(path=str(tmp_path / "a.npz")).examples("train", tmp_path)


def test_damaged_npz(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **GOOD)
    content = path.read_bytes()

    def problem(damaged: bytes) -> str:
        path.write_bytes(damaged)
        with pytest.raises(DataError) as raised:
            read_arrays(path, ["x", "y"], "")
        return str(raised.value)

    assert "is empty (0 bytes); allowed: what numpy.savez writes" in problem(b"")
    assert "is no .npz; allowed" in problem(b"hello")
    assert "cannot be read as .npz: File is not a zip file. Check" in problem(
        content[: len(content) // 2]
    )
    assert "cannot be read as .npz" in problem(content[:40] + b"\xff" * 60 + content[100:])
    np.save(tmp_path / "b.npy", GOOD["x"])
    assert "holds one array and no names" in problem((tmp_path / "b.npy").read_bytes())
    import zipfile

    with zipfile.ZipFile(tmp_path / "c.zip", "w") as file:
        file.writestr("x", "hello")
        file.writestr("y", "you")
    assert "'x' is no array; allowed: what numpy.savez writes" in problem(
        (tmp_path / "c.zip").read_bytes()
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", r"is not an idx file: it is empty \(0 bytes\); allowed: 00 00"),
        (b"XX\x08\x01" + b"\0" * 8, "is not an idx file: it begins with 58 58 08 01"),
        (
            b"\0\0\x08\x03\0\0\0",
            "is cut off: its header of 3 dimensions takes 16 bytes, but there are 7",
        ),
        (
            b"\0\0\x0d\x01" + struct.pack(">I", 2) + b"1234567",
            "states 2 numbers, 8 bytes, and 7 bytes follow",
        ),
    ],
)
def test_damaged_idx(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "x.idx").write_bytes(content)
    with pytest.raises(DataError, match=problem):
        read_idx(tmp_path / "x.idx")


# -------------------------------------------------------------------------------------------------
# pictures and sounds
def picture_folders(root: Path, labels: str = "猫狗", count: int = 8) -> Path:
    for label in labels:
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.fromarray(np.full((4, 4), number * 9, np.uint8)).save(
                root / label / f"图{number}.png"
            )
    return root


def sound_folders(root: Path, labels: str = "猫狗", count: int = 8) -> Path:
    for label in labels:
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            tone = np.sin(np.arange(800) * (0.1 + number / 10 + ord(label) % 7)) / 2
            soundfile.write(root / label / f"声{number}.wav", tone.astype(np.float32), 8000)
    return root


@pytest.mark.slow
def test_what_is_no_picture(tmp_path: Path) -> None:
    root = picture_folders(tmp_path / "图片")
    for content in (b"", b"hello"):
        (root / "猫" / "图0.png").write_bytes(content)
        with pytest.raises(
            DataError,
            match=r"图0.png: is no readable picture: it is empty, or of no known kind; allow",
        ):
            Images(path=str(root)).examples("train", tmp_path)
    Image.fromarray(np.zeros((4, 4), np.float32)).save(root / "猫" / "图0.tif")
    kept = Images(path=str(root), on_unreadable="skip", fraction=0.4)
    assert (
        kept.card(tmp_path)["set_aside"]["pictures"] == 2
    )  # floating-point pixels are found before training
    for path in (root / "猫").iterdir():
        path.write_bytes(b"")
    with pytest.raises(
        DataError,
        match="every file of class '猫' is unreadable, so that leaving them out leaves none",
    ):
        kept.examples("train", tmp_path)


def test_a_sound_that_is_cut_off(tmp_path: Path) -> None:
    root = sound_folders(tmp_path / "声音")
    path = root / "猫" / "声0.wav"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        DataError,
        match=r"is cut off: it holds \d+ of the 1,600 bytes of sound that its header states",
    ):
        read_sound(path)
    size = content.index(b"data") + 4
    path.write_bytes(
        content[:size] + b"\xff\xff\xff\xff" + content[size + 4 :]
    )  # as written to a pipe
    assert len(read_sound(path).samples) == 800
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"the file is empty \(0 bytes\)"):
        read_sound(path)
    with pytest.raises(DataError, match="is a folder; allowed: a file"):
        read_sound(root)
    source = Audio(path=str(root), on_unreadable="skip", fraction=0.4)
    assert source.card(tmp_path)["set_aside"] == 1
    for inner in (root / "猫").iterdir():
        inner.write_bytes(b"")
    with pytest.raises(
        DataError, match=r"声0.wav: the file is empty \(0 bytes\) \(7 other sounds too\)"
    ):
        Audio(path=str(root)).examples("train", tmp_path)
    with pytest.raises(DataError, match="every file of class '猫' is unreadable"):
        source.examples("train", tmp_path)


# ------------------------------------------------------------------------------------------ workers
@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_goes_bad_while_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, workers: int
) -> None:
    root = picture_folders(tmp_path / "图片")

    data = {"name": "images", "path": str(root), "fraction": 0.4, "in_memory": False}
    monkeypatch.chdir(tmp_path)
    path = recipe(tmp_path, data, machine={"workers": workers}, **PICTURES)

    from groundup.training import components

    opened = components.open_stream

    def damaged(*given: Any) -> Any:
        stream = opened(*given)
        for inner in root.rglob("*.png"):
            inner.write_bytes(b"")
        return stream

    monkeypatch.setattr("groundup.training.trainer.open_stream", damaged)
    code, said = command(monkeypatch, capsys, "train", path)
    assert code == 3
    assert "is no readable picture: it is empty, or of no known kind" in said
    assert "Traceback" not in said
    assert "worker" not in said


def test_errors_cross_processes() -> None:
    for error in (
        DataError("a", "b", "c"),
        MissingExtraError("PIL", "classic"),
        TrainingError("x", "y"),
    ):
        again: GroundupError = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.exit_code) == (
            type(error),
            str(error),
            error.exit_code,
        )


def test_an_error_without_a_culprit_stays_as_it_is() -> None:
    def encode(examples: Any) -> None:
        if len(examples) > 1:
            raise DataError("all", "too many", "Give one")

    with pytest.raises(DataError, match=r"all: too many\. Give one"):
        encode_located(encode, [Example("a", 1), Example("b", 2)])
