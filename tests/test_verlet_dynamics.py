"""The kept neighbour list against a rebuilt one over long dynamics in which the cell moves too."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.nose_hoover_chain import IsotropicMTKNPT

from asenequip.evaluate import ListCache
from asenequip.neighbors import Edges, find_edges

CUTOFF = 5.0


def within(edges: Edges, positions: np.ndarray, cell: np.ndarray) -> set[tuple[int, ...]]:
    centers, neighbors, shifts = edges
    vectors = positions[neighbors] - positions[centers] + shifts @ cell
    keep = np.linalg.norm(vectors, axis=1) < CUTOFF
    return set(map(tuple, np.column_stack([centers, neighbors, shifts])[keep].tolist()))


@pytest.mark.slow
def test_kept_list_is_the_rebuilt_list_over_ten_thousand_steps_of_npt() -> None:
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.calc = EMT()
    spread = np.sqrt(atoms.get_masses() * 900 * units.kB)[:, None]
    atoms.set_momenta(spread * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    fs = units.fs
    dynamics = IsotropicMTKNPT(atoms, 4 * fs, temperature_K=900, pressure_au=0.0, tdamp=100 * fs, pdamp=1000 * fs)
    lists, seen, cells = ListCache(CUTOFF, skin=0.6), 0, set()
    for _ in range(10_000):
        dynamics.run(1)
        cell = atoms.cell.array
        kept = lists.list_for(atoms).edges(atoms.positions, cell, atoms.pbc)
        fresh = find_edges(atoms.positions, cell, atoms.pbc, CUTOFF)
        assert within(kept, atoms.positions, cell) == within(fresh, atoms.positions, cell)
        seen += 1
        cells.add(cell[0, 0])
    assert len(cells) > 5000, "the cell should have moved"
    assert 1 < lists.builds < seen / 5, "the list should have been kept most of the time, and rebuilt"
