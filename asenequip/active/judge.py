"""How wrong a potential is on fresh labelled frames, how sure it was, and whether that is good enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

from asenequip.calculator import AllegroCalculator
from asenequip.uncertainty.calibration import calibration_error, conformal_quantile, rank_correlation


def judge(calculator: AllegroCalculator, frames: Sequence[Atoms], confidence: float) -> dict[str, Any]:
    """Errors of a potential on frames it has not seen.

    Parameters
    ----------
    calculator : AllegroCalculator
    frames : sequence of ase.Atoms
        Labelled, drawn at random from where the potential is to be used.
    confidence : float
        In (0, 1).

    Returns
    -------
    dict
        "frames"; "force_rmse" (eV/Angstrom) and "energy_rmse" (eV/atom) over all; "bound": with the given confidence
        the force rmse of one more such frame stays below it (conformal; infinite for too few frames); and where the
        potential carries an uncertainty "deviation" (its mean force deviation), "rank_correlation" of the atoms' force
        errors with it, "calibration_error", and "coverage" of its own bound at that confidence (None without one).
    """
    errors, energies, deviations, inside = [], [], [], []
    for atoms in frames:
        labels = atoms.calc.results
        errors.append(labels["forces"] - calculator.get_property("forces", atoms))
        energies.append((labels["energy"] - calculator.get_property("energy", atoms)) / max(len(atoms), 1))
        if calculator.rigidity is not None:
            found = calculator.uncertainty(atoms)
            deviations.append(found.forces)
            factor = calculator.rigidity.force_bound(confidence)
            if np.isfinite(factor):
                inside.append(np.linalg.norm(errors[-1], axis=1) <= factor * found.forces)
    rmse = np.array([math.sqrt(float(np.mean(error**2))) for error in errors])
    every = np.concatenate(errors) if errors else np.zeros((0, 3))
    record: dict[str, Any] = {
        "frames": len(frames),
        "force_rmse": math.sqrt(float(np.mean(every**2))) if len(every) else math.nan,
        "energy_rmse": math.sqrt(float(np.mean(np.square(energies)))) if energies else math.nan,
        "bound": conformal_quantile(rmse, confidence),
    }
    if deviations and len(every) > 1:
        stated = np.concatenate(deviations)
        record["deviation"] = float(stated.mean())
        record["rank_correlation"] = rank_correlation(np.linalg.norm(every, axis=1), stated)
        record["calibration_error"] = calibration_error(every, np.repeat(stated, 3))
        record["coverage"] = float(np.concatenate(inside).mean()) if inside else None
    return record
