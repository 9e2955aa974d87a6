"""Which models can be divided along which axes."""

from __future__ import annotations

from torch import nn

from groundup.parallel.layout import Layout
from groundup.parallel.wrap import lay_out


def test_one_process_has_the_model_as_it_is() -> None:
    model = nn.Linear(2, 2)
    assert lay_out(model, Layout()) is model
    assert lay_out(model, Layout(replicate=4)) is model
