"""Whether stated deviations are true: likelihood scale, reliability, calibration error, rank correlation, bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from asenequip.errors import parameter_error

_TINY = np.finfo(float).tiny


@dataclass(frozen=True)
class Reliability:
    """Observed against expected coverage of central intervals, for normal errors of the stated deviations.

    Attributes
    ----------
    expected : (q,) float64
        Probabilities, 0-1.
    observed : (q,) float64
        Share of the errors within the interval of each probability.
    """

    expected: np.ndarray
    observed: np.ndarray


def likelihood_scale(squares: np.ndarray, deviations: np.ndarray) -> tuple[float, float]:
    """Factor on deviations that makes normal errors most likely, and the mean negative log-likelihood with it.

    Parameters
    ----------
    squares : (m,) float64
        Squared errors.
    deviations : (m,) float64

    Returns
    -------
    scale : float
        sqrt(mean(squares / deviations^2)).
    loss : float
        mean(log(scale deviation)) + 1/2, without the constant.
    """
    safe = np.maximum(deviations, math.sqrt(_TINY))
    scale = math.sqrt(float(np.mean(squares / safe**2)))
    return scale, float(np.mean(np.log(np.maximum(scale * safe, _TINY)))) + 0.5


def reliability(errors: np.ndarray, deviations: np.ndarray, levels: int = 20) -> Reliability:
    """Share of errors within the central intervals that a normal distribution of each deviation predicts.

    Kuleshov, Fenner and Ermon, ICML 2018, eq. 3, for intervals about the prediction.

    Parameters
    ----------
    errors : (m,) float64
        Signed or absolute.
    deviations : (m,) float64
    levels : int
        Probabilities 1/(levels+1) ... levels/(levels+1).
    """
    from scipy.special import erf

    errors, deviations = _pair(errors, deviations, "reliability")
    inside = erf(np.abs(errors) / np.maximum(deviations, _TINY) / math.sqrt(2.0))
    expected = np.arange(1, levels + 1) / (levels + 1)
    return Reliability(expected, (inside[:, None] <= expected).mean(axis=0))


def calibration_error(errors: np.ndarray, deviations: np.ndarray, levels: int = 99) -> float:
    """Expected calibration error: mean ``|observed - expected|`` coverage over evenly spaced probabilities, 0-0.5."""
    found = reliability(errors, deviations, levels)
    return float(np.abs(found.observed - found.expected).mean())


def rank_correlation(errors: np.ndarray, deviations: np.ndarray) -> float:
    """Spearman's correlation of absolute errors and deviations."""
    from scipy.stats import spearmanr

    errors, deviations = _pair(errors, deviations, "rank_correlation")
    return float(spearmanr(np.abs(errors), deviations).statistic)


def conformal_quantile(scores: np.ndarray, confidence: float) -> float:
    """The value that the score of a new exchangeable sample does not exceed with at least this probability.

    The ceil((m + 1) confidence)-th smallest score (Papadopoulos et al. 2002; Lei et al., J. Am. Stat. Assoc. 113, 1094
    (2018)); infinite if m is too small for it.

    Parameters
    ----------
    scores : (m,) float64
    confidence : float
        In (0, 1).
    """
    if not (isinstance(confidence, (int, float)) and 0 < confidence < 1):
        raise parameter_error("confidence", "conformal_quantile", "a float in (0, 1)", confidence)
    rank = math.ceil((len(scores) + 1) * confidence - 1e-9)
    return float(np.sort(scores)[max(rank, 1) - 1]) if rank <= len(scores) else math.inf


def draw_reliability(found: Reliability, title: str = "") -> Any:
    """A figure of observed against expected coverage (a matplotlib Figure)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", lw=1)
    axes.plot([0, *found.expected, 1], [0, *found.observed, 1], marker="o", ms=3)
    axes.set(xlabel="expected coverage", ylabel="observed coverage", title=title, xlim=(0, 1), ylim=(0, 1))
    axes.set_aspect("equal")
    return figure


def _pair(errors: np.ndarray, deviations: np.ndarray, owner: str) -> tuple[np.ndarray, np.ndarray]:
    errors, deviations = np.asarray(errors, np.float64).ravel(), np.asarray(deviations, np.float64).ravel()
    if errors.shape != deviations.shape or not len(errors):
        wanted = "as many numbers as there are errors, and at least one"
        raise parameter_error("deviations", owner, wanted, f"{deviations.size} for {errors.size} errors")
    return errors, deviations
