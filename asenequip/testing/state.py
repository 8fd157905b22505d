"""Checks of what a calculator remembers: no evaluation too many, and never a number of other atoms."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculatorError

from asenequip.testing.report import CheckFailed, NotApplicable, require
from asenequip.testing.subject import Subject, require_identical

_STEPS = 5


def one_evaluation_gives_all(subject: Subject) -> None:
    """Energy, forces, stress and the rest come from one evaluation; asking again costs none."""
    atoms = subject.attach(subject.crystal())
    subject.calc.reset()
    with subject.counting() as calls:
        atoms.get_potential_energy()
        for name in subject.calc.implemented_properties:
            if name in subject.calc.results:
                subject.calc.get_property(name, atoms)
        atoms.get_forces()
        require(calls[0] == 1, f"{calls[0]} evaluations")


def one_evaluation_per_dynamics_step(subject: Subject) -> None:
    """VelocityVerlet costs one evaluation a step."""
    from ase.md.verlet import VelocityVerlet

    atoms = subject.attach(subject.crystal())
    subject.calc.reset()
    with subject.counting() as calls:
        VelocityVerlet(atoms, 0.5 * units.fs).run(_STEPS)
    require(calls[0] == _STEPS + 1, f"{calls[0]} evaluations for {_STEPS} steps and the start")


def one_evaluation_per_barostat_step(subject: Subject) -> None:
    """Martyna-Tobias-Klein dynamics (forces and stress) cost one evaluation a step."""
    subject.needs("stress")
    try:
        from ase.md.nose_hoover_chain import IsotropicMTKNPT
    except ImportError as error:
        raise NotApplicable("this ASE has no IsotropicMTKNPT") from error
    atoms = subject.attach(subject.crystal())
    atoms.set_velocities(0.01 * subject.rng().standard_normal((len(atoms), 3)))
    subject.calc.reset()
    with subject.counting() as calls:
        fs = units.fs
        IsotropicMTKNPT(atoms, fs, temperature_K=300, pressure_au=0.0, tdamp=100 * fs, pdamp=1000 * fs).run(_STEPS)
    require(calls[0] <= _STEPS + 1, f"{calls[0]} evaluations for {_STEPS} steps and the start")


def one_evaluation_per_relaxation_step(subject: Subject) -> None:
    """BFGS costs one evaluation a step, on positions and through FrechetCellFilter."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    for filtered in (False, True):
        if filtered and not subject.has("stress"):
            continue
        atoms = subject.attach(subject.crystal())
        subject.calc.reset()
        with subject.counting() as calls:
            target: Any = FrechetCellFilter(atoms) if filtered else atoms
            optimizer = BFGS(target, logfile=None)
            optimizer.run(fmax=1e-12, steps=_STEPS)
        steps = optimizer.get_number_of_steps()
        label = "FrechetCellFilter" if filtered else "BFGS"
        require(calls[0] == steps + 1, f"{label}: {calls[0]} evaluations for {steps} steps and the start")


def any_change_is_noticed(subject: Subject) -> None:
    """A change in the last bit of a position or of the cell, an exchanged element, or a new pbc is evaluated anew."""
    atoms = subject.attach(subject.crystal())
    atoms.get_potential_energy()
    changes = {
        "position": lambda a: a.positions.__setitem__((0, 0), np.nextafter(a.positions[0, 0], np.inf)),
        "cell": lambda a: a.cell.__setitem__((0, 0), np.nextafter(a.cell[0, 0], np.inf)),
        "pbc": lambda a: a.pbc.__setitem__(0, not a.pbc[0]),
        "deletion": lambda a: a.__delitem__(-1),
    }
    if len(subject.symbols) > 1:
        changes["element"] = lambda a: a.symbols.__setitem__(0, a.symbols[1])
    for label, change in changes.items():
        change(atoms)
        with subject.counting() as calls:
            atoms.get_potential_energy()
        require(calls[0] == 1, f"a new {label} was not noticed")
    atoms.set_initial_magnetic_moments(np.ones(len(atoms)))
    atoms.set_initial_charges(np.ones(len(atoms)))
    with subject.counting() as calls:
        atoms.get_potential_energy()
    if not {"magmoms", "charges"} & set(subject.calc.implemented_properties):
        require(calls[0] == 0, "charges or magnetic moments caused an evaluation")


