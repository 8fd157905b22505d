"""Neighbour lists of different lengths: each point holds as many neighbours as it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster import native

if TYPE_CHECKING:
    from asenequip.cluster.neighbours import NeighbourSearch

__all__ = ["GrowingLists", "NeighbourLists"]


@dataclass(frozen=True)
class NeighbourLists:
    """The nearest neighbours of every point, in order of distance; rank 0 is the point itself, at distance 0.

    Lists are kept in stretches: neighbours of ranks above last[s - 1] and up to last[s] of point i stand at
    base[s, i] + rank.

    Attributes
    ----------
    distances : ndarray of float64, shape (n_entries,)
    indices : ndarray of int32, shape (n_entries,)
    size : ndarray of int64, shape (n_points,)
        Number of neighbours of each point, itself not counted.
    base : ndarray of int64, shape (n_stretches, n_points)
    last : ndarray of int64, shape (n_stretches,)
    recall : float
        Measured share of the true neighbours that was found: 1 for an exact search.
    """

    distances: NDArray[np.float64]
    indices: NDArray[np.int32]
    size: NDArray[np.int64]
    base: NDArray[np.int64]
    last: NDArray[np.int64]
    recall: float = 1.0

    @staticmethod
    def packed(distances: NDArray, indices: NDArray, start: NDArray, recall: float = 1.0) -> NeighbourLists:
        """Give lists that stand one after another: that of point i at start[i] .. start[i + 1] - 1."""
        start = np.ascontiguousarray(start, np.int64)
        return NeighbourLists(
            np.ascontiguousarray(distances, np.float64),
            np.ascontiguousarray(indices, np.int32),
            np.diff(start) - 1,
            start[None, :-1].copy(),
            np.array([len(distances)]),
            recall,
        )

    @staticmethod
    def equal(distances: NDArray, indices: NDArray, recall: float = 1.0) -> NeighbourLists:
        """Give lists of equal length from arrays of shape (n_points, k + 1), without a copy where possible."""
        n, width = distances.shape
        return NeighbourLists.packed(distances.reshape(-1), indices.reshape(-1), np.arange(n + 1) * width, recall)

    @property
    def n_points(self) -> int:
        """Number of lists."""
        return len(self.size)

    def place(self, points: NDArray, rank: NDArray | int) -> NDArray[np.int64]:
        """Give where the neighbours of a rank of some points stand, shapes as those of `points` and `rank` together."""
        stretch = 0 if len(self.last) == 1 else np.searchsorted(self.last, rank)
        return self.base[stretch, points] + rank

    def distance(self, rank: NDArray | int) -> NDArray[np.float64]:
        """Give the distance of each point's neighbour of its `rank`, shape (n_points,)."""
        return self.distances[self.place(np.arange(self.n_points), rank)]

    def gather(self, values: NDArray, first: int, counts: NDArray) -> NDArray:
        """Give entries one list after another.

        Parameters
        ----------
        values : ndarray, shape (n_entries,)
            `distances` or `indices`.
        first : int
            The rank to begin with.
        counts : ndarray of int64, shape (n_points,)
            How many entries of each list.

        Returns
        -------
        ndarray, shape (n,)
        """
        found = np.empty(int(counts.sum()), values.dtype)
        target = np.cumsum(counts) - counts
        low = 0
        for last, base in zip(self.last, self.base, strict=True):
            begin = max(first, low)
            number = np.minimum(first + counts, last + 1) - begin
            rows = np.flatnonzero(number > 0)
            _copy_stretches(found, target[rows] + begin - first, values, base[rows] + begin, number[rows])
            low = last + 1
        return found

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
            native.run("first_neighbour", self.arguments(), *ends, low, high, int(outside), found, len(found))
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

    def arguments(self) -> native.Arguments:
        """Give the lists as compiled code takes them."""
        base = self.base
        return native.Arguments(self.distances, self.indices, base, self.last, len(base), self.size, self.n_points)


class GrowingLists:
    """Lists that grow outwards, by a half at a time, or double where the search begins anew each time.

    What a list gains is written behind all that is there.

    Parameters
    ----------
    search : NeighbourSearch
        Where neighbours come from.
    n_points : int
    first, limit : int
        Neighbours of each point to begin with, and at most.
    room : int
        Most entries of all lists; memory is taken as they are written.
    """

    def __init__(self, search: NeighbourSearch, n_points: int, first: int, limit: int, room: int) -> None:
        steps = [first]
        while steps[-1] < limit:
            steps.append(min(limit, steps[-1] + (steps[-1] // 2 + 1 if search.goes_on else steps[-1])))
        self.search, self.last = search, np.array(steps)
        self.size = np.full(n_points, first)
        self.used = n_points * (first + 1)
        room = max(self.used, min(room, n_points * (limit + 1)))
        self.distances, self.indices = np.empty(room), np.empty(room, np.int32)
        self.base = np.zeros((len(steps), n_points), np.int64)
        self.base[0] = np.arange(n_points) * (first + 1)
        self.recall = search.write(np.arange(n_points), self.size, self.base[0], self.distances, self.indices)

    def grow(self, points: NDArray) -> bool:
        """Grow the lists of `points`, shape (n,), by one step, unless there is no room."""
        held = self.size[points]
        step = np.searchsorted(self.last, held) + 1
        gained = self.last[step] - held
        start = self.used + np.cumsum(gained) - gained
        used = self.used + int(gained.sum())
        if used > len(self.distances):
            return False
        lists = self.lists()
        known = held, lists.indices[lists.place(points, held)].astype(np.int64)
        recall = self.search.write(points, gained, start, self.distances, self.indices, known)
        self.base[step, points] = start - held - 1
        self.size[points] = self.last[step]
        self.used, self.recall = used, min(self.recall, recall)
        return True

    def lists(self) -> NeighbourLists:
        """Give the lists as they are, without a copy: to be asked for again once they have grown."""
        count = int(np.searchsorted(self.last, self.size.max())) + 1
        values = self.distances[: self.used], self.indices[: self.used]
        return NeighbourLists(*values, self.size, self.base[:count], self.last[:count], self.recall)


def _copy_stretches(values: NDArray, target: NDArray, old: NDArray, source: NDArray, counts: NDArray) -> None:
    """Copy stretches of `counts` numbers from places `source` of `old` to places `target` of `values`."""
    if native.library() is not None:
        native.run("copy_stretches", values, target, old, source, counts, len(counts), values.itemsize)
        return
    inner = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    values[np.repeat(target, counts) + inner] = old[np.repeat(source, counts) + inner]
