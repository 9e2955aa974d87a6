"""Examples of one shape, held in memory as stacked tensors and taken by index: nothing is collated again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from groundup.core import seeding
from groundup.core.errors import DataError
from groundup.core.interfaces import Batch, DataContext
from groundup.data.order import permuted
from groundup.data.sample_stream import Layout, MicroBatches, SampleStream

__all__ = ["open_indexed_stream"]


class _Rows(MicroBatches):
    """Rows of tensors in the order of the run: every training epoch a keyed permutation, validation as it stands."""

    def __init__(self, rows: Batch, layout: Layout) -> None:
        self.rows, self.layout = rows, layout
        self.size = len(next(iter(rows.values())))

    def __getitem__(self, number: int) -> Batch:
        samples = np.arange(self.layout.micro_batch) + self.layout.first_sample(number)
        if self.layout.split == "validation":
            chosen = samples[samples < self.size]
        else:
            epochs, places = np.divmod(samples, self.size)
            chosen = np.concatenate(
                [
                    permuted(places[epochs == epoch], self.size, seeding.key(self.layout.seed, "rows", int(epoch)))
                    for epoch in np.unique(epochs)
                ]
            )
        index = torch.from_numpy(chosen)
        return {name: values.index_select(0, index) for name, values in self.rows.items()}

    def samples_per_epoch(self, sample: int) -> int:
        return self.size


def open_indexed_stream(examples: Sequence[Any], context: DataContext) -> SampleStream:
    """Open a split whose examples all have one shape, encoded once and kept in memory.

    Raises:
        DataError: If there are no examples.
        RecipeError: If the batch size is not a multiple of micro-batch x ranks.
    """
    if not examples:
        raise DataError(f"data ({context.split})", "there are no examples", "Check the data section")
    layout = Layout.of(context)
    return SampleStream(_Rows(context.encode(examples), layout), layout, context.workers)
