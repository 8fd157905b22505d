"""Nearest neighbours: exact by KD-tree or by blocked brute force, periodic, approximate with measured recall."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster import native
from asenequip.cluster._checks import check
from asenequip.cluster._exact import brute, brute_differences, brute_torch, minimum_image, threads, tree_search
from asenequip.cluster.lists import NeighbourLists

__all__ = [
    "NeighbourSearch",
    "Neighbours",
    "cross_neighbours",
    "minimum_image",
    "nearest_neighbours",
    "spatial_order",
    "threads",
]

Method = Literal["auto", "tree", "brute", "approximate"]
TREE_FEATURES = 12
"""Without compiled code, up to this many coordinates scipy's KD-tree is faster than comparing every pair."""
TURNED = range(9, 257)
"""Numbers of coordinates for which the search runs along principal axes, so that far points show early."""
LARGEST = 1e15
"""Coordinates beyond this do not fit the float32 numbers of the compiled search."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of every point, in order of distance.

    Attributes
    ----------
    distances : ndarray of float64, shape (n_points, k + 1)
        Distances in the unit of the coordinates; column 0 is the point itself, at 0.
    indices : ndarray of int32, shape (n_points, k + 1)
        Indices of the neighbours; column 0 is the point itself.
    recall : float
        Measured share of the true neighbours that was found: 1 for an exact search.
    """

    distances: NDArray[np.float64]
    indices: NDArray[np.int32]
    recall: float = 1.0

    @property
    def k(self) -> int:
        """Number of neighbours of each point, itself not counted."""
        return self.distances.shape[1] - 1

    def lists(self) -> NeighbourLists:
        """Give the same as lists."""
        return NeighbourLists.equal(self.distances, self.indices, self.recall)


def nearest_neighbours(
    points: NDArray,
    k: int,
    *,
    period: NDArray | None = None,
    method: Method = "auto",
    device: str = "cpu",
    seed: int = 0,
) -> Neighbours:
    """Find the `k` nearest neighbours of every point among the others.

    Parameters
    ----------
    points : ndarray of float64, shape (n_points, n_features)
        Coordinates.
    k : int
        Number of neighbours, the point itself not counted, below `n_points`.
    period : ndarray of float64, shape (n_features,), optional
        Periods, 0 where a coordinate is not periodic.
    method : {"auto", "tree", "brute", "approximate"}
        "auto" is exact: compiled leaf-by-leaf search, or, for periodic coordinates and without a compiler, scipy's
        KD-tree up to 12 coordinates and brute force above. "approximate" needs pynndescent or hnswlib and measures
        its recall on 256 points.
    device : str
        Where brute force runs: "cpu", or a torch device such as "cuda".
    seed : int
        Seed of the approximate search and of the sample its recall is measured on.

    Returns
    -------
    Neighbours
        With column 0 the point itself.

    Raises
    ------
    ValueError
        If `k` is not below the number of points or `method` is unknown.
    """
    n = len(points)
    check(1 <= k < n, "k", "nearest_neighbours", f"an int in [1, {n - 1}]", k, "Ask for fewer neighbours than points.")
    distances, indices, recall = _search(points, points, k + 1, period, method, device, seed)
    _put_self_first(distances, indices, np.arange(n))
    return Neighbours(distances, indices, recall)


def cross_neighbours(
    queries: NDArray,
    points: NDArray,
    k: int,
    *,
    period: NDArray | None = None,
    method: Method = "auto",
    device: str = "cpu",
    seed: int = 0,
) -> tuple[NDArray, NDArray]:
    """Find, for every query, its `k` nearest points.

    Parameters
    ----------
    queries : ndarray of float64, shape (n_queries, n_features)
        Coordinates of the new points.
    points : ndarray of float64, shape (n_points, n_features)
        Coordinates of the points to choose from.
    k, period, method, device, seed
        As for `nearest_neighbours`; `k` may equal the number of points.

    Returns
    -------
    distances : ndarray of float64, shape (n_queries, k)
    indices : ndarray of int32, shape (n_queries, k)
    """
    n = len(points)
    check(1 <= k <= n, "k", "cross_neighbours", f"an int in [1, {n}]", k, "Ask for no more neighbours than points.")
    distances, indices, _ = _search(queries, points, k, period, method, device, seed)
    return distances, indices


