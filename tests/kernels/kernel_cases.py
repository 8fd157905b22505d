"""Random operands and oracles of the kernel tests: dense couplings from e3nn, loops over atoms, float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from e3nn import o3
from torch import Tensor

from asenequip.kernels import polynomial as forms
from asenequip.kernels.paths import LayerPaths

RAGGED = (0, 1, 9, 0, 4, 2, 0)
"""Neighbours of each atom: none, one, many, and none at either end."""


@dataclass
class Operands:
    """w (z,r,u), Y (z,i), A (n,i,u), irrep (i,), ptr (n+1,), centers (z,)."""

    weights: Tensor
    harmonics: Tensor
    atom: Tensor
    irrep: Tensor
    ptr: Tensor
    centers: Tensor

    @property
    def edges(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.irrep, self.ptr, self.centers


def operands(
    l_max: int,
    channels: int,
    *,
    seed: int,
    shared: bool = False,
    counts: tuple[int, ...] = RAGGED,
    dtype: torch.dtype = torch.float64,
) -> Operands:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    number = torch.tensor(counts, dtype=torch.int64)
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), number.cumsum(0)])
    size = (l_max + 1) ** 2
    irrep = torch.zeros(size, dtype=torch.int64) if shared else torch.tensor([math.isqrt(i) for i in range(size)])
    edges = int(ptr[-1])
    return Operands(
        draw(edges, 1 if shared else l_max + 1, channels),
        draw(edges, size),
        draw(len(counts), size, channels),
        irrep,
        ptr,
        torch.repeat_interleave(torch.arange(len(counts)), number),
    )


def chain_operands(layer: LayerPaths, channels: int, *, seed: int, coupled: bool = True) -> tuple[Tensor, ...]:
    """W (p,u) or (p,1), G (n,j,u), v (n,m,u) for the seven atoms of `RAGGED`."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [sum(2 * l + 1 for l, _ in irreps) for irreps in (layer.irreps_env, layer.irreps_out)]
    shapes = [(len(layer.paths), channels if coupled else 1), *((len(RAGGED), s, channels) for s in sizes)]
    return tuple(torch.randn(*s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes)


def random_operands(
    polynomial: forms.Polynomial, channels: int, seed: int, counts: tuple[int, ...]
) -> tuple[list[Tensor], Tensor | None]:
    """Float64 operands of a kernel, and ptr (n+1,) if it has edges, for atoms with so many neighbours each."""
    generator = torch.Generator().manual_seed(seed)
    form = polynomial.form
    if isinstance(form, forms.EdgeForm):
        ptr: Tensor | None = torch.tensor([0, *counts]).cumsum(0)
        edges, size = sum(counts), len(form.irrep)
        shapes = [(edges, channels), (edges, form.num_weights, channels), (edges, size), (len(counts), size, channels)]
    else:
        ptr = None
        shapes = [(form.sizes[0], channels), *((len(counts), size, channels) for size in form.sizes[1:])]
    operands = [torch.randn(shapes[k], generator=generator, dtype=torch.float64) for k in polynomial.operands]
    return operands, ptr


def env_sum(x: Operands) -> Tensor:
    """Atom by atom."""
    rows = [
        torch.einsum("ziu,zi->iu", x.weights[a:b][:, x.irrep], x.harmonics[a:b])
        for a, b in zip(x.ptr[:-1].tolist(), x.ptr[1:].tolist(), strict=True)
    ]
    return torch.stack(rows)


def edge_dot(x: Operands) -> Tensor:
    return torch.einsum("ziu,zi,ziu->zu", x.weights[:, x.irrep], x.harmonics, x.atom[x.centers])


def dense_couplings(layer: LayerPaths) -> Tensor:
    """(p, i, j, m): sqrt(2 l_out + 1) times e3nn's 3j symbols, one dense block per path."""
    groups = (layer.irreps_in, layer.irreps_env, layer.irreps_out)
    slices = [o3.Irreps([(1, ir) for ir in group]).slices() for group in groups]
    dims = [o3.Irreps([(1, ir) for ir in group]).dim for group in groups]
    out = torch.zeros(len(layer.paths), *dims, dtype=torch.float64)
    for p, path in enumerate(layer.paths):
        orders = [group[k][0] for group, k in zip(groups, path, strict=True)]
        where = tuple(s[k] for s, k in zip(slices, path, strict=True))
        out[(p, *where)] = o3.wigner_3j(*orders, dtype=torch.float64) * math.sqrt(2 * orders[2] + 1)
    return out


def chain(layer: LayerPaths, path_weights: Tensor, environment: Tensor, vector: Tensor) -> Tensor:
    channels = environment.shape[2]
    weights = path_weights.expand(-1, channels)
    return torch.einsum("pijm,pu,nju,nmu->niu", dense_couplings(layer), weights, environment, vector)


def generic(x: Tensor) -> Tensor:
    """A quadratic scalar with a weight of its own for each entry; it does not amplify the rounding of large entries."""
    weights = torch.arange(x.numel(), dtype=x.dtype, device=x.device).cos().reshape(x.shape)
    return ((0.3 + weights) * x * (1 + 0.1 * x)).sum()


def derivatives(value: Tensor, inputs: tuple[Tensor, ...], order: int) -> list[Tensor]:
    """The value and, order by order, gradients of a generic scalar of the order before."""
    found = [value]
    level: tuple[Tensor, ...] = (value,)
    for k in range(order):
        total = sum(generic(x) for x in level)
        level = torch.autograd.grad(total, inputs, create_graph=k + 1 < order)
        found += level
    return found


def largest_error(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference, relative to the largest entry of each tensor; NaN if any entry is NaN."""
    errors = [
        (a - b).detach().abs().max().double() / b.detach().abs().max().double().clamp(min=1e-30)
        for a, b in zip(found, expected, strict=True)
        if b.numel() > 0
    ]
    # Tensors, because Python's max passes over NaN.
    return float(torch.stack(errors).max()) if errors else 0.0
