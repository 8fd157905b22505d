"""The fused CPU form against the eager network in float64, finite differences, and its own bits on other threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import InputError

from asenequip.artifact import load_artifact, save_artifact
from asenequip.compiling import CompilationError, _cache_path, compile_potential, fused_engine, run_fused
from asenequip.evaluate import Evaluator
from asenequip.fused.engine import FusedEngine, has_bfloat16, vector_lanes
from asenequip.fused.fold import fold, tabulate, with_bfloat16
from asenequip.fused.harmonics import harmonic_polynomials
from asenequip.fused.plan import Plan, unsupported
from asenequip.graph import graph_of
from asenequip.kernels import native
from asenequip.kernels.ops import use_backend
from asenequip.model.allegro import Allegro
from asenequip.model.angular import spherical_harmonics
from asenequip.model.derivatives import evaluate_derivatives
from asenequip.model.spec import AllegroSpec, PairSpec
from asenequip.neighbors import EdgeList, find_edges

pytestmark = pytest.mark.skipif(not native.compiler(), reason="no C++ compiler on this machine")

# eV and eV/A: what the radial tables may differ from the network at slope errors of 1e-9 of the largest slope
TABLE = 2e-8
SPECS = {
    "plain": {"l_max": 1, "num_layers": 1},
    "default": {"l_max": 2},
    "three layers, parity, deep, odd widths, ZBL": {
        "l_max": 3,
        "num_layers": 3,
        "num_tensor_features": 5,
        "num_scalar_features": 10,
        "latent_width": 9,
        "latent_depth": 2,
        "readout_width": 7,
        "readout_depth": 3,
        "pair": PairSpec("zbl"),
    },
    "four layers, no parity": {"l_max": 1, "num_layers": 4, "parity": False, "num_tensor_features": 8},
    "high order, spline, LJ": {
        "l_max": 4,
        "radial": "spline",
        "num_tensor_features": 4,
        "pair": PairSpec("lj", sigma=1.8),
    },
    "shared weights, pair cutoffs": {
        "l_max": 2,
        "individual_irrep_weights": False,
        "path_channel_coupling": False,
        "pair_cutoffs": ((4.5, 4.0), (3.5, 4.2)),
        "latent_depth": 3,
        "pair": PairSpec("lj", style="lj_repulsive_only"),
    },
    "scalars only": {"l_max": 0, "pair": PairSpec("lj", style="repulsive", sigma=0.5, epsilon=2.0)},
    "other two-body function": {"two_body_depth": 0, "two_body_nonlinearity": "gelu", "forward_normalize": False},
}


def make_model(**options: object) -> Allegro:
    spec = AllegroSpec(("Cu", "Li"), 4.5, avg_num_neighbors=(40.0, 31.0), **options)  # type: ignore[arg-type]
    model = Allegro(spec, seed=7).requires_grad_(False)
    model.scales.copy_(torch.tensor([1.3, 0.7]))
    model.shifts.copy_(torch.tensor([-2.0, 0.4]))
    return model


def make_atoms(seed: int = 0) -> Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 2, 1)
    atoms.symbols[::3] = "Li"
    atoms.set_cell(atoms.cell @ np.array([[1, 0.05, 0], [0, 1, 0.02], [0.03, 0, 1]]), scale_atoms=True)
    atoms.rattle(0.15, seed=seed)
    return atoms


def make_engine(model: Allegro, dtype: str = "float64") -> FusedEngine:
    plan = Plan(model.spec, vector_lanes(dtype))
    return FusedEngine(model.spec, dtype, fold(model, plan, dtype, 1e-9))


@pytest.mark.parametrize("name", SPECS)
def test_equals_the_eager_network(name: str) -> None:
    model, atoms = make_model(**SPECS[name]), make_atoms()
    with use_backend("plain"):
        graph = graph_of(atoms, model.spec.type_names, np.asarray(model.spec.cutoff_table()))
        exact = evaluate_derivatives(model, graph)
    energies, forces, virials = run_fused(make_engine(model), atoms)
    scale = max(1.0, np.abs(exact.forces.numpy()).max())
    np.testing.assert_allclose(energies, exact.energies.numpy(), atol=TABLE * scale, rtol=0)
    np.testing.assert_allclose(forces, exact.forces.numpy(), atol=TABLE * scale, rtol=0)
    np.testing.assert_allclose(virials, exact.virials.numpy(), atol=10 * TABLE * scale, rtol=0)


def test_float32_is_as_exact_as_the_eager_network_in_float32() -> None:
    model, atoms = make_model(l_max=3), make_atoms()
    table = np.asarray(model.spec.cutoff_table())
    with use_backend("plain"):
        graph = graph_of(atoms, model.spec.type_names, table)
        exact = evaluate_derivatives(model, graph).forces.numpy()
        engine = make_engine(model, "float32")
        eager = evaluate_derivatives(model.to(torch.float32), graph).forces.numpy()
    fused = run_fused(engine, atoms)[1]
    assert np.abs(fused - exact).max() <= 2 * np.abs(eager - exact).max()


@pytest.mark.skipif(not has_bfloat16(), reason="the processor has no AVX512-BF16")
@pytest.mark.parametrize("name", ["default", "three layers, parity, deep, odd widths, ZBL"])
def test_bfloat16_errs_by_the_rounding_of_its_operands(name: str) -> None:
    """Operands keep eight bits: each product errs by some 2^-9 of its size, and so do the forces, not by more."""
    model, atoms = make_model(**SPECS[name]), make_atoms()
    exact = run_fused(make_engine(model), atoms)
    found = run_fused(make_engine(model, "bfloat16"), atoms)
    typical = np.sqrt(np.square(exact[1]).mean())
    deviation = np.sqrt(np.square(found[1] - exact[1]).mean())
    assert 1e-5 * typical < deviation < 2**-6 * typical


def test_bfloat16_matrices_are_interleaved_pairs_of_rows() -> None:
    plan = Plan(make_model().spec, 16)
    block = np.arange(plan.offsets()[1], dtype=np.float64) % 251
    packed = with_bfloat16(block, plan)[len(block) :].view(np.uint16)
    offset, (rows, columns) = plan.offsets()[0]["h_0_r"], plan.shapes()["h_0_r"]
    matrix = block[offset : offset + rows * columns].reshape(rows, columns)
    pairs = packed[offset : offset + rows * columns].reshape(rows // 2, columns, 2)
    found = (pairs.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(found[:, :, 0], matrix[::2])  # whole numbers below 256 are exact in bfloat16
    np.testing.assert_array_equal(found[:, :, 1], matrix[1::2])


def test_forces_are_the_gradient_of_the_energy() -> None:
    engine, atoms = make_engine(make_model(l_max=3, pair=PairSpec("zbl"))), make_atoms()
    forces, step = run_fused(engine, atoms)[1], 1e-3
    for atom, axis in ((0, 0), (5, 1), (11, 2)):
        energy = {}
        for k in (-2, -1, 1, 2):
            moved = atoms.copy()
            moved.positions[atom, axis] += k * step
            energy[k] = run_fused(engine, moved)[0].sum()
        slope = (energy[-2] - 8 * energy[-1] + 8 * energy[1] - energy[2]) / (12 * step)
        assert abs(forces[atom, axis] + slope) < 1e-7


def test_threads_do_not_change_a_bit() -> None:
    engine, atoms = make_engine(make_model(), "float32"), make_atoms() * (2, 2, 2)
    edges = EdgeList.from_edges(find_edges(atoms.positions, atoms.cell.array, atoms.pbc, 4.5), len(atoms))
    types = np.array([("Cu", "Li").index(s) for s in atoms.symbols], np.int32)
    runs = [
        engine.run(atoms.positions, atoms.cell.array[None], np.zeros(len(atoms), np.int32), types, edges, threads=t)
        for t in (1, 2, 5)
    ]
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_list_with_skin_gives_the_same_bits() -> None:
    engine, atoms = make_engine(make_model(), "float32"), make_atoms()
    types = np.array([("Cu", "Li").index(s) for s in atoms.symbols], np.int32)
    found = []
    for reach in (4.5, 6.0):
        rows = EdgeList.from_edges(find_edges(atoms.positions, atoms.cell.array, atoms.pbc, reach), len(atoms))
        frames = np.zeros(len(atoms), np.int32)
        found.append(engine.run(atoms.positions, atoms.cell.array[None], frames, types, rows))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_ghost_atoms_receive_forces_but_are_no_centres() -> None:
    """Owned centres with explicit images as ghosts: summing the images' forces back gives the periodic forces."""
    engine, atoms = make_engine(make_model()), make_atoms()
    centers, neighbors, shifts = find_edges(atoms.positions, atoms.cell.array, atoms.pbc, 4.5)
    types = np.array([("Cu", "Li").index(s) for s in atoms.symbols], np.int32)
    keys = sorted({(int(n), *map(int, s)) for n, s in zip(neighbors, shifts, strict=True) if s.any()})
    place = {key: len(atoms) + k for k, key in enumerate(keys)}
    owner = np.array([key[0] for key in keys])
    ghosts = np.array([atoms.positions[key[0]] + np.array(key[1:]) @ atoms.cell.array for key in keys])
    targets = [place[(int(n), *map(int, s))] if s.any() else n for n, s in zip(neighbors, shifts, strict=True)]
    rows = EdgeList.from_edges((centers, np.array(targets), np.zeros_like(shifts)), len(atoms))
    everyone = np.concatenate([atoms.positions, ghosts])
    frames = np.zeros(len(atoms), np.int32)
    energies, forces, _ = engine.run(everyone, np.zeros((1, 3, 3)), frames, np.concatenate([types, types[owner]]), rows)
    np.add.at(forces, owner, forces[len(atoms) :])
    expected = run_fused(engine, atoms)
    np.testing.assert_allclose(energies, expected[0], atol=1e-12, rtol=0)
    np.testing.assert_allclose(forces[: len(atoms)], expected[1], atol=1e-11, rtol=0)


