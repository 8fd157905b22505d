"""The one torch operator of the kernels, ``torch.ops.asenequip.polynomial``: all primitives and all their derivatives.

Its text argument is a `polynomial.Polynomial`. The gradient of a call is a call with another text, so it can be
differentiated any number of times, traced, compiled and exported; gradients that are not asked for are not computed.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from asenequip.kernels import cuda, native
from asenequip.kernels.evaluate import evaluate
from asenequip.kernels.polynomial import (
    ATOM,
    HARMONICS,
    PATHS,
    WEIGHTS,
    EdgeForm,
    Polynomial,
    differentiate,
    parse,
)

_library = torch.library.Library("asenequip", "DEF")
_library.define("polynomial(Tensor[] operands, Tensor? ptr, str text) -> Tensor[]")

_CHUNKS = 64
"""Sums over atoms are split in at most this many parts on a CPU, whatever the number of threads."""
_CUDA_CHUNKS = 1024
"""The same on a GPU, where each part is a thread per channel."""
_GRAIN = 50_000
"""Numbers read and written below which a further thread does not pay."""


@dataclass(frozen=True)
class Layout:
    """Where the sizes of a call are found among its operands, worked out once per polynomial.

    Attributes
    ----------
    polynomial : Polynomial
    on_edges, narrow : bool
        Whether the form is that of edges; whether edge weights are stored as bfloat16.
    by_edge, by_atom, by_channel, like : int
        Positions of operands with the axes z, n, u, and with the type that sums are taken in. The edge form counts its
        atoms by ``ptr``.
    """

    polynomial: Polynomial
    on_edges: bool
    narrow: bool
    by_edge: int
    by_atom: int
    by_channel: int
    like: int

    def shapes(self, operands: list[Tensor], ptr: Tensor | None) -> list[tuple[Any, ...]]:
        """Shape of each kind in this call; sizes may be symbolic."""
        form, channels = self.polynomial.form, operands[self.by_channel].shape[-1]
        if isinstance(form, EdgeForm):
            edges, size = operands[self.by_edge].shape[0], len(form.irrep)
            atoms = ptr.shape[0] - 1 if ptr is not None else 0
            return [(edges, channels), (edges, form.num_weights, channels), (edges, size), (atoms, size, channels)]
        atoms = operands[self.by_atom].shape[0]
        paths, *sizes = form.sizes
        return [(paths, channels), *((atoms, size, channels) for size in sizes)]

    def empty(self, shapes: list[tuple[Any, ...]], operands: list[Tensor]) -> list[Tensor]:
        """Uninitialised contiguous outputs."""
        like = operands[self.like]
        return [
            like.new_empty(shapes[o.kind], dtype=torch.bfloat16 if self.narrow and o.kind == WEIGHTS else like.dtype)
            for o in self.polynomial.outputs
        ]

    def check(self, shapes: list[tuple[Any, ...]], operands: list[Tensor]) -> None:
        """Refuse operands whose shape or type would make a kernel read beyond them.

        Raises
        ------
        ValueError
        """
        dtype, narrow = operands[self.like].dtype, self.narrow
        for operand, kind in zip(operands, self.polynomial.operands, strict=True):
            wanted = torch.bfloat16 if narrow and kind == WEIGHTS else dtype
            if operand.shape != shapes[kind] or operand.dtype != wanted:
                names = "gwYA" if self.on_edges else "WGvb"
                raise ValueError(
                    f"The operand {names[kind]} of a kernel must have shape {shapes[kind]} and type {wanted}. "
                    f"Got {tuple(operand.shape)} and {operand.dtype} instead.\n"
                    "All operands must agree in their numbers of atoms, edges and channels."
                )

    def written(self, outputs: list[Tensor], chunks: int) -> list[Tensor]:
        """Where a kernel writes: the outputs, with room for one sum per chunk of atoms for those of kind W."""
        if self.on_edges:
            return outputs
        pairs = zip(outputs, self.polynomial.outputs, strict=True)
        return [t.new_empty(chunks, *t.shape) if o.kind == PATHS else t for t, o in pairs]

    def summed(self, written: list[Tensor]) -> list[Tensor]:
        """The outputs of what a kernel wrote: sums over chunks, in their order."""
        if self.on_edges:
            return written
        return [t.sum(0) if o.kind == PATHS else t for t, o in zip(written, self.polynomial.outputs, strict=True)]


@functools.lru_cache(maxsize=4096)
def layout(text: str) -> Layout:
    """The layout of the polynomial written as ``text``."""
    polynomial = parse(text)
    kinds, on_edges = polynomial.operands, isinstance(polynomial.form, EdgeForm)
    narrow = isinstance(polynomial.form, EdgeForm) and polynomial.form.bfloat16

    def first(*without: int) -> int:
        return next(k for k, kind in enumerate(kinds) if kind not in without)

    return Layout(
        polynomial,
        on_edges,
        narrow,
        by_edge=first(ATOM) if on_edges else 0,
        by_atom=0 if on_edges else first(PATHS),
        by_channel=first(HARMONICS) if on_edges else 0,
        like=first(WEIGHTS) if narrow else 0,
    )


def _fake(operands: list[Tensor], ptr: Tensor | None, text: str) -> list[Tensor]:
    own = layout(text)
    return own.empty(own.shapes(operands, ptr), operands)


def _cpu(operands: list[Tensor], ptr: Tensor | None, text: str) -> list[Tensor]:
    own = layout(text)
    run = native.load(text, operands[own.like].dtype)
    if run is None:
        return evaluate(own.polynomial, operands, ptr)
    shapes = own.shapes(operands, ptr)
    own.check(shapes, operands)
    operands = [o.contiguous() for o in operands]
    outputs = own.empty(shapes, operands)
    atoms, _, channels = shapes[ATOM]
    work = sum([t.numel() for t in operands]) + sum([t.numel() for t in outputs])
    threads = max(1, min(torch.get_num_threads(), work // _GRAIN))
    if ptr is None:
        length = max(1, -(-atoms // _CHUNKS))
        written = own.written(outputs, -(-atoms // length))
        run(_addresses(operands), _addresses(written), None, atoms, length, channels, threads)
        return own.summed(written)
    ptr, edges = ptr.contiguous(), shapes[HARMONICS][0]
    if run(_addresses(operands), _addresses(outputs), ptr.data_ptr(), atoms, edges, channels, threads) != 0:
        raise ValueError(
            f"The 'ptr' parameter must run from 0 to the number of edges, {edges}. Got {ptr} instead.\n"
            "Sort the edges by centre and count them per atom."
        )
    return outputs


def _cuda(operands: list[Tensor], ptr: Tensor | None, text: str) -> list[Tensor]:
    own = layout(text)
    launch = cuda.load(text, operands[own.like].dtype, operands[0].device.index)
    if launch is None:
        return evaluate(own.polynomial, operands, ptr)
    shapes = own.shapes(operands, ptr)
    own.check(shapes, operands)
    operands = [o.contiguous() for o in operands]
    ptr = None if ptr is None else ptr.contiguous()
    atoms, _, channels = shapes[ATOM]
    reduces = ptr is None and any(o.kind == PATHS for o in own.polynomial.outputs)
    length = max(1, -(-atoms // _CUDA_CHUNKS)) if reduces else 1
    written = own.written(own.empty(shapes, operands), -(-atoms // length))
    launch(operands, written, ptr, atoms, length, channels)
    return own.summed(written)


def _addresses(tensors: list[Tensor]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*[t.data_ptr() for t in tensors])


@functools.lru_cache(maxsize=4096)
def _gradient(
    text: str, given: tuple[bool, ...], wanted: tuple[bool, ...]
) -> tuple[str, tuple[int, ...], tuple[int, ...]] | None:
    """Text, sources and targets of a derivative (see `polynomial.Derivative`)."""
    found = differentiate(parse(text), given, wanted)
    return None if found is None else (found.polynomial.text, found.sources, found.targets)


class _Differentiable(torch.autograd.Function):
    """The operator with its gradient, which is the operator again."""

    @staticmethod
    def forward(ctx: Any, text: str, ptr: Tensor | None, *operands: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.text = text
        ctx.save_for_backward(ptr, *operands)
        with torch._C._AutoDispatchBelowAutograd():
            return tuple(torch.ops.asenequip.polynomial(list(operands), ptr, text))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        ptr, *operands = ctx.saved_tensors
        results: list[Tensor | None] = [None] * (2 + len(operands))
        found = _gradient(ctx.text, tuple(g is not None for g in grads), tuple(ctx.needs_input_grad[2:]))
        if found is not None:
            text, sources, targets = found
            known = [*operands, *grads]
            values = torch.ops.asenequip.polynomial([known[k] for k in sources], ptr, text)
            for target, value in zip(targets, values, strict=True):
                results[2 + target] = value
        return tuple(results)


def _autograd(operands: list[Tensor], ptr: Tensor | None, text: str) -> list[Tensor]:
    # torch.library.register_autograd does the same and costs several times more per call, for lists of tensors.
    if torch.is_grad_enabled() and any(t.requires_grad for t in operands):
        return list(_Differentiable.apply(text, ptr, *operands))
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.asenequip.polynomial(operands, ptr, text)


_library.impl("polynomial", _cpu, "CPU")
_library.impl("polynomial", _cuda, "CUDA")
_library.impl("polynomial", _autograd, "Autograd")
torch.library.register_fake("asenequip::polynomial", _fake, lib=_library)
