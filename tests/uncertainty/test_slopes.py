"""The scale of force errors as a function of the environment: found where it is there, left alone where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from asenequip.uncertainty import rank_correlation
from asenequip.uncertainty.slopes import Slopes, fit_slopes


def problem(seed: int, slope: float, count: int = 3000):
    """Atoms of two types in ten frames; the errors' logarithmic variance is linear in the first of five features."""
    rng = np.random.default_rng(seed)
    features, types = rng.normal(2.0, 3.0, (count, 5)), rng.integers(0, 2, count)
    deviations = np.exp(0.5 * (slope * (features[:, 0] - 2.0) / 3.0 + types))
    errors = deviations[:, None] * rng.standard_normal((count, 3))
    return features, types, (errors**2).mean(axis=1), np.arange(count) // (count // 10), deviations


def test_a_dependence_is_found_and_holds_for_new_atoms():
    features, types, ratios, frames, _ = problem(0, 1.0)
    found, levels, _ = fit_slopes(features, types, ratios, frames, 2)
    fresh, kinds, squares, _, truth = problem(1, 1.0)
    stated = levels[kinds] * found(fresh, kinds)
    off = np.abs(np.log(stated / truth))
    assert np.quantile(off, 0.95) < 0.15  # five slopes of 1500 atoms: 0.03 each; the outermost are cut
    assert rank_correlation(np.sqrt(squares), stated) > 0.9 * rank_correlation(np.sqrt(squares), truth)


def test_factors_of_held_out_atoms_are_from_fits_without_them():
    """Of pure noise a fit with as many slopes as atoms would make something; without the atoms themselves it cannot."""
    rng = np.random.default_rng(0)
    features, frames = rng.normal(size=(120, 60)), np.arange(120) // 12
    ratios = rng.chisquare(3, 120) / 3
    _, _, factors = fit_slopes(features, np.zeros(120, int), ratios, frames, 1)
    assert abs(rank_correlation(np.sqrt(ratios), factors)) < 0.25  # three standard errors of 120


def test_nothing_is_made_of_nothing():
    features, types, ratios, frames, truth = problem(2, 0.0)
    found, levels, factors = fit_slopes(features, types, ratios, frames, 2)
    assert np.abs(found.slopes).max() < 0.1  # of 1500 atoms: 0.02 each
    np.testing.assert_allclose(levels[types], truth, rtol=0.05)
    np.testing.assert_allclose(factors, truth, rtol=0.1)


@pytest.mark.parametrize("count", [0, 30])
def test_too_few_atoms_leave_it_as_it_is(count):
    features = np.random.default_rng(0).normal(size=(count, 4))
    found, levels, factors = fit_slopes(features, np.zeros(count, int), np.ones(count), np.arange(count), 2)
    assert (found(features, np.zeros(count, int)) == 1).all()
    assert (levels == 1).all()
    assert (factors == 1).all()


def test_far_away_the_factor_stays_bounded_and_talks_no_warning_down():
    slopes = Slopes(np.ones((1, 2)), np.zeros((1, 2)), np.ones((1, 2)), np.array([[-5.0, 6.0]]))
    features = np.array([[1e6, 1e6], [-1e6, -1e6], [-2.0, -2.0], [-3.0, -3.0]])
    np.testing.assert_allclose(slopes(features, np.zeros(4, int)), np.exp([3.0, 0.0, -2.0, -2.5]))