def _search(
    queries: NDArray, points: NDArray, k: int, period: NDArray | None, method: str, device: str, seed: int
) -> tuple[NDArray, NDArray, float]:
    """Dispatch to one search; give distances, indices (n_queries, k) and the recall."""
    options = ("auto", "tree", "brute", "approximate")
    check(method in options, "method", "nearest_neighbours", f"one of {options}", method, "Leave it at 'auto'.")
    if method == "auto" and device == "cpu" and _compiled(points, period) and _compiled(queries, None):
        search = _CompiledSearch(points)
        return *(search.own(k) if queries is points else search.cross(queries, k)), 1.0
    if method == "auto":
        method = "tree" if points.shape[1] <= TREE_FEATURES and device == "cpu" else "brute"
    if method == "tree":
        if 16 * k > len(points):  # a large share of all points: sorting all of them is cheaper than a tree's heap
            method = "brute"
        else:
            return *tree_search(queries, points, k, period), 1.0
    if method == "approximate":
        from asenequip.cluster._approximate import approximate_search

        return approximate_search(queries, points, k, period, seed)
    if device != "cpu":
        return *brute_torch(queries, points, k, period, device), 1.0
    if period is None and 16 * k <= len(points):
        return *brute(queries, points, k), 1.0
    return *brute_differences(queries, points, k, period), 1.0


class NeighbourSearch:
    """Points prepared once, whose neighbours are asked for in turns.

    Parameters
    ----------
    points : ndarray of float64, shape (n_points, n_features)
    period, method, device
        As for `nearest_neighbours`.

    Attributes
    ----------
    goes_on : bool
        Whether more neighbours of a point are searched for only beyond those that are known.
    """

    def __init__(
        self, points: NDArray, *, period: NDArray | None = None, method: Method = "auto", device: str = "cpu"
    ) -> None:
        self.points, self.period, self.method, self.device = points, period, method, device
        compiled = method == "auto" and device == "cpu" and _compiled(points, period)
        self._search = _CompiledSearch(points) if compiled else None
        self.goes_on = compiled

    def write(
        self,
        rows: NDArray,
        counts: NDArray,
        start: NDArray,
        distances: NDArray,
        indices: NDArray,
        known: tuple[NDArray, NDArray] | None = None,
    ) -> float:
        """Write the neighbours of some points into arrays, each point before its neighbours; give the recall.

        Parameters
        ----------
        rows : ndarray of int64, shape (n_rows,)
            The points whose neighbours are wanted.
        counts : ndarray of int64, shape (n_rows,)
            How many neighbours of each are wanted, itself not counted.
        start : ndarray of int64, shape (n_rows,)
            Where those of each row go.
        distances : ndarray of float64, shape (n_entries,)
        indices : ndarray of int32, shape (n_entries,)
        known : tuple of ndarrays of int64, shape (n_rows,), optional
            How many neighbours of each row are known, and the last of them: the next ones are written, without the
            point itself.
        """
        if self._search is not None:
            last = None if known is None else known[1].astype(np.int32)
            self._search.write(None, None, rows, last, counts, start, distances, indices)
            return 1.0
        first = np.zeros_like(counts) if known is None else known[0] + 1
        points, recall = self.points, 1.0
        for skip, count in np.unique(np.stack([first, counts], axis=1), axis=0):
            chosen = np.flatnonzero((counts == count) & (first == skip))
            queries = points if len(chosen) == len(points) else points[rows[chosen]]
            width = int(count) + max(1, int(skip))
            near, index, recall = _search(queries, points, width, self.period, self.method, self.device, 0)
            _put_self_first(near, index, rows[chosen])
            place = start[chosen, None] + np.arange(width - skip)
            distances[place], indices[place] = near[:, skip:], index[:, skip:]
        return recall

    def cross(self, queries: NDArray, k: int) -> tuple[NDArray, NDArray]:
        """Find the `k` nearest points of every query: distances and indices, shape (n_queries, k)."""
        if self._search is None or not _compiled(queries, None):
            return cross_neighbours(queries, self.points, k, period=self.period, method=self.method, device=self.device)
        return self._search.cross(queries, k)


