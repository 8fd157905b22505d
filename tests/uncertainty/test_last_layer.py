"""The last-layer posterior: exact where the truth is known, finite differences, the file, the calculator, the guard."""

from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest
from ase.md.verlet import VelocityVerlet
from small_systems import small_atoms, small_model

from asenequip import AllegroCalculator, load_artifact
from asenequip.artifact import ArtifactError, save_artifact
from asenequip.evaluate import Evaluator
from asenequip.md import run_md
from asenequip.model.spec import PairSpec
from asenequip.uncertainty import (
    Ensemble,
    Guard,
    GuardStop,
    LastLayer,
    add_uncertainty,
    calibration_error,
    frame_deviation,
)
from asenequip.uncertainty.features import feature_factors, force_jacobian, force_rows
from asenequip.uncertainty.guard import GuardWarning
from asenequip.uncertainty.last_layer import Errors

WIDTH = 40


def linear_problem(seed: int, train: int, held_out: int, noise: float = 0.05):
    """Frames of three atoms whose energy is linear in known features, with noise: the model of the theory itself."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(WIDTH, WIDTH))
    features = rng.normal(size=(train + held_out, 3, WIDTH)) @ mixing
    truth = rng.normal(size=WIDTH)
    totals = features.sum(axis=1)
    energy = totals @ truth + noise * rng.normal(size=len(features))
    covariance = totals[:train].T @ totals[:train] / noise**2
    weights = np.linalg.solve(covariance, totals[:train].T @ energy[:train] / noise**2)
    clean = totals @ (truth - weights)
    return features, covariance, clean[train:]


def fitted(covariance, features, errors) -> LastLayer:
    n = len(features)
    forces = [np.full((3, 3), np.nan)] * n
    known = Errors(list(features), [np.zeros(3, int)] * n, errors, forces)
    return LastLayer.fit(["Cu"], np.ones(1), covariance, known)


def test_deviations_are_the_posterior_of_a_linear_model(monkeypatch):
    monkeypatch.setattr("asenequip.uncertainty.last_layer.RIDGES", np.array([1e-12]))
    features, covariance, errors = linear_problem(0, 80, 4000)
    found = fitted(covariance, features[80:2080], errors[:2000])
    total = features[2080:].sum(axis=1)
    exact = np.sqrt(np.einsum("kd,de,ke->k", total, np.linalg.inv(covariance), total))
    stated = np.array([found.deviations(f, np.zeros(3, int)).energy for f in features[2080:]])
    ratio = stated / exact
    assert np.ptp(ratio) < 1e-6 * ratio.mean()  # the shape is the theory's; the scale is that of this one draw


def test_scale_and_bounds_hold_on_new_problems():
    """Over many draws: the deviations are calibrated, and the conformal bound covers what it promises."""
    inside, errors, deviations = [], [], []
    for seed in range(60):
        features, covariance, clean = linear_problem(seed, 80, 160)
        found = fitted(covariance, features[80:180], clean[:100])
        bound = found.energy_bound(0.8)
        stated = np.array([found.deviations(f, np.zeros(3, int)).energy for f in features[180:]])
        inside.append(np.mean(np.abs(clean[100:]) <= bound * stated))
        errors.append(clean[100:])
        deviations.append(stated)
    assert 0.8 - 0.03 <= np.mean(inside) <= 0.8 + 1 / 101 + 0.03  # four standard errors of the mean of 60
    # given the truth, errors over deviations are Beta- and not normally distributed: 0.01 at 40 features
    assert calibration_error(np.concatenate(errors), np.concatenate(deviations)) < 0.03
    assert calibration_error(np.concatenate(errors), 2 * np.concatenate(deviations)) > 0.1


def test_an_atom_alone_among_the_held_out_frames_changes_nothing():
    features, covariance, clean = linear_problem(1, 80, 12)
    forces = list(np.random.default_rng(0).normal(size=(12, 3, 3)))
    kinds = [np.zeros(3, int)] * 12
    found = LastLayer.fit(["Cu"], np.ones(1), covariance, Errors(list(features[80:]), kinds, clean, forces))
    alone = Errors(
        [*features[80:], np.zeros((1, WIDTH))],
        [*kinds, np.zeros(1, int)],
        np.append(clean, np.nan),
        [*forces, np.zeros((1, 3))],
    )
    same = LastLayer.fit(["Cu"], np.ones(1), covariance, alone)
    np.testing.assert_allclose(same.force_scales, found.force_scales)


def test_too_few_scores_bound_nothing():
    features, covariance, clean = linear_problem(1, 80, 9)
    found = fitted(covariance, features[80:], clean)
    assert found.energy_bound(0.9) < np.inf
    assert found.energy_bound(0.91) == np.inf


def test_forces_of_the_features_are_finite_differences():
    model = small_model()
    evaluator = Evaluator(_potential(model), dtype="float64", device="cpu", compiled=False)
    atoms, step = small_atoms(), 1e-4
    types = evaluator.graph(atoms).types.numpy()
    factors = feature_factors(evaluator.model)

    def features(positions):
        moved = atoms.copy()
        moved.positions = positions
        rows = evaluator.evaluate([moved], last_layer=True)[0]["last_layer"]
        return (rows * factors[types][:, None]).sum(axis=0)

    found = force_jacobian(evaluator.model, evaluator.graph(atoms))
    for atom, axis in [(0, 0), (3, 2), (4, 1)]:
        shift = np.zeros((5, 3))
        shift[atom, axis] = step
        slope = (features(atoms.positions + shift) - features(atoms.positions - shift)) / (2 * step)
        np.testing.assert_allclose(found[atom, axis], -slope, atol=1e-7)


def test_random_combinations_give_the_force_covariance():
    model = small_model()
    graph = Evaluator(_potential(model), dtype="float64", device="cpu", compiled=False).graph(small_atoms())
    exact = force_jacobian(model, graph).reshape(-1, 7)
    rows = force_rows(model, graph, 3000, np.random.default_rng(0))
    error = np.linalg.norm(rows.T @ rows / 3000 - exact.T @ exact) / np.linalg.norm(exact.T @ exact)
    assert error < 0.1  # a Monte Carlo mean of 3000: relative error about sqrt(2 / 3000), at 15 components


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-3)])
def test_deviation_of_a_frame_is_that_of_the_posterior_of_its_forces(dtype, tolerance, small_artifact, tmp_path):
    """Against differences of the features, from energies alone."""
    path = unsure(tmp_path, pair=PairSpec("zbl"))
    exact = Evaluator(path, dtype="float64", device="cpu", compiled=False)
    atoms, step, rigidity = small_atoms(3), 1e-4, LastLayer.of(exact.potential, "test")
    factors = rigidity.factors[exact.graph(atoms).types.numpy()][:, None]
    moved = [atoms.copy() for _ in range(30)]
    for k, other in enumerate(moved):
        other.positions[k // 6, k // 2 % 3] += step if k % 2 else -step
    sums = np.array([(row["last_layer"] * factors).sum(axis=0) for row in exact.evaluate(moved, last_layer=True)])
    jacobian = (sums[::2] - sums[1::2]) / (2 * step)
    wanted = rigidity.energy_scale * np.sqrt(((jacobian @ rigidity.root) ** 2).sum() / 15)
    evaluator = Evaluator(path, dtype=dtype, device="cpu")
    assert frame_deviation(evaluator, atoms) == pytest.approx(wanted, rel=tolerance)
    assert frame_deviation(evaluator, atoms * (2, 1, 1)) == pytest.approx(wanted, rel=tolerance)
    assert frame_deviation(evaluator, atoms[:0]) == 0
    with pytest.raises(ValueError, match="must be of a potential with an uncertainty"):
        frame_deviation(AllegroCalculator(small_artifact, device="cpu").evaluator, atoms)


def _potential(model):
    from asenequip.artifact import Potential

    return Potential(model.requires_grad_(False).eval(), {}, "float64", None, "")


@pytest.fixture(scope="module")
def with_uncertainty(tmp_path_factory):
    return unsure(tmp_path_factory.mktemp("uncertainty"))


def unsure(folder, **options):
    """A potential "trained" on another network's labels: what matters here is that errors are there."""
    source = save_artifact(folder / "plain.asnq", small_model(0, **options))
    teacher = AllegroCalculator(save_artifact(folder / "teacher.asnq", small_model(1)), dtype="float64", device="cpu")
    frames = [small_atoms(k) for k in range(16)]
    for atoms in frames:
        atoms.calc = teacher
        atoms.get_forces()
        results = {k: v for k, v in teacher.results.items() if k in ("energy", "forces")}
        from ase.calculators.singlepoint import SinglePointCalculator

        atoms.calc = SinglePointCalculator(atoms, **results)
    return add_uncertainty(source, folder / "model.asnq", frames[:10], frames[10:], device="cpu")


