"""Figures of clusters: projection, dendrogram, dimension against scale, population against time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster.dimension import gride_scaling
from asenequip.cluster.estimator import EnvironmentClusters

__all__ = ["draw"]

MOST_CLUSTERS = 20
"""Clusters that get a colour and a line of their own, the largest."""
MOST_POINTS = 20_000
"""Points of the projection."""


def _axes(width: float = 6.0, height: float = 4.5) -> tuple[Any, Any]:
    """Make a figure of its own, without pyplot and its global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def draw(model: EnvironmentClusters, population: NDArray, folder: Path) -> list[Path]:
    """Draw the figures of a fitted model into a folder.

    Parameters
    ----------
    model : EnvironmentClusters
    population : ndarray of int, shape (n_frames, n_clusters)
    folder : Path

    Returns
    -------
    list of Path
    """
    paths = [folder / name for name in ("projection.png", "dendrogram.png", "dimension.png", "population.png")]
    for path, function in zip(paths[:3], (_projection, _dendrogram, _dimension), strict=True):
        figure, axes = _axes()
        function(model, axes)
        figure.savefig(path, dpi=150)
    figure, axes = _axes()
    for one in np.argsort(-population.sum(axis=0), kind="stable")[:MOST_CLUSTERS]:
        axes.plot(population[:, one], label=str(one), lw=1)
    axes.set(xlabel="frame", ylabel="atoms")
    axes.legend(title="cluster", fontsize="x-small", ncols=2)
    figure.savefig(paths[3], dpi=150)
    return paths


def _projection(model: EnvironmentClusters, axes: Any) -> None:
    """First two principal components of the environments of the fit."""
    shown = 0
    for key, peaks in model.models_.items():
        every = -(-len(peaks.peaks_.labels) // MOST_POINTS)  # points are near in order where they are near in space
        points = peaks.density_.landscape_.support.points[::every]
        labels = peaks.peaks_.labels[::every] + model.offsets_[key]
        centred = points - points.mean(axis=0)
        _, vectors = np.linalg.eigh(centred.T @ centred)
        plane = centred @ vectors[:, ::-1][:, :2]
        if plane.shape[1] == 1:
            plane = np.hstack([plane, np.zeros_like(plane)])
        for one in np.unique(labels):
            inside = labels == one
            name = str(one) if shown < MOST_CLUSTERS else None
            axes.plot(*plane[inside].T, ".", ms=2, label=name)
            shown += 1
    axes.set(xlabel="first principal component", ylabel="second principal component")
    axes.legend(title="cluster", fontsize="x-small", markerscale=4, ncols=2)


def _dendrogram(model: EnvironmentClusters, axes: Any) -> None:
    """Tree of the clusters by their saddles, of the model with most clusters."""
    from scipy.cluster.hierarchy import dendrogram

    key = max(model.models_, key=lambda k: model.models_[k].n_clusters_)
    peaks = model.models_[key]
    axes.set(xlabel="cluster", ylabel="ln density below the highest peak")
    if peaks.n_clusters_ < 2:
        axes.text(0.5, 0.5, "one cluster", transform=axes.transAxes, ha="center")
        return
    labels = np.arange(peaks.n_clusters_) + model.offsets_[key]
    dendrogram(peaks.linkage(), ax=axes, labels=labels.tolist(), color_threshold=0, above_threshold_color="k")


def _dimension(model: EnvironmentClusters, axes: Any) -> None:
    """Intrinsic dimension by Gride against the distance it is seen at."""
    for key, peaks in model.models_.items():
        hood = peaks.density_.landscape_.neighbourhoods
        if hood is None:
            continue
        lists, width = hood.neighbours, int(hood.neighbours.size.min()) + 1
        near = lists.gather(lists.distances, 0, np.full(lists.n_points, width)).reshape(-1, width)
        scaling = gride_scaling(near, 2 ** int(np.log2(width - 1)))
        axes.errorbar(scaling.scales, scaling.dimensions, scaling.errors, marker="o", label=str(key or "all"))
    axes.set(xlabel="distance", ylabel="intrinsic dimension", xscale="log", ylim=(0, None))
    if axes.has_data():
        axes.legend(title="atomic number")
