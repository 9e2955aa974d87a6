"""Cosines between gradients, and what is counted of absent ones, by hand."""

from __future__ import annotations

import numpy as np
import torch

from groundup.metrics.gradient_agreement import gradient_agreement


def test_means_over_the_batches_that_have_both() -> None:
    right, up, left = (torch.tensor(each) for each in ([3.0, 0.0], [0.0, 4.0], [-1.0, 0.0]))
    found = gradient_agreement([[right, up], [right, left], [right, None]], 2)
    np.testing.assert_allclose(found.cosine, [[1.0, -0.5], [-0.5, 1.0]])
    np.testing.assert_allclose(found.conflict, [[0.0, 0.5], [0.5, 0.0]])
    np.testing.assert_allclose(found.norm, [3.0, 2.5])
    assert found.batches.tolist() == [[3, 2], [2, 2]]


def test_a_cosine_does_not_depend_on_the_lengths() -> None:
    found = gradient_agreement([[torch.tensor([30.0, 40.0]), torch.tensor([0.5, 0.0])]], 2)
    np.testing.assert_allclose(found.cosine, [[1.0, 0.6], [0.6, 1.0]])
    np.testing.assert_allclose(found.norm, [50.0, 0.5])


def test_without_any_batch_nothing_is_known() -> None:
    found = gradient_agreement([[torch.ones(2), None]], 2)
    assert np.isnan(found.cosine[0, 1])
    assert np.isnan(found.conflict[1, 1])
    assert np.isnan(found.norm[1])
    assert found.batches.tolist() == [[1, 0], [0, 0]]


def test_a_gradient_of_zeros_has_no_direction() -> None:
    found = gradient_agreement([[torch.zeros(2), torch.ones(2)]], 2)
    assert found.cosine[0].tolist() == [0.0, 0.0]
