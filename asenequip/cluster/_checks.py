"""Checks of user input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asenequip.errors import parameter_error

__all__ = ["as_period", "as_points", "check"]

_SMALLEST = 1e-120
"""Spread of the coordinates below which, and over whose inverse, squares leave the range of floating-point numbers."""


def check(condition: bool, name: str, owner: str, must: str, got: Any, remedy: str) -> None:
    """Raise `asenequip.errors.parameter_error` unless `condition` holds."""
    if not condition:
        raise parameter_error(name, owner, must, got, remedy)


def as_points(points: ArrayLike, owner: str, *, minimum: int = 1, features: int | None = None) -> NDArray:
    """Give the points as a contiguous float64 array and check them.

    Parameters
    ----------
    points : array_like, shape (n_points, n_features)
        Coordinates of the points, any unit.
    owner : str
        Who asks, for the error sentence.
    minimum : int
        The least number of points that will do.
    features : int, optional
        The number of coordinates each point must have.

    Returns
    -------
    ndarray of float64, shape (n_points, n_features)

    Raises
    ------
    ValueError
        If the array is not two-dimensional, has too few points, is complex or holds a value that is not finite, or if
        its spread is beyond what floating-point numbers can square.
    """
    from sklearn.utils.validation import check_array

    array = check_array(
        points,
        dtype=np.float64,
        order="C",
        ensure_min_samples=minimum,
        estimator=owner,
        input_name="X",
    )
    with np.errstate(over="ignore"):
        spread = float(np.ptp(array, axis=0).max())
    if spread and not _SMALLEST < spread < 1 / _SMALLEST:
        raise ValueError(
            f"The points given to {owner} spread over {spread:.1e}, and squares of distances would not be numbers.\n"
            "Take another unit."
        )
    if features is not None and array.shape[1] != features:
        raise ValueError(
            f"X has {array.shape[1]} features, but {owner} is expecting {features} features as input.\n"
            "Give points described by the same coordinates as those of the fit."
        )
    return array


def as_period(period: ArrayLike | None, n_features: int, owner: str) -> NDArray | None:
    """Give the periods of the coordinates as an array, None where nothing is periodic.

    Parameters
    ----------
    period : float, array_like of shape (n_features,) or None
        Period of each coordinate in its own unit; 0 or infinity marks a coordinate that is not periodic.
    n_features : int
        The number of coordinates.
    owner : str
        Who asks, for the error sentence.

    Returns
    -------
    ndarray of float64, shape (n_features,), or None
        Periods, 0 where a coordinate is not periodic.
    """
    if period is None:
        return None
    array = np.atleast_1d(np.asarray(period, dtype=np.float64))
    if array.shape == (1,):
        array = np.full(n_features, array[0])
    check(
        array.shape == (n_features,) and not np.isnan(array).any() and bool((array >= 0).all()),
        "period",
        owner,
        f"a positive number or {n_features} of them (0 for a coordinate that is not periodic)",
        period,
        "Give one period per coordinate, in that coordinate's unit.",
    )
    array = np.where(np.isinf(array), 0.0, array)
    return array if array.any() else None
