"""Clusters of atomic environments: frames in, the same frames with classes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from asenequip.cluster._checks import check
from asenequip.cluster.density_peaks import DensityPeaks
from asenequip.cluster.descriptors import windowed
from asenequip.cluster.distributed import described, labelled
from asenequip.cluster.estimators import BMTI

__all__ = ["EnvironmentClusters"]

ALL = 0
"""Key of the one model that all elements share."""


class EnvironmentClusters(BaseEstimator):
    """Classes of atomic environments, found as density peaks in the space of a descriptor.

    Parameters
    ----------
    descriptor : callable
        `descriptor(atoms)` gives one row per atom, shape (n_atoms, n_features): the latent features of a potential,
        `SOAP()`, or any function.
    z : float
        How many standard deviations a peak of the density must rise above its saddles.
    density : estimator, optional
        Density estimate, `BMTI()` unless given.
    species : {"jointly", "separately"}
        Whether all elements share one space, or each has its own clusters.
    window : int
        Odd number of consecutive frames over which each atom's descriptor is averaged.
    sample : int
        Most environments the density is fitted on, drawn evenly from all; the others are labelled as new ones.
    components : int, optional
        Principal components of the descriptor that are kept, all unless given.
    resolution : float
        Environments that differ by less than this times the largest feature are one.
    random_state : int
        Seed of the sample.

    Attributes
    ----------
    models_ : dict of int to DensityPeaks
        One per atomic number, or one under 0 for all.
    offsets_ : dict of int to int
        Number of the first cluster of each model.
    n_clusters_ : int
        Number of clusters of all models.
    sample_frames_, sample_atoms_ : dict of int to ndarray of int64
        Where each environment of the fit comes from.
    """

    def __init__(
        self,
        descriptor: Any = None,
        *,
        z: float = 1.65,
        density: Any = None,
        species: str = "jointly",
        window: int = 1,
        sample: int = 20_000,
        components: int | None = None,
        resolution: float = 1e-6,
        random_state: int = 0,
    ) -> None:
        self.descriptor = descriptor
        self.z = z
        self.density = density
        self.species = species
        self.window = window
        self.sample = sample
        self.components = components
        self.resolution = resolution
        self.random_state = random_state

    def _validate(self) -> None:
        owner = "EnvironmentClusters"
        check(
            callable(self.descriptor),
            "descriptor",
            owner,
            "a callable descriptor(atoms) -> (n_atoms, n_features)",
            self.descriptor,
            "Give a potential's latent features, SOAP() or a function.",
        )
        options = ("jointly", "separately")
        check(self.species in options, "species", owner, f"one of {options}", self.species, "Leave it at 'jointly'.")
        odd = isinstance(self.window, (int, np.integer)) and self.window > 0 and self.window % 2 == 1
        check(odd, "window", owner, "an odd positive int", self.window, "1 does not average.")
        check(self.sample >= 1, "sample", owner, "a positive int", self.sample, "The usual value is 20000.")

    def _keys(self, atoms: Atoms) -> NDArray:
        return atoms.numbers if self.species == "separately" else np.full(len(atoms), ALL)

    def _described(self, frames: Atoms | Iterable[Atoms], client: Any) -> Iterator[tuple[int, Atoms, NDArray]]:
        frames = [frames] if isinstance(frames, Atoms) else frames
        if client is None:
            return windowed(frames, self.descriptor, self.window)
        return described(frames, self.descriptor, self.window, client)

    def fit(self, frames: Atoms | Iterable[Atoms], y: Any = None, *, client: Any = None) -> EnvironmentClusters:
        """Find the classes of the environments of `frames`, read once, one after another.

        Parameters
        ----------
        frames : ase.Atoms or iterable of ase.Atoms
        y : ignored
        client : dask.distributed.Client, optional
            Whose workers describe the frames, with the numbers of one process.

        Returns
        -------
        EnvironmentClusters
        """
        self._validate()
        generator = np.random.default_rng(self.random_state)
        kept: dict[int, _Reservoir] = {}
        for index, atoms, rows in self._described(frames, client):
            keys = self._keys(atoms)
            for key in np.unique(keys):
                inside = np.flatnonzero(keys == key)
                pool = kept.setdefault(int(key), _Reservoir(self.sample))
                pool.add(rows[inside], np.full(len(inside), index), inside, generator)
        if not kept:
            raise ValueError(
                "The 'frames' parameter of fit must be at least one frame with atoms. Got none instead.\n"
                "Check the path and the slice the frames are read from."
            )
        self.models_: dict[int, DensityPeaks] = {}
        self.offsets_: dict[int, int] = {}
        self.projections_: dict[int, tuple[NDArray, NDArray]] = {}
        self.sample_frames_: dict[int, NDArray] = {}
        self.sample_atoms_: dict[int, NDArray] = {}
        total = 0
        for key in sorted(kept):
            rows, self.sample_frames_[key], self.sample_atoms_[key] = kept[key].contents()
            self.projections_[key] = self._projection(rows)
            points = self._project(rows, key)
            density = clone(BMTI() if self.density is None else self.density)
            if density.resolution is None:
                density.set_params(resolution=self.resolution * float(np.abs(rows).max()))
            self.models_[key] = DensityPeaks(self.z, density).fit(points)
            self.offsets_[key] = total
            total += self.models_[key].n_clusters_
        self.n_clusters_ = total
        return self

    def _projection(self, rows: NDArray) -> tuple[NDArray, NDArray]:
        """Mean and axes of the principal components, empty axes where all features are kept."""
        if self.components is None or self.components >= rows.shape[1]:
            return np.zeros(rows.shape[1]), np.empty((0, rows.shape[1]))
        mean = rows.mean(axis=0)
        return mean, _principal_axes(rows - mean, self.components)

    def _project(self, rows: NDArray, key: int) -> NDArray:
        mean, axes = self.projections_[key]
        return (rows - mean) @ axes.T if len(axes) else rows

    def stream(self, frames: Atoms | Iterable[Atoms], *, client: Any = None) -> Iterator[Atoms]:
        """Yield copies of `frames`, one after another, with the arrays that `transform` adds.

        Only `window` frames are in memory at a time, so trajectories may be larger than memory. With `client`, a
        dask.distributed.Client, its workers describe and label them, a few chunks of 16 frames at a time.
        """
        check_is_fitted(self, "models_")
        self._validate()
        if client is not None:
            yield from labelled([frames] if isinstance(frames, Atoms) else frames, self, client)
            return
        for index, atoms, rows in self._described(frames, None):
            yield self.label(atoms, rows, index)

    def label(self, atoms: Atoms, rows: NDArray, index: int = 0) -> Atoms:
        """Give a copy of a frame with the arrays that `transform` adds, from its descriptor.

        Parameters
        ----------
        atoms : ase.Atoms
        rows : ndarray of float64, shape (n_atoms, n_features)
        index : int
            Number of the frame, for the error sentence.

        Returns
        -------
        ase.Atoms
        """
        found = atoms.copy()
        found.calc = atoms.calc
        cluster = np.full(len(atoms), -1, np.int64)
        probability, density = np.zeros(len(atoms)), np.full(len(atoms), -np.inf)
        halo = np.ones(len(atoms), bool)
        keys = self._keys(atoms)
        for key in np.unique(keys):
            if int(key) not in self.models_:
                raise ValueError(
                    f"Frame {index} holds the element of atomic number {key}, which was not in the fit.\n"
                    "Fit on frames with all elements, or use species='jointly'."
                )
            inside = keys == key
            values = self.models_[int(key)].predict_all(self._project(rows[inside], int(key)))
            cluster[inside] = values["labels"] + self.offsets_[int(key)]
            probability[inside], halo[inside] = values["probabilities"], values["halo"]
            density[inside] = values["log_density"]
        found.arrays.update(cluster=cluster, cluster_probability=probability, log_density=density, halo=halo)
        return found

    def transform(self, frames: Atoms | Iterable[Atoms]) -> list[Atoms]:
        """Give copies of `frames` with what is known about every atom.

        Parameters
        ----------
        frames : ase.Atoms or iterable of ase.Atoms

        Returns
        -------
        list of ase.Atoms
            With arrays `cluster` (int), `cluster_probability`, `log_density` and `halo` (bool), shape (n_atoms,).
        """
        return list(self.stream(frames))

    def fit_transform(self, frames: Atoms | Iterable[Atoms], y: Any = None) -> list[Atoms]:
        """Fit on `frames` and label them."""
        frames = [frames] if isinstance(frames, Atoms) else list(frames)
        return self.fit(frames).transform(frames)

    def save(self, path: str | Path) -> Path:
        """Write the fitted model to one file of arrays and JSON, without pickle; see `load`."""
        from asenequip.cluster.storage import save_clusters

        check_is_fitted(self, "models_")
        return save_clusters(self, path)

    @staticmethod
    def load(path: str | Path, descriptor: Any = None) -> EnvironmentClusters:
        """Read a model that `save` wrote.

        Parameters
        ----------
        path : path
        descriptor : callable, optional
            The descriptor, needed where it was a function and not `SOAP`.
        """
        from asenequip.cluster.storage import load_clusters

        return load_clusters(path, descriptor)


def _principal_axes(rows: NDArray, count: int) -> NDArray:
    """Directions of the largest variance of centred `rows`, shape (count, n_features), from the smaller Gram matrix."""
    from scipy.linalg import eigh

    wide = rows.shape[0] < rows.shape[1]
    gram = rows @ rows.T if wide else rows.T @ rows
    size = len(gram)
    values, vectors = eigh(gram, subset_by_index=(max(0, size - count), size - 1))
    if not wide:
        return np.ascontiguousarray(vectors[:, ::-1].T)
    there = values > 1e-12 * max(values[-1], np.finfo(float).tiny)
    return ((rows.T @ vectors[:, there]) / np.sqrt(values[there]))[:, ::-1].T.copy()


class _Reservoir:
    """An even random sample of a stream of environments: those of the smallest random keys."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.parts: list[tuple[NDArray, NDArray, NDArray, NDArray]] = []
        self.held = 0

    def add(self, rows: NDArray, frames: NDArray, atoms: NDArray, generator: np.random.Generator) -> None:
        self.parts.append((generator.random(len(rows)), rows, frames, atoms))
        self.held += len(rows)
        if self.held > 2 * self.size:
            self._shrink()

    def _shrink(self) -> None:
        keys, rows, frames, atoms = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        if len(keys) > self.size:
            chosen = np.sort(np.argpartition(keys, self.size - 1)[: self.size])
            keys, rows, frames, atoms = keys[chosen], rows[chosen], frames[chosen], atoms[chosen]
        self.parts, self.held = [(keys, rows, frames, atoms)], len(keys)

    def contents(self) -> tuple[NDArray, NDArray, NDArray]:
        self._shrink()
        return self.parts[0][1:]