def _compiled(points: NDArray, period: NDArray | None) -> bool:
    return period is None and np.abs(points).max(initial=0.0) < LARGEST and native.library() is not None


def spatial_order(points: NDArray) -> NDArray[np.int64]:
    """Give an order in which points that are near in space are near in sequence, shape (n_points,)."""
    if _compiled(points, None):
        order = np.empty(len(points), np.int64)
        native.run("spatial_order", np.ascontiguousarray(points), *points.shape, order)
        return order
    from scipy.spatial import cKDTree

    return cKDTree(points, balanced_tree=True, leafsize=32).indices.astype(np.int64)


class _CompiledSearch:
    """The compiled index of a set of points, along principal axes where that lets far points show early."""

    def __init__(self, points: NDArray) -> None:
        self.points = self.space = np.ascontiguousarray(points, np.float64)
        self.centre, self.axes = None, None
        if points.shape[1] in TURNED:
            self.centre = points.mean(axis=0)
            self.axes = np.linalg.eigh(np.cov(points, rowvar=False, bias=True))[1][:, ::-1]
            self.space = self._turn(self.points)
        self.handle = native.run("open_index", self.points, self.space, *points.shape)
        weakref.finalize(self, native.run, "close_index", self.handle)

    def _turn(self, points: NDArray) -> NDArray:
        return points if self.axes is None else np.ascontiguousarray((points - self.centre) @ self.axes)

    def own(self, k: int) -> tuple[NDArray, NDArray]:
        """Find the `k` nearest points of every point, itself first: distances and indices, shape (n_points, k)."""
        n = len(self.points)
        return self._rectangle(None, np.arange(n), np.full(n, k - 1, np.int64), k)

    def cross(self, queries: NDArray, k: int) -> tuple[NDArray, NDArray]:
        """Find the `k` nearest points of every query: distances and indices, shape (n_queries, k)."""
        return self._rectangle(np.ascontiguousarray(queries, np.float64), None, np.full(len(queries), k, np.int64), k)

    def _rectangle(
        self, queries: NDArray | None, rows: NDArray | None, counts: NDArray, width: int
    ) -> tuple[NDArray, NDArray]:
        shape = len(counts), width
        distances, indices = np.empty(shape), np.empty(shape, np.int32)
        turned = None if queries is None else self._turn(queries)
        self.write(queries, turned, rows, None, counts, np.arange(len(counts)) * width, distances, indices)
        return distances, indices

    def write(
        self,
        queries: NDArray | None,
        turned: NDArray | None,
        rows: NDArray | None,
        last: NDArray | None,
        counts: NDArray,
        start: NDArray,
        distances: NDArray,
        indices: NDArray,
    ) -> None:
        """Search for queries, or for the points `rows`, these beyond the neighbours `last` where they are given."""
        rows = None if rows is None else np.ascontiguousarray(rows, np.int64)
        counts, start = np.ascontiguousarray(counts, np.int64), np.ascontiguousarray(start, np.int64)
        search = native.Arguments(
            self.handle, queries, turned, len(counts), rows, last, counts, start, distances, indices, threads()
        )
        native.run("nearest", search)


def _put_self_first(distances: NDArray, indices: NDArray, own: NDArray) -> None:
    """Make column 0 the point itself, `own`, in place: identical points tie with it at distance 0."""
    for row in np.flatnonzero(indices[:, 0] != own):
        place = np.flatnonzero(indices[row] == own[row])
        other = indices[row, 0]
        indices[row, place[0] if len(place) else -1] = other
        distances[row, 0], indices[row, 0] = 0.0, own[row]
