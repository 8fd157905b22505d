"""Which irreps an Allegro layer keeps, which tensor-product paths it has, and their Clebsch-Gordan nonzeros.

Index letters: ``i`` component of a layer's input, ``j`` of the environment (spherical harmonics), ``m`` of its output,
``p`` path, ``l``/``r`` irrep of the environment.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Irrep = tuple[int, int]
"""(l, p): order and parity, p = +1 (even) or -1 (odd)."""

SCALAR: Irrep = (0, 1)


def harmonics_irreps(l_max: int) -> tuple[Irrep, ...]:
    """Irreps of the spherical harmonics up to ``l_max``: parity (-1)^l."""
    return tuple((l, (-1) ** l) for l in range(l_max + 1))


def dimension(irreps: tuple[Irrep, ...]) -> int:
    """Number of components of one copy of each irrep."""
    return sum(2 * l + 1 for l, _ in irreps)


def component_irrep(irreps: tuple[Irrep, ...]) -> np.ndarray:
    """Index of the irrep that each component belongs to, shape (dimension,), int64."""
    return np.repeat(np.arange(len(irreps)), [2 * l + 1 for l, _ in irreps])


def couples(first: Irrep, second: Irrep, out: Irrep) -> bool:
    """Whether ``out`` is contained in the product ``first x second`` of O(3) irreps."""
    (l1, p1), (l2, p2), (l3, p3) = first, second, out
    return p1 * p2 == p3 and abs(l1 - l2) <= l3 <= l1 + l2


@dataclass(frozen=True)
class LayerPaths:
    """One tensor-product layer: its irreps, its paths, and the nonzeros of the coupling.

    Attributes
    ----------
    irreps_in, irreps_env, irreps_out : tuple of (l, p)
        One copy each, in storage order.
    paths : tuple of (int, int, int)
        Positions in (irreps_in, irreps_env, irreps_out); ordered by output, then first, then second irrep.
    """

    irreps_in: tuple[Irrep, ...]
    irreps_env: tuple[Irrep, ...]
    irreps_out: tuple[Irrep, ...]
    paths: tuple[tuple[int, int, int], ...]

    @property
    def nonzeros(self) -> Nonzeros:
        """The Clebsch-Gordan nonzeros of all paths."""
        return _nonzeros(self)


@dataclass(frozen=True)
class Nonzeros:
    """Coordinates and values of the nonzeros of C^p_ijm, sorted by (i, m, p, j); arrays of one length, read-only."""

    i: np.ndarray
    j: np.ndarray
    m: np.ndarray
    p: np.ndarray
    value: np.ndarray


def layer_irreps(l_max: int, num_layers: int, parity: bool) -> list[tuple[Irrep, ...]]:
    """Irreps of the tensor features before layer 0, between the layers, and after the last (0e alone).

    Forward: keep what is allowed (l <= l_max; both parities, or only those of the spherical harmonics) and reachable.
    Backward: drop whatever cannot reach the final 0e.
    """
    env = harmonics_irreps(l_max)
    allowed = tuple((l, p) for l in range(l_max + 1) for p in (1, -1)) if parity else env
    irreps = [env]
    for layer in range(num_layers):
        candidates = (SCALAR,) if layer == num_layers - 1 else allowed
        irreps.append(tuple(o for o in candidates if any(couples(a, e, o) for a in irreps[-1] for e in env)))
    for layer in range(num_layers - 1, -1, -1):
        after = irreps[layer + 1]
        irreps[layer] = tuple(a for a in irreps[layer] if any(couples(a, e, o) for e in env for o in after))
    return irreps


@lru_cache(maxsize=64)
def layer_paths(l_max: int, num_layers: int, parity: bool) -> tuple[LayerPaths, ...]:
    """The layers of an Allegro tensor track (``l_max`` 0-4, any number of layers)."""
    env = harmonics_irreps(l_max)
    irreps = layer_irreps(l_max, num_layers, parity)
    layers = []
    for first, out in itertools.pairwise(irreps):
        paths = tuple(
            (i1, i2, io)
            for io, o in enumerate(out)
            for i1, a in enumerate(first)
            for i2, e in enumerate(env)
            if couples(a, e, o)
        )
        layers.append(LayerPaths(first, env, out, paths))
    return tuple(layers)


@lru_cache(maxsize=256)
def _nonzeros(layer: LayerPaths) -> Nonzeros:
    import torch
    from e3nn.o3 import wigner_3j

    from asenequip.kernels.internals import outside_modes

    def starts(irreps: tuple[Irrep, ...]) -> list[int]:
        return [0, *np.cumsum([2 * l + 1 for l, _ in irreps]).tolist()]

    begin, env_begin, out_begin = starts(layer.irreps_in), starts(layer.irreps_env), starts(layer.irreps_out)
    rows: list[np.ndarray] = []
    values: list[np.ndarray] = []
    for p, (i1, i2, io) in enumerate(layer.paths):
        l1, l2, l3 = layer.irreps_in[i1][0], layer.irreps_env[i2][0], layer.irreps_out[io][0]
        with outside_modes(), torch.device("cpu"):  # also where a model is laid out on the meta device
            block = wigner_3j(l1, l2, l3, dtype=torch.float64).numpy() * math.sqrt(2 * l3 + 1)
        i, j, m = np.nonzero(np.abs(block) > 1e-14)
        rows.append(np.stack([i + begin[i1], j + env_begin[i2], m + out_begin[io], np.full_like(i, p)]))
        values.append(block[i, j, m])
    i, j, m, p = np.concatenate(rows, axis=1)
    order = np.lexsort((j, p, m, i))
    arrays = [a[order].astype(np.int64) for a in (i, j, m, p)] + [np.concatenate(values)[order]]
    for a in arrays:
        a.setflags(write=False)
    return Nonzeros(*arrays)
