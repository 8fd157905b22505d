"""What an evaluation gives for each structure, in ASE's names, units and shapes."""

from __future__ import annotations

import numpy as np

PROPERTIES = ("energy", "free_energy", "energies", "forces", "stress", "stresses")
"""Names, as in ASE, of what one evaluation gives."""

Results = dict[str, "float | np.ndarray"]
Outcome = Results | Exception
"""Results of a structure, or why it has none."""

_VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])


def results_of(
    starts: np.ndarray,
    energies: np.ndarray,
    forces: np.ndarray,
    virials: np.ndarray,
    volumes: np.ndarray,
    last_layer: np.ndarray | None = None,
) -> list[Results]:
    """Results of joined structures, each with arrays of its own.

    Parameters
    ----------
    starts : (f+1,) int
        Atoms of structure k are ``starts[k] : starts[k+1]``.
    energies : (n,) float64
        eV.
    forces : (n, 3) float64
        eV/Angstrom.
    virials : (n, 3, 3) float64
        sum_z r_z (x) dE/dr_z of each atom, eV.
    volumes : (f,) float64
        Angstrom^3; a structure without volume gets no stress.
    last_layer : (n, width) float64, optional
        Goes to the results under its name.

    Returns
    -------
    list of dict
        "energy", "free_energy", "energies", "forces", and with a volume "stress" and "stresses" (xx yy zz yz xz xy).
    """
    symmetric = 0.5 * (virials + virials.transpose(0, 2, 1))
    voigt = np.ascontiguousarray(symmetric[:, _VOIGT[0], _VOIGT[1]])
    found = []
    for k, volume in enumerate(volumes):
        atoms = slice(starts[k], starts[k + 1])
        energy = float(energies[atoms].sum())
        results: Results = {
            "energy": energy,
            "free_energy": energy,
            "energies": energies[atoms].copy(),
            "forces": forces[atoms].copy(),
        }
        if volume > 0:
            results["stresses"] = voigt[atoms] / volume
            results["stress"] = voigt[atoms].sum(axis=0) / volume
        if last_layer is not None:
            results["last_layer"] = last_layer[atoms].copy()
        found.append(results)
    return found
