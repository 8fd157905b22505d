"""What follows from an elastic tensor: averaged moduli, anisotropy, stability.

Voigt and Reuss bounds and Hill's mean: R. Hill, Proc. Phys. Soc. A 65, 349 (1952). Universal anisotropy: S. I.
Ranganathan and M. Ostoja-Starzewski, Phys. Rev. Lett. 101, 055504 (2008). Stability: F. Mouhat and F.-X. Coudert, Phys.
Rev. B 90, 224104 (2014): without load a crystal is stable if its tensor is positive definite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asenequip.properties.strains import MANDEL


@dataclass(frozen=True)
class Moduli:
    """Moduli of a polycrystal without texture, and how far the crystal is from isotropic.

    Attributes
    ----------
    bulk_voigt, bulk_reuss, bulk : float
        Bulk modulus: upper bound, lower bound and their mean (Hill), GPa.
    shear_voigt, shear_reuss, shear : float
        The same of the shear modulus, GPa.
    young : float
        Young's modulus from Hill's means, GPa.
    poisson : float
        Poisson's ratio from Hill's means.
    anisotropy : float
        Universal index, 0 for an isotropic crystal.
    """

    bulk_voigt: float
    bulk_reuss: float
    bulk: float
    shear_voigt: float
    shear_reuss: float
    shear: float
    young: float
    poisson: float
    anisotropy: float


def moduli(tensor: np.ndarray) -> Moduli:
    """Averages of a stable elastic tensor.

    Parameters
    ----------
    tensor : (6, 6) float64
        Voigt order xx yy zz yz xz xy, GPa.
    """
    bulk_voigt, shear_voigt = _voigt(tensor)
    compliance = np.linalg.inv(tensor)
    axial, mixed, shears = _sums(compliance)
    bulk_reuss = 1.0 / (axial + 2 * mixed)
    shear_reuss = 15.0 / (4 * axial - 4 * mixed + 3 * shears)
    bulk, shear = (bulk_voigt + bulk_reuss) / 2, (shear_voigt + shear_reuss) / 2
    return Moduli(
        bulk_voigt,
        bulk_reuss,
        bulk,
        shear_voigt,
        shear_reuss,
        shear,
        young=9 * bulk * shear / (3 * bulk + shear),
        poisson=(3 * bulk - 2 * shear) / (6 * bulk + 2 * shear),
        anisotropy=5 * shear_voigt / shear_reuss + bulk_voigt / bulk_reuss - 6,
    )


def is_stable(tensor: np.ndarray) -> bool:
    """Whether no strain lowers the energy: all eigenvalues positive, (6, 6) in any unit."""
    return bool(np.linalg.eigvalsh(_mandel(tensor)).min() > 0)


def _voigt(tensor: np.ndarray) -> tuple[float, float]:
    axial, mixed, shears = _sums(tensor)
    return (axial + 2 * mixed) / 9, (axial - mixed + 3 * shears) / 15


def _sums(matrix: np.ndarray) -> tuple[float, float, float]:
    """11 + 22 + 33, 12 + 13 + 23 and 44 + 55 + 66 of a matrix in Voigt order."""
    axial = float(matrix[0, 0] + matrix[1, 1] + matrix[2, 2])
    mixed = float(matrix[0, 1] + matrix[0, 2] + matrix[1, 2])
    return axial, mixed, float(matrix[3, 3] + matrix[4, 4] + matrix[5, 5])


def _mandel(tensor: np.ndarray) -> np.ndarray:
    """The tensor in an orthonormal basis of strains, where eigenvalues mean something."""
    return (tensor + tensor.T) / 2 * MANDEL[:, None] * MANDEL
