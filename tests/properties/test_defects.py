"""Surfaces and vacancies of a crystal of nearest-neighbour pairs: counting broken bonds is exact."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, InputError
from ase.calculators.emt import EMT
from pair_crystals import NEAREST, calculator, crystal, pair

from asenequip.properties import surface_energies, vacancy_energies
from asenequip.properties.surfaces import cut_slab

pytest.importorskip("spglib")

BOND = -pair(NEAREST)[0]
"""Energy of a bond in equilibrium, eV; every bond is at its minimum, so nothing relaxes."""


def test_surface_energies_count_broken_bonds():
    hexagonal, square = surface_energies(crystal(cubic=True), calculator(), [(1, 1, 1), (1, 0, 0)])
    # an atom loses 3 of 12 bonds at (111) and 4 at (100); each belongs to two surfaces
    assert hexagonal.energy == pytest.approx(3 * BOND / 2 / (3**0.5 / 2 * NEAREST**2), rel=1e-6)
    assert square.energy == pytest.approx(4 * BOND / 2 / NEAREST**2, rel=1e-6)
    assert square.unrelaxed == pytest.approx(square.energy, rel=1e-6)
    # 1 eV/Angstrom^2 = 16.0217663 J/m^2
    assert square.joule_per_m2 == pytest.approx(16.0217663 * square.energy, rel=1e-6)


class OfCrystals(EMT):
    """Knows nothing but structures of whole cells that are periodic in three directions."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()) -> None:
        if len(atoms) % 4 or not atoms.pbc.all():
            raise InputError("it has a surface or a hole")
        super().calculate(atoms, list(properties), list(system_changes))


def test_the_structure_that_could_not_be_evaluated_is_counted_among_its_like():
    atoms = bulk("Cu", cubic=True)
    with pytest.raises(CalculationFailed, match="The slab 0 could not be evaluated: it has a surface"):
        surface_energies(atoms, OfCrystals(), [(1, 1, 1)])
    with pytest.raises(CalculationFailed, match=r"The supercell with a vacancy 0 could not be evaluated: .* a hole"):
        vacancy_energies(atoms, OfCrystals(), supercell=2)


def test_slabs_reach_the_thickness_and_the_vacuum():
    found = surface_energies(crystal(cubic=True), calculator(), [(2, 1, 1)], thickness=11.0, vacuum=9.0)[0]
    height = np.ptp(found.slab.positions[:, 2])
    assert height >= 11.0
    assert found.slab.cell.lengths()[2] - height >= 9.0 - 1e-9
    assert found.slab.pbc.tolist() == [True, True, False]


def test_vacancy_costs_half_the_broken_bonds():
    found = vacancy_energies(crystal(cubic=True), calculator(), supercell=2)
    assert [entry.site for entry in found] == [0]
    # 12 bonds are broken, and the atom regains 6 in the crystal it goes to
    assert found[0].energy == pytest.approx(6 * BOND, rel=1e-6)
    assert found[0].unrelaxed == pytest.approx(6 * BOND, rel=1e-6)
    assert len(found[0].structure) == 31


def test_compounds_need_chemical_potentials_and_have_a_vacancy_for_each_site():
    from ase.calculators.emt import EMT

    atoms = bulk("CuAu", "cesiumchloride", a=3.1)
    with pytest.raises(ValueError, match="Au, Cu among them"):
        vacancy_energies(atoms, EMT(), supercell=2)
    found = vacancy_energies(atoms, EMT(), supercell=2, chemical_potentials={"Cu": 0.1, "Au": 0.2})
    assert [(entry.site, entry.symbol) for entry in found] == [(0, "Cu"), (1, "Au")]
    shifted = vacancy_energies(atoms, EMT(), supercell=2, chemical_potentials={"Cu": 0.1, "Au": 0.7})
    assert shifted[0].energy == found[0].energy
    assert shifted[1].energy == pytest.approx(found[1].energy + 0.5)


def test_slabs_of_a_compound_have_its_composition():
    for miller in ((1, 0, 0), (1, 1, 0), (2, 1, 1)):
        slab = cut_slab(bulk("CuAu", "cesiumchloride", a=3.1), miller, 8.0, 10.0)
        assert slab.symbols.count("Cu") == slab.symbols.count("Au") > 0


def test_a_miller_index_of_zeros_is_no_surface():
    with pytest.raises(ValueError, match="'millers' parameter of surface_energies"):
        surface_energies(crystal(), calculator(), [(0, 0, 0)])
