"""Approximate nearest neighbours by an established library, with their recall measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster._exact import brute_differences, exact_order

__all__ = ["approximate_search"]

PROBES = 256
"""Queries whose true neighbours are found by brute force to measure the recall."""


def approximate_search(
    queries: NDArray, points: NDArray, k: int, period: NDArray | None, seed: int
) -> tuple[NDArray, NDArray, float]:
    """Find nearly all of the `k` nearest points of every query by PyNNDescent, else hnswlib.

    Parameters
    ----------
    queries : ndarray of float64, shape (n_queries, n_features)
    points : ndarray of float64, shape (n_points, n_features)
    k : int
        Number of neighbours.
    period : None
        Periodic coordinates cannot be searched approximately.
    seed : int
        Seed of the search and of the probes.

    Returns
    -------
    distances : ndarray of float64, shape (n_queries, k)
    indices : ndarray of int32, shape (n_queries, k)
    recall : float
        Share of the true neighbours found, over 256 queries.

    Raises
    ------
    ValueError
        If coordinates are periodic.
    ImportError
        If neither library is installed.
    """
    if period is not None:
        raise ValueError(
            "The 'method' parameter of nearest_neighbours must be exact for periodic coordinates. "
            "Got 'approximate' instead.\nLeave it at 'auto'."
        )
    found = _candidates(queries, points, min(len(points), k + k // 4 + 8), seed)
    distances, indices = exact_order(queries, points, found, k, None)
    probes = np.random.default_rng(seed).choice(len(queries), min(PROBES, len(queries)), replace=False)
    exact = brute_differences(queries[probes], points, k, None)[0]
    recall = float((distances[probes] <= exact[:, -1:] * (1 + 1e-12)).mean())
    return distances, indices, recall


def _candidates(queries: NDArray, points: NDArray, k: int, seed: int) -> NDArray:
    """Indices of about the `k` nearest points of each query, shape (n_queries, k)."""
    try:
        from pynndescent import NNDescent
    except ImportError:
        NNDescent = None
    if NNDescent is not None:
        index = NNDescent(points.astype(np.float32), n_neighbors=k, random_state=seed)
        found = index.neighbor_graph[0] if queries is points else index.query(queries.astype(np.float32), k=k)[0]
        return np.where(found < 0, 0, found)
    try:
        import hnswlib
    except ImportError as error:
        raise ImportError(
            "Approximate neighbours need PyNNDescent or hnswlib, neither of which is installed.\n"
            "Install one with: pip install pynndescent, or leave method at 'auto'."
        ) from error
    index = hnswlib.Index(space="l2", dim=points.shape[1])
    index.init_index(max_elements=len(points), ef_construction=200, M=32, random_seed=seed)
    index.add_items(points.astype(np.float32))
    index.set_ef(2 * k)
    return index.knn_query(queries.astype(np.float32), k=k)[0].astype(np.int64)