def system_changes_are_not_trusted(subject: Subject) -> None:
    """An empty list of changes does not matter: calculate still evaluates the atoms it is given."""
    first, second = subject.crystal(), subject.cluster()
    expected = subject.values(second)
    subject.values(first)
    subject.calc.calculate(second, ["energy", "forces"], [])
    found = {k: subject.calc.results[k] for k in ("energy", "forces")}
    subject.same(found, expected, "after calculate(..., system_changes=[])")


def failures_leave_no_trace(subject: Subject) -> None:
    """After a refused structure the same structure is refused again, and a good one gives its own numbers."""
    good, bad = subject.crystal(), subject.crystal()
    expected = subject.values(good)
    bad.positions[0, 0] = np.nan
    carrier = subject.attach(bad)
    for _ in range(2):
        try:
            carrier.get_potential_energy()
        except (CalculatorError, ValueError):
            continue
        raise CheckFailed("a structure that was refused before was evaluated")
    carrier.positions[:] = good.positions
    require_identical({"forces": carrier.get_forces()}, expected, "after the repair")
    require_identical(subject.values(good), expected, "the good structure after the bad one")


def there_and_back(subject: Subject) -> None:
    """A, then a sparse B, then A again gives A's numbers bit for bit."""
    dense, systems = subject.crystal(), subject.systems()
    expected = subject.values(dense)
    for name in ("one atom", "two far atoms", "no atoms", "supercell", "vacuum of ten million Angstrom"):
        subject.values(systems[name])
        require_identical(subject.values(dense), expected, f"after '{name}'")
    for stretch in (3.0, 0.8):
        other = dense.copy()
        other.set_cell(np.asarray(dense.cell) * stretch, scale_atoms=True)
        subject.values(other)
        require_identical(subject.values(dense), expected, f"after a stretch by {stretch}")


def a_walk_leaves_no_trace(subject: Subject) -> None:
    """After a random walk with jumps and cell changes, each structure has the numbers of a fresh calculator."""
    rng, atoms = subject.rng(), subject.attach(subject.crystal())
    stops: list[tuple[Atoms, dict[str, Any]]] = []
    for step in range(24):
        if step % 6 == 5:
            atoms.positions[rng.integers(len(atoms))] += rng.uniform(-1, 1, 3) @ np.asarray(atoms.cell)
        elif step % 6 == 2:
            strain = np.eye(3) + 0.02 * rng.standard_normal((3, 3))
            atoms.set_cell(np.asarray(atoms.cell) @ strain, scale_atoms=True)
        else:
            atoms.positions += 0.03 * rng.standard_normal(atoms.positions.shape)
        stops.append((atoms.copy(), {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}))
    for k, (stop, found) in enumerate(stops):
        subject.calc.reset()
        subject.same(subject.values(stop), found, f"step {k}")


def several_atoms_take_turns(subject: Subject) -> None:
    """Several Atoms on one calculator, alternating, each follow the path that they follow alone."""
    starts = [subject.crystal(), subject.cluster(), subject.crystal("rotated")]
    alone = [[subject.values(frame) for frame in _path(atoms)] for atoms in starts]
    together = [_path(atoms) for atoms in starts]
    for k in range(len(together[0])):
        for path, expected in zip(together, alone, strict=True):
            subject.same(subject.values(path[k]), expected[k], f"turn {k}")


def _path(atoms: Atoms) -> list[Atoms]:
    rng, frames = np.random.default_rng(1), []
    for _ in range(6):
        atoms = atoms.copy()
        atoms.positions += 0.05 * rng.standard_normal(atoms.positions.shape)
        frames.append(atoms)
    return frames


CHECKS = (
    one_evaluation_gives_all,
    one_evaluation_per_dynamics_step,
    one_evaluation_per_barostat_step,
    one_evaluation_per_relaxation_step,
    any_change_is_noticed,
    system_changes_are_not_trusted,
    failures_leave_no_trace,
    there_and_back,
    a_walk_leaves_no_trace,
    several_atoms_take_turns,
)
