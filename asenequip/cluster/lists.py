"""Neighbour lists of different lengths: each point holds as many neighbours as it needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster import native

__all__ = ["GrowingLists", "NeighbourLists", "copy_stretches"]


@dataclass(frozen=True)
class NeighbourLists:
    """The nearest neighbours of every point, one list after another.

    Attributes
    ----------
    distances : ndarray of float64, shape (n_entries,)
        In order of distance; the first entry of each list is the point itself, at 0.
    indices : ndarray of int32, shape (n_entries,)
    start : ndarray of int64, shape (n_points + 1,)
        The list of point i is start[i] .. start[i + 1] - 1.
    recall : float
        Measured share of the true neighbours that was found: 1 for an exact search.
    """

    distances: NDArray[np.float64]
    indices: NDArray[np.int32]
    start: NDArray[np.int64]
    recall: float = 1.0

    @staticmethod
    def equal(distances: NDArray, indices: NDArray, recall: float = 1.0) -> NeighbourLists:
        """Give lists of equal length from arrays of shape (n_points, k + 1), without a copy where possible."""
        n, width = distances.shape
        start = np.arange(n + 1, dtype=np.int64) * width
        return NeighbourLists(
            np.ascontiguousarray(distances, np.float64).reshape(-1),
            np.ascontiguousarray(indices, np.int32).reshape(-1),
            start,
            recall,
        )

    @property
    def size(self) -> NDArray[np.int64]:
        """Number of neighbours of each point, itself not counted, shape (n_points,)."""
        return np.diff(self.start) - 1

    @property
    def n_points(self) -> int:
        """Number of lists."""
        return len(self.start) - 1

    def distance(self, rank: NDArray | int) -> NDArray[np.float64]:
        """Give the distance of each point's neighbour of its `rank`, shape (n_points,)."""
        return self.distances[self.start[:-1] + rank]

    def flat(self, counts: NDArray) -> NDArray[np.int64]:
        """Give the places of the first `counts` neighbours of each point, themselves not counted, one after another."""
        first = np.cumsum(counts) - counts
        return np.arange(int(counts.sum())) + np.repeat(self.start[:-1] + 1 - first, counts)

    def rectangle(self, width: int, fill: float = np.inf) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Give the first `width` entries of every list, filled up with `fill` and -1.

        Returns
        -------
        distances : ndarray of float64, shape (n_points, width)
        indices : ndarray of int32, shape (n_points, width)
        """
        n = self.n_points
        if len(self.distances) == n * width and (self.size == width - 1).all():
            return self.distances.reshape(n, width), self.indices.reshape(n, width)
        inside = np.arange(width) <= self.size[:, None]
        place = np.where(inside, self.start[:-1, None] + np.arange(width), 0)
        return np.where(inside, self.distances[place], fill), np.where(inside, self.indices[place], np.int32(-1))

    def arguments(self) -> native.Arguments:
        """Give the lists as compiled code takes them."""
        return native.Arguments(self.distances, self.indices, self.start, self.size, self.n_points)


class GrowingLists:
    """Lists that are replaced by longer ones, which are appended; `closed` puts them in order.

    Parameters
    ----------
    lists : NeighbourLists
        The lists to begin with; attributes are as theirs, with `size` held and `start` of shape (n_points,).
    """

    def __init__(self, lists: NeighbourLists) -> None:
        self.distances, self.indices, self.recall = lists.distances, lists.indices, lists.recall
        self.start, self.size = lists.start[:-1].copy(), lists.size
        self.used = len(lists.distances)

    def replace(self, rows: NDArray, longer: NeighbourLists) -> None:
        """Replace the lists of `rows`, shape (n_rows,), by those of `longer`, in that order."""
        last = self.used + len(longer.distances)
        if last > len(self.distances):
            room = max(last, 2 * len(self.distances))
            for name in ("distances", "indices"):
                old = getattr(self, name)
                new = np.empty(room, old.dtype)
                new[: self.used] = old[: self.used]
                setattr(self, name, new)
        self.distances[self.used : last], self.indices[self.used : last] = longer.distances, longer.indices
        self.start[rows], self.size[rows] = self.used + longer.start[:-1], longer.size
        self.recall, self.used = min(self.recall, longer.recall), last

    def closed(self) -> NeighbourLists:
        """Give the lists one after another."""
        start = np.concatenate([[0], np.cumsum(self.size + 1)])
        distances, indices = np.empty(start[-1]), np.empty(start[-1], np.int32)
        for values, old in ((distances, self.distances), (indices, self.indices)):
            copy_stretches(values, start[:-1], old, self.start, self.size + 1)
        return NeighbourLists(distances, indices, start, self.recall)

    def arguments(self) -> native.Arguments:
        """Give the lists as compiled code takes them."""
        return native.Arguments(self.distances, self.indices, self.start, self.size, len(self.start))


def copy_stretches(values: NDArray, target: NDArray, old: NDArray, source: NDArray, counts: NDArray) -> None:
    """Copy stretches of `counts` numbers from places `source` of `old` to places `target` of `values`."""
    if native.library() is not None:
        native.run("copy_stretches", values, target, old, source, counts, len(counts), values.itemsize)
        return
    inner = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    values[np.repeat(target, counts) + inner] = old[np.repeat(source, counts) + inner]
