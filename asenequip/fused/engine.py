"""Runs the fused evaluation of a potential."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Mapping
from copy import copy
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from asenequip.fused.plan import Plan
from asenequip.fused.source import source_text
from asenequip.kernels import native
from asenequip.model.spec import AllegroSpec
from asenequip.neighbors import EdgeList

_NUMBERS = ("centers", "threads", "num_types", "intervals", "pair_kind")
_INPUTS = ("ptr", "neighbors", "shifts", "positions", "cells", "frames", "types")
_CONSTANTS = (
    *("weights", "nonzeros", "counts", "table", "cutoffs"),
    *("norm", "factor", "shift", "pair", "pair_options"),
)
_RESULTS = ("energies", "forces", "virials", "last_layer")


class _Arguments(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in _NUMBERS] + [
        (name, ctypes.c_void_p) for name in (*_INPUTS, *_CONSTANTS, *_RESULTS)
    ]


def vector_lanes(dtype: str) -> int:
    """Elements of the vectors that suit this processor: 64 bytes with AVX-512, 32 on other x86, else 16."""
    width = 16
    if platform.machine().lower() in ("x86_64", "amd64"):
        width = 64 if "avx512f" in processor_features() else 32
    return width // (8 if dtype == "float64" else 4)


@lru_cache(maxsize=1)
def processor_features() -> frozenset[str]:
    """What the processor says that it can do; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def has_bfloat16() -> bool:
    """Whether this processor multiplies matrices in bfloat16 (AVX512-BF16)."""
    return {"avx512f", "avx512_bf16"} <= processor_features()


class CoincidingAtomsError(ValueError):
    """Two atoms on one spot; ``edge`` is the place of their pair in the edge list."""

    def __init__(self, edge: int) -> None:
        super().__init__(f"edge {edge} has no length")
        self.edge = edge


class FusedEngine:
    """Energies, forces and virials of an Allegro potential on a CPU, one fused pass per centre.

    Parameters
    ----------
    spec : AllegroSpec
    dtype : {"float32", "float64", "bfloat16"}
        Precision of the pass; sums over edges are float64. The last is float32 with the operands of the matrix products
        rounded to bfloat16, and needs `has_bfloat16`.
    constants : dict of str to ndarray
        What `fold` gives for the model.
    """

    def __init__(self, spec: AllegroSpec, dtype: str, constants: Mapping[str, np.ndarray]) -> None:
        self.spec, self.dtype = spec, dtype
        plan = Plan(spec, vector_lanes(dtype))
        self.padded_readout = plan.readout
        self._last_weights = plan.offsets()[0]["out"]
        self.library = native.compile_library(source_text(plan, dtype))
        self.library.list.argtypes, self.library.list.restype = (ctypes.c_void_p,), ctypes.c_int64
        self._run = self.library.run
        self._run.argtypes, self._run.restype = (ctypes.c_void_p,), ctypes.c_int64
        self._constants = {name: aligned(array) for name, array in constants.items()}
        self._fixed = {
            "num_types": spec.num_types,
            "intervals": self.intervals,
            "pair_kind": 0 if spec.pair is None else (1 if spec.pair.kind == "zbl" else 2),
            **{name: address(array) for name, array in self._constants.items()},
        }

    def with_last_weights(self, weights: np.ndarray) -> FusedEngine:
        """An engine of the same network with other last weights of the readout, and without a pair potential.

        Parameters
        ----------
        weights : (readout_width,) float64
            Their scale included.
        """
        block = aligned(self._constants["weights"])
        block[self._last_weights : self._last_weights + len(weights)] = weights
        found = copy(self)
        found._constants = {**self._constants, "weights": block}
        found._fixed = {**self._fixed, "weights": address(block), "pair_kind": 0}
        return found

    @property
    def intervals(self) -> int:
        """Intervals of the radial tables from zero to the cutoff."""
        return int(self._constants["table"].shape[1])

    def run(
        self,
        positions: np.ndarray,
        cells: np.ndarray,
        frames: np.ndarray,
        types: np.ndarray,
        edges: EdgeList,
        threads: int | None = None,
        last_layer: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Evaluate a batch.

        Parameters
        ----------
        positions : (n, 3) float64
            Angstrom; may have more atoms (ghosts) than centres, behind them.
        cells : (f, 3, 3) float64
        frames : (n,) int32
            Frame of each centre.
        types : (n,) int32
        edges : EdgeList
        threads : int, optional
            Torch's number of threads by default.
        last_layer : (n, padded_readout) float64, optional
            Gets, added to what it holds, the hidden units of the readout summed over the edges of each centre.

        Returns
        -------
        energies : (n,) float64, eV
        forces : (n, 3) float64, eV/Angstrom
        virials : (n, 3, 3) float64, eV
            sum_z r_z (x) dE/dr_z of each centre.

        Raises
        ------
        CoincidingAtomsError
        """
        n = len(edges.ptr) - 1
        energies, forces = np.empty(n), np.zeros((len(positions), 3))
        virials = np.empty((n, 3, 3))
        arrays = {
            "ptr": edges.ptr,
            "neighbors": edges.neighbors,
            "shifts": edges.shifts,
            "positions": np.ascontiguousarray(positions, np.float64),
            "cells": np.ascontiguousarray(cells, np.float64),
            "frames": np.ascontiguousarray(frames, np.int32),
            "types": np.ascontiguousarray(types, np.int32),
            "energies": energies,
            "forces": forces,
            "virials": virials,
        }
        arguments = _Arguments(
            centers=n,
            threads=threads or torch.get_num_threads(),
            last_layer=None if last_layer is None else address(last_layer),
            **self._fixed,
            **{name: address(array) for name, array in arrays.items()},
        )
        wrong = self._run(ctypes.byref(arguments))
        if wrong >= 0:
            raise CoincidingAtomsError(int(wrong))
        return energies, forces, virials


def address(array: np.ndarray) -> int:
    """Where the data of an array begin."""
    return int(array.__array_interface__["data"][0])


def aligned(values: np.ndarray) -> np.ndarray:
    """A copy whose data begin at a cache line."""
    raw = np.empty(values.nbytes + 64, dtype=np.uint8)
    start = -address(raw) % 64
    out = raw[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    out[...] = values
    return out
