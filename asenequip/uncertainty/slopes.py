"""How the scale of force errors changes with an atom's environment: a log-linear model, fitted on held-out errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LIMIT = 4.0
"""Features count up to so many deviations from the held-out atoms' mean; an atom with one farther out is outside."""
_RIDGES = (1e-3, 1e-2, 1e-1, np.inf)
_FOLDS = 4
_MIN_ATOMS = 50
_MAX_ATOMS = 20_000
_RANGE = (0.01, 0.99)
"""Quantiles of the exponents of the held-out atoms, to which those of others are cut."""


@dataclass(frozen=True)
class Slopes:
    """Factor on force deviations, exp(slopes_t . z / 2) with z the scaled features of an atom of type t.

    It stays within the range that it has over the held-out atoms. Outside of these nothing is known of it; there it is
    at least 1, so that no deviation is talked down where it is a warning.

    Attributes
    ----------
    slopes : (T, d) float64
        Of the logarithm of the variance; zero where there was too little to fit, or nothing gained by it.
    centers, widths : (T, d) float64
        Mean and deviation of the features over the held-out atoms of each type: z = (phi - center) / width, cut at
        ``LIMIT``.
    ranges : (T, 2) float64
        Least and largest exponent, slopes_t . z.
    """

    slopes: np.ndarray
    centers: np.ndarray
    widths: np.ndarray
    ranges: np.ndarray

    @classmethod
    def flat(cls, num_types: int, width: int) -> Slopes:
        """The factor 1 everywhere."""
        zeros = np.zeros((num_types, width))
        return cls(zeros, zeros, np.ones((num_types, width)), np.zeros((num_types, 2)))

    def scaled(self, features: np.ndarray, types: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give z, (n, d) float64, and whether each atom is outside, (n,) bool."""
        z = (features - self.centers[types]) / self.widths[types]
        return np.clip(z, -LIMIT, LIMIT), (np.abs(z) > LIMIT).any(axis=1)

    def __call__(self, features: np.ndarray, types: np.ndarray) -> np.ndarray:
        """Give the factors of atoms, (n,) float64.

        Parameters
        ----------
        features : (n, d) float64
        types : (n,) int
        """
        z, outside = self.scaled(features, types)
        low, high = self.ranges[types].T
        return _factors(np.clip((self.slopes[types] * z).sum(axis=1), low, high), outside)


def fit_slopes(
    features: np.ndarray, types: np.ndarray, ratios: np.ndarray, frames: np.ndarray, num_types: int
) -> tuple[Slopes, np.ndarray, np.ndarray]:
    """Fit slopes and levels by the likelihood of held-out errors; the ridge by cross-validation over frames.

    The ratios are taken as normal errors' squares of the variance exp(level_t + slopes_t . z) (a gamma regression with
    logarithmic link: McCullagh and Nelder, Generalized Linear Models, 2nd ed. (1989), chapter 8).

    Parameters
    ----------
    features : (m, d) float64
        Of held-out atoms with force labels.
    types : (m,) int
    ratios : (m,) float64
        Mean square error of the components of the force over the square of its deviation without slopes.
    frames : (m,) int
        Frame of each atom; a frame is held out as a whole.
    num_types : int

    Returns
    -------
    slopes : Slopes
    levels : (num_types,) float64
        Factors on the deviations of each type, to go with the slopes.
    factors : (m,) float64
        Of the held-out atoms on their deviations, each from a fit without its fold of frames: what fair scores need.
    """
    flat = Slopes.flat(num_types, features.shape[1])
    count = min(_FOLDS, len(np.unique(frames)))
    enough = [k for k in range(num_types) if np.count_nonzero(types == k) >= _MIN_ATOMS]
    if count < 2 or not enough:
        return flat, np.ones(num_types), np.ones(len(types))
    centers, widths = flat.centers.copy(), flat.widths.copy()
    for k in enough:
        mine = features[types == k]
        spread = mine.std(axis=0)
        centers[k], widths[k] = mine.mean(axis=0), np.where(spread > 0, spread, 1.0)
    z, outside = Slopes(flat.slopes, centers, widths, flat.ranges).scaled(features, types)
    fold = np.unique(frames, return_inverse=True)[1] % count

    def exponents(ridge: float) -> np.ndarray:
        found = np.zeros(len(types))
        for k in enough:
            for part in range(count):
                used, left = (types == k) & (fold != part), (types == k) & (fold == part)
                weights = _regress(z[used], ratios[used], ridge)
                found[left] = weights[0] + z[left] @ weights[1:]
        return found

    trials = [exponents(ridge) for ridge in _RIDGES]
    best = int(np.argmin([np.mean(trial + ratios * np.exp(-trial)) for trial in trials]))
    slopes, levels, ranges = flat.slopes.copy(), np.ones(num_types), flat.ranges.copy()
    for k in enough:
        weights = _regress(z[types == k], ratios[types == k], _RIDGES[best])
        levels[k], slopes[k] = np.exp(0.5 * weights[0]), weights[1:]
        ranges[k] = np.quantile(z[types == k] @ weights[1:], _RANGE)
    return Slopes(slopes, centers, widths, ranges), levels, _factors(trials[best], outside)


def _factors(exponents: np.ndarray, outside: np.ndarray) -> np.ndarray:
    found = np.exp(0.5 * exponents)
    return np.where(outside, np.maximum(found, 1.0), found)


def _regress(z: np.ndarray, ratios: np.ndarray, ridge: float) -> np.ndarray:
    """Level and slopes, (1 + d,) float64, of the logarithm of the ratios' mean; an infinite ridge leaves no slopes."""
    from scipy.optimize import minimize

    start = np.zeros(1 + z.shape[1])
    start[0] = np.log(max(float(ratios.mean()), 1e-12)) if len(ratios) else 0.0
    if not len(ratios) or np.isinf(ridge):
        return start
    step = -(-len(ratios) // _MAX_ATOMS)
    rows, values = np.hstack([np.ones((len(z), 1)), z])[::step], ratios[::step]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        exponent = np.clip(rows @ weights, -30.0, 30.0)
        left = values * np.exp(-exponent)
        penalty = ridge * np.concatenate([[0.0], weights[1:]])
        return (
            0.5 * float(np.mean(exponent + left) + penalty @ weights),
            0.5 * (rows * (1.0 - left)[:, None]).mean(axis=0) + penalty,
        )

    return minimize(loss, start, jac=True, method="L-BFGS-B").x
