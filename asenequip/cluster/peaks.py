"""Advanced density peaks: the clusters, saddles and halo of a landscape."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster import native
from asenequip.cluster.lists import NeighbourLists

__all__ = ["Peaks", "dendrogram_linkage", "density_peaks", "first_labelled"]


@dataclass(frozen=True)
class Peaks:
    """Density peaks and what belongs to them.

    Attributes
    ----------
    labels : ndarray of int64, shape (n_points,)
        Cluster of each point, numbered by decreasing number of points.
    centres : ndarray of int64, shape (n_clusters,)
        The point at each peak.
    saddles : ndarray of float64, shape (n_clusters, n_clusters)
        Log density at the saddle between two clusters, -inf where they do not touch.
    saddle_errors : ndarray of float64, shape (n_clusters, n_clusters)
        Their errors, 0 where there is no saddle.
    saddle_points : ndarray of int64, shape (n_clusters, n_clusters)
        The point at each saddle, -1 where there is none.
    halo : ndarray of bool, shape (n_points,)
        Points below the highest saddle of their cluster.
    """

    labels: NDArray[np.int64]
    centres: NDArray[np.int64]
    saddles: NDArray[np.float64]
    saddle_errors: NDArray[np.float64]
    saddle_points: NDArray[np.int64]
    halo: NDArray[np.bool_]

    def highest_saddles(self) -> tuple[NDArray, NDArray]:
        """Give the log density of each cluster's highest saddle (-inf if none) and its error."""
        if len(self.centres) == 0:
            return np.empty(0), np.empty(0)
        place = self.saddles.argmax(axis=1)
        rows = np.arange(len(place))
        return self.saddles[rows, place], self.saddle_errors[rows, place]


def density_peaks(
    log_density: NDArray,
    error: NDArray,
    lists: NeighbourLists,
    k_star: NDArray,
    z: float = 1.65,
    counts: NDArray | None = None,
) -> Peaks:
    """Find the statistically significant peaks of a density (d'Errico et al. 2021, Information Sciences 560, 476).

    Parameters
    ----------
    log_density, error : ndarray of float64, shape (n_points,)
        Log density and its error.
    lists : NeighbourLists
        Neighbours, at least k* of each point.
    k_star : ndarray of int, shape (n_points,)
        Sizes of the neighbourhoods.
    z : float
        How many standard deviations a peak must rise above its saddles.
    counts : ndarray of float64, shape (n_points,), optional
        Points each stands for; only the numbering of the clusters depends on it.

    Returns
    -------
    Peaks
    """
    shifted = log_density - (log_density - z * error).min() + 1
    level = shifted - error
    centres, parents = _centres(level, lists, k_star)
    labels = _assign(level, lists, centres, parents)
    pairs = _borders(level, lists, k_star, labels, centres)
    target, saddles = _merge(pairs, centres, shifted, error, z)
    return _finish(log_density, error, labels, centres, target, saddles, counts)


def _centres(level: NDArray, lists: NeighbourLists, k_star: NDArray) -> tuple[NDArray, dict[int, int]]:
    """Find the points highest in their own neighbourhood and in all neighbourhoods they belong to.

    Gives them, and for each that is highest only in its own the highest point it is a neighbour of.
    """
    best = lists.first(np.arange(len(level)), k_star, level, -np.inf, level, outside=True) < 0
    parents = _parents(level, lists, k_star, best)
    best[list(parents)] = False
    return np.flatnonzero(best), parents


def _parents(level: NDArray, lists: NeighbourLists, k_star: NDArray, best: NDArray) -> dict[int, int]:
    """Find, for points marked by `best`, the highest point that has them in its neighbourhood, if it is higher."""
    if native.library() is not None:
        found = np.full(len(level), -1, np.int64)
        marks, height = best.astype(np.uint8), np.array(level, np.float64)
        native.run("parents", lists.arguments(), np.array(k_star, np.int64), height, marks, found)
        return {int(j): int(found[j]) for j in np.flatnonzero(found >= 0)}
    near = lists.gather(lists.indices, 1, k_star)
    row = np.repeat(np.arange(len(level)), k_star)
    hit = np.flatnonzero(best[near] & (level[row] > level[near]))
    parents: dict[int, int] = {}
    for i, j in zip(row[hit].tolist(), near[hit].tolist(), strict=True):
        if j not in parents or level[i] > level[parents[j]]:
            parents[j] = i
    return parents


def first_labelled(
    rank: NDArray, own: NDArray, lists: NeighbourLists, last: int = 0, accepted: NDArray | None = None
) -> NDArray[np.int64]:
    """Find for each list the first of its neighbours, outwards, of lower rank or accepted whatever its rank.

    Parameters
    ----------
    rank : ndarray, shape (n_points,)
        Rank of the points that the lists refer to.
    own : ndarray, shape (n_lists,)
        Rank of each list's own point.
    lists : NeighbourLists
    last : int
        How many of the outermost neighbours of a list are not looked at.
    accepted : ndarray of bool, shape (n_points,), optional

    Returns
    -------
    ndarray of int64, shape (n_lists,)
        -1 where there is none.
    """
    if accepted is not None:
        rank = np.where(accepted, -np.inf, rank)
    return lists.first(np.arange(len(own)), lists.size - last, rank, own, np.inf, outside=True)


