"""The three operations of the tensor track, dispatched to the fastest implementation at hand.

``auto`` takes compiled kernels where they can be had (a C++ compiler for tensors on a CPU, CuPy for tensors on a GPU)
and plain torch operations elsewhere. All give the same numbers to rounding, and derivatives of any order.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Tensor

from asenequip.kernels import cuda, internals, library, native, plain
from asenequip.kernels.plain import ChainTable
from asenequip.kernels.polynomial import EdgeForm, harmonics_pattern
from asenequip.kernels.polynomial import edge_dot as edge_dot_polynomial
from asenequip.kernels.polynomial import env_sum as env_sum_polynomial

Backend = Literal["auto", "native", "plain"]
__all__ = ["Backend", "ChainTable", "chain", "edge_dot", "env_sum", "use_backend"]

_backend: ContextVar[Backend] = ContextVar("asenequip_kernels_backend", default="auto")


@contextlib.contextmanager
def use_backend(name: Backend) -> Iterator[None]:
    """Choose the implementation inside a ``with`` block, for this thread of control alone.

    Parameters
    ----------
    name : "auto", "native" or "plain"
        The fastest at hand; kernels or an error; plain torch operations.

    Raises
    ------
    ValueError
        For another name.
    """
    if name not in ("auto", "native", "plain"):
        raise ValueError(
            f"The 'name' parameter of use_backend must be one of 'auto', 'native', 'plain'. Got {name!r} instead."
        )
    token = _backend.set(name)
    try:
        yield
    finally:
        _backend.reset(token)


def env_sum(weights: Tensor, harmonics: Tensor, irrep: Tensor, ptr: Tensor, centers: Tensor) -> Tensor:
    """Sum of weighted harmonics per centre: ``out[n,i,u] = sum_{z: c(z)=n} w[z,r(i),u] Y[z,i]``.

    Parameters
    ----------
    weights : (z, r, u) float32, float64, or bfloat16 with float32 harmonics
    harmonics : (z, i) float32 or float64
    irrep : (i,) int64
        r(i): `paths.component_irrep` of the harmonics, or all zero where the irreps share one weight (r of length 1).
    ptr : (n+1,) int64
        Edges ptr[n] to ptr[n+1] belong to centre n; edges are sorted by centre.
    centers : (z,) int64
        The same, per edge.

    Returns
    -------
    (n, i, u)
    """
    form = _edge_form(weights, harmonics, irrep, None)
    if form is None:
        return plain.env_sum(_widened(weights, harmonics), harmonics, irrep, centers, ptr.shape[0] - 1)
    return library.polynomial([weights, harmonics], ptr, _edge_text("env_sum", *form))[0]


def edge_dot(weights: Tensor, harmonics: Tensor, atom: Tensor, irrep: Tensor, ptr: Tensor, centers: Tensor) -> Tensor:
    """Weighted dot product per edge: ``q[z,u] = sum_i w[z,r(i),u] Y[z,i] A[c(z),i,u]``.

    Parameters
    ----------
    weights, harmonics, irrep, ptr, centers
        See `env_sum`.
    atom : (n, i, u)

    Returns
    -------
    (z, u)
    """
    form = _edge_form(weights, harmonics, irrep, atom)
    if form is None:
        return plain.edge_dot(_widened(weights, harmonics), harmonics, atom, irrep, centers)
    return library.polynomial([weights, harmonics, atom], ptr, _edge_text("edge_dot", *form))[0]


def chain(path_weights: Tensor, environment: Tensor, vector: Tensor, table: ChainTable) -> Tensor:
    """One layer's matrix times a vector: ``out[n,i,u] = sum_{p,j,m} W[p,u] C^p_ijm G[n,j,u] v[n,m,u]``.

    Parameters
    ----------
    path_weights : (p, u) or (p, 1)
        Coupled or uncoupled.
    environment : (n, j, u)
    vector : (n, m, u)
    table : ChainTable

    Returns
    -------
    (n, i, u)
    """
    if not _kernels(environment.device.type, str(environment.dtype)) or not (
        path_weights.dtype == environment.dtype == vector.dtype
    ):
        return plain.chain(path_weights, environment, vector, table)
    if path_weights.shape[1] == 1:
        path_weights = path_weights.expand(path_weights.shape[0], environment.shape[2])
    return library.polynomial([path_weights, environment, vector], None, table.text)[0]


# Tracers take the results of these two as constants: they depend on no tensor's values.
@internals.constant_in_traces
def _kernels(device: str, dtype: str) -> bool:
    """Whether the compiled path takes operands of this device and type."""
    backend = _backend.get()
    if backend == "plain":
        return False
    known = dtype in ("torch.float32", "torch.float64")
    found = known and ((device == "cpu" and native.available()) or (device == "cuda" and cuda.available()))
    if backend == "native" and not found:
        raise RuntimeError(
            f"No kernel takes {dtype} tensors on device '{device}' here.\n"
            "Install a C++ compiler (for a GPU: CuPy), or leave the backend at 'auto'."
        )
    return found


@internals.constant_in_traces
def _edge_text(name: str, pattern: tuple[int, ...], num_weights: int, narrow: bool) -> str:
    return _cached_edge_text(name, pattern, num_weights, narrow)


@functools.lru_cache(maxsize=256)
def _cached_edge_text(name: str, pattern: tuple[int, ...], num_weights: int, narrow: bool) -> str:
    form = EdgeForm(pattern, num_weights, narrow)
    return (env_sum_polynomial(form) if name == "env_sum" else edge_dot_polynomial(form)).text


def _edge_form(
    weights: Tensor, harmonics: Tensor, irrep: Tensor, atom: Tensor | None
) -> tuple[tuple[int, ...], int, bool] | None:
    """Fields of the `EdgeForm` that kernels are generated from, or None where plain operations must run.

    Where the values of ``irrep`` cannot be read (in a trace, on a GPU), its two contents are told apart by shape.
    """
    if not _kernels(harmonics.device.type, str(harmonics.dtype)):
        return None
    if atom is not None and atom.dtype != harmonics.dtype:
        return None
    narrow = weights.dtype == torch.bfloat16 and harmonics.dtype == torch.float32
    if not narrow and weights.dtype != harmonics.dtype:
        return None
    traced = internals.traced()
    if not traced and type(irrep) is Tensor and irrep.device.type == "cpu":
        return tuple(irrep.tolist()), int(weights.shape[1]), narrow
    pattern = harmonics_pattern(harmonics.shape[1], weights.shape[1])
    return None if pattern is None else (pattern, pattern[-1] + 1, narrow)


def _widened(weights: Tensor, harmonics: Tensor) -> Tensor:
    return weights.to(harmonics.dtype) if weights.dtype == torch.bfloat16 else weights
