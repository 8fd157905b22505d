"""Conductivity from diffusion, and activation energies with the errors of the diffusion coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import units

from asenequip.errors import parameter_error
from asenequip.interface.statistics import Estimate

_SI = 1.602176634e-19**2 / 1.380649e-23
"""e^2/k_B in C^2 K/J (exact in the SI)."""


def nernst_einstein(
    diffusion: Estimate, number: float, volume: float, temperature: float, charge: float = 1.0
) -> Estimate:
    """Ionic conductivity of independent carriers: N q^2 D / (V k_B T), without correlations between ions.

    Parameters
    ----------
    diffusion : Estimate
        Angstrom^2/ps.
    number : float
        Carriers in the volume.
    volume : float
        Angstrom^3.
    temperature : float
        K.
    charge : float
        Elementary charges.

    Returns
    -------
    Estimate
        S/cm.
    """
    for name, value in (("volume", volume), ("temperature", temperature)):
        if not value > 0:
            raise parameter_error(name, "nernst_einstein", "a float > 0", value)
    density = number / (volume * 1e-30)  # 1/m^3
    return diffusion.scaled(1e-8 * density * charge**2 * _SI / temperature / 100)


@dataclass(frozen=True)
class Arrhenius:
    """A fit of D = D0 exp(-Ea / (k_B T)).

    Attributes
    ----------
    activation_energy : Estimate
        eV.
    log_prefactor : Estimate
        ln D0, D0 in the units of D.
    chi_square : float
        Of the fit, beside ``freedom`` = points - 2: much larger means that one law does not hold, or that errors are
        too small.
    freedom : int
    """

    activation_energy: Estimate
    log_prefactor: Estimate
    chi_square: float
    freedom: int

    def at(self, temperature: float) -> float:
        """D at a temperature in K: an extrapolation, where it lies outside the fit."""
        return float(np.exp(self.log_prefactor.value - self.activation_energy.value / (units.kB * temperature)))


def fit_arrhenius(temperatures: Sequence[float], diffusion: Sequence[Estimate]) -> Arrhenius:
    """Fit an activation energy by weighted least squares of ln D over 1/T.

    The errors of ln D are propagated; degrees of freedom follow Welch and Satterthwaite (B. L. Welch, Biometrika 34, 28
    (1947)), so that few blocks at few temperatures widen the interval as they must.

    Parameters
    ----------
    temperatures : sequence of float
        K, at least two different ones.
    diffusion : sequence of Estimate
        One for each temperature; any unit.

    Returns
    -------
    Arrhenius

    Raises
    ------
    ValueError
        If a diffusion coefficient is not positive, or has no error.
    """
    kelvin = np.asarray(temperatures, float)
    values, errors, dof = (np.array([getattr(d, k) for d in diffusion], float) for k in ("value", "error", "dof"))
    if len(kelvin) != len(values) or len(set(kelvin.tolist())) < 2:
        raise parameter_error(
            "temperatures", "fit_arrhenius", "two different ones at least, one for each D", temperatures
        )
    if not (values > 0).all() or not (errors > 0).all():
        raise parameter_error(
            "diffusion", "fit_arrhenius", "positive, with errors", values.tolist(), "Leave out what did not diffuse."
        )
    sigma = errors / values
    matrix = np.stack([np.ones_like(kelvin), -1 / (units.kB * kelvin)], axis=1) / sigma[:, None]
    scale = np.linalg.norm(matrix, axis=0)
    solve = np.linalg.pinv(matrix / scale) / scale[:, None]  # parameters = solve @ (ln D / sigma)
    parameters = solve @ (np.log(values) / sigma)
    shares = solve**2  # variance that each point adds, in units of its own
    variance = shares.sum(axis=1)
    with np.errstate(divide="ignore"):  # errors known exactly have infinitely many
        freedom = variance**2 / (shares**2 / dof).sum(axis=1)
    residual = np.log(values) / sigma - matrix @ parameters
    prefactor, energy = (
        Estimate(float(p), float(np.sqrt(v)), float(f)) for p, v, f in zip(parameters, variance, freedom, strict=True)
    )
    return Arrhenius(energy, prefactor, float(residual @ residual), len(kelvin) - 2)
