"""Means and their errors from correlated series: block averages, correlation times, intervals of a stated level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from asenequip.errors import parameter_error

LEVEL = 0.95
"""Level of every interval unless another is asked for."""
_BLOCK = 5.0
"""Length of a block in statistical inefficiencies; shorter blocks leave correlation between their means."""
_FEWEST, _MOST = 4, 40
"""Numbers of blocks."""


@dataclass(frozen=True)
class Estimate:
    """A value, or an array of them, with its standard error.

    Attributes
    ----------
    value, error : float or ndarray of float64
        The error is one standard error of the value; NaN where there are too few data for one.
    dof : float or ndarray of float64
        Degrees of freedom of the error; inf where it is known.
    """

    value: Any
    error: Any
    dof: Any = np.inf

    def half_width(self, level: float = LEVEL) -> Any:
        """Half the width of the interval that holds the truth with probability ``level`` (Student's t)."""
        if not 0 < level < 1:
            raise parameter_error("level", "Estimate", "a float in (0, 1)", level)
        dof = np.asarray(self.dof, float)
        width = student.ppf(0.5 + level / 2, np.where(dof > 0, dof, np.nan)) * np.asarray(self.error)
        return float(width) if np.ndim(width) == 0 else width

    def interval(self, level: float = LEVEL) -> tuple[Any, Any]:
        """Lower and upper end of that interval."""
        width = self.half_width(level)
        return self.value - width, self.value + width

    def covers(self, truth: Any, level: float = LEVEL) -> Any:
        """Whether the interval holds the truth."""
        return np.abs(np.asarray(self.value) - truth) <= self.half_width(level)

    def __getitem__(self, key: Any) -> Estimate:
        dof = np.broadcast_to(np.asarray(self.dof, float), np.shape(self.value))
        return Estimate(self.value[key], self.error[key], dof[key])

    def scaled(self, factor: float) -> Estimate:
        """The estimate of a multiple, as by a change of units."""
        return Estimate(self.value * factor, self.error * abs(factor), self.dof)


def from_blocks(values: np.ndarray) -> Estimate:
    """Mean of independent values and its error.

    Parameters
    ----------
    values : (n_blocks, ...) float64
        NaN where a block has no value.

    Returns
    -------
    Estimate
        Of shape (...); NaN where fewer than two blocks have a value.
    """
    values = np.asarray(values, float)
    count = np.isfinite(values).sum(axis=0)
    safe = np.maximum(count, 1)
    mean = np.where(count > 0, np.nansum(values, axis=0) / safe, np.nan)
    squares = np.nansum((values - mean) ** 2, axis=0)
    error = np.where(count > 1, np.sqrt(squares / (np.maximum(count - 1, 1) * safe)), np.nan)
    dof = np.where(count > 1, count - 1.0, np.nan)
    if mean.ndim == 0:
        return Estimate(float(mean), float(error), float(dof))
    return Estimate(mean, error, dof)


def inefficiency(series: np.ndarray) -> np.ndarray:
    """Statistical inefficiency: how many values of a series are worth one independent value, at least 1.

    Twice the integrated autocorrelation time, summed up to a window of five times itself (A. Sokal, in Functional
    Integration, Springer 1997, section 3), with the bias of the unknown mean corrected (U. Wolff, Comput. Phys. Commun.
    156, 143 (2004), equation 49).

    Parameters
    ----------
    series : (n, ...) float64

    Returns
    -------
    ndarray of float64, shape (...)
    """
    series = np.asarray(series, float)
    n = len(series)
    centred = np.nan_to_num(series - np.nanmean(series, axis=0))
    size = 2 ** int(np.ceil(np.log2(max(2 * n, 2))))
    spectrum = np.fft.rfft(centred, size, axis=0)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, size, axis=0)[:n]
    variance = np.where(correlation[0] > 0, correlation[0], 1.0)
    sums = 2 * np.cumsum(correlation / variance, axis=0) - 1
    window = np.arange(n).reshape(-1, *[1] * (series.ndim - 1)) >= 2.5 * sums  # 5 times the correlation time
    first = np.where(window.any(axis=0), window.argmax(axis=0), n - 1)
    found = np.take_along_axis(sums, first[None], axis=0)[0] * (1 + (2 * first + 1) / n)
    return np.clip(found, 1.0, n)


def block_average(series: np.ndarray, blocks: int | None = None) -> Estimate:
    """Mean of a correlated, stationary series, with the error of its block means.

    H. Flyvbjerg and H. G. Petersen, J. Chem. Phys. 91, 461 (1989).

    Parameters
    ----------
    series : (n, ...) float64
        At equal distances in time.
    blocks : int, optional
        Number of blocks. Unless given, as many as are five statistical inefficiencies long, 4 to 40; for arrays the
        inefficiency that nine in ten elements do not exceed. A series shorter than 20 inefficiencies cannot give a
        reliable error; see `independent`.

    Returns
    -------
    Estimate
        Of shape (...).

    Raises
    ------
    ValueError
    """
    series = np.asarray(series, float)
    n = len(series)
    if n < 1:
        raise parameter_error("series", "block_average", "at least one value", n)
    if n == 1:
        return from_blocks(series)  # without an error
    if blocks is None:
        length = _BLOCK * float(np.quantile(inefficiency(series), 0.9))
        blocks = int(np.clip(n // length, _FEWEST, _MOST))
    if blocks < 2:
        raise parameter_error("blocks", "block_average", "an integer >= 2", blocks)
    blocks = min(blocks, n)
    length = n // blocks
    kept = series[n - blocks * length :]
    return from_blocks(kept.reshape(blocks, length, *series.shape[1:]).mean(axis=1))


def independent(series: np.ndarray) -> float:
    """How many independent values a series is worth; an error needs about 20."""
    return float(len(series) / np.max(inefficiency(series)))


class TimeBlocks:
    """Means over consecutive stretches of a stream of arrays, at most a fixed number of them.

    When there are too many, neighbours are joined: memory does not grow with the stream, and the time resolution
    stays as fine as that allows.

    Parameters
    ----------
    most : int
        Even number of stretches that are never exceeded.
    """

    def __init__(self, most: int = 256) -> None:
        if most < 4 or most % 2:
            raise parameter_error("most", "TimeBlocks", "an even integer >= 4", most)
        self.most, self.length = most, 1
        self._done: list[tuple[float, np.ndarray]] = []
        self._time, self._sum, self._count = 0.0, np.zeros(()), 0

    def add(self, time: float, values: np.ndarray) -> None:
        """Take the next array of the stream, all of one shape."""
        self._time, self._sum, self._count = self._time + time, self._sum + values, self._count + 1
        if self._count < self.length:
            return
        self._done.append((self._time / self._count, self._sum / self._count))
        self._time, self._sum, self._count = 0.0, np.zeros(()), 0
        if len(self._done) == self.most:
            pairs = zip(self._done[::2], self._done[1::2], strict=True)
            self._done = [((a + b) / 2, (x + y) / 2) for (a, x), (b, y) in pairs]
            self.length *= 2

    @property
    def times(self) -> np.ndarray:
        """Mean time of each stretch, (n,) float64."""
        return np.array([when for when, _ in self._done])

    @property
    def means(self) -> np.ndarray:
        """Mean of each stretch, (n, ...) float64; a last, unfinished one is left out."""
        return np.array([array for _, array in self._done])

    def average(self, skip: float = 0.0) -> Estimate:
        """Block average of the whole stream, but for the share ``skip`` of it at the start."""
        means = self.means
        return block_average(means[int(skip * len(means)) :])
