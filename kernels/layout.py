"""Shapes of a kernel's operands and outputs, found from the operands of a call."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from asenequip.kernels.polynomial import ATOM, HARMONICS, PATHS, WEIGHTS, EdgeForm, Polynomial, parse


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

    def check(self, shapes: list[tuple[Any, ...]], operands: list[Tensor], ptr: Tensor | None) -> None:
        """Refuse operands whose shape, type or device would make a kernel read beyond them.

        Raises
        ------
        ValueError
        """
        like, narrow = operands[self.like], self.narrow
        dtype, device = like.dtype, like.device
        for operand, kind in zip(operands, self.polynomial.operands, strict=True):
            wanted = torch.bfloat16 if narrow and kind == WEIGHTS else dtype
            if operand.shape != shapes[kind] or operand.dtype != wanted or operand.device != device:
                names = "gwYA" if self.on_edges else "WGvb"
                raise ValueError(
                    f"The operand {names[kind]} of a kernel must have shape {shapes[kind]} and type {wanted}, "
                    f"on {device}. Got {tuple(operand.shape)} and {operand.dtype}, on {operand.device} instead.\n"
                    "All operands must agree in their numbers of atoms, edges and channels."
                )
        if self.on_edges and not (
            ptr is not None and ptr.dtype == torch.int64 and ptr.device == device and ptr.dim() == 1 and ptr.numel()
        ):
            found = None if ptr is None else f"{tuple(ptr.shape)} and {ptr.dtype}, on {ptr.device}"
            raise ValueError(
                f"The 'ptr' parameter must have shape (n+1,) and type torch.int64, on {device}. Got {found} instead.\n"
                "It holds the first edge of each atom, and the number of edges."
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
