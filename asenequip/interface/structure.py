"""Radial distribution, coordination, order: averages over samples of centres, in a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.polynomial import legendre

from asenequip.errors import parameter_error
from asenequip.interface.pairs import NeighbourSearch
from asenequip.interface.snapshots import Grouping, Snapshot, by_species
from asenequip.interface.statistics import Estimate, TimeBlocks, from_blocks

CUTOFF = 6.0
"""Angstrom: within it the neighbours that make the bond order are sought."""


@dataclass(frozen=True)
class RadialResult:
    """Partial radial distribution functions.

    Attributes
    ----------
    pairs : list of (str, str)
        Centre and neighbour.
    radii : (n_bins,) float64
        Angstrom.
    g : Estimate
        (n_pairs, n_bins); 1 without order.
    number : Estimate
        Neighbours up to the end of each bin, (n_pairs, n_bins).
    """

    pairs: list[tuple[str, str]]
    radii: np.ndarray
    g: Estimate
    number: Estimate

    def coordination(self, centre: str, neighbour: str, cutoff: float) -> Estimate:
        """Mean number of neighbours up to a distance, Angstrom."""
        row = self.pairs.index((centre, neighbour))
        half = (self.radii[1] - self.radii[0]) / 2
        column = int(np.searchsorted(self.radii + half, cutoff * (1 - 1e-9)))
        return self.number[row, min(column, len(self.radii) - 1)]


class Radial:
    """Gathers distances between elements.

    Parameters
    ----------
    cutoff : float
        Angstrom.
    bins : int
    centres : int
        Most centres of each element that are looked at in a frame, drawn at random.
    seed : int
        Of the draw.
    """

    def __init__(self, cutoff: float = 6.0, *, bins: int = 120, centres: int = 2000, seed: int = 0) -> None:
        if not isinstance(bins, (int, np.integer)) or bins < 2:
            raise parameter_error("bins", "Radial", "an integer >= 2", bins)
        self.cutoff, self.bins, self.centres = float(cutoff), int(bins), centres
        self._rng = np.random.default_rng(seed)
        self._edges = np.linspace(0, self.cutoff, self.bins + 1)
        self._number, self._g = TimeBlocks(), TimeBlocks()
        self.symbols: list[str] = []

    def add(self, snapshot: Snapshot) -> None:
        """Take the next snapshot."""
        atoms = snapshot.atoms
        kind, self.symbols = by_species(snapshot)
        kinds = len(self.symbols)
        search = snapshot.search(self.cutoff)
        counts = np.zeros((kinds, kinds, self.bins))
        for one in range(kinds):
            mine = np.flatnonzero(kind == one)
            sample = mine if len(mine) <= self.centres else self._rng.choice(mine, self.centres, replace=False)
            _, other, distance = search.pairs(sample, self.cutoff)
            column = np.minimum((distance / self.cutoff * self.bins).astype(np.int64), self.bins - 1)
            flat = np.bincount(kind[other] * self.bins + column, minlength=kinds * self.bins)
            counts[one] = flat.reshape(kinds, self.bins) / len(sample)
        shells = 4 / 3 * np.pi * np.diff(self._edges**3)
        density = np.bincount(kind, minlength=kinds) / atoms.get_volume()
        self._g.add(snapshot.time, counts / (density[None, :, None] * shells))
        self._number.add(snapshot.time, np.cumsum(counts, axis=-1))

    def result(self) -> RadialResult:
        """Average what was gathered."""
        pairs = [(a, b) for a in self.symbols for b in self.symbols]
        g, number = self._g.average(), self._number.average()
        shape = (len(pairs), self.bins)

        def flat(e: Estimate) -> Estimate:
            return Estimate(e.value.reshape(shape), e.error.reshape(shape), np.reshape(e.dof, shape))

        return RadialResult(pairs, (self._edges[1:] + self._edges[:-1]) / 2, flat(g), flat(number))


def short_range_order(atoms: Atoms, first: str, second: str, cutoff: float) -> float:
    """Order of two elements on a lattice: 1 - P(second | neighbour of first) / concentration of second.

    J. M. Cowley, Phys. Rev. 77, 669 (1950). Zero for a random alloy, negative where unlike neighbours are preferred,
    positive where like ones are.

    Parameters
    ----------
    atoms : ase.Atoms
    first, second : str
        The two elements; all others are left out.
    cutoff : float
        Of the first shell, Angstrom.
    """
    symbols = np.array(atoms.get_chemical_symbols())
    both = np.isin(symbols, (first, second))
    centres = np.flatnonzero(symbols == first)
    _, other, _ = NeighbourSearch(atoms, cutoff, both).pairs(centres)
    if not len(other):
        raise parameter_error("cutoff", "short_range_order", "a distance with neighbours", cutoff)
    concentration = (symbols == second).sum() / both.sum()
    return float(1 - (symbols[other] == second).mean() / concentration)


def bond_order(
    atoms: Atoms,
    degrees: Sequence[int] = (4, 6),
    *,
    neighbours: int = 12,
    centres: np.ndarray | None = None,
    cutoff: float = CUTOFF,
    search: NeighbourSearch | None = None,
) -> np.ndarray:
    """Bond-orientational order of each atom with its nearest neighbours.

    P. J. Steinhardt, D. R. Nelson, M. Ronchetti, Phys. Rev. B 28, 784 (1983), equation 1.3, through the addition
    theorem: q_l^2 is the mean of the Legendre polynomial P_l over the angles between all pairs of bonds.

    Parameters
    ----------
    atoms : ase.Atoms
    degrees : sequence of int
        l of each column.
    neighbours : int
        12 for close packing; 8 or 14 for bcc.
    centres : ndarray of int, optional
        Numbers of atoms; all unless given.
    cutoff : float
        Radius that holds as many neighbours, Angstrom.
    search : NeighbourSearch, optional
        One that is there already.

    Returns
    -------
    (n_centres, n_degrees) float64
        NaN where the radius holds fewer neighbours.
    """
    centres = np.arange(len(atoms)) if centres is None else np.asarray(centres)
    order = np.full((len(centres), len(degrees)), np.nan)
    search = search or NeighbourSearch(atoms, cutoff)
    for begin in range(0, len(centres), 5000):
        part = centres[begin : begin + 5000]
        one, _, vector = search.vectors(part, cutoff)
        length = np.linalg.norm(vector, axis=1)
        row = np.searchsorted(part, one, sorter=np.argsort(part))
        row = np.argsort(part)[row]
        sort = np.lexsort((length, row))
        row, vector = row[sort], vector[sort] / length[sort, None]
        first = np.searchsorted(row, np.arange(len(part)))
        enough = np.flatnonzero(np.bincount(row, minlength=len(part)) >= neighbours)
        bonds = vector[first[enough, None] + np.arange(neighbours)]
        cosine = np.clip(bonds @ bonds.transpose(0, 2, 1), -1.0, 1.0)
        for column, degree in enumerate(degrees):
            mean = legendre.legval(cosine, np.eye(degree + 1)[degree]).mean(axis=(1, 2))
            order[begin + enough, column] = np.sqrt(np.maximum(mean, 0.0))
    return order


@dataclass(frozen=True)
class OrderResult:
    """Bond-orientational order of classes.

    Attributes
    ----------
    names : list of str
    degrees : tuple of int
    order : Estimate
        Mean of q_l, (n_classes, n_degrees); NaN where a class had no atoms.
    """

    names: list[str]
    degrees: tuple[int, ...]
    order: Estimate


class Order:
    """Gathers the bond-orientational order of a sample of each class; see `bond_order`.

    Parameters
    ----------
    grouping : callable
        The classes.
    degrees : tuple of int
    neighbours : int
    centres : int
        Most atoms of each class that are looked at in a frame, drawn at random.
    seed : int
    """

    def __init__(
        self,
        grouping: Grouping,
        degrees: tuple[int, ...] = (4, 6),
        *,
        neighbours: int = 12,
        centres: int = 500,
        seed: int = 0,
    ) -> None:
        self.grouping, self.degrees, self.neighbours, self.centres = grouping, degrees, neighbours, centres
        self._rng = np.random.default_rng(seed)
        self._rows: list[np.ndarray] = []
        self.names: list[str] = []

    def add(self, snapshot: Snapshot) -> None:
        """Take the next snapshot."""
        labels, self.names = self.grouping(snapshot)
        row = np.full((len(self.names), len(self.degrees)), np.nan)
        for number in np.unique(labels[labels >= 0]):
            mine = np.flatnonzero(labels == number)
            sample = mine if len(mine) <= self.centres else self._rng.choice(mine, self.centres, replace=False)
            order = bond_order(
                snapshot.atoms,
                self.degrees,
                neighbours=self.neighbours,
                centres=sample,
                cutoff=CUTOFF,
                search=snapshot.search(CUTOFF),
            )
            known = np.isfinite(order).all(axis=1)
            if known.any():
                row[number] = order[known].mean(axis=0)
        self._rows.append(row)

    def result(self) -> OrderResult:
        """Average over the snapshots, which are taken for independent."""
        return OrderResult(self.names, self.degrees, from_blocks(np.array(self._rows)))
