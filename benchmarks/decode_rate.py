"""How fast pictures become a batch: a run's stream next to Pillow's own open, convert and resize.

Both read the same JPEG files of 500 x 400 pixels, cut out of scikit-learn's two photographs, with as
many threads. Pillow's side stops at 8-bit arrays of 224 x 224; the stream goes on to the
normalised float32 batch that a model reads, in the order of the run. Both have the allocator of a
run. Medians of the rounds, in turns; on a busy machine look at the time of the processor rather than
at the clock's.

    python benchmarks/decode_rate.py --threads 2
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from groundup.contracts.data import DataContext
from groundup.core.values import Batch, Example
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.machine.allocator import tune_allocator
from groundup.processors.image import ImageConfig

SIDE = 224
BATCH = 32


def write_pictures(folder: Path, count: int) -> list[Path]:
    """Write parts of photographs as JPEG."""
    photographs = [Image.fromarray(each) for each in load_sample_images().images]
    draws = np.random.default_rng(0)
    paths = []
    for number in range(count):
        photograph = photographs[number % 2]
        left = int(draws.integers(0, photograph.width - 500 + 1))
        top = int(draws.integers(0, photograph.height - 400 + 1))
        paths.append(folder / f"{number:04}.jpg")
        photograph.crop((left, top, left + 500, top + 400)).save(paths[-1], quality=90)
    return paths


def by_pillow(path: Path) -> np.ndarray:
    """Open, convert and resize, as every user of Pillow does."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def read_pillow(paths: list[Path], threads: int) -> int:
    """Return how many pictures were read."""
    with ThreadPoolExecutor(threads) as pool:
        return sum(1 for _ in pool.map(by_pillow, paths))


def read_stream(paths: list[Path], folder: Path) -> int:
    """Return how many pictures were read: those ahead of the last batch too."""
    read = 0

    def encode(examples: Sequence[Example]) -> Batch:
        nonlocal read
        read += len(examples)
        return processor.encode_inputs([each.inputs for each in examples])

    examples = [Example(path.name, path) for path in paths]
    processor = ImageConfig(size=(SIDE, SIDE), channels=3).fit(lambda: iter(examples[:1]))
    context = DataContext(
        split="train",
        encode=encode,
        encode_key="",
        end_id=0,
        sequence_length=0,
        batch_size=BATCH,
        micro_batch_size=BATCH,
        seed=0,
        cache=folder,
    )
    stream = open_indexed_stream(examples, context, in_memory=False)
    for _ in islice(stream, len(paths) // BATCH):
        pass
    stream.close()
    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    tune_allocator()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as place:
        paths = write_pictures(Path(place), given.pictures)
        spent: dict[str, list[tuple[float, float]]] = {"pillow": [], "stream": []}
        # The first round warms up.
        for round_number in range(given.rounds + 1):
            for name, each in spent.items():
                clock, processor = time.perf_counter(), time.process_time()
                if name == "pillow":
                    count = read_pillow(paths, given.threads)
                else:
                    count = read_stream(paths, Path(place))
                clock, processor = time.perf_counter() - clock, time.process_time() - processor
                if round_number:
                    each.append((clock / count, processor / count))
    middle = {
        name: tuple(map(statistics.median, zip(*each, strict=True))) for name, each in spent.items()
    }
    for name, (clock, processor) in middle.items():
        each = f"{1000 * processor:.2f} ms of processor time each"
        print(f"{name}: {1 / clock:,.0f} pictures/s, {each}")
    clock, processor = (a / b for a, b in zip(middle["pillow"], middle["stream"], strict=True))
    print(f"stream / pillow: {clock:.2f} by the clock, {processor:.2f} by processor time")


if __name__ == "__main__":
    main()
