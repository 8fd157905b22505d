"""The spherical harmonics as polynomials in Cartesian coordinates, and their C++ text."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from asenequip.model.angular import spherical_harmonics


@lru_cache(maxsize=8)
def harmonic_polynomials(l_max: int) -> tuple[tuple[tuple[tuple[int, int, int], float], ...], ...]:
    """Each spherical harmonic as a homogeneous polynomial in (x, y, z): tuples of (exponents, coefficient).

    Fitted to `asenequip.model.angular.spherical_harmonics`, the one definition of them.
    """
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    values = spherical_harmonics(torch.from_numpy(points), l_max).numpy()
    found = []
    for l in range(l_max + 1):
        exponents = [(a, b, l - a - b) for a in range(l, -1, -1) for b in range(l - a, -1, -1)]
        monomials = np.stack([np.prod(points**e, axis=1) for e in exponents], axis=1)
        columns = values[:, l * l : (l + 1) ** 2]
        coefficients = np.linalg.lstsq(monomials, columns, rcond=None)[0]
        for m in range(2 * l + 1):
            terms = [(e, float(c)) for e, c in zip(exponents, coefficients[:, m], strict=True) if abs(c) > 1e-10]
            found.append(tuple(terms))
    return tuple(found)


def _power(variable: str, exponent: int) -> str:
    return variable if exponent == 1 else f"{variable}{exponent}"


def _monomial(exponents: tuple[int, int, int], coefficient: float) -> str:
    factors = [_power(v, e) for v, e in zip("xyz", exponents, strict=True) if e > 0]
    return " * ".join([f"T({coefficient!r})", *factors])


def harmonics_text(l_max: int) -> str:
    """C++ of two functions: the harmonics of LANES edges, and the gradient of sum_i g_i Y_i by the unit vectors."""
    polynomials = harmonic_polynomials(l_max)
    powers = [f"  const V {v}{e} = {_power(v, e - 1)} * {v}; (void){v}{e};" for v in "xyz" for e in range(2, l_max + 1)]
    body = [
        f"  store(Y + {i} * stride, all(T(0)) + {' + '.join(_monomial(e, c) for e, c in terms)});"
        for i, terms in enumerate(polynomials)
    ]
    pull: dict[str, list[str]] = {"x": [], "y": [], "z": []}
    for i, terms in enumerate(polynomials):
        for axis, v in enumerate("xyz"):
            inner = []
            for exponents, c in terms:
                e = exponents[axis]
                if e:
                    lowered = tuple(q - (k == axis) for k, q in enumerate(exponents))
                    inner.append(_monomial(lowered, c * e))  # type: ignore[arg-type]
            if inner:
                pull[v].append(f"  g{v} += load(g + {i} * stride) * (all(T(0)) + {' + '.join(inner)});")
    return "\n".join(
        [
            "INLINE void harmonics(V x, V y, V z, T* Y, int stride) {",
            *powers,
            *body,
            "}",
            "INLINE void harmonics_back(V x, V y, V z, const T* g, int stride, V& gx, V& gy, V& gz) {",
            *powers,
            "  gx = V{}; gy = V{}; gz = V{};",
            *pull["x"],
            *pull["y"],
            *pull["z"],
            "}",
        ]
    )
