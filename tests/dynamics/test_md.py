"""Molecular dynamics: ASE's numbers, exact restarts, files that stay whole, guards that name the atoms."""

from __future__ import annotations

import shutil
import signal
from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, InputError
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import neighbor_list
from ase.stress import full_3x3_to_voigt_6_stress

from asenequip import AllegroCalculator
from asenequip.integrators import Settings, draw_velocities
from asenequip.interrupt import Interrupted
from asenequip.md import Guards, Unstable, run_md
from asenequip.restart import RestartError, State, read_state, write_state

RUNS = [
    {"ensemble": "nve"},
    {"ensemble": "nvt", "thermostat": "langevin"},
    {"ensemble": "nvt", "thermostat": "bussi"},
    {"ensemble": "nvt", "thermostat": "nose-hoover"},
    {"ensemble": "npt", "cell": "isotropic"},
    {"ensemble": "npt", "cell": "full", "pressure": 2.0},
]


def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 2, 1)
    atoms.rattle(0.05, seed=1)
    return atoms


class Springs(Calculator):
    """Bonds between the neighbours of the perfect crystal: results that depend on nothing but the geometry."""

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]  # type: ignore[misc]

    def __init__(self) -> None:
        super().__init__()
        crystal = bulk("Cu", cubic=True) * (2, 2, 1)
        self.first, self.second, self.shifts = neighbor_list("ijS", crystal, 3.0)

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        vectors = atoms.positions[self.second] - atoms.positions[self.first] + self.shifts @ atoms.cell.array
        lengths = np.linalg.norm(vectors, axis=1)
        pulls = (3.0 * (lengths - 2.55) / lengths)[:, None] * vectors
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, self.first, pulls)
        stress = 0.5 * pulls.T @ vectors / atoms.get_volume()
        energy = 0.75 * float(((lengths - 2.55) ** 2).sum())
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": forces,
            "stress": full_3x3_to_voigt_6_stress(stress),
        }


class Broken(EMT):
    """EMT whose force on atom 5 is wrong from the given evaluation on."""

    def __init__(self, force: float, after: int) -> None:
        super().__init__()
        self.force, self.after, self.count = force, after, 0

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.count += 1
        if self.count > self.after:
            self.results["forces"][5] = self.force


def phase_space(atoms: Atoms) -> np.ndarray:
    return np.concatenate([atoms.positions, atoms.get_momenta(), atoms.cell.array])


