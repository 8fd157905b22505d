"""Many structures at once: lists against vesin, results against one at a time, order, bad ones, the budget of edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import InputError
from hypothesis import given, settings
from hypothesis import strategies as st
from small_systems import small_atoms

from asenequip import AllegroCalculator
from asenequip.batches import evaluate_each
from asenequip.evaluate import Evaluator
from asenequip.fused.engine import FusedEngine
from asenequip.fused.lists import Structures, list_small
from asenequip.kernels import native
from asenequip.memory import StructureTooLargeError
from asenequip.neighbors import find_edges
from asenequip.testing.systems import systems

pytestmark = pytest.mark.skipif(not native.compiler(), reason="no C++ compiler on this machine")


@pytest.fixture(scope="module")
def evaluator(small_artifact) -> Evaluator:
    return Evaluator(small_artifact, device="cpu", skin=0.0)


def joined(frames: list[Atoms]) -> Structures:
    return Structures(
        np.cumsum([0, *map(len, frames)]),
        np.concatenate([atoms.positions for atoms in frames]),
        np.array([atoms.cell.array for atoms in frames]),
        np.array([atoms.pbc for atoms in frames]),
    )


def random_frame(seed: int) -> Atoms:
    """One to twelve atoms in a cell of any shape, handedness and periodicity, some of them outside of it."""
    rng = np.random.default_rng(seed)
    cell = np.eye(3) * rng.uniform(2.0, 9.0, 3) + rng.uniform(-1.5, 1.5, (3, 3))
    cell = cell[rng.permutation(3)]
    atoms = Atoms("Cu" * rng.integers(1, 13), cell=cell, pbc=rng.integers(0, 2, 3).astype(bool))
    atoms.positions = rng.uniform(-1.5, 2.5, (len(atoms), 3)) @ cell
    return atoms


def test_skewed_cells_go_by_themselves(evaluator):
    atoms = small_atoms()
    skewed = atoms.copy()
    skewed.cell = np.array([[1, 0, 0], [3000, 1, 0], [0, 0, 1]]) @ atoms.cell
    for together in evaluator.evaluate([skewed, atoms, skewed]):
        assert np.abs(together["forces"] - evaluator.evaluate([atoms])[0]["forces"]).max() < 1e-4


@settings(max_examples=60)
@given(seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4), cutoff=st.floats(1.0, 6.0))
def test_lists_are_vesins_in_the_same_order(evaluator, seeds, cutoff):
    frames = [random_frame(seed) for seed in seeds]
    count, edges, touching = list_small(evaluator.engine.library, joined(frames), cutoff, 200_000)
    assert count == len(frames)
    assert (touching == -1).all()
    start = 0
    for atoms in frames:
        wanted = find_edges(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
        mine = slice(edges.ptr[start], edges.ptr[start + len(atoms)])
        found = edges.neighbors[mine] - start, edges.shifts[mine]
        np.testing.assert_array_equal(found[0], wanted[1])
        np.testing.assert_array_equal(found[1], wanted[2])
        np.testing.assert_array_equal(
            np.diff(edges.ptr)[start : start + len(atoms)], np.bincount(wanted[0], minlength=len(atoms))
        )
        start += len(atoms)


def test_lists_stop_before_the_budget(evaluator):
    frames = [small_atoms(k) for k in range(4)]
    alone = [len(find_edges(a.positions, a.cell.array, a.pbc, 3.4)[0]) for a in frames]
    for budget in (alone[0] - 1, alone[0], sum(alone[:3]), sum(alone)):
        count, edges, _ = list_small(evaluator.engine.library, joined(frames), 3.4, budget)
        assert count == sum(np.cumsum(alone) <= budget)
        assert edges.ptr[-1] == len(edges.neighbors) == sum(alone[:count])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_together_is_one_at_a_time_for_every_named_system(small_artifact, dtype):
    frames = list(systems(("Cu", "O"), cutoff=3.4).values())
    together = Evaluator(small_artifact, device="cpu", dtype=dtype).evaluate(frames)
    alone = Evaluator(small_artifact, device="cpu", dtype=dtype)
    tolerance = 0.0 if dtype == "float32" else 1e-10  # the fused form keeps every bit; batched products may not
    for atoms, found in zip(frames, together, strict=True):
        wanted = alone.evaluate([atoms])[0]
        assert set(found) == set(wanted)
        for name, value in wanted.items():
            assert np.abs(found[name] - value).max(initial=0.0) <= tolerance * np.abs(value).max(initial=1.0)
            assert np.shape(found[name]) == np.shape(value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_bad_structure_has_its_error_and_the_others_their_results(small_artifact, dtype):
    evaluator = Evaluator(small_artifact, device="cpu", dtype=dtype)
    frames = [small_atoms(k) for k in range(6)]
    frames[1].symbols[2] = "Au"
    frames[2].positions[3, 1] = np.nan
    frames[4].positions[2] = frames[4].positions[0] + frames[4].cell.array[1]
    found = evaluator.outcomes(frames)
    sentences = {1: "atoms 2 are Au", 2: r"positions of atoms \[3\] are not finite", 4: "Atoms 0 and 2 are at the same"}
    for k, outcome in enumerate(found):
        if k in sentences:
            with pytest.raises(InputError, match=sentences[k]):
                raise outcome
        else:
            np.testing.assert_array_equal(outcome["energy"], evaluator.evaluate([frames[k]])[0]["energy"])
    with pytest.raises(InputError, match="Au"):
        evaluator.evaluate(frames)


def test_the_budget_of_edges_does_not_change_a_bit(small_artifact):
    frames = [small_atoms(k).repeat((1, 1, 1 + k % 3)) for k in range(9)]
    whole = Evaluator(small_artifact, device="cpu").evaluate(frames)
    for budget in (1, 150, 1000):  # even one that no structure keeps within
        parts = Evaluator(small_artifact, device="cpu", max_edges=budget).evaluate(frames)
        for a, b in zip(whole, parts, strict=True):
            for name, value in a.items():
                np.testing.assert_array_equal(value, b[name])


def small_memory(monkeypatch: pytest.MonkeyPatch, most_atoms: int, error: Exception) -> list[int]:
    """Let evaluations of more atoms at once fail; gives the atoms of each that was begun."""
    begun: list[int] = []
    derivatives, run = Evaluator.derivatives, FusedEngine.run

    def look_at(num_atoms):
        begun.append(num_atoms)
        if num_atoms > most_atoms:
            raise error

    def limited_derivatives(self, graph, *rest):
        look_at(graph.num_atoms)
        return derivatives(self, graph, *rest)

    def limited_run(self, positions, *rest, **named):
        look_at(len(positions))
        return run(self, positions, *rest, **named)

    monkeypatch.setattr(Evaluator, "derivatives", limited_derivatives)
    monkeypatch.setattr(FusedEngine, "run", limited_run)
    return begun


@pytest.mark.parametrize("dtype", ["float32", "float64"])  # the fused engine, the network
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc"), torch.OutOfMemoryError("CUDA")])
def test_a_batch_too_large_for_the_memory_is_halved(small_artifact, monkeypatch, dtype, error):
    evaluator = Evaluator(small_artifact, device="cpu", dtype=dtype)
    frames = [small_atoms(k) for k in range(7)]
    alone = [evaluator.evaluate([atoms])[0] for atoms in frames]
    begun = small_memory(monkeypatch, 10, error)
    for found, wanted in zip(evaluator.evaluate(frames), alone, strict=True):
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value)
    assert begun == [35, 15, 5, 10, 20, 10, 10]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_structure_too_large_for_the_memory_does_not_stop_the_others(small_artifact, monkeypatch, dtype):
    evaluator = Evaluator(small_artifact, device="cpu", dtype=dtype)
    frames = [small_atoms(0), small_atoms(1).repeat((1, 1, 3)), small_atoms(2)]
    small_memory(monkeypatch, 12, RuntimeError("can't allocate memory: you tried to allocate 9 bytes.\n  at frame 0"))
    first, wrong, last = evaluator.outcomes(frames)
    sentence = r"for one structure alone: can't allocate .* 9 bytes\.\nTake a smaller"
    with pytest.raises(StructureTooLargeError, match=sentence):
        raise wrong
    assert (first["forces"].shape, last["forces"].shape) == ((5, 3), (5, 3))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_other_errors_of_a_batch_are_not_taken_for_a_lack_of_memory(small_artifact, monkeypatch, dtype):
    evaluator = Evaluator(small_artifact, device="cpu", dtype=dtype)
    begun = small_memory(monkeypatch, 10, RuntimeError("expected a tensor of another shape"))
    with pytest.raises(RuntimeError, match="another shape"):
        evaluator.outcomes([small_atoms(k) for k in range(4)])
    assert begun == [20]


def test_large_and_small_structures_keep_their_order(small_artifact):
    evaluator = Evaluator(small_artifact, device="cpu")
    frames = [small_atoms(k).repeat((1, 1, 40 if k % 2 else 1)) for k in range(4)]
    for atoms, found in zip(frames, evaluator.evaluate(frames), strict=True):
        np.testing.assert_array_equal(found["forces"], evaluator.evaluate([atoms])[0]["forces"])


def test_results_own_their_memory(evaluator):
    first, second = evaluator.evaluate([small_atoms(0), small_atoms(1)])
    kept = second["forces"].copy()
    first["forces"][...] = 0
    np.testing.assert_array_equal(second["forces"], kept)
    assert first["forces"].base is None


def test_the_last_layer_comes_from_batches_too(evaluator):
    frames = [small_atoms(k) for k in range(3)]
    for atoms, found in zip(frames, evaluator.evaluate(frames, last_layer=True), strict=True):
        np.testing.assert_array_equal(
            found["last_layer"], evaluator.evaluate([atoms], last_layer=True)[0]["last_layer"]
        )


def test_any_calculator_is_taken_one_by_one():
    from ase.calculators.emt import EMT

    frames = [Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.2]]), Atoms("Si"), Atoms("Cu")]
    found = evaluate_each(EMT(), frames)
    assert found[0]["energy"] == EMT().get_potential_energy(frames[0])
    assert isinstance(found[1], Exception)
    assert found[2]["forces"].shape == (1, 3)


def test_the_calculator_gives_outcomes(small_artifact):
    found = evaluate_each(AllegroCalculator(small_artifact, device="cpu"), [small_atoms(), Atoms("Au")])
    assert found[0]["forces"].shape == (5, 3)
    assert "Au" in str(found[1])
