"""Builds, checks and runs the fused evaluation of a potential."""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asenequip.fused.fold import fold_weights, nonzero_records, tabulate
from asenequip.fused.plan import Plan
from asenequip.fused.source import source_text
from asenequip.kernels import native
from asenequip.model.allegro import Allegro

_POINTERS = (
    "ptr neighbors shifts positions cells frames types weights nonzeros table cutoffs norm factor shift pair pair_options "
    "energies forces virials"
).split()
_NUMBERS = "centers threads num_types intervals pair_kind".split()


class _Arguments(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in _NUMBERS] + [(name, ctypes.c_void_p) for name in _POINTERS]


def vector_lanes(dtype: str) -> int:
    """Elements of the vectors that suit this processor: 64 bytes with AVX-512, 32 on other x86, else 16."""
    width = 16
    if platform.machine().lower() in ("x86_64", "amd64"):
        try:
            width = 64 if " avx512f " in Path("/proc/cpuinfo").read_text() else 32
        except OSError:
            width = 32
    return width // (4 if dtype == "float32" else 8)


@dataclass(frozen=True)
class EdgeList:
    """Candidate edges in the form the fused evaluation reads; those beyond their cutoff are passed over.

    Attributes
    ----------
    ptr : (n+1,) int64
    neighbors : (z,) int32
    shifts : (z, 3) int32
    """

    ptr: np.ndarray
    neighbors: np.ndarray
    shifts: np.ndarray

    @classmethod
    def from_edges(cls, edges: tuple[np.ndarray, np.ndarray, np.ndarray], num_atoms: int) -> EdgeList:
        """From edges sorted by centre."""
        centers, neighbors, shifts = edges
        ptr = np.zeros(num_atoms + 1, dtype=np.int64)
        np.cumsum(np.bincount(centers, minlength=num_atoms), out=ptr[1:])
        return cls(ptr, np.ascontiguousarray(neighbors, np.int32), np.ascontiguousarray(shifts, np.int32))


class CoincidingAtomsError(ValueError):
    """Two atoms on one spot; ``edge`` is the place of their pair in the edge list."""

    def __init__(self, edge: int) -> None:
        super().__init__(f"edge {edge} has no length")
        self.edge = edge


class FusedEngine:
    """Energies, forces and virials of an Allegro potential on a CPU, one fused pass per centre.

    Parameters
    ----------
    model : Allegro
        float64 for the table; see `unsupported` in `asenequip.fused.plan` for what cannot be fused.
    dtype : {"float32", "float64"}
        Precision of the pass; sums over edges are float64.
    tolerance : float
        Of the radial tables: largest error of their slopes, relative to the largest slope.

    Attributes
    ----------
    table_errors : dict
        Measured relative errors of the radial tables, "value" and "slope", and their "intervals".
    """

    def __init__(self, model: Allegro, dtype: str = "float32", tolerance: float = 3e-7) -> None:
        spec = model.spec
        self.plan = Plan(spec, vector_lanes(dtype))
        self.dtype = np.dtype(dtype)
        model = model.to("cpu", torch.float64)
        library = native.compile_library(source_text(self.plan, dtype))
        self._run = library.run
        self._run.argtypes, self._run.restype = (ctypes.c_void_p,), ctypes.c_int64
        table = tabulate(model, self.plan, tolerance)
        self.table_errors = {
            "value": table.value_error,
            "slope": table.slope_error,
            "intervals": table.intervals,
        }
        norm = model.inverse_norm.numpy()
        scales = model.scales.detach().numpy()
        self._constants: dict[str, np.ndarray] = {
            "weights": aligned(fold_weights(model, self.plan), self.dtype),
            "nonzeros": nonzero_records(self.plan.chains(), dtype),
            "table": aligned(table.coefficients, self.dtype),
            "cutoffs": np.asarray(spec.cutoff_table(), dtype=np.float64).reshape(-1),
            "norm": norm.copy(),
            "factor": scales * norm / np.sqrt(2.0),
            "shift": model.shifts.detach().numpy().copy(),
            **_pair_constants(model),
        }
        self._pair_kind = 0 if spec.pair is None else (1 if spec.pair.kind == "zbl" else 2)
        self._intervals = table.intervals

    def run(
        self,
        positions: np.ndarray,
        cells: np.ndarray,
        frames: np.ndarray,
        types: np.ndarray,
        edges: EdgeList,
        threads: int | None = None,
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
            **self._constants,
        }
        arguments = _Arguments(
            centers=n,
            threads=threads or torch.get_num_threads(),
            num_types=self.plan.spec.num_types,
            intervals=self._intervals,
            pair_kind=self._pair_kind,
            **{name: array.ctypes.data for name, array in arrays.items()},
        )
        wrong = self._run(ctypes.byref(arguments))
        if wrong >= 0:
            raise CoincidingAtomsError(int(wrong))
        return energies, forces, virials


def aligned(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """A copy whose data begin at a cache line."""
    raw = np.empty(values.size * dtype.itemsize + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    out = raw[start : start + values.size * dtype.itemsize].view(dtype).reshape(values.shape)
    out[...] = values
    return out


def _pair_constants(model: Allegro) -> dict[str, np.ndarray]:
    """Parameters of the pair potential per ordered pair of types, as the C++ reads them."""
    from ase.data import atomic_numbers

    from asenequip.model.pair import COULOMB

    spec, pair = model.spec, model.spec.pair
    table, options = np.zeros((spec.num_types, spec.num_types, 4)), np.zeros(3)
    if pair is not None:
        options[:] = pair.envelope_exponent, ("lj", "lj_repulsive_only", "repulsive").index(pair.style), pair.exponent
    if pair is not None and pair.kind == "zbl":
        z = np.array([atomic_numbers[name] for name in spec.type_names], dtype=np.float64)
        table[..., 0] = 0.5 * COULOMB * z[:, None] * z
        table[..., 1] = (z[:, None] ** 0.23 + z**0.23) / 0.46850
    elif pair is not None:
        for k, name in enumerate(("sigma", "epsilon", "delta")):
            upper = np.triu(getattr(model.pair, name).detach().numpy())
            table[..., k] = np.maximum(upper + np.triu(upper, 1).T, 0.0)
    return {"pair": table, "pair_options": options}