@pytest.mark.parametrize("kind", RUNS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_restart_is_exact(kind, tmp_path):
    settings = {**kind, "temperature": 400.0, "interval": 4, "seed": 3}
    whole = run_md(copper(), Springs(), steps=20, log=tmp_path / "a.csv", trajectory=tmp_path / "a.xyz", **settings)
    run_md(copper(), Springs(), steps=10, log=tmp_path / "b.csv", trajectory=tmp_path / "b.xyz", **settings)
    halves = run_md(None, Springs(), steps=20, restart=tmp_path / "b.restart")
    assert np.array_equal(phase_space(whole), phase_space(halves))
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.xyz").read_bytes() == (tmp_path / "b.xyz").read_bytes()


@pytest.mark.parametrize("suffix", ["xyz", "traj"])
def test_frames_written_after_the_last_state_are_not_doubled(suffix, tmp_path):
    settings = {"interval": 2, "state_seconds": 0.0}
    trajectory, state = tmp_path / f"run.{suffix}", tmp_path / "run.restart"
    run_md(copper(), Springs(), steps=6, trajectory=trajectory, log=tmp_path / "run.csv", **settings)
    shutil.copy(state, tmp_path / "old")
    run_md(None, Springs(), steps=12, restart=state)
    shutil.copy(tmp_path / "old", state)  # as if the run had been killed before it could write a later state
    run_md(None, Springs(), steps=16, restart=state)
    whole = tmp_path / f"whole.{suffix}"
    run_md(copper(), Springs(), steps=16, trajectory=whole, log=tmp_path / "whole.csv", **settings)
    frames, wanted = read(trajectory, ":"), read(whole, ":")
    assert [frame.info.get("step") for frame in frames] == [frame.info.get("step") for frame in wanted]
    assert np.array_equal([f.positions for f in frames], [f.positions for f in wanted])
    assert (tmp_path / "run.csv").read_text() == (tmp_path / "whole.csv").read_text()


def test_restart_with_an_allegro_potential_is_exact(small_artifact, tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=2)

    def fresh() -> AllegroCalculator:
        return AllegroCalculator(small_artifact, device="cpu")

    whole = run_md(atoms, fresh(), steps=60, temperature=600.0, timestep=2.0)
    run_md(atoms, fresh(), steps=33, temperature=600.0, timestep=2.0, trajectory=tmp_path / "run.traj")
    halves = run_md(None, fresh(), steps=60, restart=tmp_path / "run.restart")
    assert np.array_equal(phase_space(whole), phase_space(halves))


def test_nve_is_ases_velocity_verlet():
    start = copper()
    draw_velocities(start, 500.0, np.random.default_rng(0))
    final = run_md(start, EMT(), steps=15, ensemble="nve", timestep=2.0)
    start.calc = EMT()
    VelocityVerlet(start, 2.0 * units.fs).run(15)
    assert np.array_equal(phase_space(final), phase_space(start))


def test_langevin_is_ases_langevin():
    start = copper()
    draw_velocities(start, 500.0, np.random.default_rng(0))
    final = run_md(start, EMT(), steps=15, temperature=500.0, damping=50.0, seed=7)
    start.calc = EMT()
    rng = np.random.default_rng(7)
    Langevin(start, 1.0 * units.fs, temperature_K=500, friction=0.02 / units.fs, fixcm=False, rng=rng).run(15)
    assert np.array_equal(phase_space(final), phase_space(start))


@pytest.mark.parametrize(("cell", "kind"), [("isotropic", IsotropicMTKNPT), ("full", MTKNPT)])
def test_npt_is_ases_martyna_tobias_klein(cell, kind):
    start = copper()
    draw_velocities(start, 500.0, np.random.default_rng(0))
    settings = {"ensemble": "npt", "cell": cell, "temperature": 500.0, "pressure": 1.5, "timestep": 2.0}
    final = run_md(start, EMT(), steps=15, damping=60.0, pressure_damping=600.0, **settings)
    start.calc = EMT()
    times = {"tdamp": 60.0 * units.fs, "pdamp": 600.0 * units.fs}
    kind(start, 2.0 * units.fs, temperature_K=500.0, pressure_au=1.5 * units.GPa, **times).run(15)
    assert np.array_equal(phase_space(final), phase_space(start))
    assert not np.array_equal(final.cell.array, copper().cell.array)


def test_velocities_have_the_temperature_and_no_drift():
    atoms = bulk("NaCl", "rocksalt", a=5.6) * (10, 10, 10)
    draw_velocities(atoms, 700.0, np.random.default_rng(0))
    spread = 700.0 * np.sqrt(2 / (3 * len(atoms)))  # standard deviation of the temperature of n atoms
    assert abs(atoms.get_temperature() - 700.0) < 4 * spread
    assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-9


def test_pressure_of_atoms_that_do_not_meet_is_the_ideal_gas_s(tmp_path):
    atoms = Atoms("Ar8", np.mgrid[:2, :2, :2].reshape(3, -1).T * 50.0, cell=[100] * 3, pbc=True)
    run_md(atoms, LennardJones(), steps=0, temperature=300.0, log=tmp_path / "log.csv")
    names, values = (line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines())
    row = dict(zip(names, (float(v or "nan") for v in values), strict=True))
    ideal = len(atoms) * units.kB * row["temperature_K"] / 100**3 / units.GPa
    assert row["pressure_GPa"] == pytest.approx(ideal, rel=1e-12)


@pytest.mark.parametrize("kind", RUNS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_a_step_costs_one_evaluation(kind, tmp_path):
    calculator = Broken(0.0, after=10**9)
    run_md(copper(), calculator, steps=12, interval=5, trajectory=tmp_path / "a.traj", log=tmp_path / "a.csv", **kind)
    assert calculator.count == 13  # the start is one more


def test_numbers_of_numpy_will_do_and_are_kept(tmp_path):
    options = {"seed": np.int64(3), "temperature": np.float32(300), "interval": np.int32(1)}
    run_md(copper(), Springs(), steps=np.int64(2), trajectory=tmp_path / "run.traj", **options)
    settings = read_state(tmp_path / "run.restart").header["settings"]
    assert [settings[name] for name in options] == [3, 300.0, 1]


def test_input_atoms_are_left_alone():
    atoms = copper()
    before = phase_space(atoms).copy()
    run_md(atoms, EMT(), steps=3)
    assert np.array_equal(phase_space(atoms), before)
    assert atoms.calc is None


def test_constraints_hold_across_a_restart(tmp_path):
    atoms = copper()
    atoms.set_constraint(FixAtoms([0, 7]))
    run_md(atoms, EMT(), steps=5, trajectory=tmp_path / "run.traj")
    final = run_md(None, EMT(), steps=10, restart=tmp_path / "run.restart")
    assert np.array_equal(final.positions[[0, 7]], atoms.positions[[0, 7]])


@pytest.mark.parametrize("force", [np.nan, 1e4])
def test_guard_names_the_atom(force, tmp_path):
    with pytest.raises(Unstable, match=r"step 4 .*atoms 5 \(Cu") as caught:
        run_md(copper(), Broken(force, after=4), steps=50, trajectory=tmp_path / "run.traj")
    assert "The state of step 0 is kept" in str(caught.value)


def test_a_start_that_cannot_be_evaluated_says_so_and_leaves_no_file(small_artifact, tmp_path):
    calculator = AllegroCalculator(small_artifact, device="cpu")
    with pytest.raises(InputError, match=r"^The model knows Cu, O, but atoms 0 are Zr"):
        run_md(Atoms("Zr"), calculator, steps=1, trajectory=tmp_path / "run.traj", log=tmp_path / "run.csv")
    assert list(tmp_path.glob("run.*")) == []


def test_guard_stops_a_runaway_temperature():
    with pytest.raises(Unstable, match="over the limit of 50 K"):
        run_md(copper(), EMT(), steps=5, temperature=300.0, guards=Guards(max_temperature=50.0))


@pytest.mark.parametrize("step", [0, 6])
def test_ctrl_c_keeps_a_state_that_continues_exactly(step, tmp_path):
    def press(numbers):
        if numbers["step"] == step:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match=f"Stopped at step {step} of 20"):
        run_md(copper(), Springs(), steps=20, interval=3, trajectory=tmp_path / "run.xyz", watch=press)
    final = run_md(None, Springs(), steps=20, restart=tmp_path / "run.restart")
    whole = run_md(copper(), Springs(), steps=20, interval=3, trajectory=tmp_path / "whole.xyz")
    assert np.array_equal(phase_space(final), phase_space(whole))
    assert (tmp_path / "run.xyz").read_bytes() == (tmp_path / "whole.xyz").read_bytes()


@pytest.mark.parametrize("name", ["run.traj", "run.csv", "run.restart"])
def test_no_file_is_overwritten(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="is not overwritten"):
        run_md(copper(), EMT(), steps=1, trajectory=tmp_path / "run.traj", log=tmp_path / "run.csv")
    assert (tmp_path / name).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("cut", [0, 10, 600])
def test_a_damaged_state_is_refused(cut, tmp_path):
    run_md(copper(), EMT(), steps=1, trajectory=tmp_path / "run.traj")
    state = tmp_path / "run.restart"
    state.write_bytes(state.read_bytes()[:cut])
    with pytest.raises(RestartError, match="not an intact state"):
        run_md(None, EMT(), steps=2, restart=state)


def test_a_shortened_trajectory_is_refused(tmp_path):
    run_md(copper(), EMT(), steps=1, trajectory=tmp_path / "run.xyz")
    (tmp_path / "run.xyz").write_text("")
    with pytest.raises(RestartError, match="shorter than when the run stopped"):
        run_md(None, EMT(), steps=2, restart=tmp_path / "run.restart")


def test_fewer_steps_than_made_are_refused(tmp_path):
    run_md(copper(), EMT(), steps=5, trajectory=tmp_path / "run.xyz")
    with pytest.raises(ValueError, match="has made 5 steps already"):
        run_md(None, EMT(), steps=2, restart=tmp_path / "run.restart")


def test_state_keeps_every_bit(tmp_path):
    atoms = copper()
    atoms.info["name"] = "a"
    atoms.new_array("mark", np.arange(len(atoms)))
    inner = {"x": np.random.default_rng(0).standard_normal((3, 2))}
    write_state(tmp_path / "state", State(atoms, inner, {"step": 3}))
    back = read_state(tmp_path / "state")
    assert back.atoms == atoms
    assert back.atoms.info == atoms.info
    assert np.array_equal(back.atoms.arrays["mark"], atoms.arrays["mark"])
    assert np.array_equal(back.integrator["x"], inner["x"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ensemble", "nph"),
        ("thermostat", "berendsen"),
        ("cell", "c"),
        ("temperature", -1.0),
        ("timestep", 0.0),
        ("damping", float("nan")),
        ("pressure", float("inf")),
        ("interval", 0),
        ("seed", -1),
    ],
)
def test_settings_refuse(name, value):
    with pytest.raises(ValueError, match=f"The '{name}' parameter of run_md must be .* Got .* instead"):
        Settings(**{name: value})
