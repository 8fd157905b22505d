"""How a layer grows: laws fitted to its thickness over time, and compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from asenequip.errors import parameter_error
from asenequip.interface.statistics import Estimate, inefficiency


@dataclass(frozen=True)
class Law:
    """A law of growth.

    Attributes
    ----------
    formula : str
    parameters : tuple of str
        With units; w is the thickness in Angstrom, t the time in ps.
    thickness : callable
        thickness(time, parameters).
    """

    formula: str
    parameters: tuple[str, ...]
    thickness: Callable[[np.ndarray, np.ndarray], np.ndarray]


LAWS = {
    "none": Law("w = w0", ("w0 / Angstrom",), lambda t, p: np.full_like(t, p[0])),
    "linear": Law("w = w0 + k t", ("w0 / Angstrom", "k / (Angstrom/ps)"), lambda t, p: p[0] + p[1] * t),
    "parabolic": Law(
        "w = sqrt(w0^2 + 2 K t)",
        ("w0 / Angstrom", "K / (Angstrom^2/ps)"),
        lambda t, p: np.sqrt(np.maximum(p[0] ** 2 + 2 * p[1] * t, 0.0)),
    ),
}
"""No growth; growth that a reaction limits; growth that transport through the layer limits (C. Wagner, 1933)."""


@dataclass(frozen=True)
class Fit:
    """A law fitted to a thickness.

    Attributes
    ----------
    law : str
        Name in `LAWS`.
    parameters : Estimate
        In the order of the law's.
    akaike : float
        Akaike's criterion with its correction for few data; the least is the best law, differences below 2 mean
        nothing (K. P. Burnham and D. R. Anderson, Model Selection and Multimodel Inference, Springer 2002).
    weight : float
        Akaike's weight among the laws fitted.
    residual : float
        Root mean square, Angstrom.
    independent : float
        Number of values of the series that are independent after the fit.
    """

    law: str
    parameters: Estimate
    akaike: float
    weight: float
    residual: float
    independent: float


def fit_growth(times: np.ndarray, thickness: np.ndarray, laws: tuple[str, ...] = tuple(LAWS)) -> list[Fit]:
    """Fit laws of growth to a series.

    Successive values of a thickness are not independent: the covariance of the parameters is multiplied by the
    statistical inefficiency of the residuals, and their degrees of freedom and the criterion count independent values.

    Parameters
    ----------
    times : (n,) float64
        ps, at equal distances, counted from the first contact.
    thickness : (n,) float64
        Angstrom.
    laws : tuple of str

    Returns
    -------
    list of Fit
        The best first.

    Raises
    ------
    ValueError
    """
    times, thickness = np.asarray(times, float), np.asarray(thickness, float)
    if times.shape != thickness.shape or len(times) < 8 or not np.isfinite(thickness).all():
        raise parameter_error("thickness", "fit_growth", "at least 8 finite values, one for each time", thickness.shape)
    unknown = set(laws) - set(LAWS)
    if unknown:
        raise parameter_error("laws", "fit_growth", f"of {', '.join(LAWS)}", sorted(unknown))
    raw = {name: _least_squares(LAWS[name], times, thickness) for name in laws}
    # one inefficiency for all laws, that of the best fit, so that their criteria can be compared
    best = min(raw.values(), key=lambda entry: float(entry[1] @ entry[1]))
    count = len(times) / float(inefficiency(best[1]))
    criteria = {name: _criterion(entry[1], count, len(entry[0])) for name, entry in raw.items()}
    least = min(criteria.values())
    total = sum(np.exp((least - value) / 2) for value in criteria.values())
    fits = []
    for name, (parameters, residuals, jacobian) in raw.items():
        dof = max(count - len(parameters), 1.0)
        variance = float(residuals @ residuals) / len(times) * count / dof
        covariance = np.linalg.pinv(jacobian.T @ jacobian) * variance * len(times) / count
        fits.append(
            Fit(
                law=name,
                parameters=Estimate(parameters, np.sqrt(np.diag(covariance)), np.full(len(parameters), dof)),
                akaike=criteria[name],
                weight=float(np.exp((least - criteria[name]) / 2) / total),
                residual=float(np.sqrt(np.mean(residuals**2))),
                independent=count,
            )
        )
    return sorted(fits, key=lambda fit: fit.akaike)


def _least_squares(law: Law, times: np.ndarray, thickness: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parameters, residuals and the Jacobian at the minimum."""
    slope, start = np.polyfit(times, thickness, 1)
    if len(law.parameters) == 1:
        guess = np.array([thickness.mean()])
    elif "K" in law.parameters[1]:
        guess = np.array([max(thickness[: max(3, len(thickness) // 20)].mean(), 0.1), 0.0])
        guess[1] = max(thickness[-1] ** 2 - guess[0] ** 2, 0.1) / (2 * (times[-1] or 1.0))
    else:
        guess = np.array([start, slope])
    scale = np.maximum(np.abs(guess), 1e-3)
    found = least_squares(lambda p: law.thickness(times, p) - thickness, guess, x_scale=scale)
    return found.x, found.fun, found.jac


def _criterion(residuals: np.ndarray, count: float, parameters: int) -> float:
    """Akaike's criterion of normal residuals, with the correction for few data."""
    k = parameters + 1  # and the variance
    likelihood = count * np.log(np.mean(residuals**2) + 1e-300)
    return float(likelihood + 2 * k + 2 * k * (k + 1) / max(count - k - 1, 1.0))
