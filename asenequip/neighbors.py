"""Neighbour lists: vesin underneath, sorted by centre, kept while a Verlet skin allows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from asenequip.memory import available_bytes, require_bytes

_MANY = 50_000
"""Atoms from which on the memory is looked at before a list is built."""

BYTES_PER_EDGE = 110
"""Most that an edge takes while its list is built and kept: benchmarks/results/growth.json."""

_SKEWED = 5.0
"""Length of a lattice vector over the cell's height along it from which on shorter vectors are looked for."""

_MOST = 1e7
"""Edges beyond which a cell smaller than the cutoff is taken for broken: more than any structure has by right."""

_FAR = 1e5
"""Extent, Angstrom, beyond which empty space along a direction is taken out before the cell list is built."""

Edges = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(centers (z,) int64, neighbors (z,) int64, shifts (z, 3) int64): sorted by centre."""


@dataclass(frozen=True)
class EdgeList:
    """Edges of one structure as rows by centre (CSR), in the narrow form that compiled code reads.

    Attributes
    ----------
    ptr : (n+1,) int64
        Edges of atom a are ``ptr[a] : ptr[a+1]``.
    neighbors : (z,) int32
    shifts : (z, 3) int32
    """

    ptr: np.ndarray
    neighbors: np.ndarray
    shifts: np.ndarray

    @classmethod
    def from_edges(cls, edges: Edges, num_atoms: int) -> EdgeList:
        """From edges sorted by centre.

        Raises
        ------
        ValueError
            If neighbouring atoms are given in cells so far apart that their shift does not fit into 32 bits.
        """
        centers, neighbors, shifts = edges
        if np.abs(shifts).max(initial=0) > np.iinfo(np.int32).max:
            raise ValueError(
                "Neighbouring atoms are given more than 2^31 cells apart, where their distance is not resolved.\n"
                "Bring them into one cell: atoms.wrap()."
            )
        ptr = np.zeros(num_atoms + 1, dtype=np.int64)
        np.cumsum(np.bincount(centers, minlength=num_atoms), out=ptr[1:])
        return cls(ptr, np.ascontiguousarray(neighbors, np.int32), np.ascontiguousarray(shifts, np.int32))


def find_edges(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> Edges:
    """All directed edges shorter than ``cutoff``, periodic images of an atom with itself included.

    Parameters
    ----------
    positions : (n, 3) float64
        Angstrom; anywhere, also outside the cell.
    cell : (3, 3) float64
        Rows are lattice vectors; rows of non-periodic directions may be zero.
    pbc : (3,) bool
    cutoff : float
        Angstrom.

    Returns
    -------
    Edges
        Neighbour image is ``positions[neighbor] + shift @ cell``.
    """
    if len(positions) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3), np.int64)
    box = complete_cell(cell, pbc)
    pbc = np.array(pbc, dtype=bool)
    box, turns = least_skewed(box, pbc)
    refuse_collapse(len(positions), box, pbc, cutoff)
    refuse_oversize(positions, box, pbc, cutoff, available_bytes)
    wrapped, offsets = _fold(positions, box, pbc)
    wrapped, offsets, pbc = _open_vacuum(wrapped, offsets, box, pbc, cutoff)
    wrapped = _close_gaps(wrapped, box, pbc, cutoff)
    centers, neighbors, shifts = _vesin(wrapped, box, pbc, cutoff)
    if offsets.any():
        shifts = shifts + offsets[neighbors] - offsets[centers]
    if turns is not None:
        shifts = shifts @ turns
    order = _canonical_order(centers, neighbors, shifts, len(positions))
    return centers[order], neighbors[order], shifts[order]


def least_skewed(box: np.ndarray, pbc: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The shortest lattice vectors of the same lattice where the given ones are long and nearly parallel.

    A search looks at as many cells as there are heights of the cell in the cutoff, and a skewed cell is flat.

    Parameters
    ----------
    box : (3, 3) float64
        Rows are lattice vectors, linearly independent.
    pbc : (3,) bool

    Returns
    -------
    box : (3, 3) float64
    turns : (3, 3) int64 or None
        Its rows in terms of the given ones: shifts s of the one are shifts s @ turns of the other. None where the given
        ones stay.
    """
    if not is_skewed(box[None], pbc[None])[0]:
        return box, None
    from ase.geometry.minkowski_reduction import minkowski_reduce

    try:
        reduced, turns = minkowski_reduce(box, pbc)
    except RuntimeError:  # no end in sight: a cell that has collapsed
        return box, None
    return np.array(reduced), np.asarray(turns, np.int64)


