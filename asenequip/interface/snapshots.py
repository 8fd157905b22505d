"""A trajectory as a stream of snapshots: unwrapped by displacement, the drift of the whole taken off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from asenequip.errors import parameter_error
from asenequip.interface.pairs import NeighbourSearch
from asenequip.interface.trajectory import Frames, open_frames

NORMAL = 2
"""The axis across the layers: that of the third lattice vector."""
_CLEARLY = 1.0
"""Angstrom: how much wider than the gap at the boundary of the cell another one is that bounds a layer."""


@dataclass(frozen=True)
class Snapshot:
    """One frame.

    Attributes
    ----------
    index : int
        Number in the stream.
    time : float
        ps.
    atoms : ase.Atoms
        As read.
    unwrapped : (n, 3) float64
        Positions that go on through the cell's faces, without the drift since the first frame, Angstrom.
    drift : (3,) float64
        What was taken off, Angstrom.
    """

    index: int
    time: float
    atoms: Atoms
    unwrapped: np.ndarray
    drift: np.ndarray
    _kept: dict[str, NeighbourSearch] = field(default_factory=dict, repr=False)

    @cached_property
    def length(self) -> float:
        """Height of the cell along the normal, Angstrom."""
        cell = self.atoms.cell.array
        normal = np.cross(cell[0], cell[1])
        return float(abs(cell[NORMAL] @ normal) / np.linalg.norm(normal))

    @cached_property
    def area(self) -> float:
        """Of the layers, Angstrom^2."""
        cell = self.atoms.cell.array
        return float(np.linalg.norm(np.cross(cell[0], cell[1])))

    @cached_property
    def heights(self) -> np.ndarray:
        """Place along the normal without drift, (n,) float64 in [0, length), Angstrom."""
        fraction = self.unwrapped @ np.linalg.inv(self.atoms.cell.array)[:, NORMAL]
        fraction -= np.floor(fraction)
        return np.minimum(fraction, np.nextafter(1.0, 0.0)) * self.length

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the layers, to where heights rise, (3,) float64."""
        cell = self.atoms.cell.array
        normal = np.cross(cell[0], cell[1])
        return normal * np.sign(cell[NORMAL] @ normal) / np.linalg.norm(normal)

    @property
    def axes(self) -> np.ndarray:
        """Unit vectors, (3, 3) float64, each a row: along the first lattice vector, in the plane, and the normal."""
        along = self.atoms.cell.array[0] / np.linalg.norm(self.atoms.cell.array[0])
        return np.array([along, np.cross(self.normal, along), self.normal])

    def search(self, cutoff: float) -> NeighbourSearch:
        """Neighbours among all atoms, up to the cutoff at least; one search serves all analyses of the snapshot."""
        if "search" not in self._kept or self._kept["search"].cutoff < cutoff:
            self._kept["search"] = NeighbourSearch(self.atoms, cutoff)
        return self._kept["search"]


def stream(
    frames: Frames,
    *,
    index: str = ":",
    interval: float | None = None,
    timestep: float | None = None,
    reference: Sequence[str] | str = "all",
    start: Atoms | None = None,
    normal: str = "c",
) -> Iterator[Snapshot]:
    """Read frames one after another and unwrap them.

    Each step adds the minimum-image displacement between wrapped positions, in the cell of the later frame. This keeps
    diffusion right where the cell breathes (S. von Buelow, J. T. Bullerjahn, G. Hummer, J. Chem. Phys. 153, 021101
    (2020)). It holds as long as no atom moves by half a cell between two frames.

    Parameters
    ----------
    frames : path or iterable of ase.Atoms
        Of the same atoms in the same order. A file is read frame by frame; a dump of LAMMPS is put in the order of its
        atoms' numbers.
    index : str
        ASE's slice of frames, where ``frames`` is a path.
    interval : float, optional
        Time between two of the frames that are taken, ps. Unless given, each frame says its ``time_ps`` in its
        ``info``, as `run_md` writes it, or its step with ``timestep``; a frame that is the one before once more is
        passed over then.
    timestep : float, optional
        Of the dynamics, fs, for frames that say their step as ``info["timestep"]``, as dumps of LAMMPS do.
    reference : "all", "none" or sequence of str
        Elements whose centre of mass stays where it is; all atoms by default.
    start, normal
        See `asenequip.interface.trajectory.open_frames`.

    Yields
    ------
    Snapshot

    Raises
    ------
    ValueError
        If frames differ in their atoms, or have no time.
    """
    for name, value in (("interval", interval), ("timestep", timestep)):
        if value is not None and not value > 0:
            raise parameter_error(name, "stream", "a float > 0", value)
    source = open_frames(frames, index=index, start=start, normal=normal)
    if interval is None:
        source = _without_repeats(source, timestep)
    wrapped = unwrapped = weights = first = numbers = None
    for number, atoms in enumerate(source):
        cell = atoms.cell.complete().array
        inverse = np.linalg.inv(cell)
        scaled = atoms.positions @ inverse
        scaled -= np.where(atoms.pbc, np.floor(scaled), 0.0)
        now = scaled @ cell
        if wrapped is None or unwrapped is None or weights is None or numbers is None or first is None:
            numbers, unwrapped, weights = atoms.numbers, now.copy(), _weights(atoms, reference)
            first = weights @ unwrapped
        elif not np.array_equal(numbers, atoms.numbers):
            raise ValueError(
                f"Frame {number} has other atoms than the first one, or another order.\n"
                "Analyse trajectories of the same atoms only, each for itself."
            )
        else:
            step = (now - wrapped) @ inverse
            step -= np.where(atoms.pbc, np.round(step), 0.0)
            unwrapped = unwrapped + step @ cell
        wrapped = now
        drift = weights @ unwrapped - first
        time = _time(atoms, timestep) if interval is None else number * interval
        yield Snapshot(number, time, atoms, unwrapped - drift, drift)


