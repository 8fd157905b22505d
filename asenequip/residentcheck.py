"""The check of the path that stays on a device: kernels, lists, padded and captured steps, numbers compared."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from asenequip.artifact import Potential, verify
from asenequip.compiling import (
    RELATIVE_TOLERANCES,
    Arrays,
    CompilationError,
    check_frames,
    difference_error,
    distance,
    exact_derivatives,
    worst_of,
)
from asenequip.graph import atom_types
from asenequip.kernels.ops import use_backend
from asenequip.model.derivatives import Slopes
from asenequip.resident import ResidentEngine
from asenequip.rounding import PRECISIONS, products_in


@dataclass(frozen=True)
class ResidentReport:
    """What the check of a device's path measured, on frames of different sizes, padded and not.

    Attributes
    ----------
    force_error, energy_error : float
        Largest deviation from the exact float64 network on the CPU: eV/Angstrom, eV/atom.
    largest_force : float
        On the frames, eV/Angstrom.
    difference_error : float
        Largest deviation of the device's float64 forces from central differences of its energy, eV/Angstrom.
    first_seconds : float
        Until the first result, kernels included.
    """

    force_error: float
    energy_error: float
    largest_force: float
    difference_error: float
    first_seconds: float


def check_resident(
    potential: Potential, dtype: str, device: torch.device, slopes: Slopes | None = None
) -> ResidentReport:
    """Run a potential on a device, with and without padding, and compare.

    Parameters
    ----------
    potential : Potential
    dtype : str
        One of `asenequip.rounding.PRECISIONS`.
    device : torch.device
    slopes : callable, optional
        A compiled form of the network in this precision, to run in its place.

    Raises
    ------
    CompilationError
        If the device's numbers are not the network's.
    """
    verify(potential)
    exact = potential.cast("float64", "cpu")
    begun, first = time.monotonic(), 0.0
    force, energy, largest = [], [], 0.0
    runs = [_runner(potential, dtype, device, padded, slopes) for padded in (0, 10**7)]
    for atoms in check_frames(potential):
        with use_backend("plain"):
            wanted = exact_derivatives(exact, atoms)
        forces = wanted.forces.numpy()
        largest = max(largest, float(np.abs(forces).max(initial=0.0)))
        for run in runs:
            found = run(atoms)
            first = first or time.monotonic() - begun
            force.append(distance(found[1], forces))
            energy.append(distance(found[0], wanted.energies.detach().numpy()))
    double = _runner(potential, "float64", device, 10**7)
    difference = difference_error(double, check_frames(potential)[-1])
    report = ResidentReport(worst_of(force), worst_of(energy), largest, difference, first)
    _judge(report, dtype)
    return report


def _runner(
    potential: Potential, dtype: str, device: torch.device, padded_edges: int, slopes: Slopes | None = None
) -> Callable[[Atoms], Arrays]:
    model = potential.cast(PRECISIONS[dtype], device)
    engine = ResidentEngine(model, skin=0.5, padded_edges=padded_edges, slopes=slopes)

    def run(atoms: Atoms) -> Arrays:
        types = atom_types(atoms, potential.spec.type_names)
        with products_in(dtype, device):
            return engine.run(atoms.positions, np.asarray(atoms.cell, np.float64), np.asarray(atoms.pbc, bool), types)

    return run


def _judge(report: ResidentReport, dtype: str) -> None:
    limits = {"force_error": RELATIVE_TOLERANCES[dtype] * (1.0 + report.largest_force), "difference_error": 1e-5}
    for name, limit in limits.items():
        if not getattr(report, name) <= limit:
            raise CompilationError(f"The device's path failed its check: its {name} is over {limit:.1e} in {report}.")
