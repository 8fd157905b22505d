"""The compiled loops give what numpy and scipy give, whatever the number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial import cKDTree

from asenequip.cluster import BMTI, DensityPeaks, PAk, native
from asenequip.cluster.lists import GrowingLists
from asenequip.cluster.neighbourhoods import adaptive_neighbourhoods
from asenequip.cluster.neighbours import NeighbourSearch, cross_neighbours, nearest_neighbours, spatial_order
from tests.cluster.test_arrays import mixture

pytestmark = pytest.mark.skipif(native.library() is None, reason="no C++ compiler: install g++ or clang++")

ROUNDING = 1e-12
"""Sums of squares of a hundred coordinates of order ten."""


@pytest.fixture
def without_compiler(monkeypatch):
    return lambda: monkeypatch.setattr(native, "library", lambda: None)


def lattice() -> np.ndarray:
    """A cubic lattice: many neighbours at one distance, and far from the origin."""
    return np.stack(np.meshgrid(*[np.arange(9.0)] * 3), -1).reshape(-1, 3) + 1e4


CLOUDS = {
    "plane": mixture(900, 2, 0)[0],
    "six": mixture(900, 6, 1)[0],
    "twelve": mixture(700, 12, 2)[0],
    "hundred": mixture(300, 100, 3)[0],
    "one": np.random.default_rng(4).normal(size=(500, 1)),
    "lattice": lattice(),
    "tight and far": mixture(600, 4, 5)[0] * 1e-6 + 1e3 * np.random.default_rng(6).integers(2, size=(600, 1)),
    "copies": np.repeat(mixture(40, 3, 7)[0], 20, axis=0),
    "few": np.random.default_rng(8).normal(size=(5, 3)),
}


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("k", [3, 45])
def test_neighbours_have_the_distances_scipy_finds(name, k):
    points = CLOUDS[name]
    k = min(k, len(points) - 1)
    found = nearest_neighbours(points, k)
    expected = cKDTree(points).query(points, k + 1)[0]
    assert_allclose(found.distances, expected, atol=ROUNDING * np.abs(points).max())
    vectors = points[found.indices] - points[:, None, :]
    assert_allclose(found.distances, np.sqrt((vectors**2).sum(-1)), rtol=1e-12)
    assert all(len(set(row)) == k + 1 for row in found.indices.tolist())


@pytest.mark.parametrize("name", CLOUDS)
def test_neighbours_of_new_points_have_the_distances_scipy_finds(name):
    points = CLOUDS[name]
    queries = points[::3] + 0.01
    k = min(20, len(points))
    expected = cKDTree(points).query(queries, k)[0].reshape(len(queries), k)
    assert_allclose(cross_neighbours(queries, points, k)[0], expected, atol=ROUNDING * np.abs(points).max())


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", ["plane", "twelve", "lattice", "tight and far", "copies"])
def test_lists_that_grow_are_cuts_of_one_search(name, compiled, without_compiler):
    points = CLOUDS[name]
    n, limit = len(points), 200
    full = nearest_neighbours(points, limit)
    if not compiled:
        without_compiler()
    growing = GrowingLists(NeighbourSearch(points), n, 20, limit, 10**6)
    generator = np.random.default_rng(9)
    for _ in range(4):  # four steps lead to the limit where lists double
        assert growing.grow(generator.choice(n, n // 2, replace=False))
    found = growing.lists()
    assert len(np.unique(found.size)) > 3
    width = found.size + 1
    distances, indices = (found.gather(values, 0, width) for values in (found.distances, found.indices))
    inside = np.arange(limit + 1) < width[:, None]
    assert_allclose(distances, full.distances[inside], atol=ROUNDING * np.abs(points).max())
    if compiled:  # else neighbours at one distance may come in another order
        assert_array_equal(indices, full.indices[inside])


def test_lists_stop_to_grow_where_there_is_no_room():
    points = CLOUDS["six"]
    growing = GrowingLists(NeighbourSearch(points), len(points), 20, 200, 21 * len(points) + 30)
    assert growing.grow(np.array([3]))
    assert not growing.grow(np.arange(10))
    assert growing.lists().size.sum() == 20 * len(points) + 11


def test_spatial_order_is_a_permutation():
    assert_array_equal(np.sort(spatial_order(CLOUDS["six"])), np.arange(900))


@pytest.mark.parametrize("d", [2, 7])
def test_k_star_is_that_of_numpy(d, without_compiler):
    points = mixture(800, d, 10)[0]
    compiled = adaptive_neighbourhoods(points)
    without_compiler()
    plain = adaptive_neighbourhoods(points)
    assert_array_equal(compiled.k_star, plain.k_star)
    assert compiled.dimension == pytest.approx(plain.dimension, rel=1e-12)


@pytest.mark.parametrize("period", [None, 40.0])
@pytest.mark.parametrize("d", [2, 5, 9, 30])
def test_log_density_is_that_of_numpy(d, period, without_compiler):
    points = np.concatenate([mixture(500, d, 11)[0], mixture(60, d, 11)[0][:40]])
    model = BMTI(samples=4, period=period)
    compiled = model.fit(points)
    value, error = compiled.log_density_, compiled.log_density_error_
    without_compiler()
    plain = model.fit(points)
    assert_allclose(plain.log_density_, value, atol=1e-7)
    assert_allclose(plain.gradient_, compiled.gradient_, atol=1e-9 * np.abs(compiled.gradient_).max())
    # multipliers belong to points in their order of sweep, which differs: the scatter is that of four samples
    assert_allclose(np.median(plain.log_density_error_), np.median(error), rtol=0.5)


def test_labels_do_not_depend_on_threads(monkeypatch):
    points = mixture(1500, 3, 12)[0]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = DensityPeaks(density=BMTI(samples=8)).fit(points)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    two = DensityPeaks(density=BMTI(samples=8)).fit(points)
    assert_array_equal(two.log_density_, one.log_density_)
    assert_array_equal(two.log_density_error_, one.log_density_error_)
    assert_array_equal(two.labels_, one.labels_)


def test_a_missing_compiler_is_said_once(monkeypatch):
    native.library.cache_clear()
    monkeypatch.setattr("asenequip.kernels.native.compile_library", _fail)
    try:
        with pytest.warns(RuntimeWarning, match="could not be compiled"):
            PAk().fit(mixture(60, 2, 13)[0])
        PAk().fit(mixture(60, 2, 13)[0])
    finally:
        native.library.cache_clear()


def _fail(source: str) -> None:
    raise OSError("no compiler")
