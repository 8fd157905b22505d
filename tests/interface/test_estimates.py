"""Means and errors of series whose statistics are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from asenequip.interface.statistics import Estimate, TimeBlocks, block_average, from_blocks, inefficiency


def autoregressive(rng: np.random.Generator, n: int, memory: float) -> np.ndarray:
    noise = rng.normal(size=n)
    series = np.empty(n)
    series[0] = noise[0]
    for k in range(1, n):
        series[k] = memory * series[k - 1] + np.sqrt(1 - memory**2) * noise[k]
    return series


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_inefficiency_of_an_autoregressive_series(memory):
    series = autoregressive(np.random.default_rng(1), 100_000, memory)
    assert_allclose(inefficiency(series), (1 + memory) / (1 - memory), rtol=0.06)


def test_error_of_independent_values_is_the_textbook_one():
    values = np.random.default_rng(0).normal(size=(50, 3))
    estimate = from_blocks(values)
    assert_allclose(estimate.error, values.std(axis=0, ddof=1) / np.sqrt(50))
    assert_allclose(estimate.dof, 49)


def test_blocks_without_a_value_are_left_out():
    values = np.array([[1.0, np.nan], [3.0, 5.0], [5.0, np.nan]])
    estimate = from_blocks(values)
    assert_allclose(estimate.value, [3.0, 5.0])
    assert np.isnan(estimate.error[1])
    assert not estimate.covers(5.0)[1]


def test_student_s_interval_is_wider_than_the_normal_one_for_few_blocks():
    assert_allclose(Estimate(0.0, 1.0, 4.0).half_width(0.95), 2.776, atol=1e-3)
    assert_allclose(Estimate(0.0, 1.0).half_width(0.95), 1.960, atol=1e-3)


def test_block_error_of_a_correlated_series_is_not_the_naive_one():
    series = autoregressive(np.random.default_rng(3), 20_000, 0.9)
    expected = np.sqrt(19 / 20_000)  # unit variance, inefficiency (1 + 0.9) / (1 - 0.9)
    assert_allclose(block_average(series).error, expected, rtol=0.3)


@pytest.mark.parametrize("count", [3, 16, 17, 1000])
def test_time_blocks_keep_the_mean_and_do_not_grow(count):
    values = np.random.default_rng(count).normal(size=(count, 2))
    blocks = TimeBlocks(16)
    for k, row in enumerate(values):
        blocks.add(float(k), row)
    whole = len(blocks.means) * blocks.length
    assert len(blocks.means) < 16
    assert whole > count - blocks.length
    assert_allclose(blocks.means.mean(axis=0), values[:whole].mean(axis=0))
    assert_allclose(blocks.times.mean(), (whole - 1) / 2)


@pytest.mark.parametrize(
    ("call", "name"), [(lambda: block_average(np.zeros(0)), "series"), (lambda: TimeBlocks(3), "most")]
)
def test_wrong_parameters_are_named(call, name):
    with pytest.raises(ValueError, match=f"The '{name}' parameter"):
        call()
