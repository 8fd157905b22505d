"""Distinct points: identical ones (perfect crystals, rounded data) are merged and counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster.neighbours import minimum_image

__all__ = ["Support", "default_resolution", "distinct_points"]


@dataclass(frozen=True)
class Support:
    """The distinct points of a set and how often each occurs.

    Attributes
    ----------
    points : ndarray of float64, shape (n_distinct, n_features)
        One of each.
    counts : ndarray of float64, shape (n_distinct,)
        How many of the original points each stands for.
    inverse : ndarray of int64, shape (n_points,)
        The distinct point that stands for each original one.
    first : ndarray of int64, shape (n_distinct,)
        Index of the first original point each stands for.
    """

    points: NDArray[np.float64]
    counts: NDArray[np.float64]
    inverse: NDArray[np.int64]
    first: NDArray[np.int64]

    @property
    def is_distinct(self) -> bool:
        """Whether every original point is distinct."""
        return len(self.points) == len(self.inverse)

    @property
    def n_points(self) -> int:
        """Number of original points."""
        return len(self.inverse)


def default_resolution(points: NDArray, dtype: np.dtype | None = None) -> float:
    """Give the distance below which rounding makes points indistinguishable.

    Parameters
    ----------
    points : ndarray, shape (n_points, n_features)
        Coordinates.
    dtype : dtype, optional
        The precision the coordinates were computed in, that of `points` unless given.

    Returns
    -------
    float
        eps^(3/4) times the largest coordinate: 2e-12 of it for float64, 6e-6 for float32.
    """
    kind = np.dtype(dtype or points.dtype)
    precision = np.finfo(kind).eps if kind.kind == "f" else np.finfo(np.float64).eps
    return float(precision**0.75 * np.abs(points).max(initial=0.0))


def distinct_points(points: NDArray, resolution: float = 0.0, period: NDArray | None = None) -> Support:
    """Merge the points that are closer than `resolution` to one another.

    Points closer than that are joined, and what is joined through others is one point: a chain of near-identical
    points is one point too. The cost is that of one sort unless there are such pairs.

    Parameters
    ----------
    points : ndarray of float64, shape (n_points, n_features)
        Coordinates.
    resolution : float
        Largest distance of points that count as identical, in the unit of the coordinates; 0 merges exact copies.
    period : ndarray of float64, shape (n_features,), optional
        Periods, 0 where a coordinate is not periodic.

    Returns
    -------
    Support
        Distinct points in the order of their first occurrence.
    """
    n, features = points.shape
    # A projection on the unit vector (1, .., 1) / sqrt(D), with unequal weights so that lattices do not collide:
    # points closer than the resolution are projected at least as close.
    weights = 1.0 + np.modf(np.arange(1, features + 1) * 0.6180339887498949)[0]
    weights /= np.linalg.norm(weights)
    folded = points if period is None else _fold(points, period)
    projection = folded @ weights
    order = np.argsort(projection, kind="stable")
    slack = resolution + 4 * np.finfo(np.float64).eps * np.abs(projection).max(initial=0.0)
    close = np.diff(projection[order]) <= slack
    candidates = np.zeros(n, bool)
    candidates[order[1:][close]] = True
    candidates[order[:-1][close]] = True
    if period is not None:  # a pair may sit on either side of the fold
        candidates |= _near_fold(folded, period, resolution)
    label = np.arange(n)
    if candidates.any():
        where = np.flatnonzero(candidates)
        label[where] = where[_join(points[where], resolution, period)]
    first, inverse, counts = np.unique(label, return_index=False, return_inverse=True, return_counts=True)
    return Support(points[first], counts.astype(np.float64), inverse.reshape(-1), first)


def _fold(points: NDArray, period: NDArray) -> NDArray:
    folded = points.copy()
    for axis in np.flatnonzero(period):
        folded[:, axis] = np.mod(points[:, axis], period[axis])
    return folded


def _near_fold(folded: NDArray, period: NDArray, resolution: float) -> NDArray:
    near = np.zeros(len(folded), bool)
    for axis in np.flatnonzero(period):
        column = folded[:, axis]
        width = max(resolution, 4 * np.finfo(np.float64).eps * period[axis])
        near |= (column <= width) | (column >= period[axis] - width)
    return near


def _join(points: NDArray, resolution: float, period: NDArray | None) -> NDArray:
    """Give, for each point, the lowest index among those joined to it."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    exact, inverse = np.unique(points, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    if len(exact) > 1 and (resolution > 0 or period is not None):
        box = None if period is None else period
        tree = cKDTree(exact if period is None else _inside(exact, period), boxsize=box)
        pairs = tree.query_pairs(resolution, output_type="ndarray")
        if len(pairs):
            vectors = minimum_image(exact[pairs[:, 0]] - exact[pairs[:, 1]], period)
            pairs = pairs[np.einsum("nd,nd->n", vectors, vectors) <= resolution**2]
        graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(exact), len(exact)))
        inverse = connected_components(graph, directed=False)[1][inverse]
    lowest = np.full(inverse.max() + 1, len(points))
    np.minimum.at(lowest, inverse, np.arange(len(points)))
    return lowest[inverse]


def _inside(points: NDArray, period: NDArray) -> NDArray:
    folded = _fold(points, period)
    return np.where((period > 0) & (folded >= period), 0.0, folded)
