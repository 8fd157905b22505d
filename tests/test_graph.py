"""Graphs of one and of several frames against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import InputError
from small_systems import small_atoms, small_model

from asenequip.graph import Graph, atom_types, build_graph, graph_of, join_graphs
from asenequip.model.derivatives import evaluate_derivatives, stress, sum_frames

NAMES, CUTOFFS = ("Cu", "O"), np.full((2, 2), 3.4)


def brute_force_vectors(atoms: Atoms, cutoffs: np.ndarray) -> list[np.ndarray]:
    """Vectors to all images of all atoms within the cutoff, per centre, sorted."""
    cell, types = np.asarray(atoms.cell), [NAMES.index(s) for s in atoms.symbols]
    grid = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3, indexing="ij"), -1).reshape(-1, 3) * atoms.pbc
    grid = np.unique(grid, axis=0)
    found = []
    for c in range(len(atoms)):
        rows = []
        for n in range(len(atoms)):
            vectors = atoms.positions[n] + grid @ cell - atoms.positions[c]
            lengths = np.linalg.norm(vectors, axis=1)
            rows.append(vectors[(lengths < cutoffs[types[c], types[n]]) & (lengths > 1e-9)])
        rows = np.concatenate(rows)
        found.append(rows[np.lexsort(np.round(rows, 9).T)])
    return found


@pytest.mark.parametrize("pbc", [True, False, (True, False, True)])
@pytest.mark.parametrize("table", [CUTOFFS, np.array([[3.4, 2.1], [2.8, 1.9]])])
def test_vectors_are_those_of_brute_force(pbc, table: np.ndarray) -> None:
    atoms = small_atoms()
    atoms.pbc = pbc
    graph = graph_of(atoms, NAMES, table)
    vectors = graph.vectors().numpy()
    for c, expected in enumerate(brute_force_vectors(atoms, table)):
        mine = vectors[graph.ptr[c] : graph.ptr[c + 1]]
        mine = mine[np.lexsort(np.round(mine, 9).T)]
        assert mine.shape == expected.shape
        assert np.abs(mine - expected).max(initial=0.0) < 1e-12


def test_rows_point_to_their_centres() -> None:
    graph = graph_of(small_atoms(), NAMES, CUTOFFS)
    assert graph.ptr[0] == 0
    assert graph.ptr[-1] == graph.num_edges
    expected = torch.repeat_interleave(torch.arange(graph.num_atoms), graph.ptr.diff())
    assert graph.centers.equal(expected)


def test_every_edge_has_its_reverse() -> None:
    graph = graph_of(small_atoms(), NAMES, CUTOFFS)
    c, n, s = graph.centers.tolist(), graph.neighbors.tolist(), graph.shifts.tolist()
    there = {(a, b, *v) for a, b, v in zip(c, n, s, strict=True)}
    assert there == {(b, a, *(-x for x in v)) for a, b, v in zip(c, n, s, strict=True)}


def test_a_graph_shares_no_memory_with_the_atoms() -> None:
    atoms = small_atoms()
    graph = graph_of(atoms, NAMES, CUTOFFS)
    before = graph.vectors()
    atoms.positions += np.random.default_rng(0).uniform(-1, 1, (5, 3))
    atoms.cell[0] *= 2
    assert graph.vectors().equal(before)


def test_a_graph_cannot_be_changed() -> None:
    graph = graph_of(small_atoms(), NAMES, CUTOFFS)
    with pytest.raises(AttributeError):
        graph.positions = graph.positions  # type: ignore[misc]


FRAMES = {
    "mixed": [small_atoms(0), Atoms(), small_atoms(1)[:2], Atoms("O"), small_atoms(2)],
    "empty ends": [Atoms(), small_atoms(0), Atoms()],
    "all empty": [Atoms(), Atoms(cell=[3, 3, 3], pbc=True)],
    "one": [small_atoms(0)],
    "no edges": [Atoms("Cu"), Atoms("O")],
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_batch_gives_the_numbers_of_its_frames(name: str) -> None:
    model = small_model()
    graphs = [graph_of(a, NAMES, CUTOFFS) for a in FRAMES[name]]
    batch = join_graphs(graphs)
    assert batch.num_frames == len(graphs)
    assert batch.num_edges == sum(g.num_edges for g in graphs)
    found = evaluate_derivatives(model, batch)
    energies, tension = sum_frames(batch, found.energies), stress(batch, found.virials)
    start = 0
    for k, graph in enumerate(graphs):
        alone = evaluate_derivatives(model, graph)
        part = slice(start, start + graph.num_atoms)
        start += graph.num_atoms
        assert torch.allclose(found.forces[part], alone.forces, rtol=0, atol=1e-12)
        assert abs(float((energies[k] - alone.energies.sum()).detach())) < 1e-11
        if graph.volumes()[0] > 0:
            assert torch.allclose(tension[k], stress(graph, alone.virials)[0], rtol=0, atol=1e-12)


def test_joining_twice_is_joining_once() -> None:
    graphs = [graph_of(a, NAMES, CUTOFFS) for a in FRAMES["mixed"]]
    once = join_graphs(graphs)
    twice = join_graphs([join_graphs(graphs[:2]), join_graphs(graphs[2:])])
    for name in Graph.__dataclass_fields__:
        a, b = getattr(once, name), getattr(twice, name)
        assert a.equal(b) if isinstance(a, torch.Tensor) else a == b


def test_types_follow_the_order_of_the_model() -> None:
    assert atom_types(Atoms("OCuO"), ("Cu", "O")).tolist() == [1, 0, 1]
    assert atom_types(Atoms("OCuO"), ("O", "Cu")).tolist() == [0, 1, 0]


def test_an_element_beyond_the_table_is_refused() -> None:
    with pytest.raises(InputError, match="atoms 0"):
        atom_types(Atoms(numbers=[118]), NAMES)


@pytest.mark.parametrize("gap", [0.0, 1e-8])
def test_coinciding_atoms_are_named(gap: float) -> None:
    atoms = Atoms("Cu3", positions=[[0, 0, 0], [0, 0, 2], [gap, 0, 2]])
    with pytest.raises(InputError, match="Atoms 1 and 2 are at the same position"):
        graph_of(atoms, NAMES, CUTOFFS)


def test_coinciding_images_are_found() -> None:
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [4, 4, 8]], cell=[4, 4, 4], pbc=True)
    with pytest.raises(InputError, match="same position"):
        graph_of(atoms, NAMES, CUTOFFS)


def test_build_graph_counts_atoms_without_edges() -> None:
    empty = np.zeros(0, np.int64)
    graph = build_graph(np.zeros((3, 3)), np.zeros((3, 3)), np.zeros(3), (empty, empty, np.zeros((0, 3), np.int64)))
    assert graph.ptr.tolist() == [0, 0, 0, 0]
    assert graph.vectors().shape == (0, 3)
