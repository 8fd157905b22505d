"""Relaxation of one or many structures, with or without their cells: ASE's optimisers in step, forces in batches."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.optimize.optimize import Optimizer

from asenequip.batches import evaluate_each
from asenequip.errors import parameter_error
from asenequip.interrupt import StopRequest, stop_on_signal

OPTIMIZERS = ("lbfgs", "bfgs", "fire")
CELLS = ("fixed", "isotropic", "shape", "full")


@dataclass
class Relaxation:
    """Where the relaxation of one structure stands.

    Attributes
    ----------
    atoms : ase.Atoms
        The structure as it is now; its calculator holds the results.
    steps : int
        Steps taken.
    converged : bool
    max_force : float
        Largest generalised force, eV/Angstrom (for a moving cell: forces, and strain derivatives over the number of
        atoms, as in ASE's FrechetCellFilter).
    error : str
        Why the structure could not be evaluated; empty if it could.
    """

    atoms: Atoms
    steps: int = 0
    converged: bool = False
    max_force: float = math.nan
    error: str = ""
    _target: Any = field(default=None, repr=False)
    _optimizer: Optimizer | None = field(default=None, repr=False)

    @property
    def moving(self) -> bool:
        """Whether it is still being relaxed."""
        return not (self.converged or self.error)


def relax(
    frames: Sequence[Atoms] | Atoms,
    calculator: BaseCalculator,
    *,
    fmax: float = 0.01,
    steps: int = 500,
    cell: str = "fixed",
    pressure: float = 0.0,
    optimizer: str = "lbfgs",
    keep_symmetry: bool = False,
    batch: int = 64,
    watch: Callable[[Mapping[str, int]], None] | None = None,
    stop: StopRequest | None = None,
) -> list[Relaxation]:
    """Relax structures; all that are still moving are evaluated together at each step.

    Each has an optimiser of ASE's to itself, so a structure takes the path it would take alone. Constraints hold.

    Parameters
    ----------
    frames : sequence of ase.Atoms, or one
        Not changed.
    calculator : ASE calculator
        Batches are used where it has ``evaluate(frames)``, as `asenequip.AllegroCalculator` has.
    fmax : float
        Largest force at the end, eV/Angstrom.
    steps : int
        At most, for each structure.
    cell : {"fixed", "isotropic", "shape", "full"}
        How the cell may change (ASE's FrechetCellFilter): not at all, its volume, its shape, or both.
    pressure : float
        External pressure on a moving cell, GPa.
    optimizer : {"lbfgs", "bfgs", "fire"}
    keep_symmetry : bool
        Keep the space group (ASE's FixSymmetry, tolerance 0.01 Angstrom; needs spglib). The start is made exactly
        symmetric, so it can move by as much as the tolerance. Molecules and slabs, which are not periodic in three
        directions, have no space group: they get an ``error``.
    batch : int
        Structures worked on at a time; no more than have their neighbour lists kept.
    watch : callable, optional
        Gets {"frames", "done", "failed", "step"} after each step.
    stop : StopRequest, optional
        Ends the work after the present step once it is true; Ctrl-C does by default.

    Returns
    -------
    list of Relaxation
        In the order of ``frames``; one that cannot be evaluated has its ``error`` and the others are finished. After
        Ctrl-C those not converged are as far as they had come.

    Raises
    ------
    ValueError
        For a parameter outside its range.
    ImportError
        If a symmetry is to be kept without spglib.
    """
    frames = [frames] if isinstance(frames, Atoms) else list(frames)
    _validate(frames, fmax, steps, cell, pressure, optimizer, batch)
    done = [Relaxation(atoms.copy()) for atoms in frames]
    with stop_on_signal() if stop is None else nullcontext(stop) as stop:
        for start in range(0, len(done), batch):
            part = done[start : start + batch]
            constraints = [list(entry.atoms.constraints) for entry in part]
            for entry in part:
                _prepare(entry, cell, pressure, optimizer, keep_symmetry)
            _relax_batch(part, calculator, fmax, steps, stop, lambda step: _tell(watch, done, step))
            for entry, own in zip(part, constraints, strict=True):
                entry.atoms.set_constraint(own)
    return done


def _validate(
    frames: Sequence[Atoms], fmax: float, steps: int, cell: str, pressure: float, optimizer: str, batch: int
) -> None:
    if not 0 < fmax < math.inf:
        raise parameter_error("fmax", "relax", "a float in (0, inf)", fmax)
    if not isinstance(steps, (int, np.integer)) or steps < 0:
        raise parameter_error("steps", "relax", "an integer >= 0", steps)
    if not isinstance(batch, (int, np.integer)) or batch < 1:
        raise parameter_error("batch", "relax", "an integer >= 1", batch)
    if cell not in CELLS:
        raise parameter_error("cell", "relax", "one of " + ", ".join(f'"{name}"' for name in CELLS), cell)
    if optimizer not in OPTIMIZERS:
        raise parameter_error("optimizer", "relax", "one of " + ", ".join(f'"{k}"' for k in OPTIMIZERS), optimizer)
    if not math.isfinite(pressure):
        raise parameter_error("pressure", "relax", "a finite number of GPa", pressure)
    if pressure and cell in ("fixed", "shape"):
        raise ValueError("A pressure needs a volume that can change. Give cell='isotropic' or cell='full' with it.")


def _prepare(entry: Relaxation, cell: str, pressure: float, optimizer: str, keep_symmetry: bool) -> None:
    from ase.optimize import BFGS, FIRE, LBFGS

    from asenequip.cellfilter import CellFilter

    atoms = entry.atoms
    if cell != "fixed" and atoms.cell.rank < 3:
        entry.error = "its cell has fewer than three lattice vectors and cannot be relaxed"
        return
    if keep_symmetry and not atoms.pbc.all():
        entry.error = "it is not periodic in three directions, so it has no space group that could be kept"
        return
    if keep_symmetry:
        _fix_symmetry(atoms)
    entry._target = atoms
    if cell != "fixed":
        entry._target = CellFilter(
            atoms,
            hydrostatic_strain=cell == "isotropic",
            constant_volume=cell == "shape",
            scalar_pressure=pressure * units.GPa,
        )
    kind = {"lbfgs": LBFGS, "bfgs": BFGS, "fire": FIRE}[optimizer]
    entry._optimizer = kind(entry._target, logfile=None)


def _fix_symmetry(atoms: Atoms) -> None:
    from ase.constraints import FixSymmetry

    try:
        atoms.set_constraint([*atoms.constraints, FixSymmetry(atoms)])
    except ImportError:
        raise ImportError("Keeping the symmetry needs spglib. Install it: pip install spglib") from None


def _relax_batch(
    part: Sequence[Relaxation],
    calculator: BaseCalculator,
    fmax: float,
    steps: int,
    stop: StopRequest,
    tell: Callable[[int], None],
) -> None:
    """Evaluate those that move, then let each optimiser take its step, until none moves."""
    for step in range(steps + 1):
        moving = [entry for entry in part if entry.moving]
        if not moving:
            return
        outcomes = evaluate_each(calculator, [entry.atoms for entry in moving])
        for entry, outcome in zip(moving, outcomes, strict=True):
            _judge(entry, outcome, fmax)
        tell(step)
        if stop or step == steps:
            return
        for entry in moving:
            if entry.moving and entry._optimizer is not None:
                _step(entry._optimizer)
                entry.steps += 1


def _step(optimizer: Optimizer) -> None:
    with warnings.catch_warnings():
        # SciPy's estimate of the error of the matrix logarithm, 1e-13 near the unit matrix, where a constraint of the
        # cell makes the filter take it
        warnings.filterwarnings("ignore", "logm result may be inaccurate", RuntimeWarning)
        optimizer.step()
        optimizer.nsteps += 1


def _judge(entry: Relaxation, outcome: dict[str, Any] | Exception, fmax: float) -> None:
    """Put results where the optimiser looks for them, and see whether it has arrived."""
    if isinstance(outcome, Exception):
        entry.error = str(outcome)
        return
    atoms = entry.atoms
    if not (np.isfinite(atoms.positions).all() and np.isfinite(outcome["forces"]).all()):
        entry.error = "its positions or forces are not finite"
        return
    # a single-point calculator refuses to answer for any other positions: a stale force cannot slip in
    atoms.calc = SinglePointCalculator(atoms, **outcome)
    forces = entry._target.get_forces()
    entry.max_force = float(np.linalg.norm(forces, axis=1).max(initial=0.0))
    entry.converged = entry.max_force < fmax


def _tell(watch: Callable[[Mapping[str, int]], None] | None, done: Sequence[Relaxation], step: int) -> None:
    if watch is not None:
        finished = sum(not entry.moving for entry in done)
        failed = sum(bool(entry.error) for entry in done)
        watch({"frames": len(done), "done": finished, "failed": failed, "step": step})
