"""Bonds that break and form, and how many atoms each class has, over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers

from asenequip.errors import parameter_error
from asenequip.interface.pairs import NeighbourSearch
from asenequip.interface.snapshots import Grouping, Snapshot
from asenequip.interface.statistics import TimeBlocks


@dataclass(frozen=True)
class BondResult:
    """Bonds over time.

    Attributes
    ----------
    times : (n_times,) float64
        ps.
    bonds : (n_times,) float64
        Mean number in each stretch of time.
    broken, formed : int
        Events since the first frame.
    events : list of (float, int, int, int)
        Time in ps, the two atoms, and +1 for a bond formed or -1 for one broken; at most `Bonds.MOST_EVENTS`.
    """

    times: np.ndarray
    bonds: np.ndarray
    broken: int
    formed: int
    events: list[tuple[float, int, int, int]]


class Bonds:
    """Follows the bonds between two elements, with hysteresis: vibrations across one distance are no events.

    Parameters
    ----------
    first, second : str
        Elements.
    form, lose : float
        A bond forms below the one and breaks above the other distance, Angstrom.
    """

    MOST_EVENTS = 10_000

    def __init__(self, first: str, second: str, form: float, lose: float) -> None:
        if not 0 < form <= lose:
            raise parameter_error("lose", "Bonds", f"at least the distance of forming, {form}", lose)
        self.first, self.second, self.form, self.lose = first, second, form, lose
        self._held: np.ndarray | None = None
        self._blocks = TimeBlocks()
        self._events: list[tuple[float, int, int, int]] = []
        self._broken = self._formed = 0

    def add(self, snapshot: Snapshot) -> None:
        """Take the next snapshot."""
        atoms = snapshot.atoms
        first, second = (atoms.numbers == atomic_numbers[symbol] for symbol in (self.first, self.second))
        one, two, distance = NeighbourSearch(atoms, self.lose, second).pairs(np.flatnonzero(first))
        if self.first == self.second:
            once = one < two
            one, two, distance = one[once], two[once], distance[once]
        keys = one * len(atoms) + two
        near = np.unique(keys[distance < self.form])
        if self._held is None:
            held = near
        else:
            held = np.union1d(np.intersect1d(self._held, keys), near)
            lost, new = np.setdiff1d(self._held, held), np.setdiff1d(held, self._held)
            self._broken, self._formed = self._broken + len(lost), self._formed + len(new)
            for sign, changed in ((-1, lost), (1, new)):
                room = self.MOST_EVENTS - len(self._events)
                self._events += [
                    (snapshot.time, int(k // len(atoms)), int(k % len(atoms)), sign) for k in changed[:room]
                ]
        self._held = held
        self._blocks.add(snapshot.time, np.array(float(len(held))))

    def result(self) -> BondResult:
        """Give what was gathered."""
        return BondResult(self._blocks.times, self._blocks.means, self._broken, self._formed, list(self._events))


@dataclass(frozen=True)
class PopulationResult:
    """Atoms of each class over time.

    Attributes
    ----------
    names : list of str
    times : (n_times,) float64
        ps.
    counts : (n_times, n_classes) float64
        Mean number of atoms in each stretch of time.
    """

    names: list[str]
    times: np.ndarray
    counts: np.ndarray


class Populations:
    """Counts the atoms of each class.

    Parameters
    ----------
    grouping : callable
    """

    def __init__(self, grouping: Grouping) -> None:
        self.grouping = grouping
        self.names: list[str] = []
        self._blocks = TimeBlocks()

    def add(self, snapshot: Snapshot) -> None:
        """Take the next snapshot."""
        labels, self.names = self.grouping(snapshot)
        self._blocks.add(snapshot.time, np.bincount(labels[labels >= 0], minlength=len(self.names)).astype(float))

    def result(self) -> PopulationResult:
        """Give what was gathered."""
        return PopulationResult(self.names, self._blocks.times, self._blocks.means)
