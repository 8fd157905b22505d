"""Real spherical harmonics of unit vectors, l <= 4, in Cartesian polynomial form.

Convention: component normalisation, sum_m Y_lm^2 = 2l + 1; order m = -l..l with the polar axis along y
(components of l = 1 are sqrt(3) (x, y, z)); parity (-1)^l.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def spherical_harmonics(unit: Tensor, l_max: int) -> Tensor:
    """Real spherical harmonics of unit vectors.

    Y_lm = N_lm P_lm(y) Re or Im of (z + i x)^m, with the associated Legendre polynomials by upward recursion in l
    (Limpanuparb and Milthorpe, arXiv:1410.1748).

    Parameters
    ----------
    unit : (z, 3)
        Unit vectors.
    l_max : int

    Returns
    -------
    (z, (l_max+1)^2)
    """
    x, y, z = unit.unbind(-1)
    cosines, sines = [torch.ones_like(x)], [torch.zeros_like(x)]
    for _ in range(l_max):
        c, s = cosines[-1], sines[-1]
        cosines.append(z * c - x * s)
        sines.append(z * s + x * c)
    legendre = _legendre(y, l_max)
    columns = []
    for l in range(l_max + 1):
        for m in range(-l, l + 1):
            a = abs(m)
            norm = math.sqrt((2 * l + 1) * (2.0 if m else 1.0) * math.factorial(l - a) / math.factorial(l + a))
            angle = sines[a] if m < 0 else cosines[a]
            columns.append(norm * legendre[l][a] * angle if m else norm * legendre[l][0])
    return torch.stack(columns, dim=-1)


def _legendre(y: Tensor, l_max: int) -> list[list[Tensor]]:
    """P_lm(y) / sin^m, without the Condon-Shortley phase, as [l][m]."""
    table = [[torch.ones_like(y)]]
    for l in range(1, l_max + 1):
        row = []
        for m in range(l - 1):
            row.append(((2 * l - 1) * y * table[l - 1][m] - (l + m - 1) * table[l - 2][m]) / (l - m))
        row.append((2 * l - 1) * y * table[l - 1][l - 1])
        row.append((2 * l - 1) * table[l - 1][l - 1])
        table.append(row)
    return table
