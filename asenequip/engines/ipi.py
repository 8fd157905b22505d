"""i-PI: all beads of a path integral, or all replicas, in one evaluation.

i-PI loads this file itself: ``<ffdirect>`` with ``<pes> custom </pes>``, ``<pes_path>`` the path of this file (which
``asenequip ipi --path`` prints), and ``<batch_size>`` the number of beads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import read
from ase.stress import voigt_6_to_full_3x3_stress

from asenequip.evaluate import Evaluator, Results

__DRIVER_NAME__ = "asenequip"
__DRIVER_CLASS__ = "AllegroDriver"

Answer = tuple[float, np.ndarray, np.ndarray, str]
"""Energy (Hartree), forces (n, 3) (Hartree/Bohr), virial (3, 3) (Hartree), and i-PI's extras."""


class AllegroDriver:
    """What i-PI asks for energies, forces and virials.

    Parameters
    ----------
    template : path
        A structure in any format of ASE's, with the elements in i-PI's order, and the periodicity.
    model : path
        A ``model.asnq`` file.
    device, dtype, compiled
        As for `asenequip.evaluate.Evaluator`.
    **others
        What i-PI adds of its own, such as its verbosity.
    """

    def __init__(
        self,
        template: str,
        model: str,
        device: str = "auto",
        dtype: str = "float32",
        compiled: bool | None = None,
        **others: Any,
    ) -> None:
        structure = read(template)
        self.template = structure if isinstance(structure, Atoms) else structure[-1]
        self.evaluator = Evaluator(model, device=device, dtype=dtype, compiled=compiled)
        self._frames = [self.template.copy()]

    def __call__(self, cell: Any, pos: Any) -> Answer | list[Answer]:
        """Evaluate one structure, or a list of them at once.

        Parameters
        ----------
        cell : (3, 3) float64 or list
            Columns are lattice vectors, Bohr.
        pos : (n, 3) float64 or list
            Bohr.

        Returns
        -------
        Answer or list of Answer
        """
        if isinstance(cell, list):
            return self._evaluate(cell, pos)
        return self._evaluate([cell], [pos])[0]

    def _evaluate(self, cells: Sequence[np.ndarray], positions: Sequence[np.ndarray]) -> list[Answer]:
        while len(self._frames) < len(cells):
            self._frames.append(self.template.copy())
        frames = self._frames[: len(cells)]
        for atoms, cell, place in zip(frames, cells, positions, strict=True):
            if len(place) != len(atoms):
                raise ValueError(
                    f"i-PI has {len(place)} atoms, the template {len(atoms)}.\nGive the template of this simulation."
                )
            atoms.positions = np.asarray(place) * units.Bohr
            if atoms.pbc.any() or atoms.cell.rank == 3:
                atoms.cell = np.asarray(cell).T * units.Bohr
        self.evaluator.lists.capacity = max(self.evaluator.lists.capacity, len(frames))
        found = self.evaluator.evaluate(frames)
        return [_answer(results, atoms.cell.volume) for results, atoms in zip(found, frames, strict=True)]


def _answer(results: Results, volume: float) -> Answer:
    """Results in atomic units; the virial is minus the strain derivative of the energy."""
    virial = np.zeros((3, 3))
    if "stress" in results:
        virial = -volume * voigt_6_to_full_3x3_stress(results["stress"]) / units.Hartree
    forces = np.asarray(results["forces"]) / (units.Hartree / units.Bohr)
    return float(results["energy"]) / units.Hartree, forces, virial, ""
