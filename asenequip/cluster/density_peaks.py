"""The scikit-learn estimator of clusters as density peaks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin, clone
from sklearn.utils.validation import check_is_fitted

from asenequip.cluster._checks import as_points, check
from asenequip.cluster.estimators import BMTI, KStarNN, _nearest
from asenequip.cluster.landscape import new_points, predict_log_density
from asenequip.cluster.peaks import Peaks, dendrogram_linkage, density_peaks, first_labelled

__all__ = ["DensityPeaks"]


class DensityPeaks(ClusterMixin, BaseEstimator):
    """Clusters as the statistically significant peaks of the density (d'Errico et al. 2021).

    Parameters
    ----------
    z : float
        How many standard deviations a peak must rise above its saddles; the only parameter of the method.
    density : estimator, optional
        `BMTI()`, `PAk()`, `KStarNN()` or `KNN()`; it is cloned and fitted. `BMTI()` unless given.

    Attributes
    ----------
    labels_ : ndarray of int64, shape (n_points,)
        Cluster of each point, numbered by decreasing size.
    halo_ : ndarray of bool, shape (n_points,)
        Points below the highest saddle of their cluster.
    probabilities_ : ndarray of float64, shape (n_points,)
        Probability that a point lies above the highest saddle of its cluster, given the errors of both.
    n_clusters_ : int
    centres_ : ndarray of int64, shape (n_clusters,)
        The point at each peak.
    log_density_, log_density_error_ : ndarray of float64, shape (n_points,)
    saddles_, saddle_errors_ : ndarray of float64, shape (n_clusters, n_clusters)
        Log density at the saddles, -inf where two clusters do not touch, and its error.
    density_ : estimator
        The fitted density.
    peaks_ : Peaks
        The same on distinct points.
    """

    def __init__(self, z: float = 1.65, density: Any = None) -> None:
        self.z = z
        self.density = density

    def fit(self, X: ArrayLike, y: Any = None) -> DensityPeaks:
        """Cluster the points `X`, shape (n_points, n_features)."""
        real = isinstance(self.z, (int, float, np.number)) and self.z >= 0
        check(real, "z", "DensityPeaks", "a float of at least 0", self.z, "The usual value is 1.65.")
        density = BMTI() if self.density is None else self.density
        check(
            isinstance(density, KStarNN),
            "density",
            "DensityPeaks",
            "one of BMTI(), PAk(), KStarNN(), KNN()",
            density,
            "Leave it out for BMTI().",
        )
        return self._adopt(clone(density).fit(X))

    def _adopt(self, density: KStarNN) -> DensityPeaks:
        self.density_ = density
        self.n_features_in_ = density.n_features_in_
        landscape = density.landscape_
        support, hood = landscape.support, landscape.neighbourhoods
        if hood is None:
            peaks = _discrete(support.counts)
        else:
            peaks = density_peaks(
                landscape.log_density,
                landscape.error,
                hood.neighbours,
                np.minimum(hood.k_star, hood.neighbours.size),
                self.z,
                landscape.counts,
            )
        self.peaks_ = peaks
        self.labels_ = peaks.labels[support.inverse]
        self.halo_ = peaks.halo[support.inverse]
        self.n_clusters_ = len(peaks.centres)
        self.centres_ = support.first[peaks.centres]
        self.saddles_, self.saddle_errors_ = peaks.saddles, peaks.saddle_errors
        self.log_density_, self.log_density_error_ = density.log_density_, density.log_density_error_
        self.probabilities_ = self._above(self.log_density_, self.log_density_error_, self.labels_)
        return self

    def _above(self, log_density: NDArray, error: NDArray, labels: NDArray) -> NDArray:
        """Probability that the log density exceeds the cluster's highest saddle."""
        from scipy.special import ndtr

        height, width = self.peaks_.highest_saddles()
        return ndtr((log_density - height[labels]) / np.hypot(error, width[labels]))

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Give the cluster of new points, shape (n_queries,)."""
        return self.predict_all(X)["labels"]

    def predict_all(self, X: ArrayLike) -> dict[str, NDArray]:
        """Give everything known about new points.

        A new point gets the label of the first of its neighbours, outwards, that is higher than itself, or of the
        nearest if none is.

        Parameters
        ----------
        X : array_like, shape (n_queries, n_features)

        Returns
        -------
        dict of ndarray, shape (n_queries,)
            "labels", "halo", "probabilities", "log_density", "log_density_error".
        """
        check_is_fitted(self, "peaks_")
        points = as_points(X, "DensityPeaks", features=self.n_features_in_)
        landscape = self.density_.landscape_
        if landscape.neighbourhoods is None:
            value, error = self.density_.predict_log_density(points)
            labels = self.peaks_.labels[_nearest(points, landscape)[1]]
        else:
            found = new_points(landscape, points)
            value, error = predict_log_density(landscape, points, self.density_._kind, found)
            neighbours, _, twin = found
            level = landscape.log_density - landscape.error
            lists = neighbours.lists()
            parent = first_labelled(-level, -(value - error), lists)
            parent = np.where(parent < 0, neighbours.indices[:, 1], parent)
            labels = self.peaks_.labels[np.where(twin >= 0, twin, parent)]
        return {
            "labels": labels,
            "halo": value < self.peaks_.highest_saddles()[0][labels],
            "probabilities": self._above(value, error, labels),
            "log_density": value,
            "log_density_error": error,
        }

    def score_samples(self, X: ArrayLike) -> NDArray:
        """Estimate the log density at new points, shape (n_queries,)."""
        check_is_fitted(self, "peaks_")
        return self.density_.score_samples(X)

    def linkage(self) -> NDArray:
        """Give the tree in which the clusters join at their saddles, shape (n_clusters - 1, 4), for scipy."""
        check_is_fitted(self, "peaks_")
        return dendrogram_linkage(self.peaks_, self.density_.landscape_.log_density)


def _discrete(counts: NDArray) -> Peaks:
    """Peaks of a few distinct points: each its own."""
    count = len(counts)
    order = np.argsort(-counts, kind="stable")
    labels = np.empty(count, np.int64)
    labels[order] = np.arange(count)
    none = np.full((count, count), -np.inf)
    return Peaks(labels, order, none, np.zeros((count, count)), np.full((count, count), -1), np.zeros(count, bool))
