"""Verlet lists of the structures seen last, so that several can take turns without losing theirs."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from asenequip.neighbors import VerletList


@dataclass
class _Kept:
    owner: weakref.ref[Atoms]
    verlet: VerletList


class ListCache:
    """Verlet lists of the structures seen last, so that several can take turns without losing theirs.

    A list is reused wherever the numbers allow it, whichever object they come in; an object whose list has expired gets
    a new one in the place of the old.

    Parameters
    ----------
    cutoff, skin : float
        Angstrom.
    capacity : int
        Lists kept.
    max_edges : int
        Edges kept in all lists together.
    """

    def __init__(self, cutoff: float, skin: float, capacity: int = 64, max_edges: int = 50_000_000) -> None:
        self.cutoff, self.skin = cutoff, skin
        self.capacity, self.max_edges = capacity, max_edges
        self._kept: list[_Kept] = []

    def list_for(self, atoms: Atoms) -> VerletList:
        """A list for this structure, valid or about to be rebuilt."""
        cell, pbc = np.asarray(atoms.cell, np.float64), np.asarray(atoms.pbc, bool)
        mine = [k for k, kept in enumerate(self._kept) if kept.owner() is atoms]
        others = [k for k in range(len(self._kept)) if k not in mine]
        for k in mine + others:
            if self._kept[k].verlet.is_valid(atoms.positions, cell, pbc):
                return self._use(k)
        if mine:
            return self._use(mine[0])
        self._kept.insert(0, _Kept(weakref.ref(atoms), VerletList(self.cutoff, self.skin)))
        self._trim()
        return self._kept[0].verlet

    @property
    def builds(self) -> int:
        """How many times the lists now kept were built."""
        return sum(kept.verlet.builds for kept in self._kept)

    def _use(self, k: int) -> VerletList:
        self._kept.insert(0, self._kept.pop(k))
        return self._kept[0].verlet

    def _trim(self) -> None:
        del self._kept[self.capacity :]
        while len(self._kept) > 1 and sum(kept.verlet.num_edges for kept in self._kept) > self.max_edges:
            self._kept.pop()
