"""Sequences of feature vectors as tensors: normalised by what the training split shows, and padded.

Shape legend: N sequences, T frames, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.contracts.processors import InputProcessor, ProcessorConfig
from groundup.core.errors import DataError
from groundup.core.registry import processor
from groundup.core.settings import setting
from groundup.core.values import Batch, CutInputs, Example
from groundup.processors.saved_files import saved_settings, write_json

__all__ = ["FramesConfig", "FramesProcessor", "check_frames", "mean_and_spread", "pad"]


def mean_and_spread(
    sequences: Iterable[NDArray[Any]], where: str = "data"
) -> tuple[list[float], list[float]]:
    """Return the mean and the standard deviation of each feature over all frames; 1 where a feature
    is constant.

    Args:
        sequences: Each (T, F), gone through once, one at a time in memory.
        where: What to name in the message.

    Raises:
        DataError: If there are no frames.

    Source:
        Chan, Golub and LeVeque, 1983, "Algorithms for computing the sample variance": equation 2.1,
        pairs of parts.
    """
    count = 0
    mean: NDArray[np.float64] | float = 0.0
    squares: NDArray[np.float64] | float = 0.0
    for sequence in sequences:
        values = np.asarray(sequence, np.float64)
        own = len(values)
        centre = values.mean(0)
        deviation = ((values - centre) ** 2).sum(0)
        # Sums of plain squares would lose all digits of a feature far from 0.
        shift = centre - mean
        squares = squares + deviation + shift**2 * (count * own / (count + own))
        mean = mean + shift * (own / (count + own))
        count += own
    if not count:
        raise DataError(where, "there are no training examples", "Check the data section")
    spread = np.sqrt(squares / count)
    # Rounding leaves a constant feature a spread of about 1e-16 of its size.
    constant = spread <= 1e-9 * np.maximum(1.0, np.abs(mean))
    return np.asarray(mean).tolist(), np.where(constant, 1.0, spread).tolist()


def pad(sequences: Sequence[NDArray[Any]], features: int) -> Batch:
    """Return ``inputs`` (N, T, F) float32, zeros behind the end of each, and ``lengths`` (N,)
    int64."""
    lengths = [len(sequence) for sequence in sequences]
    # One frame at least: no layer takes a sequence without any.
    rows = np.zeros((len(sequences), max([1, *lengths]), features), np.float32)
    for row, sequence in zip(rows, sequences, strict=True):
        row[: len(sequence)] = sequence
    return {"inputs": torch.from_numpy(rows), "lengths": torch.tensor(lengths, dtype=torch.int64)}


class FramesProcessor(InputProcessor):
    """Takes a mean off each feature, divides by a scale, cuts and pads.

    Args:
        mean: (F,) what is taken off.
        scale: (F,) what each feature is then divided by.
        max_frames: Longer sequences are cut to this many frames; None: never.
    """

    def __init__(
        self,
        mean: Sequence[float],
        scale: Sequence[float],
        max_frames: int | None,
        notes: Sequence[str] = (),
    ) -> None:
        self.mean = tuple(mean)
        self.scale = tuple(scale)
        self.max_frames = max_frames
        self.notes = tuple(notes)
        self.cut = CutInputs()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(0, F): the number of frames varies."""
        return (0, len(self.mean))

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return ``inputs`` (N, T, F) float32 and ``lengths`` (N,) of sequences (T, F).

        Raises:
            DataError: If a sequence is empty, has another number of features, or a number that is
                not finite.
        """
        mean = np.asarray(self.mean)
        scale = np.asarray(self.scale)
        found = []
        for number, each in enumerate(inputs):
            values = check_frames(each, len(self.mean), f"sequence {number}")
            _count(self.cut, values, self.max_frames)
            found.append((values[: self.max_frames] - mean) / scale)
        return pad(found, len(self.mean))

    def save(self, folder: Path) -> None:
        """Write processor.json."""
        folder.mkdir(parents=True, exist_ok=True)
        saved = {
            "name": "frames",
            "mean": self.mean,
            "scale": self.scale,
            "max_frames": self.max_frames,
            "notes": self.notes,
        }
        write_json(folder / "processor.json", saved)


@processor("frames")
class FramesConfig(ProcessorConfig):
    """Feature vectors over time, such as sensor readings or features of sound computed
    elsewhere."""

    reads: ClassVar[Literal["texts", "examples"]] = "examples"
    normalise: Literal["mean_variance", "none"] = setting(
        "mean_variance",
        "mean_variance: each feature has mean 0 and variance 1 over all training frames",
    )
    max_frames: int | None = setting(None, "Longer sequences are cut to this many frames", ge=1)

    def fit(self, texts: Callable[[], Iterator[Example]]) -> FramesProcessor:
        """Return the processor with the means and scales of the training examples.

        Raises:
            DataError: If there are none, or they do not have the same features.
        """
        # The others are checked against the first one's number of features.
        first = next(texts(), None)
        features = 0 if first is None else np.shape(first.inputs)[-1]
        cut = CutInputs()

        def sequences() -> Iterator[NDArray[np.float64]]:
            for example in texts():
                values = check_frames(example.inputs, features, example.origin or example.name)
                _count(cut, values, self.max_frames)
                yield values[: self.max_frames]

        mean, scale = mean_and_spread(sequences(), "recipe.processor")
        if self.normalise == "none":
            mean = [0.0] * features
            scale = [1.0] * features
        return FramesProcessor(mean, scale, self.max_frames, cut.notes())

    @classmethod
    def load(cls, folder: Path) -> FramesProcessor:
        """Return the processor that was saved to ``folder``.

        Raises:
            DataError: If processor.json is missing or damaged.
        """
        with saved_settings(folder) as saved:
            mean = [float(value) for value in saved["mean"]]
            scale = [float(value) for value in saved["scale"]]
            return FramesProcessor(mean, scale, saved["max_frames"], saved.get("notes", ()))


def _count(cut: CutInputs | None, values: NDArray[np.float64], longest: int | None) -> None:
    if longest is not None and cut is not None:
        cut.add("sequences", "frames", f"max_frames {longest}", [len(values)], longest)


def check_frames(values: Any, features: int, where: str) -> NDArray[np.float64]:
    """Return (T, F) float64.

    Raises:
        DataError: If it has no frames, another number of features, or is not all finite numbers.
    """
    try:
        found = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise DataError(
            where, "is no table of numbers; allowed: (frames, features)", "Check the inputs"
        ) from None
    if found.ndim != 2 or not len(found) or found.shape[1] != features or not features:
        raise DataError(
            where,
            f"has shape {found.shape}; allowed: (frames, {features or 'features'}) with one frame"
            " or more",
            "Give every frame the same features, and remove empty sequences",
        )
    if not np.isfinite(found).all():
        frame, feature = np.argwhere(~np.isfinite(found))[0].tolist()
        raise DataError(
            where,
            f"feature {feature + 1} of frame {frame + 1} is {found[frame, feature]}; allowed:"
            " finite numbers",
            "Correct it, or remove the sequence",
        )
    return found
