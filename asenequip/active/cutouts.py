"""Atoms in a sphere: a small periodic structure around one environment of a large cell, for labelling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from asenequip.errors import parameter_error


@dataclass(frozen=True)
class CutOut:
    """A structure cut out of a larger one.

    Attributes
    ----------
    atoms : ase.Atoms
        The chosen atom first, at the centre of an orthorhombic box with vacuum on all sides; periodic, so that
        plane-wave codes take it. ``arrays["original"]`` holds each atom's index in the large cell,
        ``arrays["exact"]`` whether its whole environment is inside.
    center : int
        Index of the chosen atom in the large cell.
    radius : float
        Angstrom.
    """

    atoms: Atoms
    center: int
    radius: float


def cut_out(
    atoms: Atoms,
    center: int,
    radius: float,
    *,
    cutoff: float,
    vacuum: float = 6.0,
) -> CutOut:
    """Cut the atoms within a radius of one atom out of a structure, periodic images included.

    Only atoms nearer to the centre than ``radius - cutoff`` keep their whole environment; these are "exact", and
    labels of the others' forces belong to the surface that the cut has made.

    Parameters
    ----------
    atoms : ase.Atoms
        Any cell, any periodicity; also cells smaller than the radius, whose atoms then appear several times.
    center : int
    radius : float
        Angstrom.
    cutoff : float
        Of the potential, Angstrom; at most ``radius``.
    vacuum : float
        Least distance between a cut-out and its periodic images, Angstrom.

    Returns
    -------
    CutOut

    Raises
    ------
    ValueError
        For an index out of range, or a radius below the cutoff.
    """
    if not 0 <= center < len(atoms):
        raise parameter_error("center", "cut_out", f"an index from 0 to {len(atoms) - 1}", center)
    if not radius >= cutoff > 0:
        raise parameter_error("radius", "cut_out", f"at least the cutoff, {cutoff:g}", radius)
    if not vacuum > 0:
        raise parameter_error("vacuum", "cut_out", "a positive float, Angstrom", vacuum)
    indices, vectors = surroundings(atoms, center, radius)
    original = np.concatenate([[center], indices])
    offsets = np.concatenate([np.zeros((1, 3)), vectors])
    found = Atoms(numbers=atoms.numbers[original], positions=offsets)
    low, high = offsets.min(axis=0), offsets.max(axis=0)
    found.set_cell(high - low + vacuum)
    found.positions += 0.5 * vacuum - low
    found.pbc = True
    found.set_array("original", original)
    found.set_array("exact", np.linalg.norm(offsets, axis=1) <= radius - cutoff + 1e-9)
    found.info["cut_out"] = f"atom {center}, radius {radius:g}"
    return CutOut(found, center, radius)


def surroundings(atoms: Atoms, center: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """All other atoms and images within a radius of one atom: indices (m,) and vectors from it (m, 3), by distance."""
    cell = atoms.cell.complete()
    shares = cell.scaled_positions(atoms.positions - atoms.positions[center])
    shares -= np.where(atoms.pbc, np.rint(shares), 0.0)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell.array), axis=0)
    most = np.where(atoms.pbc, np.floor(radius / heights + 0.5), 0).astype(int)
    indices, vectors = [], []
    for shift in np.ndindex(*(2 * most + 1)):
        found = cell.cartesian_positions(shares + (np.array(shift) - most))
        near = np.linalg.norm(found, axis=1) <= radius
        near[center] &= bool(np.any(np.array(shift) != most))
        indices.append(np.flatnonzero(near))
        vectors.append(found[near])
    every, offsets = np.concatenate(indices), np.concatenate(vectors)
    order = np.argsort(np.linalg.norm(offsets, axis=1), kind="stable")
    return every[order], offsets[order]
