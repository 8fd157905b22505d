"""scikit-learn estimators of the density: the fields of each class are the parameters of its constructor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted

from asenequip.cluster._checks import as_period, as_points, check
from asenequip.cluster.landscape import (
    Landscape,
    bmti_landscape,
    knn_landscape,
    pak_landscape,
    predict_log_density,
    survey,
)
from asenequip.cluster.neighbours import Method, cross_neighbours
from asenequip.cluster.support import default_resolution

__all__ = ["BMTI", "KNN", "KStarNN", "PAk"]

ENGINES = ("own", "dadapy")


@dataclass(kw_only=True, eq=False, repr=False)
class KStarNN(DensityMixin, BaseEstimator):
    """Log density from the k* nearest neighbours: as many as see one density (Rodriguez et al. 2018).

    Parameters
    ----------
    dimension : float, optional
        Intrinsic dimension; that of 2NN unless given.
    max_neighbours : int, optional
        A fixed number of neighbours. Unless given it grows until no k* is held back by it, up to a tenth of the points.
    significance : float
        Significance of the test for one density.
    period : float, array_like or None
        Period of each coordinate, 0 where there is none.
    resolution : float, optional
        Points closer than this are one point that counts several times; that of the floating-point numbers unless
        given.
    method : {"auto", "tree", "brute", "approximate"}
        How neighbours are searched, see `nearest_neighbours`.
    device : str
        Where brute force runs, "cpu" or a torch device.
    engine : {"own", "dadapy"}
        "dadapy" lets that package do the computation.

    Attributes
    ----------
    log_density_, log_density_error_ : ndarray of float64, shape (n_points,)
        In inverse volumes of `dimension_` dimensions.
    k_star_ : ndarray of int64, shape (n_points,)
    dimension_ : float
    landscape_ : Landscape
        Distinct points, neighbourhoods, densities.
    """

    dimension: float | None = None
    max_neighbours: int | None = None
    significance: float = 1e-6
    period: ArrayLike | None = None
    resolution: float | None = None
    method: Method = "auto"
    device: str = "cpu"
    engine: str = "own"

    _kind: ClassVar[str] = "knn"

    def _survey(self, X: ArrayLike) -> Landscape:
        owner = type(self).__name__
        check(self.engine in ENGINES, "engine", owner, f"one of {ENGINES}", self.engine, "Leave it at 'own'.")
        check(
            0 < self.significance < 1,
            "significance",
            owner,
            "a float in (0, 1)",
            self.significance,
            "The usual value is 1e-6.",
        )
        if self.max_neighbours is not None:
            check(
                self.max_neighbours >= 2,
                "max_neighbours",
                owner,
                "an int of at least 2 or None",
                self.max_neighbours,
                "None lets their number grow as far as needed.",
            )
        points = as_points(X, owner, minimum=2)
        self.n_features_in_ = points.shape[1]
        resolution = self.resolution
        if resolution is None:
            resolution = default_resolution(np.asarray(X))
        check(resolution >= 0, "resolution", owner, "a float of at least 0", resolution, "Leave it at None.")
        return survey(
            points,
            dimension=self.dimension,
            max_neighbours=self.max_neighbours,
            significance=self.significance,
            period=as_period(self.period, points.shape[1], owner),
            resolution=resolution,
            least=self._least(),
            method=self.method,
            device=self.device,
        )

    def _least(self) -> int:
        """How many neighbours every point must have."""
        return 0

    def _estimate(self, landscape: Landscape) -> Landscape:
        return knn_landscape(landscape)

    def fit(self, X: ArrayLike, y: Any = None) -> KStarNN:
        """Estimate the log density at the points `X`, shape (n_points, n_features)."""
        found = self._survey(X)
        if self.engine == "dadapy" and found.neighbourhoods is not None:
            from asenequip.cluster.reference import dadapy_estimate

            landscape = dadapy_estimate(found, self)
        else:
            landscape = self._estimate(found)
        return self._adopt(landscape)

    def _adopt(self, landscape: Landscape) -> KStarNN:
        inverse = landscape.support.inverse
        self.landscape_ = landscape
        self.log_density_ = landscape.log_density[inverse]
        self.log_density_error_ = landscape.error[inverse]
        hood = landscape.neighbourhoods
        self.dimension_ = 0.0 if hood is None else hood.dimension
        self.k_star_ = landscape.support.counts[inverse].astype(int) if hood is None else hood.k_star[inverse]
        return self

    def predict_log_density(self, X: ArrayLike) -> tuple[NDArray, NDArray]:
        """Estimate the log density at new points and its error.

        Parameters
        ----------
        X : array_like, shape (n_queries, n_features)

        Returns
        -------
        log_density, error : ndarray of float64, shape (n_queries,)
            At a point of the fit, the fitted values.
        """
        check_is_fitted(self, "landscape_")
        points = as_points(X, type(self).__name__, features=self.n_features_in_)
        if self.landscape_.neighbourhoods is None:
            distance, place = _nearest(points, self.landscape_)
            return np.where(distance == 0, self.landscape_.log_density[place], -np.inf), self.landscape_.error[place]
        return predict_log_density(self.landscape_, points, self._kind)

    def score_samples(self, X: ArrayLike) -> NDArray:
        """Estimate the log density at new points, shape (n_queries,)."""
        return self.predict_log_density(X)[0]

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Give the total log likelihood of new points."""
        return float(self.score_samples(X).sum())


