"""k-nearest-neighbour and PAk estimates of the log density."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster.lists import NeighbourLists

__all__ = ["knn_log_density", "log_unit_ball", "pak_log_density"]


def log_unit_ball(dimension: float) -> float:
    """Give ln of the volume of the unit ball, pi^(d/2) / Gamma(d/2 + 1)."""
    from scipy.special import gammaln

    return float(0.5 * dimension * np.log(np.pi) - gammaln(0.5 * dimension + 1))


def knn_log_density(radii: NDArray, counts: NDArray, dimension: float, n_points: float) -> tuple[NDArray, NDArray]:
    """Estimate ln density from the ball that holds `counts` neighbours: ln k - ln N - ln V_d - d ln r_k.

    Parameters
    ----------
    radii : ndarray of float64, shape (n,)
        Distance of the k-th neighbour.
    counts : ndarray, shape (n,)
        k, or the weight of the points within the ball.
    dimension : float
        Intrinsic dimension.
    n_points : float
        Number of points N of the set.

    Returns
    -------
    log_density, error : ndarray of float64, shape (n,)
        The density has the unit of an inverse volume in `dimension` dimensions; the error is 1 / sqrt(k).
    """
    counts = np.asarray(counts, np.float64)
    value = np.log(counts) - np.log(n_points) - log_unit_ball(dimension) - dimension * np.log(radii)
    return value, 1 / np.sqrt(counts)


def pak_log_density(
    lists: NeighbourLists,
    k: NDArray,
    dimension: float,
    n_points: float,
    counts: NDArray | None = None,
    tolerance: float = 1e-12,
) -> tuple[NDArray, NDArray]:
    """Estimate ln density by PAk: a density in each ball that varies linearly, in its logarithm, with the rank.

    Maximises sum_l [n_l (F + a l) - v_l exp(F + a l)] over F and a, with v_l the volume of the l-th shell and n_l the
    points on it, by Newton's method with a capped step; ln rho = F - ln N (Rodriguez et al. 2018, eq. 11-14).

    Parameters
    ----------
    lists : NeighbourLists
        Neighbours of each point.
    k : ndarray of int, shape (n,)
        Neighbours used for each point, at least 2.
    dimension : float
        Intrinsic dimension.
    n_points : float
        Number of points N of the set.
    counts : ndarray of float64, shape (n,), optional
        How many points each stands for, 1 unless given.
    tolerance : float
        Newton stops when no step is larger.

    Returns
    -------
    log_density, error : ndarray of float64, shape (n,)
        The error is sqrt((4 k + 2) / (k (k - 1))).
    """
    value = np.empty(len(k))
    order = np.argsort(k, kind="stable")
    start = 0
    while start < len(k):
        # points of like k share a block, so that the padding stays below a quarter
        smallest = k[order[start]]
        stop = int(np.searchsorted(k[order], smallest + smallest // 4, side="right"))
        stop = min(stop, start + max(1, 2_000_000 // int(k[order[stop - 1]])))
        rows = order[start:stop]
        width = int(k[rows].max())
        place = lists.place(rows[:, None], np.minimum(np.arange(width + 1), k[rows, None]))
        shells = None
        if counts is not None:
            shells = counts[lists.indices[place[:, 1:]]]
            shells[:, 0] += counts[rows] - 1  # copies of the point itself lie in the first shell
        value[rows] = _pak_block(lists.distances[place], k[rows], dimension, shells, tolerance)
        start = stop
    total = k.astype(np.float64)
    radii = lists.distance(k)
    value -= np.log(n_points) + log_unit_ball(dimension) + dimension * np.log(radii)
    return value, np.sqrt((4 * total + 2) / (total * (total - 1)))


def _pak_block(distances: NDArray, k: NDArray, dimension: float, shells: NDArray | None, tolerance: float) -> NDArray:
    """Maximise the likelihood of one block; give F for volumes in units of each ball's own."""
    width = distances.shape[1] - 1
    radii = distances[np.arange(len(k)), k]
    inside = np.arange(1, width + 1) <= k[:, None]
    volumes = np.diff((distances / radii[:, None]) ** dimension, axis=1) * inside
    counts = inside.astype(np.float64) if shells is None else shells * inside
    rank = np.arange(1, width + 1) / k[:, None]  # in units of k, for the conditioning
    total, moment = counts.sum(1), (counts * rank).sum(1)
    constant, slope = np.log(total), np.zeros(len(k))
    active = np.arange(len(k))
    for _ in range(100):
        v, ranks = volumes[active], rank[active]
        density = v * np.exp(constant[active, None] + slope[active, None] * ranks)
        first = density * ranks
        s0, s1, s2 = density.sum(1), first.sum(1), (first * ranks).sum(1)
        g0, g1 = total[active] - s0, moment[active] - s1
        determinant = np.maximum(s0 * s2 - s1 * s1, np.finfo(np.float64).tiny)
        d0, d1 = (s2 * g0 - s1 * g1) / determinant, (s0 * g1 - s1 * g0) / determinant
        size = np.maximum(np.abs(d0), np.abs(d1))
        scale = np.minimum(1.0, 2.0 / np.maximum(size, 1e-300))
        constant[active] += scale * d0
        slope[active] += scale * d1
        active = active[size > tolerance]
        if not len(active):
            break
    return constant
