"""The device-resident engine, on CPU tensors: padded and unpadded against the graph's way, lists kept and rebuilt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from small_systems import small_atoms, small_model

from asenequip import AllegroCalculator
from asenequip.artifact import load_artifact
from asenequip.compiling import CompilationError
from asenequip.graph import atom_types, graph_of
from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import evaluate_derivatives
from asenequip.model.spec import PairSpec
from asenequip.resident import Arrays, ResidentEngine, vanishes_beyond_the_cutoff
from asenequip.residentcheck import check_resident
from asenequip.testing import check_calculator
from asenequip.testing.systems import systems

ROUNDING = 1e-11
"""Relative to the largest entry, float64: sums take another order where edges beyond the cutoff stand between."""


def reference(model: Allegro, atoms: Atoms) -> Arrays:
    found = evaluate_derivatives(model, graph_of(atoms, model.spec.type_names, np.asarray(model.spec.cutoff_table())))
    return found.energies.numpy(), found.forces.numpy(), found.virials.numpy()


def run(engine: ResidentEngine, atoms: Atoms) -> Arrays:
    types = atom_types(atoms, engine.model.spec.type_names)
    return engine.run(atoms.positions, atoms.cell.array, atoms.pbc, types)


def assert_same(found: Arrays, wanted: Arrays) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max(initial=0.0) <= ROUNDING * np.abs(b).max(initial=1.0)


@pytest.fixture(scope="module")
def model() -> Allegro:
    pair_cutoffs = ((3.4, 3.0), (2.8, 3.2))
    return small_model(pair=PairSpec("zbl"), pair_cutoffs=pair_cutoffs).requires_grad_(False)


@pytest.mark.parametrize("padded_edges", [0, 10**6])
@pytest.mark.parametrize("name", systems(("Cu", "O"), cutoff=3.4))
def test_every_named_system(model, name, padded_edges):
    atoms = systems(("Cu", "O"), cutoff=3.4)[name]
    assert_same(run(ResidentEngine(model, 1.0, padded_edges=padded_edges), atoms), reference(model, atoms))


@pytest.mark.parametrize("padded_edges", [0, 10**6])
def test_a_walk_with_moving_cell_keeps_and_rebuilds_the_list(model, padded_edges):
    engine, atoms, rng = ResidentEngine(model, 0.5, padded_edges=padded_edges), small_atoms(), np.random.default_rng(0)
    for step in range(40):
        atoms.positions += rng.normal(0.0, 0.02, atoms.positions.shape)
        if step % 5 == 0:
            atoms.set_cell(atoms.cell.array * (1 + rng.normal(0.0, 0.003)), scale_atoms=True)
        assert_same(run(engine, atoms), reference(model, atoms))
    assert 1 < engine.builds < 25


def test_lists_that_fit_are_not_captured_anew(model):
    engine, atoms = ResidentEngine(model, 0.3), bulk("Cu", cubic=True) * (2, 2, 2)
    for seed in range(6):
        moved = atoms.copy()
        moved.rattle(0.25, seed=seed)
        moved.symbols[seed] = "O"
        assert_same(run(engine, moved), reference(model, moved))
    assert engine.builds == 6
    assert engine.captures == 1


def test_a_step_that_could_not_be_recorded_is_recorded_at_the_next_call(model, monkeypatch):
    engine, atoms = ResidentEngine(model, 1.0), small_atoms()
    with monkeypatch.context() as short_of_memory:
        short_of_memory.setattr(engine, "_record", lambda buffers: (_ for _ in ()).throw(RuntimeError("out of memory")))
        with pytest.raises(RuntimeError, match="out of memory"):
            run(engine, atoms)
    assert_same(run(engine, atoms), reference(model, atoms))


def test_structures_of_other_sizes_take_turns(model):
    engine = ResidentEngine(model, 1.0, padded_edges=2000)
    frames = [small_atoms(), small_atoms(1).repeat((3, 2, 2)), Atoms(), Atoms("Cu"), small_atoms(2)]
    for atoms in frames + frames[::-1]:
        assert_same(run(engine, atoms), reference(model, atoms))


def test_only_what_vanishes_beyond_the_cutoff_is_padded():
    kept = small_model(two_body_nonlinearity="softplus").requires_grad_(False)
    assert not vanishes_beyond_the_cutoff(kept)
    engine = ResidentEngine(kept, 1.0)
    assert_same(run(engine, small_atoms()), reference(kept, small_atoms()))
    assert engine.captures == 0


def test_the_kit_through_the_device_path(small_artifact):
    calc = AllegroCalculator(small_artifact, device="cpu", dtype="float64")
    calc.evaluator.resident = ResidentEngine(calc.evaluator.model, 1.0)
    skipped = ("works_in_a_new_process", "works_with_joblib", "pickle_comes_back", "deepcopy_is_independent")
    check_calculator(calc, ("Cu", "O"), cutoff=3.4, skip=skipped)
    assert calc.evaluator.resident.builds > 100


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-10), ("float32", 1e-4)])
def test_the_check_measures_the_path_and_passes_it(small_artifact, dtype, limit):
    report = check_resident(load_artifact(small_artifact), dtype, torch.device("cpu"))
    assert report.force_error < limit * (1 + report.largest_force)
    assert report.difference_error < 1e-6


def test_the_check_refuses_wrong_numbers(small_artifact, monkeypatch):
    right = ResidentEngine.run

    def wrong(self, *arguments):
        energies, forces, virials = right(self, *arguments)
        return energies, forces + 1e-3, virials

    monkeypatch.setattr(ResidentEngine, "run", wrong)
    with pytest.raises(CompilationError, match="its force_error is over"):
        check_resident(load_artifact(small_artifact), "float64", torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_on_a_gpu_with_and_without_a_captured_step(model, dtype):
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    atoms = small_atoms().repeat((3, 3, 3))
    wanted = reference(model, atoms)
    there = small_model(pair=PairSpec("zbl"), pair_cutoffs=model.spec.pair_cutoffs)
    there = there.requires_grad_(False).to(dtype).to("cuda")
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    for padded_edges in (0, 10**6):
        engine = ResidentEngine(there, 1.0, padded_edges=padded_edges)
        for _ in range(3):
            for a, b in zip(run(engine, atoms), wanted, strict=True):
                assert np.abs(a - b).max() <= tolerance * np.abs(b).max(initial=1.0)
