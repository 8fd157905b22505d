"""Cells from other people's structures: CIF files with shared sites, POSCAR, slabs, oblique cells, unequal areas."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111
from ase.data import reference_states
from ase.io import read, write
from numpy.testing import assert_allclose, assert_array_equal

from asenequip.interface import NeighbourSearch, Side, build_interface, exchange, make_crystal, make_references, orient
from asenequip.interface.build import ELECTRODE, ELECTROLYTE
from asenequip.interface.crystals import PROTOTYPES, with_sites
from asenequip.interface.disorder import share_sites

DENSITIES = {"Li": 0.534, "Cu": 8.96, "Ni": 8.91, "LiCl": 2.07, "Li2S": 1.64, "Li3P": 1.43, "Li6PS5Cl": 1.86}
"""g/cm^3 at room temperature: the CRC Handbook of Chemistry and Physics for the first five, American Elements for Li3P;
by its diffraction for Li6PS5Cl."""

CIF = """data_argyrodite
_cell_length_a 9.859
_cell_length_b 9.859
_cell_length_c 9.859
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_Int_Tables_number 216
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
P1 P 0.5 0.5 0.5 1.0
S1 S 0.25 0.25 0.25 0.6
Cl1 Cl 0.25 0.25 0.25 0.4
S2 S 0.618 0.618 0.618 1.0
Cl2 Cl 0 0 0 0.6
S3 S 0 0 0 0.4
Li1 Li 0.183 0.183 0.024 LITHIUM
"""


def composition(atoms: Atoms) -> dict[str, int]:
    return {symbol: int((atoms.symbols == symbol).sum()) for symbol in sorted(set(atoms.symbols))}


# -- the crystals that have names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROTOTYPES)
def test_named_crystals_have_their_measured_density(name):
    crystal = make_crystal(name)
    mass = (crystal.get_masses() * crystal.arrays["occupancy"]).sum() * units._amu * 1e3
    assert_allclose(mass / (crystal.get_volume() * 1e-24), DENSITIES[name], rtol=0.012)


@pytest.mark.parametrize("name", ["Li", "Cu", "Ni"])
def test_named_metals_are_those_of_ase_s_reference_data(name):
    state = reference_states[Atoms(name).numbers[0]]
    assert_allclose(PROTOTYPES[name].cell[0], state["a"], rtol=0.006)  # that of lithium was measured at 78 K


@pytest.mark.parametrize(("name", "shortest"), [("Na", 4.23 * np.sqrt(0.75)), ("Mg", 3.197), ("Al", 4.05 / np.sqrt(2))])
def test_other_elements_come_from_ase_s_reference_data(name, shortest):
    assert_allclose(NeighbourSearch(make_crystal(name), 5.0).pairs()[2].min(), shortest, atol=0.02)


def test_an_element_without_a_simple_crystal_is_refused():
    with pytest.raises(ValueError, match=r"The 'name' parameter of make_crystal must be one of .* Got 'O' instead"):
        make_crystal("O")


# -- structures from files --------------------------------------------------------------------------------------------


def test_shared_and_half_occupied_sites_of_a_cif_file_are_so(tmp_path):
    """ASE's reader puts an atom of the most frequent element on every site, occupied or not."""
    (tmp_path / "argyrodite.cif").write_text(CIF.replace("LITHIUM", "0.5"))
    crystal = read(tmp_path / "argyrodite.cif")
    assert composition(crystal)["Li"] == 48
    cell = build_interface(Side("Li", thickness=7.0), Side(crystal, thickness=20.0), seed=1)
    solid = cell[cell.get_tags() == ELECTROLYTE]
    assert composition(solid) == {"Cl": 8, "Li": 48, "P": 8, "S": 40}
    assert NeighbourSearch(solid, 3.0).pairs()[2].min() > 1.9
    other = build_interface(Side("Li", thickness=7.0), Side(crystal, thickness=20.0), seed=2)
    assert not np.array_equal(solid.numbers, other[other.get_tags() == ELECTROLYTE].numbers)
    (reference,) = {entry.crystal for entry in make_references([crystal])}
    assert reference == "Li6ClPS5"


def test_shared_sites_hold_as_many_atoms_as_their_shares_say():
    crystal = make_crystal("Li2S").repeat(3)
    mixed = share_sites(crystal, {0: {"S": 0.75, "Cl": 0.25}}, np.random.default_rng(0))
    assert composition(mixed) == {"Cl": 27, "Li": 216, "S": 81}
    assert_array_equal(mixed.symbols[mixed.arrays["site"] == 1], "Li")


def test_occupancies_that_cannot_be_chosen_are_refused(tmp_path):
    (tmp_path / "argyrodite.cif").write_text(CIF.replace("LITHIUM", "0.44"))
    side = Side(read(tmp_path / "argyrodite.cif"))
    with pytest.raises(ValueError, match=r"occupancies of 1 or 1/2. Got \[0.44, 1.0\]"):
        build_interface(Side("Li", thickness=7.0), side)


