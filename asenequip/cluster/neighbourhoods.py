"""Point-adaptive neighbourhoods: how many neighbours of each point, k*, see one density."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster import native
from asenequip.cluster.dimension import two_nn
from asenequip.cluster.lists import GrowingLists, NeighbourLists
from asenequip.cluster.neighbours import Method, NeighbourSearch, threads

__all__ = ["DensityTest", "Neighbourhoods", "adaptive_neighbourhoods", "k_star", "test_thresholds"]

FIRST_TESTED = 4
"""The first neighbour the uniformity test looks at."""
ADAPTIVE_START = 32, 64
"""Neighbours searched first where their number is adaptive: of many coordinates, of up to ten."""
ADAPTIVE_SHARE, ADAPTIVE_LEAST = 10, 20
"""Adaptive neighbourhoods hold at most this part of the points, or so many of a small set: where two arcs or rows of
points run side by side the test sees one density in all of them, since each point sees what its neighbours see."""
ADAPTIVE_ENTRIES = 128_000_000
"""Adaptive neighbourhoods stop to grow at this many distances: 1.5 GB of distances and indices."""
CHUNK = 200_000
"""Points tested at once in numpy."""


@dataclass(frozen=True)
class Neighbourhoods:
    """Neighbours of every point and how many of them see one density.

    Attributes
    ----------
    neighbours : NeighbourLists
        As many neighbours of each point as the test looked at.
    k_star : ndarray of int64, shape (n_points,)
        The number of neighbours over which the density is constant within noise.
    dimension : float
        Intrinsic dimension.
    saturated : float
        Share of the points whose k* stands at the largest value the neighbours allow.
    """

    neighbours: NeighbourLists
    k_star: NDArray[np.int64]
    dimension: float
    saturated: float


def test_thresholds(k: int, dimension: float, significance: float) -> NDArray:
    """Give the largest |ln r_i - ln r_j| at rank s that still passes for one density.

    The statistic of the likelihood-ratio test between one and two densities is D = 4 s ln cosh(d (ln r_i - ln r_j) / 2)
    (Rodriguez et al. 2018, J. Chem. Theory Comput. 14, 1206, eq. 8, in log-volumes), so D > D_thr is a bound on the
    difference of the logarithms alone.

    Parameters
    ----------
    k : int
        Ranks 0 .. k - 1 are given.
    dimension : float
        Intrinsic dimension.
    significance : float
        Quantile of chi^2 with one degree of freedom: 1e-6 gives 23.928.

    Returns
    -------
    ndarray of float64, shape (k,)
        Infinite at rank 0.
    """
    from scipy.stats import chi2

    threshold = chi2.isf(significance, 1)
    with np.errstate(divide="ignore", over="ignore"):
        exponent = threshold / (4.0 * np.arange(k))
    # arccosh(exp(x)) = x + ln(1 + sqrt(1 - exp(-2 x))), which does not overflow
    return (exponent + np.log1p(np.sqrt(-np.expm1(-2 * exponent)))) * (2.0 / dimension)


def k_star(
    distances: NDArray,
    indices: NDArray,
    dimension: float,
    significance: float = 1e-6,
    reference: NeighbourLists | None = None,
) -> NDArray[np.int64]:
    """Find how many neighbours of each point see the density it sees itself.

    For j = 4 .. k - 1 the volume of the point's first j - 1 neighbours is compared with that of its j-th neighbour's
    (Rodriguez et al. 2018); k* is the last j before the first failure.

    Parameters
    ----------
    distances : ndarray of float64, shape (n_points, k + 1)
        Distances, column 0 the point itself (or, for new points, anything).
    indices : ndarray of int, shape (n_points, k + 1)
        Neighbours.
    dimension : float
        Intrinsic dimension.
    significance : float
        Significance of the test.
    reference : NeighbourLists, optional
        Those of the points that `indices` refers to, the points themselves unless given. The test of a point ends
        where the list of a neighbour does.

    Returns
    -------
    ndarray of int64, shape (n_points,)
        Between 3 and k - 1 (k where k < 4).
    """
    lists = NeighbourLists.equal(distances, indices)
    test = DensityTest.begin(lists.n_points, distances.shape[1] - 1, dimension, significance)
    return test.advance(lists, lists if reference is None else reference, None).k_star


@dataclass(frozen=True)
class DensityTest:
    """The test for one density, part way: some points are done, others wait for more neighbours.

    Attributes
    ----------
    ratio : ndarray of float64, shape (limit,)
        Largest ratio of two distances at each rank that still passes for one density.
    next_rank : ndarray of int64, shape (n_points,)
        The rank to test next.
    k_star : ndarray of int64, shape (n_points,)
        0 where the point is not done.
    """

    ratio: NDArray[np.float64]
    next_rank: NDArray[np.int64]
    k_star: NDArray[np.int64]

    @staticmethod
    def begin(n: int, limit: int, dimension: float, significance: float) -> DensityTest:
        """Start the test of `n` points that can have up to `limit` neighbours."""
        done = max(1, limit - 1) if limit <= FIRST_TESTED else 0
        ratio = np.exp(test_thresholds(max(1, limit), dimension, significance))
        return DensityTest(ratio, np.full(n, FIRST_TESTED, np.int64), np.full(n, done, np.int64))

    def advance(self, lists: NeighbourLists, reference: NeighbourLists, wanted: NDArray | None) -> DensityTest:
        """Go on as far as the lists allow.

        Parameters
        ----------
        lists, reference : NeighbourLists
            Neighbours of the points, and of the points these refer to.
        wanted : ndarray of uint8, shape (n_points,), or None
            Gets 1 where a list must grow for the test to go on; where it is None no list can, and all points are done.

        Returns
        -------
        DensityTest
        """
        next_rank, found = self.next_rank.copy(), self.k_star.copy()
        if native.library() is not None:
            own = lists.arguments()
            other = own if reference is lists else reference.arguments()
            native.run("test_density", own, other, self.ratio, len(self.ratio), next_rank, found, wanted, threads())
            return DensityTest(self.ratio, next_rank, found)
        for first in range(0, len(found), CHUNK):
            rows = np.arange(first, min(first + CHUNK, len(found)))
            _test_rows(rows[found[rows] == 0], self.ratio, lists, reference, next_rank, found, wanted)
        return DensityTest(self.ratio, next_rank, found)


def _test_rows(
    rows: NDArray,
    ratio: NDArray,
    lists: NeighbourLists,
    reference: NeighbourLists,
    next_rank: NDArray,
    found: NDArray,
    wanted: NDArray | None,
) -> None:
    """Test the points `rows` rank by rank, in place."""
    own_size, other_size, limit = lists.size, reference.size, len(ratio)
    while len(rows):
        j = next_rank[rows]
        found[rows[j >= limit]] = limit - 1
        rows, j = rows[j < limit], j[j < limit]
        short = j > own_size[rows]
        near = lists.indices[lists.place(rows, np.minimum(j, own_size[rows]))]
        missing = np.where(short, rows, np.where(j - 1 > other_size[near], near, -1))
        stuck = missing >= 0
        if wanted is None:
            found[rows[stuck]] = j[stuck] - 1
        else:
            wanted[missing[stuck]] = 1
        rows, j, near = rows[~stuck], j[~stuck], near[~stuck]
        a = lists.distances[lists.place(rows, j - 1)]
        b = reference.distances[reference.place(near, j - 1)]
        failed = (a > ratio[j - 1] * b) | (b > ratio[j - 1] * a)
        found[rows[failed]] = j[failed] - 1
        rows = rows[~failed]
        next_rank[rows] += 1


def adaptive_neighbourhoods(
    points: NDArray,
    *,
    dimension: float | None = None,
    max_neighbours: int | None = None,
    significance: float = 1e-6,
    period: NDArray | None = None,
    least: int = 0,
    method: Method = "auto",
    device: str = "cpu",
) -> Neighbourhoods:
    """Find neighbours and k*, with more and more neighbours where the test asks for them.

    Parameters
    ----------
    points : ndarray of float64, shape (n_points, n_features)
        Distinct points, at least 4.
    dimension : float, optional
        Intrinsic dimension; that of 2NN unless given.
    max_neighbours : int, optional
        A fixed number of neighbours. Unless given each list grows by halves from 32 or 64 until every k* is found, a
        tenth of the points (20 of a small set) is in it, or 128 million distances are held.
    significance : float
        Significance of the test.
    least : int
        Neighbours that every point has at least.
    period, method, device
        As for `nearest_neighbours`.

    Returns
    -------
    Neighbourhoods
    """
    n = len(points)
    most = max(ADAPTIVE_LEAST, n // ADAPTIVE_SHARE) if max_neighbours is None else max_neighbours
    limit = min(n - 1, max(most, least))
    first = limit if max_neighbours is not None else min(limit, max(least, ADAPTIVE_START[points.shape[1] <= 10]))
    search = NeighbourSearch(points, period=period, method=method, device=device)
    growing = GrowingLists(search, n, first, limit, ADAPTIVE_ENTRIES)
    lists = growing.lists()
    if dimension is None:
        dimension = two_nn(np.stack([lists.distance(rank) for rank in (0, 1, 2)], axis=1))[0]
    test = DensityTest.begin(n, limit, dimension, significance)
    while True:
        wanted = np.zeros(n, np.uint8)
        test = test.advance(lists, lists, wanted)
        rows = np.flatnonzero(wanted)
        if not len(rows) or not growing.grow(rows):
            break
        lists = growing.lists()
    held = test.k_star == 0
    star = np.where(held, test.next_rank - 1, test.k_star)
    saturated = held | (star >= limit - 1)
    return Neighbourhoods(lists, star, float(dimension), float(saturated.mean()))
