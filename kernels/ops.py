"""The three operations of the tensor track, dispatched to the fastest implementation at hand.

``auto`` takes compiled kernels where they can be had (a C++ compiler for tensors on a CPU, CuPy for tensors on a GPU)
and plain torch operations elsewhere. All give the same numbers to rounding, and derivatives of any order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal

import torch
from asenequip.kernels import library, native, plain
from asenequip.kernels import polynomial as forms
from asenequip.kernels.plain import ChainTable
from torch import Tensor

Backend = Literal["auto", "native", "plain"]
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
    return library.apply(forms.env_sum(form), [weights, harmonics], ptr)


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
    return library.apply(forms.edge_dot(form), [weights, harmonics, atom], ptr)


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
    if not _kernels(environment) or not (path_weights.dtype == environment.dtype == vector.dtype):
        return plain.chain(path_weights, environment, vector, table)
    weights = path_weights.expand(path_weights.shape[0], environment.shape[2])
    return library.apply(forms.chain(forms.ChainForm(table.layer)), [weights, environment, vector], None)


def _kernels(operand: Tensor) -> bool:
    """Whether the compiled path takes an operand of this device and type."""
    backend = _backend.get()
    if backend == "plain":
        return False
    known = operand.dtype in (torch.float32, torch.float64)
    found = known and operand.device.type == "cpu" and native.available()
    if backend == "native" and not found:
        raise RuntimeError(
            f"No kernel takes {operand.dtype} tensors on device '{operand.device}' here.\n"
            "Install a C++ compiler, or leave the backend at 'auto'."
        )
    return found


def _edge_form(weights: Tensor, harmonics: Tensor, irrep: Tensor, atom: Tensor | None) -> forms.EdgeForm | None:
    """The form that kernels are generated from, or None where plain operations must run."""
    if not _kernels(harmonics) or (atom is not None and atom.dtype != harmonics.dtype):
        return None
    narrow = weights.dtype == torch.bfloat16 and harmonics.dtype == torch.float32
    if not narrow and weights.dtype != harmonics.dtype:
        return None
    num_weights = int(weights.shape[1])
    pattern = forms.harmonics_pattern(int(harmonics.shape[1]), num_weights)
    if not torch.compiler.is_compiling() and type(irrep) is Tensor and irrep.device.type == "cpu":
        pattern = tuple(irrep.tolist())
    return None if pattern is None else forms.EdgeForm(pattern, num_weights, narrow)


def _widened(weights: Tensor, harmonics: Tensor) -> Tensor:
    return weights.to(harmonics.dtype) if weights.dtype == torch.bfloat16 else weights