@pytest.mark.parametrize("l_max", range(5))
def test_harmonic_polynomials_are_the_harmonics(l_max: int) -> None:
    points = np.random.default_rng(3).normal(size=(20, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    expected = spherical_harmonics(torch.from_numpy(points), l_max).numpy()
    for i, terms in enumerate(harmonic_polynomials(l_max)):
        value = sum(c * np.prod(points**e, axis=1) for e, c in terms)
        np.testing.assert_allclose(value, expected[:, i], atol=1e-12)


def test_the_table_error_is_measured_and_falls_with_the_tolerance() -> None:
    model = make_model()
    plan = Plan(model.spec, 8)
    coarse, fine = tabulate(model, plan, 1e-3), tabulate(model, plan, 1e-8)
    assert coarse.slope_error <= 1e-3
    assert fine.slope_error <= 1e-8
    assert fine.intervals > coarse.intervals


@pytest.mark.parametrize("options", [{"latent_depth": 0}, {"readout_nonlinearity": "tanh"}])
def test_architectures_without_a_fused_form_run_eagerly_and_say_so(options: dict[str, object], tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = make_model(**options)
    assert unsupported(model.spec)
    path = save_artifact(tmp_path / "m.asnq", model)
    with pytest.warns(UserWarning, match="eager network runs instead"):
        evaluator = Evaluator(path, device="cpu")
    assert np.isfinite(evaluator.evaluate([make_atoms()])[0]["energy"])
    with pytest.raises(CompilationError, match="no fused form"):
        Evaluator(path, device="cpu", compiled=True)


def test_what_was_made_of_other_sources_of_the_network_is_not_taken(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    named: list[str] = []

    def note(potential, sources, facts) -> str:  # type: ignore[no-untyped-def]
        named.extend(path.name for path in sources)
        return "name"

    monkeypatch.setattr("asenequip.compiling.cache_name", note)
    potential = load_artifact(save_artifact(tmp_path / "m.asnq", make_model(l_max=1)), check=False)
    _cache_path(potential, "float32")
    assert {"compiling.py", "fold.py", "driver.hpp", "radial.py", "mlp.py", "paths.py"} <= set(named)


def test_a_damaged_cache_is_rebuilt(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("asenequip.compiling.cache_directory", lambda: tmp_path)
    potential = Evaluator(save_artifact(tmp_path / "m.asnq", make_model(l_max=1)), compiled=False).potential
    first = compile_potential(potential)
    (kept,) = tmp_path.glob("fused/*.npz")
    kept.write_bytes(kept.read_bytes()[:5000])
    assert compile_potential(potential) == first
    expected = run_fused(fused_engine(potential), make_atoms())[1]
    assert np.isfinite(expected).all()


def test_calculators_of_one_potential_share_the_engine(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("asenequip.compiling.cache_directory", lambda: tmp_path)
    path = save_artifact(tmp_path / "m.asnq", make_model(l_max=1))
    other = save_artifact(tmp_path / "other.asnq", make_model(l_max=1, readout_width=5))
    first, second, third = (Evaluator(name, device="cpu").engine for name in (path, path, other))
    assert first is second
    assert first is not third


def test_without_a_compiler_the_network_runs_and_says_so(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    path = save_artifact(tmp_path / "m.asnq", make_model(l_max=1))
    expected = Evaluator(path, device="cpu", compiled=False).evaluate([make_atoms()])[0]["energy"]
    monkeypatch.setattr(native, "compiler", lambda: None)
    native.toolchain.cache_clear()
    with pytest.warns(UserWarning, match=r"No C\+\+ compiler was found. Install (.|\n)*eager network runs instead"):
        evaluator = Evaluator(path, device="cpu")
    assert evaluator.evaluate([make_atoms()])[0]["energy"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("change", [0.05, np.nan])
def test_the_check_refuses_a_wrong_engine(change, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("asenequip.compiling.cache_directory", lambda: tmp_path)

    def wrong(*arguments, **options):  # type: ignore[no-untyped-def]
        constants = fold(*arguments, **options)
        constants["weights"][3] += change
        return constants

    monkeypatch.setattr("asenequip.compiling.fold", wrong)
    potential = Evaluator(save_artifact(tmp_path / "m.asnq", make_model(l_max=1)), compiled=False).potential
    with pytest.raises(CompilationError, match="failed its check"):
        compile_potential(potential)
    assert not list(tmp_path.glob("fused/*.npz"))


def test_coinciding_atoms_are_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    evaluator = Evaluator(save_artifact(tmp_path / "m.asnq", make_model(l_max=1)), device="cpu")
    atoms = make_atoms()
    atoms.positions[7] = atoms.positions[3]
    with pytest.raises(InputError, match="Atoms 3 and 7 are at the same position"):
        evaluator.evaluate([atoms])
