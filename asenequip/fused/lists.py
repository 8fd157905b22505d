"""Neighbour lists of many small structures in one call: every pair and its images within reach, in compiled code."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from asenequip.fused.engine import address
from asenequip.neighbors import EdgeList

_INPUTS = ("starts", "positions", "cells", "periodic")
_RESULTS = ("ptr", "neighbors", "shifts", "touching")


class _Structures(ctypes.Structure):
    _fields_ = [
        ("count", ctypes.c_int64),
        ("capacity", ctypes.c_int64),
        ("cutoff", ctypes.c_double),
        *[(name, ctypes.c_void_p) for name in (*_INPUTS, *_RESULTS)],
    ]


@dataclass(frozen=True)
class Structures:
    """Several structures in one array each.

    Attributes
    ----------
    starts : (f+1,) int64
        Atoms of structure k are ``starts[k] : starts[k+1]``.
    positions : (n, 3) float64
        Angstrom.
    cells : (f, 3, 3) float64
        Angstrom; of full rank where a direction is periodic.
    periodic : (f, 3) bool
    """

    starts: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    periodic: np.ndarray

    def part(self, first: int, last: int) -> Structures:
        """Structures ``first`` to ``last``, without the last."""
        atoms = slice(self.starts[first], self.starts[last])
        starts = self.starts[first : last + 1] - self.starts[first]
        return Structures(starts, self.positions[atoms], self.cells[first:last], self.periodic[first:last])


def list_small(
    library: ctypes.CDLL, structures: Structures, cutoff: float, capacity: int
) -> tuple[int, EdgeList, np.ndarray]:
    """Edges within the cutoff of as many structures as fit.

    Parameters
    ----------
    library : ctypes.CDLL
        A compiled engine, which has ``lists.hpp`` in it.
    structures : Structures
    cutoff : float
        Angstrom.
    capacity : int
        Most edges that there may be.

    Returns
    -------
    count : int
        Structures that fit, from the first on.
    edges : EdgeList
        Edges of all their atoms, in the order that `asenequip.neighbors.find_edges` gives.
    touching : (count, 2) int32
        Two atoms of a structure that are on one spot, -1 where there are none.
    """
    n, f = len(structures.positions), len(structures.cells)
    arrays: dict[str, np.ndarray] = {
        "starts": np.ascontiguousarray(structures.starts, np.int64),
        "positions": np.ascontiguousarray(structures.positions, np.float64),
        "cells": np.ascontiguousarray(structures.cells, np.float64),
        "periodic": np.ascontiguousarray(structures.periodic, np.uint8),
        "ptr": np.zeros(n + 1, np.int64),
        "neighbors": np.empty(capacity, np.int32),
        "shifts": np.empty((capacity, 3), np.int32),
        "touching": np.empty((f, 2), np.int32),
    }
    pointers = {name: address(array) for name, array in arrays.items()}
    count = library.list(ctypes.byref(_Structures(count=f, capacity=capacity, cutoff=cutoff, **pointers)))
    ptr = arrays["ptr"][: structures.starts[count] + 1]
    edges = EdgeList(ptr, arrays["neighbors"][: ptr[-1]], arrays["shifts"][: ptr[-1]])
    return int(count), edges, arrays["touching"][:count]
