"""Density, intrinsic dimension and density peaks of points, and of the environments of atoms.

Points are arrays of shape (n_points, n_features); estimators follow scikit-learn (`fit`, `predict`, `score_samples`).
Atoms go in and come out as frames: `EnvironmentClusters(descriptor=...).fit(frames).transform(frames)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asenequip.lazy import lazy_names

if TYPE_CHECKING:
    from asenequip.cluster.compare import (
        differentiable_imbalance,
        greedy_selection,
        information_imbalance,
        select_features,
    )
    from asenequip.cluster.density_peaks import DensityPeaks
    from asenequip.cluster.descriptors import SOAP, Averaged, CallableDescriptor
    from asenequip.cluster.dimension_estimators import Gride, TwoNN
    from asenequip.cluster.estimator import EnvironmentClusters
    from asenequip.cluster.estimators import BMTI, KNN, KStarNN, PAk
    from asenequip.cluster.neighbours import nearest_neighbours
    from asenequip.cluster.report import cluster_file

_HOMES = {
    "Averaged": "descriptors",
    "BMTI": "estimators",
    "KNN": "estimators",
    "SOAP": "descriptors",
    "CallableDescriptor": "descriptors",
    "DensityPeaks": "density_peaks",
    "EnvironmentClusters": "estimator",
    "Gride": "dimension_estimators",
    "KStarNN": "estimators",
    "PAk": "estimators",
    "TwoNN": "dimension_estimators",
    "cluster_file": "report",
    "differentiable_imbalance": "compare",
    "greedy_selection": "compare",
    "information_imbalance": "compare",
    "nearest_neighbours": "neighbours",
    "select_features": "compare",
}

__all__ = [
    "BMTI",
    "KNN",
    "SOAP",
    "Averaged",
    "CallableDescriptor",
    "DensityPeaks",
    "EnvironmentClusters",
    "Gride",
    "KStarNN",
    "PAk",
    "TwoNN",
    "cluster_file",
    "differentiable_imbalance",
    "greedy_selection",
    "information_imbalance",
    "nearest_neighbours",
    "select_features",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
