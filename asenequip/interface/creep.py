"""Creep: how layers of the electrode move, deform and rearrange."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asenequip.errors import parameter_error
from asenequip.interface.pairs import NeighbourSearch
from asenequip.interface.snapshots import Snapshot, contiguous
from asenequip.interface.statistics import Estimate, TimeBlocks, from_blocks


@dataclass(frozen=True)
class CreepResult:
    """Motion of layers.

    Attributes
    ----------
    heights : (n_layers,) float64
        Mean height of each layer at the start, Angstrom, rising; below zero for what is beyond the boundary of the cell
        in an electrode that goes across it.
    atoms : (n_layers,) int64
    times : (n_times,) float64
        ps.
    displacement : (n_times, n_layers, 3) float64
        Mean displacement of each layer since the start, Angstrom: along the first lattice vector, in the plane at right
        angles to it, and across (`Snapshot.axes`), as all vectors here.
    velocity : Estimate
        Steady drift of each layer, (n_layers, 3), Angstrom/ps.
    strain_rate : Estimate
        Slope of the drift along the normal, (3,), 1/ps: two shears and the stretch. Each layer weighs by its atoms.
    nonaffine : (n_times, n_layers) float64
        Mean D^2_min per atom since the start, Angstrom^2; empty unless asked for.
    """

    heights: np.ndarray
    atoms: np.ndarray
    times: np.ndarray
    displacement: np.ndarray
    velocity: Estimate
    strain_rate: Estimate
    nonaffine: np.ndarray


class Creep:
    """Follows layers of the atoms that are chosen at the start.

    The drift of a layer is the mean over stretches of time of the slope of its displacement in each; so is the strain
    rate, the slope of these drifts over the layers' heights.

    Parameters
    ----------
    chosen : ndarray of bool, shape (n_atoms,), optional
        All atoms unless given.
    width : float
        Of a layer, Angstrom; planes of a crystal for its distance of planes.
    block : int
        Frames of a stretch.
    neighbours : float
        Radius of the surroundings for the non-affine motion, Angstrom; 0 leaves it out.
    every : int
        Frames between two evaluations of the non-affine motion.
    """

    def __init__(
        self,
        chosen: np.ndarray | None = None,
        *,
        width: float = 2.0,
        block: int = 20,
        neighbours: float = 0.0,
        every: int = 10,
    ) -> None:
        if not width > 0:
            raise parameter_error("width", "Creep", "a float > 0", width)
        if not isinstance(block, (int, np.integer)) or block < 3:
            raise parameter_error("block", "Creep", "an integer >= 3", block)
        self.chosen, self.width, self.block = chosen, width, int(block)
        self.neighbours, self.every = neighbours, every
        self._start: np.ndarray | None = None
        self._series, self._other = TimeBlocks(), TimeBlocks()
        self._open: list[tuple[float, np.ndarray]] = []
        self._slopes: list[np.ndarray] = []

    def add(self, snapshot: Snapshot) -> None:
        """Take the next snapshot."""
        if self._start is None:
            self._begin(snapshot)
        moved = (snapshot.unwrapped - self._start)[self._members] @ self._axes.T
        sums = [np.bincount(self._layer, moved[:, a], minlength=self._count) for a in range(3)]
        mean = np.stack(sums, axis=1) / self.atoms[:, None]
        self._series.add(snapshot.time, mean)
        self._open.append((snapshot.time, mean))
        if len(self._open) == self.block:
            times, means = np.array([t for t, _ in self._open]), np.array([m for _, m in self._open])
            centred = times - times.mean()
            self._slopes.append(np.einsum("t,tla->la", centred, means) / (centred @ centred))
            self._open = []
        if self.neighbours and snapshot.index % self.every == 0:
            self._other.add(snapshot.time, self._nonaffine(snapshot))

    def _begin(self, snapshot: Snapshot) -> None:
        self._start = snapshot.unwrapped.copy()
        chosen = np.ones(len(self._start), bool) if self.chosen is None else np.asarray(self.chosen, bool)
        if not chosen.any():
            raise parameter_error("chosen", "Creep", "at least one atom", "none")
        self._members, self._axes = np.flatnonzero(chosen), snapshot.axes
        heights = contiguous(snapshot.heights[self._members], snapshot.length)
        width = snapshot.length / max(1, round(snapshot.length / self.width))
        # planes of a crystal shall lie in the middle of the layers, not on a border where vibrations divide them
        middle = np.angle(np.exp(2j * np.pi * heights / width).mean()) / (2 * np.pi)
        bins = np.floor(heights / width - middle + 0.5).astype(np.int64)
        _, self._layer, self.atoms = np.unique(bins, return_inverse=True, return_counts=True)
        self._count = len(self.atoms)
        self.heights = np.bincount(self._layer, heights) / self.atoms
        if self.neighbours:
            search = NeighbourSearch(snapshot.atoms, self.neighbours, chosen)
            self._one, self._two, self._bond = search.vectors(self._members)

    def _nonaffine(self, snapshot: Snapshot) -> np.ndarray:
        """Mean D^2_min of each layer: M. L. Falk, J. S. Langer, Phys. Rev. E 57, 7192 (1998), equations 2.11-2.14."""
        n = len(snapshot.unwrapped)
        start = self._start if self._start is not None else snapshot.unwrapped
        shift = snapshot.unwrapped - start
        now = self._bond + shift[self._two] - shift[self._one]
        flat = (self._one[:, None, None] * 9 + np.arange(9).reshape(3, 3)).reshape(len(now), 9)

        def sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            products = (a[:, :, None] * b[:, None, :]).reshape(len(a), 9)
            return np.bincount(flat.ravel(), products.ravel(), minlength=9 * n).reshape(n, 3, 3)[self._members]

        old, cross = sums(self._bond, self._bond), sums(self._bond, now)
        affine = np.linalg.pinv(old) @ cross
        whole = np.zeros((n, 3, 3))
        whole[self._members] = affine
        rest = now - np.einsum("za,zab->zb", self._bond, whole[self._one])
        total = np.bincount(self._one, (rest**2).sum(axis=1), minlength=n)
        number = np.maximum(np.bincount(self._one, minlength=n), 1)
        return np.bincount(self._layer, (total / number)[self._members], minlength=self._count) / self.atoms

    def result(self) -> CreepResult:
        """Average what was gathered.

        Raises
        ------
        ValueError
            If there are fewer than two whole stretches.
        """
        if len(self._slopes) < 2:
            raise ValueError(
                f"The trajectory is shorter than two stretches of {self.block} frames, so drift has no error.\n"
                "Run longer, or take shorter stretches."
            )
        slopes = np.array(self._slopes)  # (blocks, layers, 3)
        centred = self.heights - np.average(self.heights, weights=self.atoms)
        spread = float((self.atoms * centred) @ centred)
        strain = np.einsum("l,bla->ba", self.atoms * centred, slopes) / (spread if spread > 0 else np.nan)
        return CreepResult(
            heights=self.heights,
            atoms=self.atoms,
            times=self._series.times,
            displacement=self._series.means,
            velocity=from_blocks(slopes),
            strain_rate=from_blocks(strain),
            nonaffine=self._other.means if self.neighbours else np.empty((0, self._count)),
        )
