"""Which models can be divided along which axes."""

from __future__ import annotations

import pytest
from torch import nn

from groundup.core.errors import RecipeError
from groundup.parallel.layout import Layout
from groundup.parallel.wrap import lay_out


def test_one_process_has_the_model_as_it_is() -> None:
    model = nn.Linear(2, 2)
    assert lay_out(model, Layout()) is model
    assert lay_out(model, Layout(replicate=4)) is model


@pytest.mark.parametrize("axis", ["shard"])
def test_what_cannot_be_divided_yet(axis: str) -> None:
    with pytest.raises(RecipeError, match=rf"parallel.{axis}: is 2, but dividing .* Linear is not"):
        lay_out(nn.Linear(2, 2), Layout(**{axis: 2}))
