"""Densities across the cell over time, and the fronts of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from asenequip.errors import parameter_error
from asenequip.interface.snapshots import Grouping, Snapshot, by_species
from asenequip.interface.statistics import Estimate, TimeBlocks, block_average

TEN_TO_NINETY = float(np.log(9))
"""Width from 10 to 90 percent of tanh(z / w), in units of w."""


@dataclass(frozen=True)
class ProfileResult:
    """Number densities across the cell.

    Attributes
    ----------
    names : list of str
        Of the groups.
    heights : (n_bins,) float64
        Middle of each bin at the mean length of the cell, Angstrom.
    density : Estimate
        (n_groups, n_bins), Angstrom^-3, over the whole time.
    times : (n_times,) float64
        ps.
    series : (n_times, n_groups, n_bins) float64
        Density in stretches of time.
    length : float
        Mean length of the cell, Angstrom.
    """

    names: list[str]
    heights: np.ndarray
    density: Estimate
    times: np.ndarray
    series: np.ndarray
    length: float

    def share(self) -> Estimate:
        """Composition: the share of each group in all atoms of a bin, (n_groups, n_bins); NaN where a bin is empty."""
        total = self.series.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = np.where(total > 0, self.series / total, np.nan)
        filled = np.where(np.isfinite(shares), shares, np.nanmean(np.nan_to_num(shares), axis=0))
        estimate = block_average(filled)
        empty = ~np.isfinite(shares).any(axis=0)
        return Estimate(np.where(empty, np.nan, estimate.value), np.where(empty, np.nan, estimate.error), estimate.dof)


class Profiles:
    """Gathers number densities along the normal, in a stream; the drift of the whole is off already.

    Parameters
    ----------
    bins : int
        Equal shares of the cell's length.
    grouping : callable
        By element unless given.
    most : int
        Stretches of time that are kept apart.
    """

    def __init__(self, bins: int = 100, *, grouping: Grouping = by_species, most: int = 256) -> None:
        if not isinstance(bins, (int, np.integer)) or bins < 2:
            raise parameter_error("bins", "Profiles", "an integer >= 2", bins)
        self.bins, self.grouping = int(bins), grouping
        self.names: list[str] = []
        self._blocks = TimeBlocks(most)
        self._lengths = TimeBlocks(most)

    def add(self, snapshot: Snapshot) -> None:
        """Take the next snapshot."""
        labels, self.names = self.grouping(snapshot)
        length = snapshot.length
        bins = np.minimum((snapshot.heights / length * self.bins).astype(np.int64), self.bins - 1)
        inside = labels >= 0
        flat = np.bincount(labels[inside] * self.bins + bins[inside], minlength=len(self.names) * self.bins)
        volume = snapshot.area * length / self.bins
        self._blocks.add(snapshot.time, flat.reshape(len(self.names), self.bins) / volume)
        self._lengths.add(snapshot.time, np.array(length))

    def result(self) -> ProfileResult:
        """Average what was gathered."""
        length = float(self._lengths.means.mean())
        heights = (np.arange(self.bins) + 0.5) * length / self.bins
        series = self._blocks.means
        return ProfileResult(self.names, heights, block_average(series), self._blocks.times, series, length)


# -- fronts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fronts:
    """The two faces of a layer over time.

    Attributes
    ----------
    times : (n_times,) float64
        ps.
    lower, upper : (n_times,) float64
        Heights of the faces, Angstrom. The layer reaches from ``lower`` upwards to ``upper``, across the boundary of
        the cell where ``upper`` is the smaller one.
    widths : (n_times, 2) float64
        From 10 to 90 percent, Angstrom.
    length : float
        Of the cell, Angstrom.
    """

    times: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    widths: np.ndarray
    length: float

    @property
    def thickness(self) -> np.ndarray:
        """Of the layer, (n_times,) float64, Angstrom."""
        return np.mod(self.upper - self.lower, self.length)


def find_fronts(profile: ProfileResult, groups: Sequence[str]) -> Fronts:
    """Fit the faces of the layer that some groups make, in each stretch of time.

    The density of the groups is fitted by a layer with two faces of the form of tanh, each with a width of its own, on
    free levels inside and outside.

    Parameters
    ----------
    profile : ProfileResult
    groups : sequence of str
        Names among the profile's, whose densities are added.

    Returns
    -------
    Fronts

    Raises
    ------
    ValueError
        If a name is unknown or the groups have no atoms.
    """
    missing = [name for name in groups if name not in profile.names]
    if missing or not groups:
        raise parameter_error("groups", "find_fronts", f"of {', '.join(profile.names)}", list(groups))
    series = profile.series[:, [profile.names.index(name) for name in groups]].sum(axis=1)
    if not series.any():
        raise parameter_error("groups", "find_fronts", "groups with atoms", list(groups))
    middle = _middle(series.mean(axis=0), profile.length)
    start = None
    found = []
    for density in series:
        start = _fit_layer(profile.heights, density, profile.length, middle, start)
        found.append(start)
    faces = np.array(found)
    lower, upper = (np.mod(faces[:, k] + middle, profile.length) for k in (0, 1))
    return Fronts(profile.times, lower, upper, TEN_TO_NINETY * np.abs(faces[:, 2:4]), profile.length)


def _middle(density: np.ndarray, length: float) -> float:
    """Circular mean of a density over the cell."""
    angle = 2 * np.pi * (np.arange(len(density)) + 0.5) / len(density)
    return float(np.mod(np.angle((density * np.exp(1j * angle)).sum()) / (2 * np.pi), 1.0) * length)


def _fit_layer(
    heights: np.ndarray, density: np.ndarray, length: float, middle: float, start: np.ndarray | None
) -> np.ndarray:
    """Faces, their widths, and the levels outside and inside, heights counted from ``middle``."""
    z = np.mod(heights - middle + length / 2, length) - length / 2
    low, high = np.quantile(density, [0.05, 0.9])
    if start is None:
        half = length * (density > (low + high) / 2).mean() / 2
        start = np.array([-half, half, 2.0, 2.0, low, high])

    def residuals(p: np.ndarray) -> np.ndarray:
        one, two, w1, w2, outside, inside = p
        step = np.zeros_like(z)
        for image in (-length, 0.0, length):
            step += 0.5 * (np.tanh((z - one - image) / w1) - np.tanh((z - two - image) / w2))
        return outside + (inside - outside) * step - density

    thin = length / len(heights)
    lower = [-length, -length, 0.2 * thin, 0.2 * thin, -np.inf, -np.inf]
    upper = [length, length, length / 2, length / 2, np.inf, np.inf]
    scale = np.array([1.0, 1.0, 1.0, 1.0, max(high, 1e-6), max(high, 1e-6)])
    inside = np.clip(start, np.array(lower) + 1e-9, np.array(upper) - 1e-9)
    return least_squares(residuals, inside, bounds=(lower, upper), x_scale=scale).x


def interphase_thickness(electrode: Fronts, electrolyte: Fronts) -> np.ndarray:
    """Thickness of what lies between electrode and electrolyte on either side, (n_times, 2) float64, Angstrom.

    The first column is the side below the electrolyte. Negative where the two overlap.
    """
    length = electrolyte.length
    below = electrolyte.lower - electrode.upper
    above = electrode.lower - electrolyte.upper
    return np.mod(np.stack([below, above], axis=1) + length / 2, length) - length / 2
