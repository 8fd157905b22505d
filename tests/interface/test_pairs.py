"""Neighbours against ASE's own search."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.testing import assert_allclose, assert_array_equal

from asenequip.interface import NeighbourSearch


def system(name: str) -> Atoms:
    rng = np.random.default_rng(4)
    cell = {"cubic": np.eye(3) * 8, "skewed": [[7, 0, 0], [3, 6, 0], [-2, 2, 9]], "tiny": np.eye(3) * 2.5}[name]
    count = 4 if name == "tiny" else 40
    atoms = Atoms(f"Li{count}", rng.normal(scale=30, size=(count, 3)), cell=cell, pbc=True)
    if name == "skewed":
        atoms.pbc = (True, False, True)
    return atoms


def table(first: np.ndarray, second: np.ndarray, distance: np.ndarray) -> np.ndarray:
    rows = np.column_stack([first, second, np.round(distance, 6)])
    return rows[np.lexsort(rows.T[::-1])]


@pytest.mark.parametrize("name", ["cubic", "skewed", "tiny"])
def test_all_pairs_are_those_of_ase(name):
    atoms = system(name)
    assert_allclose(table(*NeighbourSearch(atoms, 4.0).pairs()), table(*neighbor_list("ijd", atoms, 4.0)), atol=2e-6)


def test_pairs_of_a_sample_among_some_are_the_rows_of_all():
    atoms = system("cubic")
    among = np.arange(40) % 3 == 0
    centres = np.array([7, 2, 30])
    found = table(*NeighbourSearch(atoms, 4.0, among).pairs(centres))
    first, second, distance = neighbor_list("ijd", atoms, 4.0)
    kept = np.isin(first, centres) & among[second]
    assert_allclose(found, table(first[kept], second[kept], distance[kept]), atol=2e-6)


def test_the_nearest_is_the_least_of_all_pairs():
    atoms = system("skewed")
    distance, neighbour = NeighbourSearch(atoms, 4.0).nearest(np.arange(40))
    first, second, all_ = neighbor_list("ijd", atoms, 4.0)
    for atom in range(40):
        mine = first == atom
        if not mine.any():
            assert np.isinf(distance[atom])
            assert neighbour[atom] == -1
            continue
        assert_allclose(distance[atom], all_[mine].min())
        assert_array_equal(neighbour[atom], second[mine][all_[mine].argmin()])
