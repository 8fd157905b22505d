"""Reliability, calibration error and conformal bounds, where the answer is known."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from asenequip.uncertainty import calibration_error, conformal_quantile, reliability
from asenequip.uncertainty.calibration import draw_reliability

QUANTILES = np.array([NormalDist().inv_cdf((k + 0.5) / 4000) for k in range(4000)])
"""A sample of the normal distribution without noise."""


def test_normal_errors_of_the_stated_deviations_are_reliable():
    deviations = np.random.default_rng(0).permutation(np.linspace(0.5, 2.0, 4000))
    found = reliability(deviations * QUANTILES, deviations)
    np.testing.assert_allclose(found.observed, found.expected, atol=2 / 4000)
    assert calibration_error(deviations * QUANTILES, deviations) < 2 / 4000


def test_deviations_that_are_half_of_the_errors_cover_what_the_normal_distribution_says():
    found = reliability(QUANTILES, np.full(4000, 0.5))
    wanted = [2 * NormalDist().cdf(0.5 * NormalDist().inv_cdf(0.5 + 0.5 * p)) - 1 for p in found.expected]
    np.testing.assert_allclose(found.observed, wanted, atol=2 / 4000)


def test_the_figure_shows_what_was_found():
    found = reliability(QUANTILES, np.full(4000, 0.7), levels=9)
    _, curve = draw_reliability(found, "half").axes[0].lines
    np.testing.assert_array_equal(curve.get_xdata()[1:-1], found.expected)
    np.testing.assert_array_equal(curve.get_ydata()[1:-1], found.observed)


def test_a_conformal_bound_holds_as_often_as_it_says():
    """Of 19 scores the bound of 0.9 is the 18th smallest, which a 20th exceeds in 2 of 20 orders."""
    scores = np.random.default_rng(0).exponential(size=(4000, 20))
    held = [row[-1] <= conformal_quantile(row[:-1], 0.9) for row in scores]
    assert np.mean(held) == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 4000))  # four standard errors
    assert conformal_quantile(np.arange(19.0), 0.9) == 17.0
