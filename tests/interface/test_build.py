"""Crystals, slabs, matches and cells: composition, distances, periodicity, symmetry."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import iread
from numpy.testing import assert_allclose, assert_array_equal
from realdata import real_data

from asenequip.interface import (
    NeighbourSearch,
    Side,
    build_interface,
    exchange,
    find_matches,
    make_crystal,
    occupy,
    orient,
    remove_atoms,
    terminations,
)
from asenequip.interface.crystals import PROTOTYPES
from asenequip.interface.slabs import bonds, cut

FORMULAS = {"Li": "Li", "Cu": "Cu", "Ni": "Ni", "Li2S": "Li2S", "LiCl": "LiCl", "Li3P": "Li3P", "Li6PS5Cl": "Li6PS5Cl"}
SHORTEST = {"Li": 3.04, "Cu": 2.556, "Ni": 2.492, "Li2S": 2.473, "LiCl": 2.57, "Li3P": 2.467, "Li6PS5Cl": 2.015}
"""Angstrom: bonds of these crystals, from the literature; P-S in Li6PS5Cl."""


@pytest.mark.parametrize("name", FORMULAS)
def test_crystals_have_their_composition_and_bonds(name):
    atoms = occupy(make_crystal(name), np.random.default_rng(0))
    assert atoms.symbols.formula.reduce()[0].format("hill") == Atoms(FORMULAS[name]).symbols.formula.format("hill")
    assert_allclose(NeighbourSearch(atoms, 4.0).pairs()[2].min(), SHORTEST[name], atol=0.03)


@pytest.mark.parametrize("name", FORMULAS)
def test_crystals_have_their_space_group(name):
    spglib = pytest.importorskip("spglib")
    sites = make_crystal(name)
    found = spglib.get_symmetry_dataset((sites.cell.array, sites.get_scaled_positions(), sites.numbers), symprec=1e-3)
    assert found.number == PROTOTYPES[name].spacegroup


def shortest(atoms: Atoms) -> float:
    return float(NeighbourSearch(atoms, 4.0).pairs()[2].min())


def test_occupied_sites_are_one_of_each_pair_and_kept_apart():
    sites = make_crystal("Li6PS5Cl").repeat(2)
    atoms = occupy(sites, np.random.default_rng(1))
    lithium = atoms[atoms.symbols == "Li"]
    assert len(lithium) == 24 * 8
    assert shortest(lithium) > 2.1  # the sites of a pair are 1.87 Angstrom apart
    other = occupy(sites, np.random.default_rng(2))
    assert not np.array_equal(atoms.positions, other.positions)


@pytest.mark.parametrize("degree", [0.0, 0.25, 0.5, 1.0])
def test_exchange_keeps_composition_and_has_its_degree(degree):
    crystal = make_crystal("Li6PS5Cl").repeat(2)
    mixed = exchange(crystal, (1, 3), degree, np.random.default_rng(0))
    assert_array_equal(np.sort(mixed.numbers), np.sort(crystal.numbers))
    on_site = mixed.symbols[mixed.arrays["site"] == 3]
    assert_allclose((on_site == "S").mean(), degree, atol=0.02)


def test_vacancies_are_as_many_as_asked():
    assert len(remove_atoms(bulk("Li", cubic=True).repeat(5), "Li", 0.1, np.random.default_rng(0))) == 225


@pytest.mark.parametrize("miller", [(1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 0), (2, -1, 3)])
@pytest.mark.parametrize("name", ["Li", "Li3P"])
def test_oriented_cells_are_the_same_crystal(name, miller):
    crystal = make_crystal(name)
    oriented = orient(crystal, miller)
    assert_allclose(oriented.get_volume() / len(oriented), crystal.get_volume() / len(crystal))
    near, far = (np.sort(NeighbourSearch(a, 5.0).pairs(np.array([0]))[2]) for a in (crystal, oriented))
    assert_allclose(near, far, atol=1e-6)
    normal = np.linalg.inv(crystal.cell.array) @ miller  # the reciprocal vector: 1 / its length is the plane distance
    assert_allclose(oriented.cell.array[2, 2], 1 / np.linalg.norm(normal))
    assert_allclose(oriented.cell.array[:2, 2], 0, atol=1e-9)


def test_the_best_terminations_break_no_bond_and_cut_slabs_keep_their_tetrahedra():
    unit = orient(make_crystal("Li6PS5Cl"), (1, 0, 0))
    places = terminations(unit)
    assert places[0].cut_bonds == 0
    assert places[-1].cut_bonds > 0
    kept, broken = (len(bonds(cut(unit, place.height))[0]) for place in (places[0], places[-1]))
    assert kept == len(bonds(unit)[0]) == 16
    assert broken == 16 - places[-1].cut_bonds


def test_a_match_of_two_square_lattices_turned_by_45_degrees_is_found():
    found = find_matches(np.eye(2) * 3.5, np.eye(2) * 3.5 * np.sqrt(2) * 1.01, max_area=60)
    assert_allclose(found[-1].misfit, np.log(1.01), rtol=1e-5)
    assert_allclose(abs(np.linalg.det(found[-1].first)), 2 * abs(np.linalg.det(found[-1].second)))


def test_a_match_deforms_each_lattice_as_it_says():
    first, second = np.array([[3.0, 0.0], [1.0, 3.1]]), np.array([[4.1, 0.3], [-0.2, 2.4]])
    for match in find_matches(first, second, max_area=80, max_misfit=0.2, share=0.3):
        strained = match.first @ first @ (np.eye(2) + match.strain_first)
        assert_allclose(strained, match.cell, atol=1e-9)
        start = match.second @ second
        metric = match.cell @ np.linalg.inv(np.eye(2) + match.strain_second)
        assert_allclose(metric @ metric.T, start @ start.T, atol=1e-8)


def test_equal_lattices_match_without_strain():
    hexagonal = np.array([[2.5, 0.0], [-1.25, 1.25 * np.sqrt(3)]])
    assert find_matches(hexagonal, hexagonal)[0].misfit < 1e-9


@pytest.fixture(scope="module")
def cell() -> Atoms:
    return build_interface(
        Side("Li", thickness=14.0), Side("Li6PS5Cl", thickness=20.0, exchange=(1, 3, 0.5)), repeat=(1, 1), seed=3
    )


def test_the_cell_has_both_compositions_and_no_atoms_too_close(cell):
    tags = cell.get_tags()
    assert cell[tags == 2].symbols.formula.reduce()[0].format("hill") == "ClLi6PS5"
    assert set(cell[tags == 1].symbols) == {"Li"}
    assert shortest(cell) > 1.9
    between = NeighbourSearch(cell, 6.0, tags == 1).nearest(np.flatnonzero(tags == 2))[0]
    assert 1.9 <= between.min() < 3.5


def test_the_cell_is_periodic_without_a_seam_in_the_electrode(cell):
    metal = cell[cell.get_tags() == 1]
    inner = NeighbourSearch(metal, 3.3).pairs()
    full = np.bincount(inner[0], minlength=len(metal)) == 8
    assert full.mean() > 0.7  # all but the outermost planes have eight neighbours, across the boundary too
    edge = np.abs(metal.get_scaled_positions()[:, 2] - np.round(metal.get_scaled_positions()[:, 2])) < 0.05
    assert edge.any()
    assert full[edge].all()


def test_the_cell_is_symmetric(cell):
    height = cell.positions[:, 2]
    length = cell.cell.array[2, 2]
    middle, metal = height[cell.get_tags() == 2], height[cell.get_tags() == 1]
    assert_allclose((middle.min() + middle.max()) / 2, length / 2, atol=1e-6)
    lower, upper = metal[metal < length / 2].max(), metal[metal > length / 2].min()
    assert_allclose(middle.min() - lower, upper - middle.max(), atol=1e-6)
    assert_allclose(middle.min() - lower, cell.info["gap"], atol=1e-6)


def test_strain_is_shared_as_asked():
    cell = build_interface(Side("Cu", thickness=7.0), Side("Ni", thickness=7.0), share=0.0, max_area=60)
    assert_allclose(cell.info["strain_electrode"], 0, atol=1e-9)
    assert_allclose(np.log(1 + np.array(cell.info["strain_electrolyte"])), np.log(3.615 / 3.524), rtol=1e-4)


def test_other_pairs_and_planes_are_built():
    cell = build_interface(Side("Cu", (1, 1, 1), 8.0), Side("Li", (1, 1, 0), 12.0), max_misfit=0.06, max_area=250)
    assert cell.info["misfit"] <= 0.06
    assert shortest(cell) > 1.9


def test_a_crystal_from_a_file_is_built_against_lithium():
    frames = iread(real_data("lips20/all_every20.extxyz.gz"))
    crystal = next(frame for frame in frames if frame.info["system"] == "beta-Li3PS4")
    cell = build_interface(Side("Li", thickness=10.0), Side(crystal, thickness=12.0), max_misfit=0.06, max_area=250)
    solid = cell[cell.get_tags() == 2]
    assert solid.symbols.formula.reduce()[0].format("hill") == "Li3PS4"
    assert len(bonds(solid)[0]) == 4 * (solid.symbols == "P").sum()
    assert shortest(cell) > 1.7  # P-S of a hot frame


def test_the_same_seed_gives_the_same_cell(cell):
    again = build_interface(
        Side("Li", thickness=14.0), Side("Li6PS5Cl", thickness=20.0, exchange=(1, 3, 0.5)), repeat=(1, 1), seed=3
    )
    assert_array_equal(cell.positions, again.positions)
    assert_array_equal(cell.numbers, again.numbers)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: make_crystal("Xy"), "name"),
        (lambda: orient(bulk("Li", cubic=True), (2, 0, 0)), "miller"),
        (lambda: build_interface(Side("Li"), Side("Li6PS5Cl"), max_misfit=1e-6, max_area=150), "max_misfit"),
        (lambda: build_interface(Side("Li"), Side("Li6PS5Cl", termination=99)), "termination"),
        (lambda: find_matches(np.eye(2) * 3, np.eye(2) * 3, share=2.0), "share"),
    ],
)
def test_wrong_parameters_are_named(call, name):
    with pytest.raises(ValueError, match=f"The '{name}' parameter"):
        call()
