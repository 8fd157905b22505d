"""Mean-squared displacement and diffusion tensor, from independent stretches of a trajectory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asenequip.errors import parameter_error
from asenequip.interface.snapshots import Grouping, Snapshot, by_species
from asenequip.interface.statistics import Estimate, from_blocks

PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Components of a symmetric tensor, in Voigt's order."""
TO_CM2_S = 1e-4
"""cm^2/s in one Angstrom^2/ps."""


@dataclass(frozen=True)
class DiffusionResult:
    """Diffusion of groups of atoms.

    Attributes
    ----------
    names : list of str
        Of the groups.
    atoms : (n_groups,) float64
        Mean number of atoms in each.
    lags : (n_lags,) float64
        ps.
    msd : Estimate
        Mean-squared displacement (n_groups, n_lags), Angstrom^2.
    tensor : Estimate
        Diffusion tensor (n_groups, 6) in Voigt's order xx, yy, zz, yz, xz, xy; Angstrom^2/ps.
    isotropic : Estimate
        A third of its trace, (n_groups,), Angstrom^2/ps.
    along, across : Estimate
        In the plane of the layers and along their normal, (n_groups,), Angstrom^2/ps.
    exponent : Estimate
        Of the time in the fit window, (n_groups,): 1 is diffusion; below it the window is too short.
    blocks : int
        Independent stretches.
    window : (float, float)
        Fit window, ps.
    """

    names: list[str]
    atoms: np.ndarray
    lags: np.ndarray
    msd: Estimate
    tensor: Estimate
    isotropic: Estimate
    along: Estimate
    across: Estimate
    exponent: Estimate
    blocks: int
    window: tuple[float, float]


class Diffusion:
    """Gathers displacements from a stream of snapshots.

    The trajectory is cut into stretches that share no displacement. In each, the mean-squared displacement from several
    time origins gives one diffusion tensor, half the slope of a straight line with intercept through the fit window;
    mean and error are taken over the stretches. At most ``lags / every`` earlier sets of positions are in memory.

    Parameters
    ----------
    lags : int
        Longest time difference, in frames.
    every : int, optional
        Frames between time origins; a quarter of ``lags`` unless given.
    block : int, optional
        Length of a stretch in frames; twice ``lags`` unless given.
    window : (float, float)
        Fit window as shares of the longest time difference.
    grouping : callable
        Groups of atoms, as they are at each time origin; by element unless given.
    """

    def __init__(
        self,
        lags: int,
        *,
        every: int | None = None,
        block: int | None = None,
        window: tuple[float, float] = (0.2, 1.0),
        grouping: Grouping = by_species,
    ) -> None:
        if not isinstance(lags, (int, np.integer)) or lags < 3:
            raise parameter_error("lags", "Diffusion", "an integer >= 3", lags)
        if not 0 <= window[0] < window[1] <= 1:
            raise parameter_error("window", "Diffusion", "two rising shares in [0, 1]", window)
        self.lags = int(lags)
        self.every = max(1, self.lags // 4) if every is None else every
        self.block = 2 * self.lags if block is None else block
        if self.block < self.lags:
            raise parameter_error("block", "Diffusion", f"at least lags, {self.lags}", self.block)
        self.window, self.grouping = window, grouping
        self.names: list[str] = []
        self._origins: list[tuple[int, np.ndarray, np.ndarray]] = []
        self._blocks: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        self._finished: list[int] = []
        self._times: list[float] = []
        self._normal = np.array([0.0, 0.0, 1.0])

    def add(self, snapshot: Snapshot) -> None:
        """Take the next snapshot."""
        self._clock(snapshot)
        self._normal = snapshot.normal
        frame = snapshot.index
        for origin, start, labels in self._origins:
            self._count(frame - origin, origin // self.block, snapshot.unwrapped - start, labels)
        self._origins = [entry for entry in self._origins if frame - entry[0] < self.lags]
        offset = frame % self.block
        if offset % self.every == 0 and offset + self.lags <= self.block:
            labels, self.names = self.grouping(snapshot)
            self._origins.append((frame, snapshot.unwrapped, labels))

    def _clock(self, snapshot: Snapshot) -> None:
        """Keep the first two times, and hold all others to their distance."""
        if len(self._times) < 2:
            self._times.append(snapshot.time)
            return
        step = self._times[1] - self._times[0]
        if abs(snapshot.time - self._times[0] - snapshot.index * step) > 0.01 * step:
            raise ValueError(
                f"Frame {snapshot.index} is not where a constant time between frames puts it.\n"
                "Analyse parts of constant time between frames, each for itself."
            )

    def _count(self, lag: int, block: int, moved: np.ndarray, labels: np.ndarray) -> None:
        groups = len(self.names)
        while len(self._blocks) <= block:
            self._blocks.append(np.zeros((groups, self.lags, len(PAIRS))))
            self._counts.append(np.zeros((groups, self.lags)))
            self._finished.append(0)
        self._finished[block] += lag == self.lags
        inside = labels >= 0
        chosen, moved = (labels, moved) if inside.all() else (labels[inside], moved[inside])
        self._counts[block][:, lag - 1] += np.bincount(chosen, minlength=groups)
        for k, (a, b) in enumerate(PAIRS):
            self._blocks[block][:, lag - 1, k] += np.bincount(chosen, moved[:, a] * moved[:, b], minlength=groups)

    def result(self) -> DiffusionResult:
        """Fit what was gathered.

        Raises
        ------
        ValueError
            If there are fewer than two whole stretches.
        """
        whole = [k for k, counts in enumerate(self._counts) if counts[:, -1].any()]
        if len(whole) < 2:
            raise ValueError(
                f"The trajectory is shorter than two stretches of {self.block} frames, so diffusion has no error.\n"
                "Run longer, or take fewer lags."
            )
        counts = np.array([self._counts[k] for k in whole])
        with np.errstate(invalid="ignore", divide="ignore"):
            tensors = np.array([self._blocks[k] for k in whole]) / counts[..., None]  # (blocks, groups, lags, 6)
        step = self._times[1] - self._times[0]
        lags = step * np.arange(1, self.lags + 1)
        inside = (lags >= self.window[0] * lags[-1] - 1e-9) & (lags <= self.window[1] * lags[-1] + 1e-9)
        slopes = _slope(lags[inside], tensors[:, :, inside]) / 2
        msd = tensors[..., :3].sum(axis=-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            exponent = _slope(np.log(lags[inside]), np.log(msd[:, :, inside])[..., None])[..., 0]
        across = _project(slopes, self._normal)
        trace = slopes[..., :3].sum(axis=-1)
        return DiffusionResult(
            names=list(self.names),
            atoms=counts[:, :, -1].sum(axis=0) / sum(self._finished),
            lags=lags,
            msd=from_blocks(msd),
            tensor=from_blocks(slopes),
            isotropic=from_blocks(trace / 3),
            along=from_blocks((trace - across) / 2),
            across=from_blocks(across),
            exponent=from_blocks(exponent),
            blocks=len(whole),
            window=(float(lags[inside][0]), float(lags[inside][-1])),
        )


def _slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slope of the least-squares line through y (..., n, k) over x (n,), for each k."""
    centred = x - x.mean()
    return np.einsum("n,...nk->...k", centred, y) / (centred @ centred)


def _project(voigt: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Component of symmetric tensors (..., 6) along a unit vector."""
    weights = np.array([axis[a] * axis[b] * (1 if a == b else 2) for a, b in PAIRS])
    return voigt @ weights