def _assign(level: NDArray, lists: NeighbourLists, centres: NDArray, parents: dict[int, int]) -> NDArray:
    """Label points in order of decreasing level by their nearest labelled neighbour, all at once.

    What is labelled when a point's turn comes are the centres and the points of higher level, so each point's parent
    is known beforehand, and labels follow by jumping along parents.
    """
    n = len(level)
    rank = np.empty(n, np.int64)
    rank[np.argsort(-level, kind="stable")] = np.arange(n)
    is_centre = np.zeros(n, bool)
    is_centre[centres] = True
    parent = first_labelled(rank, rank, lists, 1 if lists.size.min() > 2 else 0, is_centre)
    for point in np.flatnonzero(parent < 0):
        parent[point] = parents.get(int(point), int(point))
    parent[centres] = centres
    lost = (parent == np.arange(n)) & ~is_centre
    parent[lost] = centres[0] if len(centres) else 0
    while True:
        further = parent[parent]
        if np.array_equal(further, parent):
            break
        parent = further
    number = np.full(n, -1, np.int64)
    number[centres] = np.arange(len(centres))
    return number[parent]


def _borders(
    level: NDArray, lists: NeighbourLists, k_star: NDArray, labels: NDArray, centres: NDArray
) -> dict[tuple[int, int], int]:
    """Find, for each pair of touching clusters, the highest of their border points."""
    if len(centres) < 2:
        return {}
    source = np.setdiff1d(np.arange(len(level)), centres)
    target = lists.first(source, k_star[source], labels, labels[source], labels[source], outside=True)
    source, target = source[target >= 0], target[target >= 0]
    # the source must be its cluster's nearest to the target: what is nearer, if anything, belongs to another
    nearest = lists.first(target, lists.size[target] - 1, labels, labels[source], labels[source])
    keep = (nearest < 0) | (nearest == source)
    source, target = source[keep], target[keep]
    first = np.minimum(labels[source], labels[target])
    second = np.maximum(labels[source], labels[target])
    order = np.lexsort((source, -level[source], second, first))
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)
    chosen = order[new]
    return {(int(a), int(b)): int(p) for a, b, p in zip(first[chosen], second[chosen], source[chosen], strict=True)}


def _merge(
    pairs: dict[tuple[int, int], int], centres: NDArray, shifted: NDArray, error: NDArray, z: float
) -> tuple[NDArray, dict[tuple[int, int], int]]:
    """Merge peaks that do not rise above a saddle significantly, highest saddle first, the weaker into the stronger.

    Gives for each centre the one it ended in, and the saddle points of the pairs that are left.
    """
    touching: list[dict[int, int]] = [{} for _ in centres]
    heap: list[tuple[float, int, int, int]] = []

    def consider(a: int, b: int, point: int) -> tuple[float, int, int, int] | None:
        low, high = min(a, b), max(a, b)
        for c in (low, high):
            rise = shifted[centres[c]] - shifted[point]
            if rise < z * (error[centres[c]] + error[point]):
                return (-float(shifted[point]), low, high, point)
        return None

    for (a, b), point in pairs.items():
        touching[a][b] = touching[b][a] = point
        entry = consider(a, b, point)
        if entry:
            heap.append(entry)
    heapify(heap)
    into = np.arange(len(centres))
    while heap:
        _, a, b, point = heappop(heap)
        if touching[a].get(b) != point:
            continue
        margin = [(shifted[centres[c]] - shifted[point]) / (error[centres[c]] + error[point]) for c in (a, b)]
        keep, drop = (b, a) if margin[0] < margin[1] else (a, b)
        into[drop] = keep
        del touching[keep][drop], touching[drop][keep]
        for other, saddle in touching[drop].items():
            del touching[other][drop]
            present = touching[keep].get(other)
            if present is None or shifted[present] < shifted[saddle]:
                touching[keep][other] = touching[other][keep] = saddle
                entry = consider(keep, other, saddle)
                if entry:
                    heappush(heap, entry)
        touching[drop] = {}
    while not np.array_equal(into[into], into):
        into = into[into]
    left = {(a, b): p for a, near in enumerate(touching) for b, p in near.items() if a < b}
    return into, left


def _finish(
    log_density: NDArray,
    error: NDArray,
    labels: NDArray,
    centres: NDArray,
    into: NDArray,
    saddles: dict[tuple[int, int], int],
    counts: NDArray | None,
) -> Peaks:
    """Number the clusters by size and put saddles and halo together."""
    merged = into[labels]
    alive = np.flatnonzero(into == np.arange(len(into)))
    sizes = np.bincount(merged, counts, minlength=len(into))[alive]
    alive = alive[np.lexsort((centres[alive], -sizes))]
    number = np.full(len(into), -1, np.int64)
    number[alive] = np.arange(len(alive))
    count = len(alive)
    height = np.full((count, count), -np.inf)
    width = np.zeros((count, count))
    points = np.full((count, count), -1, np.int64)
    for (a, b), point in saddles.items():
        i, j = number[a], number[b]
        height[i, j] = height[j, i] = log_density[point]
        width[i, j] = width[j, i] = error[point]
        points[i, j] = points[j, i] = point
    final = number[merged]
    halo = log_density < height.max(axis=1)[final]
    return Peaks(final, centres[alive], height, width, points, halo)


def dendrogram_linkage(peaks: Peaks, log_density: NDArray) -> NDArray:
    """Give the tree in which clusters join at their saddles, as scipy's `linkage` does.

    Parameters
    ----------
    peaks : Peaks
    log_density : ndarray of float64, shape (n_points,)

    Returns
    -------
    ndarray of float64, shape (n_clusters - 1, 4)
        Rows of (one, other, height, clusters below): height is the highest peak's log density minus the saddle's;
        clusters that do not touch join at the height of the lowest point.
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    count = len(peaks.centres)
    if count < 2:
        return np.empty((0, 4))
    top = log_density[peaks.centres].max()
    floor = max(top - log_density.min(), 0.0)
    heights = np.where(np.isfinite(peaks.saddles), top - peaks.saddles, floor)
    np.fill_diagonal(heights, 0.0)
    return linkage(squareform(heights, checks=False), method="single")
