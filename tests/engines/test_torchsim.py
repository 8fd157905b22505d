"""torch-sim: its own validator, and the calculator's numbers in batches."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from small_systems import small_model

from asenequip.artifact import save_artifact
from asenequip.calculator import AllegroCalculator
from asenequip.model.spec import PairSpec

torch = pytest.importorskip("torch")
ts = pytest.importorskip("torch_sim")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    model = small_model(type_names=("Si", "Fe"), pair=PairSpec("zbl"))
    return save_artifact(tmp_path_factory.mktemp("torchsim") / "model.asnq", model)


@pytest.fixture(scope="module")
def model(artifact):
    from asenequip.engines.torchsim import AllegroModel

    return AllegroModel(artifact, device="cpu", dtype="float64")


def frames():
    silicon = bulk("Si", "diamond", a=5.43, cubic=True)
    iron = bulk("Fe", "bcc", a=2.9).repeat((2, 2, 3))
    mixed = bulk("Si", "diamond", a=5.0)
    mixed.symbols[0] = "Fe"
    for k, atoms in enumerate((silicon, iron, mixed)):
        atoms.rattle(0.05, seed=k)
    return [silicon, iron, mixed]


def state_of(structures, dtype=None):
    return ts.io.atoms_to_state(structures, torch.device("cpu"), dtype or torch.float64)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_validator_of_torchsim_passes(model, dtype):
    ts.models.interface.validate_model_outputs(model, torch.device("cpu"), getattr(torch, dtype))


def test_a_batch_has_the_calculators_numbers(model, artifact):
    structures = frames()
    found = model(state_of(structures))
    start = 0
    for k, atoms in enumerate(structures):
        atoms.calc = AllegroCalculator(artifact, dtype="float64")
        assert float(found["energy"][k]) == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
        forces = found["forces"][start : start + len(atoms)].numpy()
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-10, rtol=0)
        np.testing.assert_allclose(found["stress"][k].numpy(), atoms.get_stress(voigt=False), atol=1e-11, rtol=0)
        start += len(atoms)


def test_the_precision_of_the_state_is_kept(model):
    found = model(state_of(frames(), torch.float32))
    assert {value.dtype for value in found.values()} == {torch.float32}


def test_a_dictionary_is_a_state_too(model):
    state = state_of(frames())
    fields = {name: getattr(state, name) for name in ("positions", "cell", "atomic_numbers", "system_idx", "pbc")}
    assert torch.equal(model(fields)["energy"], model(state)["energy"])


def test_without_a_volume_there_is_no_stress(model):
    atoms = frames()[0]
    atoms.pbc, atoms.cell = False, np.zeros((3, 3))
    state = state_of([atoms])
    found = model(state)
    assert torch.isnan(found["stress"]).all()
    assert torch.isfinite(found["forces"]).all()


def test_constant_energy_dynamics_are_those_of_ase(model, artifact):
    from ase.md.verlet import VelocityVerlet

    structures = frames()
    state = state_of(structures)
    kT = torch.tensor(100 * units.kB, dtype=torch.float64)
    dt = 0.5 * units.fs
    init, step = ts.integrators.nve(model, dt=torch.tensor(dt, dtype=torch.float64), kT=kT)
    moving = init(state, kT=kT, seed=3)
    momenta = moving.momenta.clone().numpy()
    for _ in range(20):
        moving = step(moving)
    start = 0
    for atoms in structures:
        part = slice(start, start + len(atoms))
        atoms.set_masses(moving.masses[part].numpy())
        atoms.set_momenta(momenta[part])
        atoms.calc = AllegroCalculator(artifact, dtype="float64")
        VelocityVerlet(atoms, dt, logfile=None).run(20)
        apart = moving.positions[part].numpy() - atoms.positions
        apart -= np.round(apart @ np.linalg.inv(atoms.cell.array)) @ atoms.cell.array  # torch-sim wraps into the cell
        np.testing.assert_allclose(apart, 0, atol=1e-8)
        start = part.stop


def temperatures_of(state):
    """K, from the momenta of each system's 3n degrees of freedom."""
    twice = torch.zeros(state.n_systems, dtype=torch.float64)
    twice.index_add_(0, state.system_idx, (state.momenta**2).sum(1) / state.masses)
    return (twice / (3 * state.n_atoms_per_system * units.kB)).numpy()


def test_a_thermostat_brings_each_system_to_its_temperature(model):
    """Langevin, from rest: the mean kinetic energy is that of 300 K within six standard errors of the sample."""
    structures = [atoms.repeat((2, 2, 2)) for atoms in frames()[:2]]
    final = ts.integrate(
        structures,
        model,
        integrator=ts.integrators.nvt_langevin,
        n_steps=60,
        temperature=300,
        timestep=0.0005,
        gamma=torch.tensor(2.0, dtype=torch.float64),
        seed=1,
    )
    temperatures = temperatures_of(final)
    for temperature, atoms in zip(temperatures, structures, strict=True):
        assert abs(temperature / 300 - 1) < 6 * np.sqrt(2 / (3 * len(atoms)))


def test_relaxation_over_a_batch_ends_at_small_forces(model, artifact):
    structures = frames()
    converged = ts.generate_force_convergence_fn(force_tol=0.05, include_cell_forces=False)
    relaxed = ts.optimize(structures, model, optimizer=ts.optimizers.fire, convergence_fn=converged, max_steps=1000)
    for atoms, start in zip(relaxed.to_atoms(), structures, strict=True):
        for frame in (atoms, start):
            frame.calc = AllegroCalculator(artifact, dtype="float64")
        assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.05 + 1e-9
        assert atoms.get_potential_energy() < start.get_potential_energy()
