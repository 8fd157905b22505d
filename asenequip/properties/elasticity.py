"""Elastic tensors from the stresses of strained crystals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator

from asenequip.errors import parameter_error
from asenequip.files import refuse_existing
from asenequip.properties.checks import check_crystal, check_positive, check_stress
from asenequip.properties.evaluation import labelled, relaxed, results_of
from asenequip.properties.moduli import Moduli, is_stable, moduli
from asenequip.properties.strains import invariant_tensors, needed_directions, strained
from asenequip.properties.symmetry import rotations, space_group
from asenequip.properties.tables import write_csv, write_json

STRAINS = (-0.01, -0.005, 0.005, 0.01)
_VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")


@dataclass(frozen=True)
class ElasticTensor:
    """Elastic constants of a crystal, in the Cartesian axes of its cell.

    Attributes
    ----------
    tensor : (6, 6) float64
        C_ij = d stress_i / d strain_j, GPa, Voigt order xx yy zz yz xz xy, strains with engineering shears.
    independent : int
        Constants that the point group leaves independent.
    space_group : str
    directions : tuple of int
        Strain directions that were evaluated, of the six in Voigt order.
    strains : (s,) float64
        Their sizes.
    stresses : (d, s, 6) float64
        Stress at each direction and size, GPa, tension positive.
    residual_stress : (6,) float64
        Stress without strain, GPa; the constants are those of the unloaded crystal where this is small beside them.
    misfit : float
        Root mean square of what the symmetric tensor leaves of the measured d stress / d strain, GPa.
    """

    tensor: np.ndarray
    independent: int
    space_group: str
    directions: tuple[int, ...]
    strains: np.ndarray
    stresses: np.ndarray
    residual_stress: np.ndarray
    misfit: float

    @property
    def stable(self) -> bool:
        """Whether no small strain lowers the energy of the unloaded crystal."""
        return is_stable(self.tensor)

    @property
    def moduli(self) -> Moduli:
        """Bulk, shear and Young's modulus, Poisson's ratio, anisotropy."""
        return moduli(self.tensor)

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``elastic.json``, ``stresses.csv`` and a figure of the stresses into a folder; no file may exist."""
        from asenequip.properties.figures import stress_figure

        folder = Path(folder)
        paths = [folder / name for name in ("elastic.json", "stresses.csv", "stresses.png")]
        refuse_existing(*paths)
        values = {
            "units": "GPa, Voigt order xx yy zz yz xz xy",
            "tensor": self.tensor,
            "independent": self.independent,
            "space_group": self.space_group,
            "stable": self.stable,
            "moduli": self.moduli if self.stable else None,
            "residual_stress": self.residual_stress,
            "misfit": self.misfit,
        }
        write_json(paths[0], values)
        pairs = [(d, s) for d in range(len(self.directions)) for s in range(len(self.strains))]
        columns: dict[str, list[object]] = {
            "direction": [_VOIGT[self.directions[d]] for d, _ in pairs],
            "strain": [self.strains[s] for _, s in pairs],
        }
        for k, name in enumerate(_VOIGT):
            columns[f"stress_{name}_GPa"] = [self.stresses[d, s, k] for d, s in pairs]
        write_csv(paths[1], columns)
        stress_figure(self, paths[2])
        return paths


def elastic_tensor(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    strains: Sequence[float] = STRAINS,
    relax_ions: bool = True,
    fmax: float = 1e-4,
    steps: int = 500,
    tolerance: float = 1e-3,
) -> ElasticTensor:
    """Elastic tensor of a crystal, from the slope of its stress against small strains.

    The point group says which of the six strains are needed (two for a cubic crystal) and which tensors are possible;
    the constants are the least-squares fit of these to the slopes. A slope is the linear term of the polynomial through
    all sizes of strain, so the four default sizes leave an error of fourth order.

    Parameters
    ----------
    atoms : ase.Atoms
        A crystal whose cell is relaxed (`asenequip.relax.relax` with ``cell="full"``); not changed.
    calculator : ASE calculator
        One that gives the stress. All strained structures are evaluated, or relaxed, together where it can.
    strains : sequence of float
        Sizes, at least two, none of them zero and in pairs of both signs for the best accuracy.
    relax_ions : bool
        Whether atoms relax in the strained cell, as they do in a crystal; without, the constants are of clamped ions.
    fmax : float
        Largest force after that, eV/Angstrom.
    steps : int
        Most steps of a relaxation.
    tolerance : float
        Tolerance of spglib's search for symmetry, Angstrom.

    Returns
    -------
    ElasticTensor

    Raises
    ------
    ValueError
        If the atoms are no crystal, the strains make no slope, or the calculator gives no stress.
    ase.calculators.calculator.CalculationFailed
        If a strained structure could not be evaluated or relaxed.
    """
    check_crystal(atoms, "elastic_tensor")
    check_positive("fmax", "elastic_tensor", fmax)
    sizes = np.unique(np.asarray(strains, dtype=np.float64))
    if len(sizes) < 2 or not np.isfinite(sizes).all() or 0.0 in sizes or np.abs(sizes).max() >= 0.5:
        wanted = "two or more different sizes in (-0.5, 0.5), none of them zero"
        raise parameter_error("strains", "elastic_tensor", wanted, strains)
    basis = invariant_tensors(rotations(atoms, tolerance))
    directions = needed_directions(basis)
    frames = [strained(atoms, size * np.eye(6)[k]) for k in directions for size in sizes]
    undeformed = results_of([atoms], calculator, "undeformed structure")[0]
    check_stress(undeformed, "elastic_tensor")
    if relax_ions:
        frames = relaxed(frames, calculator, "strained structure", fmax=fmax, steps=steps)
    else:
        frames = labelled(frames, calculator, "strained structure")
    found = np.array([frame.get_stress() for frame in frames])
    stresses = found.reshape(len(directions), len(sizes), 6) / units.GPa
    residual = np.asarray(undeformed["stress"], dtype=np.float64) / units.GPa
    tensor, misfit = _fit(basis, directions, _slopes(sizes, stresses))
    return ElasticTensor(
        tensor, len(basis), space_group(atoms, tolerance), tuple(directions), sizes, stresses, residual, misfit
    )


def _slopes(sizes: np.ndarray, stresses: np.ndarray) -> np.ndarray:
    """Linear terms of the polynomials through the stresses (d, s, 6) at the sizes (s,): (d, 6)."""
    scale = np.abs(sizes).max()
    powers = np.vander(sizes / scale, len(sizes), increasing=True)
    return np.einsum("s,dsk->dk", np.linalg.inv(powers)[1], stresses) / scale


def _fit(basis: np.ndarray, directions: list[int], slopes: np.ndarray) -> tuple[np.ndarray, float]:
    """Tensor of the allowed ones nearest to the slopes, and the root mean square of the rest."""
    design = np.concatenate([basis[:, :, k].T for k in directions])
    constants = np.linalg.lstsq(design, slopes.ravel(), rcond=None)[0]
    misfit = float(np.sqrt(np.mean((design @ constants - slopes.ravel()) ** 2)))
    tensor = np.einsum("b,bij->ij", constants, basis)
    return np.where(np.abs(tensor) < 1e-9 * np.abs(tensor).max(), 0.0, tensor), misfit