def _nearest(points: NDArray, landscape: Landscape) -> tuple[NDArray, NDArray]:
    distances, indices = cross_neighbours(points, landscape.support.points, 1, period=landscape.period)
    return np.where(distances[:, 0] <= landscape.resolution, 0.0, distances[:, 0]), indices[:, 0]


@dataclass(kw_only=True, eq=False, repr=False)
class KNN(KStarNN):
    """Log density from a fixed number of neighbours.

    Parameters
    ----------
    k : int
        Number of neighbours.
    dimension, max_neighbours, significance, period, resolution, method, device, engine
        As for `KStarNN`; the test only sets `k_star_`.

    Attributes
    ----------
    log_density_, log_density_error_, k_star_, dimension_, landscape_
        As for `KStarNN`.
    """

    k: int = field(default=10, kw_only=False)
    max_neighbours: int | None = 100

    def _least(self) -> int:
        check(
            isinstance(self.k, (int, np.integer)) and self.k >= 1,
            "k",
            "KNN",
            "a positive int",
            self.k,
            "The usual value is 10.",
        )
        return int(self.k)

    def _estimate(self, landscape: Landscape) -> Landscape:
        if landscape.neighbourhoods is None:
            return landscape
        k = min(self.k, int(landscape.neighbourhoods.neighbours.size.min()))
        return knn_landscape(landscape, np.full(len(landscape.support.points), k))


@dataclass(kw_only=True, eq=False, repr=False)
class PAk(KStarNN):
    """Log density by PAk: k* neighbours among which the density varies linearly in rank (Rodriguez et al. 2018).

    Parameters
    ----------
    dimension, max_neighbours, significance, period, resolution, method, device, engine
        As for `KStarNN`.

    Attributes
    ----------
    log_density_, log_density_error_, k_star_, dimension_, landscape_
        As for `KStarNN`.
    """

    _kind: ClassVar[str] = "pak"

    def _estimate(self, landscape: Landscape) -> Landscape:
        return pak_landscape(landscape)


@dataclass(kw_only=True, eq=False, repr=False)
class BMTI(KStarNN):
    """Log density by binless multidimensional thermodynamic integration (Carli et al. 2024).

    Gradients from the mean shift of neighbours predict differences of the log density along the edges of the
    neighbour graph; the log density is their weighted least-squares fit.

    Parameters
    ----------
    alpha : float
        1 uses the edges alone, one free constant per connected component being set by the mean of the k* estimate;
        below 1, 1 - alpha is the share of that estimate in the likelihood.
    weights : {"uncorrelated", "identity", "lsdi"}
        Weights of the edges.
    sharpen : bool
        Whether gradients are corrected for the width of the neighbourhoods, which makes those of the reference too
        small where the density is steep.
    max_edges : int or None
        Most edges of a point, spread over its neighbours; None keeps all, as the reference does.
    samples : int
        Samples of the multiplier bootstrap the errors come from; 0 gives the errors of the k* estimate.
    tolerance : float
        Relative error, in the energy norm, of the solver.
    random_state : int
        Seed of the bootstrap.
    dimension, max_neighbours, significance, period, resolution, method, device, engine
        As for `KStarNN`.

    Attributes
    ----------
    log_density_, log_density_error_, k_star_, dimension_, landscape_
        As for `KStarNN`.
    gradient_ : ndarray of float64, shape (n_points, n_features)
        Gradient of the log density.
    n_iter_ : int
        Iterations of the solver.
    """

    alpha: float = 1.0
    weights: str = "uncorrelated"
    sharpen: bool = True
    max_edges: int | None = 40
    samples: int = 32
    tolerance: float = 1e-10
    random_state: int = 0

    _kind: ClassVar[str] = "bmti"

    def _estimate(self, landscape: Landscape) -> Landscape:
        check(0 < self.alpha <= 1, "alpha", "BMTI", "a float in (0, 1]", self.alpha, "The usual value is 1.")
        check(
            self.samples == 0 or self.samples >= 2,
            "samples",
            "BMTI",
            "0 or an int of at least 2",
            self.samples,
            "The usual value is 32.",
        )
        found, self.n_iter_ = bmti_landscape(
            landscape,
            alpha=self.alpha,
            weights=self.weights,
            sharpen=self.sharpen,
            max_edges=self.max_edges,
            samples=self.samples,
            tolerance=self.tolerance,
            seed=self.random_state,
        )
        return found

    def _adopt(self, landscape: Landscape) -> BMTI:
        super()._adopt(landscape)
        slope = landscape.gradient
        self.gradient_ = (
            np.zeros((len(self.log_density_), self.n_features_in_))
            if slope is None
            else slope[landscape.support.inverse]
        )
        return self
