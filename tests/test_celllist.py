"""The neighbour list in torch operations, on the CPU, against vesin's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from asenequip.celllist import find_edges_on_device
from asenequip.neighbors import find_edges
from asenequip.testing.systems import systems

NAMED = systems(("Cu", "O"), cutoff=3.4)


def compare(atoms: Atoms, cutoff: float, budget: int = 30_000_000, device: str = "cpu") -> None:
    wanted = find_edges(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    points = torch.from_numpy(atoms.positions).to(device)
    found = find_edges_on_device(points, atoms.cell.array, atoms.pbc, cutoff, budget)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a.cpu().numpy(), b)


@pytest.mark.parametrize("cutoff", [3.4, 9.0])
@pytest.mark.parametrize("name", NAMED)
def test_named_systems(name, cutoff):
    compare(NAMED[name], cutoff)


@settings(max_examples=80)
@given(seed=st.integers(0, 2**32 - 1), cutoff=st.floats(1.0, 7.0))
def test_any_cell_handedness_and_periodicity(seed, cutoff):
    rng = np.random.default_rng(seed)
    cell = (np.eye(3) * rng.uniform(2.0, 20.0, 3) + rng.uniform(-2.0, 2.0, (3, 3)))[rng.permutation(3)]
    atoms = Atoms("Cu" * rng.integers(1, 40), cell=cell, pbc=rng.integers(0, 2, 3).astype(bool))
    atoms.positions = rng.uniform(-1.5, 2.5, (len(atoms), 3)) @ cell
    compare(atoms, cutoff)


@pytest.mark.parametrize("budget", [1, 1000, 10**7])
def test_parts_do_not_change_the_list(budget):
    atoms = bulk("Cu", cubic=True) * (3, 4, 5) if budget > 1 else bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    compare(atoms, 5.0, budget)


@pytest.mark.parametrize("pbc", [True, (True, False, True)])
def test_a_skewed_cell(pbc):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.cell = np.array([[1, 0, 0], [0, 1, 0], [200, 0, 1]]) @ atoms.cell
    atoms.pbc = pbc
    compare(atoms, 5.0)


def test_a_collapsed_cell_is_refused():
    with pytest.raises(ValueError, match="has collapsed"):
        find_edges_on_device(torch.zeros(100, 3, dtype=torch.float64), np.eye(3) * 1e-2, np.ones(3, bool), 5.0)


@pytest.mark.gpu
def test_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    for atoms in (*NAMED.values(), bulk("Cu", cubic=True) * (10, 10, 10)):
        compare(atoms, 5.0, device="cuda")
