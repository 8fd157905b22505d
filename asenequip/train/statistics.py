"""What the network is normalised with: neighbours per type, size of the forces, and energy shifts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asenequip.train.config import ConfigError, Model
from asenequip.train.data import Frame
from asenequip.train.table import FrameTable

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
    atoms : (T,) int64
        Atoms of each type.
    """

    neighbors: np.ndarray
    scales: np.ndarray
    shifts: np.ndarray
    offsets: np.ndarray
    force_rms: float
    atoms: np.ndarray


def mean_neighbors(table: FrameTable) -> np.ndarray:
    """Mean number of neighbours of each type, (T,); types that are absent or alone get the mean of all, or 1.

    Frames without a single edge are left out: an isolated atom says nothing about the environments to come.
    """
    connected = table.take(np.flatnonzero(table.num_edges()))
    edges, atoms = connected.edges.sum(axis=0), connected.atoms.sum(axis=0)
    overall = edges.sum() / max(atoms.sum(), 1.0)
    mean = np.divide(edges, atoms, out=np.full(len(edges), overall), where=atoms > 0)
    return np.where(mean > 0, mean, overall if overall > 0 else 1.0)


def force_rms(table: FrameTable) -> tuple[float, np.ndarray]:
    """Root mean square of the labelled force components: over all, and of each type (T,), eV/Angstrom."""
    connected = table.take(np.flatnonzero(table.num_edges()))
    squares, counts = connected.squares.sum(axis=0), 3 * connected.labelled.sum(axis=0)
    overall = float(np.sqrt(squares.sum() / max(counts.sum(), 1.0)))
    per_type = np.sqrt(np.divide(squares, counts, out=np.full(len(squares), overall**2), where=counts > 0))
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


def energy_shifts(model: Model, species: Sequence[str], table: FrameTable, isolated: Sequence[Frame]) -> np.ndarray:
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
    return least_squares_shifts(table.atoms, table.energies)


def gather_statistics(
    model: Model,
    species: Sequence[str],
    table: FrameTable,
    isolated: Sequence[Frame] = (),
    own_shifts: Sequence[bool] = (False,),
) -> Statistics:
    """Statistics of the training frames.

    Parameters
    ----------
    model : Model
        Says where shifts and scales come from.
    species : sequence of str
    table : FrameTable
        Of the training frames.
    isolated : sequence of Frame
        Single atoms.
    own_shifts : sequence of bool
        For each data set, whether its energies have a zero of their own.
    """
    count = len(species)
    rms, per_type = force_rms(table)
    scales = np.full(count, rms) if model.energy_scales == "force_rms" else per_type
    if isinstance(model.energy_scales, dict):
        scales = np.array([model.energy_scales.get(name, rms) for name in species])
    own = np.array(own_shifts)
    shared = np.flatnonzero(~own[table.datasets])
    shifts = energy_shifts(model, species, table.take(shared) if len(shared) else table, isolated)
    offsets = np.zeros((len(own), count))
    for k in np.flatnonzero(own):
        mine = table.take(np.flatnonzero(table.datasets == k))
        if len(mine):
            offsets[k] = least_squares_shifts(mine.atoms, mine.energies) - shifts
    scales = np.maximum(scales, _SMALL)
    return Statistics(mean_neighbors(table), scales, shifts, offsets, rms, table.atoms.sum(axis=0))
