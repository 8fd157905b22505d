"""Molecular dynamics on ASE's integrators: table of numbers, trajectory, exact restart, guards that name the atoms."""

from __future__ import annotations

import dataclasses
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculationFailed, InputError

from asenequip.coverage import CoverageGuard, CoverageWarning, coverage_record
from asenequip.errors import parameter_error
from asenequip.files import refuse_existing
from asenequip.integrators import COLUMNS, PARTS, Settings, draw_velocities, make_integrator, measure
from asenequip.interrupt import Interrupted, StopRequest, stop_on_signal
from asenequip.restart import (
    Frames,
    RestartError,
    State,
    Table,
    numbers_of,
    put_numbers,
    read_state,
    write_state,
)


class Unstable(CalculationFailed):
    """The dynamics went wrong; the message names the step, the atoms and the last state that is on disk."""


@dataclass(frozen=True)
class Guards:
    """Limits whose crossing stops a run; checked at every step but for the last.

    Attributes
    ----------
    max_force : float
        Largest force on any atom, eV/Angstrom.
    max_temperature : float, optional
        Kelvin; ten times the run's temperature, and at least 10,000 K, if None.
    coverage : {"warn", "stop", "off"}
        What to do where atoms come nearer to each other, or crowd more, than in the training frames; looked at with
        each table row, where the potential tells what its training covered. A kind of breach is told once.
    """

    max_force: float = 200.0
    max_temperature: float | None = None
    coverage: str = "warn"

    def __post_init__(self) -> None:
        if self.coverage not in ("warn", "stop", "off"):
            raise parameter_error("coverage", "Guards", 'one of "warn", "stop", "off"', self.coverage)


def run_md(
    atoms: Atoms | None,
    calculator: BaseCalculator,
    *,
    steps: int,
    ensemble: str = "nvt",
    thermostat: str | None = None,
    cell: str = "isotropic",
    temperature: float = 300.0,
    pressure: float = 0.0,
    timestep: float = 1.0,
    damping: float = 100.0,
    pressure_damping: float = 1000.0,
    seed: int = 0,
    interval: int = 10,
    trajectory: str | os.PathLike[str] | None = None,
    log: str | os.PathLike[str] | None = None,
    state: str | os.PathLike[str] | None = None,
    restart: str | os.PathLike[str] | None = None,
    state_seconds: float = 10.0,
    guards: Guards = Guards(),
    watch: Callable[[Mapping[str, float]], None] | None = None,
    observe: Callable[[Atoms, int], None] | None = None,
) -> Atoms:
    """Run molecular dynamics; the integrators are ASE's.

    Atoms without velocities get those of a Maxwell-Boltzmann distribution, without a drift of the whole. The
    thermostats for NVT are Langevin's, the Nose-Hoover chain, and the velocity rescaling of Bussi, Donadio and
    Parrinello (J. Chem. Phys. 126, 014101 (2007)); NPT follows Martyna, Tobias and Klein (J. Chem. Phys. 101, 4177
    (1994)).

    Parameters
    ----------
    atoms : ase.Atoms
        Start; not changed. None with ``restart``.
    calculator : ASE calculator
    steps : int
        Steps of the whole run, including those before a restart.
    ensemble, thermostat, cell, temperature, pressure, timestep, damping, pressure_damping, seed, interval
        See `asenequip.integrators.Settings`. Ignored with ``restart``, which brings its own.
    trajectory : path, optional
        Grows by a frame each ``interval`` steps; .traj, .xyz or .extxyz.
    log : path, optional
        Table of `asenequip.integrators.COLUMNS` as CSV, a row each ``interval`` steps.
    state : path, optional
        Where the state for a restart is kept; beside the trajectory, ending in .restart, by default.
    restart : path, optional
        A state to go on from, exactly as if the run had not stopped; the run's files are continued too.
    state_seconds : float
        Least time between two writings of the state, s; 0 writes it with every frame. It is always written at the end
        and on Ctrl-C.
    guards : Guards
    watch : callable, optional
        Gets the numbers of each table row as a mapping, and "steps".
    observe : callable, optional
        Gets the atoms and the number of each step, such as an `asenequip.uncertainty.Guard`; what it raises ends
        the run, with the state written.

    Returns
    -------
    ase.Atoms
        The last configuration, with momenta and the calculator.

    Raises
    ------
    ValueError
        For a parameter outside its range.
    FileExistsError
        If a file of the run exists already.
    ase.calculators.calculator.InputError
        If the start cannot be evaluated.
    Unstable
        If forces or positions become not finite, or a guard's limit is crossed.
    asenequip.interrupt.Interrupted
        After Ctrl-C, with the state written.
    """
    if not isinstance(steps, (int, np.integer)) or steps < 0:
        raise parameter_error("steps", "run_md", "an integer >= 0", steps)
    steps = int(steps)
    if restart is not None:
        if trajectory is not None or log is not None or state is not None:
            raise ValueError("With 'restart' the run's own files go on: leave trajectory, log and state out.")
        run = _resume(Path(restart), calculator, guards)
    else:
        if atoms is None or len(atoms) == 0:
            raise parameter_error("atoms", "run_md", "ase.Atoms with at least one atom", atoms)
        settings = Settings(
            ensemble, thermostat, cell, temperature, pressure, timestep, damping, pressure_damping, seed, interval
        )
        if state is None and trajectory is not None:
            state = Path(trajectory).with_suffix(".restart")
        paths = {"trajectory": trajectory, "log": log, "state": state}
        run = _start(atoms, calculator, settings, {k: Path(v) for k, v in paths.items() if v is not None}, guards)
    run.watch, run.observe, run.state_seconds = watch, observe, state_seconds
    with stop_on_signal() as stop:
        return run.go(steps, stop)


