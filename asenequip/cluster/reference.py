"""DADApy as an engine, and fits that travel to and from its `Data`."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from asenequip.cluster.estimators import BMTI, KNN, KStarNN, PAk
from asenequip.cluster.landscape import Landscape
from asenequip.cluster.lists import NeighbourLists
from asenequip.cluster.neighbourhoods import Neighbourhoods
from asenequip.cluster.neighbours import nearest_neighbours
from asenequip.cluster.support import Support

__all__ = ["dadapy_estimate", "from_dadapy", "to_dadapy"]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep DADApy's prints, warnings and print options to itself."""
    options = np.get_printoptions()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            np.set_printoptions(**options)


def _data_class() -> Any:
    try:
        from dadapy import Data
    except ImportError as error:
        raise ImportError(
            "The 'dadapy' engine needs DADApy, which is not installed.\n"
            "Install it with: pip install 'asenequip[dadapy]' (numpy < 2), or leave engine at 'own'."
        ) from error
    return Data


def _as_data(landscape: Landscape) -> Any:
    hood, points = landscape.hood(), landscape.support.points
    k = int(hood.neighbours.size.max())
    found = nearest_neighbours(points, k, period=landscape.period)
    data = _data_class()(coordinates=points, maxk=k, period=landscape.period, verbose=False, n_jobs=1)
    data.distances, data.dist_indices = found.distances, found.indices.astype(np.int64)
    data.intrinsic_dim = hood.dimension
    data.set_kstar(hood.k_star.astype(np.int64))
    return data


def dadapy_estimate(landscape: Landscape, estimator: Any) -> Landscape:
    """Let DADApy estimate the log density on neighbourhoods found here.

    Parameters
    ----------
    landscape : Landscape
        Distinct points and neighbourhoods; how often a point occurs is not known to DADApy.
    estimator : KNN, KStarNN, PAk or BMTI
        Which estimate, and the parameters DADApy has too.

    Returns
    -------
    Landscape
    """
    with _quiet():
        data = _as_data(landscape)
        gradient = None
        if isinstance(estimator, BMTI):
            kind = {"uncorrelated": "uncorr", "identity": "identity", "lsdi": "LSDI"}[estimator.weights]
            data.compute_density_kstarNN()
            data.compute_density_BMTI(delta_F_inv_cov=kind, solver="sp_cg", alpha=estimator.alpha)
            gradient = data.grads
        elif isinstance(estimator, PAk):
            data.compute_density_PAk()
        elif isinstance(estimator, KNN):
            data.compute_density_kNN(estimator.k)
        else:
            data.compute_density_kstarNN()
    return replace(landscape, log_density=data.log_den, error=data.log_den_err, gradient=gradient)


def to_dadapy(fitted: Any) -> Any:
    """Export a fitted density estimator to a `dadapy.Data`.

    Parameters
    ----------
    fitted : estimator
        A fitted `KNN`, `KStarNN`, `PAk` or `BMTI`.

    Returns
    -------
    dadapy.Data
        With coordinates, distances, dimension, k*, log density and its error, points in the order of the fit.
    """
    landscape = fitted.landscape_
    if not landscape.support.is_distinct:
        raise ValueError(
            "A set with identical points cannot be exported to DADApy, which gives NaN for them.\n"
            "Fit the distinct points alone."
        )
    order = landscape.support.inverse
    hood = landscape.hood()
    with _quiet():
        data = _as_data(
            replace(
                landscape,
                support=replace(landscape.support, points=landscape.support.points[order]),
                neighbourhoods=replace(hood, k_star=hood.k_star[order]),
            )
        )
    data.log_den, data.log_den_err = fitted.log_density_.copy(), fitted.log_density_error_.copy()
    return data


def from_dadapy(data: Any) -> KStarNN:
    """Import a `dadapy.Data` whose density has been computed.

    Parameters
    ----------
    data : dadapy.Data
        With coordinates, distances, k*, dimension and log density.

    Returns
    -------
    KStarNN
        Fitted, with DADApy's values; densities at new points are k*-nearest-neighbour estimates.
    """
    missing = [n for n in ("X", "distances", "kstar", "intrinsic_dim", "log_den") if getattr(data, n, None) is None]
    if missing:
        raise ValueError(
            f"The 'data' parameter of from_dadapy must be a dadapy.Data with {', '.join(missing)}. Got None instead.\n"
            "Compute distances, dimension and density first."
        )
    n = len(data.X)
    hood = Neighbourhoods(
        NeighbourLists.equal(data.distances, data.dist_indices),
        np.asarray(data.kstar, np.int64),
        float(data.intrinsic_dim),
        float((data.kstar >= data.maxk - 1).mean()),
    )
    support = Support(np.asarray(data.X, np.float64), np.ones(n), np.arange(n), np.arange(n))
    period = None if data.period is None else np.broadcast_to(np.asarray(data.period, float), data.X.shape[1:])
    landscape = Landscape(support, period, hood, 1e-6, np.array(data.log_den), np.array(data.log_den_err))
    fitted = KStarNN(dimension=float(data.intrinsic_dim), max_neighbours=int(data.maxk), period=period)
    fitted.n_features_in_ = data.X.shape[1]
    fitted._adopt(landscape)
    return fitted
