"""Neighbours of chosen atoms in a periodic cell, found with a k-d tree over the atoms and their images."""

from __future__ import annotations

import itertools

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from asenequip.errors import parameter_error

_FEW = 20_000
"""Centres that are searched at once, which bounds the memory."""


class NeighbourSearch:
    """Neighbours within a cutoff; cells of any shape, also smaller than the cutoff.

    A search over all atoms at once needs memory for all pairs; here only the pairs of the atoms asked for are made, so
    that a sample of the environments of 10^6 atoms costs little.

    Parameters
    ----------
    atoms : ase.Atoms
        With three lattice vectors along the periodic directions.
    cutoff : float
        Angstrom.
    among : ndarray of bool, shape (n_atoms,), optional
        Atoms that count as neighbours; all unless given.

    Raises
    ------
    ValueError
    """

    def __init__(self, atoms: Atoms, cutoff: float, among: np.ndarray | None = None) -> None:
        if not 0 < cutoff < np.inf:
            raise parameter_error("cutoff", "NeighbourSearch", "a float in (0, inf)", cutoff)
        self.cutoff = float(cutoff)
        self._wrapped = atoms.get_positions(wrap=True, pbc=atoms.pbc, eps=0.0) if atoms.pbc.any() else atoms.positions
        members = np.arange(len(atoms)) if among is None else np.flatnonzero(among)
        points, self._owner = _with_images(
            self._wrapped[members], members, atoms.cell.complete().array, atoms.pbc, self.cutoff
        )
        self._tree = cKDTree(points, balanced_tree=False, compact_nodes=False) if len(points) else None

    def vectors(
        self, centres: np.ndarray | None = None, cutoff: float | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of the centres with all their neighbours.

        Parameters
        ----------
        centres : ndarray of int, optional
            Numbers of atoms; all unless given.
        cutoff : float, optional
            A smaller one than that of the search.

        Returns
        -------
        centre, neighbour : ndarray of int64, shape (n_pairs,)
            Numbers of atoms; sorted by the order of ``centres``.
        vector : ndarray of float64, shape (n_pairs, 3)
            From centre to neighbour, Angstrom. An atom is no neighbour of itself, its periodic images are.
        """
        centres = np.arange(len(self._wrapped)) if centres is None else np.asarray(centres)
        cutoff = self.cutoff if cutoff is None else min(cutoff, self.cutoff)
        found = [self._chunk(centres[k : k + _FEW], cutoff) for k in range(0, len(centres), _FEW)]
        if not found or self._tree is None:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 3))
        one, two, vector = (np.concatenate(column) for column in zip(*found, strict=True))
        return one, two, vector

    def pairs(
        self, centres: np.ndarray | None = None, cutoff: float | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `vectors`, with distances (n_pairs,) in the place of the vectors."""
        one, two, vector = self.vectors(centres, cutoff)
        return one, two, np.linalg.norm(vector, axis=1)

    def _chunk(self, centres: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._tree is None:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 3))
        start = self._wrapped[centres]
        found = self._tree.query_ball_point(start, cutoff)
        counts = np.fromiter(map(len, found), np.int64, len(found))
        index = np.fromiter(itertools.chain.from_iterable(found), np.int64, counts.sum())
        row = np.repeat(np.arange(len(centres)), counts)
        one, two = centres[row], self._owner[index]
        vector = self._tree.data[index] - start[row]
        other = (one != two) | (np.einsum("za,za->z", vector, vector) > 1e-18)
        return one[other], two[other], vector[other]

    def nearest(self, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance to and number of the nearest neighbour; inf and -1 where there is none within the cutoff.

        Parameters
        ----------
        centres : ndarray of int, shape (n,)

        Returns
        -------
        distance : ndarray of float64, shape (n,)
        neighbour : ndarray of int64, shape (n,)
        """
        centres = np.asarray(centres)
        distance, neighbour = np.full(len(centres), np.inf), np.full(len(centres), -1, np.int64)
        if self._tree is None or not len(centres):
            return distance, neighbour
        d, index = self._tree.query(self._wrapped[centres], k=min(2, self._tree.n), distance_upper_bound=self.cutoff)
        d, index = d.reshape(len(centres), -1), index.reshape(len(centres), -1)
        owner = np.append(self._owner, -1)[index]
        itself = (owner[:, 0] == centres) & (d[:, 0] < 1e-9)
        column = np.where(itself & (d.shape[1] > 1), d.shape[1] - 1, 0)
        rows = np.arange(len(centres))
        distance, neighbour = d[rows, column], owner[rows, column]
        alone = itself & (d.shape[1] == 1)
        distance[alone], neighbour[alone] = np.inf, -1
        return distance, neighbour


def _with_images(
    positions: np.ndarray, members: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points and those of their images within the cutoff of the cell; with the atom that each belongs to."""
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    points, owner = positions, members
    for axis in range(3):
        if not pbc[axis]:
            continue
        margin = cutoff / heights[axis]
        fraction = points @ np.linalg.inv(cell)[:, axis]
        parts, owners = [points], [owner]
        for shift in range(1, int(np.ceil(margin)) + 1):
            for sign in (-1, 1):
                moved = fraction + sign * shift
                near = (moved > -margin - 1e-9) & (moved < 1 + margin + 1e-9)
                parts.append(points[near] + sign * shift * cell[axis])
                owners.append(owner[near])
        points, owner = np.concatenate(parts), np.concatenate(owners)
    return points, owner
