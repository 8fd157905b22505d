"""How unlike known environments an environment is: distance to the nearest of them, density and clusters of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from asenequip.cluster import BMTI, DensityPeaks, EnvironmentClusters, KStarNN
from asenequip.cluster.neighbours import cross_neighbours, nearest_neighbours
from asenequip.errors import parameter_error

_FEWEST = 12
"""Environments of an element that the test of density peaks needs to tell anything."""


class Novelty:
    """Distance of environments to the nearest known ones, in units of the known ones' own distances.

    One set of environments per species. Each feature is centred and divided by its deviation over the known
    environments of the species; the distance to the k-th nearest is divided by the ``quantile`` of the same distance
    among the known: above 1 an environment is farther out than nearly all known ones are from each other.

    Parameters
    ----------
    descriptor : callable
        Rows (n, d) of a frame's atoms, such as ``calculator.descriptors``.
    k : int
        Which neighbour.
    quantile : float
        In (0, 1].
    max_points : int
        Known environments kept per species, drawn at random.
    seed : int

    Attributes
    ----------
    known_ : dict of int to (m, d) float64
        Scaled features of the known environments of each atomic number.
    unit_ : dict of int to float
        Distance that counts as 1.
    """

    def __init__(
        self,
        descriptor: Callable[[Atoms], np.ndarray],
        *,
        k: int = 3,
        quantile: float = 0.95,
        max_points: int = 5000,
        seed: int = 0,
    ) -> None:
        if not isinstance(k, int) or k < 1:
            raise parameter_error("k", "Novelty", "an integer >= 1", k)
        if not 0 < quantile <= 1:
            raise parameter_error("quantile", "Novelty", "a float in (0, 1]", quantile)
        self.descriptor, self.k, self.quantile = descriptor, k, quantile
        self.max_points, self.seed = max_points, seed
        self.known_: dict[int, np.ndarray] = {}
        self.unit_: dict[int, float] = {}
        self._scaling: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def fit(self, frames: Sequence[Atoms]) -> Novelty:
        """Take the environments of frames as the known ones.

        Raises
        ------
        ValueError
            If a species has fewer than k + 2 environments.
        """
        rng = np.random.default_rng(self.seed)
        rows = [np.asarray(self.descriptor(atoms), np.float64) for atoms in frames]
        numbers = np.concatenate([atoms.numbers for atoms in frames]) if len(frames) else np.zeros(0, int)
        for number in np.unique(numbers):
            points = np.concatenate(rows)[numbers == number]
            if len(points) < self.k + 2:
                raise ValueError(
                    f"Novelty needs at least {self.k + 2} known environments of {chemical_symbols[number]}. "
                    f"The known frames have {len(points)}.\nAdd frames to these, or choose by another method."
                )
            points = points[rng.permutation(len(points))[: self.max_points]]
            mean, spread = points.mean(axis=0), points.std(axis=0)
            self._scaling[int(number)] = mean, np.where(spread > 0, spread, 1.0)
            points = self._scaled(int(number), points)
            own = nearest_neighbours(points, self.k).distances[:, self.k]
            self.known_[int(number)] = points
            self.unit_[int(number)] = max(float(np.quantile(own, self.quantile)), np.finfo(float).tiny)
        return self

    def __call__(self, atoms: Atoms) -> np.ndarray:
        """Novelty of each atom of a frame, (n,) float64; infinite for a species that is not known at all."""
        rows = np.asarray(self.descriptor(atoms), np.float64)
        found = np.full(len(atoms), np.inf)
        for number, known in self.known_.items():
            mine = np.flatnonzero(atoms.numbers == number)
            if len(mine):
                distances, _ = cross_neighbours(self._scaled(number, rows[mine]), known, self.k)
                found[mine] = distances[:, -1] / self.unit_[number]
        return found

    def log_density(self, atoms: Atoms, max_points: int = 2000) -> np.ndarray:
        """Log density of the known environments at each atom's, (n,) float64, by BMTI; -inf for unknown species.

        Carli et al. 2024; the landscape is estimated on at most ``max_points`` known environments of each species,
        and reached outside of them by its nearest neighbours, see `asenequip.cluster.BMTI`. Low: rare.
        """
        rows = np.asarray(self.descriptor(atoms), np.float64)
        found = np.full(len(atoms), -np.inf)
        for number, known in self.known_.items():
            mine = np.flatnonzero(atoms.numbers == number)
            if len(mine):
                landscape = BMTI().fit(known[:max_points])
                found[mine] = landscape.predict_log_density(self._scaled(number, rows[mine]))[0]
        return found

    def _scaled(self, number: int, rows: np.ndarray) -> np.ndarray:
        mean, spread = self._scaling[number]
        return (rows - mean) / spread


class Sparsity:
    """How far the density of the known environments is below what is usual in their clusters; above 0: outside of all.

    The known environments of each element are clustered by the peaks of their density. Sparsity is the floor of the
    cluster that an environment falls to minus the log density there; the floor is the ``quantile`` of the log densities
    of the cluster's known members.

    Parameters
    ----------
    descriptor : callable
        Rows (n, d) of a frame's atoms, such as ``calculator.descriptors``.
    z : float
        Significance of the peaks, see `asenequip.cluster.DensityPeaks`.
    quantile : float
        In (0, 1).
    halo : bool
        Raise the floor of each cluster to its highest saddle, so that its halo is outside too. That finds what is
        between clusters, but the outskirts of each with it: a third of all for two normal blobs five deviations apart.
    max_points : int
        Known environments kept per element, drawn at random.
    seed : int

    Attributes
    ----------
    clusters_ : asenequip.cluster.EnvironmentClusters
        Of the known environments. Its density is that of neighbours, which falls without bound far away from them.
    floors_ : (n_clusters,) float64
    """

    def __init__(
        self,
        descriptor: Callable[[Atoms], np.ndarray],
        *,
        z: float = 1.65,
        quantile: float = 0.01,
        halo: bool = False,
        max_points: int = 5000,
        seed: int = 0,
    ) -> None:
        if not 0 < quantile < 1:
            raise parameter_error("quantile", "Sparsity", "a float in (0, 1)", quantile)
        self.descriptor, self.z, self.quantile, self.halo = descriptor, z, quantile, halo
        self.max_points, self.seed = max_points, seed

    def fit(self, frames: Sequence[Atoms]) -> Sparsity:
        """Take the environments of frames as the known ones.

        Raises
        ------
        ValueError
            If an element has too few environments for clusters.
        """
        numbers = np.concatenate([atoms.numbers for atoms in frames]) if len(frames) else np.zeros(0, int)
        for number, count in zip(*np.unique(numbers, return_counts=True), strict=True):
            if count < _FEWEST:
                raise ValueError(
                    f"Clusters need at least {_FEWEST} known environments of {chemical_symbols[number]}. "
                    f"The known frames have {count}.\nAdd frames to these, or choose by another method."
                )
        self.clusters_ = EnvironmentClusters(
            self.descriptor,
            z=self.z,
            density=KStarNN(),
            species="separately",
            sample=self.max_points,
            random_state=self.seed,
        ).fit(frames)
        self.floors_ = np.concatenate([self._floors(self.clusters_.models_[key]) for key in self.clusters_.offsets_])
        return self

    def _floors(self, peaks: DensityPeaks) -> np.ndarray:
        members = [peaks.log_density_[peaks.labels_ == k] for k in range(peaks.n_clusters_)]
        floors = np.array([np.quantile(values, self.quantile) for values in members])
        return np.maximum(floors, peaks.saddles_.max(axis=1)) if self.halo else floors

    def __call__(self, atoms: Atoms) -> np.ndarray:
        """Sparsity at each atom of a frame, (n,) float64; infinite for an element that is not known at all."""
        found = np.full(len(atoms), np.inf)
        known = np.flatnonzero(np.isin(atoms.numbers, list(self.clusters_.models_)))
        if len(known):
            rows = np.asarray(self.descriptor(atoms), np.float64)[known]
            labelled = self.clusters_.label(atoms[known], rows)
            found[known] = self.floors_[labelled.arrays["cluster"]] - labelled.arrays["log_density"]
        return found