def read_settings(restart: str | os.PathLike[str]) -> tuple[Settings, dict[str, Any]]:
    """What a state says of its run: the settings, and {"step", "steps", "calculator"}."""
    header = read_state(Path(restart)).header
    return Settings(**header["settings"]), {k: header[k] for k in ("step", "steps", "calculator")}


def _start(
    atoms: Atoms, calculator: BaseCalculator, settings: Settings, paths: dict[str, Path], guards: Guards
) -> _Run:
    for path in paths.values():
        refuse_existing(path)
    moving = atoms.copy()
    rng = np.random.default_rng(settings.seed)
    if settings.ensemble == "npt" and moving.cell.rank < 3:
        raise ValueError(
            "Constant pressure needs a cell with three lattice vectors. Set one, or take the nvt ensemble."
        )
    if not moving.get_momenta().any():
        draw_velocities(moving, settings.temperature, rng)
    moving.calc = calculator
    moving.get_forces()  # a start that cannot be evaluated says so itself, and leaves no file
    run = _Run(moving, settings, rng, paths, guards)
    run.frames = Frames(paths["trajectory"]) if "trajectory" in paths else None
    run.table = Table(paths["log"], COLUMNS) if "log" in paths else None
    return run


def _resume(path: Path, calculator: BaseCalculator, guards: Guards) -> _Run:
    state = read_state(path)
    header = state.header
    mine, theirs = _identity(calculator), header["calculator"]
    if mine.get("sha256") != theirs.get("sha256"):
        raise RestartError(
            f"'{path}' was written with another potential ({theirs.get('model')}, SHA-256 {theirs.get('sha256')}).\n"
            "Restart with that one, or start a new run from the last frame of the trajectory."
        )
    settings = Settings(**header["settings"])
    rng = np.random.default_rng(settings.seed)
    rng.bit_generator.state = header["rng"]
    paths = {k: path.parent / name for k, name in header["paths"].items()} | {"state": path}
    atoms = state.atoms
    atoms.calc = calculator
    run = _Run(atoms, settings, rng, paths, guards)
    run.kept = header["step"]
    put_numbers(run.integrator, state.integrator)
    run.frames = Frames(paths["trajectory"], header["frames"]) if "trajectory" in paths else None
    run.table = Table(paths["log"], COLUMNS, header["table"]) if "log" in paths else None
    return run


def _identity(calculator: BaseCalculator) -> dict[str, Any]:
    """What is JSON-able of a calculator's parameters: for an Allegro potential its file, hash, device and precision."""
    parameters = dict(getattr(calculator, "parameters", {}))
    return {k: v for k, v in parameters.items() if isinstance(v, (str, int, float, bool, type(None)))}


