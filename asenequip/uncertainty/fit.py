"""Fitting the last-layer posterior of a potential on labelled frames, and keeping it in the potential's file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from asenequip.artifact import Potential, golden_atoms, load_artifact, save_artifact
from asenequip.errors import parameter_error
from asenequip.evaluate import Evaluator
from asenequip.graph import atom_types
from asenequip.uncertainty.features import feature_factors, force_rows
from asenequip.uncertainty.last_layer import Errors, LastLayer


@dataclass(frozen=True)
class Labels:
    """Energy (eV, NaN if absent) and forces ((n, 3) eV/Angstrom, NaN if absent) of a frame."""

    energy: float
    forces: np.ndarray


def labels_of(atoms: Atoms) -> Labels:
    """What the calculator of a frame holds; nothing is computed."""
    results = getattr(atoms.calc, "results", {}) if atoms.calc is not None else {}
    forces = results.get("forces")
    missing = np.full((len(atoms), 3), np.nan)
    return Labels(float(results.get("energy", np.nan)), missing if forces is None else np.asarray(forces, np.float64))


def fit_last_layer(
    potential: Potential | str | os.PathLike[str],
    train: Sequence[Atoms],
    held_out: Sequence[Atoms],
    *,
    directions: int = 4,
    seed: int = 0,
    device: str = "auto",
    compiled: bool | None = None,
) -> LastLayer:
    """Fit and calibrate the last-layer posterior of a potential.

    The covariance is accumulated in float64 over the energies per atom of the training frames and over their forces,
    each in units of the potential's rms residual on them; regularisation and scales maximise the likelihood of the
    errors on the held-out frames.

    Parameters
    ----------
    potential : Potential or path
    train : sequence of ase.Atoms
        Frames the potential was trained on, with labels in their calculators.
    held_out : sequence of ase.Atoms
        Labelled frames that it was not trained on.
    directions : int
        Random combinations of each frame's force components that are accumulated, see
        `asenequip.uncertainty.features.force_rows`; 0 leaves the forces out.
    seed : int
        Of these combinations.
    device, compiled
        As for `asenequip.Evaluator`.

    Returns
    -------
    LastLayer

    Raises
    ------
    ValueError
        If a list is empty or carries no labels.
    """
    for name, frames in (("train", train), ("held_out", held_out)):
        if not len(frames):
            raise parameter_error(name, "fit_last_layer", "a sequence of labelled frames, at least one", "none")
    if not isinstance(directions, int) or directions < 0:
        raise parameter_error("directions", "fit_last_layer", "an integer >= 0", directions)
    evaluator = Evaluator(potential, device=device, skin=0.0, compiled=compiled)
    factors = feature_factors(evaluator.model)
    known = compare(evaluator, train, factors)
    noise = {"energy_per_atom": _rms(known.energy / _sizes(train)), "forces": _rms(np.concatenate(known.forces))}
    covariance = _energy_part(known, noise["energy_per_atom"])
    if directions and noise["forces"] > 0:
        covariance = covariance + _force_part(evaluator, train, known, directions, seed) / noise["forces"] ** 2
    record: dict[str, Any] = {
        "train_frames": len(train),
        "held_out_frames": len(held_out),
        "directions": directions,
        "noise": noise,
    }
    names = evaluator.model.spec.type_names
    return LastLayer.fit(names, factors, covariance, compare(evaluator, held_out, factors), record)


def compare(evaluator: Evaluator, frames: Sequence[Atoms], factors: np.ndarray) -> Errors:
    """Features and errors of labelled frames, one pass each."""
    features, kinds, energy, forces = [], [], [], []
    for atoms in frames:
        found, labels = evaluator.evaluate([atoms], last_layer=True)[0], labels_of(atoms)
        types = np.asarray(atom_types(atoms, evaluator.model.spec.type_names))
        features.append(np.asarray(found["last_layer"]) * factors[types][:, None])
        kinds.append(types)
        energy.append(labels.energy - float(found["energy"]))
        forces.append(labels.forces - found["forces"])
    return Errors(features, kinds, np.array(energy), forces)


def _energy_part(known: Errors, noise: float) -> np.ndarray:
    """Sum over labelled frames of f f^T / (atoms noise)^2."""
    width = known.features[0].shape[1]
    total = np.zeros((width, width))
    for features, error in zip(known.features, known.energy, strict=True):
        if np.isfinite(error) and noise > 0:
            row = features.sum(axis=0) / (len(features) * noise)
            total += np.outer(row, row)
    return total


def _force_part(evaluator: Evaluator, frames: Sequence[Atoms], known: Errors, directions: int, seed: int) -> np.ndarray:
    """Estimate of sum J^T J over the frames that have forces."""
    rng = np.random.default_rng(seed)
    width = known.features[0].shape[1]
    total = np.zeros((width, width))
    for atoms, error in zip(frames, known.forces, strict=True):
        if len(atoms) and np.isfinite(error).all():
            rows = force_rows(evaluator.model, evaluator.graph(atoms), directions, rng)
            total += rows.T @ rows / directions
    return total


def add_uncertainty(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    train: Sequence[Atoms],
    held_out: Sequence[Atoms],
    **options: Any,
) -> Path:
    """Write a copy of a potential that carries its last-layer uncertainty.

    Parameters
    ----------
    source, target : path
        ``model.asnq`` files; the target must not exist.
    train, held_out, **options
        As for `fit_last_layer`.
    """
    potential = load_artifact(source)
    fitted = fit_last_layer(potential, train, held_out, **options)
    return save_with_uncertainty(target, potential, fitted)


def save_with_uncertainty(
    target: str | os.PathLike[str], potential: Potential, fitted: LastLayer, golden: Atoms | None = None
) -> Path:
    """Write a potential with a fitted last layer; the golden frame of its file is kept."""
    if golden is None and potential.path is not None:
        golden = golden_atoms(potential.path)
    model = potential.cast(potential.dtype, "cpu")
    provenance = potential.provenance
    return save_artifact(target, model, golden=golden, provenance=provenance, uncertainty=fitted.to_part())


def _sizes(frames: Sequence[Atoms]) -> np.ndarray:
    return np.array([max(len(atoms), 1) for atoms in frames], np.float64)


def _rms(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if known.size else 0.0
