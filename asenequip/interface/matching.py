"""Common supercells of two surface lattices, by the search of Zur and McGill (J. Appl. Phys. 55, 378 (1984))."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asenequip.errors import parameter_error

_TURNS = np.array(
    [
        m
        for m in np.stack(np.meshgrid(*[[-1, 0, 1]] * 4, indexing="ij"), axis=-1).reshape(-1, 2, 2)
        if round(np.linalg.det(m)) == 1
    ]
)
"""Changes of basis that keep the handedness and join what reduction may name differently, (20, 2, 2)."""


_PAIRS = 50_000
"""Pairs of supercells compared at once."""
_PERFECT = 1e-6
"""Misfit below which no larger cell is looked at."""


@dataclass(frozen=True)
class Match:
    """A common supercell of the lattices of a first and a second surface.

    Attributes
    ----------
    first, second : (2, 2) int64
        Rows are the supercell's vectors in each surface's own lattice vectors.
    cell : (2, 2) float64
        The common lattice, Angstrom; rows are vectors, in the first surface's axes.
    strain_first, strain_second : (2, 2) float64
        Strain of each surface (symmetric; stretch minus one), in the first surface's axes.
    misfit : float
        Largest principal strain, as |ln stretch|, that would take the first lattice to the second.
    """

    first: np.ndarray
    second: np.ndarray
    cell: np.ndarray
    strain_first: np.ndarray
    strain_second: np.ndarray
    misfit: float

    @property
    def area(self) -> float:
        """Angstrom^2."""
        return abs(float(np.linalg.det(self.cell)))


def find_matches(
    first: np.ndarray, second: np.ndarray, *, max_area: float = 400.0, max_misfit: float = 0.1, share: float = 0.5
) -> list[Match]:
    """Search the common supercells of two lattices up to an area, twists by any angle included.

    Parameters
    ----------
    first, second : (2, 2) float64
        Rows are lattice vectors, Angstrom.
    max_area : float
        Angstrom^2.
    max_misfit : float
        Largest misfit of what is listed.
    share : float
        Of the misfit, what the first lattice takes on: 0 strains only the second, 1 only the first.

    Returns
    -------
    list of Match
        By area; each has a smaller misfit than all before it.

    Raises
    ------
    ValueError
    """
    if not 0 <= share <= 1:
        raise parameter_error("share", "find_matches", "a float from 0 to 1", share)
    first, second = np.asarray(first, float), np.asarray(second, float)
    one, two = _supercells(first, max_area), _supercells(second, max_area)
    if not len(one) or not len(two):
        raise parameter_error(
            "max_area",
            "find_matches",
            f"at least {max(abs(np.linalg.det(first)), abs(np.linalg.det(second))):.1f} Angstrom^2, one surface cell",
            max_area,
        )
    areas = np.abs(np.linalg.det(one @ first)), np.abs(np.linalg.det(two @ second))
    i, j = np.nonzero(np.abs(np.log(areas[1][None] / areas[0][:, None])) < 2 * max_misfit)
    order = np.argsort(areas[0][i], kind="stable")
    found: list[Match] = []
    for begin in range(0, len(order), _PAIRS):
        part = order[begin : begin + _PAIRS]
        misfit, turn = _least_misfit(one[i[part]] @ first, two[j[part]] @ second)
        for k in np.lexsort((misfit, np.round(areas[0][i[part]], 6))):
            best = found[-1].misfit - 1e-9 if found else max_misfit
            if misfit[k] <= best:
                turned = _TURNS[turn[k]] @ two[j[part[k]]]
                found.append(_join(first, second, one[i[part[k]]], turned, float(misfit[k]), share))
        if found and found[-1].misfit < _PERFECT:
            break
    return found


def _supercells(lattice: np.ndarray, max_area: float) -> np.ndarray:
    """One reduced basis for each superlattice up to an area (Hermite normal forms), (n, 2, 2) int64."""
    most = int(max_area / abs(np.linalg.det(lattice)) + 1e-9)
    forms = [
        ((a, b), (0, n // a)) for n in range(1, most + 1) for a in range(1, n + 1) if n % a == 0 for b in range(n // a)
    ]
    bases = np.array([_reduced(np.array(form), lattice) for form in forms], dtype=np.int64).reshape(-1, 2, 2)
    shapes = np.round((bases @ lattice) @ (bases @ lattice).transpose(0, 2, 1), 6).reshape(-1, 4)
    return bases[np.sort(np.unique(shapes, axis=0, return_index=True)[1])]  # one of each shape: twists are free


def _reduced(form: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """The shortest basis of the same superlattice (Lagrange and Gauss), right-handed."""
    u, v = form
    while True:
        if np.linalg.norm(u @ lattice) > np.linalg.norm(v @ lattice):
            u, v = v, u
        x, y = u @ lattice, v @ lattice
        along = float((x @ y) / (x @ x))
        if abs(along) <= 0.5 + 1e-9:  # a tie must not go round and round
            break
        v = v - round(along) * u
    basis = np.array([u, v])
    return basis if np.linalg.det(basis @ lattice) > 0 else np.array([u, -v])


def _least_misfit(one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Misfit of pairs of cells, (n, 2, 2) each, over the changes of basis; and which of these it was."""
    metric = np.linalg.inv(one @ one.transpose(0, 2, 1))
    other = two @ two.transpose(0, 2, 1)
    trace = np.einsum("nij,tia,nab,tjb->nt", metric, _TURNS, other, _TURNS, optimize=True)
    turn = trace.argmin(axis=1)  # the product of the two stretches is the same for all
    half, product = trace.min(axis=1) / 2, np.linalg.det(other) * np.linalg.det(metric)
    root = np.sqrt(np.maximum(half**2 - product, 0.0))
    squares = np.stack([half - root, half + root])
    return np.abs(0.5 * np.log(np.maximum(squares, 1e-12))).max(axis=0), turn


def _join(
    first: np.ndarray, second: np.ndarray, one: np.ndarray, two: np.ndarray, misfit: float, share: float
) -> Match:
    start, end = one @ first, two @ second
    left, values, _ = np.linalg.svd(np.linalg.solve(start, end))  # start @ F = end, F = stretch @ rotation

    def stretch(power: float) -> np.ndarray:
        return left @ np.diag(values**power) @ left.T

    return Match(
        first=one,
        second=two,
        cell=start @ stretch(share),
        strain_first=stretch(share) - np.eye(2),
        strain_second=stretch(share - 1) - np.eye(2),
        misfit=misfit,
    )
