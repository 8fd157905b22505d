"""What the network is normalised with: neighbours per type, size of the forces, and energy shifts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asenequip.train.config import ConfigError, Model
from asenequip.train.data import Frame, Sample

_SMALL = 1e-3
"""eV: the scale is never below this, so that data without forces still train."""


@dataclass(frozen=True)
class Statistics:
    """Statistics of the training frames.

    Attributes
    ----------
    neighbors : (T,) float64
        Mean number of neighbours within the cutoff.
    scales : (T,) float64
        Energy scale, eV (force rms times 1 Angstrom).
    shifts : (T,) float64
        Energy per atom of the model, eV.
    offsets : (d, T) float64
        What each data set's energies have beyond those shifts, eV per atom.
    force_rms : float
        eV/Angstrom, over all labelled force components.
    """

    neighbors: np.ndarray
    scales: np.ndarray
    shifts: np.ndarray
    offsets: np.ndarray
    force_rms: float


def mean_neighbors(samples: Sequence[Sample], num_types: int) -> np.ndarray:
    """Mean number of neighbours of each type, (T,); types that are absent or alone get the mean of all, or 1.

    Frames without a single edge are left out: an isolated atom says nothing about the environments to come.
    """
    edges, atoms = np.zeros(num_types), np.zeros(num_types)
    for sample in samples:
        if sample.graph.num_edges:
            types = sample.graph.types.numpy()
            edges += np.bincount(types, weights=np.diff(sample.graph.ptr.numpy()), minlength=num_types)
            atoms += np.bincount(types, minlength=num_types)
    overall = edges.sum() / max(atoms.sum(), 1.0)
    mean = np.divide(edges, atoms, out=np.full(num_types, overall), where=atoms > 0)
    return np.where(mean > 0, mean, overall if overall > 0 else 1.0)


def force_rms(samples: Sequence[Sample], num_types: int) -> tuple[float, np.ndarray]:
    """Root mean square of the labelled force components: over all, and of each type (T,), eV/Angstrom."""
    squares, counts = np.zeros(num_types), np.zeros(num_types)
    for sample in samples:
        if not sample.graph.num_edges:
            continue
        labelled = np.isfinite(sample.frame.forces).all(axis=1)
        types = sample.graph.types.numpy()[labelled]
        squares += np.bincount(types, weights=(sample.frame.forces[labelled] ** 2).sum(axis=1), minlength=num_types)
        counts += 3 * np.bincount(types, minlength=num_types)
    overall = float(np.sqrt(squares.sum() / max(counts.sum(), 1.0)))
    per_type = np.sqrt(np.divide(squares, counts, out=np.full(num_types, overall**2), where=counts > 0))
    return overall, per_type


def least_squares_shifts(counts: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Energy per atom of each type from total energies.

    The mean energy per atom plus the smallest correction (minimum norm, of numerical rank) that fits best. Where the
    compositions do not tell the types apart, they share what they cannot divide; a type that is absent gets the mean.

    Parameters
    ----------
    counts : (f, T) float64
        Atoms of each type in each frame.
    energies : (f,) float64
        eV; NaN where there is no label.

    Returns
    -------
    (T,) float64, eV
    """
    labelled = np.isfinite(energies)
    counts, energies = counts[labelled].astype(np.float64), energies[labelled]
    if not len(energies):
        return np.zeros(counts.shape[1])
    atoms = counts.sum(axis=1)
    mean = float(energies.sum() / atoms.sum())
    correction, *_ = np.linalg.lstsq(counts / atoms[:, None], energies / atoms - mean, rcond=1e-6)
    return mean + correction


def isolated_shifts(frames: Sequence[Frame], species: Sequence[str]) -> dict[str, float]:
    """Energies of single atoms in the data, the lowest of each species, eV."""
    found: dict[str, float] = {}
    for frame in frames:
        symbol = str(frame.atoms.symbols[0])
        if frame.isolated and symbol in species and np.isfinite(frame.energy):
            found[symbol] = min(frame.energy, found.get(symbol, np.inf))
    return found


def energy_shifts(
    model: Model, species: Sequence[str], samples: Sequence[Sample], isolated: Sequence[Frame]
) -> np.ndarray:
    """Shifts (T,) eV as ``model.energy_shifts`` asks for.

    Raises
    ------
    ConfigError
        If an energy of a species is needed and not there.
    """
    wanted = "auto" if model.energy_shifts == "keep" else model.energy_shifts
    given = wanted if isinstance(wanted, dict) else isolated_shifts(isolated, species)
    missing = [name for name in species if name not in given]
    if isinstance(wanted, dict) or wanted == "isolated" or (wanted == "auto" and not missing):
        if missing:
            raise ConfigError(
                f"model.energy_shifts: no energy of an isolated atom for {', '.join(missing)}.\n"
                "Add such frames (one atom, no pbc) to data.train, give {symbol: eV}, or set least_squares."
            )
        return np.array([given[name] for name in species], dtype=np.float64)
    return least_squares_shifts(*_compositions(samples, len(species)))


def _compositions(samples: Sequence[Sample], num_types: int) -> tuple[np.ndarray, np.ndarray]:
    rows = [np.bincount(sample.graph.types.numpy(), minlength=num_types) for sample in samples]
    return np.array(rows).reshape(-1, num_types), np.array([sample.frame.energy for sample in samples])


def gather_statistics(
    model: Model,
    species: Sequence[str],
    samples: Sequence[Sample],
    isolated: Sequence[Frame] = (),
    own_shifts: Sequence[bool] = (False,),
) -> Statistics:
    """Statistics of the training samples.

    Parameters
    ----------
    model : Model
        Says where shifts and scales come from.
    species : sequence of str
    samples : sequence of Sample
        Training samples.
    isolated : sequence of Frame
        Single atoms.
    own_shifts : sequence of bool
        For each data set, whether its energies have a zero of their own.
    """
    count = len(species)
    rms, per_type = force_rms(samples, count)
    scales = np.full(count, rms) if model.energy_scales == "force_rms" else per_type
    if isinstance(model.energy_scales, dict):
        scales = np.array([model.energy_scales.get(name, rms) for name in species])
    shared = [s for s in samples if not own_shifts[s.frame.dataset]] or list(samples)
    shifts = energy_shifts(model, species, shared, isolated)
    offsets = np.zeros((len(own_shifts), count))
    for k, own in enumerate(own_shifts):
        mine = [s for s in samples if s.frame.dataset == k]
        if own and mine:
            offsets[k] = least_squares_shifts(*_compositions(mine, count)) - shifts
    scales = np.maximum(scales, _SMALL)
    return Statistics(mean_neighbors(samples, count), scales, shifts, offsets, rms)
