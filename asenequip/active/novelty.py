"""How unlike known environments an environment is: distance to the nearest of them, and their density there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms

from asenequip.cluster import BMTI
from asenequip.cluster.neighbours import cross_neighbours, nearest_neighbours
from asenequip.errors import parameter_error


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
                wanted = f"frames with at least {self.k + 2} environments of atomic number {number}"
                raise parameter_error("frames", "Novelty.fit", wanted, f"{len(points)} environments")
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