def test_the_file_keeps_it_and_files_without_it_still_load(with_uncertainty, small_artifact):
    potential = load_artifact(with_uncertainty)
    assert potential.uncertainty is not None
    found = LastLayer.from_part(potential.uncertainty, potential.spec.readout_width)
    assert found.record["train_frames"] == 10
    assert found.energy_bound(0.5) > 0
    assert load_artifact(small_artifact).uncertainty is None
    with pytest.raises(ValueError, match="carries no uncertainty"):
        AllegroCalculator(small_artifact, device="cpu").uncertainty(small_atoms())


@pytest.mark.parametrize("damage", ["flip", "drop"])
def test_a_damaged_part_is_refused(damage, with_uncertainty, tmp_path):
    with zipfile.ZipFile(with_uncertainty) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    if damage == "flip":
        record = json.loads(entries["uncertainty.json"])
        entries["uncertainty.json"] = json.dumps({**record, "energy_scale": 1e-9}).encode()
    else:
        del entries["uncertainty.safetensors"]
    with zipfile.ZipFile(tmp_path / "bad.asnq", "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(ArtifactError, match="uncertainty"):
        load_artifact(tmp_path / "bad.asnq")


def test_the_calculator_tells_it_from_one_pass(with_uncertainty):
    calculator = AllegroCalculator(with_uncertainty, dtype="float64", device="cpu")
    atoms = small_atoms(3)
    atoms.calc = calculator
    atoms.get_forces()
    passes = []
    evaluate = calculator.evaluator.evaluate
    calculator.evaluator.evaluate = lambda *a, **k: passes.append(1) or evaluate(*a, **k)
    found = calculator.uncertainty(atoms)
    assert not passes
    assert set(calculator.results) <= set(calculator.implemented_properties)
    assert found.energies.shape == found.forces.shape == (5,)
    assert (found.forces > 0).all()
    atoms.positions[0, 0] += 0.3
    assert not np.array_equal(calculator.uncertainty(atoms).forces, found.forces)
    assert len(passes) == 1


def test_an_atom_alone_has_no_features_and_no_doubt(with_uncertainty):
    from ase import Atoms

    found = AllegroCalculator(with_uncertainty, device="cpu").uncertainty(Atoms("Cu"))
    assert found.energy == 0
    assert AllegroCalculator(with_uncertainty, device="cpu").uncertainty(Atoms()).max_force == 0


def test_guard_stops_dynamics_and_hands_the_frame_over(with_uncertainty, tmp_path):
    from ase.io import read

    calculator = AllegroCalculator(with_uncertainty, device="cpu")
    atoms = small_atoms(3)
    atoms.calc = calculator
    level = calculator.uncertainty(atoms).max_force
    guard = Guard(1.5 * level, "hand over", path=tmp_path / "unsure.extxyz", interval=2)

    def shake(moving, step):
        moving.set_cell(0.99 * moving.cell.array, scale_atoms=True)  # leads out of the known
        guard(moving, step)

    with pytest.raises(GuardStop, match=r"at step \d+"):
        run_md(atoms, calculator, steps=200, timestep=0.1, state=tmp_path / "run.restart", observe=shake)
    frame = read(tmp_path / "unsure.extxyz")
    assert frame.info["uncertainty"] > 1.5 * level
    assert frame.info["step"] % 2 == 0
    assert (tmp_path / "run.restart").exists()


def test_guard_with_a_confidence_looks_at_the_bound(with_uncertainty):
    atoms = small_atoms(3)
    atoms.calc = AllegroCalculator(with_uncertainty, device="cpu")
    bound = atoms.calc.rigidity.force_bound(0.5, whole_frame=True) * atoms.calc.uncertainty(atoms).max_force
    Guard(1.01 * bound, "stop", confidence=0.5)(atoms)
    with pytest.raises(GuardStop):
        Guard(0.99 * bound, "stop", confidence=0.5)(atoms)


def test_guard_is_an_observer_of_ase(with_uncertainty):
    atoms = small_atoms(3)
    atoms.calc = AllegroCalculator(with_uncertainty, device="cpu")
    guard = Guard(1e-9, "warn")
    dynamics = VelocityVerlet(atoms, 0.01)
    dynamics.attach(guard, interval=1, atoms=atoms)
    with pytest.warns(GuardWarning, match="are uncertain by more than 1e-09"):
        dynamics.run(2)
    assert guard.alarms == guard.calls == 3


def test_ensemble_is_mean_and_spread_of_its_members(tmp_path):
    paths = [save_artifact(tmp_path / f"{seed}.asnq", small_model(seed)) for seed in range(3)]
    atoms = small_atoms()
    members = [AllegroCalculator(path, dtype="float64", device="cpu").get_property("forces", atoms) for path in paths]
    atoms.calc = Ensemble(paths, dtype="float64", device="cpu", scale=2.0)
    np.testing.assert_allclose(atoms.get_forces(), np.mean(members, axis=0), atol=1e-12)
    spread = np.sqrt((np.std(members, axis=0, ddof=1) ** 2).mean(axis=1))
    np.testing.assert_allclose(atoms.calc.uncertainty(atoms).forces, 2.0 * spread, rtol=1e-9)
    assert atoms.get_stress().shape == (6,)
    copied = pickle.loads(pickle.dumps(atoms.calc)).get_property("forces", atoms)
    np.testing.assert_array_equal(copied, atoms.get_forces())


def test_biased_forces_are_the_gradient_of_the_biased_energy(with_uncertainty):
    from ase.calculators.fd import calculate_numerical_forces

    from asenequip.uncertainty.bias import UncertaintyBias

    evaluator = Evaluator(with_uncertainty, dtype="float64", device="cpu", compiled=False)
    atoms = small_atoms(3)
    atoms.calc = plain = AllegroCalculator(with_uncertainty, dtype="float64", device="cpu")
    energy, doubt = atoms.get_potential_energy(), plain.uncertainty(atoms).energy
    atoms.calc = UncertaintyBias(evaluator, 3.0)
    assert atoms.get_potential_energy() == pytest.approx(energy - 3.0 * doubt, abs=1e-6)
    assert atoms.calc.uncertainty(atoms).energy == pytest.approx(doubt, rel=1e-6)
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, 1e-4), atol=1e-6)
