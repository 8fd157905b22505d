"""Energies of surfaces, from slabs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator

from asenequip.errors import parameter_error
from asenequip.properties.checks import check_crystal, check_positive
from asenequip.properties.evaluation import relaxed, results_of


@dataclass(frozen=True)
class SurfaceEnergy:
    """Energy of a surface.

    Attributes
    ----------
    miller : (int, int, int)
        Miller indices, with respect to the cell that was given.
    energy : float
        Energy of the relaxed surface, eV/Angstrom^2; the mean of the slab's two sides.
    unrelaxed : float
        Energy of the surface as it was cut, eV/Angstrom^2.
    area : float
        Area of one side of the slab, Angstrom^2.
    slab : ase.Atoms
        Relaxed; its calculator holds the results.
    """

    miller: tuple[int, int, int]
    energy: float
    unrelaxed: float
    area: float
    slab: Atoms

    @property
    def joule_per_m2(self) -> float:
        """Energy of the relaxed surface, J/m^2."""
        return self.energy * units.m**2 / units.J


def surface_energies(
    atoms: Atoms,
    calculator: BaseCalculator,
    millers: Sequence[Sequence[int]],
    *,
    thickness: float = 15.0,
    vacuum: float = 15.0,
    fmax: float = 0.01,
    steps: int = 500,
) -> list[SurfaceEnergy]:
    """Energies of surfaces cut from a crystal, gamma = (E_slab - E_bulk N_slab / N_bulk) / (2 A).

    Slabs are cut by `ase.build.surface`, as many layers as reach the thickness, and relax together in their cells. They
    consist of whole cells, so that no chemical potential is needed. Where a crystal can be cut between different
    layers, the cut is ASE's; look at ``slab``. Two sides that differ give their mean.

    Parameters
    ----------
    atoms : ase.Atoms
        A crystal whose cell is relaxed; not changed. Miller indices refer to its cell, so give a conventional cell for
        the usual ones.
    calculator : ASE calculator
    millers : sequence of (3,) ints
    thickness : float
        Least distance between the outermost atoms of a slab, Angstrom.
    vacuum : float
        Between a slab and its image, Angstrom; more than twice the cutoff changes nothing.
    fmax : float
        Largest force after relaxation, eV/Angstrom.
    steps : int
        Most steps of a relaxation.

    Returns
    -------
    list of SurfaceEnergy

    Raises
    ------
    ValueError
        If the atoms are no crystal, or an index is no direction.
    ase.calculators.calculator.CalculationFailed
        If a slab could not be evaluated or relaxed.
    """
    check_crystal(atoms, "surface_energies")
    for name, value in (("thickness", thickness), ("vacuum", vacuum), ("fmax", fmax)):
        check_positive(name, "surface_energies", value)
    indices = [_miller(miller) for miller in millers]
    slabs = [cut_slab(atoms, miller, thickness, vacuum) for miller in indices]
    perfect = results_of([atoms], calculator, "crystal")[0]
    cut = results_of(slabs, calculator, "slab")
    moved = relaxed(slabs, calculator, "slab", fmax=fmax, steps=steps)
    found = []
    for miller, slab, before in zip(indices, moved, cut, strict=True):
        area = float(np.linalg.norm(np.cross(slab.cell[0], slab.cell[1])))
        bulk = perfect["energy"] * len(slab) / len(atoms)
        after = slab.get_potential_energy()
        found.append(
            SurfaceEnergy(miller, (after - bulk) / (2 * area), (before["energy"] - bulk) / (2 * area), area, slab)
        )
    return found


def cut_slab(atoms: Atoms, miller: tuple[int, int, int], thickness: float, vacuum: float) -> Atoms:
    """A slab of at least a thickness, of whole cells, periodic in its plane, with half the vacuum on each side."""
    from ase.build import surface

    one, two = (surface(atoms, miller, layers) for layers in (1, 2))
    height = float(np.ptp(two.positions[:, 2]) - np.ptp(one.positions[:, 2]))
    layers = max(1, int(np.ceil((thickness - np.ptp(one.positions[:, 2])) / height - 1e-9)) + 1)
    slab = surface(atoms, miller, layers)
    slab.center(vacuum=vacuum / 2, axis=2)
    slab.set_pbc((True, True, False))
    return slab


def _miller(miller: Sequence[int]) -> tuple[int, int, int]:
    found = tuple(int(index) for index in miller)
    if len(found) != 3 or found == (0, 0, 0):
        raise parameter_error("millers", "surface_energies", "three integers each, not all zero", miller)
    return found
