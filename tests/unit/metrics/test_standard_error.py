"""The standard error of a mean, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.metrics.standard_error import standard_error


def test_as_numpy_has_it() -> None:
    values = np.random.default_rng(0).exponential(size=50)
    found = standard_error(values.sum(), (values**2).sum(), len(values))
    assert found == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def test_of_one_value_nothing_is_known() -> None:
    assert standard_error(3.0, 9.0, 1) == 3.0
