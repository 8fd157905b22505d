"""The one torch operator of the kernels, ``torch.ops.asenequip.polynomial``: all primitives and all their derivatives.

Its text argument is a `polynomial.Polynomial`. The gradient of a call is a call with another text, so it can be
differentiated any number of times, traced, compiled and exported; gradients that are not asked for are not computed.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from asenequip.kernels import cuda, internals, native
from asenequip.kernels.evaluate import evaluate
from asenequip.kernels.layout import layout
from asenequip.kernels.polynomial import ATOM, HARMONICS, PATHS, differentiate, parse

_library = torch.library.Library("asenequip", "DEF")
_library.define("polynomial(Tensor[] operands, Tensor? ptr, str text) -> Tensor[]")

Compute = Callable[[list[Tensor], "Tensor | None", str], list[Tensor]]

_CHUNKS = 64
"""Sums over atoms are split in at most this many parts on a CPU, whatever the number of threads."""
_CUDA_CHUNKS = 1024
"""The same on a GPU, where each part is a thread per channel."""
_GRAIN = 50_000
"""Numbers read and written below which a further thread does not pay."""


def polynomial(operands: list[Tensor], ptr: Tensor | None, text: str) -> list[Tensor]:
    """Call the operator; where only autograd could see the call, without torch's dispatcher.

    The dispatcher hands a call to Python twice, once for autograd and once for the device, which costs more than a
    kernel on a few thousand edges.

    Parameters
    ----------
    operands : list of Tensor
        Shapes by kind, see `polynomial`.
    ptr : (n+1,) int64, optional
        Edges of each atom; needed by the edge form.
    text : str

    Returns
    -------
    list of Tensor
    """
    if not internals.only_autograd_sees(operands):
        return torch.ops.asenequip.polynomial.default(operands, ptr, text)
    return _differentiable(_cuda if operands[0].is_cuda else _cpu, operands, ptr, text)


def _below_autograd(operands: list[Tensor], ptr: Tensor | None, text: str) -> list[Tensor]:
    """Dispatch on: to the device's kernel, or to the tracer or mode that is in between."""
    with internals.below_autograd():
        return torch.ops.asenequip.polynomial.default(operands, ptr, text)


class _Differentiable(torch.autograd.Function):
    """The operator with its gradient, which is the operator again."""

    @staticmethod
    def forward(ctx: Any, compute: Compute, text: str, ptr: Tensor | None, *operands: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.text = text
        ctx.save_for_backward(ptr, *operands)
        return tuple(compute(list(operands), ptr, text))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        ptr, *operands = ctx.saved_tensors
        results: list[Tensor | None] = [None] * (3 + len(operands))
        found = _gradient(ctx.text, tuple([g is not None for g in grads]), ctx.needs_input_grad[3:])
        if found is not None:
            text, sources, targets = found
            known = [*operands, *grads]
            values = polynomial([known[k] for k in sources], ptr, text)
            for target, value in zip(targets, values, strict=True):
                results[3 + target] = value
        return tuple(results)


@functools.lru_cache(maxsize=4096)
def _gradient(
    text: str, given: tuple[bool, ...], wanted: tuple[bool, ...]
) -> tuple[str, tuple[int, ...], tuple[int, ...]] | None:
    """Text, sources and targets of a derivative (see `polynomial.Derivative`)."""
    found = differentiate(parse(text), given, wanted)
    return None if found is None else (found.polynomial.text, found.sources, found.targets)


def _differentiable(compute: Compute, operands: list[Tensor], ptr: Tensor | None, text: str) -> list[Tensor]:
    # torch.library.register_autograd does the same and costs several times more per call, for lists of tensors.
    if torch.is_grad_enabled() and any(t.requires_grad for t in operands):
        return list(_Differentiable.apply(compute, text, ptr, *operands))
    return compute(operands, ptr, text)


def _autograd(operands: list[Tensor], ptr: Tensor | None, text: str) -> list[Tensor]:
    return _differentiable(_below_autograd, operands, ptr, text)


def _fake(operands: list[Tensor], ptr: Tensor | None, text: str) -> list[Tensor]:
    own = layout(text)
    return own.empty(own.shapes(operands, ptr), operands)


def _cpu(operands: list[Tensor], ptr: Tensor | None, text: str) -> list[Tensor]:
    own = layout(text)
    run = native.load(text, operands[own.like].dtype)
    if run is None:
        return evaluate(own.polynomial, operands, ptr)
    shapes = own.shapes(operands, ptr)
    own.check(shapes, operands, ptr)
    operands = [o.contiguous() for o in operands]
    outputs = own.empty(shapes, operands)
    atoms, _, channels = shapes[ATOM]
    threads = torch.get_num_threads()
    if threads > 1:
        work = sum([t.numel() for t in operands]) + sum([t.numel() for t in outputs])
        threads = max(1, min(threads, work // _GRAIN))
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
    own.check(shapes, operands, ptr)
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


_library.impl("polynomial", _cpu, "CPU")
_library.impl("polynomial", _cuda, "CUDA")
_library.impl("polynomial", _autograd, "Autograd")
torch.library.register_fake("asenequip::polynomial", _fake, lib=_library)
