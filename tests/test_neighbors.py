"""Neighbour lists against ase.neighborlist, and Verlet lists against fresh ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from asenequip.graph import graph_of
from asenequip.neighbors import VerletList, find_edges

ALL_PBC = list(itertools.product([False, True], repeat=3))
EDGE = 1e-9
"""Angstrom: pairs nearer than this to the cutoff may be told apart by rounding alone."""


def make_cell(kind: str, rng: np.random.Generator) -> np.ndarray:
    lengths = rng.uniform(1.5, 7.0, 3)
    if kind == "orthorhombic":
        return np.diag(lengths)
    skewed = np.diag(lengths) + rng.uniform(-0.45, 0.45, (3, 3)) * lengths.min()
    if kind == "left-handed":
        skewed = np.diag(lengths) + rng.uniform(-0.3, 0.3, (3, 3)) * lengths.min()
        return skewed[[1, 0, 2]]
    if kind == "rotated":
        return skewed @ np.linalg.qr(rng.standard_normal((3, 3)))[0]
    if kind == "sheared far":
        return np.diag(lengths) + np.array([[0, 0, 0], [2.3, 0, 0], [-3.1, 4.7, 0]]) * lengths.min()
    return skewed


def edge_set(edges: tuple[np.ndarray, np.ndarray, np.ndarray], keep: np.ndarray) -> set[tuple[int, ...]]:
    i, j, shifts = edges
    return set(zip(i[keep].tolist(), j[keep].tolist(), *shifts[keep].T.tolist(), strict=True))


def brute_force(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> set[tuple[int, ...]]:
    """Every image that can be near, one by one."""
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    spread = np.ptp(positions @ np.linalg.inv(cell), axis=0)
    counts = np.where(pbc, np.ceil(cutoff / heights + spread).astype(int) + 1, 0)
    shifts = np.stack(np.meshgrid(*[np.arange(-c, c + 1) for c in counts], indexing="ij"), -1).reshape(-1, 3)
    vectors = positions[None, None] + (shifts @ cell)[:, None, None] - positions[None, :, None]
    near = np.linalg.norm(vectors, axis=-1) < cutoff - EDGE
    near[~shifts.any(axis=1)] &= ~np.eye(len(positions), dtype=bool)
    s, i, j = np.nonzero(near)
    return set(zip(i.tolist(), j.tolist(), *shifts[s].T.tolist(), strict=True))


def clear_of_cutoff(positions, cell, edges, cutoff) -> np.ndarray:
    i, j, shifts = edges
    d = np.linalg.norm(positions[j] + shifts @ cell - positions[i], axis=1)
    return d < cutoff - EDGE


@pytest.mark.parametrize("kind", ["orthorhombic", "skewed", "rotated", "left-handed", "sheared far"])
@given(pbc=st.sampled_from(ALL_PBC), n=st.integers(1, 12), cutoff=st.floats(0.5, 8.0), seed=st.integers(0, 2**31))
@settings(max_examples=30)
def test_edges_are_those_of_ase(kind: str, pbc: tuple, n: int, cutoff: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell = make_cell(kind, rng)
    positions = rng.uniform(-1.5, 2.5, (n, 3)) @ cell  # also outside of the cell
    mine = find_edges(positions, cell, np.array(pbc), cutoff)
    theirs = primitive_neighbor_list("ijS", np.array(pbc), cell, positions, cutoff)
    assert edge_set(mine, clear_of_cutoff(positions, cell, mine, cutoff)) == edge_set(
        theirs, clear_of_cutoff(positions, cell, theirs, cutoff)
    )


@given(rows=st.sampled_from(ALL_PBC), n=st.integers(1, 9), cutoff=st.floats(0.5, 6.0), seed=st.integers(0, 2**31))
@settings(max_examples=30)
def test_directions_without_a_lattice_vector_are_free(rows: tuple, n: int, cutoff: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    full = make_cell("skewed", rng)
    positions = rng.uniform(-1, 2, (n, 3)) @ full
    cell = full * np.array(rows)[:, None]
    mine = find_edges(positions, cell, np.array(rows), cutoff)
    expected = brute_force(positions, full, np.array(rows), cutoff)  # ase.neighborlist misses some of these
    assert edge_set(mine, clear_of_cutoff(positions, cell, mine, cutoff)) == expected


@given(pbc=st.sampled_from(ALL_PBC), seed=st.integers(0, 2**31))
@settings(max_examples=40)
def test_edges_are_sorted_by_centre_neighbour_and_shift(pbc: tuple, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell = make_cell("skewed", rng)
    i, j, shifts = find_edges(rng.uniform(-1, 2, (7, 3)) @ cell, cell, np.array(pbc), 5.0)
    rows = np.column_stack([i, j, shifts]).tolist()
    assert rows == sorted(rows)
    assert len({tuple(r) for r in rows}) == len(rows)


def test_a_one_atom_cell_smaller_than_the_cutoff_sees_all_its_images() -> None:
    cell, cutoff = np.array([[1.0, 0.1, 0], [0, 1.1, 0], [0.2, 0, 0.9]]), 5.0
    i, j, shifts = find_edges(np.zeros((1, 3)), cell, np.ones(3, bool), cutoff)
    grid = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3, indexing="ij"), -1).reshape(-1, 3)
    lengths = np.linalg.norm(grid @ cell, axis=1)
    assert len(i) == int(((lengths < cutoff) & (lengths > 0)).sum())
    assert (i == 0).all()
    assert (j == 0).all()
    assert len(np.unique(shifts, axis=0)) == len(i)


@pytest.mark.parametrize("pbc", ALL_PBC)
def test_whole_lattice_vectors_change_the_shifts_alone(pbc: tuple) -> None:
    rng = np.random.default_rng(5)
    cell = make_cell("rotated", rng)
    positions = rng.uniform(0, 1, (6, 3)) @ cell
    moved = rng.integers(-40, 40, (6, 3)) * np.array(pbc)
    i, j, shifts = find_edges(positions, cell, np.array(pbc), 4.0)
    a, b, there = find_edges(positions + moved @ cell, cell, np.array(pbc), 4.0)
    everything = np.ones(len(i), bool)
    assert edge_set((i, j, shifts - moved[j] + moved[i]), everything) == edge_set((a, b, there), everything)


@pytest.mark.parametrize("distance", [1e6, 1e7, 1e8])
@pytest.mark.parametrize("periodic", [False, True])
def test_far_groups_keep_their_edges(distance: float, periodic: bool) -> None:
    rng = np.random.default_rng(2)
    group = rng.uniform(0, 3, (5, 3))
    alone = find_edges(group, np.zeros((3, 3)), np.zeros(3, bool), 2.5)
    both = np.concatenate([group, group + distance * np.array([1.0, -1.0, 0.5])])
    cell = np.eye(3) * 7 * distance if periodic else np.zeros((3, 3))
    i, j, shifts = find_edges(both, cell, np.full(3, periodic), 2.5)
    expected = edge_set(alone, np.ones(len(alone[0]), bool))
    expected |= {(a + 5, b + 5, *s) for a, b, *s in expected}
    assert edge_set((i, j, shifts), np.ones(len(i), bool)) == expected


def test_a_slab_with_much_vacuum_keeps_its_edges() -> None:
    rng = np.random.default_rng(3)
    positions = rng.uniform(0, 1, (6, 3)) * [3, 3, 4]
    narrow, wide = np.diag([3.0, 3.1, 40.0]), np.diag([3.0, 3.1, 1e7])
    positions[0, 2] = 1e7 - 0.4  # across the face of the wide cell, from below
    near = positions.copy()
    near[0, 2] = 40.0 - 0.4
    a, b = (find_edges(x, c, np.ones(3, bool), 2.9) for x, c in ((near, narrow), (positions, wide)))
    assert edge_set(a, np.ones(len(a[0]), bool)) == edge_set(b, np.ones(len(b[0]), bool))


def test_atoms_on_cell_faces_are_found_once() -> None:
    cell = np.diag([4.0, 4.0, 4.0])
    corners = np.array([[0, 0, 0], [4, 0, 0], [0, 4, 4], [4, 4, 4], [2, 2, 2.0]])  # four of them are the same site
    i, j, shifts = find_edges(corners, cell, np.ones(3, bool), 3.5)
    d = np.linalg.norm(corners[j] + shifts @ cell - corners[i], axis=1)
    assert (i == 4).sum() == 4 * 8
    assert np.allclose(d[i == 4], np.sqrt(12))
    rows = np.column_stack([i, j, shifts])
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_no_atoms_no_edges() -> None:
    i, j, shifts = find_edges(np.zeros((0, 3)), np.eye(3), np.ones(3, bool), 5.0)
    assert len(i) == len(j) == len(shifts) == 0
    assert shifts.shape == (0, 3)


def test_a_periodic_direction_without_a_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="no vector"):
        find_edges(np.zeros((1, 3)), np.diag([3.0, 0, 3.0]), np.ones(3, bool), 5.0)


def test_dependent_lattice_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="dependent"):
        find_edges(np.zeros((1, 3)), np.array([[1.0, 0, 0], [2.0, 0, 0], [0, 0, 1]]), np.ones(3, bool), 5.0)


# -- Verlet lists -----------------------------------------------------------------------------------------------------


def random_step(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """One of the things that happen to atoms between two evaluations."""
    kind = rng.choice(["drift", "drift", "drift", "jump", "strain", "wrap", "delete", "add", "pbc", "swap", "scale"])
    if kind == "drift":
        atoms.positions += 0.06 * rng.standard_normal(atoms.positions.shape)
    elif kind == "jump":
        atoms.positions[rng.integers(len(atoms))] += rng.uniform(-4, 4, 3)
    elif kind == "strain":
        atoms.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + 0.02 * rng.standard_normal((3, 3))), scale_atoms=True)
    elif kind == "scale":
        atoms.set_cell(np.asarray(atoms.cell) * rng.uniform(0.97, 1.03), scale_atoms=False)
    elif kind == "wrap":
        atoms.wrap()
    elif kind == "delete" and len(atoms) > 3:
        del atoms[int(rng.integers(len(atoms)))]
    elif kind == "add" and len(atoms) < 14:
        atoms += Atoms("Cu", positions=rng.uniform(0, 1, (1, 3)) @ np.asarray(atoms.cell))
    elif kind == "pbc":
        atoms.pbc = rng.integers(0, 2, 3).astype(bool)
    elif kind == "swap" and len(atoms) > 1:
        atoms.positions[[0, -1]] = atoms.positions[[-1, 0]]
    return atoms


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("skin", [0.3, 1.0])
def test_a_kept_list_gives_the_graph_of_a_fresh_one(seed: int, skin: float) -> None:
    rng = np.random.default_rng(seed)
    atoms = Atoms("CuOCu2O", positions=rng.uniform(0, 4, (5, 3)), cell=make_cell("rotated", rng) + np.eye(3), pbc=True)
    verlet, cutoffs = VerletList(3.0, skin), np.full((2, 2), 3.0)
    for step in range(400):
        random_step(atoms, rng)
        kept = graph_of(atoms, ("Cu", "O"), cutoffs, verlet)
        fresh = graph_of(atoms, ("Cu", "O"), cutoffs)
        for name in ("centers", "neighbors", "shifts", "ptr", "positions", "types", "cells"):
            assert getattr(kept, name).equal(getattr(fresh, name)), (step, name)
    assert 1 < verlet.builds < 400  # it was used, and it was rebuilt


def test_slow_drift_rebuilds_only_after_half_the_skin() -> None:
    positions = np.random.default_rng(0).uniform(0, 8, (20, 3))
    verlet, cell, pbc = VerletList(3.0, 1.0), np.eye(3) * 8, np.ones(3, bool)
    for k in range(50):
        verlet.edges(positions + 0.0099 * k * np.array([1.0, 0, 0]), cell, pbc)
    assert verlet.builds == 1
    verlet.edges(positions + 0.51 * np.array([1.0, 0, 0]), cell, pbc)
    assert verlet.builds == 2


def test_a_strain_that_all_atoms_follow_costs_only_its_own_stretch() -> None:
    positions, cell = np.random.default_rng(0).uniform(0, 8, (20, 3)), np.eye(3) * 8
    verlet, pbc = VerletList(3.0, 1.0), np.ones(3, bool)
    verlet.edges(positions, cell, pbc)
    for scale in (0.76, 1.5):  # 0.76 * 4 A > 3 A
        assert verlet.is_valid(positions * scale, cell * scale, pbc)
    assert not verlet.is_valid(positions * 0.74, cell * 0.74, pbc)


def test_a_list_is_not_fooled_by_arrays_changed_in_place() -> None:
    positions, cell, pbc = np.random.default_rng(0).uniform(0, 8, (20, 3)), np.eye(3) * 8, np.ones(3, bool)
    verlet = VerletList(3.0, 1.0)
    verlet.edges(positions, cell, pbc)
    positions[0] += 2.0
    cell[0, 0] += 1.0
    assert not verlet.is_valid(positions, cell, pbc)
    assert not verlet.is_valid(positions, np.eye(3) * 8, np.array([True, True, False]))


# -- structures that dynamics leaves behind when it breaks down -------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-3, 1e-8, 1e-30])
@pytest.mark.parametrize("pbc", [True, (True, True, False)])
def test_a_collapsed_cell_is_refused_not_searched(scale: float, pbc) -> None:
    rng = np.random.default_rng(0)
    cell = make_cell("skewed", rng) * scale
    with pytest.raises(ValueError, match="collapsed"):
        find_edges(rng.uniform(0, 1, (9, 3)) @ cell, cell, np.broadcast_to(pbc, 3), 5.0)


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False)])
@pytest.mark.parametrize("skew", [7, 100, 3000])
def test_a_skewed_cell_has_the_edges_of_its_lattice(skew: int, pbc: tuple) -> None:
    upright = np.diag([3.0, 3.3, 3.6])
    turns = np.array([[1, 0, 0], [skew, 1, 0], [skew, -skew, 1] if pbc[2] else [0, 0, 1]])
    positions, periodic = np.random.default_rng(0).uniform(-9, 9, (5, 3)), np.array(pbc)
    i, j, shifts = find_edges(positions, turns @ upright, periodic, 5.0)
    wanted = find_edges(positions, upright, periodic, 5.0)
    found = sorted(zip(i.tolist(), j.tolist(), (shifts @ turns).tolist(), strict=True))
    assert found == sorted(zip(*(array.tolist() for array in wanted), strict=True))


def test_a_dense_cell_is_still_searched() -> None:
    cell = np.eye(3) * 0.2  # 4 * 10^4 images of one atom
    i, _, _ = find_edges(np.zeros((1, 3)), cell, np.ones(3, bool), 4.0)
    assert len(i) == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.01)


@pytest.mark.parametrize("far", [1e13, 1e25, 1e155, 1e300])
@pytest.mark.parametrize("pbc", ALL_PBC[::3])
def test_positions_beyond_all_resolution_are_refused(far: float, pbc: tuple) -> None:
    from ase.calculators.calculator import InputError

    atoms = Atoms("CuO", positions=[[0, 0, 0], [far, 1, 1]], cell=[5, 5, 5], pbc=pbc)
    with pytest.raises(InputError, match="resolved"):
        graph_of(atoms, ("Cu", "O"), np.full((2, 2), 3.0))
    atoms.positions[1] = 1.0
    atoms.cell[0, 0] = far
    with pytest.raises(InputError, match="resolved"):
        graph_of(atoms, ("Cu", "O"), np.full((2, 2), 3.0))
