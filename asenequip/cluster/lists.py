"""Neighbour lists of different lengths: each point holds as many neighbours as it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster import native

if TYPE_CHECKING:
    from asenequip.cluster.neighbours import NeighbourSearch

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

    def place(self, points: NDArray, rank: NDArray | int) -> NDArray[np.int64]:
        """Give where the neighbours of a rank of some points stand, shape (n,)."""
        return self.start[points] + rank

    def distance(self, rank: NDArray | int) -> NDArray[np.float64]:
        """Give the distance of each point's neighbour of its `rank`, shape (n_points,)."""
        return self.distances[self.start[:-1] + rank]

    def flat(self, counts: NDArray) -> NDArray[np.int64]:
        """Give the places of the first `counts` neighbours of each point, themselves not counted, one after another."""
        first = np.cumsum(counts) - counts
        return np.arange(int(counts.sum())) + np.repeat(self.start[:-1] + 1 - first, counts)

    def first(
        self,
        points: NDArray,
        counts: NDArray,
        value: NDArray,
        low: NDArray | float,
        high: NDArray | float,
        *,
        outside: bool = False,
    ) -> NDArray[np.int64]:
        """Give the first neighbour, outwards, whose value lies in an interval, or outside it.

        Parameters
        ----------
        points : ndarray of int64, shape (n,)
            Whose neighbours are looked at.
        counts : ndarray of int64, shape (n,)
            How many neighbours of each.
        value : ndarray of float64, shape (n_values,)
            The value of everything the lists refer to.
        low, high : ndarray of float64, shape (n,), or float
            The interval, bounds included.
        outside : bool
            Whether a neighbour outside the interval is looked for.

        Returns
        -------
        ndarray of int64, shape (n,)
            -1 where there is none.
        """
        found = np.full(len(points), -1, np.int64)
        low, high = (np.array(np.broadcast_to(bound, found.shape), np.float64) for bound in (low, high))
        if native.library() is not None:
            ends = np.array(points, np.int64), np.array(counts, np.int64), np.array(value, np.float64)
            native.run("first_neighbour", self.indices, self.start, *ends, low, high, int(outside), found, len(found))
            return found
        active, rank = np.arange(len(found)), 1
        while len(active):
            active = active[counts[active] >= rank]
            near = self.indices[self.place(points[active], rank)]
            hit = ((value[near] >= low[active]) & (value[near] <= high[active])) != outside
            found[active[hit]] = near[hit]
            active = active[~hit]
            rank += 1
        return found

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
        last = np.array([len(self.distances)])
        return native.Arguments(self.distances, self.indices, self.start, last, 1, self.size, self.n_points)


class GrowingLists:
    """Lists that grow outwards, by a half at a time: what a list gains is written behind all that is there.

    Parameters
    ----------
    search : NeighbourSearch
        Where neighbours come from.
    n_points : int
    first, limit : int
        Neighbours of each point to begin with, and at most.
    room : int
        Most entries of all lists; memory is taken as they are written.

    Attributes
    ----------
    distances, indices, size
        As those of `NeighbourLists`, entries in the order they were found.
    last : ndarray of int64, shape (n_stretches,)
        Neighbours of a list after each step of its growth.
    base : ndarray of int64, shape (n_stretches, n_points)
        Where rank 0 of a list would stand, if all of it stood before what it gained in each step.
    """

    def __init__(self, search: NeighbourSearch, n_points: int, first: int, limit: int, room: int) -> None:
        steps = [first]
        while steps[-1] < limit:
            steps.append(min(limit, steps[-1] + steps[-1] // 2 + 1))
        self.search, self.last = search, np.array(steps)
        self.size = np.full(n_points, first)
        self.used = n_points * (first + 1)
        room = max(self.used, min(room, n_points * (limit + 1)))
        self.distances, self.indices = np.empty(room), np.empty(room, np.int32)
        self.base = np.zeros((len(steps), n_points), np.int64)
        self.base[0] = np.arange(n_points) * (first + 1)
        self.recall = search.write(np.arange(n_points), self.size, self.base[0], self.distances, self.indices)

    def place(self, points: NDArray, rank: NDArray | int) -> NDArray[np.int64]:
        """Give where the neighbours of a rank of some points stand, shape (n,)."""
        return self.base[np.searchsorted(self.last, rank), points] + rank

    def grow(self, points: NDArray) -> bool:
        """Grow the lists of `points`, shape (n,), by one step, unless there is no room."""
        held = self.size[points]
        step = np.searchsorted(self.last, held) + 1
        gained = self.last[step] - held
        start = self.used + np.cumsum(gained) - gained
        used = self.used + int(gained.sum())
        if used > len(self.distances):
            return False
        known = held, self.indices[self.place(points, held)].astype(np.int64)
        recall = self.search.write(points, gained, start, self.distances, self.indices, known)
        self.base[step, points] = start - held - 1
        self.size[points] = self.last[step]
        self.used, self.recall = used, min(self.recall, recall)
        return True

    def closed(self) -> NeighbourLists:
        """Give the lists one after another."""
        start = np.concatenate([[0], np.cumsum(self.size + 1)])
        distances, indices = self.distances[: self.used], self.indices[: self.used]
        if (self.size > self.last[0]).any():
            distances, indices = np.empty(start[-1]), np.empty(start[-1], np.int32)
            for step, last in enumerate(self.last):
                before = -1 if step == 0 else self.last[step - 1]
                rows = np.flatnonzero(self.size >= last)
                counts = np.full(len(rows), last - before)
                for values, old in ((distances, self.distances), (indices, self.indices)):
                    copy_stretches(values, start[rows] + before + 1, old, self.base[step, rows] + before + 1, counts)
        return NeighbourLists(distances, indices, start, self.recall)

    def arguments(self) -> native.Arguments:
        """Give the lists as compiled code takes them."""
        steps, n = self.base.shape
        return native.Arguments(self.distances, self.indices, self.base, self.last, steps, self.size, n)


def copy_stretches(values: NDArray, target: NDArray, old: NDArray, source: NDArray, counts: NDArray) -> None:
    """Copy stretches of `counts` numbers from places `source` of `old` to places `target` of `values`."""
    if native.library() is not None:
        native.run("copy_stretches", values, target, old, source, counts, len(counts), values.itemsize)
        return
    inner = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    values[np.repeat(target, counts) + inner] = old[np.repeat(source, counts) + inner]