class _Run:
    """A run in progress: atoms, integrator and files."""

    def __init__(
        self,
        atoms: Atoms,
        settings: Settings,
        rng: np.random.Generator,
        paths: dict[str, Path],
        guards: Guards,
    ) -> None:
        self.atoms, self.settings, self.rng, self.paths = atoms, settings, rng, paths
        self.integrator = make_integrator(atoms, settings, rng)
        self._inner = set(numbers_of(self.integrator, PARTS))
        self.frames: Frames | None = None
        self.table: Table | None = None
        self.watch: Callable[[Mapping[str, float]], None] | None = None
        self.observe: Callable[[Atoms, int], None] | None = None
        limit = guards.max_temperature or max(1e4, 10 * settings.temperature)
        self.guards = dataclasses.replace(guards, max_temperature=limit)
        known = guards.coverage != "off" and coverage_record(atoms.calc) is not None
        self.coverage = CoverageGuard(atoms.calc) if known else None
        self.state_seconds = 0.0
        self.kept: int | None = None
        self._kept_at = 0.0
        self.steps = 0

    def go(self, steps: int, stop: StopRequest) -> Atoms:
        """Steps up to ``steps``, or until a signal comes."""
        self.steps = steps
        first = self.integrator.nsteps
        if steps < first:
            raise ValueError(f"The run has made {first} steps already. Ask for more than that: steps counts them all.")
        if self.kept is None:
            self._check()
            self._show()
            self._check_coverage()
            self._report()
        moves = self.integrator.irun(steps - first)
        if steps > first:
            self._guarded(lambda: next(moves))  # where it stands; the steps follow
        while self.integrator.nsteps < steps:
            if stop:
                self._stop()
            self._guarded(lambda: next(moves))
            self._check()
            self._show()
            if self.integrator.nsteps % self.settings.interval == 0:
                self._check_coverage()
                self._report()
        if self.kept != self.integrator.nsteps:
            self._keep()
        return self.atoms

    def _guarded(self, step: Callable[[], Any]) -> None:
        try:
            step()
        except (InputError, CalculationFailed) as error:
            raise Unstable(self._complaint(str(error).rstrip("."))) from error

    def _show(self) -> None:
        """Let the observer look; where it ends the run, the state is kept first."""
        if self.observe is None:
            return
        try:
            self.observe(self.atoms, self.integrator.nsteps)
        except Exception:
            self._keep()
            raise

    def _check(self) -> None:
        """Stop where a force or the temperature is out of bounds."""
        forces = np.linalg.norm(self.atoms.get_forces(), axis=1)
        limit = self.guards.max_force
        wrong = ~(forces <= limit)  # true for NaN too
        if wrong.any():
            raise Unstable(self._complaint(_name_atoms(self.atoms, forces, wrong, limit)))
        temperature = self.atoms.get_temperature()
        if self.guards.max_temperature is not None and not temperature <= self.guards.max_temperature:
            limit = self.guards.max_temperature
            raise Unstable(self._complaint(f"the temperature is {temperature:.0f} K, over the limit of {limit:.0f} K"))

    def _check_coverage(self) -> None:
        """Warn or stop where the atoms leave what the training frames covered."""
        for sentence in [] if self.coverage is None else self.coverage.news(self.atoms):
            if self.guards.coverage == "stop":
                raise Unstable(self._complaint(sentence))
            warnings.warn(
                f"Step {self.integrator.nsteps}: {sentence}. The potential extrapolates.", CoverageWarning, stacklevel=2
            )

    def _complaint(self, what: str) -> str:
        step = self.integrator.nsteps
        saved = "No state was kept" if self.kept is None else f"The state of step {self.kept} is kept"
        if self.kept is not None and "state" in self.paths:
            saved += f" in '{self.paths['state']}'"
        return (
            f"The dynamics broke down at step {step} ({step * self.settings.timestep / 1000:.4g} ps): {what}.\n"
            f"{saved}. Try a shorter timestep, relax the start first, or train on frames like the last ones."
        )

    def _report(self) -> None:
        """A frame, a row and the state; in this order, so that the state never knows of more than there is."""
        numbers, results = measure(self.atoms, self.integrator)
        if self.frames is not None:
            self.frames.write(self.atoms, results, {"step": numbers["step"], "time_ps": numbers["time_ps"]})
        if self.table is not None:
            self.table.write(tuple("" if numbers[name] is None else numbers[name] for name in COLUMNS))
        if self.kept is None or time.monotonic() - self._kept_at >= self.state_seconds:
            self._keep()
        if self.watch is not None:
            self.watch({k: math.nan if v is None else v for k, v in numbers.items()} | {"steps": self.steps})

    def _keep(self) -> None:
        if "state" not in self.paths:
            return
        folder = self.paths["state"].parent
        inner = numbers_of(self.integrator, PARTS)
        header = {
            "settings": dataclasses.asdict(self.settings),
            "step": self.integrator.nsteps,
            "steps": self.steps,
            "rng": self.rng.bit_generator.state,
            "paths": {k: os.path.relpath(path, folder) for k, path in self.paths.items() if k != "state"},
            "frames": None if self.frames is None else self.frames.mark,
            "table": None if self.table is None else self.table.mark,
            "calculator": _identity(self.atoms.calc),
        }
        kept = {name: inner[name] for name in self._inner}
        write_state(self.paths["state"], State(self.atoms, kept, header))
        self.kept, self._kept_at = self.integrator.nsteps, time.monotonic()

    def _stop(self) -> None:
        step = self.integrator.nsteps
        if "state" not in self.paths:
            raise Interrupted(f"Stopped at step {step} of {self.steps}; no state was asked for, so none is kept.")
        self._keep()
        raise Interrupted(f"Stopped at step {step} of {self.steps}; the state is in '{self.paths['state']}'.")


def _name_atoms(atoms: Atoms, forces: np.ndarray, wrong: np.ndarray, limit: float) -> str:
    """A sentence on the atoms whose forces are out of bounds, the worst five first."""
    order = [k for k in np.argsort(-np.nan_to_num(forces, nan=np.inf)) if wrong[k]]
    named = ", ".join(f"{k} ({atoms.symbols[k]}, {forces[k]:.3g})" for k in order[:5])
    more = f" and {len(order) - 5} more" if len(order) > 5 else ""
    return f"the forces on atoms {named}{more} are over the limit of {limit:g} eV/A or not finite"
