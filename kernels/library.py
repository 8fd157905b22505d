"""The one torch operator of the kernels, ``torch.ops.asenequip.polynomial``: all primitives and all their derivatives.

Its text argument is a `polynomial.Polynomial`. The gradient of a call is a call with another text, so it can be
differentiated any number of times, traced, compiled and exported; gradients that are not asked for are not computed.
"""

from __future__ import annotations

import ctypes
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
class Sizes:
    """Numbers of atoms, edges (0 for the chain form) and channels of one call; they may be symbolic."""

    atoms: Any
    edges: Any
    channels: Any


def sizes(polynomial: Polynomial, operands: list[Tensor], ptr: Tensor | None) -> Sizes:
    """Read the sizes off the operands."""
    pairs = list(zip(operands, polynomial.operands, strict=True))
    if isinstance(polynomial.form, EdgeForm):
        edges = next(o.shape[0] for o, kind in pairs if kind != ATOM)
        channels = next(o.shape[-1] for o, kind in pairs if kind != HARMONICS)
        return Sizes(ptr.shape[0] - 1 if ptr is not None else 0, edges, channels)
    return next(Sizes(o.shape[0], 0, o.shape[-1]) for o, kind in pairs if kind != PATHS)


def empty_outputs(polynomial: Polynomial, operands: list[Tensor], ptr: Tensor | None) -> list[Tensor]:
    """Uninitialised contiguous outputs, in the type that sums are taken in (or the edge weights' storage type)."""
    size, form = sizes(polynomial, operands, ptr), polynomial.form
    if isinstance(form, EdgeForm):
        shapes: list[tuple[Any, ...]] = [
            (size.edges, size.channels),
            (size.edges, form.num_weights, size.channels),
            (size.edges, len(form.irrep)),
            (size.atoms, len(form.irrep), size.channels),
        ]
    else:
        shapes = [(size.atoms, length, size.channels) for length in form.sizes]
        shapes[PATHS] = (form.sizes[PATHS], size.channels)
    narrow = isinstance(form, EdgeForm) and form.bfloat16
    like = next(o for o, kind in zip(operands, polynomial.operands, strict=True) if not narrow or kind != WEIGHTS)
    return [
        like.new_empty(shapes[o.kind], dtype=torch.bfloat16 if narrow and o.kind == WEIGHTS else like.dtype)
        for o in polynomial.outputs
    ]


def chunked(polynomial: Polynomial, outputs: list[Tensor], chunks: int) -> list[Tensor]:
    """Where a kernel writes: the outputs, with room for one sum per chunk of atoms for those of kind W."""
    if isinstance(polynomial.form, EdgeForm):
        return outputs
    return [
        t.new_empty(chunks, *t.shape) if o.kind == PATHS else t
        for t, o in zip(outputs, polynomial.outputs, strict=True)
    ]


def summed(polynomial: Polynomial, written: list[Tensor]) -> list[Tensor]:
    """The outputs of what a kernel wrote: sums over chunks, in their order."""
    if isinstance(polynomial.form, EdgeForm):
        return written
    return [t.sum(0) if o.kind == PATHS else t for t, o in zip(written, polynomial.outputs, strict=True)]


def _fake(operands: list[Tensor], ptr: Tensor | None, text: str) -> list[Tensor]:
    return empty_outputs(parse(text), operands, ptr)


def _precision(operands: list[Tensor]) -> torch.dtype:
    return torch.float64 if any(o.dtype == torch.float64 for o in operands) else torch.float32


def _cpu(operands: list[Tensor], ptr: Tensor | None, text: str) -> list[Tensor]:
    polynomial = parse(text)
    outputs = empty_outputs(polynomial, operands, ptr)
    run = native.load(text, _precision(operands))
    if run is None:
        return evaluate(polynomial, operands, ptr)
    size = sizes(polynomial, operands, ptr)
    length = size.edges if ptr is not None else max(1, -(-size.atoms // _CHUNKS))
    written = chunked(polynomial, outputs, -(-size.atoms // length) if ptr is None else 0)
    operands = [o.contiguous() for o in operands]
    ptr = None if ptr is None else ptr.contiguous()
    work = sum(t.numel() for t in operands) + sum(t.numel() for t in outputs)
    threads = max(1, min(torch.get_num_threads(), work // _GRAIN))
    address = None if ptr is None else ptr.data_ptr()
    if run(_addresses(operands), _addresses(written), address, size.atoms, length, size.channels, threads) != 0:
        raise ValueError(
            f"The 'ptr' parameter must run from 0 to the number of edges, {size.edges}. Got {ptr} instead.\n"
            "Sort the edges by centre and count them per atom."
        )
    return summed(polynomial, written)


def _cuda(operands: list[Tensor], ptr: Tensor | None, text: str) -> list[Tensor]:
    polynomial = parse(text)
    outputs = empty_outputs(polynomial, operands, ptr)
    launch = cuda.load(text, _precision(operands), operands[0].device.index)
    if launch is None:
        return evaluate(polynomial, operands, ptr)
    size = sizes(polynomial, operands, ptr)
    reduces = ptr is None and any(o.kind == PATHS for o in polynomial.outputs)
    length = max(1, -(-size.atoms // _CUDA_CHUNKS)) if reduces else 1
    written = chunked(polynomial, outputs, -(-size.atoms // length))
    operands = [o.contiguous() for o in operands]
    ptr = None if ptr is None else ptr.contiguous()
    launch(operands, written, ptr, size.atoms, length, size.channels)
    return summed(polynomial, written)


def _addresses(tensors: list[Tensor]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*[t.data_ptr() for t in tensors])


def _setup_context(ctx: Any, inputs: tuple[list[Tensor], Tensor | None, str], output: list[Tensor]) -> None:
    operands, ptr, text = inputs
    ctx.set_materialize_grads(False)
    ctx.text, ctx.count, ctx.edges = text, len(operands), ptr is not None
    ctx.save_for_backward(*operands, *([ptr] if ptr is not None else []))


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[list[Tensor | None], None, None]:
    saved = list(ctx.saved_tensors)
    ptr = saved.pop() if ctx.edges else None
    results: list[Tensor | None] = [None] * ctx.count
    given = tuple(g is not None for g in grads)
    derivative = differentiate(parse(ctx.text), given, tuple(ctx.needs_input_grad[0]))
    if derivative is not None:
        sources = [*saved, *grads]
        operands = [sources[k] for k in derivative.sources]
        values = torch.ops.asenequip.polynomial(operands, ptr, derivative.polynomial.text)
        for target, value in zip(derivative.targets, values, strict=True):
            results[target] = value
    return results, None, None


_library.impl("polynomial", _cpu, "CPU")
_library.impl("polynomial", _cuda, "CUDA")
torch.library.register_fake("asenequip::polynomial", _fake, lib=_library)
torch.library.register_autograd("asenequip::polynomial", _backward, setup_context=_setup_context, lib=_library)