def is_skewed(boxes: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Which cells (f, 3, 3) are skewed along directions (f, 3) that are periodic, two of them at least; (f,) bool."""
    areas = np.linalg.norm(np.cross(np.roll(boxes, -1, axis=1), np.roll(boxes, -2, axis=1)), axis=2)
    products = np.linalg.norm(boxes, axis=2) * areas  # length over height, times the volume
    skewed = (products > _SKEWED * np.abs(np.linalg.det(boxes))[:, None]) & pbc
    return skewed.any(axis=1) & (pbc.sum(axis=1) > 1)


def refuse_oversize(
    positions: np.ndarray, box: np.ndarray, pbc: np.ndarray, cutoff: float, available: Callable[[], int | None]
) -> None:
    """Refuse a large structure whose list would not fit into the bytes that ``available`` tells."""
    if len(positions) > _MANY:
        needed = BYTES_PER_EDGE * expected_edges(positions, box, pbc, cutoff)
        require_bytes(needed, available(), len(positions))


def refuse_collapse(num_atoms: int, box: np.ndarray, pbc: np.ndarray, cutoff: float) -> None:
    """Refuse a cell so small, compared with the cutoff, that its edges would exhaust the memory."""
    heights = 1.0 / np.linalg.norm(np.linalg.inv(box), axis=0)
    images = float(np.prod(np.maximum(2.0 * cutoff / heights, 1.0)[pbc]))
    if images > 1e3 and images * num_atoms**2 > _MOST:
        raise ValueError(
            f"The cell has collapsed: {np.abs(np.linalg.det(box)):.1e} A^3 for {num_atoms} atoms would mean about "
            f"{images * num_atoms**2:.0e} neighbours.\nSet a valid cell; look at the last good frame."
        )


def expected_edges(positions: np.ndarray, box: np.ndarray, pbc: np.ndarray, cutoff: float) -> float:
    """About how many edges there will be, from the density of atoms around each.

    The density is that of cubes as wide as the cutoff, so that vacuum does not thin it; in a cell that is periodic and
    narrower than them, that of the cell.

    Parameters
    ----------
    positions : (n, 3) float64
    box : (3, 3) float64
        Rows are lattice vectors, linearly independent.
    pbc : (3,) bool
    cutoff : float
        Angstrom.
    """
    sphere = 4.0 / 3.0 * np.pi * cutoff**3
    cubes = np.unique(np.floor(positions / cutoff).astype(np.int64), axis=0, return_counts=True)[1]
    expected = sphere * float(np.square(cubes, dtype=np.float64).sum()) / cutoff**3
    if np.all(pbc):
        expected = max(expected, sphere * len(positions) ** 2 / float(np.abs(np.linalg.det(box))))
    return expected


def _canonical_order(centers: np.ndarray, neighbors: np.ndarray, shifts: np.ndarray, num_atoms: int) -> np.ndarray:
    """Order by centre, neighbour and shift: a fixed order of summation, whatever list the edges came from."""
    low = shifts.min(axis=0, initial=0)
    spans = shifts.max(axis=0, initial=0) - low + 1
    if num_atoms**2 * float(np.prod(spans.astype(float))) < 2**62:
        code = ((shifts[:, 0] - low[0]) * spans[1] + shifts[:, 1] - low[1]) * spans[2] + shifts[:, 2] - low[2]
        return np.argsort((centers * num_atoms + neighbors) * int(np.prod(spans)) + code)
    return np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], neighbors, centers))


def _fold(positions: np.ndarray, box: np.ndarray, pbc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions moved into the cell along periodic directions, and the whole cells (n, 3) int64 taken off each."""
    if not pbc.any():
        return positions, np.zeros((len(positions), 3), np.int64)
    cells = np.floor(np.linalg.solve(box.T, positions.T).T)
    cells[:, ~pbc] = 0
    offsets = cells.astype(np.int64)
    # the image n sits at wrapped + offset: its shift relative to the given positions is shift - offset
    return positions - cells @ box, -offsets


def _heights(positions: np.ndarray, box: np.ndarray, axis: int) -> tuple[np.ndarray, float]:
    """Coordinate of each atom along the normal of the two other lattice vectors, and the cell's extent along it."""
    normal = np.cross(box[(axis + 1) % 3], box[(axis + 2) % 3])
    normal /= np.linalg.norm(normal)
    extent = float(box[axis] @ normal)
    return positions @ normal * np.sign(extent), abs(extent)


def _open_vacuum(
    positions: np.ndarray, offsets: np.ndarray, box: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Treat a periodic direction as free where it is very long and a vacuum wider than the cutoff cuts it."""
    for axis in np.flatnonzero(pbc):
        heights, extent = _heights(positions, box, int(axis))
        if extent < _FAR:
            continue
        order = np.argsort(heights, kind="stable")
        gaps = np.diff(heights[order], append=heights[order[0]] + extent)
        widest = int(np.argmax(gaps))
        if gaps[widest] <= cutoff:
            continue
        lift = np.zeros(len(order), np.int64)
        if widest < len(order) - 1:
            lift[order[: widest + 1]] = 1
        offsets = offsets.copy()
        offsets[:, axis] += lift
        positions = positions + lift[:, None] * box[axis]
        pbc = pbc.copy()
        pbc[axis] = False
    return positions, offsets, pbc


def _close_gaps(positions: np.ndarray, box: np.ndarray, pbc: np.ndarray, cutoff: float) -> np.ndarray:
    """Draw together groups of atoms that a free direction holds farther apart than the cutoff; no edge changes.

    A cell list over 10^7 Angstrom of vacuum would need more cells than there are integers.
    """
    for axis in np.flatnonzero(~pbc):
        heights, extent = _heights(positions, box, int(axis))
        order = np.argsort(heights, kind="stable")
        gaps = np.diff(heights[order], prepend=heights[order[0]])
        if gaps.sum() < _FAR:
            continue
        excess = np.empty(len(order))
        excess[order] = np.cumsum(np.maximum(gaps - 2.0 * cutoff, 0.0))
        positions = positions - excess[:, None] * box[axis] / extent
    return positions


def _vesin(positions: np.ndarray, box: np.ndarray, pbc: np.ndarray, cutoff: float) -> Edges:
    from vesin import NeighborList

    finder = NeighborList(cutoff=cutoff, full_list=True, sorted=False)
    points = np.ascontiguousarray(positions, dtype=np.float64)
    i, j, shifts = finder.compute(points=points, box=box, periodic=pbc, quantities="ijS", copy=True)
    return i.astype(np.int64), j.astype(np.int64), shifts.astype(np.int64)


def complete_cell(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The cell with zero rows replaced by orthogonal unit vectors, so that it can be inverted.

    Raises
    ------
    ValueError
        If a periodic direction has no lattice vector, or the lattice vectors are linearly dependent.
    """
    from ase.cell import Cell

    cell = np.asarray(cell, dtype=np.float64)
    lengths = np.linalg.norm(cell, axis=1)
    for axis in range(3):
        if pbc[axis] and lengths[axis] == 0:
            raise ValueError(
                f"The atoms are periodic along direction {axis} but their cell has no vector there.\n"
                f"Set the cell (atoms.cell[{axis}] = ...) or switch periodicity off (atoms.pbc[{axis}] = False)."
            )
    box = np.array(Cell(cell).complete())
    volume = abs(np.linalg.det(box))
    if not volume > 1e-10 * np.prod(np.linalg.norm(box, axis=1)):
        raise ValueError(
            f"The cell vectors are linearly dependent: {cell.tolist()}.\nGive a cell with a volume, or no cell at all."
        )
    return box


@dataclass(frozen=True)
class _Reference:
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    edges: Edges
    rows: EdgeList


class VerletList:
    """Edges within ``cutoff + skin``, reused while no pair can have come inside ``cutoff`` unseen.

    The list of a reference state stays complete as long as sigma_min(F) (cutoff + skin) - 2 max|delta| >= cutoff,
    where F takes the reference cell to the present one, sigma_min is its least stretch, and delta are the displacements
    that F does not explain. It depends on nothing but numbers that are compared here: never on a driver's word.

    Parameters
    ----------
    cutoff, skin : float
        Angstrom.

    Attributes
    ----------
    builds : int
        How many times the list was built.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        self.cutoff = float(cutoff)
        self.skin = float(skin)
        self.builds = 0
        self._reference: _Reference | None = None

    def edges(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> Edges:
        """Candidate edges: a superset of those within ``cutoff``; see `find_edges` for the arguments."""
        return self._for(positions, cell, pbc).edges

    def rows(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> EdgeList:
        """The same candidate edges as rows by centre."""
        return self._for(positions, cell, pbc).rows

    def _for(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> _Reference:
        if self._reference is None or not self.is_valid(positions, cell, pbc):
            edges = find_edges(positions, cell, pbc, self.cutoff + self.skin)
            rows = EdgeList.from_edges(edges, len(positions))
            self._reference = _Reference(positions.copy(), np.array(cell), np.array(pbc), edges, rows)
            self.builds += 1
        return self._reference

    @property
    def num_edges(self) -> int:
        """Candidate edges kept."""
        return 0 if self._reference is None else len(self._reference.edges[0])

    def is_valid(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> bool:
        """Whether the list that is kept holds every edge of this state."""
        reference = self._reference
        if reference is None:
            return False
        if not np.array_equal(pbc, reference.pbc):
            return False
        return still_complete(positions, cell, pbc, reference.positions, reference.cell, self.cutoff, self.skin)


def still_complete(
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
    old_positions: np.ndarray,
    old_cell: np.ndarray,
    cutoff: float,
    skin: float,
) -> bool:
    """Whether a list of all edges within ``cutoff + skin`` of an old state holds all within ``cutoff`` of this one.

    Parameters
    ----------
    positions, old_positions : (n, 3) float64
        Angstrom; of different lengths the answer is no.
    cell, old_cell : (3, 3) float64
    pbc : (3,) bool
        The same in both.
    cutoff, skin : float
        Angstrom.
    """
    if positions.shape != old_positions.shape:
        return False
    stretch, moved = 1.0, old_positions
    if not np.array_equal(cell, old_cell):
        deformation = np.linalg.solve(complete_cell(old_cell, pbc), complete_cell(cell, pbc))
        stretch = float(np.linalg.svd(deformation, compute_uv=False)[-1])
        moved = old_positions @ deformation
    displacement = positions - moved
    farthest = float(np.sqrt(np.max(np.einsum("ni,ni->n", displacement, displacement), initial=0.0)))
    return stretch * (cutoff + skin) - 2.0 * farthest >= cutoff
