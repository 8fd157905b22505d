"""scikit-learn estimators of the intrinsic dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from asenequip.cluster._checks import as_period, as_points, check
from asenequip.cluster.dimension import gride_scaling, two_nn, two_nn_scaling
from asenequip.cluster.neighbours import nearest_neighbours
from asenequip.cluster.support import default_resolution, distinct_points

__all__ = ["Gride", "TwoNN"]


class _Dimension(BaseEstimator):
    """What the estimators of the dimension share."""

    def _distances(self, X: ArrayLike, k: int) -> tuple[NDArray, NDArray, NDArray | None]:
        points = as_points(X, type(self).__name__, minimum=3)
        self.n_features_in_ = points.shape[1]
        period = as_period(self.period, points.shape[1], type(self).__name__)
        distinct = distinct_points(points, default_resolution(np.asarray(X)), period).points
        check(
            len(distinct) >= 3,
            "X",
            type(self).__name__,
            "at least 3 distinct points",
            len(distinct),
            "Identical points have no dimension: give points that differ.",
        )
        k = min(k, len(distinct) - 1)
        return distinct, nearest_neighbours(distinct, k, period=period).distances, period


class TwoNN(_Dimension):
    """Intrinsic dimension from the first two neighbours (Facco et al. 2017).

    Parameters
    ----------
    fraction : float
        Share of the points that is fitted, those of lowest r_2 / r_1; 1 gives the maximum-likelihood estimate.
    scaling : bool
        Whether to estimate it also on ever smaller parts of the points: `scaling_`.
    period : float, array_like or None
        Period of each coordinate, 0 where there is none.
    random_state : int
        Seed of the parts.

    Attributes
    ----------
    dimension_, dimension_error_ : float
    scaling_ : DimensionScaling
        Dimension against scale, where `scaling` is set.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.random.default_rng(0).normal(size=(2000, 3)) @ np.ones((3, 3))  # on a line
    >>> round(TwoNN().fit(points).dimension_)
    1
    """

    def __init__(
        self, fraction: float = 0.9, *, scaling: bool = False, period: ArrayLike | None = None, random_state: int = 0
    ) -> None:
        self.fraction = fraction
        self.scaling = scaling
        self.period = period
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> TwoNN:
        """Estimate the dimension of the points `X`, shape (n_points, n_features)."""
        points, distances, period = self._distances(X, 2)
        self.dimension_, self.dimension_error_ = two_nn(distances, self.fraction)
        if self.scaling:
            self.scaling_ = two_nn_scaling(points, fraction=self.fraction, period=period, seed=self.random_state)
        return self


class Gride(_Dimension):
    """Intrinsic dimension over scales (Denti et al. 2022).

    Parameters
    ----------
    largest : int
        Largest neighbour rank; ranks 1|2, 2|4, .. are used.
    period : float, array_like or None
        Period of each coordinate, 0 where there is none.

    Attributes
    ----------
    scaling_ : DimensionScaling
        Dimensions, errors, scales and ranks.
    dimension_, dimension_error_ : float
        Those at the plateau: the two neighbouring scales that differ least in units of their errors, the finer one.
    """

    def __init__(self, largest: int = 64, *, period: ArrayLike | None = None) -> None:
        self.largest = largest
        self.period = period

    def fit(self, X: ArrayLike, y: Any = None) -> Gride:
        """Estimate the dimension of the points `X`, shape (n_points, n_features)."""
        check(self.largest >= 2, "largest", "Gride", "an int of at least 2", self.largest, "The usual value is 64.")
        _, distances, _ = self._distances(X, self.largest)
        scaling = gride_scaling(distances, self.largest)
        values, errors = scaling.dimensions, scaling.errors
        place = 0
        if len(values) > 1:
            place = int(np.argmin(np.abs(np.diff(values)) / np.hypot(errors[1:], errors[:-1])))
        self.scaling_ = scaling
        self.dimension_, self.dimension_error_ = float(values[place]), float(errors[place])
        return self