def _without_repeats(frames: Iterable[Atoms], timestep: float | None) -> Iterator[Atoms]:
    """Pass over a frame that is the one before once more, as a run that was killed while it wrote can leave it."""
    before: Atoms | None = None
    for atoms in frames:
        repeated = before is not None and _time(atoms, timestep) == _time(before, timestep)
        if before is None or not (repeated and np.array_equal(before.positions, atoms.positions)):
            yield atoms
        before = atoms


def _weights(atoms: Atoms, reference: Sequence[str] | str) -> np.ndarray:
    """Shares of the atoms in the reference's centre of mass, (n,) float64; zeros for no reference."""
    if isinstance(reference, str) and reference in ("all", "none"):
        masses = atoms.get_masses() * (reference == "all")
        return masses / max(masses.sum(), 1e-300)
    chosen = np.isin(atoms.get_chemical_symbols(), list(reference))
    if isinstance(reference, str) or not chosen.any():
        raise parameter_error("reference", "stream", '"all", "none" or a list of elements of the atoms', reference)
    masses = atoms.get_masses() * chosen
    return masses / masses.sum()


def _time(atoms: Atoms, timestep: float | None) -> float:
    if timestep is not None and "timestep" in atoms.info:
        return float(atoms.info["timestep"]) * timestep / 1000
    if "time_ps" not in atoms.info:
        raise ValueError(
            "The frames do not say their time ('time_ps' in info).\n"
            "Give the time between two frames that are taken, in ps: interval. For a dump of LAMMPS: timestep, in fs."
        )
    return float(atoms.info["time_ps"])


def contiguous(heights: np.ndarray, length: float) -> np.ndarray:
    """Heights of a layer without the jump where it goes across the boundary of the cell.

    Parameters
    ----------
    heights : (n,) float64
        Of its atoms, in [0, length), Angstrom.
    length : float
        Of the cell, Angstrom.

    Returns
    -------
    (n,) float64
        What is above the widest gap between atoms comes down by ``length``, where that gap is clearly the widest.
    """
    order = np.sort(heights)
    gaps = np.diff(order, append=order[0] + length)
    widest = int(gaps.argmax())
    if gaps[widest] < gaps[-1] + _CLEARLY:
        return heights
    return np.where(heights > order[widest], heights - length, heights)


# -- groups of atoms --------------------------------------------------------------------------------------------------

Labels = tuple[np.ndarray, list[str]]
"""Group of each atom, (n,) int64 with -1 for none, and the names of the groups."""
Grouping = Callable[[Snapshot], Labels]


def by_species(snapshot: Snapshot) -> Labels:
    """Group atoms by element, in alphabetic order."""
    symbols = sorted(chemical_symbols[number] for number in np.unique(snapshot.atoms.numbers))
    place = np.full(len(chemical_symbols), -1, np.int64)
    place[[atomic_numbers[symbol] for symbol in symbols]] = np.arange(len(symbols))
    return place[snapshot.atoms.numbers], symbols


def by_layer(symbols: Sequence[str], edges: Sequence[float], names: Sequence[str]) -> Grouping:
    """Group atoms by element and by where they are along the normal.

    Parameters
    ----------
    symbols : sequence of str
        Elements; atoms of others are in no group.
    edges : sequence of float
        Heights between layers, as shares of the cell, rising in [0, 1]. The first layer goes from the first edge to the
        second; the last goes across the boundary of the cell to the first edge.
    names : sequence of str
        As many as edges.

    Returns
    -------
    callable
        A grouping.
    """
    borders = np.asarray(edges, float)
    if len(borders) != len(names) or (np.diff(borders) <= 0).any() or not ((borders >= 0) & (borders <= 1)).all():
        raise parameter_error("edges", "by_layer", "rising shares of the cell, as many as names", list(edges))
    labels = [f"{symbol}, {name}" for symbol in symbols for name in names]

    def group(snapshot: Snapshot) -> Labels:
        share = snapshot.heights / snapshot.length
        layer = np.mod(np.searchsorted(borders, share, side="right") - 1, len(borders))
        found = np.full(len(layer), -1, np.int64)
        for number, symbol in enumerate(symbols):
            mine = snapshot.atoms.numbers == atomic_numbers[symbol]
            found[mine] = layer[mine] + number * len(borders)
        return found, labels

    return group