def test_elements_are_the_sites_of_a_structure_that_says_none(tmp_path):
    write(tmp_path / "POSCAR", bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    crystal = with_sites(read(tmp_path / "POSCAR"))
    mixed = exchange(crystal, (0, 1), 0.5, np.random.default_rng(0))  # Na and Cl
    assert composition(mixed) == {"Cl": 4, "Na": 4}
    assert (mixed.numbers != crystal.numbers).sum() == 4


# -- slabs, oblique cells, unequal areas ------------------------------------------------------------------------------

SLABS = {
    "vacuum": fcc111("Cu", (1, 1, 5), vacuum=8.0, periodic=True),
    "no third period": fcc111("Cu", (1, 1, 5), vacuum=8.0),
    "no third vector": fcc111("Cu", (1, 1, 5)),
}


@pytest.mark.parametrize("name", SLABS)
def test_a_slab_is_taken_once_as_it_is(name):
    """A thickness of several of its cells would else stack slab on vacuum on slab."""
    cell = build_interface(
        Side("Li", thickness=10.0), Side(SLABS[name], (0, 0, 1), thickness=60.0), max_area=100, max_misfit=0.06
    )
    solid = cell[cell.get_tags() == ELECTROLYTE]
    levels = np.unique(np.round(solid.positions[:, 2], 3))
    assert_allclose(np.diff(levels), 3.61 / np.sqrt(3), atol=2e-3)
    assert len(levels) == 5


def oblique() -> Atoms:
    """A triclinic crystal of two elements, left-handed."""
    cell = np.array([[5.1, 0.2, 0.1], [1.0, 4.2, -0.3], [0.7, -1.3, -6.1]])
    return Atoms(
        "LiClLiCl", scaled_positions=[[0, 0, 0], [0.5, 0.1, 0.3], [0.1, 0.5, 0.6], [0.6, 0.6, 0.9]], cell=cell, pbc=True
    )


@pytest.mark.parametrize("seed", range(12))
def test_any_cell_is_oriented_along_any_plane(seed):
    rng = np.random.default_rng(seed)
    cell, plane = rng.normal(scale=4.0, size=(3, 3)), rng.integers(-4, 5, 3)
    plane = plane // max(np.gcd.reduce(plane), 1) if plane.any() else np.array([1, 2, -3])
    crystal = Atoms("LiS", scaled_positions=rng.random((2, 3)), cell=cell, pbc=True)
    found = orient(crystal, tuple(int(h) for h in plane))
    assert_allclose(found.get_volume(), crystal.get_volume())
    assert found.cell.handedness == 1
    assert_allclose(found.cell.array[2, 2], 1 / np.linalg.norm(np.linalg.inv(cell) @ plane))
    near, far = (np.sort(NeighbourSearch(a, 5.0).pairs(np.array([0]))[2]) for a in (crystal, found))
    assert_allclose(near, far, atol=1e-6)


def test_an_oblique_crystal_keeps_its_surroundings_but_for_the_strain():
    misfit = 0.08
    cell = build_interface(Side("Li", thickness=10.0), Side(oblique(), (0, 1, 1), thickness=30.0), max_misfit=misfit)
    solid = cell[cell.get_tags() == ELECTROLYTE]
    solid = Atoms(solid.symbols, positions=solid.positions, cell=cell.cell, pbc=(True, True, False))
    inside = np.abs(solid.positions[:, 2] - solid.positions[:, 2].mean()) < 5.0
    whole = NeighbourSearch(oblique(), 8.0)
    for symbol in ("Li", "Cl"):
        wanted = [np.sort(whole.pairs(np.array([k]))[2])[:6] for k in np.flatnonzero(oblique().symbols == symbol)]
        for atom in np.flatnonzero(inside & (solid.symbols == symbol)):
            mine = np.sort(NeighbourSearch(solid, 8.0).pairs(np.array([atom]))[2])[:6]
            assert min(np.abs(mine / other - 1).max() for other in wanted) < misfit


def test_each_side_has_the_atoms_of_its_area_and_thickness():
    """The common supercell is made of unequal numbers of cells whose areas are unequal, too."""
    sides = Side("Cu", (1, 1, 1), 8.0), Side("Li", (1, 1, 0), 12.0)
    cell = build_interface(*sides, max_misfit=0.06, max_area=250, share=0.3)
    area = float(np.linalg.norm(np.cross(*cell.cell.array[:2])))
    for side, tag, name in zip(sides, (ELECTRODE, ELECTROLYTE), ("electrode", "electrolyte"), strict=True):
        unit, layers = side.unit(), cell.info[f"{name}_repeats"]
        strained = np.prod(1 + np.array(cell.info[f"strain_{name}"]))
        cells = area / (strained * np.linalg.det(unit.cell.array[:2, :2]))
        assert_allclose(cells, round(cells), atol=1e-4)
        assert (cell.get_tags() == tag).sum() == round(cells) * layers * len(unit)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: Side("Li", thickness=0.0), "thickness"),
        (lambda: Side("Li", vacancies=1.0), "vacancies"),
        (lambda: build_interface(Side("Cu"), Side("Ni"), gap=-1.0), "gap"),
        (lambda: build_interface(Side("Cu"), Side("Ni"), repeat=(0, 1)), "repeat"),
        (lambda: build_interface(Side("Cu"), Side("Ni"), repeat=(1.5, 1)), "repeat"),
    ],
)
def test_wrong_parameters_are_named(call, name):
    with pytest.raises(ValueError, match=f"The '{name}' parameter"):
        call()
