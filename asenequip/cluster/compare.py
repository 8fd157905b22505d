"""Information imbalance: how well distances in one space tell who is near in another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asenequip.cluster._checks import as_period, as_points, check

__all__ = [
    "Selection",
    "differentiable_imbalance",
    "greedy_selection",
    "information_imbalance",
    "select_features",
]

BLOCK_NUMBERS = 8_000_000
"""Distances held at once."""


@dataclass(frozen=True)
class Selection:
    """Features chosen to tell who is near in a target space.

    Attributes
    ----------
    features : list of int
        Chosen features, in the order chosen or of decreasing weight.
    imbalances : ndarray of float64
        Imbalance after each choice, or along the optimisation.
    weights : ndarray of float64, shape (n_features,)
        Factor of each feature, 0 where it is left out.
    """

    features: list[int]
    imbalances: NDArray[np.float64]
    weights: NDArray[np.float64]


def _squares(block: NDArray, points: NDArray, period: NDArray | None) -> NDArray:
    """Squared distances, shape (n_block, n_points)."""
    squares = np.zeros((len(block), len(points)))
    for axis in range(points.shape[1]):
        component = block[:, axis, None] - points[None, :, axis]
        if period is not None and period[axis]:
            component -= period[axis] * np.rint(component / period[axis])
        component *= component
        squares += component
    return squares


def information_imbalance(
    a: ArrayLike,
    b: ArrayLike,
    *,
    k: int = 1,
    period_a: ArrayLike | None = None,
    period_b: ArrayLike | None = None,
) -> tuple[float, float]:
    """Measure how well distances in A predict nearness in B, and the reverse.

    D(A -> B) = 2 / N <rank in B of the k nearest in A> (Glielmo et al. 2022, PNAS Nexus 1, pgac039, eq. 1): near 0
    if neighbours in A are neighbours in B, near 1 if A says nothing about B. Ranks are exact, whatever their size.

    Parameters
    ----------
    a, b : array_like, shape (n_points, n_features_a) and (n_points, n_features_b)
        The same points in two spaces.
    k : int
        Number of neighbours.
    period_a, period_b : float, array_like or None
        Period of each coordinate, 0 where there is none.

    Returns
    -------
    a_to_b, b_to_a : float

    Raises
    ------
    ValueError
        If the two spaces hold different numbers of points or `k` is too large.
    """
    first, second = as_points(a, "information_imbalance", minimum=3), as_points(b, "information_imbalance", minimum=3)
    n = len(first)
    check(
        len(second) == n,
        "b",
        "information_imbalance",
        f"an array of {n} points, as many as a",
        len(second),
        "Give the same points in both spaces, in the same order.",
    )
    check(1 <= k < n, "k", "information_imbalance", f"an int in [1, {n - 1}]", k, "The usual value is 1.")
    lengths = [
        as_period(period_a, first.shape[1], "information_imbalance"),
        as_period(period_b, second.shape[1], "information_imbalance"),
    ]
    sums = np.zeros(2)
    chunk = max(1, BLOCK_NUMBERS // n)
    for start in range(0, n, chunk):
        rows = np.arange(start, min(n, start + chunk))
        near = []
        for points, period in zip((first, second), lengths, strict=True):
            squares = _squares(points[rows], points, period)
            squares[np.arange(len(rows)), rows] = np.inf
            near.append(squares)
        for index in range(2):
            here, there = near[index], near[1 - index]
            chosen = np.argpartition(here, k - 1, axis=1)[:, :k]
            reach = np.take_along_axis(there, chosen, axis=1)
            for column in range(k):  # a rank is the number of points at most as far, ties shared
                below = (there < reach[:, column, None]).sum(axis=1)
                equal = (there == reach[:, column, None]).sum(axis=1)
                sums[index] += (below + 0.5 * (equal + 1)).sum()
    return float(2 * sums[0] / (k * n**2)), float(2 * sums[1] / (k * n**2))


def greedy_selection(
    X: ArrayLike, target: ArrayLike | None = None, *, n_features: int | None = None, k: int = 1
) -> Selection:
    """Add features one by one, each time the one that lowers D(features -> target) most.

    Parameters
    ----------
    X : array_like, shape (n_points, n_features_in)
        Candidate features.
    target : array_like, shape (n_points, n_target), optional
        The space to reproduce, all of `X` unless given.
    n_features : int, optional
        How many to choose, all unless given.
    k : int
        Number of neighbours.

    Returns
    -------
    Selection
    """
    points = as_points(X, "greedy_selection", minimum=3)
    goal = points if target is None else as_points(target, "greedy_selection", minimum=3)
    many = points.shape[1]
    count = many if n_features is None else n_features
    check(1 <= count <= many, "n_features", "greedy_selection", f"an int in [1, {many}]", count, "Ask for fewer.")
    chosen: list[int] = []
    values: list[float] = []
    while len(chosen) < count:
        rest = [f for f in range(many) if f not in chosen]
        scores = [information_imbalance(points[:, [*chosen, f]], goal, k=k)[0] for f in rest]
        best = int(np.argmin(scores))
        chosen.append(rest[best])
        values.append(scores[best])
    weights = np.zeros(many)
    weights[chosen] = 1.0
    return Selection(chosen, np.array(values), weights)


def _ranks(points: NDArray) -> NDArray:
    """Rank of every point among the others by distance from each, shape (n, n), 0 on the diagonal."""
    squares = _squares(points, points, None)
    np.fill_diagonal(squares, -1.0)
    ranks = np.empty(squares.shape)
    np.put_along_axis(ranks, np.argsort(squares, axis=1, kind="stable"), np.arange(len(points), dtype=float), axis=1)
    return ranks


def differentiable_imbalance(
    X: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None, *, scale: float | None = None
) -> tuple[float, NDArray]:
    """Give the differentiable imbalance of weighted features and its gradient.

    DII = 2 / N^2 sum_ij c_ij r_ij with c_ij the softmax of -d_ij / lambda over j, d_ij the Euclidean distance of the
    weighted features and r_ij the rank in the target space (Wild et al. 2025, Nature Communications 16, eq. 3).

    Parameters
    ----------
    X : array_like, shape (n_points, n_features)
        Features; memory grows with the square of the number of points.
    target : array_like, shape (n_points, n_target)
        The space to reproduce.
    weights : array_like, shape (n_features,), optional
        Factor of each feature, 1 unless given.
    scale : float, optional
        lambda, in the unit of the weighted features; the mean distance of the first neighbour unless given.

    Returns
    -------
    imbalance : float
    gradient : ndarray of float64, shape (n_features,)
        Derivative with respect to the weights, at constant lambda.
    """
    points = as_points(X, "differentiable_imbalance", minimum=3)
    goal = as_points(target, "differentiable_imbalance", minimum=3)
    factor = np.ones(points.shape[1]) if weights is None else np.asarray(weights, np.float64)
    return _imbalance_and_slope(points, _ranks(goal), factor, scale)


def _imbalance_and_slope(
    points: NDArray, ranks: NDArray, factor: NDArray, scale: float | None
) -> tuple[float, NDArray]:
    """Imbalance and its gradient."""
    n = len(points)
    scaled = points * factor
    distances = np.sqrt(_squares(scaled, scaled, None))
    np.fill_diagonal(distances, np.inf)
    nearest = distances.min(axis=1, keepdims=True)
    width = float(nearest.mean()) if scale is None else scale
    weight = np.exp(-(distances - nearest) / width)
    weight /= weight.sum(axis=1, keepdims=True)
    own = (weight * ranks).sum(axis=1, keepdims=True)
    value = 2 / n**2 * own.sum()
    # d value / d distance, then d distance_ij / d factor_f = factor_f (x_if - x_jf)^2 / distance_ij
    slope = -2 / n**2 / width * weight * (ranks - own)
    pull = np.divide(slope, distances, out=np.zeros_like(slope), where=(distances > 0) & np.isfinite(distances))
    gradient = np.array(
        [factor[f] * (pull * _squares(points[:, [f]], points[:, [f]], None)).sum() for f in range(len(factor))]
    )
    return float(value), gradient


def select_features(
    X: ArrayLike,
    target: ArrayLike | None = None,
    *,
    steps: int = 100,
    rate: float = 0.1,
    penalty: float = 0.0,
    weights: Any = None,
) -> Selection:
    """Find weights of the features that minimise the differentiable imbalance, by gradient descent.

    Parameters
    ----------
    X : array_like, shape (n_points, n_features)
        Features.
    target : array_like, shape (n_points, n_target), optional
        The space to reproduce, `X` unless given.
    steps : int
        Number of steps of Adam.
    rate : float
        Its learning rate, in units of the largest weight.
    penalty : float
        Strength of an L1 penalty on the weights, which brings those of useless features to 0.
    weights : array_like, shape (n_features,), optional
        First weights; the inverse standard deviations unless given.

    Returns
    -------
    Selection
        The weights of the lowest imbalance met, scaled to a largest of 1.
    """
    points = as_points(X, "select_features", minimum=3)
    goal = points if target is None else as_points(target, "select_features", minimum=3)
    ranks = _ranks(goal)
    spread = points.std(axis=0)
    factor = np.where(spread > 0, 1 / np.where(spread > 0, spread, 1), 0.0) if weights is None else np.array(weights)
    factor = factor / np.abs(factor).max()
    first, second = np.zeros_like(factor), np.zeros_like(factor)
    best, history = (np.inf, factor), []
    for step in range(1, steps + 1):
        value, gradient = _imbalance_and_slope(points, ranks, factor, None)
        history.append(value)
        total = value + penalty * np.abs(factor).sum() / np.abs(factor).max()
        if total < best[0]:
            best = (total, factor.copy())
        gradient = gradient + penalty * np.sign(factor)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        move = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-12)
        factor = np.maximum(factor - rate * (1 + np.cos(np.pi * step / steps)) / 2 * move, 0.0)
        if not factor.any():
            break
        factor = factor / factor.max()
    found = best[1] / np.abs(best[1]).max()
    order = [int(f) for f in np.argsort(-found, kind="stable") if found[f] > 0]
    return Selection(order, np.array(history), found)
