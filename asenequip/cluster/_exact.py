"""Exact neighbour searches without compiled code: scipy's KD-tree and comparing every pair, also on a torch device."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

__all__ = ["brute", "brute_differences", "brute_torch", "exact_order", "minimum_image", "threads", "tree_search"]

BLOCK_BYTES = 32 * 2**20
"""Working memory of one block of the brute-force search."""


def threads() -> int:
    """Give the number of processors this process may use, or OMP_NUM_THREADS where that is set."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def minimum_image(vectors: NDArray, period: NDArray | None) -> NDArray:
    """Bring difference vectors into [-period / 2, period / 2], in place, and return them.

    Parameters
    ----------
    vectors : ndarray of float64, shape (..., n_features)
        Differences of coordinates.
    period : ndarray of float64, shape (n_features,), or None
        Periods, 0 where a coordinate is not periodic.

    Returns
    -------
    ndarray of float64, shape (..., n_features)
        The same array.
    """
    if period is not None:
        for axis in np.flatnonzero(period):
            component = vectors[..., axis]
            component -= period[axis] * np.rint(component / period[axis])
    return vectors


def tree_search(queries: NDArray, points: NDArray, k: int, period: NDArray | None) -> tuple[NDArray, NDArray]:
    """Search a KD-tree, queries in the order of the tree's leaves so that its nodes stay in cache."""
    from scipy.spatial import cKDTree

    if period is not None:
        points, queries = _wrap(points, period), _wrap(queries, period)
    tree = cKDTree(points, leafsize=16, boxsize=period)
    order = tree.indices if queries.shape == points.shape else None
    chunk = max(1, BLOCK_BYTES // (16 * k))
    distances = np.empty((len(queries), k))
    indices = np.empty((len(queries), k), np.int32)
    for start in range(0, len(queries), chunk):
        rows = slice(start, start + chunk) if order is None else order[start : start + chunk]
        found, index = tree.query(queries[rows], k=np.arange(1, k + 1), workers=threads())
        distances[rows], indices[rows] = found, index
    return distances, indices


def _wrap(points: NDArray, period: NDArray) -> NDArray:
    """Bring periodic coordinates into [0, period), where the KD-tree wants them."""
    wrapped = points.copy()
    for axis in np.flatnonzero(period):
        column = np.mod(points[:, axis], period[axis])
        wrapped[:, axis] = np.where(column >= period[axis], 0.0, column)
    return wrapped


def brute(queries: NDArray, points: NDArray, k: int) -> tuple[NDArray, NDArray]:
    """Compare every pair by matrix products, then recompute the distances of the chosen by differences.

    The expansion |x|^2 - 2 x.y + |y|^2 loses digits for close pairs, so a few more candidates than `k` are taken
    and ordered by their exact distances.
    """
    from sklearn.neighbors import NearestNeighbors

    centre = points.mean(axis=0)
    extra = min(len(points), k + 4)
    search = NearestNeighbors(n_neighbors=extra, algorithm="brute").fit(points - centre)
    found = search.kneighbors(queries - centre, return_distance=False)
    return exact_order(queries, points, found, k, None)


def exact_order(
    queries: NDArray, points: NDArray, found: NDArray, k: int, period: NDArray | None
) -> tuple[NDArray, NDArray]:
    """Order candidates (n_queries, m) by their exact distances and keep `k`."""
    distances = np.empty((len(queries), k))
    indices = np.empty((len(queries), k), np.int32)
    chunk = max(1, BLOCK_BYTES // (8 * found.shape[1] * points.shape[1]))
    for start in range(0, len(queries), chunk):
        rows = slice(start, start + chunk)
        vectors = minimum_image(points[found[rows]] - queries[rows, None, :], period)
        squares = np.einsum("nkd,nkd->nk", vectors, vectors)
        order = np.argsort(squares, axis=1, kind="stable")[:, :k]
        distances[rows] = np.sqrt(np.take_along_axis(squares, order, axis=1))
        indices[rows] = np.take_along_axis(found[rows], order, axis=1)
    return distances, indices


def brute_differences(queries: NDArray, points: NDArray, k: int, period: NDArray | None) -> tuple[NDArray, NDArray]:
    """Compare every pair by differences, one coordinate at a time."""
    indices = np.empty((len(queries), k), np.int64)
    chunk = max(1, BLOCK_BYTES // (8 * len(points)))
    for start in range(0, len(queries), chunk):
        rows = slice(start, start + chunk)
        squares = np.zeros((len(queries[rows]), len(points)))
        for axis, length in enumerate(np.zeros(points.shape[1]) if period is None else period):
            component = queries[rows, axis, None] - points[None, :, axis]
            if length:
                component -= length * np.rint(component / length)
            component *= component
            squares += component
        part = np.argpartition(squares, k - 1, axis=1)[:, :k] if k < len(points) else None
        indices[rows] = np.arange(len(points)) if part is None else part
    return exact_order(queries, points, indices, k, period)


def brute_torch(
    queries: NDArray, points: NDArray, k: int, period: NDArray | None, device: str
) -> tuple[NDArray, NDArray]:
    """Compare every pair on a torch device in float64."""
    import torch

    target = torch.as_tensor(points, device=device)
    lengths = None if period is None else torch.as_tensor(period, device=device)
    indices = np.empty((len(queries), k), np.int64)
    rows_bytes = 8 * len(points) * (1 if period is None else points.shape[1])
    chunk = max(1, 8 * BLOCK_BYTES // rows_bytes)
    for start in range(0, len(queries), chunk):
        rows = slice(start, start + chunk)
        block = torch.as_tensor(queries[rows], device=device)
        if lengths is None:
            squares = torch.cdist(block, target, compute_mode="donot_use_mm_for_euclid_dist")
        else:
            vectors = block[:, None, :] - target[None, :, :]
            safe = torch.where(lengths > 0, lengths, torch.ones_like(lengths))
            vectors -= torch.where(lengths > 0, lengths * torch.round(vectors / safe), 0.0)
            squares = (vectors * vectors).sum(-1)
        indices[rows] = torch.topk(squares, k, dim=1, largest=False).indices.cpu().numpy()
    return exact_order(queries, points, indices, k, period)
