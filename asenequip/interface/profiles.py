"""Densities across the cell over time, and the fronts of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import least_squares

from asenequip.errors import parameter_error
from asenequip.interface.snapshots import Grouping, Snapshot, by_species
from asenequip.interface.statistics import Estimate, TimeBlocks, block_average, from_blocks

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
    one : float
        Density of a single atom in a single frame, the least error that is claimed, Angstrom^-3.
    """

    names: list[str]
    heights: np.ndarray
    density: Estimate
    times: np.ndarray
    series: np.ndarray
    length: float
    one: float

    def share(self) -> Estimate:
        """Composition: the share of each group in all atoms of a bin, (n_groups, n_bins); NaN where a bin is empty."""
        total = self.series.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = np.where(total > 0, self.series / total, np.nan)
        known = np.isfinite(shares)
        mean = np.nan_to_num(shares).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        estimate = block_average(np.where(known, shares, mean))
        empty = ~known.any(axis=0)
        with np.errstate(divide="ignore"):
            least = self.one / total.mean(axis=0)
        error = np.where(empty, np.nan, np.maximum(estimate.error, least))
        return Estimate(np.where(empty, np.nan, estimate.value), error, estimate.dof)


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
        self._frames, self._volumes = 0, 0.0

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
        self._frames, self._volumes = self._frames + 1, self._volumes + 1 / volume

    def result(self) -> ProfileResult:
        """Average what was gathered."""
        length = float(self._lengths.means.mean())
        one = self._volumes / self._frames**2  # mean of 1 / volume, over the frames
        heights = (np.arange(self.bins) + 0.5) * length / self.bins
        series = self._blocks.means
        density = block_average(series)
        density = Estimate(density.value, np.maximum(density.error, one), density.dof)
        return ProfileResult(self.names, heights, density, self._blocks.times, series, length, one)


# -- fronts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fronts:
    """The two faces of a layer.

    The layer reaches from its lower face upwards to its upper one, across the boundary of the cell where that is the
    smaller number.

    Attributes
    ----------
    times : (n_times,) float64
        ps.
    lower, upper : (n_times,) float64
        Equimolar heights of the faces over time, Angstrom.
    faces : Estimate
        Lower and upper face in the mean over time, (2,), Angstrom.
    widths : Estimate
        Of the faces in the mean over time, from 10 to 90 percent, (2,), Angstrom; motion of a face widens it.
    thickness_mean : Estimate
        Of the layer in the mean over time, Angstrom.
    length : float
        Of the cell, Angstrom.
    """

    times: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    faces: Estimate
    widths: Estimate
    thickness_mean: Estimate
    length: float

    @property
    def thickness(self) -> np.ndarray:
        """Of the layer over time, (n_times,) float64, Angstrom."""
        return np.mod(self.upper - self.lower, self.length)


def find_fronts(profile: ProfileResult, groups: Sequence[str], *, blocks: int = 8, smooth: float = 0.0) -> Fronts:
    """Find the faces of the layer that some groups make.

    The density of the groups is fitted by a layer with two faces of the form of tanh on free levels inside and outside,
    in blocks of time; their means and errors are those of the mean over time. With the levels of the whole, the
    equimolar dividing surfaces of Gibbs follow for every stretch of time: linear in the density, so that the noise of
    short stretches does not shift them.

    Parameters
    ----------
    profile : ProfileResult
    groups : sequence of str
        Names among the profile's, whose densities are added.
    blocks : int
        Blocks of time, at most as many as there are stretches.
    smooth : float
        Width of the normal distribution that planes of a crystal are smeared out with, Angstrom; half their distance
        at least, or the fit finds planes. Widths of faces below about three times this are not resolved.

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
    length, bins = profile.length, series.shape[1]
    if smooth:
        series = gaussian_filter1d(series, smooth * bins / length, axis=1, mode="wrap")
    middle = round(_middle(series.mean(axis=0), length) / length * bins) * length / bins  # between two bins
    z = np.mod(profile.heights - middle + length / 2, length) - length / 2
    whole = _fit_layer(z, series.mean(axis=0), length, None)
    fits = [
        _fit_layer(z, part.mean(axis=0), length, whole) for part in np.array_split(series, min(blocks, len(series)))
    ]
    found = from_blocks(np.array(fits))
    share = (series - whole[4]) / (whole[5] - whole[4]) * length / bins
    return Fronts(
        times=profile.times,
        lower=np.mod(middle - share[:, z < 0].sum(axis=1), length),
        upper=np.mod(middle + share[:, z > 0].sum(axis=1), length),
        faces=Estimate(np.mod(found.value[:2] + middle, length), found.error[:2], found.dof[:2]),
        widths=found[2:4].scaled(TEN_TO_NINETY),
        thickness_mean=from_blocks(np.array([fit[1] - fit[0] for fit in fits])),
        length=length,
    )


def _middle(density: np.ndarray, length: float) -> float:
    """Circular mean of a density over the cell."""
    angle = 2 * np.pi * (np.arange(len(density)) + 0.5) / len(density)
    return float(np.mod(np.angle((density * np.exp(1j * angle)).sum()) / (2 * np.pi), 1.0) * length)


def _fit_layer(z: np.ndarray, density: np.ndarray, length: float, start: np.ndarray | None) -> np.ndarray:
    """Faces, their widths, and the levels outside and inside, (6,); heights count from the layer's middle."""
    low, high = np.quantile(density, [0.05, 0.9])
    if start is None:
        half = length * (density > (low + high) / 2).mean() / 2
        start = np.array([-half, half, 2.0, 2.0, low, high])
    thin = 0.2 * length / len(z)

    def residuals(p: np.ndarray) -> np.ndarray:
        one, two, w1, w2, outside, inside = p
        step = np.zeros_like(z)
        for image in (-length, 0.0, length):
            step += 0.5 * (
                np.tanh((z - one - image) / (abs(w1) + thin)) - np.tanh((z - two - image) / (abs(w2) + thin))
            )
        return (outside + (inside - outside) * step - density) / max(high, 1e-12)

    found = least_squares(
        residuals, start, method="lm", x_scale=[1.0, 1.0, 1.0, 1.0, max(high, 1e-6), max(high, 1e-6)]
    ).x
    found[2:4] = np.abs(found[2:4]) + thin
    return found


def interphase_thickness(electrode: Fronts, electrolyte: Fronts) -> np.ndarray:
    """Thickness of what lies between electrode and electrolyte on either side, (n_times, 2) float64, Angstrom.

    The first column is the side below the electrolyte. Negative where the two overlap.
    """
    length = electrolyte.length
    below = electrolyte.lower - electrode.upper
    above = electrode.lower - electrolyte.upper
    return np.mod(np.stack([below, above], axis=1) + length / 2, length) - length / 2
