"""What a cluster is made of: composition, size, the atom that stands for it, its population over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from asenequip.cluster.estimator import EnvironmentClusters

__all__ = ["ClusterRow", "Tally", "environment_of", "representatives"]


@dataclass(frozen=True)
class ClusterRow:
    """One line of the table of clusters.

    Attributes
    ----------
    cluster : int
        Number of the cluster.
    size : int
        Environments that belong to it.
    share : float
        Their share of all.
    composition : dict of str to int
        Environments by element.
    halo_share : float
        Share that lies in the halo.
    mean_log_density : float
    frame, atom : int
        Where its representative, the environment at the density peak, was found.
    """

    cluster: int
    size: int
    share: float
    composition: dict[str, int]
    halo_share: float
    mean_log_density: float
    frame: int
    atom: int


def representatives(model: EnvironmentClusters) -> list[tuple[int, int]]:
    """Give frame and atom of the environment at the peak of each cluster, in the order of the clusters."""
    found = []
    for key in sorted(model.models_):
        centres = model.models_[key].centres_
        found += [(int(model.sample_frames_[key][c]), int(model.sample_atoms_[key][c])) for c in centres]
    return found


def environment_of(atoms: Atoms, atom: int, radius: float = 5.0) -> Atoms:
    """Cut out the surroundings of an atom.

    Parameters
    ----------
    atoms : ase.Atoms
    atom : int
        The atom in the middle.
    radius : float
        In Angstrom.

    Returns
    -------
    ase.Atoms
        A cluster without a cell: the atom first, at the origin, then its neighbours, periodic images included.
    """
    from ase.neighborlist import primitive_neighbor_list

    first, second, vectors = primitive_neighbor_list(
        "ijD", atoms.pbc, atoms.cell.complete(), atoms.positions, radius, numbers=atoms.numbers
    )
    near = first == atom
    numbers = np.concatenate([[atoms.numbers[atom]], atoms.numbers[second[near]]])
    return Atoms(numbers, positions=np.concatenate([np.zeros((1, 3)), vectors[near]]))


@dataclass
class Tally:
    """Counts gathered frame by frame from what `EnvironmentClusters.stream` yields.

    Parameters
    ----------
    n_clusters : int
        Number of clusters of the model.
    """

    n_clusters: int
    populations: list[NDArray] = field(default_factory=list)
    composition: list[Counter[str]] = field(default_factory=list)
    halo: NDArray = field(default_factory=lambda: np.zeros(0))
    density: NDArray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        self.composition = [Counter() for _ in range(self.n_clusters)]
        self.halo = np.zeros(self.n_clusters)
        self.density = np.zeros(self.n_clusters)

    def add(self, atoms: Atoms) -> None:
        """Count one labelled frame."""
        cluster = atoms.arrays["cluster"]
        self.populations.append(np.bincount(cluster, minlength=self.n_clusters))
        self.halo += np.bincount(cluster, atoms.arrays["halo"], minlength=self.n_clusters)
        value = atoms.arrays["log_density"]
        self.density += np.bincount(cluster, np.where(np.isfinite(value), value, 0.0), minlength=self.n_clusters)
        symbols = np.array(atoms.get_chemical_symbols())
        for one in np.unique(cluster):
            self.composition[one].update(symbols[cluster == one].tolist())

    def population(self) -> NDArray[np.int64]:
        """Give the size of each cluster in each frame, shape (n_frames, n_clusters)."""
        return np.array(self.populations, np.int64).reshape(-1, self.n_clusters)

    def rows(self, places: Iterable[tuple[int, int]]) -> list[ClusterRow]:
        """Give the table, with `places` of the representatives."""
        sizes = self.population().sum(axis=0)
        total = max(1, int(sizes.sum()))
        return [
            ClusterRow(
                cluster=one,
                size=int(sizes[one]),
                share=float(sizes[one] / total),
                composition=dict(sorted(self.composition[one].items())),
                halo_share=float(self.halo[one] / max(1, sizes[one])),
                mean_log_density=float(self.density[one] / max(1, sizes[one])),
                frame=frame,
                atom=atom,
            )
            for one, (frame, atom) in enumerate(places)
        ]
