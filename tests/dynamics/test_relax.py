"""Relaxation in batches: each structure takes the path it takes alone with ASE."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE, LBFGS
from scipy.optimize import minimize_scalar

from asenequip.relax import relax

ROUNDING = 1e-9
"""Angstrom: EMT's sums take another order after its list has seen other atoms."""


def rattled(seed: int, size: int = 2) -> Atoms:
    atoms = bulk("Cu", cubic=True) * (size, 1, 1)
    atoms.rattle(0.1, seed=seed)
    return atoms


@pytest.mark.parametrize("cell", ["fixed", "full"])
@pytest.mark.parametrize(("name", "kind"), [("lbfgs", LBFGS), ("bfgs", BFGS), ("fire", FIRE)])
@pytest.mark.filterwarnings("ignore:logm result may be inaccurate")  # from ASE's own run, the oracle
def test_batch_takes_ases_path(name, kind, cell):
    frames = [rattled(k, size) for k, size in enumerate((1, 2, 3))]
    found = relax(frames, EMT(), fmax=0.02, cell=cell, optimizer=name)
    for atoms, entry in zip(frames, found, strict=True):
        atoms.calc = EMT()
        alone = kind(FrechetCellFilter(atoms) if cell == "full" else atoms, logfile=None)
        alone.run(fmax=0.02, steps=500)
        assert entry.converged
        assert entry.steps == alone.nsteps
        assert np.abs(entry.atoms.positions - atoms.positions).max() < ROUNDING
        assert np.abs(entry.atoms.cell - atoms.cell).max() < ROUNDING


def test_lattice_constant_is_the_minimum_of_the_energy():
    def energy(a: float) -> float:
        atoms = bulk("Cu", a=a)
        atoms.calc = EMT()
        return atoms.get_potential_energy()

    best = minimize_scalar(energy, bounds=(3.4, 3.8), method="bounded", options={"xatol": 1e-7}).x
    (entry,) = relax(bulk("Cu", a=3.7), EMT(), fmax=1e-5, cell="isotropic")
    assert entry.atoms.cell.array[0].max() * 2 == pytest.approx(best, abs=1e-4)  # xatol and fmax allow 1e-5


def test_cell_comes_to_the_pressure():
    (entry,) = relax(rattled(0), EMT(), fmax=1e-4, cell="full", pressure=3.0)
    stress = entry.atoms.get_stress()
    assert stress == pytest.approx([-3.0 * units.GPa] * 3 + [0] * 3, abs=1e-5)


def test_a_bad_structure_is_named_and_the_others_finish_in_order():
    unknown, twin = molecule("SiH4"), rattled(0)
    twin.positions[1] = np.nan
    found = relax([rattled(1), unknown, rattled(2), twin, rattled(3)], EMT(), fmax=0.05)
    assert [bool(entry.error) for entry in found] == [False, True, False, True, False]
    assert [entry.converged for entry in found] == [True, False, True, False, True]
    alone = [relax(rattled(k), EMT(), fmax=0.05)[0].atoms.positions for k in (1, 2, 3)]
    assert all(np.abs(found[2 * k].atoms.positions - alone[k]).max() < ROUNDING for k in range(3))


def test_constraints_hold():
    atoms = rattled(0)
    atoms.set_constraint(FixAtoms([2]))
    (entry,) = relax(atoms, EMT(), fmax=0.05)
    assert entry.converged
    assert np.array_equal(entry.atoms.positions[2], atoms.positions[2])
    assert not np.array_equal(entry.atoms.positions[1], atoms.positions[1])


def test_batches_do_not_change_the_outcome():
    frames = [rattled(k) for k in range(5)]
    together, apart = relax(frames, EMT(), fmax=0.05), relax(frames, EMT(), fmax=0.05, batch=2)
    pairs = [(a.atoms.positions, b.atoms.positions) for a, b in zip(together, apart, strict=True)]
    assert max(np.abs(a - b).max() for a, b in pairs) < ROUNDING


def test_a_molecule_has_no_cell_to_relax():
    (entry,) = relax(molecule("H2O"), EMT(), cell="full")
    assert "cannot be relaxed" in entry.error


def test_steps_are_a_limit():
    (entry,) = relax(rattled(0), EMT(), fmax=1e-6, steps=3)
    assert (entry.steps, entry.converged) == (3, False)


@pytest.mark.parametrize(
    ("name", "value"), [("fmax", 0.0), ("steps", -1), ("cell", "c"), ("optimizer", "newton"), ("batch", 0)]
)
def test_refuses(name, value):
    with pytest.raises(ValueError, match=f"The '{name}' parameter of relax must be .* Got .* instead"):
        relax(rattled(0), EMT(), **{name: value})


def test_symmetry_is_kept_and_made_exact():
    """From a start that is off by 0.002 Angstrom, as structures from files are."""
    pytest.importorskip("spglib")
    from ase.spacegroup.symmetrize import check_symmetry

    def space_group(atoms: Atoms) -> int:
        return check_symmetry(atoms, 1e-4).number

    atoms = bulk("Cu", "bcc", a=2.9, cubic=True)
    atoms.positions[1] += 0.002
    atoms.set_cell(np.asarray(atoms.cell) * [1.0, 1.0005, 1.0], scale_atoms=True)
    free = relax(atoms, EMT(), cell="full", fmax=1e-4)[0]
    kept = relax(atoms, EMT(), cell="full", fmax=1e-4, keep_symmetry=True)[0]
    assert free.converged
    assert kept.converged
    assert space_group(kept.atoms) == 229
    assert space_group(free.atoms) != 229
    assert kept.atoms.constraints == []


def test_shape_relaxes_at_its_volume():
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(np.asarray(atoms.cell) * [1.0, 1.04, 0.97], scale_atoms=True)
    found = relax(atoms, EMT(), cell="shape", fmax=1e-4)[0]
    assert found.converged
    assert found.atoms.get_volume() == pytest.approx(atoms.get_volume(), rel=1e-9)
    assert np.ptp(found.atoms.cell.lengths()) < 1e-3  # cubic again


def test_a_molecule_has_no_space_group_to_keep_and_does_not_stop_the_crystals():
    pytest.importorskip("spglib")
    molecule_, crystal = relax([molecule("H2O"), bulk("Cu")], EMT(), keep_symmetry=True)
    assert "no space group" in molecule_.error
    assert not molecule_.converged
    assert crystal.converged
    assert not crystal.error
